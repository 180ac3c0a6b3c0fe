"""How batches and snapshots look as bytes, and how a reader proves that they are whole.

Every record is a serialized message of ``tenure/v1/journal.proto`` that ends with its checksum:

    ┌───────────────────────────────────┬─────────┬──────────────────────┐
    │ the message without ``crc32c``    │ its tag │ CRC32C of the former │
    │ (any length)                      │ 1 byte  │ 4 bytes, low first   │
    └───────────────────────────────────┴─────────┴──────────────────────┘

``crc32c`` is the last field, so the whole is the message with all its fields. The checksum is over
bytes as they lie in the store, never over a message serialized again, and the trailer is the same
in every format, so that a reader can tell a flipped bit from a newer release.

Batches are chained: each holds the BLAKE2b-128 of the whole record before it.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, TypeVar

from google.protobuf.message import DecodeError
from google_crc32c import value as crc32c

from tenure.master.backend.errors import CorruptJournal, FormatTooNew
from tenure.master.core.format import FIRST, NEWEST
from tenure.master.journal.port import SealedBatch, SnapshotRef
from tenure.protocol.fence import NO_TOKEN, Token
from tenure.protocol.refusal import Reason
from tenure.protocol.token_wire import token_of, token_to_wire
from tenure.v1 import journal_pb2

#: The highest format that this release writes (``core.format`` says when it writes which); it reads
#: this one and all before it.
FORMAT: Final = NEWEST
#: The seq of a journal's first event.
FIRST_SEQ: Final = 1

_HASH_BYTES: Final = 16
_TRAILER_BYTES: Final = 5
_FIXED32: Final = 5
_EMPTY_EVENTS: Final = b"\x90"

_Record = TypeVar(
    "_Record", journal_pb2.JournalBatch, journal_pb2.SnapshotSlice, journal_pb2.SnapshotManifest
)


def hash_of(data: bytes) -> bytes:
    """The link of the chain: BLAKE2b-128 of a whole serialized batch."""
    return blake2b(data, digest_size=_HASH_BYTES).digest()


def genesis(partition: int, token: Token, stamp_ms: int) -> SealedBatch:
    """Batch 0, which bootstrap writes: it has no events and no predecessor."""
    return Chain.start(partition).seal(
        token=token, stamp_ms=stamp_ms, events=_EMPTY_EVENTS, event_count=0, format_=FIRST
    )


@dataclass(slots=True, kw_only=True)
class Chain:
    """The open end of a journal: what the next batch has to connect to.

    Recovery moves it forward with ``follow``, then the leader with ``seal``; both are loops over
    the same links, so what one wrote is what the other demands.

    Attributes:
        partition: Whose journal it is.
        number: The number of the next batch.
        next_seq: The seq of the next event; None right after a snapshot, where the first batch
            that is read says it.
        previous_hash: The hash of the last batch; empty before batch 0.
        token: The last batch's token: tokens never fall.
    """

    partition: int
    number: int
    next_seq: int | None
    previous_hash: bytes
    token: Token

    @classmethod
    def start(cls, partition: int) -> "Chain":
        """Before batch 0."""
        return cls(
            partition=partition,
            number=0,
            next_seq=FIRST_SEQ,
            previous_hash=b"",
            token=NO_TOKEN,
        )

    @classmethod
    def after_snapshot(cls, manifest: journal_pb2.SnapshotManifest) -> "Chain":
        """Before the first batch that a snapshot does not cover."""
        return cls(
            partition=manifest.partition,
            number=manifest.first_batch,
            next_seq=None,
            previous_hash=manifest.previous_hash,
            token=NO_TOKEN,
        )

    def seal(
        self,
        *,
        token: Token,
        stamp_ms: int,
        events: bytes,
        event_count: int,
        format_: int = FORMAT,
    ) -> SealedBatch:
        """The next batch, and the chain moves past it.

        Args:
            token: The term that writes it.
            stamp_ms: The term's clock.
            events: A msgpack array (``journal.codec``).
            event_count: How many events are in it; they take that many seqs.
            format_: The first one that has a place for them.

        Raises:
            ValueError: The chain's next seq is not known: nothing was read after a snapshot.
        """
        first_seq = self.next_seq
        if first_seq is None:
            raise ValueError("expected to know the next seq, but no batch was read yet")
        record = journal_pb2.JournalBatch(
            format=format_,
            partition=self.partition,
            token=token_to_wire(token),
            number=self.number,
            first_seq=first_seq,
            event_count=event_count,
            stamp_ms=stamp_ms,
            previous_hash=self.previous_hash,
            events=events,
        )
        sealed = SealedBatch(number=self.number, data=_seal(record))
        self._advance(sealed.data, first_seq + event_count, token)
        return sealed

    def follow(self, sealed: SealedBatch) -> journal_pb2.JournalBatch:
        """Checks that a stored batch is whole and the next one, and moves the chain past it.

        Raises:
            CorruptJournal: Its bytes are damaged, or it does not connect; ``metadata["batch"]``
                is its number.
            FormatTooNew: A newer release wrote it.
        """
        name = f"batch {self.number}"
        record = _open(journal_pb2.JournalBatch(), sealed.data, self.partition, name, self.number)
        token = token_of(record.token)
        expected_seq = record.first_seq if self.next_seq is None else self.next_seq
        for what, found, expected in (
            ("partition", record.partition, self.partition),
            ("place", sealed.number, self.number),
            ("number", record.number, self.number),
            ("first seq", record.first_seq, expected_seq),
            ("previous hash", record.previous_hash.hex(), self.previous_hash.hex()),
        ):
            if found != expected:
                why = f"its {what} is {found!r} where {expected!r} should be"
                raise _corrupt(self.partition, name, why, self.number)
        if token < self.token:
            why = f"its token {token} is older than {self.token}, the one of the batch before it"
            raise _corrupt(self.partition, name, why, self.number)
        self._advance(sealed.data, record.first_seq + record.event_count, token)
        return record

    def _advance(self, data: bytes, next_seq: int, token: Token) -> None:
        self.number += 1
        self.next_seq = next_seq
        self.previous_hash = hash_of(data)
        self.token = token


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A snapshot that was proved whole: its manifest, and each slice's msgpack array."""

    manifest: journal_pb2.SnapshotManifest
    slices: list[bytes]


def seal_slice(
    partition: int, snapshot_id: str, index: int, records: bytes, *, format_: int = FORMAT
) -> bytes:
    """One slice of a snapshot; ``records`` is a msgpack array."""
    return _seal(
        journal_pb2.SnapshotSlice(
            format=format_,
            partition=partition,
            snapshot_id=snapshot_id,
            index=index,
            records=records,
        )
    )


def seal_manifest(
    *,
    partition: int,
    snapshot_id: str,
    slice_count: int,
    first_batch: int,
    previous_hash: bytes,
    last_seq: int,
    token: Token,
    stamp_ms: int,
    format_: int = FORMAT,
) -> bytes:
    """The record that makes slices a snapshot.

    Args:
        partition: Whose it is.
        snapshot_id: The id its slices were written under.
        slice_count: How many slices there are, from index 0.
        first_batch: Replay starts with this batch.
        previous_hash: The hash of the batch before it.
        last_seq: The last event that any slice may contain.
        token: The term that wrote it.
        stamp_ms: The term's clock.
        format_: The highest one of its slices.
    """
    return _seal(
        journal_pb2.SnapshotManifest(
            format=format_,
            partition=partition,
            snapshot_id=snapshot_id,
            slice_count=slice_count,
            first_batch=first_batch,
            previous_hash=previous_hash,
            last_seq=last_seq,
            token=token_to_wire(token),
            stamp_ms=stamp_ms,
        )
    )


def open_manifest(partition: int, data: bytes) -> journal_pb2.SnapshotManifest:
    """Checks a snapshot's manifest.

    Raises:
        CorruptJournal: It is damaged.
        FormatTooNew: A newer release wrote it.
    """
    name = "the snapshot's manifest"
    manifest = _open(journal_pb2.SnapshotManifest(), data, partition, name, 0)
    if manifest.partition != partition:
        why = f"it is partition {manifest.partition}'s"
        raise _corrupt(partition, name, why, manifest.first_batch)
    return manifest


def open_snapshot(partition: int, stored: SnapshotRef) -> Snapshot:
    """Checks a published snapshot: manifest and slices are whole, and none is missing.

    Raises:
        CorruptJournal: They are not; ``metadata["batch"]`` is where replay would have begun.
        FormatTooNew: A newer release wrote it.
    """
    manifest = open_manifest(partition, stored.manifest)
    batch = manifest.first_batch
    if len(stored.slices) != manifest.slice_count:
        why = f"it has {len(stored.slices)} of its {manifest.slice_count} slices"
        raise _corrupt(partition, f"snapshot {manifest.snapshot_id}", why, batch)
    slices = []
    for index, data in enumerate(stored.slices):
        name = f"slice {index} of snapshot {manifest.snapshot_id}"
        record = _open(journal_pb2.SnapshotSlice(), data, partition, name, batch)
        found = (record.partition, record.snapshot_id, record.index)
        if found != (partition, manifest.snapshot_id, index):
            why = f"it is slice {record.index} of {record.snapshot_id}, partition {found[0]}"
            raise _corrupt(partition, name, why, batch)
        slices.append(record.records)
    return Snapshot(manifest=manifest, slices=slices)


def _trailer_tag(record: _Record) -> bytes:
    number = record.DESCRIPTOR.fields_by_name["crc32c"].number
    return bytes([number << 3 | _FIXED32])


def _seal(record: _Record) -> bytes:
    body = record.SerializeToString(deterministic=True)
    return b"".join((body, _trailer_tag(record), crc32c(body).to_bytes(4, "little")))


def _open(record: _Record, data: bytes, partition: int, name: str, batch: int) -> _Record:
    body = memoryview(data)[:-_TRAILER_BYTES].tobytes()
    trailer = _trailer_tag(record) + crc32c(body).to_bytes(4, "little")
    if not data.endswith(trailer) or len(data) <= _TRAILER_BYTES:
        raise _corrupt(partition, name, "its checksum is wrong", batch)
    try:
        record.ParseFromString(data)
    except DecodeError:
        raise _corrupt(partition, name, "it is no record of a journal", batch) from None
    if record.format > FORMAT:
        raise FormatTooNew(
            f"expected to read {name} of partition {partition}, but a newer release wrote it"
            f" (format {record.format}; this release reads up to {FORMAT}); upgrade this master",
            reason=Reason.FORMAT_TOO_NEW,
            metadata={"partition": str(partition), "format": str(record.format)},
        )
    return record


def _corrupt(partition: int, name: str, why: str, batch: int) -> CorruptJournal:
    return CorruptJournal(
        f"expected to read {name} of partition {partition}, but {why}; nothing was skipped or"
        " deleted: copy the store away, then restore it from a backup",
        reason=Reason.STORE_CORRUPT,
        metadata={"partition": str(partition), "record": name, "batch": str(batch)},
    )
