"""What the conformance suite needs of a store beyond its port: a bench for each adapter.

A bench opens the store as one master or another, ends offices that nobody gave up, and damages
what is stored. To hold another adapter to the suite, add its bench to ``conftest``.
"""

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenure.master.election.port import Candidate, Office
from tenure.master.journal.frame import Chain
from tenure.master.journal.port import Journal, SealedBatch
from tenure.master.sqlite_store import SqliteStore
from tenure.master.store import Store, open_store
from tenure.protocol.fence import Token

Main = Callable[[], Coroutine[Any, Any, None]]

WALL_MS = 1_767_225_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """After a master's office has ended without its doing.

    Attributes:
        zombie: A journal through which the former holder still writes.
        store: The successor's.
        office: What the successor won.
    """

    zombie: Journal
    store: Store
    office: Office


class Bench(ABC):
    """One store under test; each test has its own."""

    #: Several masters may have it open at once.
    shared: bool

    def run(self, main: Main) -> None:
        """Runs a test on the loop that the adapter lives on."""
        asyncio.run(main())

    @abstractmethod
    async def open(self, name: str = "alice", partitions: int | None = None) -> Store:
        """Another master opens the store."""

    @abstractmethod
    async def takeover(self, store: Store, partition: int = 0) -> Takeover:
        """Ends an office against its holder's will, and has another master win it."""

    @abstractmethod
    async def damage(self, store: Store, number: int, data: bytes | None) -> None:
        """Replaces a stored batch of partition 0, or removes it, behind the adapter's back."""

    async def reopen(self, store: Store) -> Store:
        """Closes the store, as a master that ends, and opens it again as another."""
        await store.close()
        return await self.open("again")


class FillableBench(Bench):
    """A bench whose store can be full."""

    @abstractmethod
    async def fill(self, store: Store) -> None:
        """From now on nothing is stored any more."""

    @abstractmethod
    async def free(self, store: Store) -> None:
        """There is space again."""


class SqliteBench(FillableBench):
    """A database file, on the real loop."""

    shared = False

    def __init__(self, directory: Path) -> None:
        self.path = directory / "data" / "store.db"

    async def open(self, name: str = "alice", partitions: int | None = None) -> SqliteStore:
        store = await open_store(
            f"sqlite://{self.path}",
            candidate=candidate(name),
            wall_ms=WALL_MS,
            partitions=partitions,
        )
        assert isinstance(store, SqliteStore)
        return store

    async def takeover(self, store: Store, partition: int = 0) -> Takeover:
        # The lock keeps two masters apart, so the zombie is a former one's token.
        await store.close()
        successor = await self.open("bob")
        office = await successor.election(partition).campaign()
        return Takeover(zombie=successor.journal(partition), store=successor, office=office)

    async def damage(self, store: Store, number: int, data: bytes | None) -> None:
        def change(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM batch WHERE partition = 0 AND number = ?", (number,))
            if data is not None:
                database.execute("INSERT INTO batch VALUES (0, ?, ?)", (number, data))

        await _sqlite(store).connection.run(change)

    async def fill(self, store: Store) -> None:
        await _sqlite(store).connection.run(
            lambda database: database.execute("PRAGMA max_page_count = 1").fetchone()
        )

    async def free(self, store: Store) -> None:
        await _sqlite(store).connection.run(
            lambda database: database.execute("PRAGMA max_page_count = 1000000").fetchone()
        )


def candidate(name: str) -> Candidate:
    """A master of the suite."""
    return Candidate(incarnation=f"incarnation-of-{name}", name=name, address=f"{name}:7400")


async def won(store: Store, partition: int = 0) -> Office:
    """Campaigns for an office that is free."""
    office = await store.election(partition).campaign()
    assert office is not None
    return office


async def followed(journal: Journal, partition: int = 0) -> Chain:
    """Reads a whole journal, checking every batch; the chain goes on after it."""
    chain = Chain.start(partition)
    async for batch in journal.read(0):
        chain.follow(batch)
    return chain


async def stored(journal: Journal, first: int = 0) -> list[SealedBatch]:
    """All batches from a number on."""
    return [batch async for batch in journal.read(first)]


def sealed(chain: Chain, token: Token, events: bytes = b"\x90") -> SealedBatch:
    """The next batch of a chain."""
    return chain.seal(token=token, stamp_ms=WALL_MS, events=events, event_count=1)


def _sqlite(store: Store) -> SqliteStore:
    assert isinstance(store, SqliteStore)
    return store
