"""What only the store in etcd can get wrong: lost answers, reordered and late transactions, dead
and frozen members, compaction, a full database, a restored backup.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tenure.etcdapi import etcd_pb2 as pb
from tenure.master.backend.errors import (
    CorruptJournal,
    OfficeLost,
    StoreFull,
    StoreIoError,
    StoreMismatch,
    StoreUnavailable,
)
from tenure.master.backend.etcd import operation as op
from tenure.master.backend.etcd.client import EtcdClient
from tenure.master.backend.etcd.errors import OutcomeUnknown
from tenure.master.backend.etcd.keyspace import ClusterKeys
from tenure.master.election.etcd import EtcdElection, EtcdOffice
from tenure.master.election.port import Candidate
from tenure.master.etcd_store import EtcdStore, EtcdUrl, open_etcd_store
from tenure.master.journal.etcd import EtcdJournal
from tenure.master.journal.port import HaltRecord, SealedBatch
from tenure.protocol.errors import Rejected
from tenure.protocol.fence import Token
from tenure.testing.etcd import EtcdCluster

pytestmark = pytest.mark.etcd

ALICE = Candidate(incarnation="11111111", name="alice", address="127.0.0.1:1")
BOB = Candidate(incarnation="22222222", name="bob", address="127.0.0.1:2")


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    """Three members that every test leaves running."""
    with EtcdCluster(3) as started:
        yield started


@pytest.fixture
def url(cluster: EtcdCluster, request: pytest.FixtureRequest) -> str:
    """A store of this test's own."""
    return cluster.url(f"/{request.node.name}")


@asynccontextmanager
async def opened(
    url: str, candidate: Candidate = ALICE, *, partitions: int | None = None, ttl_s: int = 6
) -> AsyncIterator[EtcdStore]:
    """A store, closed at the end."""
    store = await open_etcd_store(
        url, candidate, partitions=partitions, wall_ms=1_000, office_ttl_s=ttl_s
    )
    try:
        yield store
    finally:
        await store.close()


class LossyClient(EtcdClient):
    """A client whose next transactions lose their request, or their answer, as told."""

    def __init__(self, url: str) -> None:
        parsed = EtcdUrl.parse(url)
        super().__init__(parsed.endpoints, tls=parsed.tls)
        self.keys = ClusterKeys(parsed.prefix)
        #: One word a transaction, first come first served: "pass", "drop" or "mute".
        self.script: list[str] = []
        #: Runs once, after the next mute transaction has been applied.
        self.after_mute: Callable[[], Awaitable[object]] | None = None
        self.sent = 0

    async def txn(
        self,
        compare: Sequence[pb.Compare] = (),
        success: Sequence[pb.RequestOp] = (),
        failure: Sequence[pb.RequestOp] = (),
    ) -> pb.TxnResponse:
        self.sent += 1
        word = self.script.pop(0) if self.script else "pass"
        if word == "drop":
            raise OutcomeUnknown("the request was lost")
        answer = await super().txn(compare, success, failure)
        if word == "mute":
            if self.after_mute is not None:
                hook, self.after_mute = self.after_mute, None
                await hook()
            raise OutcomeUnknown("the answer was lost")
        return answer


def batch(number: int, text: str = "") -> SealedBatch:
    """A batch as the journal sees it: bytes."""
    return SealedBatch(number=number, data=f"batch {number} {text}".encode())


async def numbers(journal: EtcdJournal, first: int = 0) -> list[int]:
    """The numbers that a read yields."""
    return [sealed.number async for sealed in journal.read(first)]


async def won(election: EtcdElection) -> EtcdOffice:
    """Campaign, and win."""
    office = await election.campaign()
    assert office is not None
    return office


# ---- Bootstrap ------------------------------------------------------------------------------


def test_masters_that_bootstrap_at_once_agree(url: str) -> None:
    """One record wins, everybody sees the same cluster, and each partition has its batch 0."""

    async def main() -> None:
        stores = await asyncio.gather(
            *(open_etcd_store(url, ALICE, partitions=3, wall_ms=now) for now in range(4))
        )
        assert len({store.cluster_id for store in stores}) == 1
        for partition in range(3):
            assert await numbers(stores[0].journal(partition)) == [0]
        for store in stores:
            await store.close()

    asyncio.run(main())


def test_another_number_of_partitions_is_refused(url: str) -> None:
    """The count is fixed at bootstrap; None takes what there is."""

    async def main() -> None:
        async with opened(url, partitions=2):
            with pytest.raises(StoreMismatch, match="--partitions 2"):
                await open_etcd_store(url, BOB, partitions=3, wall_ms=1)
        async with opened(url) as store:
            assert store.partitions == 2

    asyncio.run(main())


def test_bootstrap_is_never_repeated_over_a_truncated_journal(url: str) -> None:
    """Opening a store whose batch 0 is gone does not write it again."""

    async def main() -> None:
        async with opened(url) as store:
            office = await won(store.election(0))
            await store.journal(0).append(office.token, batch(1))
            assert await store.journal(0).truncate(office.token, 1) == 1
        async with opened(url, BOB) as store:
            assert await store.journal(0).last_number() == 1
            assert await numbers(store.journal(0), 1) == [1]
            with pytest.raises(CorruptJournal):
                await numbers(store.journal(0), 0)

    asyncio.run(main())


def test_a_restored_etcd_is_refused(cluster: EtcdCluster, url: str) -> None:
    """A store whose etcd has another cluster id comes from a backup: only a restore opens it."""

    async def main() -> None:
        async with opened(url), LossyClient(url) as client:
            record = (await client.range(client.keys.record)).kvs[0].value
            moved = record.replace(f"{client.cluster_id:x}".encode(), b"feed")
            await client.txn(success=[op.put(client.keys.record, moved)])
        with pytest.raises(StoreMismatch, match="restored"):
            await open_etcd_store(url, BOB, partitions=None, wall_ms=1)

    asyncio.run(main())


@pytest.mark.parametrize(
    "wrong",
    [
        "etcd://",
        "etcd:///tenure",
        "sqlite:///x",
        "etcd://h1:1?user=me",
        "etcd://h1:1?cert=/x&key=/y",
        "etcd://h1:1?ca=/no/such/file",
    ],
)
def test_a_wrong_url_is_refused(wrong: str) -> None:
    """Each mistake is named before anything is dialled."""
    with pytest.raises(Rejected, match="store URL"):
        EtcdUrl.parse(wrong)


def test_a_url_is_taken_apart() -> None:
    """Ports and prefix have their defaults."""
    parsed = EtcdUrl.parse("etcd://h1,h2:79,[::1]:80/a/b/")
    assert parsed.endpoints == ("h1:2379", "h2:79", "[::1]:80")
    assert parsed.prefix == "/a/b"
    assert EtcdUrl.parse("etcd://h1").prefix == "/tenure"


# ---- The office -----------------------------------------------------------------------------


def test_the_office_passes_on_and_tokens_rise(url: str) -> None:
    """One holder at a time; a resignation frees it at once; the next token is greater."""

    async def main() -> None:
        async with opened(url) as mine, opened(url, BOB) as yours:
            first = await won(mine.election(0))
            assert await yours.election(0).campaign() is None
            led = await yours.election(0).leader()
            assert led is not None
            assert (led.candidate, led.token) == (ALICE, first.token)
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(yours.election(0).vacancy(30_000))
                await asyncio.sleep(0)
                await first.resign()
                await first.resign()
                await waiting
            second = await won(yours.election(0))
            assert second.token > first.token
            for call in (first.renew, first.verify):
                with pytest.raises(OfficeLost):
                    await call()
            await second.verify()

    asyncio.run(main())


def test_an_office_ends_without_keepalives_and_lives_with_them(url: str) -> None:
    """The unrenewed office of one partition falls vacant; the renewed one of another does not."""

    async def main() -> None:
        async with opened(url, partitions=2, ttl_s=2) as mine, opened(url, BOB) as yours:
            kept, dropped = await won(mine.election(0)), await won(mine.election(1))
            async with asyncio.TaskGroup() as tasks:
                expiry = tasks.create_task(yours.election(1).vacancy(30_000))
                while not expiry.done():
                    await kept.renew()
                    await asyncio.wait([expiry], timeout=0.5)
            await kept.verify()
            for call in (dropped.renew, dropped.verify):
                with pytest.raises(OfficeLost):
                    await call()
            assert await yours.election(0).campaign() is None
            assert await yours.election(1).campaign() is not None

    asyncio.run(main())


def test_a_second_term_of_one_master_gets_a_token_of_its_own(url: str) -> None:
    """A campaign never hands out the token of an office that the same election won before."""

    async def main() -> None:
        async with opened(url) as store:
            first = await won(store.election(0))
            assert await store.election(0).campaign() is None
            await first.resign()
            second = await won(store.election(0))
            assert second.token > first.token
            with pytest.raises(OfficeLost):
                await store.journal(0).append(first.token, batch(1))

    asyncio.run(main())


@pytest.mark.parametrize("word", ["mute", "drop"])
def test_a_campaign_without_an_answer_is_resolved(url: str, word: str) -> None:
    """Applied or not, the campaign ends in exactly one office, and its token is the key's."""

    async def main() -> None:
        async with opened(url), LossyClient(url) as client:
            keys = client.keys.partition(0)
            election = EtcdElection(client, keys, ALICE, 1)
            client.script = [word]
            office = await won(election)
            held = (await client.range(keys.office)).kvs[0]
            assert office.token == Token(1, held.create_revision)
            await office.verify()

    asyncio.run(main())


def test_a_campaign_left_in_the_dark_is_resolved_by_the_next(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After StoreUnavailable the office may be mine: the next call finds my ballot, and I lead."""
    monkeypatch.setattr("tenure.master.backend.etcd.resolution.BUDGET_S", 0.0)

    async def main() -> None:
        async with opened(url), LossyClient(url) as client:
            keys = client.keys.partition(0)
            election = EtcdElection(client, keys, ALICE, 1)
            client.script = ["mute"] + ["drop"] * 99
            with pytest.raises(StoreUnavailable):
                await election.campaign()
            client.script = []
            held = (await client.range(keys.office)).kvs[0]
            office = await won(election)
            assert office.token.revision == held.create_revision
            await office.renew()

    asyncio.run(main())


def test_a_lost_campaign_cannot_win_later(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A campaign given up for lost is made void: arriving late, it fails for want of its lease."""
    monkeypatch.setattr("tenure.master.backend.etcd.resolution.BUDGET_S", 0.0)
    late: list[tuple[Sequence[pb.Compare], Sequence[pb.RequestOp]]] = []

    class Postponing(LossyClient):
        async def txn(
            self,
            compare: Sequence[pb.Compare] = (),
            success: Sequence[pb.RequestOp] = (),
            failure: Sequence[pb.RequestOp] = (),
        ) -> pb.TxnResponse:
            if not late:
                late.append((compare, success))
            return await super().txn(compare, success, failure)

    async def main() -> None:
        async with opened(url), Postponing(url) as client:
            election = EtcdElection(client, client.keys.partition(0), ALICE, 1)
            client.script = ["drop"] * 99
            with pytest.raises(StoreUnavailable):
                await election.campaign()
            client.script = []
            await (await won(election)).resign()
            with pytest.raises(Exception, match="lease not found"):
                await client.txn(*late[0])
            assert await election.leader() is None

    asyncio.run(main())


def test_an_office_that_another_won_meanwhile_is_not_mine(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A campaign of unknown outcome was lost after all, and a rival leads: None, not the office."""
    monkeypatch.setattr("tenure.master.backend.etcd.resolution.BUDGET_S", 0.0)

    async def main() -> None:
        async with opened(url, BOB) as rival, LossyClient(url) as client:
            election = EtcdElection(client, client.keys.partition(0), ALICE, 1)
            client.script = ["drop"]
            with pytest.raises(StoreUnavailable):
                await election.campaign()
            theirs = await won(rival.election(0))
            assert await election.campaign() is None
            assert await election.campaign() is None
            await theirs.verify()

    asyncio.run(main())


def test_a_new_epoch_ends_every_term(url: str) -> None:
    """After a restore has raised the epoch, no token of the old one is good for anything."""

    async def main() -> None:
        async with opened(url) as store, LossyClient(url) as client:
            office = await won(store.election(0))
            await client.txn(success=[op.put(client.keys.epoch, b"2")])
            with pytest.raises(OfficeLost):
                await store.journal(0).append(office.token, batch(1))
            with pytest.raises(OfficeLost):
                await office.verify()
            await office.resign()
            with pytest.raises(StoreMismatch, match="restored"):
                await store.election(0).campaign()
            with pytest.raises(StoreMismatch, match="restored"):
                await store.register(ALICE, "0", 1)

    asyncio.run(main())


def test_members_come_and_go(url: str) -> None:
    """A registered master is listed with what it last said, and gone after it has closed."""

    async def main() -> None:
        async with opened(url) as mine:
            async with opened(url, BOB) as yours:
                await mine.register(ALICE, "1.0", 1)
                await yours.register(BOB, "1.1", 2)
                await mine.register(ALICE, "1.0", 3)
                found = await yours.members()
                assert [(m.candidate, m.version, m.wall_ms) for m in found] == [
                    (ALICE, "1.0", 3),
                    (BOB, "1.1", 2),
                ]
            assert [member.candidate for member in await mine.members()] == [ALICE]

    asyncio.run(main())


# ---- The journal ----------------------------------------------------------------------------


MUTATIONS: dict[str, Callable[[EtcdJournal, Token], Awaitable[object]]] = {
    "append": lambda journal, token: journal.append(token, batch(3, "mine")),
    "write_slice": lambda journal, token: journal.write_slice(token, "s2", 0, b"mine"),
    "publish_snapshot": lambda journal, token: journal.publish_snapshot(token, "s2", b"mine"),
    "truncate": lambda journal, token: journal.truncate(token, 2),
    "truncate nothing": lambda journal, token: journal.truncate(token, 0),
    "halt": lambda journal, token: journal.halt(token, HaltRecord(batch_number=1, detail="mine")),
}


@pytest.mark.parametrize("how", ["resigned", "expired", "another leads", "own second term"])
@pytest.mark.parametrize("kind", MUTATIONS)
def test_a_stale_token_changes_nothing(url: str, kind: str, how: str) -> None:
    """Every kind of mutation is refused as OfficeLost, and not one key has changed."""

    async def main() -> None:
        async with opened(url) as store, opened(url, BOB) as other, LossyClient(url) as client:
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
            root = b"/" + url.rsplit("/", 1)[1].encode() + b"/"
            before = await client.range(root, op.prefix_end(root))
            with pytest.raises(OfficeLost):
                await MUTATIONS[kind](journal, office.token)
            after = await client.range(root, op.prefix_end(root))
            assert list(after.kvs) == list(before.kvs)
            assert after.header.revision == before.header.revision

    asyncio.run(main())


@pytest.mark.parametrize(
    "script",
    [["mute"], ["drop"], ["drop", "mute"], ["mute", "drop", "mute", "mute"]],
    ids=lambda script: "-".join(script),
)
@pytest.mark.parametrize("kind", MUTATIONS)
def test_a_mutation_without_an_answer_is_resolved(url: str, kind: str, script: list[str]) -> None:
    """Whatever was lost on the way, the mutation takes effect once and returns."""

    async def main() -> None:
        async with opened(url) as store, LossyClient(url) as client:
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

    asyncio.run(main())


def test_a_batch_that_was_committed_before_the_office_was_lost_is_committed(url: str) -> None:
    """The answer was lost and the office with it: reading my bytes back still proves the commit."""

    async def main() -> None:
        async with opened(url) as store, LossyClient(url) as client:
            office = await won(store.election(0))
            journal = EtcdJournal(client, client.keys.partition(0))
            client.script, client.after_mute = ["mute"], office.resign
            await journal.append(office.token, batch(1))
            assert await numbers(journal) == [0, 1]
            with pytest.raises(OfficeLost):
                await journal.append(office.token, batch(2))

    asyncio.run(main())


def test_another_batch_under_my_number_is_no_commit_of_mine(url: str) -> None:
    """The successor's batch has my number: OfficeLost, and its bytes stay."""

    async def main() -> None:
        async with opened(url) as store, opened(url, BOB) as other, LossyClient(url) as client:
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

    asyncio.run(main())


def test_pipelined_batches_commit_in_order_when_the_first_is_lost(url: str) -> None:
    """Batch n+1 never stands without n: it waits, is sent again, and both commit."""

    async def main() -> None:
        async with opened(url) as store, LossyClient(url) as client:
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

    asyncio.run(main())


def test_a_batch_without_its_predecessor_is_not_written(url: str) -> None:
    """A gap is not stored; the caller is told to append the missing batch first."""

    async def main() -> None:
        async with opened(url) as store:
            office, journal = await won(store.election(0)), store.journal(0)
            with pytest.raises(StoreUnavailable, match="batch 1 is not stored"):
                await journal.append(office.token, batch(2))
            await journal.append(office.token, batch(1))
            await journal.append(office.token, batch(2))
            await journal.append(office.token, batch(1))
            assert await numbers(journal) == [0, 1, 2]

    asyncio.run(main())


def test_a_batch_that_was_stored_and_is_gone_is_corruption(url: str) -> None:
    """Deleted from outside: the next append says so, and so does a read across the gap."""

    async def main() -> None:
        async with opened(url) as store, LossyClient(url) as client:
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

    asyncio.run(main())


def test_a_read_goes_on_over_compactions(url: str) -> None:
    """A compaction in the middle of a paged read loses and repeats nothing."""

    async def main() -> None:
        async with opened(url) as store, LossyClient(url) as client:
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

    asyncio.run(main())


def test_a_snapshot_read_begins_again_when_a_newer_one_takes_its_place(url: str) -> None:
    """Compaction under the reader's revision: it gets the newer snapshot, never a mixture."""

    async def main() -> None:
        async with opened(url) as store, LossyClient(url) as client:
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
            async with Interrupted(url) as interrupted:
                reader = EtcdJournal(interrupted, client.keys.partition(0))
                ref = await reader.load_snapshot()
            assert ref is not None
            assert ref.manifest == b"new"
            assert ref.slices == [f"new {index}".encode() for index in range(20)]

    asyncio.run(main())


def test_a_published_snapshot_replaces_the_slices_of_all_others(url: str) -> None:
    """The former snapshot's slices go, and those that were never published."""

    async def main() -> None:
        async with opened(url) as store, LossyClient(url) as client:
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

    asyncio.run(main())


def test_truncation_deletes_upwards_and_keeps_the_last_batch(url: str) -> None:
    """The count is exact, the last batch stays, and appending goes on behind it."""

    async def main() -> None:
        async with opened(url) as store:
            office, journal = await won(store.election(0)), store.journal(0)
            for number in range(1, 6):
                await journal.append(office.token, batch(number))
            whole = await journal.log_bytes()
            assert await journal.truncate(office.token, 3) == 3
            assert await journal.truncate(office.token, 3) == 0
            assert await numbers(journal, 3) == [3, 4, 5]
            assert await journal.truncate(office.token, 99) == 2
            assert await numbers(journal, 5) == [5]
            assert 0 < await journal.log_bytes() < whole
            await journal.append(office.token, batch(6))
            assert await journal.last_number() == 6

    asyncio.run(main())


def test_log_bytes_counts_what_others_wrote(url: str) -> None:
    """A fresh adapter counts the stored log by itself."""

    async def main() -> None:
        async with opened(url) as store, opened(url, BOB) as other:
            office, journal = await won(store.election(0)), store.journal(0)
            await journal.append(office.token, batch(1))
            assert await other.journal(0).log_bytes() >= len(batch(1).data)

    asyncio.run(main())


# ---- Faults of the cluster ------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["killed", "frozen"])
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_one_bad_member_costs_nobody_the_term(
    cluster: EtcdCluster, url: str, fault: str, role: str
) -> None:
    """With any one member dead or frozen, appends, renewals, reads and truncations go on."""
    leads = cluster.leader()
    victim = (
        leads
        if role == "leader"
        else next(member for member in cluster.members if member is not leads)
    )
    first = cluster.members.index(victim)
    endpoints = cluster.endpoints[first:] + cluster.endpoints[:first]
    rotated = f"etcd://{','.join(endpoints)}/{url.rsplit('/', 1)[1]}"

    async def main() -> None:
        async with opened(rotated) as store:
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
            await store.register(ALICE, "0", 1)
            await office.resign()
            await (await won(store.election(0))).verify()

    try:
        asyncio.run(main())
    finally:
        if fault == "killed":
            victim.restart()
        else:
            victim.resume()
        cluster.wait_ready()


def test_without_a_majority_the_outcome_is_unknown_until_it_is_back() -> None:
    """Two of three members dead: StoreUnavailable; afterwards the same call commits."""
    with EtcdCluster(3) as cluster:

        async def main() -> None:
            async with opened(cluster.url(), ttl_s=60) as store:
                office, journal = await won(store.election(0)), store.journal(0)
                await journal.append(office.token, batch(1))
                for member in cluster.members[:2]:
                    member.kill()
                with pytest.raises(StoreUnavailable):
                    await journal.append(office.token, batch(2))
                with pytest.raises(StoreUnavailable):
                    await office.renew()
                with pytest.raises(StoreUnavailable):
                    await office.verify()
                for member in cluster.members[:2]:
                    member.start()
                cluster.wait_ready()
                await journal.append(office.token, batch(2))
                await office.renew()
                await office.verify()
                assert await numbers(journal) == [0, 1, 2]

        asyncio.run(main())


def test_tls() -> None:
    """The certificates named in the URL carry a whole term."""
    with EtcdCluster(1, tls=True) as cluster:
        files = cluster.tls
        assert files is not None

        async def main() -> None:
            async with opened(cluster.url()) as store:
                office, journal = await won(store.election(0)), store.journal(0)
                await journal.append(office.token, batch(1))
                await office.renew()
                assert await numbers(journal) == [0, 1]

        asyncio.run(main())


def test_a_full_store_keeps_the_term_and_takes_truncations() -> None:
    """NOSPACE: appends are StoreFull, the office lives, and the runbook lets the batch through."""
    with EtcdCluster(1, quota_bytes=2 * 1024 * 1024) as cluster:

        async def main() -> None:
            async with (
                opened(cluster.url(), partitions=2) as store,
                LossyClient(cluster.url()) as client,
            ):
                office, journal = await won(store.election(0)), store.journal(0)
                number = 0

                async def fill() -> None:
                    nonlocal number
                    while number < 64:
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
                with pytest.raises(StoreFull):
                    await store.election(1).campaign()
                assert await journal.last_number() == number
                assert await journal.truncate(office.token, number) == number
                await client.defragment(cluster.endpoints[0])
                for alarm in await client.alarms():
                    await client.disarm(alarm)
                await won(store.election(1))
                await journal.append(office.token, batch(number + 1))
                assert await numbers(journal, number) == [number, number + 1]

        asyncio.run(main())


def test_a_batch_over_etcds_request_limit_stops_the_process(url: str) -> None:
    """Nothing can ever store it: an I/O error, not a retry."""

    async def main() -> None:
        async with opened(url) as store:
            office, journal = await won(store.election(0)), store.journal(0)
            with pytest.raises(StoreIoError, match="too large"):
                await journal.append(office.token, SealedBatch(number=1, data=bytes(1_700_000)))

    asyncio.run(main())
