"""The jobs that the integration tests' workers serve."""

from __future__ import annotations

import sys

from tenure.client import AsyncJob, Job, job


@job(name="double")
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


@job(name="size")
def size(text: str) -> int:
    """How long the text is."""
    return len(text)


@job(name="modules_here")
async def modules_here() -> list[str]:
    """What the worker's process has imported: coroutines run there."""
    return sorted(sys.modules)


@job(name="modules_in_child")
def modules_in_child() -> list[str]:
    """What a process that runs plain functions has imported."""
    return sorted(sys.modules)


Modules = Job[[], list[str]] | AsyncJob[[], list[str]]
