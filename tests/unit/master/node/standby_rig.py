"""A partition that a leader writes, as those see it who follow it."""

from collections.abc import AsyncIterator

import msgspec

from tenure.master.backend.errors import CorruptJournal
from tenure.master.journal.frame import Chain, seal_manifest, seal_slice
from tenure.master.journal.port import HaltRecord, Journal, ReplayMark, SealedBatch, SnapshotRef
from tenure.protocol.fence import Token
from tenure.testing.clock import SimClock
from tests.unit.master.core.rig import CONFIG, Rig

TOKEN = Token(1, 7)


class Log:
    """A partition that a leader writes, and the part of the journal port that standbys read.

    Attributes:
        reads: The first number of each read.
        errors: Raised by the next reads, first one first.
        batch_ms: So long it takes to read a batch.
    """

    def __init__(self) -> None:
        self.batch_ms = 0
        self.rig = Rig()
        self.batches: list[SealedBatch] = []
        self.snapshot: SnapshotRef | None = None
        self.halt: HaltRecord | None = None
        self.mark: ReplayMark | None = None
        self.reads: list[int] = []
        self.errors: list[Exception] = []
        self._chain = Chain.start(CONFIG.partition)
        self._written = 0
        self.write()

    @property
    def port(self) -> Journal:
        """As its readers see it."""
        return self  # type: ignore[return-value]

    def write(self) -> None:
        """Journals what was decided since, an event a batch."""
        for data in self.rig.journal[self._written :]:
            sealed = self._chain.seal(token=TOKEN, stamp_ms=1, events=data, event_count=1)
            self.batches.append(sealed)
        self._written = len(self.rig.journal)

    def submit(self, count: int) -> None:
        """A client submits jobs."""
        self.rig.submit(count)
        self.write()

    def cut(self, *, keep: int = 1) -> None:
        """A snapshot takes the place of all batches but the last ones."""
        cursor, slices = self.rig.partition.snapshot(), []
        while (rows := cursor.next_slice(8)) is not None:
            data = msgspec.msgpack.encode(rows)
            slices.append(seal_slice(CONFIG.partition, "s", len(slices), data))
        manifest = seal_manifest(
            partition=CONFIG.partition,
            snapshot_id="s",
            slice_count=len(slices),
            first_batch=self._chain.number,
            previous_hash=self._chain.previous_hash,
            last_seq=self._written,
            token=TOKEN,
            stamp_ms=1,
        )
        self.snapshot = SnapshotRef(manifest=manifest, slices=slices)
        del self.batches[:-keep]

    async def halted(self) -> HaltRecord | None:
        return self.halt

    async def replay_mark(self) -> ReplayMark | None:
        return self.mark

    async def load_snapshot(self) -> SnapshotRef | None:
        return self.snapshot

    async def snapshot_manifest(self) -> bytes | None:
        return self.snapshot and self.snapshot.manifest

    async def read(self, first: int) -> AsyncIterator[SealedBatch]:
        self.reads.append(first)
        if self.errors:
            raise self.errors.pop(0)
        for sealed in list(self.batches):
            if sealed.number > first:
                raise CorruptJournal(f"expected batch {first}")
            if sealed.number == first:
                first += 1
                if self.batch_ms:
                    await SimClock().sleep(self.batch_ms)
                yield sealed
