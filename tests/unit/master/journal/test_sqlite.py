"""The journal in SQLite: what it asks of the thread, and what it says when it is refused.

That its bytes are safe is stated by the conformance suite; here the database is in memory.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tenure.master.backend.errors import CorruptJournal, OfficeLost, StoreFull, StoreUnavailable
from tenure.master.journal.port import HaltRecord, ReplayMark, SealedBatch, SnapshotRef
from tenure.master.journal.sqlite import LATER_SCHEMA, SCHEMA, SqliteJournal
from tenure.protocol.errors import TenureError
from tenure.protocol.fence import Token
from tenure.protocol.refusal import Reason

TOKEN = Token(2, 7)
STALE = Token(2, 6)
PARTITION = 3
OFFICES = """
CREATE TABLE cluster (epoch INTEGER NOT NULL);
CREATE TABLE office (partition INTEGER PRIMARY KEY, epoch INTEGER NOT NULL);
INSERT INTO cluster VALUES (2);
INSERT INTO office VALUES (3, 7), (4, 8);
"""

Change = Callable[[SqliteJournal, Token], Awaitable[object]]


class Watched:
    """A database in memory, in the place of the thread that has one on disk.

    Attributes:
        asked: What each operation was said to be: (size, atomic, frees).
        refusals: What the next operations end with.
    """

    def __init__(self) -> None:
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        self.database.executescript(OFFICES + SCHEMA + LATER_SCHEMA)
        for partition in (PARTITION, 4):
            self.put(0, b"genesis", partition)
        self.asked: list[tuple[int, bool, bool]] = []
        self.refusals: list[TenureError] = []

    def put(self, number: int, data: bytes = b"put", partition: int = PARTITION) -> None:
        """Stores a batch behind the journal's back."""
        self.database.execute("INSERT INTO batch VALUES (?, ?, ?)", (partition, number, data))

    async def run(
        self,
        operation: Callable[[sqlite3.Connection], Any],
        *,
        size: int = 0,
        atomic: bool = False,
        frees: bool = False,
    ) -> Any:
        self.asked.append((size, atomic, frees))
        if self.refusals:
            raise self.refusals.pop(0)
        self.database.execute("BEGIN")
        try:
            result = operation(self.database)
        except TenureError:
            self.database.execute("ROLLBACK")
            raise
        self.database.execute("COMMIT")
        return result


@pytest.fixture
def watched() -> Watched:
    """A store with two partitions, each with its batch 0."""
    return Watched()


@pytest.fixture
def journal(watched: Watched) -> SqliteJournal:
    """The journal of one of them."""
    return SqliteJournal(watched, PARTITION)  # type: ignore[arg-type]


def batch(number: int) -> SealedBatch:
    """A batch, whatever is in it."""
    return SealedBatch(number=number, data=b"batch %d" % number)


def append(journal: SqliteJournal, number: int, token: Token = TOKEN) -> None:
    """Appends one."""
    asyncio.run(journal.append(token, batch(number)))


def stored(journal: SqliteJournal, first: int = 0) -> list[int]:
    """The numbers that are read from one on."""

    async def main() -> list[int]:
        return [found.number async for found in journal.read(first)]

    return asyncio.run(main())


def full() -> StoreFull:
    """What the thread says when there is no space."""
    return StoreFull("no space", reason=Reason.STORE_FULL)


CHANGES: dict[str, tuple[Change, list[tuple[int, bool, bool]]]] = {
    "append": (lambda j, token: j.append(token, batch(1)), [(7, True, False)]),
    "slice": (lambda j, token: j.write_slice(token, "s", 0, b"four"), [(4, True, False)]),
    "publish": (lambda j, token: j.publish_snapshot(token, "s", b"hello"), [(5, False, False)]),
    "truncate": (lambda j, token: j.truncate(token, 5), [(0, False, True)]),
    "halt": (
        lambda j, token: j.halt(token, HaltRecord(batch_number=1, detail="why")),
        [(0, True, False)],
    ),
    "mark": (lambda j, token: j.mark_replay(token, ReplayMark(crashes=1)), [(0, True, False)]),
    "end of replay": (lambda j, token: j.mark_replay(token, None), [(0, True, False)]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_says_how_large_it_is_and_of_what_kind(
    watched: Watched, journal: SqliteJournal, name: str
) -> None:
    """One statement needs no transaction of its own; what frees space may use the reserve."""
    change, asked = CHANGES[name]
    asyncio.run(change(journal, TOKEN))  # type: ignore[arg-type]
    assert watched.asked == asked


@pytest.mark.parametrize("name", CHANGES)
def test_a_stale_token_is_told_what_it_lacks(
    watched: Watched, journal: SqliteJournal, name: str
) -> None:
    """Which office, under which token, and that another has it."""
    change, _ = CHANGES[name]
    why = f"the office of partition 3 under {STALE}, but it was taken or given up since"
    with pytest.raises(OfficeLost, match=why) as caught:
        asyncio.run(change(journal, STALE))  # type: ignore[arg-type]
    assert caught.value.reason is Reason.FENCED
    assert caught.value.metadata == {"partition": "3", "token": str(STALE)}


def test_a_number_that_another_has_taken_is_named(watched: Watched, journal: SqliteJournal) -> None:
    """Its own bytes under its number are no mistake."""
    append(journal, 1)
    append(journal, 1)
    append(journal, 1, STALE)
    watched.put(2, b"another's")
    with pytest.raises(OfficeLost, match="but another batch 2 was written") as caught:
        append(journal, 2)
    assert caught.value.metadata == {"partition": "3", "token": str(TOKEN)}


def test_a_snapshot_is_published_over_the_one_that_was_seen(
    watched: Watched, journal: SqliteJournal
) -> None:
    """However it was seen: published, loaded, or its manifest read; never over another."""

    async def main() -> None:
        other = SqliteJournal(watched, PARTITION)  # type: ignore[arg-type]
        assert await journal.snapshot_manifest() is None
        await journal.publish_snapshot(TOKEN, "first", b"1")
        await journal.publish_snapshot(TOKEN, "second", b"2")
        for see in (other.load_snapshot, other.snapshot_manifest):
            with pytest.raises(OfficeLost, match="another snapshot was published") as caught:
                await other.publish_snapshot(TOKEN, "other", b"3")
            assert caught.value.metadata == {"partition": "3", "token": str(TOKEN)}
            seen = await see()
            assert (seen.manifest if isinstance(seen, SnapshotRef) else seen) == b"2"
            await other.publish_snapshot(TOKEN, "other's", b"3")
            assert await journal.snapshot_manifest() == b"3"
            await journal.publish_snapshot(TOKEN, "second", b"2")
        assert await SqliteJournal(watched, 4).load_snapshot() is None  # type: ignore[arg-type]

    asyncio.run(main())


def test_a_snapshot_is_read_in_the_order_of_its_slices(
    watched: Watched, journal: SqliteJournal
) -> None:
    """Its own, and no other's: those are gone, but for another partition's."""

    async def main() -> None:
        neighbour = SqliteJournal(watched, 4)  # type: ignore[arg-type]
        await neighbour.write_slice(Token(2, 8), "theirs", 0, b"n")
        for index in (1, 0):
            await journal.write_slice(TOKEN, "mine", index, b"%d" % index)
        await journal.write_slice(TOKEN, "abandoned", 0, b"a")
        await journal.publish_snapshot(TOKEN, "mine", b"m")
        assert await journal.load_snapshot() == SnapshotRef(manifest=b"m", slices=[b"0", b"1"])

    asyncio.run(main())
    left = watched.database.execute("SELECT snapshot, position FROM slice ORDER BY 1, 2").fetchall()
    assert left == [("mine", 0), ("mine", 1), ("theirs", 0)]


def test_a_gap_says_what_is_there_instead(watched: Watched, journal: SqliteJournal) -> None:
    """To a reader, and to who would write into it."""
    watched.put(3)
    watched.database.execute("DELETE FROM batch WHERE partition = 3 AND number < 3")
    with pytest.raises(CorruptJournal, match="batch 2 of partition 3 in the journal") as caught:
        stored(journal, 2)
    assert "it is missing while batch 3 is there; nothing was skipped" in caught.value.message
    assert caught.value.reason is Reason.STORE_CORRUPT
    assert caught.value.metadata == {"partition": "3", "batch": "2"}
    with pytest.raises(CorruptJournal, match=r"batch 1 of .* while batch 3 is there"):
        append(journal, 2)


def test_a_journal_without_a_batch_is_no_journal(watched: Watched, journal: SqliteJournal) -> None:
    """Whoever looks for its end hears that batch 0 is missing."""
    assert asyncio.run(journal.last_number()) == 0
    watched.database.execute("DELETE FROM batch WHERE partition = 3")
    with pytest.raises(CorruptJournal, match=r"batch 0 of .* the journal is empty") as caught:
        asyncio.run(journal.last_number())
    assert caught.value.metadata == {"partition": "3", "batch": "0"}


@pytest.mark.parametrize("empty", [False, True])
def test_a_batch_that_comes_too_early_names_the_one_before(
    watched: Watched, journal: SqliteJournal, empty: bool
) -> None:
    """It is not written, and can be sent again."""
    if empty:
        watched.database.execute("DELETE FROM batch WHERE partition = 3")
    with pytest.raises(StoreUnavailable, match="write batch 3 of partition 3") as caught:
        append(journal, 3)
    assert "but batch 2 is not stored; write that one first" in caught.value.message
    assert caught.value.reason is Reason.STORE_UNAVAILABLE
    assert caught.value.metadata == {"partition": "3", "batch": "2"}


def _waits(journal: SqliteJournal, number: int) -> str:
    """For which batch's space this one waits; "" if only for its predecessor."""
    write = f"write batch {number} of partition 3"
    with pytest.raises((StoreFull, StoreUnavailable), match=write) as caught:
        append(journal, number)
    error = caught.value
    if isinstance(error, StoreUnavailable):
        return ""
    assert f"batch {error.metadata['batch']} before it found no space" in error.message
    assert (error.reason, error.metadata["partition"]) == (Reason.STORE_FULL, "3")
    return error.metadata["batch"]


def test_who_follows_a_batch_without_space_waits_for_space(
    watched: Watched, journal: SqliteJournal
) -> None:
    """Not for a predecessor that nobody sends; until the first that found none is written."""
    assert _waits(journal, 2) == ""
    for number in (2, 1, 3):
        watched.refusals = [full()]
        with pytest.raises(StoreFull, match="no space"):
            append(journal, number)
    assert [_waits(journal, number) for number in (2, 3, 4)] == ["1", "1", "1"]
    append(journal, 1)
    assert _waits(journal, 3) == ""
    watched.refusals = [full()]
    with pytest.raises(StoreFull, match="no space"):
        append(journal, 4)
    append(journal, 2)
    assert [_waits(journal, number) for number in (4, 5, 6)] == ["", "4", "4"]


@pytest.mark.parametrize(
    ("before", "gone", "portions"), [(128, 128, 2), (129, 129, 3), (1_000, 129, 3), (64, 64, 1)]
)
def test_a_truncation_goes_in_portions(
    watched: Watched, journal: SqliteJournal, before: int, gone: int, portions: int
) -> None:
    """Of 64 batches, so that appends come in between; the last batch stays, whatever is asked."""
    for number in range(1, 130):
        watched.put(number)
    watched.put(1, partition=4)
    assert asyncio.run(journal.truncate(TOKEN, before)) == gone
    assert len(watched.asked) == portions
    assert stored(journal, gone) == list(range(gone, 130))
    assert stored(SqliteJournal(watched, 4)) == [0, 1]  # type: ignore[arg-type]


def test_batches_are_read_in_portions(watched: Watched, journal: SqliteJournal) -> None:
    """Of 32, to the last, from any on."""
    for number in range(1, 64):
        watched.put(number)
    assert stored(journal) == list(range(64))
    assert len(watched.asked) == 3
    assert stored(journal, 40) == list(range(40, 64))
    assert asyncio.run(journal.last_number()) == 63


def test_what_is_said_of_a_partition_is_read_back(watched: Watched, journal: SqliteJournal) -> None:
    """Why it was halted and how far its replay was: as written last, and not the neighbour's."""

    async def main() -> None:
        neighbour = SqliteJournal(watched, 4)  # type: ignore[arg-type]
        for detail in ("first", "second"):
            record = HaltRecord(batch_number=9, detail=detail)
            await journal.halt(TOKEN, record)
            assert await journal.halted() == record
        for mark in (ReplayMark(crashes=1), ReplayMark(crashes=2, seq=70)):
            await journal.mark_replay(TOKEN, mark)
            assert await journal.replay_mark() == mark
        assert await neighbour.halted() is None
        assert await neighbour.replay_mark() is None
        await neighbour.mark_replay(Token(2, 8), None)
        assert await journal.replay_mark() is not None
        await journal.mark_replay(TOKEN, None)
        assert await journal.replay_mark() is None

    asyncio.run(main())
