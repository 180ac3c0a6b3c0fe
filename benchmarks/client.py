"""The client of the throughput measurement: submits through the SDK, waits, checks every job.

    python -m benchmarks.client --master HOST:PORT --jobs N

Prints `begin` before the first measured submit, `end` after the last result, and `checked` with
every broken promise found when all is read back.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import uvloop

from benchmarks.jobs import noop
from benchmarks.payload import checksum, payload
from benchmarks.pipe.client import WARM_UP_JOBS, say
from tenure.client import AsyncClient, AsyncJobHandle, AttemptOutcome, JobState

#: Submits jobs with these payloads, and returns their handles in order.
Submit = Callable[[AsyncClient, Sequence[bytes]], Awaitable[Sequence[AsyncJobHandle[Any]]]]

#: Jobs of one `submit_many`, and how many may be unfinished at once: a window like the pipe's. It
#: is one of jobs, whichever: those of a chunk may end late where queues and priorities order them.
_CHUNK_JOBS = 1_000
_WINDOW = 8 * _CHUNK_JOBS


async def submit_plain(client: AsyncClient, data: Sequence[bytes]) -> Sequence[AsyncJobHandle[Any]]:
    """In one call, with nothing but defaults."""
    return await client.map(noop, data)


class Run:
    """What was acknowledged, and what went wrong with it.

    Args:
        client: Submits and waits.
        submit: How.
    """

    def __init__(self, client: AsyncClient, submit: Submit = submit_plain) -> None:
        self._client = client
        self._submit = submit
        self._next = 0
        self._unfinished = 0
        self._ended = asyncio.Event()
        #: The id of each accepted submit, in no order.
        self.acked: list[str] = []
        self.violations: list[str] = []

    async def run(self, jobs: int) -> None:
        """Submits this many jobs and waits for all results."""
        last = self._next + jobs
        async with asyncio.TaskGroup() as group:
            while (first := self._next) < last:
                self._next = min(first + _CHUNK_JOBS, last)
                while self._unfinished + self._next - first > _WINDOW:
                    self._ended.clear()
                    await self._ended.wait()
                self._unfinished += self._next - first
                group.create_task(self._chunk(range(first, self._next)))

    async def _chunk(self, numbers: range) -> None:
        client = self._client
        data = [payload(number) for number in numbers]
        handles = await self._submit(client, data)
        ids = [handle.id for handle in handles]
        expected = dict(zip(ids, map(checksum, data), strict=True))
        self.acked += ids
        async for handle in client.as_completed(handles):
            found = await handle.result()
            if expected.pop(handle.id, None) != found:
                self.violations.append(f"S3 {handle.id}: answered twice, or a wrong checksum")
            self._unfinished -= 1
            self._ended.set()
        if expected:
            self.violations.append(f"S1: {len(expected)} jobs of a chunk have no result")

    async def check(self, name: str = noop.name) -> None:
        """Reads every job back: each acknowledged one is there once, completed once."""
        seen: Counter[str] = Counter()
        async for job in self._client.list(name=name):
            seen[job.job_id] += 1
            completed = sum(
                int(attempt.outcome) == AttemptOutcome.COMPLETED for attempt in job.attempts
            )
            if int(job.state) != JobState.COMPLETED:
                self.violations.append(f"S1 {job.job_id}: not terminal when all was done")
            elif completed != 1:
                self.violations.append(f"S3 {job.job_id}: {completed} accepted results")
        acked = Counter(self.acked)
        for job_id, count in acked.items():
            if count != 1:
                self.violations.append(f"S1 {job_id}: one id for {count} submits")
            if seen[job_id] != 1:
                self.violations.append(f"S1 {job_id}: listed {seen[job_id]} times")
        strangers = seen.keys() - acked.keys()
        self.violations += [f"S2 {job_id}: nobody submitted it" for job_id in strangers]


async def measure(address: str, jobs: int) -> None:
    """Warms up, runs the measured jobs, checks them."""
    async with AsyncClient(address, timeout=60) as client:
        run = Run(client)
        await run.run(WARM_UP_JOBS)
        say("begin")
        began = time.perf_counter()
        await run.run(jobs)
        say("end", seconds=time.perf_counter() - began, jobs=jobs)
        await run.check()
        say("checked", violations=run.violations[:20], count=len(run.violations))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--master", required=True)
    parser.add_argument("--jobs", type=int, required=True)
    arguments = parser.parse_args()
    uvloop.run(measure(arguments.master, arguments.jobs))
