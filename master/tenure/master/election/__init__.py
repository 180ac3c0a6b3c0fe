"""The election: who leads a partition, and proof of it."""
