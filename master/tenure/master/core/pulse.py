"""The pulse of a queue: how much of it was granted and ended lately, and how long that ran.

A ring of buckets, each of a few seconds; what is older than the ring is forgotten. Volatile: a new
term knows nothing yet.
"""

from typing import Final

from tenure.master.core.record import JobRecord
from tenure.protocol.vocabulary import AttemptOutcome

BUCKET_MS: Final = 5_000
BUCKETS: Final = 12
_SPAN_MS: Final = BUCKET_MS * BUCKETS


class Pulse:
    """What happened to a queue's jobs in the last minute."""

    __slots__ = ("_buckets", "_since_ms")

    def __init__(self) -> None:
        #: A place is None, or [number of the bucket, granted, ended, runs, their time].
        self._buckets: list[list[int] | None] = [None] * BUCKETS
        #: When something first happened; 0: nothing has.
        self._since_ms = 0

    def granted(self, now_ms: int, jobs: int) -> None:
        """So many jobs were granted."""
        self._bucket(now_ms)[1] += jobs

    def ended(self, records: list[JobRecord]) -> None:
        """Attempts of these jobs have ended together."""
        bucket = self._bucket(records[0].ended_ms)
        bucket[2] += len(records)
        for record in records:
            # When a lost one ended, nobody knows.
            if record.started_ms and record.outcome is not AttemptOutcome.LOST:
                bucket[3] += 1
                bucket[4] += max(record.ended_ms - record.started_ms, 0)

    def rates(self, now_ms: int) -> tuple[float, float]:
        """Grants and endings a second."""
        if not self._since_ms:
            return 0.0, 0.0
        # The oldest bucket goes as a whole: about half of it is still in the last minute.
        known_ms = min(max(now_ms - self._since_ms, BUCKET_MS), _SPAN_MS - BUCKET_MS // 2)
        _, granted, ended, _, _ = self._sums(now_ms)
        return granted * 1_000 / known_ms, ended * 1_000 / known_ms

    def mean_run_ms(self, now_ms: int) -> int:
        """How long an attempt ran; 0: nothing is known."""
        _, _, _, runs, run_ms = self._sums(now_ms)
        return run_ms // runs if runs else 0

    def _bucket(self, now_ms: int) -> list[int]:
        number = now_ms // BUCKET_MS
        bucket = self._buckets[number % BUCKETS]
        if bucket is None or bucket[0] != number:
            bucket = self._buckets[number % BUCKETS] = [number, 0, 0, 0, 0]
            self._since_ms = self._since_ms or now_ms
        return bucket

    def _sums(self, now_ms: int) -> list[int]:
        oldest = now_ms // BUCKET_MS - BUCKETS
        recent = [b for b in self._buckets if b is not None and b[0] > oldest]
        return [sum(bucket[place] for bucket in recent) for place in range(5)]
