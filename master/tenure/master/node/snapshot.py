"""Snapshots: a fuzzy copy of the state, written in slices between turns, then the log is cut.

1. Note the chain's open end: replay will start with the next batch.
2. Write slice after slice; the owner loop turns in between, so slices differ in age. Each record
   carries the seq that last wrote it, so replay knows what a record already has.
3. When everything any slice saw has committed, tell watches, and publish; then truncate what lies
   before.
"""

import hashlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import msgspec

from tenure.master.backend.errors import StoreFull, StoreUnavailable
from tenure.master.journal.frame import seal_manifest, seal_slice
from tenure.master.journal.port import Journal
from tenure.master.node.port import Clock
from tenure.master.node.sizes import LOG_SIZES, LogSizes
from tenure.master.node.term import Term

_LOOK_MS: Final = 500
_RETRY_MS: Final = 500


class Snapshotter:
    """Keeps one term's log short.

    Args:
        term: Whose state to write.
        journal: Where to.
        clock: For its pauses.
        log_bytes: Bytes of batches already in the journal when the term began.
        log_bytes_max: How long the log may be in a store that is tight; None: it is not.
        sizes: From which length of the log on to take snapshots, and in which slices.
    """

    def __init__(
        self,
        *,
        term: Term,
        journal: Journal,
        clock: Clock,
        log_bytes: int,
        log_bytes_max: Callable[[], int | None] = lambda: None,
        sizes: LogSizes = LOG_SIZES,
    ) -> None:
        self._term = term
        self._log_bytes_max = log_bytes_max
        self._sizes = sizes
        self._journal = journal
        self._clock = clock
        self._snapshot_bytes = 0
        self._taken = 0
        term.gate.log_bytes += log_bytes

    async def run(self) -> None:
        """Takes a snapshot whenever the log exceeds twice the last one, until cancelled."""
        while True:
            await self._clock.sleep(_LOOK_MS)
            await self.run_once()

    async def run_once(self) -> bool:
        """Takes a snapshot if one is due; says whether it did."""
        due_bytes = max(self._sizes.log_bytes_min, 2 * self._snapshot_bytes)
        tight_bytes = self._log_bytes_max()
        if tight_bytes is not None:
            # A snapshot needs room, too: not for a log that is small beside it.
            due_bytes = max(tight_bytes, self._snapshot_bytes // 4)
        if self._term.gate.log_bytes < due_bytes:
            return False
        await self.take()
        return True

    async def take(self) -> None:
        """Writes, publishes and truncates."""
        term, gate, journal = self._term, self._term.gate, self._journal
        snapshot_id = self._next_id()
        first_batch, previous_hash = gate.chain.number, gate.chain.previous_hash
        log_bytes_before = gate.log_bytes
        cursor = term.partition.snapshot()
        index, size = 0, 0
        while (rows := cursor.next_slice(self._sizes.slice_rows)) is not None:
            records, format_ = msgspec.msgpack.encode(rows), term.partition.format
            data = seal_slice(term.number, snapshot_id, index, records, format_=format_)
            write = partial(journal.write_slice, term.token, snapshot_id, index, data)
            await self._persist(write)
            index += 1
            size += len(data)
        last_seq = term.partition.next_seq - 1
        await gate.settled(last_seq)
        # A successor will know of no change before: let watches come with a cursor from here.
        term.watch.mark(last_seq)
        manifest = seal_manifest(
            partition=term.number,
            snapshot_id=snapshot_id,
            slice_count=index,
            first_batch=first_batch,
            previous_hash=previous_hash,
            last_seq=last_seq,
            token=term.token,
            stamp_ms=term.clock.now_ms(),
            format_=term.partition.format,
        )
        publish = partial(journal.publish_snapshot, term.token, snapshot_id, manifest)
        await self._persist(publish)
        await self._persist(partial(journal.truncate, term.token, first_batch))
        gate.log_bytes -= log_bytes_before
        self._snapshot_bytes = size

    def _next_id(self) -> str:
        """No snapshot has had it before; and it is the same when a simulated run is played again.

        A token belongs to one term, and that takes one snapshot at a time. Hashed: the order of ids
        says nothing, so that nothing can come to rest on it.
        """
        self._taken += 1
        name = f"{self._term.number} {self._term.token} {self._taken}"
        return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()

    async def _persist(self, mutate: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await mutate()
                return
            except (StoreUnavailable, StoreFull):
                await self._clock.sleep(_RETRY_MS)
