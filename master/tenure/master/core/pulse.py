"""The pulse of a queue: how much of it was granted and ended lately, and how long that ran.

A window of a minute (``core.window``). Volatile: a new term knows nothing yet.
"""

from typing import Final

from tenure.master.core.record import JobRecord
from tenure.master.core.window import BUCKETS, Window
from tenure.protocol.vocabulary import AttemptOutcome

_LOST: Final = AttemptOutcome.LOST
_SPAN_MS: Final = 60_000
BUCKET_MS: Final = _SPAN_MS // BUCKETS
#: From less nothing follows: a few grants that came at once would promise thousands a second.
_SERVED_MIN: Final = 5
_SERVED_MS_MIN: Final = 1_000
#: Places in a bucket.
_GRANTED, _ENDED, _RUNS, _RUN_MS, _SERVED, _SERVED_MS = range(1, 7)


class Pulse:
    """What happened to a queue's jobs in the last minute."""

    __slots__ = ("_since_ms", "_waits_from_ms", "_window")

    def __init__(self) -> None:
        #: Granted, ended, runs and their time; granted while jobs waited, and how long they did.
        self._window = Window(_SPAN_MS, 6)
        #: When something first happened; 0: nothing has.
        self._since_ms = 0
        #: From when on jobs have waited for workers, as far as it is not counted yet; 0: none do.
        self._waits_from_ms = 0

    def turn(self, now_ms: int, *, waits: bool) -> None:
        """From now on jobs wait that a worker could be given, or none do."""
        self._count_wait(now_ms)
        self._waits_from_ms = now_ms if waits else 0

    def granted(self, now_ms: int, jobs: int) -> None:
        """So many jobs were granted."""
        self._since_ms = self._since_ms or now_ms
        self._count_wait(now_ms)
        bucket = self._window.bucket(now_ms)
        bucket[_GRANTED] += jobs
        bucket[_SERVED] += jobs

    def _count_wait(self, now_ms: int) -> None:
        from_ms = self._waits_from_ms
        if from_ms and now_ms > from_ms:
            self._window.bucket(now_ms)[_SERVED_MS] += min(now_ms - from_ms, _SPAN_MS)
            self._waits_from_ms = now_ms

    def ended(self, records: list[JobRecord]) -> None:
        """Attempts of these jobs have ended together."""
        ended_ms = records[0].ended_ms
        self._since_ms = self._since_ms or ended_ms
        bucket = self._window.bucket(ended_ms)
        bucket[_ENDED] += len(records)
        # When a lost one ended, nobody knows.
        run_ms = [
            max(record.ended_ms - record.started_ms, 0)
            for record in records
            if record.started_ms and record.outcome is not _LOST
        ]
        bucket[_RUNS] += len(run_ms)
        bucket[_RUN_MS] += sum(run_ms)

    def rates(self, now_ms: int) -> tuple[float, float]:
        """Grants and endings a second."""
        if not self._since_ms:
            return 0.0, 0.0
        # The oldest bucket goes as a whole: about half of it is still in the last minute.
        known_ms = min(max(now_ms - self._since_ms, BUCKET_MS), _SPAN_MS - BUCKET_MS // 2)
        granted, ended, *_ = self._window.sums(now_ms)
        return granted * 1_000 / known_ms, ended * 1_000 / known_ms

    def service_rate(self, now_ms: int) -> float:
        """Grants a second while jobs waited: what comes of a backlog; 0: too little is known."""
        *_, served, served_ms = self._window.sums(now_ms)
        if self._waits_from_ms:
            served_ms += min(max(now_ms - self._waits_from_ms, 0), _SPAN_MS)
        if served < _SERVED_MIN or served_ms < _SERVED_MS_MIN:
            return 0.0
        return served * 1_000 / served_ms

    def mean_run_ms(self, now_ms: int) -> int:
        """How long an attempt ran; 0: nothing is known."""
        _, _, runs, run_ms, *_ = self._window.sums(now_ms)
        return run_ms // runs if runs else 0
