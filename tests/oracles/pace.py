"""How quickly things may follow one another after a failover."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

#: What a new leader may grant at once, and at what rate it begins; the rate doubles over the ramp.
_AT_ONCE: Final = 64
_GRANTS_PER_S: Final = 2_000
_RAMP_S: Final = 5.0


def ramp_allows(since_s: float) -> float:
    """How many grants a term may have given so long after its window closed, while it ramps up.

    The rate grows linearly, so their sum grows with the square of the time.
    """
    if since_s >= _RAMP_S:
        return float("inf")
    return _AT_ONCE + _GRANTS_PER_S * since_s * (1 + since_s / _RAMP_S)


def most_within(times: Iterable[float], window: float) -> int:
    """How many moments fall into the fullest window of that length."""
    ordered = sorted(times)
    return max(
        (bisect_right(ordered, time + window) - place for place, time in enumerate(ordered)),
        default=0,
    )
