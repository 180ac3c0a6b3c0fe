"""What an operator does to a SQLite store that no master has open."""

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from tenure.master.backend.errors import StoreMismatch, StoreUnavailable
from tenure.master.backend.space import Freed
from tenure.master.backend.sqlite import SqliteConnection
from tenure.master.journal.backup import BackupFile, Contents, Record
from tenure.master.journal.port import HaltRecord
from tenure.master.sqlite_store import create_tables, parse_url
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason
from tenure.v1 import journal_pb2

T = TypeVar("T")

#: Records of one transaction.
_RECORDS: Final = 64
_BATCH: Final = "INSERT INTO batch (partition, number, data) VALUES (?, ?, ?)"
_SLICE: Final = "INSERT INTO slice (partition, snapshot, position, data) VALUES (?, ?, ?, ?)"
_SNAPSHOT: Final = "INSERT INTO snapshot (partition, snapshot, manifest) VALUES (?, ?, ?)"


class SqliteMaintenance:
    """See ``maintenance.Maintenance``; no master may have the file open.

    Args:
        url: The store's.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._path = parse_url(url)

    async def restore(
        self, backup: BackupFile, contents: Contents, *, cluster_id: str, epoch: int
    ) -> None:
        for taken in (self._path, _beside(self._path, "-wal")):
            if taken.exists():
                raise StoreMismatch(
                    f"expected to restore into a new store, but {taken} exists; name another file,"
                    " or move that one away",
                    reason=Reason.STORE_MISMATCH,
                    metadata={"path": str(taken)},
                )
        made = _beside(self._path, ".restoring")
        for left in _files_of(made):
            left.unlink(missing_ok=True)
        connection = await SqliteConnection.open(made)
        try:
            await connection.run(lambda c: create_tables(c, cluster_id, len(contents.spans), epoch))
            writer = _Writer()
            some: list[tuple[int, Record]] = []
            for found in backup.records(contents):
                some.append(found)
                if len(some) >= _RECORDS:
                    await connection.run(writer.writing(some), size=1)
                    some = []
            await connection.run(writer.writing(some), size=1)
            # Closing would do it, but says nothing if it cannot; and the log is deleted below.
            await connection.run(_empty_log, atomic=True)
        finally:
            await connection.close()
        for left in _files_of(made)[1:]:
            left.unlink(missing_ok=True)
        _publish(made, self._path)

    async def demand_store(self) -> None:
        if not self._path.exists():
            raise Rejected(
                f"expected a store at {self._path}, but there is no such file; check the path",
                reason=Reason.INVALID_ARGUMENT,
                metadata={"path": str(self._path)},
                field="store",
            )

    async def raise_epoch(self, choose: Callable[[int], int]) -> int:
        def change(database: sqlite3.Connection) -> int:
            (epoch,) = database.execute("SELECT epoch FROM cluster").fetchone()
            chosen = choose(epoch)
            database.execute("UPDATE cluster SET epoch = ?", (chosen,))
            return chosen

        async with self._opened() as connection:
            return await connection.run(change)

    async def clear_halt(self, partition: int) -> HaltRecord | None:
        def change(database: sqlite3.Connection) -> HaltRecord | None:
            row = database.execute(
                "DELETE FROM halted WHERE partition = ? RETURNING batch, detail", (partition,)
            ).fetchone()
            database.execute("DELETE FROM replay WHERE partition = ?", (partition,))
            return None if row is None else HaltRecord(batch_number=row[0], detail=row[1])

        async with self._opened() as connection:
            return await connection.run(change)

    async def free_space(self, say: Callable[[str], None]) -> list[Freed]:
        raise Rejected(
            "expected a store in etcd, but this is a SQLite file, which uses freed space by itself;"
            " make room on its disk",
            reason=Reason.INVALID_ARGUMENT,
            metadata={"url": self._url},
            field="store",
        )

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[SqliteConnection]:
        await self.demand_store()
        connection = await SqliteConnection.open(self._path)
        try:
            yield connection
        finally:
            await connection.close()


def _empty_log(database: sqlite3.Connection) -> None:
    """Copies all of the write-ahead log into the database itself."""
    busy, _, _ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise StoreUnavailable(
            "expected to have the new store to ourselves, but somebody reads it; try again",
            reason=Reason.STORE_UNAVAILABLE,
        )


class _Writer:
    """Turns a backup's records into rows."""

    def __init__(self) -> None:
        self._snapshot = ""
        self._slices = 0

    def writing(self, records: list[tuple[int, Record]]) -> Callable[[sqlite3.Connection], None]:
        """A transaction that writes these."""
        rows = [*self._rows(records)]

        def write(database: sqlite3.Connection) -> None:
            for statement, values in rows:
                database.execute(statement, values)

        return write

    def _rows(
        self, records: list[tuple[int, Record]]
    ) -> Iterable[tuple[str, tuple[int | str | bytes, ...]]]:
        for partition, record in records:
            match record.WhichOneof("record"):
                case "manifest":
                    manifest = journal_pb2.SnapshotManifest.FromString(record.manifest)
                    self._snapshot, self._slices = manifest.snapshot_id, 0
                    yield _SNAPSHOT, (partition, self._snapshot, record.manifest)
                case "slice":
                    yield _SLICE, (partition, self._snapshot, self._slices, record.slice)
                    self._slices += 1
                case "batch":
                    batch = journal_pb2.JournalBatch.FromString(record.batch)
                    yield _BATCH, (partition, batch.number, record.batch)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _files_of(path: Path) -> list[Path]:
    """The database and what SQLite and we keep beside it."""
    return [path, *(_beside(path, end) for end in ("-wal", "-shm", ".lock", ".reserve"))]


def _publish(made: Path, path: Path) -> None:
    """Gives the finished file its name, durably."""
    with made.open("rb") as file:
        os.fsync(file.fileno())
    made.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
