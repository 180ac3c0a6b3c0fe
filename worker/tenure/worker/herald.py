"""Tells whoever wants to know how this worker process is: once a second, and when it changes."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from tenure.protocol.systemd import Notifier
from tenure.worker import metrics
from tenure.worker.probe import Readiness, Report
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


def to_systemd(notifier: Notifier) -> Listener:
    """Tells systemd when the worker is ready, when it drains, and how it is."""
    told: set[Phase] = set()

    def listen(pulse: Pulse) -> None:
        if pulse.phase not in told:
            told.add(pulse.phase)
            if pulse.phase is Phase.READY:
                notifier.ready()
            elif pulse.phase is Phase.DRAINING:
                notifier.stopping()
        notifier.status(summary(pulse))

    return listen


def summary(pulse: Pulse) -> str:
    """One line for people."""
    if pulse.refusal is not None:
        return f"{pulse.phase}: {pulse.refusal.message}"
    masters = f"{pulse.masters} master{'' if pulse.masters == 1 else 's'}"
    return f"{pulse.phase}, {masters}, {pulse.busy} of {pulse.slots} slots used"


def report(name: str, pulse: Callable[[], Pulse]) -> Report:
    """What probes are told of a worker that has no supervisor."""

    def readiness() -> Readiness:
        now = pulse()
        return Readiness(now.phase is Phase.READY, f"{name}: {summary(now)}\n")

    return Report(readiness, lambda: metrics.of_workers({name: pulse()}))


class Herald:
    """Tells listeners how the process is.

    Args:
        pulse: How it is now.

    Attributes:
        listeners: Who is told.
    """

    def __init__(self, pulse: Callable[[], Pulse]) -> None:
        self.listeners: list[Listener] = []
        self._pulse = pulse
        self._timer: asyncio.TimerHandle | None = None

    def tell(self) -> None:
        """Tells all at once: something has changed."""
        pulse = self._pulse()
        for listener in self.listeners:
            listener(pulse)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tells all again and again for as long as the body runs."""
        self._tick(asyncio.get_running_loop())
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(PULSE_S, self._tick, loop)
        self.tell()
