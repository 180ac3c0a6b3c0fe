"""Measures every module of the Python standard library, one job per module."""
