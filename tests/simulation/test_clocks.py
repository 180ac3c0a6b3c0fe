"""Whole clusters on virtual time: the cluster's clock while the store is slow to tell of clocks."""

from __future__ import annotations

import asyncio

import pytest

from tenure.testing.clock import WALL_ORIGIN_MS
from tenure.testing.cluster import SimMaster, simulated_cluster
from tenure.testing.process import elapse, run_processes
from tests.simulation.run import Run


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
