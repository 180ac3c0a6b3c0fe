"""Where the pipe's master writes before it answers: nowhere, one SQLite file, or one etcd.

The stores are used as Tenure uses them (group commit; fsync or a guarded transaction per batch),
without its headers, hashes and snapshots. What waits when a commit returns goes into the next one.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tenure.master.backend.etcd.client import EtcdClient
from tenure.master.backend.etcd.operation import absent, put

#: Called once what was appended with it is durable, in the order of the appends.
Committed = Callable[[], None]

_BATCH_BYTES: Final = 256 * 1024
_ETCD_IN_FLIGHT: Final = 4


class MemoryJournal:
    """Forgets everything: shows what the rest of the pipe costs."""

    async def run(self) -> None:
        """Nothing to do; returns when cancelled."""
        await asyncio.Event().wait()

    def append(self, data: bytes, committed: Committed) -> None:
        """Calls back at once."""
        committed()


class GroupJournal:
    """Batches what is appended and commits up to `depth` batches at a time, in order."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._waiting: list[tuple[bytes, Committed]] = []
        self._waiting_bytes = 0
        self._number = 0
        self._some = asyncio.Event()
        self._slots = asyncio.Semaphore(depth)

    def append(self, data: bytes, committed: Committed) -> None:
        """Takes data for the next batch."""
        self._waiting.append((data, committed))
        self._waiting_bytes += len(data)
        self._some.set()

    async def run(self) -> None:
        """Commits until cancelled."""
        previous: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as group:
            while True:
                await self._slots.acquire()
                await self._some.wait()
                # What else this turn of the loop brings is part of the batch.
                await asyncio.sleep(0)
                rows = self._take()
                self._number += 1
                previous = group.create_task(self._release(self._number, rows, previous))

    async def commit(self, number: int, body: bytes) -> None:
        """Makes one batch durable."""
        raise NotImplementedError

    def _take(self) -> list[tuple[bytes, Committed]]:
        rows: list[tuple[bytes, Committed]] = []
        size = 0
        for data, committed in self._waiting:
            if rows and size + len(data) > _BATCH_BYTES:
                break
            rows.append((data, committed))
            size += len(data)
        del self._waiting[: len(rows)]
        if not self._waiting:
            self._some.clear()
        return rows

    async def _release(
        self,
        number: int,
        rows: list[tuple[bytes, Committed]],
        previous: asyncio.Task[None] | None,
    ) -> None:
        await self.commit(number, b"".join([data for data, _ in rows]))
        if previous is not None:
            await previous
        self._slots.release()
        for _, committed in rows:
            committed()


class SqliteJournal(GroupJournal):
    """One table, WAL, `synchronous=FULL`, commits in a thread of their own."""

    def __init__(self, path: Path) -> None:
        super().__init__(depth=1)
        self._path = path
        self._inbox: queue.SimpleQueue[tuple[int, bytes, asyncio.Future[None]]] = (
            queue.SimpleQueue()
        )
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._commit_all, daemon=True).start()

    async def commit(self, number: int, body: bytes) -> None:
        """Hands the batch to the thread and waits for its fsync."""
        done = self._loop.create_future()
        self._inbox.put((number, body, done))
        await done

    def _commit_all(self) -> None:
        database = sqlite3.connect(self._path, isolation_level=None)
        database.execute("PRAGMA page_size = 8192")
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE batch (number INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        while True:
            number, body, done = self._inbox.get()
            database.execute("INSERT INTO batch VALUES (?, ?)", (number, body))
            self._loop.call_soon_threadsafe(done.set_result, None)


class EtcdJournal(GroupJournal):
    """One key a batch, each put guarded by the key's absence; four transactions in flight."""

    def __init__(self, endpoints: list[str]) -> None:
        super().__init__(depth=_ETCD_IN_FLIGHT)
        self._client = EtcdClient(endpoints, call_timeout_s=10)

    async def commit(self, number: int, body: bytes) -> None:
        """Puts the batch."""
        key = b"/pipe/%016x" % number
        response = await self._client.txn([absent(key)], [put(key, body)])
        if not response.succeeded:
            raise RuntimeError(f"expected batch {number} to be new, but etcd has it")


def open_journal(store: str) -> Any:
    """The journal for `none`, `sqlite:///path` or `etcd://host:port,…`."""
    if store == "none":
        return MemoryJournal()
    scheme, _, rest = store.partition("://")
    if scheme == "sqlite":
        return SqliteJournal(Path(rest))
    if scheme == "etcd":
        return EtcdJournal(rest.split(","))
    raise ValueError(f"expected none, sqlite:///path or etcd://host:port, got {store}")
