r"""The file of a backup: what it is made of, and how a reader proves that it is whole.

```
 "tenure backup 1\\n"   header   [ manifest  slice … ]  batch …  partition   …   totals
                                 └────────── of each partition ──────────┘
 a record:  length (4 bytes)  BackupRecord  CRC32C (4 bytes)
```
A journal is read while its leader goes on. A partition is whole up to one batch: the snapshot that
was published when its turn came, and all batches from there to the last one found. If the leader
cuts the journal under the reader's hands, the partition begins anew behind a ``restart`` record.

Batches and slices are kept as they lie in the store, with the checksums and the chain of hashes
that recovery demands, so whoever reads a backup checks it as a new leader would.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Final

from google.protobuf.message import DecodeError
from google_crc32c import value as crc32c

from tenure.master.backend.errors import CorruptJournal, FormatTooNew, StoreUnavailable
from tenure.master.journal.frame import Chain, hash_of, open_snapshot
from tenure.master.journal.port import Journal, SealedBatch, SnapshotRef
from tenure.protocol.errors import Rejected
from tenure.protocol.fence import NO_TOKEN
from tenure.protocol.refusal import Reason
from tenure.v1 import backup_pb2, journal_pb2

#: The format of files that this release writes; it reads this one and all before it.
FORMAT: Final = 1

_MAGIC: Final = b"tenure backup 1\n"
#: Nothing that is stored comes near it; a longer record is damage.
_RECORD_BYTES_MAX: Final = 64 * 1024 * 1024
#: How often a partition's journal may be cut while it is read.
_RESTARTS_MAX: Final = 20

Record = backup_pb2.BackupRecord


class _Pen:
    """Frames records, and knows what all of them come to."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=32)
        self._records = 0
        self._bytes = 0

    def begin(self, header: backup_pb2.BackupHeader) -> bytes:
        return self._count(_MAGIC) + self.put(Record(header=header))

    def put(self, record: Record) -> bytes:
        data = record.SerializeToString(deterministic=True)
        self._records += 1
        crc = crc32c(data).to_bytes(4, "little")
        return self._count(b"".join((len(data).to_bytes(4, "little"), data, crc)))

    def end(self) -> bytes:
        totals = backup_pb2.BackupTotals(
            records=self._records, bytes=self._bytes, hash=self._hash.digest()
        )
        return self.put(Record(totals=totals))

    def _count(self, data: bytes) -> bytes:
        self._hash.update(data)
        self._bytes += len(data)
        return data


async def export(
    journals: Sequence[Journal], header: backup_pb2.BackupHeader
) -> AsyncIterator[bytes]:
    """Yields the file piece by piece, reading only.

    Args:
        journals: One of each partition, in their order, which nobody else reads through.
        header: Whose backup it is; its format is filled in.

    Raises:
        CorruptJournal: A journal is damaged; what was yielded is no backup.
        StoreUnavailable: The store did not answer, or a journal is cut all the time.
    """
    header.format = FORMAT
    pen = _Pen()
    yield pen.begin(header)
    for partition, journal in enumerate(journals):
        async for piece in _partition(pen, journal, partition):
            yield piece
    yield pen.end()


async def _partition(pen: _Pen, journal: Journal, partition: int) -> AsyncIterator[bytes]:
    for _ in range(_RESTARTS_MAX):
        stored = await journal.load_snapshot()
        try:
            async for record in _records(journal, partition, stored):
                yield pen.put(record)
        except CorruptJournal:
            now = await journal.load_snapshot()
            if (now and now.manifest) == (stored and stored.manifest):
                raise
            yield pen.put(Record(restart=backup_pb2.BackupRestart(partition=partition)))
        else:
            return
    raise StoreUnavailable(
        f"expected to back partition {partition} up, but its journal was cut {_RESTARTS_MAX} times"
        " while it was read; try again when there is less to do",
        reason=Reason.STORE_UNAVAILABLE,
        metadata={"partition": str(partition)},
    )


async def _records(
    journal: Journal, partition: int, stored: SnapshotRef | None
) -> AsyncIterator[Record]:
    """One partition, from its snapshot to the last batch that is there now."""
    part = _Part(partition)
    if stored is not None:
        part.take_snapshot(stored)
        yield Record(manifest=stored.manifest)
        for data in stored.slices:
            yield Record(slice=data)
    # The last batch is there even if a snapshot covers it: the next one connects to it.
    first = min(part.first_batch, await journal.last_number())
    async for batch in journal.read(first):
        part.take_batch(batch)
        yield Record(batch=batch.data)
    yield Record(partition=part.summary())


class _Part:
    """One partition's records, checked as a new leader would, in their order."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._chain = Chain.start(partition)
        #: Of the batch that a snapshot covers, and that is kept for the next one to connect to.
        self._covered_hash: bytes | None = None
        self._summary = backup_pb2.BackupPartition(partition=partition)

    @property
    def first_batch(self) -> int:
        return self._chain.number

    def take_snapshot(self, stored: SnapshotRef) -> None:
        snapshot = open_snapshot(self._partition, stored)
        self._chain = Chain.after_snapshot(snapshot.manifest)
        self._covered_hash = snapshot.manifest.previous_hash
        self._summary.slices = len(stored.slices)
        self._summary.stamp_ms = snapshot.manifest.stamp_ms

    def take_batch(self, batch: SealedBatch) -> None:
        record: journal_pb2.JournalBatch
        if batch.number == self._chain.number - 1 and self._summary.batches == 0:
            if hash_of(batch.data) != self._covered_hash:
                raise _damaged(f"batch {batch.number} is not the one that the snapshot covers")
            chain = Chain(
                partition=self._partition,
                number=batch.number,
                next_seq=None,
                previous_hash=_previous_hash(batch.data),
                token=NO_TOKEN,
            )
            record = chain.follow(batch)
        else:
            record = self._chain.follow(batch)
        summary = self._summary
        summary.batches += 1
        summary.last_batch = batch.number
        summary.last_hash = hash_of(batch.data)
        summary.stamp_ms = max(summary.stamp_ms, record.stamp_ms)

    def summary(self) -> backup_pb2.BackupPartition:
        if not self._summary.batches:
            raise _damaged(f"partition {self._partition} has no batch at all")
        return self._summary


@dataclass(slots=True, kw_only=True)
class Contents:
    """What a backup holds, once it has been proved whole.

    Attributes:
        header: Whose it is.
        partitions: What each partition put in.
        spans: By partition, its first and last valid record's place in the file.
        totals: Of the whole file.
    """

    header: backup_pb2.BackupHeader
    partitions: list[backup_pb2.BackupPartition] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    totals: backup_pb2.BackupTotals = field(default_factory=backup_pb2.BackupTotals)


class BackupFile:
    """A file that was written with ``export``.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def verify(self) -> Contents:
        """Reads all of it and proves it whole: every checksum, every chain, all totals.

        Raises:
            Rejected: It cannot be read, or is no backup.
            CorruptJournal: It is damaged or cut off.
            FormatTooNew: A newer release made it.
        """
        with self._opened() as file:
            reader = _Reader(file)
            contents = Contents(header=self._header(reader))
            while (record := reader.next()) is not None:
                if record.HasField("totals"):
                    self._finish(reader, contents, record.totals)
                    return contents
                self._take_partition(reader, contents, record)
        raise _damaged("it is cut off")

    def records(self, contents: Contents) -> Iterator[tuple[int, Record]]:
        """Yields each valid record and its partition, in order; call ``verify`` before."""
        with self._opened() as file:
            reader = _Reader(file)
            reader.has_magic()
            for partition, (first, last) in enumerate(contents.spans):
                while reader.records < last:
                    record = reader.next()
                    if record is None:
                        raise _damaged("it has changed since it was checked")
                    if reader.records > first:
                        yield partition, record

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        try:
            with self.path.open("rb") as file:
                yield file
        except OSError as error:
            raise Rejected(
                f"expected to read the backup {self.path}, but {error.strerror or error}",
                reason=Reason.INVALID_ARGUMENT,
                metadata={"path": str(self.path)},
                field="file",
            ) from error

    def _header(self, reader: "_Reader") -> backup_pb2.BackupHeader:
        if not reader.has_magic():
            raise Rejected(
                f"expected {self.path} to be a backup, but it does not begin like one; name a file"
                " that `tenure cluster backup` has written",
                reason=Reason.INVALID_ARGUMENT,
                metadata={"path": str(self.path)},
                field="file",
            )
        record = reader.next()
        if record is None or not record.HasField("header"):
            raise _damaged("it does not say whose backup it is")
        if record.header.format > FORMAT:
            raise FormatTooNew(
                f"expected to read the backup {self.path}, but a newer release made it (format"
                f" {record.header.format}; this release reads up to {FORMAT}); upgrade this one",
                reason=Reason.FORMAT_TOO_NEW,
                metadata={"path": str(self.path), "format": str(record.header.format)},
            )
        return record.header

    def _take_partition(self, reader: "_Reader", contents: Contents, record: Record) -> None:
        """Reads one partition to its end; ``record`` is its first one."""
        partition = len(contents.partitions)
        first = reader.records - 1
        part, manifest, slices = _Part(partition), b"", list[bytes]()
        found: Record | None = record
        while found is not None:
            match found.WhichOneof("record"):
                case "manifest":
                    manifest = found.manifest
                case "slice":
                    slices.append(found.slice)
                case "batch":
                    if manifest:
                        part.take_snapshot(SnapshotRef(manifest=manifest, slices=slices))
                        manifest, slices = b"", []
                    part.take_batch(SealedBatch(number=_number(found.batch), data=found.batch))
                case "restart":
                    first = reader.records
                    part, manifest, slices = _Part(partition), b"", []
                case "partition":
                    if found.partition != part.summary():
                        raise _damaged(f"partition {partition} is not what its summary says")
                    contents.partitions.append(found.partition)
                    contents.spans.append((first, reader.records))
                    return
                case other:
                    raise _damaged(f"a record of kind {other} is in the wrong place")
            found = reader.next()
        raise _damaged("it is cut off")

    def _finish(
        self, reader: "_Reader", contents: Contents, totals: backup_pb2.BackupTotals
    ) -> None:
        if totals != reader.before:
            raise _damaged("its totals are not what it holds")
        if len(contents.partitions) != contents.header.partitions:
            found = len(contents.partitions)
            raise _damaged(f"it has {found} of {contents.header.partitions} partitions")
        if reader.next() is not None:
            raise _damaged("something follows its end")
        contents.totals = totals


class _Reader:
    """Takes a file apart into records, each proved by its checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = blake2b(digest_size=32)
        self._bytes = 0
        self.records = 0
        #: What the records before the last one that was read come to.
        self.before = backup_pb2.BackupTotals()

    def has_magic(self) -> bool:
        return self._read(len(_MAGIC)) == _MAGIC

    def next(self) -> Record | None:
        """The next record; None at the end of the file."""
        before = backup_pb2.BackupTotals(
            records=self.records, bytes=self._bytes, hash=self._hash.digest()
        )
        prefix = self._read(4)
        if not prefix:
            return None
        size = int.from_bytes(prefix, "little")
        if size > _RECORD_BYTES_MAX:
            raise _damaged(f"record {self.records} has no length")
        data, crc = self._read(size), self._read(4)
        # Where the file ends early, no checksum is left.
        if crc != crc32c(data).to_bytes(4, "little"):
            raise _damaged(f"the checksum of record {self.records} is wrong, or it is cut off")
        record = Record()
        try:
            record.ParseFromString(data)
        except DecodeError:
            raise _damaged(f"record {self.records} is none") from None
        self.before = before
        self.records += 1
        return record

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        self._bytes += len(data)
        return data


def _number(data: bytes) -> int:
    """The number that a batch says it has; the chain proves it."""
    return _parsed(data).number


def _previous_hash(data: bytes) -> bytes:
    return _parsed(data).previous_hash


def _parsed(data: bytes) -> journal_pb2.JournalBatch:
    record = journal_pb2.JournalBatch()
    try:
        record.ParseFromString(data)
    except DecodeError:
        raise _damaged("one of its batches is none") from None
    return record


def _damaged(why: str) -> CorruptJournal:
    return CorruptJournal(
        f"expected a whole backup, but {why}; nothing was restored: take another backup",
        reason=Reason.STORE_CORRUPT,
    )
