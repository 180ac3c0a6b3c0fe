"""The ready order: lanes of PENDING jobs, and the key that orders them.

A job's place in its queue is the static key ``ready_ms + priority * aging_step_ms``; priority 0
comes before all others. So a job is overtaken only by jobs that become ready within
Δpriority × step after it, and no heap is ever rebuilt. Jobs of one queue that the same workers can
run and the same gates hold up form a lane: one job name, priority, limit key (if it may get full:
see ``core.slack``), sticky key and set of wishes for labels. A lane is a row of segments (see
``core.segment``) that came in order, as nearly all do, and a heap of the others.

A queue's order is the merge of its lanes by the smallest key (``core.pick``).
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush, heapreplace
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, TypeAlias

from tenure.master.core.gate import JobType, LimitKey, Queue
from tenure.master.core.record import JobRecord, LabelSelector
from tenure.master.core.segment import Segment

if TYPE_CHECKING:
    from tenure.master.core.skill import Member, QueueShare
    from tenure.master.core.sticky import StickyKey

#: Above every time in milliseconds.
CLASS: Final = 1 << 50
#: Entries of jobs that have left are dropped when there are this many more of them than jobs.
_GONE_MAX: Final = 1_024
#: The same for lanes in a share.
_FRONTS_GONE_MAX: Final = 64

#: (key, ordinal of the first job, seq, segment). Seqs differ where ordinals are equal.
HeapEntry: TypeAlias = tuple[int, int, int, Segment]
#: What tells a lane from the others of its queue: (name, priority, limit key, sticky key), then
#: (required labels, preferred labels) if there are any.
LaneName: TypeAlias = tuple[object, ...]


def _last_place(segment: Segment) -> tuple[int, int]:
    return segment.at_ms, segment.records[-1].ordinal


def order_key(priority: int, ready_ms: int, aging_step_ms: int) -> int:
    """A ready job's place among others of its queue: smaller is earlier; the ordinal breaks ties.

    Without aging priority is strict: first all of one, then all of the next.
    """
    if aging_step_ms == 0:
        return priority * CLASS + ready_ms
    if priority == 0:
        return ready_ms
    return CLASS + ready_ms + priority * aging_step_ms


class Lane:
    """Jobs of one queue that are served and held up together, and who of them is next."""

    __slots__ = (
        "entries",
        "front",
        "gone",
        "heap",
        "is_open",
        "job_type",
        "key",
        "label",
        "name",
        "places",
        "prefers",
        "priority",
        "queue",
        "ready",
        "requires",
        "row",
        "sticky",
    )

    label: LaneName
    key: LimitKey | None
    sticky: "StickyKey | None"
    #: Labels that its jobs ask for, and that they had better find; given by ``Lanes``.
    requires: tuple[LabelSelector, ...]
    prefers: tuple[LabelSelector, ...]
    #: Segments each of which comes behind all that are before it.
    row: deque[Segment]
    #: The others.
    heap: list[HeapEntry]
    #: Jobs in the segments, those that have left included.
    entries: int
    #: How many of them have left and are still to be passed over.
    gone: int
    #: How many of them are PENDING.
    ready: int
    #: The (key, ordinal, seq) of its first job; None: nothing is ready.
    front: tuple[int, int, int] | None
    #: Whether its key is open, if it has one; gates that it shares with other lanes may be closed.
    is_open: bool
    #: Where those who can run its jobs find it.
    places: "list[Fronts]"

    def __init__(self, label: LaneName, queue: Queue, job_type: JobType, priority: int) -> None:
        self.label = label
        self.queue = queue
        self.job_type = job_type
        self.name = job_type.name
        self.priority = priority
        self.key = None
        self.sticky = None
        self.row = deque()
        self.heap = []
        self.entries = 0
        self.gone = 0
        self.ready = 0
        self.front = None
        self.is_open = True
        self.places = []

    def push(self, key: int, seq: int, records: list[JobRecord]) -> None:
        """Adds PENDING jobs that one event wrote, with one key, in order of their ordinals."""
        self.entries += len(records)
        self._count(len(records))
        row, segment = self.row, Segment(key, seq, records, records[0].ordinal)
        if not row:
            row.append(segment)
        else:
            last = row[-1]
            if (key, segment.ordinal) > (last.at_ms, last.records[-1].ordinal):
                # Behind others: the front stays as it is.
                row.append(segment)
                return
            heappush(self.heap, (key, segment.ordinal, seq, segment))
        self._move_front()

    def leave(self, jobs: int) -> None:
        """So many of its jobs are not ready any more: their seq says which.

        Nearly always those at the front have left. What is behind as many as have left is not
        looked at.
        """
        self._count(-jobs)
        if not self.ready:
            self._empty()
            return
        self.gone += jobs
        row = self.row
        while self.gone and row:
            segment = row[0]
            self.gone -= segment.skip_gone(self.gone)
            if not segment.is_over:
                break
            row.popleft()
            self.entries -= len(segment.records)
        if self.gone and self.heap:
            self._leave_heap()
        if self.entries > 2 * self.ready + _GONE_MAX:
            self._compact()
        self._move_front()

    def take_out(self, key: int, record: JobRecord) -> bool:
        """Lets a job that came with this key go elsewhere; ``leave`` afterwards.

        Returns:
            Whether it was there: else another event has taken it.
        """
        place = key, record.ordinal
        index = bisect_left(self.row, place, key=_last_place)
        segments = [self.row[index]] if index < len(self.row) else []
        for segment in chain(segments, [segment for *_, segment in self.heap]):
            if segment.seq == record.seq and segment.take_out(record):
                return True
        return False

    def _empty(self) -> None:
        """None of its jobs is ready any more: whatever is in the segments has left."""
        self.row.clear()
        self.heap.clear()
        self.entries = self.gone = 0
        self.front = None
        for place in self.places:
            place.drop(self)

    def _leave_heap(self) -> None:
        """As ``leave``, of what is not in the row."""
        heap = self.heap
        while self.gone and heap:
            key, ordinal, seq, segment = heap[0]
            self.gone -= segment.skip_gone(self.gone)
            if segment.is_over:
                heappop(heap)
                self.entries -= len(segment.records)
            elif segment.ordinal != ordinal:
                heapreplace(heap, (key, segment.ordinal, seq, segment))
            else:
                break

    def _count(self, jobs: int) -> None:
        self.ready += jobs
        self.queue.ready_of[self.priority] += jobs
        if self.front is not None and self.is_open:
            for place in self.places:
                place.backlog += jobs

    def _compact(self) -> None:
        row, heap = [
            [Segment(s.at_ms, s.seq, left, left[0].ordinal) for s in old if (left := s.left())]
            for old in (self.row, [segment for *_, segment in self.heap])
        ]
        self.row = deque(row)
        self.heap = [(s.at_ms, s.ordinal, s.seq, s) for s in heap]
        heapify(self.heap)
        self.entries = sum([len(segment.records) for segment in self.segments()])
        self.gone = self.entries - self.ready

    def _move_front(self) -> None:
        front = self.heap[0][:3] if self.heap else None
        if self.row:
            first = self.row[0]
            ahead = (first.at_ms, first.ordinal, first.seq)
            front = ahead if front is None else min(ahead, front)
        if front != self.front:
            self.front = front
            for place in self.places:
                place.move(self)

    def jobs(self) -> Iterator[JobRecord]:
        """Its ready jobs, in no special order."""
        for segment in self.segments():
            yield from segment.left()

    def segments(self) -> list[Segment]:
        """All that its ready jobs are in, in no special order."""
        return [*self.row, *[segment for *_, segment in self.heap]]

    def first(self) -> JobRecord | None:
        """Its next job; None: nothing is ready."""
        heads = [*islice(self.row, 1), *[segment for *_, segment in self.heap[:1]]]
        if not heads:
            return None
        first = min(heads, key=lambda head: (head.at_ms, head.ordinal))
        return first.records[first.next]

    def waits_for_one(self, members: Mapping[str, "Member"]) -> bool:
        """Whether its jobs go to one worker only: not if that one is there and cannot run them.

        Args:
            members: Who is there, by incarnation.
        """
        if self.sticky is None or not self.sticky.incarnation:
            return False
        member = members.get(self.sticky.incarnation)
        return member is None or member.skill.serves_lane(self)

    def refresh(self) -> None:
        """Its key has opened or closed."""
        is_open = self.key is None or self.key.is_open
        if is_open is not self.is_open:
            self.is_open = is_open
            for place in self.places:
                place.move(self)

    def hang(self, places: "list[Fronts]") -> None:
        """Puts it where those find it who can run its jobs, and nowhere else."""
        for place in self.places:
            place.drop(self)
        self.places = places
        if self.front is not None:
            for place in places:
                place.move(self)


class Fronts:
    """Lanes of one job type that have something to give and are open, by their next jobs.

    Those of one queue for one kind of taker: a part of a board.
    """

    __slots__ = ("_serial", "active", "backlog", "board", "gives", "heap", "job_type")

    #: With the serial number of its entry, in the order in which they became so.
    active: dict[Lane, int]
    #: How many jobs are ready in them.
    backlog: int
    #: (key, ordinal, seq, serial number, lane). An entry that is not its lane's newest, or of a
    #: lane that is not active, is skipped; the first one never is such.
    heap: list[tuple[int, int, int, int, Lane]]
    #: Whether there are any, and their job type is open.
    gives: bool

    def __init__(self, board: "Board", job_type: JobType) -> None:
        self.board = board
        self.job_type = job_type
        self._serial = 0
        self.active = {}
        self.backlog = 0
        self.heap = []
        self.gives = False
        job_type.under[self] = None

    def move(self, lane: Lane) -> None:
        """Keeps up the order after a lane has a new front, was opened or was closed."""
        if lane.front is None or not lane.is_open:
            self.drop(lane)
            return
        heap, active = self.heap, self.active
        if lane not in active:
            self.backlog += lane.ready
        self._serial = active[lane] = self._serial + 1
        entry = (*lane.front, self._serial, lane)
        if heap and heap[0][4] is lane:
            # It was the first, and is not any more where it stood.
            heapreplace(heap, entry)
        else:
            heappush(heap, entry)
        self._settle()

    def drop(self, lane: Lane) -> None:
        """The lane has nothing to give here: it is empty, closed, or served elsewhere."""
        if self.active.pop(lane, None) is not None:
            self.backlog -= lane.ready
            self._settle()

    def is_current(self, entry: tuple[int, int, int, int, Lane]) -> bool:
        """Whether an entry of the heap is its lane's front."""
        return self.active.get(entry[4]) == entry[3]

    def _settle(self) -> None:
        heap, active = self.heap, self.active
        while heap and active.get(heap[0][4]) != heap[0][3]:
            heappop(heap)
        if len(heap) > 2 * len(active) + _FRONTS_GONE_MAX:
            heap[:] = [entry for entry in heap if self.is_current(entry)]
            heapify(heap)
        if bool(active) is not self.gives:
            self.refresh()

    def refresh(self) -> None:
        """Its job type has opened or closed, or its first lane has come, or its last one gone."""
        gives = bool(self.active) and self.job_type.is_open
        if gives is not self.gives:
            self.gives = gives
            self.board.turn(self)


class Board:
    """Where one kind of taker finds a queue's lanes: their fronts, by job types.

    So a job type with very many lanes is opened and closed as quickly as one that has a single one.
    """

    __slots__ = ("_fronts", "giving", "share")

    #: Those that give something now.
    giving: dict[Fronts, None]
    #: What takes part in fair queueing when there is something; None: somebody else sees to it.
    share: "QueueShare | None"

    def __init__(self, share: "QueueShare | None") -> None:
        self._fronts: dict[JobType, Fronts] = {}
        self.giving = {}
        self.share = share

    def fronts(self, job_type: JobType) -> Fronts:
        """Where lanes of a job type hang."""
        found = self._fronts.get(job_type)
        if found is None:
            found = self._fronts[job_type] = Fronts(self, job_type)
        return found

    def turn(self, fronts: Fronts) -> None:
        """Fronts give something now, or do not any more."""
        if fronts.gives:
            self.giving[fronts] = None
        else:
            del self.giving[fronts]
        if self.share is not None:
            if len(self.giving) == fronts.gives:
                # The first has come, or the last has gone.
                self.share.queue.found(1 if fronts.gives else -1)
            self.share.refresh()

    def backlog(self) -> int:
        """How many jobs are ready."""
        return sum([fronts.backlog for fronts in self.giving])

    def end(self) -> None:
        """Nobody looks for anything here any more."""
        for job_type, fronts in self._fronts.items():
            del job_type.under[fronts]
        if self.giving and self.share is not None:
            self.share.queue.found(-1)
