"""The store in one SQLite database: what bootstrap writes, and the adapters over one connection."""

import sqlite3
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import unquote

from tenure.master.backend.errors import FormatTooNew, StoreMismatch
from tenure.master.backend.host import Host
from tenure.master.backend.space import Space
from tenure.master.backend.sqlite import SqliteConnection
from tenure.master.election import sqlite as sqlite_election
from tenure.master.election.port import Candidate, Member
from tenure.master.election.sqlite import SqliteElection
from tenure.master.journal import frame
from tenure.master.journal import sqlite as sqlite_journal
from tenure.master.journal.sqlite import SqliteJournal
from tenure.protocol.errors import Rejected
from tenure.protocol.fence import Token
from tenure.protocol.refusal import Reason

#: The layout of the tables; rises when a release changes it.
FORMAT: Final = 1

_FIRST_EPOCH: Final = 1
_SCHEMA: Final = """
CREATE TABLE cluster (
    id TEXT NOT NULL, format INTEGER NOT NULL, partitions INTEGER NOT NULL, epoch INTEGER NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bootstrap:
    """The bootstrap record."""

    cluster_id: str
    partitions: int
    epoch: int


def parse_url(url: str) -> Path:
    """The file that a ``sqlite:///path`` URL names.

    Raises:
        Rejected: It names none; the message says what is wrong.
    """
    rest = url.removeprefix("sqlite://")
    if not rest.strip("/"):
        raise _bad_url(url, "it names no file; write sqlite:///path/to/store.db")
    if not rest.startswith("/"):
        raise _bad_url(url, f"it needs a third slash; write sqlite:///{rest}")
    if rest.endswith("/"):
        raise _bad_url(url, f"it names a directory; write {url}store.db")
    if "?" in rest or "#" in rest:
        raise _bad_url(url, "it takes no parameters; in a file's name write ? as %3F, # as %23")
    return Path(unquote(rest))


class SqliteStore:
    """One node's store; see ``store.Store``. Created by ``open``."""

    def __init__(
        self,
        connection: SqliteConnection,
        record: _Bootstrap,
        candidate: Candidate,
        quota_bytes: int | None,
    ) -> None:
        """Called by ``open``."""
        self.connection = connection
        self.cluster_id = record.cluster_id
        self.partitions = record.partitions
        self.epoch = record.epoch
        self._quota_bytes = quota_bytes
        self._elections = [
            SqliteElection(connection, partition, record.epoch, candidate)
            for partition in range(record.partitions)
        ]
        self._journals = [
            SqliteJournal(connection, partition) for partition in range(record.partitions)
        ]
        self._member: Member | None = None

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        candidate: Candidate,
        wall_ms: int,
        partitions: int | None = None,
        quota_bytes: int | None = None,
        host: Host | None = None,
    ) -> Self:
        """See ``store.open_store``; ``host``: the machine that the file lies on, None: this one."""
        connection = await SqliteConnection.open(path, host)
        try:

            def prepare(database: sqlite3.Connection) -> _Bootstrap:
                if not _has_tables(database):
                    _bootstrap(database, partitions or 1, wall_ms)
                record = _check(database, path, partitions)
                database.execute(sqlite_journal.LATER_SCHEMA)
                sqlite_election.raise_epochs(database)
                return record

            record = await connection.run(prepare)
        except BaseException:
            await connection.close()
            raise
        return cls(connection, record, candidate, quota_bytes)

    def election(self, partition: int) -> SqliteElection:
        return self._elections[partition]

    def journal(self, partition: int) -> SqliteJournal:
        return self._journals[partition]

    def reader(self, partition: int) -> SqliteJournal:
        return SqliteJournal(self.connection, partition)

    async def space(self) -> Space | None:
        """A file has the quota that its master was told; a full disk is noticed all the same."""
        if self._quota_bytes is None:
            return None

        def pages(database: sqlite3.Connection) -> tuple[int, int, int]:
            return tuple(
                database.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )

        count, free, size = await self.connection.run(pages)
        return Space(
            used_bytes=(count - free) * size,
            file_bytes=count * size,
            quota_bytes=self._quota_bytes,
            # What is free in it is used first.
            file_counts=False,
        )

    async def tidy(self) -> None:
        """Nothing is kept that somebody could not ask for."""

    async def register(self, member: Member) -> None:
        # The database is locked, so this process is all there is.
        self._member = member

    async def members(self) -> list[Member]:
        return [] if self._member is None else [self._member]

    async def close(self) -> None:
        await self.connection.close()


def _has_tables(database: sqlite3.Connection) -> bool:
    query = "SELECT 1 FROM sqlite_schema WHERE name = 'cluster'"
    return database.execute(query).fetchone() is not None


def create_tables(
    database: sqlite3.Connection, cluster_id: str, partitions: int, epoch: int
) -> None:
    """Makes a new store, but for its journals."""
    for statement in (_SCHEMA + sqlite_election.SCHEMA + sqlite_journal.SCHEMA).split(";"):
        database.execute(statement)
    database.execute(
        "INSERT INTO cluster (id, format, partitions, epoch) VALUES (?, ?, ?, ?)",
        (cluster_id, FORMAT, partitions, epoch),
    )
    offices = [(partition,) for partition in range(partitions)]
    database.executemany("INSERT INTO office (partition, epoch) VALUES (?, 0)", offices)


def _bootstrap(database: sqlite3.Connection, partitions: int, wall_ms: int) -> None:
    create_tables(database, str(uuid.uuid4()), partitions, _FIRST_EPOCH)
    for partition in range(partitions):
        genesis = frame.genesis(partition, Token(_FIRST_EPOCH, 0), wall_ms)
        database.execute(
            "INSERT INTO batch (partition, number, data) VALUES (?, ?, ?)",
            (partition, genesis.number, genesis.data),
        )


def _check(database: sqlite3.Connection, path: Path, partitions: int | None) -> _Bootstrap:
    cluster_id, found_format, found, epoch = database.execute(
        "SELECT id, format, partitions, epoch FROM cluster"
    ).fetchone()
    if found_format > FORMAT:
        raise FormatTooNew(
            f"expected to open the store {path}, but a newer release made it (format"
            f" {found_format}; this release reads up to {FORMAT}); upgrade this master",
            reason=Reason.FORMAT_TOO_NEW,
            metadata={"path": str(path), "format": str(found_format)},
        )
    if partitions is not None and partitions != found:
        raise StoreMismatch(
            f"expected the store {path} to have {partitions} partitions, but it was made with"
            f" {found}; start with --partitions {found}, or name another store",
            reason=Reason.STORE_MISMATCH,
            metadata={"path": str(path), "partitions": str(found)},
        )
    return _Bootstrap(cluster_id=cluster_id, partitions=found, epoch=epoch)


def _bad_url(url: str, why: str) -> Rejected:
    return Rejected(
        f"expected the URL of a store, but got {url!r}: {why}",
        reason=Reason.INVALID_ARGUMENT,
        metadata={"url": url},
        field="store",
    )
