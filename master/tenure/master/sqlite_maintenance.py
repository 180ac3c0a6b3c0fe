"""What an operator does to a SQLite store that no master has open."""

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from tenure.master.backend.errors import StoreMismatch, StoreUnavailable
from tenure.master.backend.sqlite import SqliteConnection
from tenure.master.journal.backup import BackupFile, Contents, Record
from tenure.master.journal.port import HaltRecord
from tenure.master.sqlite_store import create_tables
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason
from tenure.v1 import journal_pb2

T = TypeVar("T")

#: Records of one transaction.
_RECORDS: Final = 64
_BATCH: Final = "INSERT INTO batch (partition, number, data) VALUES (?, ?, ?)"
_SLICE: Final = "INSERT INTO slice (partition, snapshot, position, data) VALUES (?, ?, ?, ?)"
_SNAPSHOT: Final = "INSERT INTO snapshot (partition, snapshot, manifest) VALUES (?, ?, ?)"


async def restore(
    path: Path, backup: BackupFile, contents: Contents, *, cluster_id: str, epoch: int
) -> None:
    """Makes a new store of a backup that was proved whole; all of it or nothing is there then.

    Raises:
        StoreMismatch: There is a file already.
        StoreFull: The disk has too little space.
    """
    for taken in (path, _beside(path, "-wal")):
        if taken.exists():
            raise StoreMismatch(
                f"expected to restore into a new store, but {taken} exists; name another file, or"
                " move that one away",
                reason=Reason.STORE_MISMATCH,
                metadata={"path": str(taken)},
            )
    made = _beside(path, ".restoring")
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
    _publish(made, path)


def demand_store(path: Path) -> None:
    """Refuses a path where nothing is: to open it would make a store.

    Raises:
        Rejected: There is no such file.
    """
    if not path.exists():
        raise Rejected(
            f"expected a store at {path}, but there is no such file; check the path",
            reason=Reason.INVALID_ARGUMENT,
            metadata={"path": str(path)},
            field="store",
        )


async def raise_epoch(path: Path, choose: Callable[[int], int]) -> int:
    """Fences everything that the store's masters have given out; returns the new epoch."""

    def change(database: sqlite3.Connection) -> int:
        (epoch,) = database.execute("SELECT epoch FROM cluster").fetchone()
        chosen = choose(epoch)
        database.execute("UPDATE cluster SET epoch = ?", (chosen,))
        return chosen

    async with _opened(path) as connection:
        return await connection.run(change)


async def clear_halt(path: Path, partition: int) -> HaltRecord | None:
    """Takes the mark away that keeps everybody from leading a partition; None: there was none."""

    def change(database: sqlite3.Connection) -> HaltRecord | None:
        row = database.execute(
            "DELETE FROM halted WHERE partition = ? RETURNING batch, detail", (partition,)
        ).fetchone()
        database.execute("DELETE FROM replay WHERE partition = ?", (partition,))
        return None if row is None else HaltRecord(batch_number=row[0], detail=row[1])

    async with _opened(path) as connection:
        return await connection.run(change)


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


@asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[SqliteConnection]:
    demand_store(path)
    connection = await SqliteConnection.open(path)
    try:
        yield connection
    finally:
        await connection.close()


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
