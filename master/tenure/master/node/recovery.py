"""From the journal to a partition's state: snapshot, then every batch after it, verified.

A standby (``node.standby``) has done most of it before: recovery then goes on where it is.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import msgspec

from tenure.master.backend.errors import CorruptJournal, FormatTooNew
from tenure.master.core.config import PartitionConfig
from tenure.master.core.event import DurableEvent, TermClosed
from tenure.master.core.partition import Partition
from tenure.master.core.snapshot import UnknownSlice
from tenure.master.journal.codec import decode_events
from tenure.master.journal.frame import Chain, hash_of, open_manifest, open_snapshot
from tenure.master.journal.port import Journal, SealedBatch
from tenure.master.node.changes import Changes
from tenure.master.node.replay import Replay
from tenure.protocol.refusal import Reason
from tenure.v1 import journal_pb2

_log = logging.getLogger(__name__)

#: Bytes replayed between two turns of the event loop, so that keepalives go on. Not a turn a batch:
#: there may be tens of thousands of small ones.
TURN_BYTES: Final = 64 * 1024
#: The length of the log is known to so many bytes, as far back as matters: 32 MiB.
_MARK_BYTES: Final = 64 * 1024
_MARKS_KEPT: Final = 512


class Replayed:
    """A partition as its journal tells it, up to the end of one batch.

    Attributes:
        partition: Its state; ready for its first command when ``recover`` has returned.
        chain: The journal's open end.
        closed: Whether the last thing journaled was a TermClosed: nobody could have been granted
            anything since, so the next term needs no window.
        changes: The last changes of jobs, for watches that come back.
        first_batch: The journal's snapshot, as far as is known, covers all batches before.
    """

    def __init__(self, config: PartitionConfig) -> None:
        self.partition = Partition(config)
        self.partition.watch_changes(True)
        self.chain = Chain.start(config.partition)
        self.closed = False
        self.changes = Changes(0)
        self.first_batch = 0
        #: Bytes of all batches replayed, and what they were before some of the last ones.
        self._bytes = 0
        self._marks: deque[tuple[int, int]] = deque([(0, 0)], _MARKS_KEPT)

    async def load(self, journal: Journal, rest: Callable[[int], Awaitable[None]]) -> None:
        """Loads the snapshot, if there is one; call it first.

        Args:
            journal: Where it is.
            rest: Awaited after each slice, with its size in bytes.

        Raises:
            CorruptJournal: It is not whole.
            FormatTooNew: A newer release wrote it.
        """
        stored = await journal.load_snapshot()
        if stored is None:
            return
        snapshot = open_snapshot(self.chain.partition, stored)
        self.partition.begin_snapshot(snapshot.manifest.format)
        for data in snapshot.slices:
            self._load_slice(data)
            await rest(len(data))
        self.chain = Chain.after_snapshot(snapshot.manifest)
        self.first_batch = self.chain.number
        # Records of a snapshot have seen some of the events that follow, up to its last one: what
        # these changed is not found out by replaying them.
        self.changes.restart(snapshot.manifest.last_seq)

    def _load_slice(self, data: bytes) -> None:
        try:
            self.partition.load_slice(msgspec.msgpack.decode(data))
        except UnknownSlice as error:
            number = self.chain.partition
            raise FormatTooNew(
                f"expected to load the snapshot of partition {number}, but {error}; a newer release"
                " wrote it: upgrade this master",
                reason=Reason.FORMAT_TOO_NEW,
                metadata={"partition": str(number)},
            ) from error

    def replay(self, sealed: SealedBatch) -> None:
        """Replays the next batch at one go."""
        batch = self.follow(sealed)
        for seq, event in enumerate(decode_events(batch.events), batch.first_seq):
            self.replay_event(event, seq)
        self.drain_changes()

    def follow(self, sealed: SealedBatch) -> journal_pb2.JournalBatch:
        """Checks the next batch; its events are to be replayed then."""
        number = self.chain.number
        batch = self.chain.follow(sealed)
        if self._bytes - self._marks[-1][1] >= _MARK_BYTES:
            self._marks.append((number, self._bytes))
        self._bytes += len(sealed.data)
        return batch

    def replay_event(self, event: DurableEvent, seq: int) -> None:
        """Replays one event of the batch that was opened."""
        self.partition.replay(event, seq)
        self.closed = isinstance(event, TermClosed)

    def drain_changes(self) -> None:
        """Takes over what watches will want to know; call it after each batch."""
        self.changes.record(self.partition.drain_changes())

    def log_bytes(self) -> int:
        """About how many bytes of batches are in the journal that its snapshot does not cover."""
        before = self._marks[0][1]
        for number, size in self._marks:
            if number > self.first_batch:
                break
            before = size
        return self._bytes - before


async def recover(
    journal: Journal,
    config: PartitionConfig,
    replay: Replay | None = None,
    standby: Replayed | None = None,
) -> Replayed:
    """Rebuilds a partition from its journal, reading linearizably.

    Call it only after the office was won: what is read then includes all that any earlier term
    has committed.

    Args:
        journal: What is read.
        config: The partition's.
        replay: Marks where it is; None for who only reads.
        standby: What was replayed before, by the same checks; whatever in it is not the beginning
            of this journal is not used.

    Raises:
        ReplayFailed: An event cannot be applied.
        CorruptJournal: A gap, a broken chain or a bad checksum.
        FormatTooNew: A newer release wrote some of it.
        StoreUnavailable: The store did not answer; try again.
    """
    replayed = standby
    if replayed is not None:
        try:
            await _note_snapshot(journal, replayed)
            _log.info(
                "Going on from what the standby has replayed",
                extra={"action": "standby_taken", "partition": config.partition},
            )
            await _replay_rest(_after_joint(journal, replayed.chain), replayed, replay)
        except CorruptJournal as error:
            _log.warning(
                "What the standby has does not fit the journal; beginning with the snapshot: %s",
                error,
                extra={"action": "standby_unfit", "partition": config.partition},
            )
            standby = replayed = None
    if replayed is None:
        replayed = Replayed(config)
        await replayed.load(journal, lambda size: asyncio.sleep(0))
        await _replay_rest(journal.read(replayed.chain.number), replayed, replay)
    partition, chain = replayed.partition, replayed.chain
    for _ in partition.finish_replay_in_steps():
        await asyncio.sleep(0)
    if chain.next_seq is None:
        chain.next_seq = partition.next_seq
    if replay is not None:
        await replay.leave()
    return replayed


async def _note_snapshot(journal: Journal, replayed: Replayed) -> None:
    """Finds out which snapshot there is by now; the journal's adapter must know, too."""
    manifest = await journal.snapshot_manifest()
    if manifest is not None:
        partition = replayed.chain.partition
        replayed.first_batch = open_manifest(partition, manifest).first_batch


async def _after_joint(journal: Journal, chain: Chain) -> AsyncIterator[SealedBatch]:
    """Yields what comes after the batches replayed; the last one of them must be there yet.

    Raises:
        CorruptJournal: It is not: it was truncated, or is none of this history.
    """
    number, last_hash = chain.number, chain.previous_hash
    joined = number == 0
    async for sealed in journal.read(max(0, number - 1)):
        if joined:
            yield sealed
        elif hash_of(sealed.data) != last_hash:
            break
        joined = True
    if not joined:
        raise CorruptJournal(
            f"expected batch {number - 1} of partition {chain.partition} as it was replayed, but it"
            " is not there any more",
            reason=Reason.STORE_CORRUPT,
            metadata={"partition": str(chain.partition), "batch": str(number - 1)},
        )


async def _replay_rest(
    batches: AsyncIterator[SealedBatch], replayed: Replayed, replay: Replay | None
) -> None:
    unturned = 0
    async for sealed in batches:
        batch = replayed.follow(sealed)
        event_bytes = len(sealed.data) // max(1, batch.event_count)
        next_seq = batch.first_seq + batch.event_count
        marks = replay is not None and await replay.enter_batch(batch.first_seq, next_seq)
        for seq, event in enumerate(decode_events(batch.events), batch.first_seq):
            if marks and replay is not None:
                await replay.enter_event(seq)
            try:
                replayed.replay_event(event, seq)
            except Exception as error:
                if replay is None:
                    raise
                raise await replay.fail(seq, error) from error
            unturned += event_bytes
            if unturned >= TURN_BYTES:
                unturned = 0
                replayed.drain_changes()
                await asyncio.sleep(0)
        replayed.drain_changes()
