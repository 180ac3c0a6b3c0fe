"""Windows: what happened lately, in whole numbers.

A ring of buckets, each a part of the window; what is older is forgotten a bucket at a time. All of
them are volatile: a new term knows nothing yet.
"""

from typing import Final

#: A window is forgotten in so many parts.
BUCKETS: Final = 12


class Window:
    """Sums of what happened in the last ``span_ms``, kept in so many places.

    A time belongs to it as long as its bucket is one of the newest ``BUCKETS``: so between eleven
    and twelve twelfths of the span are known.
    """

    __slots__ = ("_buckets", "_places", "bucket_ms")

    bucket_ms: int

    def __init__(self, span_ms: int, places: int) -> None:
        self.bucket_ms = max(-(-span_ms // BUCKETS), 1)
        self._places = places
        #: A place is None, or [number of the bucket, sums].
        self._buckets: list[list[int] | None] = [None] * BUCKETS

    def bucket(self, now_ms: int) -> list[int]:
        """The sums of the bucket of this time, to be added to; the first is its number."""
        number = now_ms // self.bucket_ms
        bucket = self._buckets[number % BUCKETS]
        if bucket is None or bucket[0] != number:
            bucket = self._buckets[number % BUCKETS] = [number, *[0] * self._places]
        return bucket

    def sums(self, now_ms: int) -> list[int]:
        """What the window knows, by place."""
        oldest = now_ms // self.bucket_ms - BUCKETS
        recent = [b for b in self._buckets if b is not None and b[0] > oldest]
        return [sum([bucket[place] for bucket in recent]) for place in range(1, self._places + 1)]
