"""The shipped master, session and client through failovers, in one process on virtual time."""

from __future__ import annotations

import asyncio

import pytest

from tenure.master.node import seat
from tenure.testing.cluster import SimCluster
from tenure.testing.process import elapse
from tests.oracles.executions import duplicate_executions
from tests.oracles.history import END, START
from tests.simulation.run import Run, play

#: A leader is there again this long after a kill: 2 × TTL + 3 s.
LEADER_S = 15.0


def now_s() -> float:
    """The virtual time."""
    return asyncio.get_running_loop().time()


def test_failover() -> None:
    """Submit, kill the leader midway, read every result; what ran goes on and nothing is lost."""

    async def work(run: Run, cluster: SimCluster) -> None:
        rows = run.ledger.rows
        client = cluster.client()
        leader = await cluster.elected()
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(run.one(client, f"job {number}", 0.5 * number))
            await elapse(10)
            leader.kill()
            killed_s = now_s()
            successor = await cluster.elected()
            assert successor is not leader
            assert now_s() - killed_s < LEADER_S
            began = {row.lease for row in rows if row.f == START}
            ended = {row.lease for row in rows if row.f == END}
        # What ran when the successor took over was adopted by it, and ran once.
        assert len(began - ended) >= 4
        assert began - ended <= {row.lease for row in rows if row.f == END}
        assert duplicate_executions(rows) == {}
        assert len({row.job for row in rows if row.f == END}) == 40

    play(work, seed=1, slots=8)


def test_the_master_that_follows_is_the_next_to_lead() -> None:
    """One master keeps the partition replayed; it goes on from there when the leader is killed."""

    async def work(run: Run, cluster: SimCluster) -> None:
        client = cluster.client()
        leader = await cluster.elected()
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(run.one(client, f"job {number}", 0.5 * number))
            await elapse(12)
            nodes = [master.node for master in cluster.masters.values() if master.node]
            followed = [node.standbys.seqs() for node in nodes]
            assert sorted(map(len, followed)) == [0, 0, 1]
            assert followed[nodes.index(leader.node)] == {}
            leader.kill()
            successor = await cluster.elected()
            assert followed[nodes.index(successor.node)]
            assert successor.node.standbys.seqs() == {}

    play(work, seed=3)


def test_who_has_it_replayed_leads_before_who_has_just_begun() -> None:
    """A partition that is handed over goes to its standby, though another should lead it.

    The one that should have it was restarted, and cannot have replayed it yet.
    """

    async def work(run: Run, cluster: SimCluster) -> None:
        client = cluster.client()
        # Until it is led by whom it should be, and followed.
        await elapse(25)
        leader = await cluster.elected()
        await run.one(client, "before", 0.1)
        first = next(m for m in cluster.masters.values() if m.node and m.node.standbys.seqs())
        (other,) = (m for m in cluster.masters.values() if m not in (leader, first))
        first.stop()
        await first.process.join()
        await elapse(25)
        assert other.node is not None
        assert other.node.standbys.caught_up() == [0]
        cluster.start(first)
        await elapse(2)
        assert leader.node is not None
        assert leader.node.roster.order(0).index(first.name) < 2
        leader.stop()
        await leader.process.join()
        assert await cluster.elected() is other
        await run.one(client, "after", 0.1)

    play(work, seed=11)


def test_a_master_that_is_to_end_is_succeeded_as_soon_as_can_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says that it waits; who has just begun follows at once, and nothing stands still."""
    monkeypatch.setattr(seat, "_COLD_JOBS_MAX", 0)

    async def work(run: Run, cluster: SimCluster) -> None:
        client = cluster.client()
        await run.one(client, "before", 0.1)
        leader = await cluster.elected()
        (other,) = (m for m in cluster.masters.values() if m is not leader)
        other.kill()
        # Its key is gone by then, and nobody waits for what died.
        await elapse(20)
        cluster.start(other)
        await elapse(1)
        leader.stop()
        stopped_s = now_s()
        await cluster.until(lambda: not leader.leads(0))
        left_s = now_s()
        # Four seconds until all have read of it and looked, at most, and not those until it is
        # certain that somebody stays.
        assert left_s - stopped_s < 5
        assert await cluster.elected() is other
        assert now_s() - left_s < 0.5
        await run.one(client, "after", 0.1)

    play(work, seed=5, masters=2)


def test_a_zombie_keeps_nobody_waiting() -> None:
    """A leader that is cut from the store for good, but not from its clients, answers no read.

    Who waits at it for a result is sent to look for its successor, and who asks it for a job that
    only the successor knows is not told that there is none.
    """

    async def work(run: Run, cluster: SimCluster) -> None:
        early, late = cluster.client(), cluster.client()
        zombie = await cluster.elected()
        async with asyncio.TaskGroup() as group:
            group.create_task(run.one(early, "before the cut", 12.0))
            # This client has a stream for results to the zombie, and idles.
            await run.one(late, "to get to know the leader", 0.0)
            cluster.cut_store(zombie)
            await cluster.until(lambda: cluster.leader() not in (None, zombie))
            handle = await run.submit(early, "after the cut", 0.0)
            assert handle is not None
            found = await late.get(handle.id, run.echo)
            await run.result(found)
        assert zombie.leads(0)

    play(work, seed=3, workers=1, limit_s=120)


def test_a_full_store_ends_no_campaign() -> None:
    """A leader that is lost while the store takes nothing is replaced as soon as it does again."""

    async def work(run: Run, cluster: SimCluster) -> None:
        client = cluster.client()
        leader = await cluster.elected()
        await run.one(client, "before", 0.0)
        cluster.etcd.fill()
        leader.kill()
        await elapse(2 * LEADER_S)
        others = [master for master in cluster.masters.values() if master is not leader]
        assert all(master.running for master in others)
        cluster.etcd.free()
        await cluster.elected(within_s=LEADER_S)
        await run.one(client, "after", 0.0)

    play(work, seed=6, limit_s=120)


def test_a_term_opens_when_a_full_store_has_space_again() -> None:
    """A store that is full right after the office was won only delays the term: nothing halts."""

    async def work(run: Run, cluster: SimCluster) -> None:
        client = cluster.client()
        await cluster.until(lambda: cluster.holder() is not None)
        cluster.etcd.fill()
        await elapse(LEADER_S)
        assert cluster.leader() is None
        cluster.etcd.free()
        await cluster.elected()
        await run.one(client, "hello", 0.0)

    play(work, seed=8, store_delay_ms=80, limit_s=120)


def test_a_follower_that_knows_nothing_misleads_nobody() -> None:
    """A client finds the leader though the first master it asks was cut from the store before."""

    async def work(run: Run, cluster: SimCluster) -> None:
        leader = await cluster.elected()
        ignorant = next(m for m in cluster.masters.values() if m is not leader)
        cluster.cut_store(ignorant)
        leader.kill()
        await cluster.until(lambda: cluster.leader() not in (None, leader), LEADER_S)
        async with asyncio.timeout(5):
            for number, client in enumerate([cluster.client() for _ in cluster.masters]):
                await run.one(client, f"hello {number}", 0.0)

    play(work, seed=7, limit_s=60)


@pytest.mark.parametrize("way", ["requests", "replies"])
def test_a_leader_cut_from_the_store_one_way_is_replaced(way: str) -> None:
    """A leader whose keepalives arrive, but not their answers, does not keep its office."""

    async def work(run: Run, cluster: SimCluster) -> None:
        client = cluster.client()
        leader = await cluster.elected()
        await run.one(client, "before", 0.0)
        cluster.cut_store(leader, requests=way == "requests", replies=way == "replies")
        await cluster.until(lambda: cluster.leader() not in (None, leader), LEADER_S)
        await run.one(client, "after", 0.0)

    play(work, seed=5, limit_s=60)


@pytest.mark.parametrize("fault", ["full", "cut"])
def test_a_master_ends_when_its_store_takes_nothing(fault: str) -> None:
    """SIGTERM ends a leader that cannot commit its TermClosed: it hands over without."""

    async def work(run: Run, cluster: SimCluster) -> None:
        leader = await cluster.elected()
        if fault == "full":
            cluster.etcd.fill()
        else:
            cluster.cut_store(leader)
        leader.stop()
        await cluster.until(lambda: not leader.running, within_s=30)

    play(work, seed=5, masters=1, workers=1)


def test_an_idle_cluster_hardly_asks_its_store() -> None:
    """Who waits for the end of another's term knows who leads, and asks for nothing meanwhile."""

    async def work(run: Run, cluster: SimCluster) -> None:
        await cluster.elected()
        await elapse(15)
        before = cluster.network.delivered
        await elapse(60)
        assert cluster.network.delivered - before < 60 * 80

    play(work, seed=8, partitions=4)
