"""Time: the machine's clocks, and the term clock that the core lives by."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Final

from tenure.master.node.port import Clock

_SLEW_DIVISOR: Final = 100


class SystemClock:
    """The machine's own clocks."""

    def boot_ms(self) -> int:
        """CLOCK_BOOTTIME in milliseconds."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def wall_ms(self) -> int:
        """UTC since the Unix epoch in milliseconds."""
        return time.time_ns() // 1_000_000

    async def sleep(self, ms: int) -> None:
        """Sleeps on the event loop's clock."""
        await asyncio.sleep(ms / 1000)


class TermClock:
    """The clock of one term: starts no earlier than anything journaled, never runs back.

    It starts at max(last journaled stamp, median wall of the live masters) and runs by
    CLOCK_BOOTTIME, slewed by at most 1 % toward that median: a wall clock that jumps moves no
    deadline, and a failover between skewed masters never takes time back.

    Args:
        clock: The machine's clocks.
        stamp_ms: The highest time in the journal.
        walls_ms: The wall clocks of the live masters, this one's included: each somewhere between
            what it shows and what this one's does, so that the term's time is within them all.
    """

    def __init__(self, clock: Clock, *, stamp_ms: int, walls_ms: Sequence[int]) -> None:
        self._clock = clock
        self._boot_ms = clock.boot_ms()
        self._base_ms = max(stamp_ms, int(statistics.median(walls_ms or [clock.wall_ms()])))
        #: How far the median was ahead when the clock was last set.
        self._off_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, by the term."""
        return self._at(self._clock.boot_ms())

    def _at(self, boot_ms: int) -> int:
        since_ms = boot_ms - self._boot_ms
        reach_ms = since_ms // _SLEW_DIVISOR
        return self._base_ms + since_ms + max(-reach_ms, min(reach_ms, self._off_ms))

    def slew(self, walls_ms: Sequence[int]) -> int:
        """From now on approaches the median of the walls, by at most 1 % of the time that passes.

        Returns:
            How far the median is ahead of this clock, in milliseconds.
        """
        boot_ms = self._clock.boot_ms()
        now_ms = self._at(boot_ms)
        self._boot_ms, self._base_ms = boot_ms, now_ms
        self._off_ms = int(statistics.median(walls_ms)) - now_ms
        return self._off_ms
