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

    def boot_ms(self) -> int:
        return _now_ms() + self.boot_offset_ms

    def wall_ms(self) -> int:
        return self._wall_origin_ms + _now_ms() + self.wall_skew_ms

    async def sleep(self, ms: int) -> None:
        await asyncio.sleep(ms / 1000)


def _now_ms() -> int:
    # Rounded at the microsecond first: 0.3 s as a sum of floats may be a hair short of 300 ms.
    return round(asyncio.get_running_loop().time() * 1_000_000) // 1000
