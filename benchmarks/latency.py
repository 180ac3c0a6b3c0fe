"""Latency on an idle node with a SQLite store: one job at a time, nothing else to do.

Two times from the call of `submit`: to its return, which means that the job is durable, and to the
first line of the job's own code (every process of a machine shares CLOCK_MONOTONIC).
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from typing import Final

import uvloop

from benchmarks.jobs import stamp
from benchmarks.payload import payload
from benchmarks.process import ProcessGroup, workplace
from benchmarks.store import fresh_store
from benchmarks.table import Line, at_most
from tenure.client import AsyncClient

_WARM_UP: Final = 50
_PAUSE_S_MAX: Final = 0.01
_ACK_P50_MS: Final = 3.0
_START_P50_MS: Final = 5.0


def measure(jobs: int) -> list[Line]:
    """Measures this many jobs, one after the other."""
    with (
        workplace() as folder,
        fresh_store("sqlite", folder) as store,
        ProcessGroup(folder) as group,
    ):
        master = group.tenure("master", "master", "--store", store, "--listen", "127.0.0.1:0")
        address = master.expect("serving")["address"]
        worker = group.tenure("worker", "worker", "benchmarks.jobs", "--master", address)
        worker.expect("registered")
        acks, starts = uvloop.run(_submit_one_by_one(address, jobs))
    return [
        at_most("submit → durable ack, p50", statistics.median(acks), _ACK_P50_MS, "ms", digits=2),
        Line(what="submit → durable ack, p99", value=f"{_p99(acks):.2f} ms"),
        at_most(
            "submit → handler start, p50", statistics.median(starts), _START_P50_MS, "ms", digits=2
        ),
        Line(what="submit → handler start, p99", value=f"{_p99(starts):.2f} ms"),
    ]


async def _submit_one_by_one(address: str, jobs: int) -> tuple[list[float], list[float]]:
    """Milliseconds to the ack and to the start, of each job."""
    acks, starts = [], []
    async with AsyncClient(address) as client:
        for number in range(_WARM_UP + jobs):
            began = time.monotonic_ns()
            handle = await client.submit(stamp, payload(number))
            acked = time.monotonic_ns()
            started = await handle.result(timeout=30)
            if number >= _WARM_UP:
                acks.append((acked - began) / 1e6)
                starts.append((started - began) / 1e6)
            # Real calls come at odd moments, not in step with somebody's timer.
            await asyncio.sleep(random.random() * _PAUSE_S_MAX)
    return acks, starts


def _p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[98]
