"""A task group that is opened by one call and closed by another."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class TaskScope:
    """Owns a client's background tasks.

    ``asyncio.TaskGroup`` must be entered and left by one task, and wraps what the body of its
    ``async with`` raises. A client's users shall meet neither, so one task of ours holds the group.
    """

    def __init__(self) -> None:
        self._early: list[Coroutine[Any, Any, None]] = []
        self._group: asyncio.TaskGroup | None = None
        self._opened = asyncio.Event()
        self._closing = asyncio.Event()
        # The one task without a group: `close` awaits it.
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="tenure-client")

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine until it ends or the scope closes."""
        if self._group is None:
            self._early.append(work)
        else:
            self._group.create_task(work)

    async def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """The same, for a caller who may want to cancel it earlier."""
        await self._opened.wait()
        if self._group is None:
            work.close()
            raise RuntimeError("expected an open scope, but it was closed")
        return self._group.create_task(work)

    async def close(self) -> None:
        """Cancels what runs, waits for its end, and raises what it raised. Idempotent."""
        self._closing.set()
        await self._keeper

    async def _keep(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for work in self._early:
                    group.create_task(work)
                self._early.clear()
                self._opened.set()
                await self._closing.wait()
                raise _Closed
        except* _Closed:
            pass
        finally:
            for work in self._early:
                work.close()


class _Closed(Exception):
    """Makes the group cancel its tasks."""
