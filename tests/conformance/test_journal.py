"""Every store's journals: what was committed is there, in order, and only the leader writes."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tenure.master.backend.errors import CorruptJournal, OfficeLost, StoreFull
from tenure.master.core.event import DurableEvent, TermClosed, TermOpened
from tenure.master.journal.codec import decode_events
from tenure.master.journal.frame import Chain
from tenure.master.journal.port import HaltRecord, Journal, SealedBatch, SnapshotRef
from tenure.protocol.errors import Unavailable
from tenure.protocol.fence import NO_TOKEN, Token
from tests.conformance.bench import (
    WALL_MS,
    Bench,
    FillableBench,
    followed,
    sealed,
    stored,
    won,
)
from tests.encoded import encode_events

LARGE = bytes(512 * 1024)


async def _written(journal: Journal, token: Token, count: int) -> Chain:
    """Appends some batches after what is there."""
    chain = await followed(journal)
    for number in range(count):
        await journal.append(token, sealed(chain, token, b"batch %d" % number))
    return chain


async def _everything(
    journal: Journal,
) -> tuple[list[SealedBatch], SnapshotRef | None, HaltRecord | None]:
    try:
        batches = await stored(journal)
    except CorruptJournal:
        batches = await stored(journal, await journal.last_number())
    return batches, await journal.load_snapshot(), await journal.halted()


async def test_a_new_store_has_batch_0(bench: Bench) -> None:
    """Bootstrap leaves one empty, whole batch in each partition, and nothing else."""
    store = await bench.open(partitions=2)
    for partition in range(2):
        journal = store.journal(partition)
        chain = await followed(journal, partition)
        assert (chain.number, chain.next_seq) == (1, 1)
        assert await journal.last_number() == 0
        assert await journal.load_snapshot() is None
        assert await journal.halted() is None
    await store.close()


async def test_batches_are_read_in_order(bench: Bench) -> None:
    """What was appended is read back, byte for byte, from any number on."""
    store = await bench.open()
    journal, office = store.journal(0), await won(store)
    chain = await followed(journal)
    batches = await stored(journal)
    for number in range(100):
        batches.append(sealed(chain, office.token, b"%d" % number))
        await journal.append(office.token, batches[-1])
    assert await stored(journal) == batches
    assert await stored(journal, 57) == batches[57:]
    assert await stored(journal, 101) == []
    assert await journal.last_number() == 100
    await store.close()


async def test_a_later_master_sees_everything(bench: Bench) -> None:
    """After the store was closed and opened again, all is there."""
    store = await bench.open()
    office = await won(store)
    await _written(store.journal(0), office.token, 40)
    await store.journal(0).halt(office.token, HaltRecord(batch_number=7, detail="why"))
    batches = await stored(store.journal(0))
    store = await bench.reopen(store)
    assert await stored(store.journal(0)) == batches
    assert await store.journal(0).halted() == HaltRecord(batch_number=7, detail="why")
    await store.close()


async def test_the_largest_batch_is_taken(bench: Bench) -> None:
    """512 KiB is the hard limit of a batch, and every store takes that much."""
    store = await bench.open()
    journal, office = store.journal(0), await won(store)
    chain = await followed(journal)
    batch = sealed(chain, office.token, LARGE)
    await journal.append(office.token, batch)
    assert (await stored(journal, 1)) == [batch]
    await store.close()


async def test_appends_are_pipelined_in_order(bench: Bench) -> None:
    """Appends in flight at once commit in the order of their numbers, and return in it."""
    store = await bench.open()
    journal, office = store.journal(0), await won(store)
    chain = await followed(journal)
    returned: list[int] = []

    async def append(batch: SealedBatch) -> None:
        await journal.append(office.token, batch)
        returned.append(batch.number)

    for _ in range(10):
        async with asyncio.TaskGroup() as group:
            for _ in range(journal.pipeline_depth):
                group.create_task(append(sealed(chain, office.token)))
    assert returned == sorted(returned)
    assert (await followed(journal)).number == chain.number == 1 + 10 * journal.pipeline_depth
    await store.close()


async def test_an_append_may_be_repeated(bench: Bench) -> None:
    """The same bytes again under the same number are the same batch."""
    store = await bench.open()
    journal, office = store.journal(0), await won(store)
    chain = await followed(journal)
    batches = [sealed(chain, office.token, b"%d" % number) for number in range(3)]
    for batch in [batches[0], batches[0], *batches, batches[1]]:
        await journal.append(office.token, batch)
    assert await stored(journal, 1) == batches
    await store.close()


async def test_a_number_is_given_once(bench: Bench) -> None:
    """Other bytes under a number that is taken are refused, and change nothing."""
    store = await bench.open()
    journal, office = store.journal(0), await won(store)
    await _written(journal, office.token, 3)
    before = await stored(journal)
    for number in (0, 2, 3):
        with pytest.raises(OfficeLost):
            await journal.append(office.token, SealedBatch(number=number, data=b"other"))
    assert await stored(journal) == before
    await store.close()


async def test_no_batch_without_its_predecessor(bench: Bench) -> None:
    """A batch whose predecessor is missing is not written; both go in when they come in order."""
    store = await bench.open()
    journal, office = store.journal(0), await won(store)
    chain = await followed(journal)
    first, second = sealed(chain, office.token, b"1"), sealed(chain, office.token, b"2")
    with pytest.raises(Unavailable):
        await journal.append(office.token, second)
    assert await journal.last_number() == 0
    await journal.append(office.token, first)
    await journal.append(office.token, second)
    assert await stored(journal, 1) == [first, second]
    await store.close()


async def test_partitions_have_journals_of_their_own(bench: Bench) -> None:
    """The same numbers in two partitions are different batches."""
    store = await bench.open(partitions=2)
    for partition in range(2):
        journal, office = store.journal(partition), await won(store, partition)
        chain = await followed(journal, partition)
        for number in range(1 + partition):
            await journal.append(office.token, sealed(chain, office.token, b"%d" % number))
    assert [await store.journal(partition).last_number() for partition in range(2)] == [1, 2]
    for partition in range(2):
        await followed(store.journal(partition), partition)
    await store.close()


# ---- the guard ------------------------------------------------------------------------------


def _term_opened(token: Token) -> list[DurableEvent]:
    return [TermOpened(now_ms=WALL_MS, token=token, incarnation="zombie", window_ms=0)]


def _term_closed(token: Token) -> list[DurableEvent]:
    return [TermClosed(now_ms=WALL_MS, token=token, holders=[])]


def _append(events: Callable[[Token], list[DurableEvent]]) -> "Mutation":
    async def mutate(journal: Journal, token: Token, chain: Chain) -> None:
        await journal.append(token, sealed(chain, token, encode_events(events(token))))

    return mutate


async def _write_slice(journal: Journal, token: Token, chain: Chain) -> None:
    await journal.write_slice(token, "published", 0, b"overwritten")


async def _publish(journal: Journal, token: Token, chain: Chain) -> None:
    await journal.load_snapshot()
    await journal.publish_snapshot(token, "zombie's", b"manifest")


async def _truncate(journal: Journal, token: Token, chain: Chain) -> None:
    await journal.truncate(token, chain.number)


async def _truncate_nothing(journal: Journal, token: Token, chain: Chain) -> None:
    await journal.truncate(token, 0)


async def _halt(journal: Journal, token: Token, chain: Chain) -> None:
    await journal.halt(token, HaltRecord(batch_number=1, detail="zombie's"))


Mutation = Callable[[Journal, Token, Chain], Awaitable[None]]

MUTATIONS: dict[str, Mutation] = {
    "append": _append(lambda token: []),
    "TermOpened": _append(_term_opened),
    "TermClosed": _append(_term_closed),
    "slice": _write_slice,
    "publication": _publish,
    "truncation": _truncate,
    "empty truncation": _truncate_nothing,
    "HALTED": _halt,
}


async def _prepared(journal: Journal, token: Token) -> Chain:
    chain = await _written(journal, token, 6)
    await journal.write_slice(token, "published", 0, b"slice")
    await journal.load_snapshot()
    await journal.publish_snapshot(token, "published", b"manifest")
    return chain


@pytest.mark.parametrize("mutation", MUTATIONS)
async def test_a_deposed_master_changes_nothing(bench: Bench, mutation: str) -> None:
    """Every mutation under the token of an office that another has won since is refused."""
    store = await bench.open()
    office = await won(store)
    chain = await _prepared(store.journal(0), office.token)
    taken = await bench.takeover(store)
    before = await _everything(taken.store.journal(0))
    with pytest.raises(OfficeLost):
        await MUTATIONS[mutation](taken.zombie, office.token, chain)
    assert await _everything(taken.store.journal(0)) == before
    await taken.store.close()
    await store.close()


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("wrong", ["resigned", "none", "future", "other epoch"])
async def test_a_wrong_token_changes_nothing(bench: Bench, mutation: str, wrong: str) -> None:
    """Nor does one that was given up, was never given, is not yet given, or is of another epoch."""
    store = await bench.open()
    office, journal = await won(store), store.journal(0)
    chain = await _prepared(journal, office.token)
    if wrong == "resigned":
        await office.resign()
    token = {
        "resigned": office.token,
        "none": NO_TOKEN,
        "future": Token(office.token.epoch, office.token.revision + 1),
        "other epoch": Token(office.token.epoch + 1, office.token.revision),
    }[wrong]
    before = await _everything(journal)
    with pytest.raises(OfficeLost):
        await MUTATIONS[mutation](journal, token, chain)
    assert await _everything(journal) == before
    await store.close()


@pytest.mark.parametrize("mutation", MUTATIONS)
async def test_the_leader_may(bench: Bench, mutation: str) -> None:
    """The same mutations are done under the office's token: the refusals above mean something."""
    store = await bench.open()
    office, journal = await won(store), store.journal(0)
    chain = await _prepared(journal, office.token)
    before = await _everything(journal)
    await MUTATIONS[mutation](journal, office.token, chain)
    if mutation != "empty truncation":
        assert await _everything(journal) != before
    await store.close()


async def test_terms_are_read_back(bench: Bench) -> None:
    """Events go into a batch and come out of it as they were."""
    store = await bench.open()
    office, journal = await won(store), store.journal(0)
    events = _term_opened(office.token) + _term_closed(office.token)
    chain = await followed(journal)
    batch = chain.seal(
        token=office.token, stamp_ms=WALL_MS, events=encode_events(events), event_count=2
    )
    await journal.append(office.token, batch)
    reader = Chain.start(0)
    records = [reader.follow(found) async for found in journal.read(0)]
    assert [decode_events(record.events) for record in records] == [[], events]
    await store.close()


# ---- snapshots, truncation, halting ---------------------------------------------------------


async def test_a_snapshot_is_there_once_published(bench: Bench) -> None:
    """Slices alone are nothing; published they are the snapshot, in the order of their index."""
    store = await bench.open()
    office, journal = await won(store), store.journal(0)
    for index in (1, 0, 10, 2):
        await journal.write_slice(office.token, "first", index, b"slice %d" % index)
    assert await journal.load_snapshot() is None
    await journal.publish_snapshot(office.token, "first", b"manifest")
    await journal.publish_snapshot(office.token, "first", b"manifest")
    expected = SnapshotRef(
        manifest=b"manifest", slices=[b"slice 0", b"slice 1", b"slice 2", b"slice 10"]
    )
    assert await journal.load_snapshot() == expected
    store = await bench.reopen(store)
    assert await store.journal(0).load_snapshot() == expected
    await store.close()


async def test_a_manifest_is_read_without_its_slices(bench: Bench) -> None:
    """It is the published snapshot's, and whoever has read it may publish the next one."""
    store = await bench.open()
    office, journal = await won(store), store.journal(0)
    assert await journal.snapshot_manifest() is None
    await journal.write_slice(office.token, "first", 0, b"slice")
    assert await journal.snapshot_manifest() is None
    await journal.publish_snapshot(office.token, "first", b"of\0first")
    assert await journal.snapshot_manifest() == b"of\0first"
    taken = await bench.takeover(store)
    journal, token = taken.store.journal(0), taken.office.token
    reader = taken.store.reader(0)
    assert await reader.snapshot_manifest() == b"of\0first"
    with pytest.raises(OfficeLost, match="was published since"):
        await journal.publish_snapshot(token, "second", b"of second")
    assert await journal.snapshot_manifest() == b"of\0first"
    await journal.publish_snapshot(token, "second", b"of second")
    assert await reader.snapshot_manifest() == b"of second"
    await taken.store.close()
    await store.close()


async def test_a_newer_snapshot_takes_the_place(bench: Bench) -> None:
    """Publishing the next one replaces the last; one that was begun and left does not matter."""
    store = await bench.open()
    office, journal = await won(store), store.journal(0)
    for name in ("first", "abandoned", "second"):
        await journal.write_slice(office.token, name, 0, name.encode())
        if name != "abandoned":
            await journal.publish_snapshot(office.token, name, b"of " + name.encode())
    assert await journal.load_snapshot() == SnapshotRef(manifest=b"of second", slices=[b"second"])
    await store.close()


async def test_a_snapshot_is_not_replaced_unseen(bench: Bench) -> None:
    """Who has not read the snapshot that is there cannot put another in its place."""
    store = await bench.open()
    office = await won(store)
    await store.journal(0).write_slice(office.token, "first", 0, b"slice")
    await store.journal(0).publish_snapshot(office.token, "first", b"manifest")
    taken = await bench.takeover(store)
    journal, token = taken.store.journal(0), taken.office.token
    await journal.write_slice(token, "second", 0, b"slice")
    with pytest.raises(OfficeLost):
        await journal.publish_snapshot(token, "second", b"other")
    seen = await journal.load_snapshot()
    assert seen is not None
    assert seen.manifest == b"manifest"
    await journal.publish_snapshot(token, "second", b"other")
    await taken.store.close()
    await store.close()


async def test_truncation_keeps_the_last_batch(bench: Bench) -> None:
    """Batches below the number go, the last one never does, and appending goes on after it."""
    store = await bench.open()
    office, journal = await won(store), store.journal(0)
    chain = await _written(journal, office.token, 200)
    batches = await stored(journal)
    assert await journal.truncate(office.token, 150) == 150
    assert await journal.truncate(office.token, 150) == 0
    assert await stored(journal, 150) == batches[150:]
    assert await journal.truncate(office.token, 10_000) == 50
    assert await stored(journal, 200) == batches[200:]
    assert await journal.last_number() == 200
    await journal.append(office.token, sealed(chain, office.token))
    assert await journal.last_number() == 201
    await store.close()


async def test_what_was_truncated_is_missed(bench: Bench) -> None:
    """Reading from a batch that is gone is a gap, not an empty answer."""
    store = await bench.open()
    office, journal = await won(store), store.journal(0)
    await _written(journal, office.token, 5)
    await journal.truncate(office.token, 3)
    with pytest.raises(CorruptJournal):
        await stored(journal, 2)
    await store.close()


async def test_halting_is_per_partition(bench: Bench) -> None:
    """A halted partition says why, to every master, and the others are not touched."""
    store = await bench.open(partitions=2)
    office = await won(store, 1)
    record = HaltRecord(batch_number=17, detail="its checksum is wrong")
    await store.journal(1).halt(office.token, record)
    store = await bench.reopen(store)
    assert await store.journal(0).halted() is None
    assert await store.journal(1).halted() == record
    await store.close()


# ---- damage ---------------------------------------------------------------------------------


async def test_a_gap_is_named(bench: Bench) -> None:
    """A batch that is missing in the middle is found by its number."""
    store = await bench.open()
    office, journal = await won(store), store.journal(0)
    await _written(journal, office.token, 6)
    await bench.damage(store, 4, None)
    with pytest.raises(CorruptJournal, match="batch 4") as caught:
        await stored(journal)
    assert caught.value.metadata["batch"] == "4"
    await store.close()


async def test_a_flipped_bit_is_named(bench: Bench) -> None:
    """A damaged batch is stored bytes like any other, until its frame is checked."""
    store = await bench.open()
    office, journal = await won(store), store.journal(0)
    await _written(journal, office.token, 6)
    flipped = bytearray((await stored(journal))[3].data)
    flipped[len(flipped) // 2] ^= 0x10
    await bench.damage(store, 3, bytes(flipped))
    with pytest.raises(CorruptJournal, match="batch 3") as caught:
        await followed(journal)
    assert caught.value.metadata["batch"] == "3"
    await store.close()


# ---- no space -------------------------------------------------------------------------------


async def test_a_full_store_refuses_cleanly(fillable_bench: FillableBench) -> None:
    """Without space nothing new is stored and nothing old is lost; with it, work goes on."""
    store = await fillable_bench.open()
    office, journal = await won(store), store.journal(0)
    chain = await _written(journal, office.token, 30)
    before = await stored(journal)
    await fillable_bench.fill(store)
    # Two at once, as the pipeline sends them: the second must not overtake the first.
    waiting = [sealed(chain, office.token, LARGE), sealed(chain, office.token)]
    for _ in range(2):
        for result in await asyncio.gather(
            *(journal.append(office.token, batch) for batch in waiting), return_exceptions=True
        ):
            assert isinstance(result, (StoreFull, Unavailable)), result
    with pytest.raises(StoreFull):
        await journal.append(office.token, waiting[0])
    with pytest.raises(StoreFull):
        await journal.write_slice(office.token, "snapshot", 0, LARGE)
    assert await stored(journal) == before
    await office.verify()
    await fillable_bench.free(store)
    for batch in waiting:
        await journal.append(office.token, batch)
    assert await stored(journal) == before + waiting
    await store.close()


async def test_a_full_store_can_be_truncated(fillable_bench: FillableBench) -> None:
    """Truncation works without space: it is the way to get some."""
    store = await fillable_bench.open()
    office, journal = await won(store), store.journal(0)
    chain = await followed(journal)
    for _ in range(20):
        await journal.append(office.token, sealed(chain, office.token, LARGE))
    await fillable_bench.fill(store)
    assert await journal.truncate(office.token, 15) == 15
    assert [batch.number for batch in await stored(journal, 15)] == [15, 16, 17, 18, 19, 20]
    await store.close()
