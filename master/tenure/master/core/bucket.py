"""Token buckets: so many grants in a time, in whole numbers, so that nothing is rounded away.

A bucket fills by ``count`` tokens every ``per_ms`` up to ``burst``, and each grant takes one. What
it holds is kept in units of 1 / per_ms tokens: each millisecond brings ``count`` of them, and a
grant takes ``per_ms``. Buckets are a term's own: all are empty when it begins, since what the last
leader granted at its end nobody may know.
"""

from tenure.master.core.settings import RateLimit


class Bucket:
    """A token bucket, as of the last time that it was charged."""

    __slots__ = ("_at_ms", "_level", "rate")

    rate: RateLimit

    def __init__(self, rate: RateLimit, empty_ms: int) -> None:
        """Makes a bucket that was empty at a time."""
        self.rate = rate
        self._level = 0
        self._at_ms = empty_ms

    def _level_at(self, now_ms: int) -> int:
        rate = self.rate
        gained = max(now_ms - self._at_ms, 0) * rate.count
        return min(self._level + gained, rate.burst * rate.per_ms)

    def room(self, now_ms: int) -> int:
        """How many grants there are tokens for."""
        return max(self._level_at(now_ms) // self.rate.per_ms, 0)

    def charge(self, grants: int, now_ms: int) -> None:
        """Takes tokens. Time never runs back."""
        self._level = self._level_at(now_ms) - grants * self.rate.per_ms
        self._at_ms = max(self._at_ms, now_ms)

    def next_ms(self) -> int:
        """When there is a token, or was first after the last charge."""
        missing = self.rate.per_ms - self._level
        return self._at_ms + max(-(-missing // self.rate.count), 0)

    def is_full(self, now_ms: int) -> bool:
        """Whether it holds all that it can."""
        return self._level_at(now_ms) == self.rate.burst * self.rate.per_ms
