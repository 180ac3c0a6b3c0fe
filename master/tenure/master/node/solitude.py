"""Notices that workers reach other masters and not this one, which therefore should not lead.

A leader that is cut off from the workers alone keeps its office: the store answers. Its leases
expire, and nothing is granted. The other masters' keys say whether workers are connected there; if
none has been here for two lease TTLs, this master hands its partitions over, and does not campaign
for a while, longer each time, until a worker finds it again.
"""

from typing import Final

from tenure.master.node.hub import WorkerHub
from tenure.master.node.port import Clock
from tenure.master.node.roster import Roster

_BACKOFF_MS: Final = 30_000
_BACKOFF_MS_MAX: Final = 480_000


class Solitude:
    """What one master knows of its workers and of the others'.

    Args:
        roster: Knows how many workers the other masters have.
        hub: This one's workers.
        clock: Read by its boot clock.
        alone_ms: How long it leads without workers while others have some.
    """

    def __init__(self, *, roster: Roster, hub: WorkerHub, clock: Clock, alone_ms: int) -> None:
        self._roster = roster
        self._hub = hub
        self._clock = clock
        self._alone_ms = alone_ms
        #: Since when workers ask others and not this master.
        self._since_ms: int | None = None
        #: Until when it leaves the offices to others.
        self._until_ms = 0
        self._backoff_ms = _BACKOFF_MS

    def look(self) -> bool:
        """Whether this master should hand over what it leads; call it every second or so."""
        now_ms = self._clock.boot_ms()
        if self._hub.links():
            self._since_ms, self._until_ms, self._backoff_ms = None, 0, _BACKOFF_MS
            return False
        if not self._roster.workers_elsewhere():
            self._since_ms = None
            return False
        if self._since_ms is None:
            self._since_ms = now_ms
        return now_ms - self._since_ms >= self._alone_ms

    def resign(self) -> None:
        """Begins the time in which this master campaigns for nothing. Once for all partitions."""
        now_ms = self._clock.boot_ms()
        if now_ms >= self._until_ms:
            self._until_ms = now_ms + self._backoff_ms
            self._backoff_ms = min(2 * self._backoff_ms, _BACKOFF_MS_MAX)

    def abstains(self) -> bool:
        """Whether the offices are left to others now: they are there, and workers ask them."""
        return (
            self._clock.boot_ms() < self._until_ms
            and not self._hub.links()
            and self._roster.workers_elsewhere()
        )
