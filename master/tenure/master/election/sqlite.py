"""The election of one partition in SQLite: whoever has the database open leads.

Its lock keeps every other process out, so nobody contends, and an office cannot be lost while the
database is open. Tokens still rise, at each open, campaign and resignation, so that what a former
term left under way is refused like anywhere else; and no two partitions ever have the same one, so
that a fence tells its lease from all others of the store.
"""

import asyncio
import sqlite3
from typing import Final

from tenure.master.backend.errors import OfficeLost
from tenure.master.backend.sqlite import SqliteConnection
from tenure.master.election.port import Candidate, Leader
from tenure.protocol.fence import Token
from tenure.protocol.refusal import Reason

SCHEMA: Final = """
CREATE TABLE office (partition INTEGER PRIMARY KEY, epoch INTEGER NOT NULL) STRICT;
"""


def raise_epochs(connection: sqlite3.Connection) -> None:
    """At each open: no token of an earlier one is good any more."""
    connection.execute("UPDATE office SET epoch = epoch + 1")


class SqliteOffice:
    """An office that was won: nothing to renew, nothing that could take it away."""

    ttl_ms: int | None = None

    def __init__(self, election: "SqliteElection", token: Token) -> None:
        """Called by the election."""
        self.token = token
        self._election = election

    async def renew(self) -> None:
        await self.verify()

    async def verify(self) -> None:
        await self._election.verify(self.token)

    async def resign(self) -> None:
        await self._election.resign(self.token)


class SqliteElection:
    """The election of one partition; see ``election.port.Election``."""

    def __init__(
        self, connection: SqliteConnection, partition: int, cluster_epoch: int, candidate: Candidate
    ) -> None:
        """Called by the store."""
        self._connection = connection
        self._partition = partition
        self._cluster_epoch = cluster_epoch
        self._candidate = candidate
        self._held: Token | None = None

    async def campaign(self) -> SqliteOffice:
        def raise_epoch(connection: sqlite3.Connection) -> int:
            (epoch,) = connection.execute(
                "UPDATE office SET epoch = 1 + (SELECT max(epoch) FROM office)"
                " WHERE partition = ? RETURNING epoch",
                (self._partition,),
            ).fetchone()
            return int(epoch)

        token = Token(self._cluster_epoch, await self._connection.run(raise_epoch))
        self._held = token
        return SqliteOffice(self, token)

    async def leader(self) -> Leader | None:
        return self._held and Leader(candidate=self._candidate, token=self._held)

    async def vacancy(self, timeout_ms: int) -> bool:
        if self._held is not None:
            await asyncio.sleep(timeout_ms / 1000)
        return self._held is None

    async def verify(self, token: Token) -> None:
        """For the office: raises OfficeLost if a later campaign or a resignation ended it."""
        if token != self._held:
            raise OfficeLost(
                f"expected to hold the office of partition {self._partition} under {token}, but"
                f" it was given up",
                reason=Reason.FENCED,
                metadata={"partition": str(self._partition), "token": str(token)},
            )

    async def resign(self, token: Token) -> None:
        """For the office: makes its token stale at once."""
        if token == self._held:
            await self._connection.run(
                lambda c: (
                    c.execute(
                        "UPDATE office SET epoch = epoch + 1 WHERE partition = ? AND epoch = ?",
                        (self._partition, token.revision),
                    ).rowcount
                )
            )
            self._held = None
