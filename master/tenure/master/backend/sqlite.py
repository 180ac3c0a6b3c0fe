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
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from tenure.master.backend.errors import (
    CorruptJournal,
    StoreFull,
    StoreIoError,
    StoreLocked,
    StoreMismatch,
)
from tenure.protocol.errors import Rejected, TenureError
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
# Given up so that a truncation can still be written when the disk is full.
_RESERVE_BYTES: Final = 1024 * 1024


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

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self._lock_fd = lock_fd
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._serve, name=f"sqlite {path}", daemon=True)
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
    async def open(cls, path: Path) -> Self:
        """Opens or creates the database and its directory.

        Raises:
            StoreLocked: Another process has it open.
            StoreMismatch: The file is a database of something else.
            CorruptJournal: The file is no database.
            Rejected: The path cannot be used.
        """
        connection = cls(path, _lock(path))
        connection._thread.start()
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
            self._queue.put(work)
        return await future

    async def close(self) -> None:
        """Commits what waits, closes and unlocks. Idempotent; cancellation does not stop it."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        await asyncio.shield(self._ended)
        # It has said that it is done; what is left of it takes no time.
        self._thread.join()

    # ---- the thread -----------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            self._connection = self._connect()
            self._tell(_settle_end, self._opened, None)
            self._work(self._connection)
        except TenureError as error:
            self._fail(error)
        except sqlite3.Error as error:
            self._fail(self._judge(error))
        finally:
            self._end()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            self._configure(connection)
        except BaseException:
            connection.close()
            raise
        self._fill_reserve()
        return connection

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
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        if found != APPLICATION_ID:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def _work(self, connection: sqlite3.Connection) -> None:
        closing = False
        while not closing:
            try:
                work = self._queue.get(timeout=_IDLE_S if self._wal_bytes else None)
            except queue.Empty:
                if self._wal_bytes >= _CHECKPOINT_IDLE_BYTES:
                    self._checkpoint(connection)
                # Less than that is left for later: from here on, sleep until there is work.
                work = self._queue.get()
            group: list[_Work] = []
            while work is not None and len(group) < _GROUP_MAX:
                group.append(work)
                if self._queue.empty():
                    break
                work = self._queue.get()
            closing = work is None
            if group:
                self._untold = group
                self._commit(connection, group)
            if self._wal_bytes >= _CHECKPOINT_BYTES:
                self._checkpoint(connection)

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
        self._tell(_settle, group)

    def _attempt_without_space(
        self, connection: sqlite3.Connection, group: list[_Work]
    ) -> TenureError | None:
        # A checkpoint lets the WAL start over in the space it already has.
        self._checkpoint(connection)
        failure = self._attempt(connection, group)
        if isinstance(failure, StoreFull) and group[0].frees:
            self._reserve.unlink(missing_ok=True)
            failure = self._attempt(connection, group)
            self._checkpoint(connection)
            self._fill_reserve()
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

    @property
    def _reserve(self) -> Path:
        return self.path.with_name(self.path.name + ".reserve")

    def _fill_reserve(self) -> None:
        try:
            with self._reserve.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)
        except OSError:
            # No space for a reserve: without one a truncation waits until space is freed.
            self._reserve.unlink(missing_ok=True)

    def _fail(self, error: TenureError) -> None:
        with self._admission:
            self._failure = error
        self._tell(_settle_end, self._opened, _again(error))

    def _end(self) -> None:
        with self._admission:
            if self._failure is None:
                self._failure = StoreIoError(
                    f"expected to use the store {self.path}, but its thread has ended",
                    reason=Reason.STORE_IO,
                )
            left = self._untold
            while not self._queue.empty():
                work = self._queue.get()
                if work is not None:
                    left.append(work)
        for work in left:
            work.error = _again(self._failure)
        self._tell(_settle, left)
        if self._connection is not None:
            # Closing checkpoints. On a full or broken disk the WAL stays for the next open.
            with suppress(sqlite3.Error):
                self._connection.close()
        os.close(self._lock_fd)
        self._tell(_settle_end, self._ended, None)

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        # A loop that was closed has nobody left to tell.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *args)


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


def _lock(path: Path) -> int:
    """Creates the directory and takes the lock; returns the descriptor that holds it."""
    side = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a directory")
        descriptor = os.open(side, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Rejected(
            f"expected to keep the store in {path}, but {error.strerror or error}; name a file in"
            " a directory that this user can write to",
            reason=Reason.INVALID_ARGUMENT,
            metadata={"path": str(path)},
            field="store",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise StoreLocked(
            f"expected to open the store {path}, but process {holder} has it open; stop that"
            " master, or give this one a store of its own",
            reason=Reason.STORE_LOCKED,
            metadata={"path": str(path), "pid": holder},
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
