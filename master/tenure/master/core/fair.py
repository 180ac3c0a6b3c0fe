"""Fair shares: start-time fair queueing among flows (Goyal, Vin, Cheng, SIGCOMM 1996).

Each flow has a *tag*: where it stands in virtual time. Whoever may take gets jobs of the flow with
the smallest tag, up to ``QUANTUM`` in a row; ``k`` jobs move it on by ``k / weight``, from where it
stood or from where the level stands, whichever is later. So a flow that had nothing to give has
earned nothing, and what any two flows with something to give have got, each divided by its weight,
differs by no more than one quantum of each::

    | n(a) / weight(a)  -  n(b) / weight(b) |  <=  QUANTUM / weight(a)  +  QUANTUM / weight(b)

Tags are a term's own: all begin at zero, and are never journaled.
"""

from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import Final, Generic, TypeVar

#: Jobs that a flow may give in a row while others wait: what a turn costs is shared among them.
QUANTUM: Final = 16


class Flow:
    """Somebody with a share in a level: a tenant, or a queue of one."""

    __slots__ = ("active", "debt", "listed", "tag")

    #: Where it stands in virtual time. Never falls.
    tag: float
    #: Whether it has something to give now.
    active: bool
    #: Whether its level's heap has an entry of it; there is never more than one.
    listed: bool
    #: Charged with its next turn; below zero: owed to it.
    debt: float

    def __init__(self) -> None:
        self.tag = 0.0
        self.active = False
        self.listed = False
        self.debt = 0.0

    @property
    def weight(self) -> float:
        """How large its share is, beside those of others."""
        raise NotImplementedError


F = TypeVar("F", bound=Flow)


class Level(Generic[F]):
    """Flows that share what one kind of taker takes, those with something to give in order.

    An entry's tag is that of its flow, or an older and so smaller one; the first is always right.
    """

    __slots__ = ("_serial", "heap", "virtual")

    #: (tag, tie-break, flow).
    heap: list[tuple[float, int, F]]
    #: The largest tag from which a flow was charged: where the level stands in virtual time.
    virtual: float

    def __init__(self) -> None:
        self._serial = 0
        self.heap = []
        self.virtual = 0.0

    def turn(self, flow: F, active: bool) -> None:
        """A flow has something to give, or has not any more."""
        flow.active = active
        if active and not flow.listed:
            flow.listed = True
            self._serial += 1
            heappush(self.heap, (flow.tag, self._serial, flow))
        self.settle()

    def charge(self, flow: F, jobs: int, cost: float = 1.0) -> None:
        """A flow has given jobs in a row; each counts for ``cost``."""
        start, weight = flow.tag, flow.weight
        if start < self.virtual:
            # It was idle: what was owed to it has lapsed, as an idle flow earns nothing.
            start = self.virtual
            flow.debt = max(flow.debt, 0.0)
        self.virtual = _last_start(start, jobs, cost / weight)
        flow.tag, flow.debt = _charged(start, jobs * cost / weight + flow.debt)
        self.settle()

    def settle(self) -> None:
        """Sees to it that the first entry is right."""
        heap = self.heap
        while heap:
            tag, _, flow = heap[0]
            if not flow.active:
                flow.listed = False
                heappop(heap)
            elif tag != flow.tag:
                self._serial += 1
                heapreplace(heap, (flow.tag, self._serial, flow))
            else:
                return

    def flows(self) -> list[F]:
        """Those with something to give, in no special order."""
        return [flow for _, _, flow in self.heap if flow.active]


def _last_start(start: float, jobs: int, step: float) -> float:
    """Where the last quantum of some jobs in a row began."""
    return start + (jobs - 1) // QUANTUM * QUANTUM * step


def _charged(start: float, cost: float) -> tuple[float, float]:
    """The new tag and what is still owed: a tag never falls."""
    return (start + cost, 0.0) if cost >= 0 else (start, cost)


class LevelWalk(Generic[F]):
    """One decision's walk through a level's flows, the next to give first; it changes nothing.

    It keeps what the decision charges to itself. An entry of the level's heap is looked at only
    when its parent was, so the cost is that of what is taken.
    """

    __slots__ = ("_frontier", "_heap", "_tags", "_ties", "_virtual")

    def __init__(self, level: Level[F]) -> None:
        self._heap = level.heap
        self._virtual = level.virtual
        #: Where flows that were looked at stand; None: they have nothing more for this decision.
        self._tags: dict[F, float | None] = {}
        #: (tag, tie-break, index in the heap or -1, flow).
        self._frontier: list[tuple[float, int, int, F]] = []
        self._ties = count()
        self._see(0)

    def _see(self, index: int) -> None:
        if index < len(self._heap):
            tag, _, flow = self._heap[index]
            heappush(self._frontier, (tag, next(self._ties), index, flow))

    def enter(self, flow: F) -> None:
        """Adds a flow that may have something to give though its level does not list it."""
        if flow not in self._tags:
            self._tags[flow] = flow.tag
            heappush(self._frontier, (flow.tag, next(self._ties), -1, flow))

    def first(self) -> F | None:
        """The next to give; None: nobody has anything more."""
        frontier = self._frontier
        while frontier:
            tag, _, index, flow = frontier[0]
            if index < 0:
                now = self._tags[flow]
                if now == tag:
                    return flow
                if now is None:
                    heappop(frontier)
                else:
                    heapreplace(frontier, (now, next(self._ties), -1, flow))
                continue
            behind = 2 * index + 1
            if behind < len(self._heap):
                self._see(behind)
                self._see(behind + 1)
            if flow.active and flow not in self._tags:
                self._tags[flow] = flow.tag
                heapreplace(frontier, (flow.tag, next(self._ties), -1, flow))
            else:
                heappop(frontier)
        return None

    def is_alone(self) -> bool:
        """Whether nobody else waits behind the first."""
        return len(self._frontier) == 1

    def charge(self, flow: F, jobs: int, cost: float = 1.0) -> None:
        """As ``Level.charge``, for this decision; what is owed is left to the next one."""
        self.enter(flow)
        tag = self._tags[flow]
        if tag is not None:
            start, step = max(tag, self._virtual), cost / flow.weight
            self._virtual = _last_start(start, jobs, step)
            self._tags[flow] = start + jobs * step

    def drop(self, flow: F) -> None:
        """A flow has nothing more for this decision."""
        self._tags[flow] = None
