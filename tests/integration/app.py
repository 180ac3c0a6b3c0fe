"""The jobs that the integration tests' workers serve."""

from __future__ import annotations

import sys
import threading

from tenure.client import AsyncJob, Client, Job, job


@job(name="double")
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


@job(name="size")
def size(text: str) -> int:
    """How long the text is."""
    return len(text)


@job(name="count_jobs")
def count_jobs() -> int:
    """How many jobs there are in the cluster that runs this one, which is a client of it."""
    with Client() as client:
        return sum(client.count().values())


@job(name="oversleep")
def oversleep() -> None:
    """Never asks whether it should stop, and does not end before its process."""
    threading.Event().wait()


@job(name="modules_here")
async def modules_here() -> list[str]:
    """What the worker's process has imported: coroutines run there."""
    return sorted(sys.modules)


@job(name="modules_in_child")
def modules_in_child() -> list[str]:
    """What a process that runs plain functions has imported."""
    return sorted(sys.modules)


Modules = Job[[], list[str]] | AsyncJob[[], list[str]]
