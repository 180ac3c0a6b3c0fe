"""The jobs of the measurements of one worker, a kind of executor each: `benchmarks.worker_jobs`."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from benchmarks.payload import checksum
from tenure.client import current_job, job


@job(name="worker.async")
async def in_loop(data: bytes) -> int:
    """Does nothing but prove that the payload came through."""
    return checksum(data)


@job(name="worker.thread")
def in_thread(data: bytes) -> int:
    """The same in a thread."""
    return checksum(data)


@job(name="worker.process", executor="process")
def in_child(data: bytes) -> int:
    """The same in a child."""
    return checksum(data)


@job(name="worker.batch", batch=100, linger_ms=5)
def in_batch(items: list[bytes]) -> list[int]:
    """The same, a hundred at a time."""
    return [checksum(data) for data in items]


@job(name="worker.batch_async", batch=100, linger_ms=5)
async def in_async_batch(items: list[bytes]) -> list[int]:
    """The same in the loop."""
    return [checksum(data) for data in items]


@job(name="worker.heed_async")
async def heed_async(seconds: float) -> int:
    """When it learned that it was cancelled, by CLOCK_MONOTONIC in ns."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        return time.monotonic_ns()
    return 0


@job(name="worker.heed_thread")
def heed_thread(seconds: float) -> int:
    """The same of a plain function that asks every millisecond."""
    end = time.monotonic() + seconds
    me = current_job()
    while not me.cancelled and time.monotonic() < end:
        time.sleep(0.001)
    return time.monotonic_ns()


@job(name="worker.heed_process", executor="process")
def heed_process(seconds: float) -> int:
    """The same in a child."""
    return heed_thread.fn(seconds)  # type: ignore[no-any-return]


@job(name="worker.busy", executor="process")
def busy(note: str) -> None:
    """Notes who it is and when it began, and computes for ever."""
    path = Path(note)
    path.with_suffix(".new").write_text(f"{os.getpid()} {time.monotonic_ns()}")
    path.with_suffix(".new").rename(path)
    while True:
        checksum(b"busy")
