"""From the journal to a partition's state: snapshot, then every batch after it, verified."""

import asyncio
from typing import Final

import msgspec
from tenure.master.core.partition import Partition, PartitionConfig

from tenure.master.journal.codec import decode_events
from tenure.master.journal.frame import Chain, open_snapshot
from tenure.master.journal.port import Journal

#: Events replayed between two turns of the event loop, so that keepalives go on.
_EVENTS_A_TURN: Final = 16


async def recover(journal: Journal, config: PartitionConfig) -> tuple[Partition, Chain]:
    """Rebuilds a partition from its journal, reading linearizably.

    Call it only after the office was won: what is read then includes all that any earlier term
    has committed.

    Returns:
        The partition, ready for its first command, and the journal's open end.

    Raises:
        CorruptJournal: A gap, a broken chain or a bad checksum.
        FormatTooNew: A newer release wrote some of it.
        StoreUnavailable: The store did not answer; try again.
    """
    partition = Partition(config)
    chain = Chain.start(config.partition)
    stored = await journal.load_snapshot()
    if stored is not None:
        snapshot = open_snapshot(config.partition, stored)
        for data in snapshot.slices:
            partition.load_slice(msgspec.msgpack.decode(data))
            await asyncio.sleep(0)
        chain = Chain.after_snapshot(snapshot.manifest)
    replayed = 0
    async for sealed in journal.read(chain.number):
        batch = chain.follow(sealed)
        for seq, event in enumerate(decode_events(batch.events), batch.first_seq):
            partition.replay(event, seq)
            replayed += 1
            if replayed % _EVENTS_A_TURN == 0:
                await asyncio.sleep(0)
    partition.finish_replay()
    if chain.next_seq is None:
        chain.next_seq = partition.next_seq
    return partition, chain
