"""Jobs that neither end in time nor listen: what they cost their worker, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from tenure.client import AsyncClient, AsyncJobHandle, JobFailed, Retry, job
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.testing.cluster import SimCluster, simulated_cluster
from tenure.testing.nodes import SimWorker
from tenure.testing.process import current_process, elapse, run_processes
from tenure.worker.crew import LOST_MIN
from tenure.worker.exits import EXIT_RESTART

#: Long enough for a timeout of a second, and the grace behind it.
GIVEN_UP_S = 7.0


@job(timeout=timedelta(seconds=1), retry=Retry(max_attempts=1))
async def never_listen(seconds: float) -> None:
    """Goes on for so long, whatever is asked of it."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + seconds
    while loop.time() < until_s:
        try:
            await elapse(until_s - loop.time())
        except asyncio.CancelledError:
            process = current_process()
            if process is None or process.killed:
                raise


@job
async def nap(seconds: float) -> float:
    """Sleeps."""
    await elapse(seconds)
    return seconds


def play(work: Callable[[SimCluster, AsyncClient], Awaitable[None]], **options: Any) -> None:
    """Runs a piece of work with a client of a cluster whose only worker has registered."""

    async def main() -> None:
        given = {"masters": 1, "workers": 1, **options}
        async with simulated_cluster(seed=3, jobs=[nap, never_listen], **given) as cluster:
            client = cluster.client()
            await (await client.submit(nap, 0.0)).result()
            await work(cluster, client)

    run_processes(main, limit_s=3_600)


def lost(cluster: SimCluster) -> int:
    """How many slots the worker has lost by now."""
    crew = cluster.workers["w1"].crew
    assert crew is not None
    return crew.lost_slots


async def lose(client: AsyncClient, jobs: int, seconds: float) -> None:
    """Has so many jobs run past their timeouts, and on."""
    handles = [await client.submit(never_listen, seconds) for _ in range(jobs)]
    for handle in handles:
        with pytest.raises(JobFailed):
            await handle.result()


def test_a_lost_slot_is_replaced_and_its_late_end_frees_no_other() -> None:
    """As many jobs run at once as there are slots, while lost code runs and when it has ended."""

    async def work(cluster: SimCluster, client: AsyncClient) -> None:
        executor = cluster.workers["w1"].executor
        assert executor is not None
        await lose(client, LOST_MIN, 30.0)
        await elapse(GIVEN_UP_S)
        assert lost(cluster) == LOST_MIN
        handles = [await client.submit(nap, 20.0) for _ in range(6)]
        await elapse(5)
        assert len(executor.running) == LOST_MIN + 2
        await elapse(25)
        assert lost(cluster) == 0
        assert len(executor.running) == 2
        for handle in handles:
            await handle.result()
        assert lost(cluster) == 0
        assert cluster.workers["w1"].running

    play(work, slots=2)


async def restarted(cluster: SimCluster) -> SimWorker:
    """Waits until the worker has ended, and starts it as who manages services does."""
    worker = cluster.workers["w1"]
    await cluster.until(lambda: worker.process.ended, within_s=120)
    assert worker.process.status == EXIT_RESTART
    assert worker.to_restart
    cluster.start(worker)
    return worker


async def attempts(client: AsyncClient, handle: AsyncJobHandle[Any]) -> list[int]:
    """How each attempt of a job has ended; nothing was charged."""
    described = await client.describe(handle.id)
    assert (described.attempts_charged, described.losses_charged) == (0, 0)
    return [attempt.outcome for attempt in described.attempts]


def test_with_too_many_lost_slots_it_finishes_what_runs_and_starts_anew() -> None:
    """One more than it puts up with: nothing new begins, and what will never end goes with it."""

    async def work(cluster: SimCluster, client: AsyncClient) -> None:
        runs = await client.submit(nap, 20.0)
        await lose(client, LOST_MIN + 1, 10_000.0)
        waits = await client.submit(nap, 0.0)
        await runs.result()
        await restarted(cluster)
        await waits.result()
        assert lost(cluster) == 0
        for handle in (runs, waits):
            assert await attempts(client, handle) == [AttemptOutcome.COMPLETED]

    play(work, slots=4)


def test_what_its_drain_does_not_wait_for_is_handed_back() -> None:
    """It runs again when the worker is back, and no attempt was charged."""

    async def work(cluster: SimCluster, client: AsyncClient) -> None:
        long = await client.submit(nap, 60.0)
        await lose(client, LOST_MIN + 1, 10_000.0)
        await restarted(cluster)
        assert await long.result() == 60.0
        assert await attempts(client, long) == [AttemptOutcome.RELEASED, AttemptOutcome.COMPLETED]

    play(work, slots=4, drain_ms=5_000)


def test_asked_to_end_it_ends_for_good() -> None:
    """Lost slots keep no process from its end, and do not bring it back."""

    async def work(cluster: SimCluster, client: AsyncClient) -> None:
        worker = cluster.workers["w1"]
        await lose(client, LOST_MIN, 10_000.0)
        await elapse(GIVEN_UP_S)
        assert lost(cluster) == LOST_MIN
        worker.stop()
        await cluster.until(lambda: worker.process.ended)
        assert worker.process.status == 0
        assert not worker.to_restart

    play(work, slots=4)
