"""The ready order: lanes of PENDING jobs, the key that orders them, and the pick.

A job's place is the static key ``ready_ms + priority × aging_step_ms``; priority 0 comes before
all others. So a job is overtaken only by jobs that become ready within Δpriority × step after it,
and no heap is ever rebuilt. Jobs of one (tenant, queue, name) form a lane, because a worker serves
names: whatever it can run is the merge of some lanes. A lane is a heap of segments (see
``core.segment``).

What is picked first among lanes is decided in ``pick`` alone, by the smallest key.
"""

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, TypeAlias

from tenure.master.core.record import JobRecord, Policy
from tenure.master.core.segment import Segment
from tenure.protocol.vocabulary import JobState

#: Above every time in milliseconds.
_CLASS: Final = 1 << 50
_PENDING: Final = JobState.PENDING
#: Entries of jobs that have left are dropped when there are this many more of them than jobs.
_GONE_MAX: Final = 1_024

#: (key, ordinal of the first job, seq, segment). Seqs differ where ordinals are equal.
HeapEntry: TypeAlias = tuple[int, int, int, Segment]


def order_key(priority: int, ready_ms: int, aging_step_ms: int) -> int:
    """A ready job's place among others: smaller is earlier; the ordinal breaks ties."""
    if aging_step_ms == 0:
        return priority * _CLASS + ready_ms
    if priority == 0:
        return ready_ms
    return _CLASS + ready_ms + priority * aging_step_ms


class Lane:
    """The jobs of one (tenant, queue, name): how many there are in each state, and who is next."""

    __slots__ = ("counts", "entries", "heap", "name", "queue", "tenant")

    #: By state.
    counts: list[int]
    heap: list[HeapEntry]
    #: Jobs in the heap's segments, those that have left included.
    entries: int

    def __init__(self, tenant: str, queue: str, name: str) -> None:
        self.tenant = tenant
        self.queue = queue
        self.name = name
        self.counts = [0] * (max(JobState) + 1)
        self.heap = []
        self.entries = 0

    def push(self, key: int, seq: int, records: list[JobRecord]) -> None:
        """Adds PENDING jobs that one event wrote, with one key, in order of their ordinals."""
        self.entries += len(records)
        heappush(self.heap, (key, records[0].ordinal, seq, Segment(key, seq, records)))

    def settle(self) -> bool:
        """Drops what has left from the front; False if the lane has nothing ready."""
        heap = self.heap
        while heap:
            key, ordinal, seq, segment = heap[0]
            records = segment.records
            if not segment.skip_gone():
                heappop(heap)
                self.entries -= len(records)
                continue
            head = records[segment.next].ordinal
            if head == ordinal:
                break
            heapreplace(heap, (key, head, seq, segment))
        if self.entries > 2 * self.counts[_PENDING] + _GONE_MAX:
            self._compact()
        return bool(heap)

    def _compact(self) -> None:
        kept = [Segment(key, seq, segment.left()) for key, _, seq, segment in self.heap]
        self.heap = [
            (segment.at_ms, segment.records[0].ordinal, segment.seq, segment)
            for segment in kept
            if segment.records
        ]
        heapify(self.heap)
        self.entries = sum(len(segment.records) for segment in kept)


class Lanes:
    """All lanes of a partition."""

    __slots__ = ("active", "counts", "queues")

    #: (tenant, queue) → name → lane. A lane lives while a job of it is known.
    queues: dict[tuple[str, str], dict[str, Lane]]
    #: The lanes with something ready, in the order in which they became so.
    active: dict[tuple[str, str, str], Lane]
    #: All jobs, by state.
    counts: list[int]

    def __init__(self) -> None:
        self.queues = {}
        self.active = {}
        self.counts = [0] * (max(JobState) + 1)

    def of(self, policy: Policy) -> Lane:
        """The lane of jobs with this policy."""
        names = self.queues.setdefault((policy.tenant, policy.queue), {})
        lane = names.get(policy.name)
        if lane is None:
            lane = names[policy.name] = Lane(policy.tenant, policy.queue, policy.name)
        return lane

    def tally(self, records: list[JobRecord], before: JobState, after: JobState) -> list[Lane]:
        """Counts jobs that one event moved between states; gives the lanes that changed."""
        moved = len(records)
        self.counts[before] -= moved
        self.counts[after] += moved
        policy = records[0].policy
        counts = self.of(policy).counts
        changed = [self.of(policy)]
        for record in records:
            if record.policy is not policy:
                policy = record.policy
                changed.append(self.of(policy))
                counts = changed[-1].counts
            counts[before] -= 1
            counts[after] += 1
        return changed

    def push(self, lane: Lane, key: int, seq: int, records: list[JobRecord]) -> None:
        """Makes jobs ready; see ``Lane.push``."""
        lane.push(key, seq, records)
        self.active.setdefault((lane.tenant, lane.queue, lane.name), lane)

    def settle(self, lane: Lane) -> None:
        """Call when jobs have left a lane's ready order."""
        if not lane.settle():
            self.active.pop((lane.tenant, lane.queue, lane.name), None)

    def forget_if_empty(self, lane: Lane) -> None:
        """Drops a lane whose last job is gone."""
        if any(lane.counts):
            return
        names = self.queues[lane.tenant, lane.queue]
        del names[lane.name]
        if not names:
            del self.queues[lane.tenant, lane.queue]
        self.active.pop((lane.tenant, lane.queue, lane.name), None)


def pick(
    lanes: Lanes, wants: Callable[[Lane], int], committed_seq: int
) -> Iterator[tuple[Lane, list[JobRecord]]]:
    """Yields eligible jobs in exact order of their keys, as runs out of one lane; changes nothing.

    It walks the lanes' heaps best first: a heap's entry is looked at only when its parent was. A
    segment was written by one event, so all of it has committed or nothing.

    Args:
        lanes: Where the jobs are.
        wants: How many jobs of a lane can be taken now. It is asked again after each yield; a lane
            that it answered 0 for is not asked about again.
        committed_seq: Only jobs last written at or before this are eligible.
    """
    frontier: list[tuple[int, int, int, Lane, Segment, int, int]] = []
    for lane in lanes.active.values():
        if wants(lane):
            key, ordinal, seq, segment = lane.heap[0]
            frontier.append((key, ordinal, seq, lane, segment, segment.next, 0))
    heapify(frontier)
    while frontier:
        key, _, seq, lane, segment, position, node = heappop(frontier)
        limit = wants(lane)
        if not limit:
            continue
        if node >= 0:
            for child in (2 * node + 1, 2 * node + 2):
                if child < len(lane.heap):
                    below, ordinal, at_seq, other = lane.heap[child]
                    heappush(frontier, (below, ordinal, at_seq, lane, other, other.next, child))
        if seq > committed_seq:
            continue
        # Inside a segment the key is the same, so only ordinals decide who comes first.
        bound = frontier[0][1] if frontier and frontier[0][0] == key else _CLASS
        records = segment.records
        run: list[JobRecord] = []
        end = len(records)
        while position < end:
            record = records[position]
            if record.seq == seq:
                if record.ordinal > bound or len(run) == limit:
                    break
                run.append(record)
            position += 1
        if run:
            yield lane, run
        if position < end:
            head = records[position].ordinal
            heappush(frontier, (key, head, seq, lane, segment, position, -1))
