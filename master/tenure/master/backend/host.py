"""What an open database needs of its machine: its files, its lock, and a thread that waits for it.

The adapter for real machines is here; simulations bring their own, and run the same steps on the
event loop.
"""

import asyncio
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from tenure.master.backend.errors import StoreLocked
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason

W = TypeVar("W")

#: What a thread runs: it yields how long to wait for an item, at most (None: as long as it takes),
#: and is sent the item, or ``queue.Empty`` is thrown in when the time is over.
Steps = Generator[float | None, W, None]

# Given up so that a truncation can still be written when the disk is full.
_RESERVE_BYTES: Final = 1024 * 1024


class Thread(Protocol[W]):
    """Runs steps, and feeds them with items in order."""

    def start(self, steps: Steps[W]) -> None:
        """Begins; called once."""

    def put(self, item: W) -> None:
        """Hands an item in; from the event loop."""

    def take(self) -> W:
        """For the steps: the next item that is there already. Raises ``queue.Empty``."""

    def tell(self, callback: Callable[..., None], *args: object) -> None:
        """For the steps: runs a callback in the event loop; a loop that was closed runs none."""

    def join(self) -> None:
        """Waits for what is left of it once the steps have told that they are over."""


class Host(Protocol):
    """A machine that a database lies on."""

    def lock(self, path: Path) -> Callable[[], None]:
        """Makes the directory, and keeps all others out; returns what lets them in again.

        Raises:
            StoreLocked: Another process has the database open.
            Rejected: The path cannot be used.
        """

    def connect(self, path: Path) -> sqlite3.Connection:
        """Opens the database, in autocommit. Raises ``sqlite3.Error``."""

    def read(self, path: Path) -> bytes:
        """A whole file; empty if there is none. Raises OSError."""

    def rewrite(self, path: Path, content: bytes) -> None:
        """Writes the same bytes to a file again, and returns once they are durable.

        Raises:
            OSError: They may not be.
        """

    def keep_reserve(self, path: Path) -> None:
        """Sets space aside for ``path``, if there is any and none is kept yet."""

    def drop_reserve(self, path: Path) -> None:
        """Frees that space."""

    def thread(self, name: str) -> Thread[W]:
        """A new thread; it does not run yet."""


class _RealThread(Generic[W]):
    """A thread of the system that lives as long as the steps do."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[W] = queue.SimpleQueue()
        self._name = name
        self._thread: threading.Thread | None = None

    def start(self, steps: Steps[W]) -> None:
        self._thread = threading.Thread(
            target=self._run, args=(steps,), name=self._name, daemon=True
        )
        self._thread.start()

    def put(self, item: W) -> None:
        self._queue.put(item)

    def take(self) -> W:
        return self._queue.get_nowait()

    def tell(self, callback: Callable[..., None], *args: object) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *args)

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _run(self, steps: Steps[W]) -> None:
        with suppress(StopIteration):
            timeout_s = next(steps)
            while True:
                try:
                    item = self._queue.get(timeout=timeout_s)
                except queue.Empty as none:
                    timeout_s = steps.throw(none)
                else:
                    timeout_s = steps.send(item)


class RealHost:
    """This machine."""

    def lock(self, path: Path) -> Callable[[], None]:
        descriptor = _lock(path)
        return lambda: os.close(descriptor)

    def connect(self, path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return b""

    def rewrite(self, path: Path, content: bytes) -> None:
        with path.open("r+b") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def keep_reserve(self, path: Path) -> None:
        reserve = _reserve(path)
        try:
            with reserve.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)
        except OSError:
            # No space for a reserve: without one a truncation waits until space is freed.
            reserve.unlink(missing_ok=True)

    def drop_reserve(self, path: Path) -> None:
        _reserve(path).unlink(missing_ok=True)

    def thread(self, name: str) -> Thread[W]:
        return _RealThread(name)


def _reserve(path: Path) -> Path:
    return path.with_name(path.name + ".reserve")


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
    # A disk without space refuses the note; whose lock it is, is only said to people.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
