"""The machine that a simulated master sees: the shipped store runs on it, and on SQLite, unchanged.

SQLite reads and writes the files of a simulated disk through a file system of ours, which ``apsw``
lets one bring; the store's thread is a task, and what the disk takes of its time is virtual.
"""

import asyncio
import queue
import sqlite3
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from errno import EIO
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, cast

import apsw

from tenure.master.backend.errors import StoreLocked
from tenure.master.backend.host import Steps, Thread
from tenure.protocol.refusal import Reason
from tenure.testing.disk import SimDisk, SimFile, locate

W = TypeVar("W")

_VFS: Final = "tenure-simulated"


class _Handle:
    """A file as one process has it open; of no use any more once that process has crashed."""

    def __init__(self, disk: SimDisk, file: SimFile) -> None:
        self._disk = disk
        self._file = file
        self._crashes = disk.crashes

    def _demand(self) -> None:
        if self._crashes != self._disk.crashes:
            raise apsw.exception_for(apsw.SQLITE_IOERR)

    def xRead(self, amount: int, offset: int) -> bytes:
        self._demand()
        return bytes(self._file.content[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        self._demand()
        self._disk.write(self._file, data, offset)

    def xTruncate(self, size: int) -> None:
        self._demand()
        self._disk.truncate(self._file, size)

    def xSync(self, flags: int) -> None:
        self._demand()
        self._disk.sync(self._file)

    def xFileSize(self) -> int:
        self._demand()
        return len(self._file.content)

    def xDeviceCharacteristics(self) -> int:
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE

    def xSectorSize(self) -> int:
        return 4096

    def xFileControl(self, operation: int, pointer: int) -> bool:
        return False

    def xLock(self, level: int) -> None:
        """The store's own lock keeps others out."""

    def xUnlock(self, level: int) -> None:
        """As above."""

    def xCheckReservedLock(self) -> bool:
        return False

    def xClose(self) -> None:
        """Nothing is kept for open files."""


class _FileSystem(apsw.VFS):
    """All simulated disks, for SQLite."""

    def __init__(self) -> None:
        super().__init__(_VFS, "")

    def xOpen(  # type: ignore[override]
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> _Handle:
        if name is None:
            raise apsw.exception_for(apsw.SQLITE_CANTOPEN)
        disk, path = locate(name if isinstance(name, str) else name.filename())
        flags[1] = flags[0]
        return _Handle(disk, disk.create(path))

    def xAccess(self, pathname: str, flags: int) -> bool:
        disk, path = locate(pathname)
        return disk.find(path) is not None

    def xDelete(self, filename: str, syncdir: bool) -> None:
        disk, path = locate(filename)
        disk.delete(path, sync=syncdir)

    def xFullPathname(self, name: str) -> str:
        return name


_FILE_SYSTEM: Final = _FileSystem()


class _Cursor:
    """The result of one statement, as ``sqlite3`` gives it."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows = iter(rows)
        self.rowcount = rowcount

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)


class _Connection:
    """A database on a simulated disk, with as much of ``sqlite3.Connection`` as the store uses."""

    def __init__(self, name: str) -> None:
        self._database = apsw.Connection(name, vfs=_VFS)
        # There is no shared memory, which SQLite needs for a log that several may read.
        self.execute("PRAGMA locking_mode = EXCLUSIVE")

    @property
    def in_transaction(self) -> bool:
        return self._database.in_transaction

    def execute(self, statement: str, values: Any = ()) -> _Cursor:
        try:
            rows = self._database.execute(statement, values).fetchall()
        except apsw.Error as error:
            raise _translated(error) from error
        return _Cursor(rows, self._database.changes())

    def executemany(self, statement: str, rows: Iterable[Any]) -> _Cursor:
        changed = sum(self.execute(statement, values).rowcount for values in rows)
        return _Cursor([], changed)

    def close(self) -> None:
        try:
            self._database.close()
        except apsw.Error as error:
            raise _translated(error) from error


def _translated(error: apsw.Error) -> sqlite3.Error:
    code: int = getattr(error, "extendedresult", apsw.SQLITE_ERROR)
    damaged = code & 0xFF in (apsw.SQLITE_CORRUPT, apsw.SQLITE_NOTADB)
    same = (sqlite3.DatabaseError if damaged else sqlite3.OperationalError)(str(error))
    same.sqlite_errorcode = code
    names = (apsw.mapping_extended_result_codes, apsw.mapping_result_codes)
    same.sqlite_errorname = next((str(n[code]) for n in names if code in n), "SQLITE_ERROR")
    return same


# ---- the machine --------------------------------------------------------------------------------


class SimHost:
    """A process's view of its machine: the disk, and threads that are tasks.

    Args:
        disk: Where its files lie.
        spawn: Starts a task of the process.
    """

    def __init__(
        self,
        disk: SimDisk,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None] | None],
    ) -> None:
        self._disk = disk
        self._spawn = spawn

    def lock(self, path: Path) -> Callable[[], None]:
        disk = self._disk
        if disk.locked:
            raise StoreLocked(
                f"expected to open the store {path}, but another process has it open",
                reason=Reason.STORE_LOCKED,
                metadata={"path": str(path)},
            )
        disk.locked = True
        held = disk.crashes

        def unlock() -> None:
            if disk.crashes == held:
                disk.locked = False

        return unlock

    def connect(self, path: Path) -> sqlite3.Connection:
        return cast(sqlite3.Connection, _Connection(self._disk.address(str(path))))

    def read(self, path: Path) -> bytes:
        file = self._disk.find(str(path))
        return b"" if file is None else bytes(file.content)

    def rewrite(self, path: Path, content: bytes) -> None:
        file = self._disk.create(str(path))
        try:
            self._disk.write(file, content, 0)
            self._disk.sync(file)
        except apsw.Error as error:
            raise OSError(EIO, str(error)) from error

    def keep_reserve(self, path: Path) -> None:
        self._disk.keep_reserve()

    def drop_reserve(self, path: Path) -> None:
        self._disk.drop_reserve()

    def thread(self, name: str) -> Thread[W]:
        return _TaskThread(self._disk, self._spawn, name)


class _TaskThread(Generic[W]):
    """A thread that is a task: while the disk works for it, virtual time passes."""

    def __init__(
        self,
        disk: SimDisk,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None] | None],
        name: str,
    ) -> None:
        self._disk = disk
        self._spawn = spawn
        self._name = name
        self._items: deque[W] = deque()
        self._filled = asyncio.Event()
        #: Callbacks, and when they are due.
        self._told: deque[tuple[float, Callable[..., None], tuple[object, ...]]] = deque()

    def start(self, steps: Steps[W]) -> None:
        self._spawn(self._run(steps), self._name)

    def put(self, item: W) -> None:
        self._items.append(item)
        self._filled.set()

    def take(self) -> W:
        if not self._items:
            raise queue.Empty
        return self._items.popleft()

    def tell(self, callback: Callable[..., None], *args: object) -> None:
        self._told.append((self._disk.now_s(), callback, args))

    def join(self) -> None:
        """It has ended when its steps have."""

    async def _run(self, steps: Steps[W]) -> None:
        crashes = self._disk.crashes
        try:
            timeout_s = next(steps)
            while True:
                await self._catch_up()
                await self._wait(timeout_s)
                if self._items:
                    timeout_s = steps.send(self._items.popleft())
                else:
                    timeout_s = steps.throw(queue.Empty())
        except StopIteration:
            await self._catch_up()
        finally:
            steps.close()
            if self._disk.crashes == crashes:
                for _, callback, args in self._told:
                    callback(*args)

    async def _catch_up(self) -> None:
        """Lets the time pass that the disk took for the last step."""
        loop = asyncio.get_running_loop()
        while self._told:
            due_s, callback, args = self._told[0]
            if due_s > loop.time():
                await asyncio.sleep(due_s - loop.time())
            self._told.popleft()
            callback(*args)
        left_s = self._disk.now_s() - loop.time()
        if left_s > 0:
            await asyncio.sleep(left_s)

    async def _wait(self, timeout_s: float | None) -> None:
        self._filled.clear()
        if self._items:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._filled.wait()
        except TimeoutError:
            return


def ask(disk: SimDisk, path: Path, query: str, *values: object) -> list[Any]:
    """Reads a database from a copy of the disk: the rows of one statement."""
    copy = disk.copy()
    database = _Connection(copy.address(str(path)))
    try:
        return database.execute(query, values).fetchall()
    finally:
        database.close()
