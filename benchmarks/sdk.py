"""What the SDK costs its users: the import, one plain call, ten thousand results awaited at once.

As a program (`python -m benchmarks.sdk ADDRESS`) it awaits those results and prints one JSON line.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
from datetime import timedelta
from typing import Final

import psutil  # type: ignore[import-untyped]

from benchmarks.jobs import stamp
from benchmarks.payload import payload
from benchmarks.process import ROOT, ProcessGroup, workplace
from benchmarks.table import Line, at_most
from tenure.client import AsyncClient, Client

_WARM_UP: Final = 50
_CALLS: Final = 500
_IMPORTS: Final = 7
_HANDLES: Final = 10_000
#: The jobs begin when all of them are awaited.
_DELAY: Final = timedelta(seconds=4)
_IMPORT_MS: Final = 120.0
_CALL_P50_MS: Final = 6.0
_HANDLES_MB: Final = 30.0
_HANDLE_US: Final = 30.0


def measure() -> list[Line]:
    """Measures all three; the last two on `tenure dev`."""
    with workplace() as folder, ProcessGroup(folder) as group:
        dev = group.tenure(
            "dev", "dev", "benchmarks.jobs", "--ephemeral", "--listen", "127.0.0.1:0"
        )
        address = dev.expect("serving")["address"]
        dev.expect("registered")
        calls = _call_one_by_one(address)
        awaited = group.start("handles", "benchmarks.sdk", address).expect("awaited")
    many = f"{_HANDLES:,} results awaited at once"
    return [
        at_most("import tenure.client, median", _import_ms(), _IMPORT_MS, "ms", digits=0),
        at_most("Client: submit + result, p50", statistics.median(calls), _CALL_P50_MS, "ms"),
        at_most(f"{many}, memory", awaited["mb"], _HANDLES_MB, "MB"),
        at_most(f"{many}, CPU each", awaited["cpu_us"], _HANDLE_US, "µs"),
    ]


def _import_ms() -> float:
    """Milliseconds of the import in a fresh interpreter."""
    program = (
        "import time; began = time.perf_counter(); import tenure.client;"
        "print((time.perf_counter() - began) * 1e3)"
    )
    return statistics.median(
        float(subprocess.check_output([sys.executable, "-c", program], cwd=ROOT))
        for _ in range(_IMPORTS)
    )


def _call_one_by_one(address: str) -> list[float]:
    """Milliseconds of each call."""
    times = []
    with Client(address) as client:
        for number in range(_WARM_UP + _CALLS):
            began = time.perf_counter()
            client.submit(stamp, payload(number)).result(timeout=30)
            times.append((time.perf_counter() - began) * 1e3)
    return times[_WARM_UP:]


async def _await_many(address: str) -> dict[str, object]:
    """What ten thousand handles cost from the first wait to the last result."""
    process = psutil.Process()
    async with AsyncClient(address) as client:
        later = stamp.options(delay=_DELAY)
        handles = await client.submit_many(later, ((payload(n),) for n in range(_HANDLES)))
        gc.collect()
        rss, cpu_s = process.memory_info().rss, time.process_time()
        async with asyncio.TaskGroup() as group:
            for handle in handles:
                group.create_task(handle.result())
        cpu_us = (time.process_time() - cpu_s) * 1e6 / _HANDLES
        return {
            "event": "awaited",
            "mb": (process.memory_info().rss - rss) / 1e6,
            "cpu_us": cpu_us,
        }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_await_many(sys.argv[1]))), flush=True)
