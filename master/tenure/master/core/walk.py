"""Walks: where a decision is in a lane, and what it has taken of it; the lane stays as it is.

Each gives the jobs of its lane in order, those that have committed; which kind of walk it is says
how the lane is kept. A decision makes many of them, and most give a job or two.
"""

from bisect import bisect_left
from heapq import heappop, heappush
from itertools import count
from operator import attrgetter
from typing import Final, TypeAlias

from tenure.master.core.ready import CLASS, Lane
from tenure.master.core.record import JobRecord
from tenure.master.core.segment import Segment

_ORDINAL: Final = attrgetter("ordinal")


class SoleWalk:
    """Where a decision is in a lane with a single job, as those of limit keys often are."""

    __slots__ = ("_segment", "front")

    #: The (key, ordinal) of its next job; None: it has no more.
    front: tuple[int, int] | None

    def __init__(self, lane: Lane, committed_seq: int) -> None:
        self._segment = segment = lane.row[0]
        self.front = (segment.at_ms, segment.ordinal) if segment.seq <= committed_seq else None

    def take(self, limit: int, bound: tuple[int, int]) -> list[JobRecord]:
        """The job; whoever may take any may take it."""
        self.front = None
        return [self._segment.records[self._segment.next]]


class RowWalk:
    """As ``SoleWalk``, of a lane that is but a row: its jobs in order that have committed."""

    __slots__ = ("_committed_seq", "_is_whole", "_position", "_segment", "_segments", "front")

    front: tuple[int, int] | None

    def __init__(self, lane: Lane, committed_seq: int) -> None:
        self._segments = iter(lane.row)
        self._committed_seq = committed_seq
        #: Whether none of its jobs has left.
        self._is_whole = not lane.gone
        self._see()

    def _see(self) -> None:
        """Goes on to the next segment that has something."""
        for segment in self._segments:
            # One event wrote a segment, so all of it has committed or nothing.
            if segment.seq > self._committed_seq:
                continue
            if self._is_whole:
                # Its first job is there: nobody need look at it before it is taken.
                self._segment, self._position = segment, segment.next
                self.front = (segment.at_ms, segment.ordinal)
                return
            if self._go_on(segment, segment.next):
                return
        self.front = None

    def _go_on(self, segment: Segment, position: int) -> bool:
        """Goes on in a segment; False: it has no more."""
        position = _next_in(segment, position)
        if position < 0:
            return False
        self._segment, self._position = segment, position
        self.front = (segment.at_ms, segment.records[position].ordinal)
        return True

    def take(self, limit: int, bound: tuple[int, int]) -> list[JobRecord]:
        """Up to ``limit`` jobs from its front on that come before ``bound``."""
        segment, position = self._segment, self._position
        if not self._is_whole:
            run, position = _run_of(segment, position, limit, bound)
            if not self._go_on(segment, position):
                self._see()
            return run
        records = segment.records
        run = records[position : position + limit]
        if bound[0] == segment.at_ms and run[-1].ordinal >= bound[1]:
            # The first one is taken whatever the bound is.
            del run[max(bisect_left(run, bound[1], key=_ORDINAL), 1) :]
        position += len(run)
        if position < len(records):
            self._position = position
            self.front = (segment.at_ms, records[position].ordinal)
        else:
            self._see()
        return run


class MergeWalk:
    """As ``RowWalk``, of a lane that has jobs which came out of order, too."""

    __slots__ = ("_committed_seq", "_frontier", "_heap", "_row", "_ties")

    def __init__(self, lane: Lane, committed_seq: int) -> None:
        self._row = RowWalk(lane, committed_seq)
        self._heap = lane.heap
        self._committed_seq = committed_seq
        #: (key, ordinal, tie-break, segment, position in it, its index in the heap if it was not
        #: looked at, else -1).
        self._frontier: list[tuple[int, int, int, Segment, int, int]] = []
        self._ties = count()
        self._see(0)

    def _see(self, node: int) -> None:
        if node < len(self._heap):
            key, ordinal, _, segment = self._heap[node]
            step = (key, ordinal, next(self._ties), segment, segment.next, node)
            heappush(self._frontier, step)

    def _heap_front(self) -> tuple[int, int] | None:
        frontier = self._frontier
        while frontier:
            key, ordinal, _, segment, position, node = frontier[0]
            if node < 0:
                return key, ordinal
            heappop(frontier)
            self._see(2 * node + 1)
            self._see(2 * node + 2)
            if segment.seq <= self._committed_seq:
                self._go_on(segment, position)
        return None

    def _go_on(self, segment: Segment, position: int) -> None:
        position = _next_in(segment, position)
        if position >= 0:
            step = (segment.at_ms, segment.records[position].ordinal, next(self._ties))
            heappush(self._frontier, (*step, segment, position, -1))

    @property
    def front(self) -> tuple[int, int] | None:
        """The (key, ordinal) of its next job; None: it has no more."""
        of_row, of_heap = self._row.front, self._heap_front()
        if of_row is None or of_heap is None:
            return of_heap if of_row is None else of_row
        return min(of_row, of_heap)

    def take(self, limit: int, bound: tuple[int, int]) -> list[JobRecord]:
        """Up to ``limit`` jobs from its front on that come before ``bound``."""
        of_row, of_heap = self._row.front, self._heap_front()
        if of_heap is None or (of_row is not None and of_row < of_heap):
            return self._row.take(limit, bound if of_heap is None else min(of_heap, bound))
        _, _, _, segment, position, _ = heappop(self._frontier)
        other = self._heap_front() or bound
        run, position = _run_of(segment, position, limit, min(other, of_row or bound, bound))
        self._go_on(segment, position)
        return run


def _next_in(segment: Segment, position: int) -> int:
    """The place of a segment's next job from a position on; -1: it has no more."""
    records, seq = segment.records, segment.seq
    end = len(records)
    while position < end:
        if records[position].seq == seq:
            return position
        position += 1
    return -1


def _run_of(
    segment: Segment, position: int, limit: int, bound: tuple[int, int]
) -> tuple[list[JobRecord], int]:
    """Up to ``limit`` jobs of a segment that come before ``bound``, and where they end."""
    records, seq = segment.records, segment.seq
    # Inside a segment the key is the same, so only ordinals decide who comes first.
    last = bound[1] if bound[0] == segment.at_ms else CLASS
    run: list[JobRecord] = []
    end = len(records)
    while position < end:
        record = records[position]
        if record.seq == seq:
            if (record.ordinal >= last and run) or len(run) == limit:
                break
            run.append(record)
        position += 1
    return run, position


#: Where a decision is in a lane.
Walk: TypeAlias = SoleWalk | RowWalk | MergeWalk


def walk_of(lane: Lane, committed_seq: int) -> Walk:
    """The begin of a lane with jobs; only those last written at or before that seq are seen."""
    if lane.heap:
        return MergeWalk(lane, committed_seq)
    if lane.ready == 1:
        return SoleWalk(lane, committed_seq)
    return RowWalk(lane, committed_seq)
