"""Tells whoever wants to know how this worker process is: once a second, and when it changes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from tenure.worker.pulse import Pulse

#: How often it is told when nothing happens.
PULSE_S: Final = 1.0

#: Is told how the process is; must not block.
Listener = Callable[[Pulse], None]


@asynccontextmanager
async def telling(
    pulse: Callable[[], Pulse], listeners: Sequence[Listener], news: asyncio.Event
) -> AsyncIterator[None]:
    """Tells all listeners for as long as the body runs, and once more at its end.

    Args:
        pulse: How the process is now.
        listeners: Who is told.
        news: Set when that has changed.
    """
    if not listeners:
        yield
        return
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_keep_telling(pulse, listeners, news))
        try:
            yield
        finally:
            task.cancel()


async def _keep_telling(
    pulse: Callable[[], Pulse], listeners: Sequence[Listener], news: asyncio.Event
) -> None:
    while True:
        news.clear()
        said = pulse()
        for listener in listeners:
            listener(said)
        with suppress(TimeoutError):
            async with asyncio.timeout(PULSE_S):
                await news.wait()
