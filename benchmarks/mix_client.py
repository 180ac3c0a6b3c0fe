"""The client of the mix: sets its queues, then submits plain jobs, and then jobs of the mix.

    python -m benchmarks.mix_client --master HOST:PORT --jobs N

For N jobs of either kind it prints `begin` before the first submit and `end` after the last result,
and in the end `checked` with how many promises were broken.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from random import Random
from typing import Any

import uvloop

from benchmarks.client import Run, Submit, submit_plain
from benchmarks.jobs import mixed
from benchmarks.mix import CALL_JOBS, call_options, queues, tenant_weights
from benchmarks.pipe.client import WARM_UP_JOBS, say
from tenure.client import AsyncClient, AsyncJobHandle

#: The settings of so many queues are sent at once.
_SETTERS = 32
#: What the jobs before leave behind is done in this time.
_PAUSE_S = 0.3


def mixing(draw: Random) -> Submit:
    """Submits jobs in calls of some jobs of one queue each, several calls at once."""

    async def submit(client: AsyncClient, data: Sequence[bytes]) -> Sequence[AsyncJobHandle[Any]]:
        calls = [data[first : first + CALL_JOBS] for first in range(0, len(data), CALL_JOBS)]
        async with asyncio.TaskGroup() as group:
            sent = [group.create_task(_map(client, some, call_options(draw))) for some in calls]
        return [handle for each in sent for handle in each.result()]

    return submit


async def _map(
    client: AsyncClient, data: Sequence[bytes], options: dict[str, Any]
) -> Sequence[AsyncJobHandle[Any]]:
    return await client.map(mixed.options(**options), data)


async def set_up(client: AsyncClient) -> None:
    """Gives the tenants and queues of the mix their settings."""
    for tenant, weight in tenant_weights().items():
        await client.tenants.set(tenant, weight=weight)
    waiting = queues()

    async def work() -> None:
        while waiting:
            queue = waiting.pop()
            await client.queues.set(queue.name, tenant=queue.tenant, **queue.settings)

    async with asyncio.TaskGroup() as group:
        for _ in range(_SETTERS):
            group.create_task(work())


async def measure(address: str, jobs: int) -> None:
    """Warms up, runs jobs of both kinds, checks them."""
    async with AsyncClient(address, timeout=60) as client:
        await set_up(client)
        kinds: dict[str, Run] = {
            "plain": Run(client, submit_plain),
            "mixed": Run(client, mixing(Random(3))),
        }
        for run in kinds.values():
            await run.run(WARM_UP_JOBS)
        for kind, run in kinds.items():
            await asyncio.sleep(_PAUSE_S)
            say("begin", kind=kind)
            began = time.perf_counter()
            await run.run(jobs)
            say("end", kind=kind, seconds=time.perf_counter() - began, jobs=jobs)
        await kinds["plain"].check()
        await kinds["mixed"].check(mixed.name)
        say("checked", count=sum(len(run.violations) for run in kinds.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--master", required=True)
    parser.add_argument("--jobs", type=int, required=True)
    arguments = parser.parse_args()
    uvloop.run(measure(arguments.master, arguments.jobs))
