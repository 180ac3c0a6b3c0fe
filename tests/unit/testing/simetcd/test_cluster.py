"""The simulated etcd's agreement: what survives whom, who answers what, and who notices when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from tenure.etcdapi import etcd_pb2 as pb
from tenure.master.backend.etcd import operation as op
from tenure.master.backend.etcd.client import CALL_TIMEOUT_S, EtcdClient
from tenure.master.backend.etcd.errors import (
    EtcdError,
    HistoryRewound,
    LeaseNotFound,
    NoSpace,
    OutcomeUnknown,
    Unavailable,
)
from tenure.testing.loop import run_virtual
from tenure.testing.network import SimNetwork
from tenure.testing.process import elapse
from tenure.testing.simetcd.cluster import SimEtcd
from tenure.testing.simetcd.member import SimEtcdMember

#: A leader is missed for so long at most.
ELECTED_S = 1.8


class Rig:
    """Three members, and clients of one of them each."""

    def __init__(self, seed: int) -> None:
        self.network = SimNetwork(Random(f"{seed}/network"))
        self.etcd = SimEtcd(self.network, Random(seed))
        self._dialer = self.etcd.dialer("c")

    def client(self, member: SimEtcdMember) -> EtcdClient:
        """A client that knows this member alone."""
        return EtcdClient([member.host], dial=self._dialer)

    @property
    def leader(self) -> SimEtcdMember:
        """Who leads now."""
        leader = self.etcd.leader()
        assert leader is not None
        return leader

    @property
    def followers(self) -> list[SimEtcdMember]:
        """The others."""
        return [member for member in self.etcd.members.values() if member is not self.leader]

    def part(self, one: SimEtcdMember, other: SimEtcdMember) -> None:
        """Cuts two members from each other."""
        self.network.cut(one.host, other.host)
        self.network.cut(other.host, one.host)


def run(scenario: Callable[[Rig], Awaitable[None]], seeds: int = 1) -> None:
    """Runs a scenario, perhaps with several seeds."""
    for seed in range(seeds):

        async def main(seed: int = seed) -> None:
            rig = Rig(seed)
            await scenario(rig)
            rig.etcd.close()

        run_virtual(main, limit_s=600)


@asynccontextmanager
async def writing(client: EtcdClient, key: bytes) -> AsyncIterator[asyncio.Task[bool]]:
    """A put under way; it ends in whether it was acknowledged."""

    async def write() -> bool:
        try:
            await client.txn(success=[op.put(key, b"")])
        except OutcomeUnknown:
            return False
        return True

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(write())
        await elapse(0.003)
        yield task


async def fails(call: Awaitable[Any]) -> type[EtcdError] | None:
    """What a call ends in."""
    try:
        await call
    except EtcdError as error:
        return type(error)
    return None


def test_an_acknowledged_write_survives_the_leader() -> None:
    """Whoever leads next has it; one that was not acknowledged is there or not, by the seed."""
    survived: set[bool] = set()

    async def scenario(rig: Rig) -> None:
        leader = rig.leader
        async with writing(rig.client(leader), b"/x") as write:
            leader.kill()
            acked = await write
        await elapse(ELECTED_S)
        assert rig.leader is not leader
        found = (await rig.client(rig.leader).range(b"/x")).kvs
        if acked:
            assert found
        else:
            survived.add(bool(found))

    run(scenario, seeds=40)
    assert survived == {True, False}


def test_a_leader_without_a_majority_commits_and_reads_nothing() -> None:
    """Cut from both others it answers neither writes nor reads; they elect another."""

    async def scenario(rig: Rig) -> None:
        old = rig.leader
        client = rig.client(old)
        for follower in rig.followers:
            rig.part(old, follower)
        assert await fails(client.txn(success=[op.put(b"/x", b"old")])) is OutcomeUnknown
        assert await fails(client.range(b"/x")) is Unavailable
        await elapse(ELECTED_S)
        assert rig.leader is not old
        await rig.client(rig.leader).txn([op.absent(b"/x")], [op.put(b"/x", b"new")])
        stale = await client.range(b"/x", serializable=True)
        assert not stale.kvs
        rig.network.heal_all()
        await elapse(ELECTED_S)
        found = await client.range(b"/x")
        assert [kv.value for kv in found.kvs] == [b"new"]

    run(scenario)


def test_two_dead_members_stop_the_third() -> None:
    """No leader, no answer; they come back, and all that was acknowledged is there."""

    async def scenario(rig: Rig) -> None:
        client = rig.client(rig.leader)
        await client.txn(success=[op.put(b"/x", b"")])
        for follower in rig.followers:
            follower.kill()
        assert await fails(client.txn(success=[op.put(b"/y", b"")])) is OutcomeUnknown
        await elapse(ELECTED_S)
        assert rig.etcd.leader() is None
        assert await fails(client.range(b"/x")) is Unavailable
        rig.etcd.heal()
        await elapse(2 * ELECTED_S)
        assert (await client.range(b"/x")).kvs

    run(scenario)


def test_a_frozen_member_costs_a_deadline_and_applies_late_or_never() -> None:
    """What was sent to it while it stood still may take effect when it goes on."""
    applied: set[bool] = set()

    async def scenario(rig: Rig) -> None:
        follower = rig.followers[0]
        client = rig.client(follower)
        follower.freeze()
        began_s = asyncio.get_running_loop().time()
        assert await fails(client.txn(success=[op.put(b"/x", b"")])) is OutcomeUnknown
        assert asyncio.get_running_loop().time() - began_s == pytest.approx(CALL_TIMEOUT_S)
        follower.thaw()
        await elapse(1)
        applied.add(rig.etcd.get(b"/x") is not None)

    run(scenario, seeds=20)
    assert applied == {True, False}


def test_a_lease_begins_anew_under_a_new_leader() -> None:
    """It outlives its TTL by etcd's own failover, and ends afterwards with its keys."""

    async def scenario(rig: Rig) -> None:
        follower = rig.followers[0]
        client = rig.client(follower)
        await client.lease_grant(5, 7)
        await client.txn(success=[op.put(b"/x", b"", lease=7)])
        await elapse(4)
        rig.leader.kill()
        await elapse(4)
        assert await client.lease_keepalive(7) == 5
        await elapse(4.8)
        assert (await client.range(b"/x")).kvs
        await elapse(0.5)
        assert not (await client.range(b"/x")).kvs
        assert await fails(client.lease_keepalive(7)) is LeaseNotFound

    run(scenario)


def test_a_serializable_read_may_be_stale_and_a_linearizable_one_never() -> None:
    """A follower that is cut off still tells what it knows, to those who do not mind."""

    async def scenario(rig: Rig) -> None:
        follower = rig.followers[0]
        client, other = rig.client(follower), rig.client(rig.leader)
        await other.txn(success=[op.put(b"/x", b"1")])
        assert (await client.range(b"/x")).kvs[0].value == b"1"
        for member in rig.etcd.members.values():
            if member is not follower:
                rig.part(follower, member)
        await other.txn(success=[op.put(b"/x", b"2")])
        assert (await client.range(b"/x", serializable=True)).kvs[0].value == b"1"
        assert await fails(client.range(b"/x")) is Unavailable

    run(scenario)


def test_a_member_that_lost_its_data_fetches_it_again() -> None:
    """Under another id; until then nobody elects it."""

    async def scenario(rig: Rig) -> None:
        leader = rig.leader
        await rig.client(leader).txn(success=[op.put(b"/x", b"")])
        former = leader.id
        leader.lose_data()
        assert leader.id != former
        assert not (await rig.client(leader).range(b"/x", serializable=True)).kvs
        await elapse(ELECTED_S)
        assert rig.leader is not leader
        await elapse(1)
        assert (await rig.client(leader).range(b"/x", serializable=True)).kvs

    run(scenario)


def test_a_restored_cluster_is_another_one() -> None:
    """It knows nothing of what came after the backup, and its answers say so."""

    async def scenario(rig: Rig) -> None:
        client = rig.client(rig.leader)
        await client.txn(success=[op.put(b"/x", b"1")])
        backup = rig.etcd.snapshot()
        await client.txn(success=[op.put(b"/x", b"2")])
        rig.etcd.restore(backup)
        await elapse(2 * ELECTED_S)
        assert await fails(client.range(b"/x")) is HistoryRewound
        found = await rig.client(rig.leader).range(b"/x")
        assert [kv.value for kv in found.kvs] == [b"1"]
        assert [change.value for change in rig.etcd.changes(b"/x")] == [b"1"]

    run(scenario)


def test_a_watch_goes_with_its_leader_and_tells_each_change_once() -> None:
    """At a follower too; without a leader it ends after a while, and says why."""

    async def scenario(rig: Rig) -> None:
        follower = rig.followers[0]
        client, other = rig.client(follower), rig.client(rig.leader)
        batches = client.watch(b"/x", start_revision=2)
        await anext(batches)
        told = []
        for number in range(3):
            await other.txn(success=[op.put(b"/x", b"%d" % number)])
            told += [event.kv.value for event in (await anext(batches)).events]
        assert told == [b"0", b"1", b"2"]
        for member in rig.etcd.members.values():
            if member is not follower:
                member.kill()
        with pytest.raises(Unavailable, match="no leader"):
            await anext(batches)

    run(scenario)


def test_a_watch_of_a_silent_member_breaks() -> None:
    """A member that stands still answers no pings: its streams are over after eight seconds."""

    async def scenario(rig: Rig) -> None:
        follower = rig.followers[0]
        batches = rig.client(follower).watch(b"/x")
        await anext(batches)
        follower.freeze()
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable, match="keepalive"):
            await anext(batches)
        assert 7.5 < asyncio.get_running_loop().time() - began_s < 9

    run(scenario)


def test_the_write_that_crosses_the_quota_is_refused_before_or_after_it_is_made() -> None:
    """Both happen, by the seed; deletes pass; the runbook ends it."""
    made: set[bool] = set()

    async def scenario(rig: Rig) -> None:
        client = rig.client(rig.leader)
        await client.txn(success=[op.put(b"/a", b"")])
        rig.etcd.quota_bytes = rig.leader.file_bytes + 10
        assert await fails(client.txn(success=[op.put(b"/x", bytes(100))])) is NoSpace
        await elapse(0.1)
        made.add(rig.etcd.get(b"/x") is not None)
        assert rig.etcd.alarmed
        assert await fails(client.lease_grant(5)) is NoSpace
        await client.txn(success=[op.delete(b"/a")])
        rig.etcd.free()
        assert await client.alarms() == []
        await client.txn(success=[op.put(b"/x", b"")])

    run(scenario, seeds=20)
    assert made == {True, False}


def test_what_is_sent_over_a_cut_link_arrives_late_or_never() -> None:
    """A cut that is shorter than a connection's patience delays; a longer one breaks."""

    async def scenario(rig: Rig) -> None:
        leader = rig.leader
        client = rig.client(leader)
        rig.network.cut(leader.host, "c")
        assert await fails(client.txn(success=[op.put(b"/x", b"")])) is OutcomeUnknown
        assert rig.etcd.get(b"/x") is not None
        rig.network.heal(leader.host, "c")
        rig.network.cut("c", leader.host)
        async with writing(client, b"/y") as write:
            await elapse(0.5)
            assert rig.etcd.get(b"/y") is None
            rig.network.heal("c", leader.host)
            assert await write
        assert isinstance(rig.etcd.get(b"/y"), pb.KeyValue)

    run(scenario)
