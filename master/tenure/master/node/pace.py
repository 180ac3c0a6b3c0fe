"""How long a search may hold up the loop: it looks at a few jobs at once, then others get a turn.

A look costs a third of a microsecond with most filters, and tens of milliseconds with the longest
one and jobs of a thousand labels. So the number of looks between two glances at the clock begins
with one and grows as long as the looks turn out to be cheap.
"""

import asyncio
from collections.abc import Callable
from typing import Final

#: Others get their turn after so long, or after so many looks where time stands still.
_SLICE_MS: Final = 3
_LOOKS_A_SLICE: Final = 5_000
_GROWTH: Final = 4


class Pace:
    """The slices of one search.

    Args:
        now_ms: A clock that goes on while the loop is busy (the loop's own need not).

    Attributes:
        looks: How many jobs to look at before ``rest`` is called.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._since_ms = now_ms()
        self._looked = 0
        self.looks = 1

    async def rest(self) -> None:
        """``looks`` jobs have been looked at: lets others work if that took long enough."""
        self._looked += self.looks
        if self._now_ms() - self._since_ms >= _SLICE_MS:
            self.looks = max(1, self.looks // _GROWTH)
        elif self._looked < _LOOKS_A_SLICE:
            self.looks = min(self.looks * _GROWTH, _LOOKS_A_SLICE - self._looked)
            return
        await asyncio.sleep(0)
        self._since_ms, self._looked = self._now_ms(), 0
