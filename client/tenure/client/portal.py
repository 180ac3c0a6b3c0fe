"""How code that is not async runs coroutines: on an event loop of their own, and waits for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, Protocol, TypeVar

from tenure.client import fork
from tenure.client.context import current_job
from tenure.protocol.errors import Rejected, TenureError, Unavailable
from tenure.protocol.refusal import Reason

T = TypeVar("T")


class Portal(Protocol):
    """The way to an event loop. ``tenure.testing`` has another, to a loop on virtual time."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine over there and waits for it. An interrupt here cancels it there."""
        ...

    def run_wait(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """The same for what may take as long as another job does.

        Args:
            work: What to run.
            timeout_s: After so long it ends by itself; None: it may wait for ever.
        """
        ...

    def wind_up(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs what ends something that is given up, if it can be run, and waits if that may be.

        The collector gives things up, too, in any thread: in ours nothing may wait for ours.
        """

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs a last coroutine, if any was run, and ends the loop. Idempotent."""


class ThreadPortal:
    """An event loop in a thread, and the way to run coroutines on it from other threads.

    The thread starts with the first of them, so a client that is made before a fork works after it.
    """

    def __init__(self) -> None:
        # The collector may end an iterator of ours in a thread that has the lock.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._closed = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            future = self._schedule(work)
        except TenureError:
            work.close()
            raise
        try:
            return future.result()
        except CancelledError:
            # Nobody cancels it but the end of the loop.
            raise _closed() from None
        except BaseException:
            future.cancel()
            raise

    def run_wait(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        if current_job().id and _in_loop():
            work.close()
            raise Rejected(
                "expected a coroutine job to wait with AsyncClient: with Client it would hold up "
                "the worker's other coroutine jobs, perhaps the one it waits for",
                reason=Reason.INVALID_ARGUMENT,
            )
        return self.run(work)

    def wind_up(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            if threading.current_thread() is self._thread:
                self._schedule(work)
            else:
                self.run(work)
        except TenureError:
            work.close()  # The client is closed already, and its tasks with it; or this is a fork.

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._thread is not None:
            try:
                fork.claim()
            except Rejected:
                return  # After a fork nothing of ours is left to end, and the lock may stay held.
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._thread is None or self._loop is None or self._stop is None:
                return
            if threading.current_thread() is self._thread:
                # The collector found the client over there, where nothing may wait for its end.
                self._stop.set()
                return
            future = asyncio.run_coroutine_threadsafe(last(), self._loop)
        try:
            future.result()
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _schedule(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        fork.claim()
        # Under the lock nothing is scheduled behind the last coroutine, where it might never run.
        with self._lock:
            if self._closed:
                raise _closed()
            return asyncio.run_coroutine_threadsafe(work, self._loop or self._start())

    def _start(self) -> asyncio.AbstractEventLoop:
        started = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(started)), name="tenure-client", daemon=True
        )
        self._thread.start()
        started.wait()
        if self._loop is None:
            raise TenureError("expected the client's thread to start, but it did not")
        return self._loop

    async def _main(self, started: threading.Event) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        started.set()
        await self._stop.wait()


def _closed() -> Unavailable:
    return Unavailable(
        "expected an open client, but it was closed; make a new one", reason=Reason.UNREACHABLE
    )


def _in_loop() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
