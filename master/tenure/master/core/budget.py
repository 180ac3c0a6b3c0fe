"""Retry budgets: how much of what a job type is granted may be retries.

In each window at most ``share`` of the grants, but always one, become retries again:

    retries made ready  <=  max(1, share * grants)        (both in the last minute)

A retry whose backoff is over and that would exceed it is put off: to the next of places in time
that are as far apart as the budget lets retries through. Nothing looks at it in between, but when
the budget is raised or taken away, or lets twice as many through as when places were given away:
then it gets an earlier place (``core.postponed``).
"""

from math import ceil
from typing import Final

from tenure.master.core.window import Window

WINDOW_MS: Final = 60_000


class RetryBudget:
    """What a job type's retries have used, and where those stand that were put off."""

    __slots__ = ("_last_ms", "_places", "_share", "_unlooked", "_waits_ms", "_window")

    def __init__(self, share: float) -> None:
        self._share = share
        #: Grants, and retries made ready.
        self._window = Window(WINDOW_MS, 2)
        #: The last place that was given away.
        self._last_ms = 0
        #: Until when retries wait that were put off, some of them maybe by another share.
        self._waits_ms = 0
        #: How many places a window had when the farthest ones were given away.
        self._places = 0
        #: So many more grants, and it is looked whether there are twice as many.
        self._unlooked = 0

    def change(self, share: float) -> None:
        """From now on it is another share; places are given away from now on, too."""
        self._share = share
        self._last_ms = 0

    def granted(self, jobs: int, now_ms: int) -> bool:
        """Jobs were granted, for the first time or again.

        Returns:
            Whether what was put off may come earlier; places are given away from now on then.
        """
        self._window.bucket(now_ms)[1] += jobs
        self._unlooked -= jobs
        if self._unlooked > 0 or self._waits_ms <= now_ms:
            return False
        grants, _ = self._window.sums(now_ms)
        if self._allowed(grants) < 2 * self._places:
            self._unlooked = max(ceil(2 * self._places / self._share) - grants, 1)
            return False
        self._last_ms = self._waits_ms = 0
        return True

    def retried(self, jobs: int, now_ms: int) -> None:
        """Retries were made ready."""
        self._window.bucket(now_ms)[2] += jobs

    def put_off(self, last_ms: int, now_ms: int) -> None:
        """Retries were put off, the last one until then."""
        allowed = self._allowed(self._window.sums(now_ms)[0])
        self._places = min(self._places, allowed) if self._waits_ms > now_ms else allowed
        self._last_ms, self._waits_ms = last_ms, max(self._waits_ms, last_ms)
        self._unlooked = 0

    def begin(self, now_ms: int, *, waits: bool) -> "Budgeting":
        """What may become ready now; ``waits``: whether any retry has a place and waits for it."""
        grants, retries = self._window.sums(now_ms)
        allowed = self._allowed(grants)
        step_ms = ceil(WINDOW_MS / allowed)
        last_ms = max(self._last_ms, now_ms) if waits else now_ms
        return Budgeting(allowed - retries, last_ms, step_ms)

    def _allowed(self, grants: int) -> int:
        """How many retries a window with so many grants may have."""
        return max(int(self._share * grants), 1)


class Budgeting:
    """One decision's use of a budget."""

    __slots__ = ("_room", "_step_ms", "last_ms")

    #: The last place in time that is given away.
    last_ms: int

    def __init__(self, room: int, last_ms: int, step_ms: int) -> None:
        self._room = room
        self.last_ms = last_ms
        self._step_ms = step_ms

    def place_ms(self, own_ms: int | None = None) -> int | None:
        """When one more retry may be looked at again; None: it may become ready now.

        One that has a place of its own keeps it, unless the next one is earlier. What nobody takes
        is not given away: who comes after it stands behind places that somebody waits for.
        """
        if self._room > 0:
            self._room -= 1
            return None
        next_ms = self.last_ms + self._step_ms
        place_ms = next_ms if own_ms is None else min(own_ms, next_ms)
        self.last_ms = max(self.last_ms, place_ms)
        return place_ms
