"""Whole clusters on virtual time: what bent clocks, and slow news of clocks, leave as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from tenure.client import cron
from tenure.protocol.ids import time_ms_of
from tenure.testing.clock import WALL_ORIGIN_MS
from tenure.testing.cluster import SimCluster, simulated_cluster
from tenure.testing.nodes import SimMaster
from tenure.testing.process import elapse, run_processes
from tests.oracles.facts import Submitted
from tests.oracles.history import hash_of
from tests.oracles.journal_facts import journal_facts
from tests.simulation.run import Run

_HOUR_MS = 3_600_000
_PERIOD_MS = 2_000


def ahead_ms(leader: SimMaster) -> float:
    """How far the cluster's clock is ahead of the true time."""
    if leader.node is None:
        pytest.fail("the leader has no node")
    shown_ms = leader.node.roster.terms[0].clock.now_ms()
    return shown_ms - WALL_ORIGIN_MS - asyncio.get_running_loop().time() * 1000


@pytest.mark.fault(40)
@pytest.mark.parametrize("skews_ms", [(0, 0, 0), (-1_000, 1_000, 0)])
def test_row_40_slow_news_of_clocks_take_no_time_from_a_term(
    skews_ms: tuple[int, int, int],
) -> None:
    """Masters start, lead and die while etcd's disks are slow; no time leaves the clocks.

    Each member key is then a second old when it is read, and some are of masters that are dead.
    """

    async def main() -> None:
        run = Run()
        async with simulated_cluster(seed=29, jobs=[run.echo], slots=8) as cluster:
            for master, skew_ms in zip(cluster.masters.values(), skews_ms, strict=True):
                master.clock.wall_skew_ms = skew_ms
            cluster.etcd.fsync_ms = (100, 500)
            for _ in range(5):
                leader = await cluster.elected()
                for _ in range(5):
                    if leader.node is not None and 0 in leader.node.roster.terms:
                        assert min(skews_ms) - 3 <= ahead_ms(leader) <= max(skews_ms) + 3
                    await elapse(1)
                leader.kill()
                await elapse(3)
                cluster.start(leader)
            cluster.etcd.fsync_ms = (0.2, 1.0)
            await cluster.elected()
            run.judge(cluster)

    run_processes(main)


def fired_ms(cluster: SimCluster) -> list[int]:
    """The ticks that have fired, in the journal's order: a job's id has its tick's time."""
    facts = journal_facts(cluster.journal())
    ours = [f for f in facts if isinstance(f, Submitted) and f.content == hash_of("tick")]
    return [time_ms_of(fact.job) for fact in ours]


def tick_on(seed: int, bend: Callable[[SimMaster, int], None]) -> None:
    """Lets a schedule tick while leaders' clocks are bent and they die: each tick fires, once.

    Args:
        seed: Of the run.
        bend: Bends a master's clock, the next time each time.
    """

    async def main() -> None:
        run = Run()
        async with simulated_cluster(seed=seed, jobs=[run.echo], slots=8) as cluster:
            schedules = cluster.client().schedules
            when = cron("*/2 * * * * *", misfire="fire_all", overlap="allow")
            await schedules.put("pulse", when, run.echo, "tick")
            for number in range(3):
                for master in cluster.masters.values():
                    bend(master, number)
                await elapse(5)
                leader = await cluster.elected()
                leader.kill()
                await elapse(3)
                cluster.start(leader)
            await cluster.elected()
            await elapse(10)
            await schedules.delete("pulse")
            fired = fired_ms(cluster)
            assert len(fired) > 15
            assert fired == [*range(fired[0], fired[-1] + 1, _PERIOD_MS)]
            await elapse(10)
            run.judge(cluster)

    run_processes(main)


@pytest.mark.fault(39)
@pytest.mark.parametrize("jump_ms", [-_HOUR_MS, _HOUR_MS])
def test_row_39_a_wall_clock_that_jumps_doubles_and_drops_no_tick(jump_ms: int) -> None:
    """One master's clock, mostly the leader's, is an hour off, and right again."""

    def bend(master: SimMaster, number: int) -> None:
        master.clock.wall_skew_ms = jump_ms if master.leads(0) and number % 2 == 0 else 0

    tick_on(31, bend)


@pytest.mark.fault(40)
@pytest.mark.parametrize("seed", [1, 2])
def test_row_40_failovers_between_skewed_masters_double_and_drop_no_tick(seed: int) -> None:
    """Each next leader's clock is up to 5 s away from the one before."""
    rng = Random(seed)

    def bend(master: SimMaster, number: int) -> None:
        master.clock.wall_skew_ms = rng.randint(-5_000, 5_000)

    tick_on(seed, bend)
