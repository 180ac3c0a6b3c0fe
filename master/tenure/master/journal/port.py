"""The journal port: ordered batches and snapshots of one partition, guarded by a token.

Adapters: ``journal.sqlite``, ``journal.etcd`` and the simulated one in ``tenure.testing``; one
conformance suite holds them all to this text.

**Every** mutation is one transaction guarded by the token: if the office is not (or no longer) the
token's, it changes nothing and raises ``OfficeLost``. A mutation of unknown outcome is resolved by
the adapter itself (same key, same bytes again, then read back); it raises ``StoreUnavailable`` only
while the outcome is still unknown, and the caller may then only repeat the very same call. The
errors are in ``backend.errors``.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from tenure.protocol.fence import Token


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedBatch:
    """A batch as it is stored: its number and the serialized ``tenure.v1.JournalBatch``."""

    number: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRef:
    """A published snapshot: the serialized ``tenure.v1.SnapshotManifest`` and its slices."""

    manifest: bytes
    slices: list[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class HaltRecord:
    """Why nobody may lead this partition until an operator has decided."""

    batch_number: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayMark:
    """How far a recovery is, for the next leader should this one die of it.

    Attributes:
        crashes: How many recoveries in a row have died before it, as far as is known at one place.
        seq: It is about to replay this event; 0: not told.
    """

    crashes: int
    seq: int = 0


class Journal(Protocol):
    """One partition's journal. Bytes in, bytes out: framing and checks are ``journal.frame``'s."""

    #: How many appends may be in flight at once; they commit in order.
    pipeline_depth: int

    async def append(self, token: Token, batch: SealedBatch) -> None:
        """Commits one batch durably (fsync, or quorum).

        Concurrent calls up to ``pipeline_depth``, in the order of their numbers. Returns when this
        batch and all before it are durable. Repeating a committed batch with the same bytes
        returns at once.

        Raises:
            OfficeLost: The token is stale, or another batch with this number exists.
            StoreFull: No space; nothing was written.
            StoreUnavailable: Unknown outcome.
            StoreIoError: An I/O error: the process must stop.
        """

    def read(self, first: int) -> AsyncIterator[SealedBatch]:
        """Yields all batches from number ``first`` on, in order, linearizably.

        What was committed before the call is seen. Raises CorruptJournal on a gap in numbers.
        """

    async def last_number(self) -> int:
        """The number of the last batch (linearizable); there always is one after bootstrap."""

    async def write_slice(self, token: Token, snapshot_id: str, index: int, data: bytes) -> None:
        """Writes one slice of a snapshot that is not yet published."""

    async def publish_snapshot(self, token: Token, snapshot_id: str, manifest: bytes) -> None:
        """Makes a snapshot the one that recovery starts from, and drops older ones' slices.

        The pointer moves only from the snapshot this adapter last read or published.
        """

    async def load_snapshot(self) -> SnapshotRef | None:
        """The published snapshot, or None."""

    async def snapshot_manifest(self) -> bytes | None:
        """The published snapshot's manifest, linearizably; as ``load_snapshot`` without slices."""

    async def truncate(self, token: Token, before: int) -> int:
        """Deletes batches with numbers below ``before``; always keeps the last one.

        Works also when the store is full. Returns how many were deleted.
        """

    async def halt(self, token: Token, record: HaltRecord) -> None:
        """Writes the HALTED record: nobody campaigns until an operator clears it."""

    async def halted(self) -> HaltRecord | None:
        """The HALTED record, if there is one."""

    async def mark_replay(self, token: Token, mark: ReplayMark | None) -> None:
        """Writes how far a recovery is; None: it is over."""

    async def replay_mark(self) -> ReplayMark | None:
        """The mark of a recovery that has not ended, or None."""
