"""Partitions under load: leaders hand over and are robbed all the time, and balance comes back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from tenure.master.node.cluster import ClusterApi
from tenure.master.node.seat import Seat
from tenure.protocol.errors import Rejected, Unavailable
from tenure.protocol.refusal import Reason
from tenure.testing.cluster import SimCluster
from tenure.testing.nodes import SimMaster
from tenure.testing.process import elapse
from tenure.v1 import cluster_pb2
from tests.simulation.run import Run, play

PARTITIONS = 4
#: From a master's return until all partitions are led by whom they should.
BALANCE_S = 30.0
#: `make simulate` plays a thousand more with leaders that are robbed.
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in (1, 2))]


def led(cluster: SimCluster) -> list[str]:
    """Who serves each partition; those that nobody does are left out."""
    leaders = [cluster.leader(number) for number in range(PARTITIONS)]
    return [leader.name for leader in leaders if leader is not None]


def leading(cluster: SimCluster, partition: int) -> list[SimMaster]:
    """Who serves a partition by their own account."""
    return [master for master in cluster.masters.values() if master.leads(partition)]


def terms_of(cluster: SimCluster) -> int:
    """How often an office was won so far."""
    changes = cluster.etcd.changes(b"/tenure/partitions/")
    return sum(change.put and change.key.endswith(b"/office") for change in changes)


def balanced(cluster: SimCluster) -> bool:
    """Whether all partitions are led, by all masters, none of them more than two."""
    counts = Counter(led(cluster))
    return sum(counts.values()) == PARTITIONS and len(counts) == 3 and max(counts.values()) == 2


def play_balanced(work: Callable[[Run, SimCluster], Awaitable[None]], **options: int) -> None:
    """Plays a scenario that begins when all masters lead their part."""

    async def balanced_work(run: Run, cluster: SimCluster) -> None:
        await cluster.until(lambda: balanced(cluster), BALANCE_S)
        await work(run, cluster)

    play(balanced_work, partitions=PARTITIONS, **options)


@pytest.mark.parametrize("seed", SEEDS)
def test_balance_is_restored(seed: int) -> None:
    """A master that was killed comes back: within 30 s all lead their part, and it stays so."""

    async def work(run: Run, cluster: SimCluster) -> None:
        client, lost = cluster.client(), cluster.masters["m2"]
        async with asyncio.TaskGroup() as group:
            for number in range(60):
                group.create_task(run.one(client, f"job {number}", 0.5 * number))
            await elapse(2)
            lost.kill()
            await cluster.until(lambda: len(led(cluster)) == PARTITIONS, 20)
            await elapse(10)
            cluster.start(lost)
            await cluster.until(lambda: balanced(cluster), BALANCE_S)
        settled = [cluster.holder(number) for number in range(PARTITIONS)]
        await elapse(120)
        assert [cluster.holder(number) for number in range(PARTITIONS)] == settled

    play_balanced(work, seed=seed, slots=8)


@pytest.mark.parametrize("seed", SEEDS)
def test_leadership_handed_over_and_stolen_all_the_time(seed: int) -> None:
    """Clients and workers follow: no job is lost, none is accepted twice, no partition is stuck."""

    async def work(run: Run, cluster: SimCluster) -> None:
        rng = Random(seed)
        client = cluster.client()
        async with asyncio.TaskGroup() as group:
            for number in range(80):
                group.create_task(run.one(client, f"job {number}", 0.7 * number))
            for _ in range(8):
                await elapse(3)
                number = rng.randrange(PARTITIONS)
                leader = await cluster.elected(number)
                match rng.choice(("transfer", "kill", "stop", "freeze")):
                    case "transfer":
                        answer = await client.cluster.transfer_leader(number)
                        assert answer.master != answer.from_master
                    case "kill":
                        leader.kill()
                        await leader.process.join()
                        cluster.start(leader)
                    case "stop":
                        leader.stop()
                        await leader.process.join()
                        cluster.start(leader)
                    case _:
                        leader.freeze()
                        await elapse(8)
                        leader.thaw()
        await cluster.until(lambda: len(led(cluster)) == PARTITIONS, BALANCE_S)

    play_balanced(work, seed=seed, slots=8)


def test_an_operator_moves_a_partition() -> None:
    """It goes to the master that was named, in order, stays there, and can be moved back."""

    async def work(run: Run, cluster: SimCluster) -> None:
        client = cluster.client()
        home = (await cluster.elected(1)).name
        away = next(name for name in cluster.masters if name != home)
        for turn, target in enumerate((away, home, away)):
            answer = await client.cluster.transfer_leader(1, target)
            assert (answer.partition, answer.master) == (1, target)
            assert (await cluster.elected(1)).name == target
            await run.one(client, f"turn {turn}: led by {target}", 0.5)
        await elapse(60)
        assert (await cluster.elected(1)).name == away
        again = await client.cluster.transfer_leader(1, away)
        assert again.from_master == again.master == away
        with pytest.raises(Rejected, match="m9"):
            await client.cluster.transfer_leader(1, "m9")
        with pytest.raises(Rejected, match="below 4"):
            await client.cluster.transfer_leader(7)

    play_balanced(work, seed=5)


@pytest.mark.parametrize("how", ["expired", "deleted"])
def test_an_idle_leader_that_is_robbed_steps_down(how: str) -> None:
    """Whoever takes an office away, who held it hears of it at once, and one master leads."""
    key = b"/tenure/partitions/0001/office"

    async def work(run: Run, cluster: SimCluster) -> None:
        for _ in range(3):
            before = cluster.etcd.get(key)
            if how == "expired":
                cluster.etcd.expire(key)
            else:
                cluster.etcd.remove(key)
            assert cluster.holder(1) is None
            await cluster.until(lambda: cluster.holder(1) is not None, 3)
            after = cluster.etcd.get(key)
            assert before
            assert after
            assert before.create_revision < after.create_revision
            await cluster.until(lambda: leading(cluster, 1) == [cluster.holder(1)], 1)
            await elapse(10)
            assert leading(cluster, 1) == [cluster.holder(1)]

    play_balanced(work, seed=4)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_handed_to_a_master_that_has_died(seed: int) -> None:
    """Its key outlives it by some seconds: who takes its partitions keeps them all that time."""

    async def work(run: Run, cluster: SimCluster) -> None:
        await elapse(10)
        lost = max(cluster.masters.values(), key=lambda master: led(cluster).count(master.name))
        orphans = led(cluster).count(lost.name)
        terms = terms_of(cluster)
        lost.kill()
        # Until the key is gone; what is balanced anew without it comes later.
        await elapse(12)
        assert terms_of(cluster) - terms == orphans

    play_balanced(work, seed=seed)


def test_a_master_that_has_died_is_given_nothing() -> None:
    """Its key outlives it by some seconds: it is refused by name, and not chosen."""

    async def work(run: Run, cluster: SimCluster) -> None:
        client, home = cluster.client(), await cluster.elected(1)
        assert home.node is not None
        heir = next(n for n in home.node.roster.heirs(1) if n != home.name)
        lost = cluster.masters[heir]
        await elapse(10)
        lost.kill()
        with pytest.raises(Rejected, match=f"live master .*{heir}"):
            await client.cluster.transfer_leader(1, heir)
        answer = await client.cluster.transfer_leader(1)
        assert answer.master not in (home.name, heir)
        assert (await cluster.elected(1)).name == answer.master

    play_balanced(work, seed=12)


def test_a_wish_ends_with_the_master_that_it_named() -> None:
    """Whoever comes back under its name leads what falls to it, not what it was once given."""

    async def work(run: Run, cluster: SimCluster) -> None:
        client, home = cluster.client(), await cluster.elected(1)
        away = next(master for master in cluster.masters.values() if master is not home)
        await client.cluster.transfer_leader(1, away.name)
        assert await cluster.elected(1) is away
        away.kill()
        await away.process.join()
        cluster.start(away)
        await elapse(60)
        assert balanced(cluster)
        assert await cluster.elected(1) is home

    play_balanced(work, seed=8)


def test_a_wish_that_another_followed_does_not_come_back() -> None:
    """Neither when the master that was told of the newer one has ended."""

    async def work(run: Run, cluster: SimCluster) -> None:
        client, home = cluster.client(), await cluster.elected(1)
        first, second = (master for master in cluster.masters.values() if master is not home)
        for target in (first, second, home):
            await elapse(5)
            await client.cluster.transfer_leader(1, target.name)
            assert await cluster.elected(1) is target
        # It was told to hand over to home; of the other two each was told something older.
        second.kill()
        await second.process.join()
        cluster.start(second)
        await elapse(60)
        assert balanced(cluster)
        assert await cluster.elected(1) is home

    play_balanced(work, seed=9)


def test_a_request_that_is_sent_again_moves_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of a hand-over is lost, and its next leader is asked: it keeps the partition."""
    heirs = list[str]()
    transfer = ClusterApi.transfer_leader

    async def losing(
        api: ClusterApi, request: cluster_pb2.TransferLeaderRequest
    ) -> cluster_pb2.TransferLeaderResponse:
        answer = await transfer(api, request)
        heirs.append(answer.master)
        if len(heirs) == 1:
            raise Unavailable("its answer was lost", reason=Reason.OUTCOME_UNKNOWN)
        return answer

    async def work(run: Run, cluster: SimCluster) -> None:
        home = (await cluster.elected(1)).name
        answer = await cluster.client().cluster.transfer_leader(1)
        assert heirs == [answer.master] * 2
        assert (answer.from_master, (await cluster.elected(1)).name) == (home, answer.master)
        await elapse(60)
        assert (await cluster.elected(1)).name == answer.master

    monkeypatch.setattr(ClusterApi, "transfer_leader", losing)
    play_balanced(work, seed=7)


def test_what_was_refused_does_not_happen_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hand-over that cannot be now is none: nor do the balancers make it up afterwards."""

    async def work(run: Run, cluster: SimCluster) -> None:
        client = cluster.client()
        home = (await cluster.elected(1)).name
        away = next(name for name in cluster.masters if name != home)
        with monkeypatch.context() as patch:
            patch.setattr(Seat, "hand_over", lambda seat: False)
            with pytest.raises(Unavailable, match="could win"):
                await client.cluster.transfer_leader(1, away)
        await elapse(60)
        assert (await cluster.elected(1)).name == home

    play_balanced(work, seed=6)
