"""A data pipeline: ingest, validate, transform, features, analytics, report; an error branch."""
