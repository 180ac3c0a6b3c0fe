"""Watches through failovers, in one process on virtual time: nothing missed, nothing told twice."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from tenure.client import AsyncClient, JobEvent, JobState
from tenure.master.node.sizes import LogSizes
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason
from tenure.testing.cluster import SimCluster, simulated_cluster
from tenure.testing.process import elapse, run_processes
from tenure.v1 import journal_pb2
from tests.histories.state import Dump, recovered
from tests.simulation.run import Run

JOBS = 40
LIFE = (JobState.PENDING, JobState.RUNNING, JobState.COMPLETED)


async def follow(client: AsyncClient, cursor: str | None, told: list[JobEvent], ends: int) -> None:
    """Watches until so many jobs have ended."""
    async for event in client.watch(cursor=cursor):
        told.append(event)
        ends -= event.state is JobState.COMPLETED
        if not ends:
            return


async def judge(cluster: SimCluster, told: list[JobEvent]) -> None:
    """What was told is each change in the journal, once, in order; and that is whole lives."""
    dump = Dump(cluster.journal())
    changes = (await recovered(dump)).changes
    assert changes.after_seq == 0
    assert [(event.job_id, event.state) for event in told] == [
        (change.job_id, change.state) for change in changes.behind(0)
    ]
    lives: dict[str, list[JobState]] = {}
    for event in told:
        lives.setdefault(event.job_id, []).append(event.state)
    assert len(lives) == JOBS
    for life in lives.values():
        assert (life[0], life[-2], life[-1]) == LIFE
        assert all(state is not following for state, following in pairwise(life))


async def lose_leaders(cluster: SimCluster, count: int) -> None:
    """Kills the leader, waits for the next one, and kills that too."""
    for _ in range(count):
        await elapse(10)
        (await cluster.elected()).kill()
        # It is dead at once: the next to lead is another one.
        await cluster.elected()
        cluster.restart_dead()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_watch_lives_through_failovers(seed: int) -> None:
    """Whoever watches hears each state of each job once, whichever leader tells it."""

    async def main() -> None:
        run = Run()
        told: list[JobEvent] = []
        async with simulated_cluster(seed=seed, jobs=[run.echo], slots=8) as cluster:
            watcher, client = cluster.client(), cluster.client()
            await cluster.elected()
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(follow(watcher, None, told, JOBS))
                await elapse(1)
                for number in range(JOBS):
                    group.create_task(run.one(client, f"job {number}", 0.7 * number))
                await lose_leaders(cluster, 2)
                await watching
            run.judge(cluster)
            await judge(cluster, told)

    run_processes(main, limit_s=240)


def test_a_cursor_is_good_for_the_next_leader() -> None:
    """A watch that was ended before a failover goes on after it behind its last change."""

    async def main() -> None:
        run = Run()
        told: list[JobEvent] = []
        async with simulated_cluster(seed=4, jobs=[run.echo]) as cluster:
            watcher, client = cluster.client(), cluster.client()
            await cluster.elected()
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(follow(watcher, None, told, 5))
                await elapse(1)
                for number in range(JOBS):
                    group.create_task(run.one(client, f"job {number}", 0.5 * number))
                await watching
                await lose_leaders(cluster, 1)
            # All is over, and nobody has watched meanwhile.
            await follow(cluster.client(), told[-1].cursor, told, JOBS - 5)
            await judge(cluster, told)

    run_processes(main, limit_s=240)


def test_a_cursor_behind_a_truncation_is_refused_and_list_and_watch_miss_nothing() -> None:
    """CURSOR_EXPIRED, end to end: after snapshots and a failover, list and watch go on from now.

    Who begins to watch before listing hears of each job at least once: what ended before is in the
    list, what ends later is told.
    """

    async def main() -> None:
        run = Run()
        sizes = LogSizes(log_bytes_min=4 * 1024)
        async with simulated_cluster(seed=5, jobs=[run.echo], slots=8, log_sizes=sizes) as cluster:
            watcher, client = cluster.client(), cluster.client()
            await cluster.elected()
            early: list[JobEvent] = []
            async with asyncio.TaskGroup() as group:
                group.create_task(follow(watcher, None, early, 1))
                await elapse(1)
                await run.one(client, "first", 0.1)
            for number in range(2 * JOBS):
                await run.one(client, f"job {number}", 0.0)
            await cluster.until(lambda: number_of(cluster.journal()[0]) > 0)
            (await cluster.elected()).kill()
            await cluster.elected()
            with pytest.raises(Rejected) as caught:
                await follow(watcher, early[-1].cursor, [], 1)
            assert caught.value.reason is Reason.CURSOR_EXPIRED

            told: list[JobEvent] = []
            async with asyncio.TaskGroup() as group:
                group.create_task(follow(watcher, None, told, JOBS))
                await elapse(1)
                for number in range(JOBS):
                    group.create_task(run.one(client, f"later {number}", 0.0))
                listed = {job.job_id async for job in watcher.list()}
            known = listed | {event.job_id for event in told}
            assert len(known) == 1 + 3 * JOBS

    run_processes(main)


def number_of(batch: bytes) -> int:
    """Which batch it is."""
    return journal_pb2.JournalBatch.FromString(batch).number
