"""What an operator does to a store: back it up, restore it, fence its past, clear a halt.

Each of these is one call on a store's URL, for ``tenure cluster``. None of them leads anything.
"""

import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tenure.master.backend.errors import StoreMismatch
from tenure.master.election.port import Candidate
from tenure.master.journal.backup import BackupFile, Contents, export
from tenure.master.journal.port import HaltRecord
from tenure.master.store import open_store
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason
from tenure.v1 import backup_pb2

if TYPE_CHECKING:
    from tenure.master.etcd_maintenance import Freed


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
    await _demand_store(url)
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
    if (sqlite := _sqlite_path(url)) is not None:
        from tenure.master import sqlite_maintenance

        await sqlite_maintenance.restore(sqlite, file, contents, cluster_id=cluster_id, epoch=epoch)
    else:
        from tenure.master import etcd_maintenance

        await etcd_maintenance.restore(url, file, contents, cluster_id=cluster_id, epoch=epoch)
    return Restored(cluster_id=cluster_id, epoch=epoch, contents=contents)


async def raise_epoch(url: str) -> int:
    """Fences all that was given out before; for a store that was set back behind our backs."""
    if (sqlite := _sqlite_path(url)) is not None:
        from tenure.master import sqlite_maintenance

        return await sqlite_maintenance.raise_epoch(sqlite, next_epoch)
    from tenure.master import etcd_maintenance

    return await etcd_maintenance.raise_epoch(url, next_epoch)


async def clear_halt(url: str, partition: int) -> HaltRecord:
    """Lets masters campaign for a halted partition again; returns why it was halted.

    Raises:
        StoreMismatch: It is not halted.
    """
    if (sqlite := _sqlite_path(url)) is not None:
        from tenure.master import sqlite_maintenance

        record = await sqlite_maintenance.clear_halt(sqlite, partition)
    else:
        from tenure.master import etcd_maintenance

        record = await etcd_maintenance.clear_halt(url, partition)
    if record is None:
        raise StoreMismatch(
            f"expected partition {partition} to be halted, but it is not; see `tenure cluster"
            " status`",
            reason=Reason.STORE_MISMATCH,
            metadata={"partition": str(partition)},
        )
    return record


async def free_space(url: str, say: Callable[[str], None]) -> "list[Freed]":
    """Gets a full etcd going again.

    Raises:
        Rejected: The store is not in etcd.
    """
    from tenure.master import etcd_maintenance

    if _sqlite_path(url) is not None:
        raise Rejected(
            "expected a store in etcd, but this is a SQLite file, which uses freed space by itself;"
            " make room on its disk",
            reason=Reason.INVALID_ARGUMENT,
            metadata={"url": url},
            field="store",
        )
    return await etcd_maintenance.free_space(url, say)


def _sqlite_path(url: str) -> Path | None:
    if not url.startswith("sqlite:"):
        return None
    from tenure.master import sqlite_store

    return sqlite_store.parse_url(url)


async def _demand_store(url: str) -> None:
    """To open a store that does not exist would make it."""
    if (sqlite := _sqlite_path(url)) is not None:
        from tenure.master import sqlite_maintenance

        sqlite_maintenance.demand_store(sqlite)
    else:
        from tenure.master import etcd_maintenance

        await etcd_maintenance.demand_store(url)
