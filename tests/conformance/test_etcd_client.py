"""The etcd client against members, real and simulated: what our election and journal build on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

from tenure.etcdapi import etcd_pb2 as pb
from tenure.master.backend.etcd import operation as op
from tenure.master.backend.etcd.client import (
    CALL_TIMEOUT_S,
    EtcdClient,
    version_warning,
)
from tenure.master.backend.etcd.errors import (
    Compacted,
    EtcdError,
    FutureRevision,
    HistoryRewound,
    LeaseExists,
    LeaseNotFound,
    NoSpace,
    OutcomeUnknown,
    Refused,
    Unavailable,
)
from tenure.protocol.security import read_trust
from tenure.protocol.tls import Tls
from tenure.testing.etcd import EtcdCluster
from tests.conformance.etcd_site import Etcd, MakeEtcd, RealEtcd, until_answered

# What a scheduler hiccup on a busy machine may add to a measured time.
SLACK_S = 2.0


def run(etcd: Etcd, scenario: Callable[[EtcdClient], Awaitable[None]], first: int = 0) -> None:
    """Run a scenario with a client whose first endpoint is the given member."""

    async def main() -> None:
        async with etcd.client(etcd.endpoints[first:] + etcd.endpoints[:first]) as client:
            await scenario(client)

    etcd.run(main)


def current(client: EtcdClient) -> str:
    """The address that the next call goes to."""
    return client._endpoints[client._current].address


def now_s() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def watching(
    client: EtcdClient, key: bytes, *, start_revision: int = 0
) -> AsyncIterator[AsyncIterator[pb.Event]]:
    """The events of one key, after the watch is in place."""
    async with aclosing(client.watch(key, start_revision=start_revision)) as batches:
        await anext(batches)

        async def events() -> AsyncIterator[pb.Event]:
            async for batch in batches:
                for event in batch.events:
                    yield event

        yield events()


def test_txn_takes_the_branch_that_its_compares_choose(etcd: Etcd) -> None:
    """A create-only put succeeds once; the second try reads what is there instead."""

    async def scenario(client: EtcdClient) -> None:
        key = b"/txn/office"
        attempt = ([op.absent(key)], [op.put(key, b"one")], [op.get(key)])
        first = await client.txn(*attempt)
        second = await client.txn(*attempt)
        found = second.responses[0].response_range.kvs[0]
        assert first.succeeded
        assert not second.succeeded
        assert found.value == b"one"
        assert found.create_revision == first.header.revision

    run(etcd, scenario)


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        (lambda key, rev: op.created_at(key, rev), True),
        (lambda key, rev: op.created_at(key, rev + 1), False),
        (lambda key, rev: op.modified_at(key, rev), True),
        (lambda key, rev: op.modified_at(key, rev - 1), False),
        (lambda key, rev: op.value_is(key, b"v"), True),
        (lambda key, rev: op.value_is(key, b"w"), False),
        (lambda key, rev: op.exists(key), True),
        (lambda key, rev: op.exists(key + b"x"), False),
        (lambda key, rev: op.absent(key), False),
        (lambda key, rev: op.absent(key + b"x"), True),
    ],
)
def test_each_compare_means_what_it_says(
    etcd: Etcd, compare: Callable[[bytes, int], pb.Compare], holds: bool
) -> None:
    """Every compare is true on the state it names and false on the one next to it."""

    async def scenario(client: EtcdClient) -> None:
        key = b"/compare/key"
        await client.txn(success=[op.delete(key)])
        revision = (await client.txn(success=[op.put(key, b"v")])).header.revision
        look = [op.get(key)]
        answer = await client.txn([compare(key, revision)], look, look)
        assert answer.succeeded is holds

    run(etcd, scenario)


def test_a_transaction_of_compares_alone_is_not_sent(etcd: Etcd) -> None:
    """Etcd would answer it from one member's own, perhaps stale, state."""

    async def scenario(client: EtcdClient) -> None:
        with pytest.raises(ValueError, match="only compares"):
            await client.txn([op.absent(b"/x")])

    run(etcd, scenario)


def test_range_pages_in_key_order_at_one_revision(etcd: Etcd) -> None:
    """Pages at a fixed revision show nothing that was written after the first page."""

    async def scenario(client: EtcdClient) -> None:
        prefix = b"/pages/"
        for number in range(5):
            await client.txn(success=[op.put(prefix + b"%d" % number, b"")])
        first = await client.range(prefix, op.prefix_end(prefix), limit=3)
        await client.txn(success=[op.put(prefix + b"9", b"")])
        rest = await client.range(
            first.kvs[-1].key + b"\0", op.prefix_end(prefix), revision=first.header.revision
        )
        newest = await client.range(prefix, op.prefix_end(prefix), limit=1, descending=True)
        assert [kv.key for kv in (*first.kvs, *rest.kvs)] == [prefix + b"%d" % n for n in range(5)]
        assert first.more
        assert newest.kvs[0].key == prefix + b"9"

    run(etcd, scenario)


def test_delete_reports_how_many_keys_went(etcd: Etcd) -> None:
    """A range delete takes exactly the keys of its range."""

    async def scenario(client: EtcdClient) -> None:
        for number in range(4):
            await client.txn(success=[op.put(b"/delete/%d" % number, b"")])
        answer = await client.txn(success=[op.delete(b"/delete/1", b"/delete/3")])
        left = await client.range(b"/delete/", op.prefix_end(b"/delete/"), keys_only=True)
        assert answer.responses[0].response_delete_range.deleted == 2
        assert [kv.key for kv in left.kvs] == [b"/delete/0", b"/delete/3"]

    run(etcd, scenario)


def test_lease_takes_its_keys_along_when_it_expires(etcd: Etcd) -> None:
    """Without keepalives the key goes, not before its TTL, and the lease is not found."""

    async def scenario(client: EtcdClient) -> None:
        async with watching(client, b"/lease/expires") as events:
            granted_at = now_s()
            lease = (await client.lease_grant(2)).id
            await client.txn(success=[op.put(b"/lease/expires", b"", lease=lease)])
            assert (await anext(events)).type == pb.Event.PUT
            assert (await anext(events)).type == pb.Event.DELETE
            assert now_s() - granted_at >= 2.0
        with pytest.raises(LeaseNotFound):
            await client.lease_keepalive(lease)
        with pytest.raises(LeaseNotFound):
            await client.lease_ttl(lease)
        with pytest.raises(LeaseNotFound):
            await client.lease_revoke(lease)
        with pytest.raises(LeaseNotFound):
            await client.txn(success=[op.put(b"/lease/expires", b"", lease=lease)])

    run(etcd, scenario)


def test_keepalive_starts_the_ttl_anew(etcd: Etcd) -> None:
    """A renewed lease lives a full TTL from its last keepalive; its unrenewed twin tells when."""

    async def scenario(client: EtcdClient) -> None:
        async with (
            watching(client, b"/lease/kept") as kept,
            watching(client, b"/lease/twin") as twin,
        ):
            for key, ttl_s in ((b"/lease/kept", 3), (b"/lease/twin", 2)):
                lease = await client.lease_grant(ttl_s, ttl_s)
                await client.txn(success=[op.put(key, b"", lease=lease.id)])
            assert (await anext(kept)).type == pb.Event.PUT
            assert (await anext(twin)).type == pb.Event.PUT
            assert (await anext(twin)).type == pb.Event.DELETE
            renewed_at = now_s()
            assert await client.lease_keepalive(3) == 3
            assert (await anext(kept)).type == pb.Event.DELETE
            assert now_s() - renewed_at >= 3.0

    run(etcd, scenario)


def test_lease_id_of_ones_own_tells_a_repeated_grant(etcd: Etcd) -> None:
    """A second grant of the same id is refused by name; revoking deletes the keys."""

    async def scenario(client: EtcdClient) -> None:
        await client.lease_grant(10, 4711)
        with pytest.raises(LeaseExists):
            await client.lease_grant(10, 4711)
        await client.txn(success=[op.put(b"/lease/own", b"", lease=4711)])
        assert 0 < (await client.lease_ttl(4711)).ttl <= 10
        await client.lease_revoke(4711)
        assert not (await client.range(b"/lease/own")).kvs

    run(etcd, scenario)


def test_watch_resumes_by_a_new_list_after_a_compaction(etcd: Etcd) -> None:
    """A watch from a compacted revision says so; list, then watch on, and no change is missed."""

    async def scenario(client: EtcdClient) -> None:
        key = b"/watch/key"
        old = (await client.txn(success=[op.put(key, b"1")])).header.revision
        last = (await client.txn(success=[op.put(key, b"2")])).header.revision
        await client.compact(last)
        async with watching(client, key, start_revision=old) as events:
            with pytest.raises(Compacted) as caught:
                await anext(events)
        assert caught.value.compact_revision == last
        with pytest.raises(Compacted):
            await client.range(key, revision=old)
        with pytest.raises(Compacted):
            await client.compact(old)
        listed = await client.range(key)
        await client.txn(success=[op.put(key, b"3")])
        async with watching(client, key, start_revision=listed.header.revision + 1) as events:
            assert (await anext(events)).kv.value == b"3"

    run(etcd, scenario)


def test_a_future_revision_is_no_compacted_one(etcd: Etcd) -> None:
    """Reading ahead of the store is its own error."""

    async def scenario(client: EtcdClient) -> None:
        now = (await client.range(b"/x")).header.revision
        with pytest.raises(FutureRevision):
            await client.range(b"/x", revision=now + 1_000)

    run(etcd, scenario)


@pytest.mark.parametrize("value_bytes", [1_700_000, 2_200_000])
def test_a_request_that_is_too_large_is_refused_for_good(etcd: Etcd, value_bytes: int) -> None:
    """Over etcd's request limit nothing is written, and the error says it is definite."""

    async def scenario(client: EtcdClient) -> None:
        with pytest.raises(Refused) as caught:
            await client.txn(success=[op.put(b"/large", bytes(value_bytes))])
        assert not caught.value.outcome_unknown
        assert not (await client.range(b"/large")).kvs

    run(etcd, scenario)


def test_calls_leave_a_killed_member(etcd: Etcd) -> None:
    """With its first endpoint dead a client fails once at most, then works on another."""
    victim = etcd.members[0]

    async def scenario(client: EtcdClient) -> None:
        await client.range(b"/x")
        assert current(client) == victim.address
        victim.kill()
        with pytest.raises(OutcomeUnknown) as caught:
            await client.txn(success=[op.put(b"/killed", b"")])
        assert caught.value.outcome_unknown
        assert current(client) == etcd.endpoints[1]
        await until_answered(lambda: client.txn(success=[op.put(b"/killed", b"")]))

    run(etcd, scenario)


@pytest.mark.fault(22)
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_calls_leave_a_frozen_member_within_their_deadline(etcd: Etcd, role: str) -> None:
    """A member that answers nothing costs one deadline, however many calls wait on it."""
    victim = etcd.leader() if role == "leader" else etcd.follower()
    first = etcd.members.index(victim)

    async def scenario(client: EtcdClient) -> None:
        await client.range(b"/x")
        victim.pause()
        start = now_s()
        failures = await asyncio.gather(
            client.txn(success=[op.put(b"/frozen", b"")]),
            client.range(b"/frozen"),
            client.lease_keepalive(1),
            return_exceptions=True,
        )
        waited_s = now_s() - start
        assert [type(failure) for failure in failures] == [
            OutcomeUnknown,
            Unavailable,
            Unavailable,
        ]
        assert CALL_TIMEOUT_S * 0.9 <= waited_s < CALL_TIMEOUT_S + SLACK_S
        assert current(client) == client.endpoints[1]
        await until_answered(lambda: client.txn(success=[op.put(b"/frozen", b"")]))

    run(etcd, scenario, first)


def test_a_watch_on_a_dead_member_ends_and_resumes_elsewhere(etcd: Etcd) -> None:
    """The watch raises Unavailable; from its last revision + 1 nothing is missed."""
    victim = etcd.members[2]

    async def scenario(client: EtcdClient) -> None:
        key = b"/watch/moved"
        async with aclosing(client.watch(key)) as batches:
            revision = (await anext(batches)).revision
            victim.kill()
            with pytest.raises(Unavailable):
                await anext(batches)
        assert current(client) != victim.address
        await until_answered(lambda: client.txn(success=[op.put(key, b"1")]))
        async with watching(client, key, start_revision=revision + 1) as events:
            assert (await anext(events)).kv.value == b"1"

    run(etcd, scenario, first=2)


def test_cancelling_a_call_cancels_it(etcd: Etcd) -> None:
    """CancelledError comes through as it is, and the client stays usable where it was."""
    victim = etcd.members[0]

    async def scenario(client: EtcdClient) -> None:
        await client.range(b"/x")
        victim.pause()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.range(b"/x")
        victim.resume()
        assert current(client) == victim.address
        await until_answered(lambda: client.range(b"/x"))

    run(etcd, scenario)


def test_closing_ends_the_calls_under_way(etcd: Etcd) -> None:
    """A call whose client is closed raises a typed error, not a cancellation nobody asked for."""
    victim = etcd.members[0]

    async def scenario(client: EtcdClient) -> None:
        await client.range(b"/x")
        victim.pause()
        async with asyncio.TaskGroup() as tasks:
            write = tasks.create_task(outcome(client.txn(success=[op.put(b"/closed", b"")])))
            await asyncio.sleep(0)
            await client.close()
        assert isinstance(write.result(), OutcomeUnknown)
        with pytest.raises(Unavailable):
            await client.range(b"/x")

    async def outcome(call: Awaitable[object]) -> EtcdError | None:
        try:
            await call
        except EtcdError as error:
            return error
        return None

    run(etcd, scenario)


def test_a_member_of_another_cluster_is_found_out(make_etcd: MakeEtcd) -> None:
    """Answers of two clusters are never mixed, whoever wrote the list of endpoints."""
    mine = make_etcd(1)
    other = make_etcd(1, beside=mine)

    async def scenario() -> None:
        async with mine.client([*mine.endpoints, *other.endpoints]) as client:
            await client.range(b"/x")
            mine.members[0].kill()
            with pytest.raises(Unavailable):
                await client.range(b"/x")
            with pytest.raises(HistoryRewound, match="backup"):
                await client.range(b"/x")

    mine.run(scenario)


def test_a_cluster_that_lost_its_past_is_found_out(make_etcd: MakeEtcd) -> None:
    """A linearizable answer from before what this client has seen is refused."""
    etcd = make_etcd(1)

    async def scenario(client: EtcdClient) -> None:
        for number in range(3):
            await client.txn(success=[op.put(b"/past", b"%d" % number)])
        etcd.members[0].forget()
        await etcd.ready()
        with pytest.raises(HistoryRewound, match="revision"):
            await until_answered(lambda: client.range(b"/past"))

    run(etcd, scenario)


def test_versions_are_read_and_old_ones_warned_about(
    etcd: Etcd, caplog: pytest.LogCaptureFixture
) -> None:
    """Every member tells its version at start; one below the floor is named with the cure."""

    async def scenario(client: EtcdClient) -> None:
        with caplog.at_level(logging.WARNING, "tenure.master.backend.etcd.client"):
            versions = await client.check_versions()
        assert list(versions) == client.endpoints
        warned = [record for record in caplog.records if "3.5.33" in record.getMessage()]
        expected = sum(1 for version in versions.values() if version_warning(version))
        assert len(warned) == expected

    run(etcd, scenario)


@pytest.mark.parametrize("version", ["3.4.23", "3.5.1", "3.5.13", "2.3.8", "nonsense"])
def test_versions_below_the_floor_are_warned_about(version: str) -> None:
    """The warning names the version and what to use."""
    warning = version_warning(version)
    assert warning is not None
    assert version in warning
    assert "3.6.14" in warning


@pytest.mark.parametrize("version", ["3.5.14", "3.5.33", "3.6.0", "3.10.0", "4.0.0-rc.1"])
def test_versions_from_the_floor_on_are_fine(version: str) -> None:
    """No warning for what is recent enough."""
    assert version_warning(version) is None


@pytest.mark.etcd
def test_mutual_tls(tls_cluster: EtcdCluster) -> None:
    """With certificates everything works; without them nothing does."""
    files = tls_cluster.tls
    assert files is not None

    async def scenario(client: EtcdClient) -> None:
        await client.txn(success=[op.put(b"/tls", b"yes")])
        lease = (await client.lease_grant(5)).id
        assert await client.lease_keepalive(lease) == 5
        async with watching(client, b"/tls") as events:
            await client.txn(success=[op.put(b"/tls", b"again")])
            assert (await anext(events)).kv.value == b"again"

    async def outsider() -> None:
        ca_only = read_trust(Tls(ca=files.ca))
        for tls in (ca_only, None):
            async with EtcdClient(tls_cluster.endpoints, tls=tls) as client:
                with pytest.raises(Unavailable):
                    await client.range(b"/tls")

    run(RealEtcd(tls_cluster), scenario)
    asyncio.run(outsider())


def test_no_space_lets_reads_and_deletes_through_and_ends_by_the_runbook(
    make_etcd: MakeEtcd,
) -> None:
    """Over the quota puts and leases are refused; delete, compact, defragment, disarm mends it."""
    etcd = make_etcd(1, quota_bytes=2 * 1024 * 1024)

    async def scenario(client: EtcdClient) -> None:
        written = 0

        async def fill() -> None:
            nonlocal written
            while written < 1_000:
                await client.txn(success=[op.put(b"/fill/%03d" % written, bytes(200_000))])
                written += 1

        with pytest.raises(NoSpace) as caught:
            await fill()
        assert caught.value.outcome_unknown
        assert [alarm.alarm for alarm in await client.alarms()] == [pb.NOSPACE]
        with pytest.raises(NoSpace):
            await client.lease_grant(10)
        with pytest.raises(NoSpace):
            await client.txn(success=[op.put(b"/fill/more", b"")])
        prefix = (b"/fill/", op.prefix_end(b"/fill/"))
        found = (await client.range(*prefix, count_only=True)).count
        assert written <= found <= written + 1
        deleted = await client.txn(success=[op.delete(*prefix)])
        assert deleted.responses[0].response_delete_range.deleted == found
        await client.compact(deleted.header.revision)
        before = await client.status()
        await client.defragment(etcd.endpoints[0])
        assert (await client.status()).db_size < before.db_size
        for alarm in await client.alarms():
            await client.disarm(alarm)
        await client.txn(success=[op.put(b"/fill/again", b"")])

    run(etcd, scenario)
