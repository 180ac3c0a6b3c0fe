"""S6, the journal oracle: every change of a store since revision 1, judged in the store's order.

It knows the rules and nothing of the product's code: tokens never fall; a batch is written once,
by the office's holder, right after its predecessor, with the next seq and the predecessor's hash;
nothing is written or deleted for a term whose key is gone; the last batch, and what the published
snapshot does not replace, is never deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import google_crc32c
import msgspec

from tenure.v1.journal_pb2 import JournalBatch, SnapshotManifest
from tests.oracles.verdict import Violation


class OfficeTaken(NamedTuple):
    """The office's key was created: a term begins, and its token is (epoch, revision).

    ``holder`` is the incarnation that the key names; ``at_ms`` is when that was committed, where
    the store tells (boot clock).
    """

    revision: int
    partition: int
    epoch: int
    holder: str = ""
    at_ms: float | None = None


class OfficeVacated(NamedTuple):
    """The office's key is gone: by expiry or by resignation.

    ``at_ms`` is when that was committed, where the store tells (boot clock).
    """

    revision: int
    partition: int
    at_ms: float | None = None


class BatchWritten(NamedTuple):
    """A batch's key was put; ``created`` is False when it was there before.

    ``at_ms`` is when it was committed, where the store tells (boot clock).
    """

    revision: int
    partition: int
    number: int
    created: bool
    data: bytes
    at_ms: float | None = None


class BatchDeleted(NamedTuple):
    """A batch's key was deleted."""

    revision: int
    partition: int
    number: int


class SnapshotPublished(NamedTuple):
    """The pointer to the snapshot was put."""

    revision: int
    partition: int
    manifest: bytes


Change = OfficeTaken | OfficeVacated | BatchWritten | BatchDeleted | SnapshotPublished


def check_journal(changes: Iterable[Change]) -> list[Violation]:
    """One pass over all changes, in the order of revisions (a transaction's share one)."""
    partitions: dict[int, _Partition] = {}
    for change in changes:
        partition = partitions.setdefault(change.partition, _Partition(change.partition))
        partition.see(change)
    return [found for partition in partitions.values() for found in partition.violations]


def check_chain(partition: int, batches: Iterable[bytes]) -> list[Violation]:
    """The part that a store at rest shows: numbers, seqs, hashes and tokens of what is kept."""
    judge = _Partition(partition)
    for number, data in enumerate(batches):
        batch = JournalBatch.FromString(data)
        if number == 0:
            judge.expect_first(batch)
        judge.see_batch(batch.number, data)
    return judge.violations


class _Partition:
    """What is known of one partition so far."""

    def __init__(self, partition: int) -> None:
        self.violations: list[Violation] = []
        self._partition = partition
        self._holder: tuple[int, int] | None = None
        self._token = (0, 0)
        self._number = -1
        self._next_seq: int | None = None
        self._hash: bytes | None = b""
        self._replaced_before = 0
        #: The term whose snapshot replaces what lies before.
        self._replaced_by: tuple[int, int] | None = None

    def see(self, change: Change) -> None:
        match change:
            case OfficeTaken():
                self._take_office(change)
            case OfficeVacated():
                self._holder = None
            case BatchWritten():
                self._write(change)
            case BatchDeleted():
                self._delete(change)
            case SnapshotPublished():
                self._publish(change)

    def expect_first(self, batch: JournalBatch) -> None:
        """Older batches were truncated: the first one kept is taken at its word."""
        self._number = batch.number - 1
        self._next_seq = batch.first_seq
        self._hash = None

    def see_batch(self, number: int, data: bytes) -> None:
        """A batch in its place: judged by its content and its predecessor."""
        batch = JournalBatch.FromString(data)
        name = f"batch {number}"
        if batch.number != number:
            self._say(name, f"the record inside has the number {batch.number}")
        if number != self._number + 1:
            self._say(name, f"follows batch {self._number}")
        if batch.partition != self._partition:
            self._say(name, f"is of partition {batch.partition}")
        token = (batch.token.epoch, batch.token.revision)
        if token < self._token:
            self._say(name, f"its token {token} is below {self._token}")
        if self._next_seq is not None and batch.first_seq != self._next_seq:
            self._say(name, f"begins at seq {batch.first_seq}, not at {self._next_seq}")
        if self._hash is not None and batch.previous_hash != self._hash:
            self._say(name, "does not carry its predecessor's hash")
        if crc_of(data) != batch.crc32c:
            self._say(name, "its checksum is wrong")
        events = msgspec.msgpack.decode(batch.events) if batch.events else []
        if len(events) != batch.event_count:
            self._say(name, f"says {batch.event_count} events and has {len(events)}")
        self._token = max(self._token, token)
        self._number = number
        self._next_seq = batch.first_seq + batch.event_count
        self._hash = hashlib.blake2b(data, digest_size=16).digest()

    def _take_office(self, change: OfficeTaken) -> None:
        token = (change.epoch, change.revision)
        name = f"term {token}"
        if self._holder is not None:
            self._say(name, f"began while {self._holder} held the office")
        if token <= self._token:
            self._say(name, f"began after {self._token}")
        self._holder = token

    def _write(self, change: BatchWritten) -> None:
        name = f"batch {change.number}"
        if not change.created:
            self._say(name, f"was overwritten at revision {change.revision}")
            return
        batch = JournalBatch.FromString(change.data)
        token = (batch.token.epoch, batch.token.revision)
        # Bootstrap writes batch 0 before there is any office.
        if change.number > 0 and token != self._holder:
            self._say(name, f"was written by {token} while {self._holder} held the office")
        self.see_batch(change.number, change.data)

    def _delete(self, change: BatchDeleted) -> None:
        name = f"batch {change.number}"
        if self._holder is None:
            self._say(name, f"was deleted at revision {change.revision}, with the office vacant")
        elif self._holder != self._replaced_by:
            # Only who has published the snapshot deletes what it replaces.
            self._say(name, f"was deleted for {self._replaced_by} in the term {self._holder}")
        if change.number >= self._number:
            self._say(name, "was deleted though it was the last one")
        if change.number >= self._replaced_before:
            self._say(name, "was deleted though no published snapshot replaces it")

    def _publish(self, change: SnapshotPublished) -> None:
        manifest = SnapshotManifest.FromString(change.manifest)
        name = f"snapshot {manifest.snapshot_id}"
        token = (manifest.token.epoch, manifest.token.revision)
        if token != self._holder:
            self._say(name, f"was published by {token} while {self._holder} held the office")
        if manifest.first_batch > self._number + 1:
            self._say(name, f"starts at batch {manifest.first_batch}, after {self._number}")
        if manifest.first_batch < self._replaced_before:
            self._say(name, f"goes back to batch {manifest.first_batch}")
        if self._next_seq is not None and manifest.last_seq >= self._next_seq:
            self._say(name, f"may show seq {manifest.last_seq}, which is not committed")
        self._replaced_before = max(self._replaced_before, manifest.first_batch)
        self._replaced_by = token

    def _say(self, subject: str, detail: str) -> None:
        self.violations.append(Violation("S6", f"partition {self._partition}, {subject}", detail))


#: The field ``crc32c`` (number 10, fixed32) is the last of a serialized batch.
_CRC_TAG = 10 << 3 | 5


def crc_of(data: bytes) -> int:
    """The checksum that a serialized batch should carry: over all but the field itself."""
    body = data[:-5] if len(data) >= 5 and data[-5] == _CRC_TAG else data
    return int(google_crc32c.value(body))
