"""The jobs that the measurements run: `tenure worker benchmarks.jobs`."""

from __future__ import annotations

import asyncio
import time

from benchmarks.payload import checksum
from tenure.client import job


@job(name="bench.noop")
async def noop(data: bytes) -> int:
    """Does nothing but prove that the payload came through."""
    return checksum(data)


@job(name="bench.stamp")
async def stamp(data: bytes) -> int:
    """When its code started, by the machine's CLOCK_MONOTONIC in ns, which every process shares."""
    return time.monotonic_ns()


@job(name="bench.nap")
async def nap(seconds: float) -> None:
    """Occupies a slot without using the CPU."""
    await asyncio.sleep(seconds)
