"""A crowd of workers and a long queue at a failover, in one process on virtual time.

``tests/chaos/test_crowd.py`` has it for real, with a thousand workers and a hundred thousand jobs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import pytest

from tenure.client import AsyncJobHandle
from tenure.testing.cluster import SimCluster, simulated_cluster
from tenure.testing.process import run_processes
from tests.oracles.facts import token_of
from tests.oracles.history import END, START
from tests.oracles.pace import most_within, ramp_allows
from tests.simulation.ledger import Desk
from tests.simulation.run import Run

_WORKERS: Final = 50
_SLOTS: Final = 24
_JOBS: Final = 5_000
_BATCH: Final = 500
_HOLD_S: Final = 1.0
_LEADER_S: Final = 15.0
#: So long before it is announced, the first grant may have been given.
_ANNOUNCED_S: Final = 0.005
#: The longest wait before a first redial, and before each later one.
_FIRST_S, _LATER_S = 0.5, 1.0


@pytest.mark.fault(52)
def test_row_52_fifty_workers_and_five_thousand_ready_jobs_at_a_failover() -> None:
    """Workers come back one by one, grants ramp up, and everything is done once."""

    async def main() -> None:
        run = Run()
        rows = run.ledger.rows
        async with simulated_cluster(
            seed=52, jobs=[run.echo], workers=_WORKERS, slots=_SLOTS
        ) as cluster:
            desk = Desk(run.ledger, cluster.client())
            leader = await cluster.elected()
            names = [(f"job {number}", _HOLD_S) for number in range(_JOBS)]
            handles: list[AsyncJobHandle[str]] = []
            for first in range(0, _JOBS, _BATCH):
                handles += await desk.submit_many(run.echo, names[first : first + _BATCH])
            submitted = len(rows)
            await cluster.until(lambda: len(rows) > submitted)
            killed_s = asyncio.get_running_loop().time()
            leader.kill()
            cluster.start(leader)
            await cluster.elected(within_s=_LEADER_S)
            async with asyncio.TaskGroup() as group:
                for handle in handles:
                    group.create_task(desk.result(handle))
            run.judge(cluster)
            assert len(handles) == _JOBS
            assert len({row.job for row in rows if row.f == END}) == _JOBS
            came_back_one_by_one(cluster, leader.host, killed_s)
            ramped_up(run, said_s(cluster, "first_grant", killed_s) - _ANNOUNCED_S)

    run_processes(main)


def came_back_one_by_one(cluster: SimCluster, host: str, killed_s: float) -> None:
    """All workers dialled the restarted master again in time, and no crowd of them at once.

    Whoever came before it listened came a second time.
    """
    times = [
        said.at_s - killed_s
        for said in cluster.announcements
        if said.event == "registered" and said.fields["address"] == host and said.at_s > killed_s
    ]
    assert len(times) == _WORKERS
    assert max(times) < _FIRST_S + _LATER_S
    assert most_within(times, _FIRST_S / 10) <= _WORKERS / 4


def ramped_up(run: Run, opened_s: float) -> None:
    """The new leader's grants followed the ramp: neither all at once, nor slower than it."""
    starts = [row for row in run.ledger.rows if row.f == START]
    token = max(token_of(row.lease) for row in starts)
    times = [row.boottime / 1000 - opened_s for row in starts if token_of(row.lease) == token]
    assert ramp_exceeded(sorted(times)) == []
    early_s = 0.3
    assert sum(time <= early_s for time in times) >= 0.9 * ramp_allows(early_s)


def ramp_exceeded(times: Sequence[float]) -> list[float]:
    """When more had started than the ramp allows."""
    return [time for number, time in enumerate(times, 1) if number > ramp_allows(time)]


def said_s(cluster: SimCluster, event: str, after_s: float) -> float:
    """When something was first said after a moment."""
    return next(a.at_s for a in cluster.announcements if a.event == event and a.at_s > after_s)
