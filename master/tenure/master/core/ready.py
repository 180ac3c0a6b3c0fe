"""The ready order: lanes of PENDING jobs, the key that orders them, and the pick.

A job's place is the static key ``ready_ms + priority × aging_step_ms``; priority 0 comes before
all others. So a job is overtaken only by jobs that become ready within Δpriority × step after it,
and no heap is ever rebuilt. Jobs of one (tenant, queue, name) form a lane, because a worker serves
names: whatever it can run is the merge of some lanes. A lane is a heap of segments (see
``core.segment``).

What is picked first among lanes is decided in ``pick`` alone, by the smallest key.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Final, Protocol, TypeAlias

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

    __slots__ = ("counts", "entries", "front", "heap", "name", "queue", "skills", "tenant")

    #: By state.
    counts: list[int]
    heap: list[HeapEntry]
    #: Jobs in the heap's segments, those that have left included.
    entries: int
    #: The (key, ordinal, seq) of the heap's first entry; None: nothing is ready.
    front: tuple[int, int, int] | None
    #: Who runs its jobs.
    skills: "list[Skill]"

    def __init__(self, tenant: str, queue: str, name: str, skills: "list[Skill]") -> None:
        self.tenant = tenant
        self.queue = queue
        self.name = name
        self.counts = [0] * (max(JobState) + 1)
        self.heap = []
        self.entries = 0
        self.front = None
        self.skills = skills

    def push(self, key: int, seq: int, records: list[JobRecord]) -> None:
        """Adds PENDING jobs that one event wrote, with one key, in order of their ordinals."""
        self.entries += len(records)
        heappush(self.heap, (key, records[0].ordinal, seq, Segment(key, seq, records)))

    def settle(self) -> None:
        """Drops what has left from the front."""
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

    def _compact(self) -> None:
        kept = [Segment(key, seq, segment.left()) for key, _, seq, segment in self.heap]
        self.heap = [
            (segment.at_ms, segment.records[0].ordinal, segment.seq, segment)
            for segment in kept
            if segment.records
        ]
        heapify(self.heap)
        self.entries = sum(len(segment.records) for segment in kept)


class Skill:
    """Some job names and queues, and the lanes of them that have something ready, in order.

    Sessions that run the same jobs share one. So a dispatch looks at lanes that somebody with
    credit can serve, and at no others.
    """

    __slots__ = ("_ties", "active", "fronts", "job_names", "queues", "sessions")

    #: The lanes with something ready, in the order in which they became so.
    active: dict[tuple[str, str, str], Lane]
    #: A heap of them by their fronts: (key, ordinal, seq, tie-break, lane). An entry that is not
    #: its lane's front any more is skipped; the first one always is.
    fronts: list[tuple[int, int, int, int, Lane]]
    #: How many sessions have it.
    sessions: int

    def __init__(self, job_names: frozenset[str], queues: frozenset[str]) -> None:
        self._ties = count()
        self.job_names = job_names
        self.queues = queues
        self.active = {}
        self.fronts = []
        self.sessions = 0

    def serves(self, queue: str, name: str) -> bool:
        """Whether it runs jobs of this name from this queue; no queues are all queues."""
        return name in self.job_names and (not self.queues or queue in self.queues)

    def backlog(self) -> int:
        """How many PENDING jobs it could run."""
        return sum([lane.counts[_PENDING] for lane in self.active.values()])

    def move_front(self, lane: Lane) -> None:
        """Keeps up the order of its lanes after one has a new front."""
        name = (lane.tenant, lane.queue, lane.name)
        active, fronts = self.active, self.fronts
        if lane.front is None:
            del active[name]
        else:
            active[name] = lane
            heappush(fronts, (*lane.front, next(self._ties), lane))
        while fronts and fronts[0][:3] != fronts[0][4].front:
            heappop(fronts)
        if len(fronts) > 2 * len(active) + _GONE_MAX:
            ties = self._ties
            fronts[:] = [(*at.front, next(ties), at) for at in active.values() if at.front]
            heapify(fronts)


class Lanes:
    """All lanes of a partition."""

    __slots__ = ("_skills", "counts", "queues")

    #: (tenant, queue) → name → lane. A lane lives while a job of it is known.
    queues: dict[tuple[str, str], dict[str, Lane]]
    #: All jobs, by state.
    counts: list[int]

    def __init__(self) -> None:
        self._skills: dict[tuple[frozenset[str], frozenset[str]], Skill] = {}
        self.queues = {}
        self.counts = [0] * (max(JobState) + 1)

    def enlist(self, job_names: frozenset[str], queues: frozenset[str]) -> Skill:
        """The skill of a new session; ``dismiss`` it at the session's end."""
        skill = self._skills.get((job_names, queues))
        if skill is None:
            skill = self._skills[job_names, queues] = Skill(job_names, queues)
            for lane in self._all():
                if skill.serves(lane.queue, lane.name):
                    lane.skills.append(skill)
                    if lane.front is not None:
                        skill.move_front(lane)
        skill.sessions += 1
        return skill

    def dismiss(self, skill: Skill) -> None:
        """A session with this skill has ended."""
        skill.sessions -= 1
        if not skill.sessions:
            del self._skills[skill.job_names, skill.queues]
            for lane in self._all():
                lane.skills = [other for other in lane.skills if other is not skill]

    def _all(self) -> Iterator[Lane]:
        for names in self.queues.values():
            yield from names.values()

    def of(self, policy: Policy) -> Lane:
        """The lane of jobs with this policy."""
        names = self.queues.setdefault((policy.tenant, policy.queue), {})
        lane = names.get(policy.name)
        if lane is None:
            able = [s for s in self._skills.values() if s.serves(policy.queue, policy.name)]
            lane = names[policy.name] = Lane(policy.tenant, policy.queue, policy.name, able)
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
        self._move_front(lane)

    def settle(self, lane: Lane) -> None:
        """Call when jobs have left a lane's ready order."""
        lane.settle()
        self._move_front(lane)

    def _move_front(self, lane: Lane) -> None:
        front = lane.heap[0][:3] if lane.heap else None
        if front != lane.front:
            lane.front = front
            for skill in lane.skills:
                skill.move_front(lane)

    def forget_if_empty(self, lane: Lane) -> None:
        """Drops a lane whose last job is gone."""
        if any(lane.counts):
            return
        names = self.queues[lane.tenant, lane.queue]
        del names[lane.name]
        if not names:
            del self.queues[lane.tenant, lane.queue]


#: (key, ordinal, seq, tie-break, lane, where to look: a segment and a position in it, or a skill
#: and the index of the lane in its fronts, the segment's index in the lane's heap; -1: known).
_Step: TypeAlias = tuple[int, int, int, int, Lane, Segment | Skill, int, int]


class Demand(Protocol):
    """Who takes jobs, and how many more; it changes with what they take."""

    def skills(self) -> list[Skill]:
        """The skills of all takers."""

    def has_credit(self, skill: Skill) -> bool:
        """Whether somebody with this skill can take more."""

    def wants(self, lane: Lane) -> int:
        """How many jobs of a lane can be taken now."""

    def is_met(self) -> bool:
        """Whether nothing more can be taken."""


def pick(demand: Demand, committed_seq: int) -> Iterator[tuple[Lane, list[JobRecord]]]:
    """Yields eligible jobs in exact order of their keys, as runs out of one lane; changes nothing.

    It walks the skills' heaps of lanes and the lanes' heaps best first: an entry is looked at only
    when its parent was, so the cost is that of what is taken. A segment was written by one event,
    so all of it has committed or nothing.

    Args:
        demand: Who takes; it is asked again after each yield. It never grows, so a lane that is
            not wanted and a skill without credit are not asked about again.
        committed_seq: Only jobs last written at or before this are eligible.
    """
    ties = count()
    frontier: list[_Step] = []

    def see_lane(skill: Skill, node: int) -> None:
        if node < len(skill.fronts):
            key, ordinal, seq, _, lane = skill.fronts[node]
            heappush(frontier, (key, ordinal, seq, next(ties), lane, skill, node, -1))

    def see_segment(lane: Lane, node: int) -> None:
        if node < len(lane.heap):
            key, ordinal, seq, segment = lane.heap[node]
            step = (key, ordinal, seq, next(ties), lane, segment, segment.next, node)
            heappush(frontier, step)

    entered: set[Lane] = set()
    for skill in demand.skills():
        see_lane(skill, 0)
    while frontier and not demand.is_met():
        key, ordinal, seq, _, lane, where, position, node = heappop(frontier)
        if isinstance(where, Skill):
            if not demand.has_credit(where):
                continue
            see_lane(where, 2 * position + 1)
            see_lane(where, 2 * position + 2)
            if lane.front == (key, ordinal, seq) and lane not in entered and demand.wants(lane):
                entered.add(lane)
                see_segment(lane, 0)
            continue
        limit = demand.wants(lane)
        if not limit:
            continue
        if node >= 0:
            see_segment(lane, 2 * node + 1)
            see_segment(lane, 2 * node + 2)
        if seq > committed_seq:
            continue
        # Inside a segment the key is the same, so only ordinals decide who comes first.
        bound = frontier[0][1] if frontier and frontier[0][0] == key else _CLASS
        run, position = _run(where, position, bound, limit)
        if run:
            yield lane, run
        if position < len(where.records):
            head = where.records[position].ordinal
            heappush(frontier, (key, head, seq, next(ties), lane, where, position, -1))


def _run(segment: Segment, position: int, bound: int, limit: int) -> tuple[list[JobRecord], int]:
    """Up to ``limit`` jobs from a position on with ordinals up to ``bound``, and where they end."""
    records, seq = segment.records, segment.seq
    run: list[JobRecord] = []
    end = len(records)
    while position < end:
        record = records[position]
        if record.seq == seq:
            if record.ordinal > bound or len(run) == limit:
                break
            run.append(record)
        position += 1
    return run, position
