"""The journal of one partition in SQLite: rows of one table, each insert guarded by the token.

A guard is part of the statement that it guards, and ``rowcount`` says whether it held: what a stale
token asks for matches no row and changes nothing.
"""

import sqlite3
from collections.abc import AsyncIterator
from typing import Any, Final

from tenure.master.backend.errors import CorruptJournal, OfficeLost, StoreFull, StoreUnavailable
from tenure.master.backend.sqlite import SqliteConnection
from tenure.master.journal.port import HaltRecord, ReplayMark, SealedBatch, SnapshotRef
from tenure.protocol.fence import Token
from tenure.protocol.refusal import Reason

SCHEMA: Final = """
CREATE TABLE batch (
    partition INTEGER NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (partition, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE slice (
    partition INTEGER NOT NULL, snapshot TEXT NOT NULL, position INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (partition, snapshot, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE snapshot (
    partition INTEGER PRIMARY KEY, snapshot TEXT NOT NULL, manifest BLOB NOT NULL
) STRICT;
CREATE TABLE halted (
    partition INTEGER PRIMARY KEY, batch INTEGER NOT NULL, detail TEXT NOT NULL
) STRICT;
"""

#: Came after format 1 and belongs to it: releases that do not know it leave it alone.
LATER_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS replay (
    partition INTEGER PRIMARY KEY, crashes INTEGER NOT NULL, seq INTEGER NOT NULL
) STRICT
"""

# The tables are the election's: an office's epoch rises whenever it changes hands.
_GUARD: Final = (
    "EXISTS (SELECT 1 FROM office, cluster WHERE office.partition = :partition"
    " AND office.epoch = :revision AND cluster.epoch = :epoch)"
)
_APPEND: Final = f"""
INSERT INTO batch (partition, number, data) SELECT :partition, :number, :data
WHERE {_GUARD}
  AND EXISTS (SELECT 1 FROM batch WHERE partition = :partition AND number = :number - 1)
ON CONFLICT DO NOTHING
"""
_WRITE_SLICE: Final = f"""
INSERT OR REPLACE INTO slice (partition, snapshot, position, data)
SELECT :partition, :snapshot, :position, :data WHERE {_GUARD}
"""
_PUBLISH: Final = f"""
INSERT INTO snapshot (partition, snapshot, manifest)
SELECT :partition, :snapshot, :manifest WHERE {_GUARD}
ON CONFLICT DO UPDATE SET snapshot = excluded.snapshot, manifest = excluded.manifest
WHERE snapshot.snapshot IN (:known, :snapshot)
"""
_HALT: Final = f"""
INSERT OR REPLACE INTO halted (partition, batch, detail)
SELECT :partition, :batch, :detail WHERE {_GUARD}
"""
_MARK_REPLAY: Final = f"""
INSERT OR REPLACE INTO replay (partition, crashes, seq)
SELECT :partition, :crashes, :seq WHERE {_GUARD}
"""
_END_REPLAY: Final = f"DELETE FROM replay WHERE partition = :partition AND {_GUARD}"
_TRUNCATE: Final = f"""
DELETE FROM batch
WHERE partition = :partition AND number >= :first AND number < :before AND {_GUARD}
"""

_DEPTH: Final = 4
_READ_BATCHES: Final = 32
# Deleting touches each page of a batch; in portions, so that appends come in between.
_TRUNCATE_BATCHES: Final = 64


class SqliteJournal:
    """One partition's journal; see ``journal.port.Journal`` for what every method promises."""

    pipeline_depth = _DEPTH

    def __init__(self, connection: SqliteConnection, partition: int) -> None:
        """Called by the store."""
        self._connection = connection
        self._partition = partition
        #: The snapshot that was last read or published; None matches no row.
        self._known: str | None = None
        #: The lowest batch that was refused for want of space: those after it wait for it.
        self._full_at: int | None = None

    async def append(self, token: Token, batch: SealedBatch) -> None:
        bound = self._bind(token, number=batch.number, data=batch.data)

        def insert(connection: sqlite3.Connection) -> None:
            if connection.execute(_APPEND, bound).rowcount != 1:
                self._explain(connection, token, batch)

        try:
            await self._connection.run(insert, size=len(batch.data), atomic=True)
        except StoreFull:
            self._full_at = min(batch.number, self._full_at or batch.number)
            raise
        except StoreUnavailable:
            if self._full_at is not None and self._full_at < batch.number:
                raise self._waits(batch.number, self._full_at) from None
            raise
        if self._full_at == batch.number:
            self._full_at = None

    async def read(self, first: int) -> AsyncIterator[SealedBatch]:
        number = first
        while rows := await self._page(number):
            for found, data in rows:
                if found != number:
                    raise self._gap(number, f"batch {found} is there")
                number += 1
                yield SealedBatch(number=found, data=data)

    async def last_number(self) -> int:
        row = await self._one("SELECT max(number) FROM batch WHERE partition = ?")
        if row is None or row[0] is None:
            raise self._gap(0, "the journal is empty")
        return int(row[0])

    async def write_slice(self, token: Token, snapshot_id: str, index: int, data: bytes) -> None:
        bound = self._bind(token, snapshot=snapshot_id, position=index, data=data)
        await self._connection.run(
            lambda c: self._guarded(c, token, _WRITE_SLICE, bound), size=len(data), atomic=True
        )

    async def publish_snapshot(self, token: Token, snapshot_id: str, manifest: bytes) -> None:
        bound = self._bind(token, snapshot=snapshot_id, manifest=manifest, known=self._known)

        def publish(connection: sqlite3.Connection) -> None:
            self._guarded(connection, token, _PUBLISH, bound)
            connection.execute(
                "DELETE FROM slice WHERE partition = :partition AND snapshot <> :snapshot", bound
            )

        await self._connection.run(publish, size=len(manifest))
        self._known = snapshot_id

    async def load_snapshot(self) -> SnapshotRef | None:
        pointer = await self._one("SELECT snapshot, manifest FROM snapshot WHERE partition = ?")
        if pointer is None:
            return None
        snapshot, manifest = pointer
        rows = await self._connection.run(
            lambda c: c.execute(
                "SELECT data FROM slice WHERE partition = ? AND snapshot = ? ORDER BY position",
                (self._partition, snapshot),
            ).fetchall()
        )
        self._known = snapshot
        return SnapshotRef(manifest=manifest, slices=[data for (data,) in rows])

    async def snapshot_manifest(self) -> bytes | None:
        pointer = await self._one("SELECT snapshot, manifest FROM snapshot WHERE partition = ?")
        if pointer is None:
            return None
        self._known, manifest = pointer
        return bytes(manifest)

    async def truncate(self, token: Token, before: int) -> int:
        deleted, more = 0, True
        while more:
            batches, more = await self._connection.run(
                lambda c: self._truncate_some(c, token, before), frees=True
            )
            deleted += batches
        return deleted

    async def halt(self, token: Token, record: HaltRecord) -> None:
        bound = self._bind(token, batch=record.batch_number, detail=record.detail)
        await self._connection.run(lambda c: self._guarded(c, token, _HALT, bound), atomic=True)

    async def halted(self) -> HaltRecord | None:
        row = await self._one("SELECT batch, detail FROM halted WHERE partition = ?")
        return None if row is None else HaltRecord(batch_number=row[0], detail=row[1])

    async def mark_replay(self, token: Token, mark: ReplayMark | None) -> None:
        if mark is None:
            bound = self._bind(token)
            await self._connection.run(lambda c: self._end_replay(c, token, bound), atomic=True)
            return
        bound = self._bind(token, crashes=mark.crashes, seq=mark.seq)
        await self._connection.run(
            lambda c: self._guarded(c, token, _MARK_REPLAY, bound), atomic=True
        )

    async def replay_mark(self) -> ReplayMark | None:
        row = await self._one("SELECT crashes, seq FROM replay WHERE partition = ?")
        return None if row is None else ReplayMark(crashes=row[0], seq=row[1])

    # ---- inside transactions --------------------------------------------------------------------

    def _guarded(
        self,
        connection: sqlite3.Connection,
        token: Token,
        statement: str,
        bound: dict[str, object],
    ) -> None:
        if connection.execute(statement, bound).rowcount != 1:
            self._demand(connection, token)
            raise self._lost(token, "another snapshot was published since it was last read")

    def _end_replay(
        self, connection: sqlite3.Connection, token: Token, bound: dict[str, object]
    ) -> None:
        if connection.execute(_END_REPLAY, bound).rowcount != 1:
            self._demand(connection, token)

    def _explain(self, connection: sqlite3.Connection, token: Token, batch: SealedBatch) -> None:
        """Why an append changed nothing; returns if it was there already."""
        row = connection.execute(
            "SELECT data FROM batch WHERE partition = ? AND number = ?",
            (self._partition, batch.number),
        ).fetchone()
        if row is not None and row[0] == batch.data:
            return
        self._demand(connection, token)
        if row is not None:
            raise self._lost(token, f"another batch {batch.number} was written")
        (last,) = connection.execute(
            "SELECT max(number) FROM batch WHERE partition = ?", (self._partition,)
        ).fetchone()
        if last is not None and last >= batch.number - 1:
            raise self._gap(batch.number - 1, f"batch {last} is there")
        raise StoreUnavailable(
            f"expected to write batch {batch.number} of partition {self._partition}, but batch"
            f" {batch.number - 1} is not stored; write that one first",
            reason=Reason.STORE_UNAVAILABLE,
            metadata={"partition": str(self._partition), "batch": str(batch.number - 1)},
        )

    def _demand(self, connection: sqlite3.Connection, token: Token) -> None:
        if not connection.execute(f"SELECT {_GUARD}", self._bind(token)).fetchone()[0]:
            raise self._lost(token, "it was taken or given up since")

    def _truncate_some(
        self, connection: sqlite3.Connection, token: Token, before: int
    ) -> tuple[int, bool]:
        """Deletes the next portion; how many batches, and whether there is more."""
        self._demand(connection, token)
        first, last = connection.execute(
            "SELECT min(number), max(number) FROM batch WHERE partition = ?", (self._partition,)
        ).fetchone()
        stop = min(before, last)
        portion = min(stop, first + _TRUNCATE_BATCHES)
        bound = self._bind(token, first=first, before=portion)
        deleted = connection.execute(_TRUNCATE, bound).rowcount
        return deleted, portion < stop

    async def _page(self, first: int) -> list[tuple[int, bytes]]:
        return await self._connection.run(
            lambda c: c.execute(
                "SELECT number, data FROM batch WHERE partition = ? AND number >= ?"
                " ORDER BY number LIMIT ?",
                (self._partition, first, _READ_BATCHES),
            ).fetchall()
        )

    async def _one(self, query: str) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = await self._connection.run(
            lambda c: c.execute(query, (self._partition,)).fetchone()
        )
        return row

    def _bind(self, token: Token, **values: object) -> dict[str, object]:
        return {
            "partition": self._partition,
            "epoch": token.epoch,
            "revision": token.revision,
            **values,
        }

    # ---- refusals -------------------------------------------------------------------------------

    def _lost(self, token: Token, why: str) -> OfficeLost:
        return OfficeLost(
            f"expected to hold the office of partition {self._partition} under {token}, but {why}",
            reason=Reason.FENCED,
            metadata={"partition": str(self._partition), "token": str(token)},
        )

    def _gap(self, number: int, why: str) -> CorruptJournal:
        return CorruptJournal(
            f"expected batch {number} of partition {self._partition} in the journal, but it is"
            f" missing while {why}; nothing was skipped or deleted: copy the store away, then"
            " restore it from a backup",
            reason=Reason.STORE_CORRUPT,
            metadata={"partition": str(self._partition), "batch": str(number)},
        )

    def _waits(self, number: int, blocked_by: int) -> StoreFull:
        return StoreFull(
            f"expected to write batch {number} of partition {self._partition}, but batch"
            f" {blocked_by} before it found no space",
            reason=Reason.STORE_FULL,
            metadata={"partition": str(self._partition), "batch": str(blocked_by)},
        )
