"""From the journal to a partition's state: snapshot, then every batch after it, verified."""

import asyncio
from typing import Final, NamedTuple

import msgspec

from tenure.master.core.config import PartitionConfig
from tenure.master.core.event import DurableEvent, TermClosed
from tenure.master.core.partition import Partition
from tenure.master.journal.codec import decode_events
from tenure.master.journal.frame import Chain, open_snapshot
from tenure.master.journal.port import Journal
from tenure.master.node.changes import Changes
from tenure.master.node.replay import Replay

#: Events replayed between two turns of the event loop, so that keepalives go on.
_EVENTS_A_TURN: Final = 16


class Recovered(NamedTuple):
    """A partition as its journal tells it.

    Attributes:
        partition: Ready for its first command.
        chain: The journal's open end.
        closed: Whether the last thing journaled was a TermClosed: nobody could have been granted
            anything since, so the next term needs no window.
        changes: The last changes of jobs, for watches that come back.
    """

    partition: Partition
    chain: Chain
    closed: bool
    changes: Changes


async def recover(
    journal: Journal, config: PartitionConfig, replay: Replay | None = None
) -> Recovered:
    """Rebuilds a partition from its journal, reading linearizably.

    Call it only after the office was won: what is read then includes all that any earlier term
    has committed.

    Args:
        journal: What is read.
        config: The partition's.
        replay: Marks where it is; None for who only reads.

    Raises:
        ReplayFailed: An event cannot be applied.
        CorruptJournal: A gap, a broken chain or a bad checksum.
        FormatTooNew: A newer release wrote some of it.
        StoreUnavailable: The store did not answer; try again.
    """
    partition = Partition(config)
    chain = Chain.start(config.partition)
    # Records of a snapshot have seen some of the events that follow, up to its last one: what
    # these changed is not found out by replaying them.
    snapshot_seq = 0
    stored = await journal.load_snapshot()
    if stored is not None:
        snapshot = open_snapshot(config.partition, stored)
        for data in snapshot.slices:
            partition.load_slice(msgspec.msgpack.decode(data))
            await asyncio.sleep(0)
        chain = Chain.after_snapshot(snapshot.manifest)
        snapshot_seq = snapshot.manifest.last_seq
    changes = Changes(snapshot_seq)
    partition.watch_changes(True)
    last: DurableEvent | None = None
    async for sealed in journal.read(chain.number):
        batch = chain.follow(sealed)
        next_seq = batch.first_seq + batch.event_count
        marks = replay is not None and await replay.enter_batch(batch.first_seq, next_seq)
        for seq, event in enumerate(decode_events(batch.events), batch.first_seq):
            if marks and replay is not None:
                await replay.enter_event(seq)
            try:
                partition.replay(event, seq)
            except Exception as error:
                if replay is None:
                    raise
                raise await replay.fail(seq, error) from error
            last = event
            if seq % _EVENTS_A_TURN == 0:
                changes.record(partition.drain_changes())
                await asyncio.sleep(0)
    changes.record(partition.drain_changes())
    for _ in partition.finish_replay_in_steps():
        await asyncio.sleep(0)
    if chain.next_seq is None:
        chain.next_seq = partition.next_seq
    if replay is not None:
        await replay.leave()
    return Recovered(partition, chain, isinstance(last, TermClosed), changes)
