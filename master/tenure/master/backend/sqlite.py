"""One SQLite database, opened by one process, written by one thread.

The rules, and what each is for:

- A ``flock`` on a side file: a second process is refused at start. SQLite's own exclusive lock
  would do as well, but could not say who holds it.
- WAL with ``synchronous=FULL``: one fsync per commit, and what was committed is durable.
- What waits when a commit returns goes into the next transaction, so one fsync serves many.
- No space: the transaction is rolled back, the caller gets ``StoreFull``, the connection lives on.
- Any other I/O error is final. After a failed fsync the kernel may have dropped the very pages it
  could not write, and a second fsync would lie; so every later call is refused.
- Checkpoints copy the WAL into the database when nothing waits, or when the WAL has grown large.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from tenure.master.backend import wal
from tenure.master.backend.errors import (
    CorruptJournal,
    StoreFull,
    StoreIoError,
    StoreMismatch,
)
from tenure.master.backend.host import Host, RealHost, Steps, Thread
from tenure.protocol.errors import TenureError
from tenure.protocol.refusal import Reason

T = TypeVar("T")

#: What is done inside a transaction. It may raise TenureError if it has changed nothing yet.
Operation = Callable[[sqlite3.Connection], T]

#: In the file's header: "TENU".
APPLICATION_ID: Final = 0x54454E55

# Measured: with 64 KiB batches as cheap as 16 KiB pages, with small ones cheaper than both others.
_PAGE_BYTES: Final = 8192
_GROUP_MAX: Final = 64
_IDLE_S: Final = 0.05
_CHECKPOINT_IDLE_BYTES: Final = 1024 * 1024
# A WAL that starts over costs half the CPU of one that grows: its pages are there already.
_CHECKPOINT_BYTES: Final = 8 * 1024 * 1024


@dataclass(slots=True, eq=False)
class _Work:
    """One operation on its way through the thread.

    Attributes:
        operation: What to do.
        future: Whom to tell.
        size: About how many bytes it writes.
        atomic: Its first statement is all that writes: alone it needs no explicit transaction.
        frees: It frees space, so it may use the reserve.
    """

    operation: Operation[Any]
    future: asyncio.Future[Any]
    size: int
    atomic: bool
    frees: bool
    result: Any = None
    error: Exception | None = None


class SqliteConnection:
    """The open database. Create it with ``open``; all methods belong to that event loop."""

    def __init__(self, path: Path, host: Host, unlock: Callable[[], None]) -> None:
        self.path = path
        self._host = host
        self._unlock = unlock
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread: Thread[_Work | None] = host.thread(f"sqlite {path}")
        self._connection: sqlite3.Connection | None = None
        self._closing = False
        # Guards the two below against a thread that ends while an operation is handed in.
        self._admission = threading.Lock()
        self._failure: TenureError | None = None
        #: Taken from the queue and not answered yet.
        self._untold: list[_Work] = []
        #: Bytes written since the last checkpoint, about.
        self._wal_bytes = 0

    @classmethod
    async def open(cls, path: Path, host: Host | None = None) -> Self:
        """Opens or creates the database and its directory.

        Args:
            path: The file.
            host: The machine that it lies on; None: this one.

        Raises:
            StoreLocked: Another process has it open.
            StoreMismatch: The file is a database of something else.
            CorruptJournal: The file is no database.
            Rejected: The path cannot be used.
        """
        machine = host or RealHost()
        connection = cls(path, machine, machine.lock(path))
        connection._thread.start(connection._serve())
        try:
            await connection._opened
        except BaseException:
            await connection.close()
            raise
        return connection

    async def run(
        self,
        operation: Operation[T],
        *,
        size: int = 0,
        atomic: bool = False,
        frees: bool = False,
    ) -> T:
        """Runs an operation in a transaction, in the order of the calls; returns once committed.

        A caller that is cancelled leaves the operation to be done all the same.

        Args:
            operation: Runs in the thread.
            size: About how many bytes it writes.
            atomic: All it writes is its first statement.
            frees: It frees space, and may use the reserve when there is none.

        Raises:
            StoreFull: No space; nothing was changed.
            StoreIoError: This or an earlier operation failed on I/O.
            CorruptJournal: The database is damaged.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        work = _Work(operation, future, size, atomic, frees)
        with self._admission:
            if self._closing:
                raise StoreIoError(
                    f"expected to use the store {self.path}, but it was closed",
                    reason=Reason.STORE_IO,
                )
            if self._failure is not None:
                raise _again(self._failure)
            self._thread.put(work)
        return await future

    async def close(self) -> None:
        """Commits what waits, closes and unlocks. Idempotent; cancellation does not stop it."""
        if not self._closing:
            self._closing = True
            self._thread.put(None)
        await asyncio.shield(self._ended)
        # It has said that it is done; what is left of it takes no time.
        self._thread.join()

    # ---- the thread -----------------------------------------------------------------------------

    def _serve(self) -> Steps[_Work | None]:
        try:
            self._connection = self._connect()
            self._thread.tell(_settle_end, self._opened, None)
            yield from self._work(self._connection)
        except TenureError as error:
            self._fail(error)
        except sqlite3.Error as error:
            self._fail(self._judge(error))
        finally:
            self._end()

    def _connect(self) -> sqlite3.Connection:
        self._renew_log()
        connection = self._host.connect(self.path)
        try:
            self._configure(connection)
        except BaseException:
            connection.close()
            raise
        self._host.keep_reserve(self.path)
        return connection

    def _renew_log(self) -> None:
        """Looks whether the log that a crash has left is whole, and makes sure of it on the disk.

        Raises:
            CorruptJournal: What was committed is not there any more. The file stays as it is.
            StoreIoError: The disk refuses it.
        """
        log = self.path.with_name(self.path.name + "-wal")
        try:
            content = self._host.read(log)
            lost = wal.lost_commits(content, _PAGE_BYTES)
            if lost > 1:
                raise CorruptJournal(
                    f"expected {log} to be whole, but it is damaged before its last {lost}"
                    " commits; nothing was changed or deleted: copy the store away, then restore"
                    " it from a backup",
                    reason=Reason.STORE_CORRUPT,
                    metadata={"path": str(self.path), "commits": str(lost)},
                )
            if content:
                # 1. An fsync of a former process failed, so what it wrote is not on the disk, but
                #    in the system's cache. 2. That process ended before it could undo the write.
                # 3. From here, the log looks whole: SQLite would go on behind what is not there.
                # 4. The power fails, and with it goes all that was acknowledged since.
                self._host.rewrite(log, content)
        except OSError as error:
            raise StoreIoError(
                f"expected to read and write {log}, but {error.strerror or error}; check the disk,"
                " then start again: what was acknowledged is safe",
                reason=Reason.STORE_IO,
                metadata={"path": str(self.path)},
            ) from error

    def _configure(self, connection: sqlite3.Connection) -> None:
        (found,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if found != APPLICATION_ID and tables:
            raise StoreMismatch(
                f"expected {self.path} to be a store of Tenure, but it is another program's"
                " database; give the store a path of its own",
                reason=Reason.STORE_MISMATCH,
                metadata={"path": str(self.path)},
            )
        for pragma in (
            f"page_size = {_PAGE_BYTES}",
            "locking_mode = EXCLUSIVE",
            "journal_mode = WAL",
            "synchronous = FULL",
            "wal_autocheckpoint = 0",
            "secure_delete = OFF",
            "foreign_keys = OFF",
            # What undoes one statement of several: a full or missing temporary directory is no
            # reason to stop.
            "temp_store = MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        if found != APPLICATION_ID:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def _work(self, connection: sqlite3.Connection) -> Steps[_Work | None]:
        closing = False
        while not closing:
            work = yield from self._next(connection)
            group: list[_Work] = []
            while work is not None:
                group.append(work)
                if len(group) == _GROUP_MAX:
                    break
                try:
                    work = self._thread.take()
                except queue.Empty:
                    break
            closing = work is None
            if group:
                self._untold = group
                self._commit(connection, group)
            if self._wal_bytes >= _CHECKPOINT_BYTES:
                self._checkpoint(connection)

    def _next(
        self, connection: sqlite3.Connection
    ) -> Generator[float | None, _Work | None, _Work | None]:
        try:
            return (yield _IDLE_S if self._wal_bytes else None)
        except queue.Empty:
            if self._wal_bytes >= _CHECKPOINT_IDLE_BYTES:
                self._checkpoint(connection)
        # Less than that is left for later: from here on, sleep until there is work.
        return (yield None)

    def _commit(self, connection: sqlite3.Connection, group: list[_Work]) -> None:
        failure = self._attempt(connection, group)
        if isinstance(failure, StoreFull):
            if len(group) > 1:
                # One too large must not cost the others their turn.
                for work in group:
                    self._commit(connection, [work])
                return
            failure = self._attempt_without_space(connection, group)
        if isinstance(failure, StoreIoError):
            raise failure
        if failure is not None:
            for work in group:
                work.error = _again(failure)
        self._untold = [work for work in self._untold if work not in group]
        self._thread.tell(_settle, group)

    def _attempt_without_space(
        self, connection: sqlite3.Connection, group: list[_Work]
    ) -> TenureError | None:
        # A checkpoint lets the WAL start over in the space it already has.
        self._checkpoint(connection)
        failure = self._attempt(connection, group)
        if isinstance(failure, StoreFull) and group[0].frees:
            self._host.drop_reserve(self.path)
            failure = self._attempt(connection, group)
            self._checkpoint(connection)
            self._host.keep_reserve(self.path)
        return failure

    def _attempt(self, connection: sqlite3.Connection, group: list[_Work]) -> TenureError | None:
        """One transaction; None if it was committed, whatever its operations came to."""
        explicit = len(group) > 1 or not group[0].atomic
        try:
            if explicit:
                connection.execute("BEGIN IMMEDIATE")
            for work in group:
                try:
                    work.result, work.error = work.operation(connection), None
                except TenureError as refused:
                    work.error = refused
            if explicit:
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            failure = self._judge(error)
            # SQLite may have rolled back by itself, and after an I/O error it may be unable to.
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            return failure
        self._wal_bytes += sum(work.size for work in group) + _PAGE_BYTES
        return None

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            failure = self._judge(error)
            # Without space the WAL keeps what it has; the next checkpoint tries again.
            if not isinstance(failure, StoreFull):
                raise failure from error
        self._wal_bytes = 0

    def _judge(self, error: sqlite3.Error) -> TenureError:
        """What an error of SQLite means for the caller."""
        # The low byte is the primary code; the rest only refines it.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        metadata = {"path": str(self.path), "sqlite": name}
        if code == sqlite3.SQLITE_FULL:
            return StoreFull(
                f"expected to write to {self.path}, but there is no space left; free some: what"
                " was acknowledged is safe, and work goes on by itself",
                reason=Reason.STORE_FULL,
                metadata=metadata,
            )
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return CorruptJournal(
                f"expected {self.path} to be a whole database, but {error}; nothing was deleted:"
                " copy it away, then restore it from a backup",
                reason=Reason.STORE_CORRUPT,
                metadata=metadata,
            )
        return StoreIoError(
            f"expected to use the store {self.path}, but SQLite says {error} ({name}); check the"
            " disk, then start again: what was acknowledged is safe",
            reason=Reason.STORE_IO,
            metadata=metadata,
        )

    def _fail(self, error: TenureError) -> None:
        with self._admission:
            self._failure = error
        self._thread.tell(_settle_end, self._opened, _again(error))

    def _end(self) -> None:
        with self._admission:
            if self._failure is None:
                self._failure = StoreIoError(
                    f"expected to use the store {self.path}, but its thread has ended",
                    reason=Reason.STORE_IO,
                )
            left = self._untold
            with suppress(queue.Empty):
                while True:
                    work = self._thread.take()
                    if work is not None:
                        left.append(work)
        for work in left:
            work.error = _again(self._failure)
        self._thread.tell(_settle, left)
        if self._connection is not None:
            # Closing checkpoints. On a full or broken disk the WAL stays for the next open.
            with suppress(sqlite3.Error):
                self._connection.close()
        self._unlock()
        self._thread.tell(_settle_end, self._ended, None)


def _settle(group: list[_Work]) -> None:
    for work in group:
        if work.future.done():
            continue
        if work.error is not None:
            work.future.set_exception(work.error)
        else:
            work.future.set_result(work.result)


def _settle_end(future: asyncio.Future[None], error: TenureError | None) -> None:
    if not future.done():
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(None)


def _again(error: TenureError) -> TenureError:
    """A copy: one exception raised to several callers would mix up their tracebacks."""
    return type(error)(error.message, reason=error.reason, metadata=error.metadata)
