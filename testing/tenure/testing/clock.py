"""The clock port on a loop's time, with a wall clock that tests may bend."""

import asyncio
from typing import Final

#: Where simulated wall clocks start: 2026-01-01T00:00:00Z.
WALL_ORIGIN_MS: Final = 1_767_225_600_000


class SimClock:
    """One machine's clocks: the same time for all, but for what is set here.

    Attributes:
        wall_skew_ms: How far this machine's wall clock is ahead; set it to make the clock jump.
        boot_offset_ms: What its boot clock is ahead: the time it has slept through; only raise it.
    """

    def __init__(self, *, wall_skew_ms: int = 0, wall_origin_ms: int = WALL_ORIGIN_MS) -> None:
        self.wall_skew_ms = wall_skew_ms
        self.boot_offset_ms = 0
        self._wall_origin_ms = wall_origin_ms
        self._rate = 1.0
        #: Where the clock stood, and the loop's time, when the rate was last set.
        self._base_us = 0
        self._since_us = 0

    def drift(self, rate: float) -> None:
        """From now on, the clocks run so many times as fast as they should."""
        now_us = _now_us()
        self._base_us, self._since_us, self._rate = self._shown_us(now_us), now_us, rate

    def boot_ms(self) -> int:
        return self._shown_us(_now_us()) // 1000 + self.boot_offset_ms

    def wall_ms(self) -> int:
        return self._wall_origin_ms + self._shown_us(_now_us()) // 1000 + self.wall_skew_ms

    async def sleep(self, ms: int) -> None:
        await asyncio.sleep(ms / 1000 / self._rate)

    def _shown_us(self, now_us: int) -> int:
        if self._rate == 1.0:
            return self._base_us + now_us - self._since_us
        return self._base_us + round((now_us - self._since_us) * self._rate)


def _now_us() -> int:
    # Rounded at the microsecond: 0.3 s as a sum of floats may be a hair short of 300 ms.
    return round(asyncio.get_running_loop().time() * 1_000_000)
