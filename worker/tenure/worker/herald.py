"""Tells whoever wants to know how this worker process is: once a second, and when it changes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from tenure.worker.pulse import Phase, Pulse

#: How often it is told when nothing happens.
PULSE_S: Final = 1.0
_WORST_FIRST: Final = (Phase.DRAINING, Phase.WAITING, Phase.STARTING, Phase.READY)

#: Is told how the process is; must not block.
Listener = Callable[[Pulse], None]


def of_all(pulses: Sequence[Pulse]) -> Pulse:
    """How a process is that has several nodes: the least advanced of them says where it is."""
    if len(pulses) == 1:
        return pulses[0]
    phases = {pulse.phase for pulse in pulses}
    ended: Counter[str] = Counter()
    for pulse in pulses:
        ended.update(pulse.ended)
    return Pulse(
        phase=next(phase for phase in _WORST_FIRST if phase in phases),
        slots=sum(pulse.slots for pulse in pulses),
        busy=sum(pulse.busy for pulse in pulses),
        backlog=sum(pulse.backlog for pulse in pulses),
        masters=min(pulse.masters for pulse in pulses),
        rss_bytes=max(pulse.rss_bytes for pulse in pulses),
        ended=dict(ended),
    )


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
