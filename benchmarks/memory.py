"""What a queued job costs the master in memory, beyond its payload."""

from __future__ import annotations

from typing import Final

import uvloop

from benchmarks.jobs import noop
from benchmarks.payload import PAYLOAD_BYTES, payload
from benchmarks.process import ProcessGroup, workplace
from benchmarks.store import fresh_store
from benchmarks.table import Line, at_most
from tenure.client import AsyncClient

_CHUNK: Final = 5_000
_BYTES_MAX: Final = 1024


def measure(jobs: int) -> list[Line]:
    """Queues this many jobs that no worker takes, and looks at the master's resident memory."""
    with (
        workplace() as folder,
        fresh_store("sqlite", folder) as store,
        ProcessGroup(folder) as group,
    ):
        master = group.tenure("master", "master", "--store", store, "--listen", "127.0.0.1:0")
        address = master.expect("serving")["address"]
        # The first ones make the buffers that the others share.
        uvloop.run(_queue(address, 0, _CHUNK))
        before = master.resident_bytes()
        uvloop.run(_queue(address, _CHUNK, jobs))
        each = (master.resident_bytes() - before) / jobs - PAYLOAD_BYTES
    return [at_most(f"a queued job beyond its payload ({jobs:,})", each, _BYTES_MAX, "B", digits=0)]


async def _queue(address: str, first: int, count: int) -> None:
    async with AsyncClient(address, timeout=60) as client:
        for start in range(first, first + count, _CHUNK):
            stop = min(start + _CHUNK, first + count)
            await client.map(noop, [payload(number) for number in range(start, stop)])
