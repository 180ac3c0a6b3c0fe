"""Whole clusters on virtual time under what operators fear: wrong clocks, cuts, sick journals."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tenure.protocol.errors import TenureError
from tenure.protocol.refusal import Reason
from tenure.testing.cluster import SimCluster, simulated_cluster
from tenure.testing.nodes import SimMaster
from tenure.testing.process import elapse, run_processes
from tests.simulation.run import Run

HOUR_MS = 3_600_000
#: A master looks at its store at least this often.
SPACE_LOOK_S = 6.0


def now_s() -> float:
    """The virtual time."""
    return asyncio.get_running_loop().time()


def cut_from_workers(cluster: SimCluster, master: SimMaster) -> None:
    """Nothing passes between a master and any worker; clients and the store reach it."""
    for name in cluster.workers:
        cluster.network.cut(name, master.host)
        cluster.network.cut(master.host, name)


@pytest.mark.fault(26)
def test_row_26_a_leader_that_no_worker_reaches_hands_over() -> None:
    """Its leases expire, it resigns after two TTLs, and another one gets the jobs done.

    It does not take the office back while it is cut off, and all is judged as ever.
    """

    async def main() -> None:
        run = Run()
        async with simulated_cluster(seed=26, jobs=[run.echo], slots=8) as cluster:
            client = cluster.client()
            lonely = await cluster.elected()
            await run.one(client, "before", 0.1)
            cut_from_workers(cluster, lonely)
            cut_s = now_s()
            async with asyncio.TaskGroup() as group:
                for number in range(10):
                    group.create_task(run.one(client, f"job {number}", 0.5))
                await cluster.until(lambda: cluster.leader() not in (None, lonely), 90)
                assert now_s() - cut_s < 60
                for _ in range(60):
                    assert cluster.holder() is not lonely
                    await elapse(1)
            run.judge(cluster)

    run_processes(main)


@pytest.mark.fault(26)
def test_row_26_a_leader_without_workers_stays_where_nobody_has_any() -> None:
    """When all workers are gone it is no use to hand over: no partition changes hands."""

    async def main() -> None:
        run = Run()
        async with simulated_cluster(seed=27, jobs=[run.echo]) as cluster:
            leader = await cluster.elected()
            for worker in cluster.workers.values():
                worker.kill()
            await elapse(180)
            assert cluster.holder() is leader

    run_processes(main)


@pytest.mark.fault(39)
@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS])
def test_row_39_a_leaders_wall_clock_that_jumps_moves_no_deadline(jump_ms: int) -> None:
    """No delayed job starts early or late, no lease expires; the jump is told of as an alarm."""

    async def main() -> None:
        run = Run()
        async with simulated_cluster(seed=39, jobs=[run.echo], slots=8) as cluster:
            client = cluster.client()
            leader = await cluster.elected()
            async with asyncio.TaskGroup() as group:
                group.create_task(run.one(client, "long", 30))
                handle = await client.submit(
                    run.echo.options(delay=timedelta(seconds=20)), "delayed", 0.1
                )
                submitted_s = now_s()
                await elapse(2)
                leader.clock.wall_skew_ms += jump_ms
                await elapse(10)
                assert leader.node is not None
                assert any("this machine's clock" in t for t in leader.node.alarms.texts())
                assert await handle.result() == "delayed"
                assert 19.5 < now_s() - submitted_s < 22
            events = [said.event for said in cluster.announcements]
            assert "expired" not in events
            assert cluster.leader() is leader

    run_processes(main)


@pytest.mark.fault(40)
def test_row_40_time_never_runs_back_across_failovers_between_skewed_masters() -> None:
    """Masters ±5 s apart lead in turn: each term begins where the journal ended."""

    async def main() -> None:
        run = Run()
        async with simulated_cluster(seed=40, jobs=[run.echo], slots=8) as cluster:
            for master, skew_ms in zip(cluster.masters.values(), (5_000, -5_000, 0), strict=True):
                master.clock.wall_skew_ms = skew_ms
            client = cluster.client()
            stamps = []
            for number in range(4):
                leader = await cluster.elected()
                await run.one(client, f"job {number}", 0.2)
                assert leader.node is not None
                stamps.append(leader.node.roster.terms[0].clock.now_ms())
                leader.kill()
                await cluster.elected()
                cluster.start(leader)
            assert stamps == sorted(stamps)
            run.judge(cluster)

    run_processes(main)


@pytest.mark.fault(39, 40)
def test_rows_39_40_a_master_whose_clock_is_off_leads_only_if_nobody_else_does() -> None:
    """Of three or more it leaves the office to others; alone it leads all the same."""

    async def main() -> None:
        run = Run()
        async with simulated_cluster(seed=41, jobs=[run.echo], masters=4) as cluster:
            off = cluster.masters["m1"]
            off.clock.wall_skew_ms = HOUR_MS
            first = await cluster.elected()
            await elapse(10)
            for _ in range(3):
                leader = await cluster.elected()
                leader.stop()
                await leader.process.join()
                successor = await cluster.elected()
                assert successor is not off or leader is first
                cluster.start(leader)
                await elapse(10)
            for master in cluster.masters.values():
                if master is not off:
                    master.kill()
            await cluster.until(lambda: cluster.leader() is off, 30)

    run_processes(main)


@pytest.mark.fault(45)
def test_row_45_a_quota_that_was_raised_counts_within_the_term() -> None:
    """A leader of a term that began with a small quota takes jobs soon after it is large."""

    async def main() -> None:
        run = Run()
        async with simulated_cluster(seed=45, jobs=[run.echo]) as cluster:
            client = cluster.client()
            leader = await cluster.elected()
            quota_bytes, cluster.etcd.quota_bytes = cluster.etcd.quota_bytes, 30_000
            await elapse(SPACE_LOOK_S)
            leader.kill()
            await cluster.until(lambda: cluster.leader() not in (None, leader), 30)
            with pytest.raises(TenureError) as refused:
                await client.submit(run.echo, "x" * 10_000, 0.0)
            assert refused.value.reason is Reason.MEMORY_FULL
            cluster.etcd.quota_bytes = quota_bytes
            await elapse(SPACE_LOOK_S)
            handle = await client.submit(run.echo, "x" * 10_000, 0.0)
            assert len(await handle.result()) == 10_000

    run_processes(main)
