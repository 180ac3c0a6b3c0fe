"""The pick: which ready jobs are taken now, and by whom; one decision's walk, changing nothing.

```
 groups (takers with one skill), the emptiest first
   └─ a turn: the tenant with the smallest tag, its queue with the smallest tag  (core.fair)
        └─ up to a quantum of its jobs in exact order of their keys, over its lanes
             └─ each to the emptiest taker of those that fit it best
```
What a decision has taken already (rooms of gates, credit, tags, places in lanes) is kept beside
the state. A lane, a queue or a skill that has nothing more for this decision is not asked again.
"""

from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from math import ceil
from typing import Final, TypeAlias

from tenure.master.core.fair import QUANTUM, LevelWalk
from tenure.master.core.gate import MANY, Gate, Limiter, Queue
from tenure.master.core.ready import Board, Fronts, Lane
from tenure.master.core.record import JobRecord
from tenure.master.core.reserve import Reserves
from tenure.master.core.session import Session
from tenure.master.core.skill import QueueShare, Skill, TenantShare
from tenure.master.core.sticky import StickyKey
from tenure.master.core.volatile import Turn
from tenure.master.core.walk import Walk, walk_of

#: Behind every priority.
_ANY_PRIORITY: Final = 1 << 30
#: Behind every (key, ordinal) in a queue.
_END: Final = (1 << 62, 0)


class Taker:
    """A session with credit, and what it takes in this decision."""

    __slots__ = ("again", "credit", "first", "held", "load", "order", "session", "step")

    #: How many leases it has, with what it takes, and how full it is: the emptiest takes first.
    held: int
    load: float

    def __init__(self, session: Session, credit: int, order: int) -> None:
        self.session = session
        self.credit = credit
        self.order = order
        self.step = 1 / max(session.slots, 1)
        self.held = len(session.holder.leases)
        self.load = self.held * self.step
        #: First grants, and grants that must be written ahead.
        self.first: list[JobRecord] = []
        self.again: list[JobRecord] = []

    def take(self, records: list[JobRecord], *, ahead: bool, keyed: bool) -> None:
        """Takes jobs; ``ahead``: whatever they are, their grants must be written ahead.

        ``keyed``: so must those of jobs that have a limit key.
        """
        jobs = len(records)
        self.credit -= jobs
        self.held += jobs
        self.load = self.held * self.step
        if ahead:
            self.again += records
            return
        for record in records:
            if (
                record.lease is not None
                or record.policy.at_most_once
                or (keyed and record.ties.limit_key)
            ):
                self.again.append(record)
            else:
                self.first.append(record)


class Group:
    """Takers with the same skill, emptiest first, and where they are in what it serves."""

    __slots__ = (
        "_bound",
        "_heap",
        "_lanes",
        "_queues",
        "credit",
        "member",
        "skill",
        "sole",
        "tenants",
    )

    def __init__(self, skill: Skill) -> None:
        self.skill = skill
        self.credit = 0
        #: Any session with the skill.
        self.member = next(iter(skill.members))
        #: The only taker, if there are no others.
        self.sole: Taker | None = None
        self.tenants: LevelWalk[TenantShare] = LevelWalk(skill.level)
        self._queues: dict[TenantShare, LevelWalk[QueueShare]] = {}
        self._lanes: dict[QueueShare, _QueueWalk] = {}
        self._bound: dict[QueueShare, None] = {}
        #: (load, order, taker); an old load is put right when it is the first.
        self._heap: list[tuple[float, int, Taker]] = []

    def add(self, taker: Taker) -> None:
        """Adds a taker; ``arrange`` afterwards."""
        self.sole = None if self._heap else taker
        self._heap.append((taker.load, taker.order, taker))
        self.credit += taker.credit

    def arrange(self) -> None:
        """All takers have been added."""
        heapify(self._heap)
        for _, _, taker in list(self._heap):
            for queue, board in taker.session.bound.items():
                if board.giving and queue.is_open and queue.tenant.is_open:
                    self._bind(queue, board, taker)

    def _bind(self, queue: Queue, board: Board, taker: Taker) -> None:
        share = self.skill.known_share(queue)
        if share is not None:
            self.tenants.enter(share.tenant)
            self.queues(share.tenant).enter(share)
            self.lanes(share).add(board, taker)
            self._bound[share] = None

    def has_bound(self, share: QueueShare) -> bool:
        """Whether one of the takers has lanes of the queue that nobody else gets."""
        return share in self._bound

    def emptiest(self) -> Taker | None:
        """The emptiest taker with credit."""
        if self.sole is not None:
            return self.sole if self.sole.credit else None
        heap = self._heap
        while heap:
            load, order, taker = heap[0]
            if not taker.credit:
                heappop(heap)
            elif load != taker.load:
                heapreplace(heap, (taker.load, order, taker))
            else:
                return taker
        return None

    def queues(self, share: TenantShare) -> LevelWalk[QueueShare]:
        """Where it is among a tenant's queues."""
        walk = self._queues.get(share)
        if walk is None:
            walk = self._queues[share] = LevelWalk(share.level)
        return walk

    def lanes(self, share: QueueShare) -> "_QueueWalk":
        """Where it is among a queue's lanes."""
        walk = self._lanes.get(share)
        if walk is None:
            walk = self._lanes[share] = _QueueWalk(share)
        return walk

    def charge(self, share: QueueShare, jobs: int) -> None:
        """The group has taken jobs of a queue."""
        self.tenants.charge(share.tenant, jobs)
        self.queues(share.tenant).charge(share, jobs, share.queue.cost)


#: What may come next: (key, ordinal, tie-break, lane, the one taker that may take of it, where it
#: hangs, its index in the heap there, where the decision is in it if it was looked at).
_Step: TypeAlias = tuple[int, int, int, Lane, Taker | None, Fronts, int, Walk | None]
#: The next job's (key, ordinal), its lane, where the decision is in it, who gets it, and how many
#: may be taken of it.
_Next: TypeAlias = tuple[tuple[int, int], Lane, Walk, Taker | None, int]


class _QueueWalk:
    """Where a group is in a queue: the lanes that it can serve, by their next jobs."""

    __slots__ = ("_frontier", "_ties")

    def __init__(self, share: QueueShare) -> None:
        self._frontier: list[_Step] = []
        self._ties = count()
        self.add(share.board, None)

    def add(self, board: Board, taker: Taker | None) -> None:
        """Adds lanes; those that are bound with the only taker that gets them."""
        for fronts in board.giving:
            self._see(fronts, 0, taker)

    def _see(self, fronts: Fronts, node: int, taker: Taker | None) -> None:
        key, ordinal, _, _, lane = fronts.heap[node]
        step = (key, ordinal, next(self._ties), lane, taker, fronts, node, None)
        heappush(self._frontier, step)

    def _look_at_first(self, decision: "Picking") -> Walk | None:
        """Begins the first lane, which is a new one, and sees those that may come next after it.

        Returns:
            Where the decision is in it; None: its place in the heap there was an old one.
        """
        frontier = self._frontier
        key, ordinal, tie, lane, taker, fronts, node, _ = frontier[0]
        heap = fronts.heap
        walk = None
        if fronts.is_current(heap[node]):
            # It stands where it stood.
            walk = decision.walk(lane)
            frontier[0] = (key, ordinal, tie, lane, taker, fronts, node, walk)
        else:
            heappop(frontier)
        behind = 2 * node + 1
        if behind < len(heap):
            self._see(fronts, behind, taker)
            if behind + 1 < len(heap):
                self._see(fronts, behind + 1, taker)
        return walk

    def first(self, decision: "Picking", group: Group, last_priority: int) -> _Next | None:
        """The next job; None: there is none that it may take."""
        frontier = self._frontier
        while frontier:
            key, ordinal, _, lane, taker, fronts, node, walk = frontier[0]
            if walk is None:
                walk = self._look_at_first(decision)
                if walk is None:
                    continue
            front = walk.front
            if front is None or lane.priority > last_priority:
                heappop(frontier)
            elif front != (key, ordinal):
                step = (*front, next(self._ties), lane, taker, fronts, node, walk)
                heapreplace(frontier, step)
            elif room := decision.room(lane, group, taker):
                return front, lane, walk, taker, room
            else:
                heappop(frontier)
        return None

    def take(self, decision: "Picking", group: Group, limit: int, last_priority: int) -> int:
        """Takes up to so many of its jobs in order, of up to a priority; tells how many."""
        left = limit
        while left and (step := self.first(decision, group, last_priority)) is not None:
            (key, _), lane, walk, taker, room = step
            records = walk.take(room if room < left else left, self._second())
            decision.give(lane, key, records, group, taker)
            left -= len(records)
        return limit - left

    def _second(self) -> tuple[int, int]:
        """The least (key, ordinal) that can come after the first."""
        frontier = self._frontier
        if len(frontier) < 2:
            return _END
        return (frontier[1] if len(frontier) == 2 else min(frontier[1], frontier[2]))[:2]


class Picking:
    """One decision.

    Args:
        takers: Who takes.
        reserves: What is kept free for whom.
        grants_max: At most so many jobs.
        committed_seq: Only jobs last written at or before this are eligible.
        now_ms: The time.
    """

    def __init__(
        self,
        takers: list[Taker],
        reserves: Reserves,
        grants_max: int,
        committed_seq: int,
        now_ms: int,
    ) -> None:
        self.turns: list[Turn] = []
        #: None: nothing is reserved.
        self._reserves = reserves or None
        self._left = grants_max
        self._committed_seq = committed_seq
        self._now_ms = now_ms
        self._groups: dict[Skill, Group] = {}
        for taker in takers:
            skill = taker.session.skill
            group = self._groups.get(skill)
            if group is None:
                group = self._groups[skill] = Group(skill)
            group.add(taker)
        for group in self._groups.values():
            group.arrange()
        self._walks: dict[Lane, Walk] = {}
        #: What gates have room for yet.
        self._rooms: dict[Gate, int] = {}
        #: To whom this decision binds sticky keys.
        self._bound: dict[StickyKey, Taker] = {}
        #: What the turn that goes on has taken, by who has it.
        self._taken: dict[Group, int] = {}

    def run(self) -> None:
        """Takes all that can be taken."""
        waiting: list[tuple[float, int, Group]] = []
        for index, group in enumerate(self._groups.values()):
            taker = group.emptiest()
            if taker is not None:
                waiting.append((taker.load, index, group))
        heapify(waiting)
        while waiting and self._left:
            load, index, group = waiting[0]
            taker = group.emptiest()
            if taker is None:
                heappop(waiting)
            elif len(waiting) > 1 and taker.load != load:
                heapreplace(waiting, (taker.load, index, group))
            else:
                limit = min(self._left, group.credit)
                if len(waiting) > 1:
                    rival_load, rival, _ = min(waiting[1:3])
                    ahead = (rival_load - load) / taker.step
                    # Of those who are equally full the first one takes.
                    limit = min(limit, ceil(ahead) if rival < index else int(ahead) + 1)
                if not self._turn(group, limit):
                    heappop(waiting)

    def _turn(self, group: Group, limit: int) -> bool:
        """Lets a group take some jobs of the queue whose turn it is; False: it has none."""
        reserves = self._reserves
        if reserves is not None:
            spare = reserves.spare(group.skill)
            if spare <= 0:
                return self._reserved_turn(reserves, group, limit)
            limit = min(limit, spare)
        tenants = group.tenants
        while (tenant := tenants.first()) is not None:
            queues = group.queues(tenant)
            share = queues.first()
            if share is None:
                tenants.drop(tenant)
                continue
            alone = tenants.is_alone() and queues.is_alone()
            most = limit if alone else min(limit, QUANTUM)
            if self._take(group, share, most, _ANY_PRIORITY):
                return True
            queues.drop(share)
        return False

    def _reserved_turn(self, reserves: Reserves, group: Group, limit: int) -> bool:
        """As ``_turn`` when all that is free is kept for some queues: only those take."""
        for queue, unmet in reserves.unmet(group.skill):
            share = group.skill.known_share(queue)
            if share is None or not queue.tenant.is_open:
                continue
            if not (share.active or group.has_bound(share)):
                continue
            last_priority = queue.settings.reserved_priority
            if self._take(group, share, min(limit, unmet), last_priority):
                return True
        return False

    def _take(self, group: Group, share: QueueShare, limit: int, last_priority: int) -> bool:
        """Takes jobs of a queue as one turn; False: it has none."""
        queue = share.queue
        if queue.ready_seq > self._committed_seq:
            # Jobs that were just submitted: most queues with many lanes have only such, or none.
            return False
        if queue.limited:
            limit = min(limit, self._limiter_room(queue))
        if limit <= 0:
            return False
        self._taken = {}
        taken = group.lanes(share).take(self, group, limit, last_priority)
        if not taken:
            return False
        self._left -= taken
        if queue.limited:
            self._rooms[queue] -= taken
        for owner, jobs in self._taken.items():
            own = share if owner is group else owner.skill.share_of(queue)
            owner.charge(own, jobs)
            self.turns.append(Turn(owner.member, queue.tenant.name, queue.name, jobs))
        return True

    # What lanes ask.

    def walk(self, lane: Lane) -> Walk:
        """Where the decision is in a lane."""
        walk = self._walks.get(lane)
        if walk is None:
            walk = self._walks[lane] = walk_of(lane, self._committed_seq)
        return walk

    def room(self, lane: Lane, group: Group, taker: Taker | None) -> int:
        """How many jobs of a lane may be taken now."""
        room = MANY if taker is None else taker.credit
        sticky = lane.sticky
        if sticky is not None and taker is None:
            # The first of them decides where the others go.
            bound = self._bound.get(sticky)
            room = 1 if bound is None else bound.credit
        if lane.key is not None and lane.key.limited:
            room = min(room, self._limiter_room(lane.key))
        probes = lane.job_type.breaker.probes
        if probes is not None:
            room = min(room, self._rooms.setdefault(lane.job_type, probes))
        if self._reserves is not None:
            room = min(room, self._reserves.room(group.skill, lane.queue, lane.priority))
        return room

    def _limiter_room(self, limiter: Limiter) -> int:
        room = self._rooms.get(limiter)
        if room is None:
            room = self._rooms[limiter] = limiter.room(self._now_ms)
        return room

    def give(
        self,
        lane: Lane,
        key_ms: int,
        records: list[JobRecord],
        group: Group,
        taker: Taker | None,
    ) -> None:
        """Gives jobs of a lane, with one key of the order, to those who are to have them."""
        jobs = len(records)
        key = lane.key
        ahead = lane.queue.concurrency > 0
        if key is not None:
            ahead = ahead or key.concurrency > 0
            if key.limited:
                self._rooms[key] -= jobs
        if lane.job_type in self._rooms:
            self._rooms[lane.job_type] -= jobs
        if lane.sticky is not None and taker is None:
            taker = self._bound.get(lane.sticky)
            if taker is None:
                taker = self._fittest(lane, group, (key_ms, records[0].ordinal))
                self._bound[lane.sticky] = taker
        if taker is None and not lane.prefers:
            taker = group.sole
        if taker is not None:
            self._hand_over(lane, records, taker, ahead=ahead)
            return
        for record in records:
            fittest = self._fittest(lane, group, (key_ms, record.ordinal))
            self._hand_over(lane, [record], fittest, ahead=ahead)

    def _hand_over(
        self, lane: Lane, records: list[JobRecord], taker: Taker, *, ahead: bool
    ) -> None:
        jobs, owner, queue = len(records), self._groups[taker.session.skill], lane.queue
        keyed = queue.common > 0 and queue.settings.key_concurrency > 0
        taker.take(records, ahead=ahead, keyed=keyed)
        owner.credit -= jobs
        self._taken[owner] = self._taken.get(owner, 0) + jobs
        if self._reserves is not None:
            self._reserves.take(owner.skill, lane.queue, lane.priority, jobs)

    def _fittest(self, lane: Lane, group: Group, place: tuple[int, int]) -> Taker:
        """The emptiest taker of those that fulfil most of a lane's wishes, for a job of it."""
        best = group.emptiest()
        if best is None:
            raise ValueError("expected a taker with credit, but there is none")
        if not lane.prefers:
            return best
        fitness = group.skill.fitness(lane.prefers)
        for other in self._groups.values():
            taker = other.emptiest()
            if taker is None or not other.skill.serves_lane(lane):
                continue
            reserves = self._reserves
            if reserves and not reserves.room(other.skill, lane.queue, lane.priority):
                continue
            wishes = other.skill.fitness(lane.prefers)
            if (-wishes, taker.load, taker.order) >= (-fitness, best.load, best.order):
                continue
            # What comes before it in the queue is not for this one: it may be for the other.
            share = other.skill.known_share(lane.queue)
            first = None if share is None else other.lanes(share).first(self, other, _ANY_PRIORITY)
            if first is None or first[0] >= place:
                best, fitness = taker, wishes
        return best
