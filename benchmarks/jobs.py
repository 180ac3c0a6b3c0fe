"""The jobs that the measurements run: `tenure worker benchmarks.jobs`."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from benchmarks.payload import checksum
from tenure.client import job


@job(name="bench.noop")
async def noop(data: bytes) -> int:
    """Does nothing but prove that the payload came through."""
    return checksum(data)


#: By the last byte of a job's number: a tenth of the jobs have a limit key, of ten.
_LIMIT_KEYS: Final = ["" if byte % 10 else f"k{byte // 10 % 10}" for byte in range(256)]


def limit_key(data: bytes) -> str:
    """The limit key of a job with this payload."""
    return _LIMIT_KEYS[data[7]]


@job(name="bench.mixed", limit_key=limit_key)
async def mixed(data: bytes) -> int:
    """As ``noop``, for jobs of all kinds."""
    return checksum(data)


@job(name="bench.stamp")
async def stamp(data: bytes) -> int:
    """When its code started, by the machine's CLOCK_MONOTONIC in ns, which every process shares."""
    return time.monotonic_ns()


@job(name="bench.nap")
async def nap(seconds: float) -> None:
    """Occupies a slot without using the CPU."""
    await asyncio.sleep(seconds)
