"""Readers of logs through failovers and dead workers, in one process on virtual time."""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise

import pytest

from tenure.client import AsyncJobHandle, JobState, LogLine, current_job, job
from tenure.client.context import listener
from tenure.protocol.vocabulary import LogStream
from tenure.testing.cluster import SimCluster, simulated_cluster
from tenure.testing.nodes import SimWorker
from tenure.testing.process import elapse, run_processes

STEPS = 60


@job
async def talk() -> int:
    """Says a line every second."""
    attempt = current_job().attempt
    for step in range(STEPS):
        listen = listener()
        assert listen is not None
        listen(LogStream.LOGGING, logging.INFO, f"{attempt}/{step}")
        await elapse(1)
    return attempt


async def follow(handle: AsyncJobHandle[int], told: list[LogLine]) -> None:
    """Reads until the job has ended."""
    async for line in handle.logs(follow=True):
        told.append(line)


def judge(told: list[LogLine]) -> None:
    """No line was told twice or out of its order, and each is what was said."""
    places = [(line.attempt, line.number) for line in told]
    assert all(a < b for a, b in pairwise(places))
    assert all(line.text == f"{line.attempt}/{line.number - 1}" for line in told)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_reader_lives_through_failovers(seed: int) -> None:
    """Leaders die, the job runs on, and its reader misses no line: the worker holds them all."""

    async def main() -> None:
        told: list[LogLine] = []
        async with simulated_cluster(seed=seed, jobs=[talk], slots=2) as cluster:
            await cluster.elected()
            handle = await cluster.client().submit(talk)
            async with asyncio.TaskGroup() as group:
                group.create_task(follow(handle, told))
                for _ in range(2):
                    await elapse(10)
                    (await cluster.elected()).kill()
                    await cluster.elected()
                    cluster.restart_dead()
            assert await handle.status() is JobState.COMPLETED
            attempts = await handle.result()
            assert not cluster.network.failures
        judge(told)
        assert attempts == 1
        assert [line.number for line in told] == [*range(1, STEPS + 1)]

    run_processes(main, limit_s=600)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_reader_goes_on_with_the_next_attempt(seed: int) -> None:
    """Its worker dies: what was told stays told, and the next attempt is read from its first line
    to its last; who reads later gets what is kept of that.
    """

    async def main() -> None:
        told: list[LogLine] = []
        later: list[LogLine] = []
        async with simulated_cluster(seed=seed, jobs=[talk], slots=2) as cluster:
            await cluster.elected()
            handle = await cluster.client().submit(talk)
            async with asyncio.TaskGroup() as group:
                group.create_task(follow(handle, told))
                await cluster.until(lambda: len(told) >= 10)
                holder_of(cluster).kill()
                await elapse(30)
                cluster.restart_dead()
            later = [line async for line in handle.logs()]
            assert not cluster.network.failures
        judge(told)
        judge(later)
        last = told[-1].attempt
        assert last > 1
        first = [line.number for line in told if line.attempt == 1]
        assert first == [*range(1, len(first) + 1)]
        assert [line.number for line in told if line.attempt == last] == [*range(1, STEPS + 1)]
        assert [line.number for line in later if line.attempt == last] == [*range(1, STEPS + 1)]

    run_processes(main, limit_s=600)


def test_what_was_said_before_a_drain_is_kept() -> None:
    """At the drain's timeout the job is handed back, uncharged: what the attempt had said is there
    beside the next one's, and whoever follows has missed nothing of it.
    """

    async def main() -> None:
        told: list[LogLine] = []
        async with simulated_cluster(seed=1, jobs=[talk], slots=2, workers=2) as cluster:
            await cluster.elected()
            client = cluster.client()
            handle = await client.submit(talk)
            async with asyncio.TaskGroup() as group:
                group.create_task(follow(handle, told))
                await cluster.until(lambda: len(told) >= 5)
                name = (await client.describe(handle.id)).attempts[-1].worker
                await client.workers.drain(name, wait=True)
            later = [line async for line in handle.logs()]
            job = await client.describe(handle.id)
            assert job.attempts_charged == job.losses_charged == 0
            assert not cluster.network.failures
        judge(told)
        judge(later)
        assert [(line.attempt, line.number) for line in told] == [
            (line.attempt, line.number) for line in later
        ]
        assert {line.attempt for line in later} == {1, 2}

    run_processes(main, limit_s=600)


def holder_of(cluster: SimCluster) -> SimWorker:
    """The worker that runs the job."""
    for worker in cluster.workers.values():
        if worker.node is not None and worker.node._arbiter.running:
            return worker
    raise AssertionError("expected a worker to run the job")
