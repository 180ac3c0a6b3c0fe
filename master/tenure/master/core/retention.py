"""Finished jobs: kept in order of their ends, purged by age and by count.

There are two shelves: COMPLETED and CANCELLED jobs on one, FAILED ones (the dead letters) on the
other. Jobs with a result TTL of their own wait for their timer instead of the shelf's age, but they
count like the others.
"""

from collections import deque
from collections.abc import Iterable, Set
from heapq import merge
from itertools import takewhile
from operator import attrgetter
from typing import Final

from tenure.master.core.config import Retention
from tenure.master.core.record import JobRecord
from tenure.master.core.segment import Segment
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import JobState

#: Entries of jobs that have left are dropped when there are this many more of them than jobs.
_GONE_MAX: Final = 1_024


class Shelf:
    """One kind of finished jobs, oldest first."""

    __slots__ = ("_age_ms", "_entries", "_jobs_max", "_own", "_plain", "_states", "parked")

    def __init__(self, states: tuple[JobState, ...], age_ms: int, jobs_max: int) -> None:
        self._states = states
        self._age_ms = age_ms
        self._jobs_max = jobs_max
        #: Jobs that the shelf's age purges, and jobs with a TTL of their own.
        self._plain: deque[Segment] = deque()
        self._own: deque[Segment] = deque()
        #: Jobs in all segments, those that have left included.
        self._entries = 0
        #: Jobs whose time is over, and that a child needs which has not ended.
        self.parked: dict[JobId, None] = {}

    def park(self, job_ids: Set[JobId]) -> None:
        """Puts jobs aside that are due, and pinned."""
        for fifo in (self._plain, self._own):
            for segment in fifo:
                here = [record for record in segment.left() if record.job_id in job_ids]
                if not here:
                    continue
                self._entries -= len(here)
                # A new list: the event's others may have the old one.
                segment.records = [r for r in segment.records if r.job_id not in job_ids]
                segment.next = 0
                self.parked.update((record.job_id, None) for record in here)
                if job_ids <= self.parked.keys():
                    return

    def unpark(self, record: JobRecord) -> None:
        """Nothing pins a job any more: if it was put aside, it is the next to be purged."""
        if record.job_id in self.parked:
            del self.parked[record.job_id]
            fifo = self._own if record.policy.result_ttl_ms else self._plain
            fifo.appendleft(Segment(record.ended_ms, record.seq, [record]))
            self._entries += 1

    def push(self, at_ms: int, seq: int, records: list[JobRecord]) -> None:
        """Adds jobs that one event ended."""
        own = [record for record in records if record.policy.result_ttl_ms]
        plain = records
        if own:
            plain = [record for record in records if not record.policy.result_ttl_ms]
            self._own.append(Segment(at_ms, seq, own))
        if plain:
            self._plain.append(Segment(at_ms, seq, plain))
        self._entries += len(records)

    def settle(self, counts: list[int]) -> None:
        """Call when jobs have left: drops them from the front."""
        for fifo in (self._plain, self._own):
            while fifo:
                fifo[0].skip_gone()
                if not fifo[0].is_over:
                    break
                self._entries -= len(fifo.popleft().records)
        if self._entries > 2 * self._size(counts) + _GONE_MAX:
            self._compact()

    def next_ms(self, counts: list[int]) -> int | None:
        """When something is to be purged; 0: at once."""
        if self._size(counts) > self._jobs_max:
            return 0
        return self._plain[0].at_ms + self._age_ms if self._plain else None

    def due(self, counts: list[int], now_ms: int, limit: int) -> list[JobRecord]:
        """What is to be purged, oldest first; changes nothing."""
        surplus = self._size(counts) - self._jobs_max
        segments: Iterable[Segment]
        if surplus > 0:
            segments = merge(self._plain, self._own, key=attrgetter("at_ms"))
            limit = min(limit, surplus)
        else:
            horizon = now_ms - self._age_ms
            segments = takewhile(lambda segment: segment.at_ms <= horizon, self._plain)
        found: list[JobRecord] = []
        for segment in segments:
            if len(found) == limit:
                break
            found += segment.left()[: limit - len(found)]
        return found

    def _size(self, counts: list[int]) -> int:
        return sum(counts[state] for state in self._states) - len(self.parked)

    def _compact(self) -> None:
        self._entries = 0
        for fifo in (self._plain, self._own):
            for _ in range(len(fifo)):
                segment = fifo.popleft()
                left = segment.left()
                if left:
                    fifo.append(Segment(segment.at_ms, segment.seq, left))
                    self._entries += len(left)


class Finished:
    """All finished jobs of a partition."""

    __slots__ = ("_dead", "_done")

    def __init__(self, retention: Retention) -> None:
        self._done = Shelf(
            (JobState.COMPLETED, JobState.CANCELLED),
            retention.completed_ms,
            retention.completed_max,
        )
        self._dead = Shelf((JobState.FAILED,), retention.failed_ms, retention.failed_max)

    def push(self, state: JobState, at_ms: int, seq: int, records: list[JobRecord]) -> None:
        """Adds jobs that one event brought to this terminal state."""
        shelf = self._dead if state is JobState.FAILED else self._done
        shelf.push(at_ms, seq, records)

    def park(self, records: Iterable[JobRecord], counts: list[int]) -> None:
        """Puts jobs aside that are due, and pinned by children that have not ended."""
        dead, done = set[JobId](), set[JobId]()
        for record in records:
            (dead if record.state is JobState.FAILED else done).add(record.job_id)
        if done:
            self._done.park(done)
        if dead:
            self._dead.park(dead)
        self.settle(counts)

    def unpark(self, record: JobRecord) -> None:
        """Nothing pins a finished job any more."""
        (self._dead if record.state is JobState.FAILED else self._done).unpark(record)

    def leave(self, record: JobRecord, state: JobState) -> None:
        """A job that was finished goes on: it is not aside, either."""
        (self._dead if state is JobState.FAILED else self._done).parked.pop(record.job_id, None)

    def settle(self, counts: list[int]) -> None:
        """Call when jobs were purged or requeued; ``counts`` are all jobs by state."""
        self._done.settle(counts)
        self._dead.settle(counts)

    def next_ms(self, counts: list[int]) -> int | None:
        """When something is to be purged; 0: at once; None: nothing waits."""
        done, dead = self._done.next_ms(counts), self._dead.next_ms(counts)
        if done is None or dead is None:
            return dead if done is None else done
        return min(done, dead)

    def due(self, counts: list[int], now_ms: int, limit: int) -> list[JobRecord]:
        """What is to be purged now, at most ``limit`` jobs."""
        done = self._done.due(counts, now_ms, limit)
        return done + self._dead.due(counts, now_ms, limit - len(done))
