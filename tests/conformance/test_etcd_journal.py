"""The journal in etcd: stale tokens, lost answers, overtaking batches, compaction; and faults of
the cluster itself: dead and frozen members, no majority, no space.
"""

from __future__ import annotations

import asyncio

import pytest

from tenure.master.backend.errors import (
    CorruptJournal,
    OfficeLost,
    StoreFull,
    StoreIoError,
    StoreUnavailable,
)
from tenure.master.backend.etcd import operation as op
from tenure.master.election.port import Member
from tenure.master.journal.etcd import EtcdJournal
from tenure.master.journal.port import HaltRecord, SealedBatch
from tenure.protocol.fence import Token
from tenure.testing.etcd import EtcdCluster
from tests.conformance.etcd_site import Etcd, MakeEtcd, RealEtcd, Site
from tests.conformance.lossy_etcd import (
    ALICE,
    BOB,
    MUTATIONS,
    LossyClient,
    batch,
    numbers,
    opened,
    won,
)


@pytest.mark.parametrize("how", ["resigned", "expired", "another leads", "own second term"])
@pytest.mark.parametrize("kind", MUTATIONS)
def test_a_stale_token_changes_nothing(site: Site, kind: str, how: str) -> None:
    """Every kind of mutation is refused as OfficeLost, and not one key has changed."""

    async def main() -> None:
        async with opened(site) as store, opened(site, BOB) as other, LossyClient(site) as client:
            office, journal = await won(store.election(0)), store.journal(0)
            await journal.append(office.token, batch(1))
            await journal.append(office.token, batch(2))
            await journal.write_slice(office.token, "s1", 0, b"slice")
            await journal.publish_snapshot(office.token, "s1", b"manifest")
            held = (await client.range(client.keys.partition(0).office)).kvs[0]
            # Expiry is etcd's own revocation; the office itself has not heard of either.
            await client.lease_revoke(held.lease)
            if how == "resigned":
                await office.resign()
            elif how == "another leads":
                await won(other.election(0))
            elif how == "own second term":
                with pytest.raises(OfficeLost):
                    await office.verify()
                await won(store.election(0))
            root = site.prefix
            before = await client.range(root, op.prefix_end(root))
            with pytest.raises(OfficeLost):
                await MUTATIONS[kind](journal, office.token)
            after = await client.range(root, op.prefix_end(root))
            # Versions and revisions of each key are compared too. The cluster's own revision says
            # nothing: leases that earlier tests left on it expire when they like.
            assert list(after.kvs) == list(before.kvs)

    site.run(main)


@pytest.mark.parametrize("kind", MUTATIONS)
def test_the_token_of_batch_0_holds_no_vacant_office(site: Site, kind: str) -> None:
    """Revision 0 means "absent" to etcd: a token with it must not pass while nobody leads."""

    async def main() -> None:
        async with opened(site) as store:
            with pytest.raises(OfficeLost):
                await MUTATIONS[kind](store.journal(0), Token(1, 0))

    site.run(main)


@pytest.mark.parametrize(
    "script",
    [["mute"], ["drop"], ["drop", "mute"], ["mute", "drop", "mute", "mute"]],
    ids=lambda script: "-".join(script),
)
@pytest.mark.parametrize("kind", MUTATIONS)
def test_a_mutation_without_an_answer_is_resolved(site: Site, kind: str, script: list[str]) -> None:
    """Whatever was lost on the way, the mutation takes effect once and returns."""

    async def main() -> None:
        async with opened(site) as store, LossyClient(site) as client:
            office = await won(store.election(0))
            journal = EtcdJournal(client, client.keys.partition(0))
            await journal.append(office.token, batch(1))
            await journal.append(office.token, batch(2))
            client.script = list(script)
            answer = await MUTATIONS[kind](journal, office.token)
            assert not client.script
            match kind:
                case "append":
                    assert await numbers(journal) == [0, 1, 2, 3]
                case "publish_snapshot":
                    ref = await journal.load_snapshot()
                    assert ref is not None
                    assert ref.manifest == b"mine"
                    await journal.publish_snapshot(office.token, "s3", b"next")
                case "truncate":
                    assert answer == 2
                    assert await numbers(journal, 2) == [2]
                case "halt":
                    assert await journal.halted() == HaltRecord(batch_number=1, detail="mine")

    site.run(main)


def test_a_batch_that_was_committed_before_the_office_was_lost_is_committed(site: Site) -> None:
    """The answer was lost and the office with it: reading my bytes back still proves the commit."""

    async def main() -> None:
        async with opened(site) as store, LossyClient(site) as client:
            office = await won(store.election(0))
            journal = EtcdJournal(client, client.keys.partition(0))
            client.script, client.after_mute = ["mute"], office.resign
            await journal.append(office.token, batch(1))
            assert await numbers(journal) == [0, 1]
            with pytest.raises(OfficeLost):
                await journal.append(office.token, batch(2))

    site.run(main)


def test_another_batch_under_my_number_is_no_commit_of_mine(site: Site) -> None:
    """The successor's batch has my number: OfficeLost, and its bytes stay."""

    async def main() -> None:
        async with opened(site) as store, opened(site, BOB) as other, LossyClient(site) as client:
            office = await won(store.election(0))
            journal = EtcdJournal(client, client.keys.partition(0))
            await office.resign()
            successor = await won(other.election(0))
            await other.journal(0).append(successor.token, batch(1, "theirs"))
            with pytest.raises(OfficeLost):
                await journal.append(office.token, batch(1, "mine"))
            with pytest.raises(OfficeLost):
                await journal.append(successor.token, batch(1, "a forgery"))
            stored = [sealed async for sealed in journal.read(1)]
            assert stored == [batch(1, "theirs")]

    site.run(main)


def test_pipelined_batches_commit_in_order_when_the_first_is_lost(site: Site) -> None:
    """Batch n+1 never stands without n: it waits, is sent again, and both commit."""

    async def main() -> None:
        async with opened(site) as store, LossyClient(site) as client:
            office = await won(store.election(0))
            journal = EtcdJournal(client, client.keys.partition(0))
            committed: list[int] = []

            async def append(number: int) -> None:
                await journal.append(office.token, batch(number))
                committed.append(number)

            client.script = ["drop", "pass", "drop", "mute"]
            async with asyncio.TaskGroup() as tasks:
                for number in (1, 2, 3):
                    tasks.create_task(append(number))
            assert committed == [1, 2, 3]
            assert await numbers(journal) == [0, 1, 2, 3]

    site.run(main)


def test_a_batch_without_its_predecessor_is_not_written(site: Site) -> None:
    """A gap is not stored; the caller is told to append the missing batch first."""

    async def main() -> None:
        async with opened(site) as store:
            office, journal = await won(store.election(0)), store.journal(0)
            with pytest.raises(StoreUnavailable, match="batch 1 is not stored"):
                await journal.append(office.token, batch(2))
            await journal.append(office.token, batch(1))
            await journal.append(office.token, batch(2))
            await journal.append(office.token, batch(1))
            assert await numbers(journal) == [0, 1, 2]

    site.run(main)


def test_a_batch_that_was_stored_and_is_gone_is_corruption(site: Site) -> None:
    """Deleted from outside: the next append says so, and so does a read across the gap."""

    async def main() -> None:
        async with opened(site) as store, LossyClient(site) as client:
            office, journal = await won(store.election(0)), store.journal(0)
            for number in (1, 2, 3):
                await journal.append(office.token, batch(number))
            await client.txn(success=[op.delete(client.keys.partition(0).batch(3))])
            with pytest.raises(CorruptJournal):
                await journal.append(office.token, batch(4))
            await client.txn(success=[op.delete(client.keys.partition(0).batch(1))])
            with pytest.raises(CorruptJournal) as caught:
                await numbers(journal)
            assert caught.value.metadata["batch"] == "1"

    site.run(main)


def test_a_read_goes_on_over_compactions(site: Site) -> None:
    """A compaction in the middle of a paged read loses and repeats nothing."""

    async def main() -> None:
        async with opened(site) as store, LossyClient(site) as client:
            office, journal = await won(store.election(0)), store.journal(0)
            for number in range(1, 40):
                await journal.append(office.token, batch(number))
            seen = []
            async for sealed in journal.read(0):
                seen.append(sealed.number)
                if len(seen) in (5, 25):
                    marker = await client.txn(success=[op.put(client.keys.member("x"), b"")])
                    await client.compact(marker.header.revision)
            assert seen == list(range(40))

    site.run(main)


def test_a_snapshot_read_begins_again_when_a_newer_one_takes_its_place(site: Site) -> None:
    """Compaction under the reader's revision: it gets the newer snapshot, never a mixture."""

    async def main() -> None:
        async with opened(site) as store, LossyClient(site) as client:
            office, journal = await won(store.election(0)), store.journal(0)

            async def publish(name: str) -> None:
                for index in range(20):
                    text = f"{name} {index}".encode()
                    await journal.write_slice(office.token, name, index, text)
                await journal.publish_snapshot(office.token, name, name.encode())

            class Interrupted(LossyClient):
                pages = 0

                async def range(self, key: bytes, *args: object, **kwargs: object) -> object:  # type: ignore[override]
                    self.pages += 1
                    if self.pages == 3:
                        await publish("new")
                        await client.compact((await client.range(b"x")).header.revision)
                    return await super().range(key, *args, **kwargs)  # type: ignore[arg-type]

            await publish("old")
            async with Interrupted(site) as interrupted:
                reader = EtcdJournal(interrupted, client.keys.partition(0))
                ref = await reader.load_snapshot()
            assert ref is not None
            assert ref.manifest == b"new"
            assert ref.slices == [f"new {index}".encode() for index in range(20)]

    site.run(main)


def test_a_published_snapshot_replaces_the_slices_of_all_others(site: Site) -> None:
    """The former snapshot's slices go, and those that were never published."""

    async def main() -> None:
        async with opened(site) as store, LossyClient(site) as client:
            office, journal = await won(store.election(0)), store.journal(0)
            assert await journal.load_snapshot() is None
            for name in ("b", "a", "c", "bb"):
                await journal.write_slice(office.token, name, 0, name.encode())
            await journal.publish_snapshot(office.token, "b", b"m")
            slices = client.keys.partition(0).slices
            left = await client.range(slices, op.prefix_end(slices))
            assert [kv.value for kv in left.kvs] == [b"b"]
            stranger = EtcdJournal(client, client.keys.partition(0))
            with pytest.raises(OfficeLost, match="another was published"):
                await stranger.publish_snapshot(office.token, "d", b"m")

    site.run(main)


def test_truncation_deletes_upwards_and_keeps_the_last_batch(site: Site) -> None:
    """The count is exact, the last batch stays, and appending goes on behind it."""

    async def main() -> None:
        async with opened(site) as store:
            office, journal = await won(store.election(0)), store.journal(0)
            for number in range(1, 6):
                await journal.append(office.token, batch(number))
            assert await journal.truncate(office.token, 3) == 3
            assert await journal.truncate(office.token, 3) == 0
            assert await numbers(journal, 3) == [3, 4, 5]
            assert await journal.truncate(office.token, 99) == 2
            assert await numbers(journal, 5) == [5]
            await journal.append(office.token, batch(6))
            assert await journal.last_number() == 6

    site.run(main)


# ---- Faults of the cluster ------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["killed", "frozen"])
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_one_bad_member_costs_nobody_the_term(
    etcd: Etcd, prefix: str, fault: str, role: str
) -> None:
    """With any one member dead or frozen, appends, renewals, reads and truncations go on."""
    victim = etcd.leader() if role == "leader" else etcd.follower()
    site = etcd.site(prefix, first=etcd.members.index(victim))

    async def main() -> None:
        async with opened(site) as store:
            office, journal = await won(store.election(0)), store.journal(0)
            await journal.append(office.token, batch(1))
            if fault == "killed":
                victim.kill()
            else:
                victim.pause()
            async with asyncio.TaskGroup() as tasks:
                for number in range(2, 8):
                    tasks.create_task(journal.append(office.token, batch(number)))
            await office.renew()
            await office.verify()
            assert await journal.truncate(office.token, 2) == 2
            assert await numbers(journal, 2) == [2, 3, 4, 5, 6, 7]
            await store.register(Member(candidate=ALICE, version="0", wall_ms=1))
            await office.resign()
            await (await won(store.election(0))).verify()

    site.run(main)


def test_without_a_majority_the_outcome_is_unknown_until_it_is_back(
    make_etcd: MakeEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three members dead: StoreUnavailable; afterwards the same call commits."""
    monkeypatch.setattr("tenure.master.backend.etcd.resolution.BUDGET_S", 1.5)
    etcd = make_etcd(3)

    async def main() -> None:
        async with opened(etcd.site(), ttl_s=60) as store:
            office, journal = await won(store.election(0)), store.journal(0)
            await journal.append(office.token, batch(1))
            for member in etcd.members[:2]:
                member.kill()
            with pytest.raises(StoreUnavailable):
                await journal.append(office.token, batch(2))
            with pytest.raises(StoreUnavailable):
                await office.renew()
            with pytest.raises(StoreUnavailable):
                await office.verify()
            for member in etcd.members[:2]:
                member.start()
            await etcd.ready()
            await journal.append(office.token, batch(2))
            await office.renew()
            await office.verify()
            assert await numbers(journal) == [0, 1, 2]

    etcd.run(main)


@pytest.mark.etcd
def test_tls(tls_cluster: EtcdCluster, prefix: str) -> None:
    """The certificates named in the URL carry a whole term."""
    site = RealEtcd(tls_cluster).site(prefix)

    async def main() -> None:
        async with opened(site) as store:
            office, journal = await won(store.election(0)), store.journal(0)
            await journal.append(office.token, batch(1))
            await office.renew()
            assert await numbers(journal) == [0, 1]

    site.run(main)


def test_a_full_store_keeps_the_term_and_takes_truncations(make_etcd: MakeEtcd) -> None:
    """NOSPACE: appends are StoreFull, the office lives, and the runbook lets the batch through."""
    etcd = make_etcd(1, quota_bytes=2 * 1024 * 1024)
    site = etcd.site()

    async def main() -> None:
        async with opened(site, partitions=2) as store, LossyClient(site) as client:
            office, journal = await won(store.election(0)), store.journal(0)
            number = 0

            async def fill() -> None:
                nonlocal number
                while number < 1_000:
                    large = SealedBatch(number=number + 1, data=bytes(200_000))
                    await journal.append(office.token, large)
                    number += 1

            with pytest.raises(StoreFull, match="quota"):
                await fill()
            for kind in ("write_slice", "publish_snapshot", "halt"):
                with pytest.raises(StoreFull):
                    await MUTATIONS[kind](journal, office.token)
            await office.renew()
            await office.verify()
            with pytest.raises(StoreUnavailable, match="space"):
                await store.election(1).campaign()
            with pytest.raises(StoreUnavailable, match="space"):
                await store.register(Member(candidate=ALICE, version="0", wall_ms=1))
            assert await journal.last_number() == number
            assert await journal.truncate(office.token, number) == number
            await client.defragment(etcd.endpoints[0])
            for alarm in await client.alarms():
                await client.disarm(alarm)
            await won(store.election(1))
            await journal.append(office.token, batch(number + 1))
            assert await numbers(journal, number) == [number, number + 1]

    etcd.run(main)


def test_a_batch_over_etcds_request_limit_stops_the_process(site: Site) -> None:
    """Nothing can ever store it: an I/O error, not a retry."""

    async def main() -> None:
        async with opened(site) as store:
            office, journal = await won(store.election(0)), store.journal(0)
            with pytest.raises(StoreIoError, match="too large"):
                await journal.append(office.token, SealedBatch(number=1, data=bytes(1_700_000)))

    site.run(main)
