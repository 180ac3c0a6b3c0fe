"""When jobs of a partition started: for how long a change of leaders held them up.

A pause ends with the first start under the token of the next term or of a later one: a term that
starts nothing is passed over, and ends none. In a change that is made in order it begins with the
last start before that, at the latest when the former leader says that it follows: it stops to grant
some time before, and nobody writes down when. So a pause is as long as workers have it, and never
shorter than the time between two starts of the same load without any change.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from tenure.protocol.ids import partition_of
from tests.oracles.facts import token_of
from tests.oracles.history import START, Row


class Pause(NamedTuple):
    """Between two starts; infinity: there was none after."""

    since_ms: float
    until_ms: float

    @property
    def length_ms(self) -> float:
        """How long."""
        return self.until_ms - self.since_ms


class Starts:
    """All starts of a run.

    Args:
        rows: The history, in order.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._starts: defaultdict[int, list[tuple[float, str]]] = defaultdict(list)
        for row in rows:
            if row.f == START:
                start = (row.boottime, token_of(row.lease))
                self._starts[partition_of(row.job)].append(start)

    def first_ms(self, partition: int, token: str, at_ms: float) -> float:
        """The first start under a token or a newer one, after a moment."""
        starts = self._starts[partition]
        later = starts[bisect_left(starts, (at_ms, "")) :]
        return next((ms for ms, under in later if under >= token), inf)

    def count(self, partition: int, since_ms: float, until_ms: float) -> int:
        """How many there were from one moment to another."""
        starts = self._starts[partition]
        return bisect_left(starts, (until_ms, "")) - bisect_left(starts, (since_ms, ""))

    def around(self, partition: int, token: str, at_ms: float) -> Pause:
        """The pause around an orderly change to a token, whose predecessor had ended by then."""
        until_ms = self.first_ms(partition, token, at_ms)
        starts = self._starts[partition]
        before = starts[: bisect_left(starts, (until_ms, ""))]
        since_ms = next((ms for ms, under in reversed(before) if under < token), at_ms)
        return Pause(min(since_ms, at_ms), until_ms)
