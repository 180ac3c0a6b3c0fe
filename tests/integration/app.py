"""The jobs that the integration tests' workers serve."""

from __future__ import annotations

from tenure.client import job


@job(name="double")
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


@job(name="size")
def size(text: str) -> int:
    """How long the text is."""
    return len(text)
