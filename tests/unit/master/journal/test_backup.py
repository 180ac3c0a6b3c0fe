"""The file of a backup: what is written into it, and that nothing else passes for a whole one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from hashlib import blake2b
from pathlib import Path

import pytest
from google_crc32c import value as crc32c

from tenure.master.backend.errors import CorruptJournal, FormatTooNew, StoreUnavailable
from tenure.master.journal.backup import FORMAT, BackupFile, Contents, export
from tenure.master.journal.frame import Chain, hash_of, seal_manifest, seal_slice
from tenure.master.journal.port import SealedBatch, SnapshotRef
from tenure.protocol.errors import Rejected
from tenure.protocol.fence import Token
from tenure.protocol.refusal import Reason
from tenure.v1 import backup_pb2

TOKEN = Token(1, 7)
MAGIC = b"tenure backup 1\n"
RECORD_BYTES_MAX = 64 << 20

Record = backup_pb2.BackupRecord
#: A file's records, changed in one place.
Damage = Callable[[list[Record]], list[Record]]


class Kept:
    """One partition's journal in memory, as far as a backup reads it.

    Args:
        batches: What is left of the log.
        snapshot: What is published.
        cuts: Before a reader gets a batch: what is left, and what is published then.
    """

    def __init__(
        self,
        batches: list[SealedBatch],
        snapshot: SnapshotRef | None = None,
        cuts: list[tuple[list[SealedBatch], SnapshotRef | None]] | None = None,
    ) -> None:
        self.batches = batches
        self.snapshot = snapshot
        self.cuts = cuts or []

    async def load_snapshot(self) -> SnapshotRef | None:
        return self.snapshot

    async def last_number(self) -> int:
        return self.batches[-1].number

    async def read(self, first: int) -> AsyncIterator[SealedBatch]:
        for batch in self.batches:
            if self.cuts:
                self.batches, self.snapshot = self.cuts.pop(0)
                raise CorruptJournal("a batch is missing", reason=Reason.STORE_CORRUPT)
            if batch.number >= first:
                yield batch


def journal(count: int, partition: int = 0) -> list[SealedBatch]:
    """Batches that follow one another; the stamp of each is its number and a thousand."""
    chain = Chain.start(partition)
    return [
        chain.seal(token=TOKEN, stamp_ms=1_000 + number, events=b"\x91\x07", event_count=1)
        for number in range(count)
    ]


def snapshot_of(
    batches: list[SealedBatch], partition: int = 0, *, slices: int = 2, stamp_ms: int = 500
) -> SnapshotRef:
    """What is published when all these batches are covered."""
    name = f"after-{len(batches)}"
    manifest = seal_manifest(
        partition=partition,
        snapshot_id=name,
        slice_count=slices,
        first_batch=len(batches),
        previous_hash=hash_of(batches[-1].data),
        last_seq=len(batches),
        token=TOKEN,
        stamp_ms=stamp_ms,
    )
    sealed = [seal_slice(partition, name, index, b"\x91\x01") for index in range(slices)]
    return SnapshotRef(manifest=manifest, slices=sealed)


def records_of(batches: list[SealedBatch], snapshot: SnapshotRef | None = None) -> list[Record]:
    """What is written of a partition before its summary."""
    published = [] if snapshot is None else [Record(manifest=snapshot.manifest)]
    published += [] if snapshot is None else [Record(slice=data) for data in snapshot.slices]
    return published + [Record(batch=batch.data) for batch in batches]


def summary_of(
    batches: list[SealedBatch], partition: int = 0, *, slices: int = 0, stamp_ms: int = 0
) -> Record:
    """What ends a partition."""
    return Record(
        partition=backup_pb2.BackupPartition(
            partition=partition,
            slices=slices,
            batches=len(batches),
            last_batch=batches[-1].number,
            last_hash=hash_of(batches[-1].data),
            stamp_ms=stamp_ms or 1_000 + batches[-1].number,
        )
    )


def header(partitions: int, format_: int = FORMAT) -> Record:
    """What begins a file."""
    made = backup_pb2.BackupHeader(format=format_, cluster_id="c", partitions=partitions, epoch=3)
    return Record(header=made)


def framed(record: Record | bytes) -> bytes:
    """A record as it lies in the file."""
    data = record if isinstance(record, bytes) else record.SerializeToString()
    return len(data).to_bytes(4, "little") + data + crc32c(data).to_bytes(4, "little")


def totals_of(records: list[Record]) -> backup_pb2.BackupTotals:
    """What ends a file that has these records before."""
    data = MAGIC + b"".join(map(framed, records))
    digest = blake2b(data, digest_size=32).digest()
    return backup_pb2.BackupTotals(records=len(records), bytes=len(data), hash=digest)


def file_of(records: list[Record]) -> bytes:
    """A file of these records, with the totals that they come to."""
    everything = [*records, Record(totals=totals_of(records))]
    return MAGIC + b"".join(map(framed, everything))


def exported(*journals: Kept) -> bytes:
    """What a backup of these partitions is."""

    async def main() -> bytes:
        whose = header(len(journals)).header
        whose.format = 0
        return b"".join([piece async for piece in export(journals, whose)])

    return asyncio.run(main())


def verified(path: Path, data: bytes) -> Contents:
    """What a file says that it holds."""
    path.write_bytes(data)
    return BackupFile(path).verify()


def whole() -> list[Record]:
    """The records of a good file: a partition without a snapshot, and one with."""
    left, right = journal(3), journal(4, 1)
    published = snapshot_of(right[:2], 1)
    return [
        header(2),
        *records_of(left),
        summary_of(left),
        *records_of(right[2:], published),
        summary_of(right[2:], 1, slices=2),
    ]


def test_a_file_holds_what_was_read(tmp_path: Path) -> None:
    """To the byte: of each partition its snapshot, batches and summary; a header and totals."""
    left, right = journal(3), journal(4, 1)
    data = exported(Kept(left), Kept(right[2:], snapshot_of(right[:2], 1)))
    assert data == file_of(whole())
    contents = verified(tmp_path / "file", data)
    assert contents.header == whole()[0].header
    assert contents.partitions == [whole()[4].partition, whole()[10].partition]
    assert contents.spans == [(1, 5), (5, 11)]
    assert contents.totals == totals_of(whole())


@pytest.mark.parametrize("stamp_ms", [500, 5_000])
def test_a_covered_batch_is_kept_if_no_other_follows(tmp_path: Path, stamp_ms: int) -> None:
    """The next batch has to connect to it; the newest stamp is told, whoever has it."""
    batches = journal(3)
    published = snapshot_of(batches, stamp_ms=stamp_ms)
    data = exported(Kept(batches[2:], published))
    newest = max(1_002, stamp_ms)
    summary = summary_of(batches[2:], slices=2, stamp_ms=newest)
    assert data == file_of([header(1), *records_of(batches[2:], published), summary])
    assert verified(tmp_path / "file", data).partitions == [summary.partition]


def test_a_covered_batch_may_be_followed_by_others(tmp_path: Path) -> None:
    """A log that was not cut behind its snapshot yet is whole, too."""
    batches = journal(4)
    summary = summary_of(batches[1:], slices=2)
    records = [header(1), *records_of(batches[1:], snapshot_of(batches[:2])), summary]
    assert verified(tmp_path / "file", file_of(records)).partitions == [summary.partition]


def test_a_partition_begins_anew_when_its_journal_is_cut(tmp_path: Path) -> None:
    """What was written of it before is void; what is read back is the rest, by partitions."""
    left, right = journal(3), journal(5, 1)
    first, second = snapshot_of(right[:2], 1), snapshot_of(right[:4], 1)
    cuts = [(right[2:], first), (right[4:], second)]
    data = exported(Kept(left), Kept(right, cuts=cuts))
    again = Record(restart=backup_pb2.BackupRestart(partition=1))
    kept = [*records_of(right[4:], second), summary_of(right[4:], 1, slices=2)]
    before = [header(2), *records_of(left), summary_of(left)]
    assert data == file_of([*before, again, *records_of([], first), again, *kept])
    contents = verified(tmp_path / "file", data)
    assert contents.spans == [(1, 5), (10, 15)]
    expected = [(0, record) for record in before[1:]] + [(1, record) for record in kept]
    assert list(BackupFile(tmp_path / "file").records(contents)) == expected


def test_nothing_of_what_was_begun_is_left(tmp_path: Path) -> None:
    """A snapshot whose slices were not all read does not count for what follows."""
    batches = journal(3)
    begun = records_of([], snapshot_of(journal(5)))[:2]
    again = Record(restart=backup_pb2.BackupRestart(partition=0))
    records = [header(1), *begun, again, *records_of(batches), summary_of(batches)]
    contents = verified(tmp_path / "file", file_of(records))
    assert contents.partitions == [records[-1].partition]


@pytest.mark.parametrize("count", [0, 2])
def test_a_journal_that_is_damaged_and_not_cut_gives_no_backup(count: int) -> None:
    """The snapshot is the one that it was: nobody has cut anything."""
    batches = journal(3)
    published = snapshot_of(batches[:count]) if count else None
    with pytest.raises(CorruptJournal, match="a batch is missing"):
        exported(Kept(batches, published, cuts=[(batches, published)]))


@pytest.mark.parametrize("times", [19, 20])
def test_a_journal_that_is_cut_all_the_time_gives_no_backup(times: int) -> None:
    """It is given up after twenty times, and says so."""
    batches = journal(30)
    cuts = [(batches[at:], snapshot_of(batches[:at])) for at in range(1, times + 1)]
    if times < 20:
        assert exported(Kept(batches, cuts=cuts))
        return
    with pytest.raises(StoreUnavailable, match=r"partition 0 .* cut 20 times") as caught:
        exported(Kept(batches, cuts=cuts))
    assert caught.value.reason is Reason.STORE_UNAVAILABLE
    assert caught.value.metadata == {"partition": "0"}


def _without(place: int) -> Damage:
    return lambda records: records[:place] + records[place + 1 :]


def _instead(place: int, *others: Record) -> Damage:
    return lambda records: [*records[:place], *others, *records[place + 1 :]]


def _told(**values: int | bytes) -> Damage:
    """The first partition's summary tells something else."""
    told = whole()[4].partition
    for name, value in values.items():
        setattr(told, name, value)
    return _instead(4, Record(partition=told))


def _strange_cover() -> list[Record]:
    """The batch before the snapshot is another one than it was made from."""
    batches, other = journal(3), Chain.start(0)
    for _ in range(2):
        strange = other.seal(token=TOKEN, stamp_ms=2, events=b"\x90", event_count=0)
    return [header(1), *records_of([strange, batches[2]], snapshot_of(batches[:2]))]


@pytest.mark.parametrize(
    ("why", "damage"),
    [
        ("it does not say whose backup it is", _without(0)),
        ("its place is 1 where 0 should be", lambda records: [header(1), records[2]]),
        ("batch 1 is not the one that the snapshot covers", lambda _: _strange_cover()),
        ("its place is 0 where 1 should be", lambda records: [*records[:2], records[1]]),
        ("it has 1 of its 2 slices", _without(6)),
        ("it is slice 1 of after-2", lambda r: [*r[:6], r[7], r[6], *r[8:]]),
        ("partition 0 has no batch at all", lambda records: [header(1), records[4]]),
        ("partition 0 is not what its summary says", _told(partition=1)),
        ("partition 0 is not what its summary says", _told(slices=1)),
        ("partition 0 is not what its summary says", _told(batches=4)),
        ("partition 0 is not what its summary says", _told(last_batch=3)),
        ("partition 0 is not what its summary says", _told(last_hash=b"other")),
        ("partition 0 is not what its summary says", _told(stamp_ms=7)),
        ("a record of kind header is in the wrong place", _instead(2, header(2))),
        ("a record of kind totals is in the wrong place", _without(10)),
        ("a record of kind None is in the wrong place", _instead(5, Record())),
        ("one of its batches is none", _instead(2, Record(batch=b"\xff"))),
        ("it has 2 of 3 partitions", _instead(0, header(3))),
        ("it has 2 of 1 partitions", _instead(0, header(1))),
    ],
)
def test_records_that_do_not_belong_together_are_no_backup(
    tmp_path: Path, why: str, damage: Damage
) -> None:
    """However right checksums and totals are: what is wrong is named, and what to do."""
    with pytest.raises(CorruptJournal, match=why):
        verified(tmp_path / "file", file_of(damage(whole())))


@pytest.mark.parametrize("name", ["records", "bytes", "hash"])
def test_totals_have_to_be_what_the_file_holds(tmp_path: Path, name: str) -> None:
    """Each of them, whatever else is right."""
    totals = totals_of(whole())
    setattr(totals, name, b"other" if name == "hash" else getattr(totals, name) - 1)
    data = MAGIC + b"".join(map(framed, [*whole(), Record(totals=totals)]))
    with pytest.raises(CorruptJournal, match="its totals are not what it holds"):
        verified(tmp_path / "file", data)


def _ends(*, after: int) -> bytes:
    """A file with these many of its records."""
    return MAGIC + b"".join(map(framed, whole()[:after]))


@pytest.mark.parametrize(
    ("why", "data"),
    [
        ("it does not say whose backup it is", MAGIC),
        ("it is cut off", _ends(after=3)),
        ("it is cut off", _ends(after=5)),
        ("it is cut off", _ends(after=11)),
        ("the checksum of record 1 is wrong, or it is cut off", _ends(after=2)[:-1]),
        ("the checksum of record 1 is wrong, or it is cut off", _ends(after=2)[:-5]),
        ("the checksum of record 1 is wrong, or it is cut off", _ends(after=1) + b"\1\0\0"),
        ("the checksum of record 1 is wrong", _ends(after=1) + framed(header(2))[:-1] + b"?"),
        ("record 1 has no length", _ends(after=1) + (RECORD_BYTES_MAX + 1).to_bytes(4, "little")),
        ("record 1 .* cut off", _ends(after=1) + RECORD_BYTES_MAX.to_bytes(4, "little")),
        ("record 2 is none", _ends(after=2) + framed(b"\xff")),
        ("something follows its end", file_of(whole()) + framed(header(2))),
        ("record 12 has no length", file_of(whole()) + b"more"),
    ],
)
def test_a_damaged_file_is_no_backup(tmp_path: Path, why: str, data: bytes) -> None:
    """What is wrong is named, and that it was noticed in time."""
    with pytest.raises(CorruptJournal, match=f"{why}.*; nothing was restored") as caught:
        verified(tmp_path / "file", data)
    assert caught.value.reason is Reason.STORE_CORRUPT


def test_a_file_that_changes_after_it_was_checked_is_noticed(tmp_path: Path) -> None:
    """Nobody is given half a backup."""
    contents = verified(tmp_path / "file", file_of(whole()))
    (tmp_path / "file").write_bytes(_ends(after=7))
    with pytest.raises(CorruptJournal, match="it has changed since it was checked"):
        list(BackupFile(tmp_path / "file").records(contents))


def test_what_is_no_backup_is_rejected(tmp_path: Path) -> None:
    """A file that is not there, and one that is something else: the caller's mistakes."""
    path = tmp_path / "file"
    for why in ("but No such file or directory", "does not begin like one"):
        with pytest.raises(Rejected, match=why) as caught:
            BackupFile(path).verify()
        assert caught.value.reason is Reason.INVALID_ARGUMENT
        assert (caught.value.metadata, caught.value.field) == ({"path": str(path)}, "file")
        path.write_bytes(b"tenure backup 2\n")


def test_a_backup_of_a_newer_release_says_so(tmp_path: Path) -> None:
    """Nothing but its header is looked at."""
    path = tmp_path / "file"
    with pytest.raises(FormatTooNew, match=f"format {FORMAT + 1}; .* up to {FORMAT}") as caught:
        verified(path, MAGIC + framed(header(1, FORMAT + 1)))
    assert caught.value.reason is Reason.FORMAT_TOO_NEW
    assert caught.value.metadata == {"path": str(path), "format": str(FORMAT + 1)}
