"""What an operator does to a store: back it up, restore it, fence its past, clear a halt.

Each of these is one call on a store's URL, for ``tenure cluster``. None of them leads anything.
"""

import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Protocol

from tenure.master.backend.errors import StoreMismatch
from tenure.master.backend.space import Freed
from tenure.master.election.port import Candidate
from tenure.master.journal.backup import BackupFile, Contents, export
from tenure.master.journal.port import HaltRecord
from tenure.master.store import open_store
from tenure.protocol.refusal import Reason
from tenure.v1 import backup_pb2


class Maintenance(Protocol):
    """What one kind of store does for its operator. Made of the store's URL."""

    async def demand_store(self) -> None:
        """Refuses a place where nothing was ever kept: to open a store there would make one.

        Raises:
            Rejected: There is no such file (SQLite).
            StoreMismatch: There is nothing under the prefix (etcd).
        """

    async def restore(
        self, backup: BackupFile, contents: Contents, *, cluster_id: str, epoch: int
    ) -> None:
        """Makes a new store of a backup that was proved whole; half of one is never opened.

        Raises:
            StoreMismatch: There is something already.
            StoreFull: There is too little space.
        """

    async def raise_epoch(self, choose: Callable[[int], int]) -> int:
        """Fences everything that masters of before have given out; returns the new epoch.

        Args:
            choose: The new epoch, given the one that is kept.
        """

    async def clear_halt(self, partition: int) -> HaltRecord | None:
        """Takes the mark away that keeps everybody from leading a partition; None: no mark."""

    async def free_space(self, say: Callable[[str], None]) -> list[Freed]:
        """Gets a full store going again.

        Args:
            say: Told of each step.

        Raises:
            Rejected: This kind of store does that by itself.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore has made.

    Attributes:
        cluster_id: The store's; masters, workers and clients need no other settings than before.
        epoch: In front of all tokens from now on.
        contents: What the backup held.
    """

    cluster_id: str
    epoch: int
    contents: Contents


def next_epoch(epoch: int) -> int:
    """The epoch of a restore: above the one before, and another for each restore of one backup.

    Two stores that were restored from one backup would otherwise give out the same tokens, and a
    worker of the one could not be told from a worker of the other. So it is the time, in seconds.
    """
    return max(epoch + 1, int(time.time()))


async def backup(url: str) -> AsyncIterator[bytes]:
    """Reads a store that exists, without a master. Masters in etcd may go on meanwhile.

    Raises:
        StoreLocked: A master has it open (SQLite): ask that one for the backup.
    """
    me = Candidate(incarnation=str(uuid.uuid4()), name="backup", address="")
    await _of(url).demand_store()
    store = await open_store(url, candidate=me, wall_ms=time.time_ns() // 1_000_000)
    try:
        header = backup_pb2.BackupHeader(
            cluster_id=store.cluster_id,
            partitions=store.partitions,
            epoch=store.epoch,
            version=metadata.version("tenure"),
            made_ms=time.time_ns() // 1_000_000,
        )
        async for piece in export([store.reader(p) for p in range(store.partitions)], header):
            yield piece
    finally:
        await store.close()


async def restore(url: str, path: Path, *, new_cluster_id: bool = False) -> Restored:
    """Makes a new store of a backup.

    Args:
        url: Of a store that does not exist yet.
        path: The backup's file.
        new_cluster_id: For a copy beside the cluster: nobody takes the one for the other then.

    Raises:
        CorruptJournal: The backup is damaged; nothing was written.
        StoreMismatch: The store exists.
    """
    file = BackupFile(path)
    contents = file.verify()
    cluster_id = str(uuid.uuid4()) if new_cluster_id else contents.header.cluster_id
    epoch = next_epoch(contents.header.epoch)
    await _of(url).restore(file, contents, cluster_id=cluster_id, epoch=epoch)
    return Restored(cluster_id=cluster_id, epoch=epoch, contents=contents)


async def raise_epoch(url: str) -> int:
    """Fences all that was given out before; for a store that was set back behind our backs."""
    return await _of(url).raise_epoch(next_epoch)


async def clear_halt(url: str, partition: int) -> HaltRecord:
    """Lets masters campaign for a halted partition again; returns why it was halted.

    Raises:
        StoreMismatch: It is not halted.
    """
    record = await _of(url).clear_halt(partition)
    if record is None:
        raise StoreMismatch(
            f"expected partition {partition} to be halted, but it is not; see `tenure cluster"
            " status`",
            reason=Reason.STORE_MISMATCH,
            metadata={"partition": str(partition)},
        )
    return record


async def free_space(url: str, say: Callable[[str], None]) -> list[Freed]:
    """Gets a full etcd going again.

    Raises:
        Rejected: The store is not in etcd.
    """
    return await _of(url).free_space(say)


def _of(url: str) -> Maintenance:
    # Each backend is imported only when it is used, as in `open_store`.
    if url.startswith("sqlite:"):
        from tenure.master.sqlite_maintenance import SqliteMaintenance

        return SqliteMaintenance(url)
    from tenure.master.etcd_maintenance import EtcdMaintenance

    return EtcdMaintenance(url)
