"""Timers: when to look at something again.

An entry says only *when to look*; what to do then is read off the thing itself. So an entry is
never cancelled: looked at too early, the thing names its next time. There is one entry at or before
each thing's next time; no-op jobs have none.
"""

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")
#: (due, tie-break) of an entry: all entries are in the order of their marks.
Mark: TypeAlias = tuple[int, int]

#: Entries are thinned out when there are this many more of them than twice the things.
_SLACK = 1_024


class Timers(Generic[T]):
    """A heap of (due, tie-break, thing); ties fall in the order in which they were armed."""

    __slots__ = ("_due_ms", "_heap", "_name", "_serial", "_things")

    def __init__(
        self,
        due_ms: Callable[[T], int | None],
        name: Callable[[T], str],
        things: Callable[[], int],
    ) -> None:
        """Makes an empty heap.

        Args:
            due_ms: When a thing wants to be looked at next; None: never.
            name: What tells a thing from others.
            things: How many things there are, armed or not.
        """
        self._due_ms = due_ms
        self._name = name
        self._things = things
        self._heap: list[tuple[int, int, T]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._heap)

    def arm(self, thing: T) -> None:
        """Sees to it that the thing is looked at when it next wants to be, if ever."""
        due = self._due_ms(thing)
        if due is not None:
            self.arm_at(thing, due)

    def arm_at(self, thing: T, due_ms: int) -> None:
        """Sees to it that the thing is looked at then."""
        self._serial += 1
        heappush(self._heap, (due_ms, self._serial, thing))
        if len(self._heap) > 2 * self._things() + _SLACK:
            self._thin_out()

    def next_ms(self) -> int | None:
        """When ``due`` has something to give."""
        return self._heap[0][0] if self._heap else None

    def walk(self, now_ms: int) -> Iterator[tuple[T, Mark]]:
        """What is due, earliest first, each with its mark; changes nothing, and nothing may.

        Walks the heap best first: an entry is looked at only when its parent was due.
        """
        heap = self._heap
        frontier = [(heap[0][0], heap[0][1], 0)] if heap else []
        while frontier and frontier[0][0] <= now_ms:
            due, serial, node = heappop(frontier)
            yield heap[node][2], (due, serial)
            for child in (2 * node + 1, 2 * node + 2):
                if child < len(heap):
                    heappush(frontier, (heap[child][0], heap[child][1], child))

    def due(self, now_ms: int, limit: int) -> tuple[list[T], Mark | None]:
        """What is due, earliest first, at most so much, and the mark of the last of it."""
        found: list[T] = []
        last = None
        for thing, mark in islice(self.walk(now_ms), limit):
            found.append(thing)
            last = mark
        return found, last

    def take(self, mark: Mark | None) -> list[T]:
        """Takes out all up to the mark. Whoever takes arms again what still waits."""
        heap, taken = self._heap, []
        while mark is not None and heap and heap[0][:2] <= mark:
            taken.append(heappop(heap)[2])
        return taken

    def things(self) -> list[tuple[int, T]]:
        """All (due, thing), in no special order; for audits."""
        return [(due, thing) for due, _, thing in self._heap]

    def _thin_out(self) -> None:
        """Drops entries of things that want nothing, or that have an earlier one."""
        earliest: dict[str, tuple[int, int, T]] = {}
        for entry in self._heap:
            due, serial, thing = entry
            name = self._name(thing)
            known = earliest.get(name)
            if known is None or (due, serial) < known[:2]:
                earliest[name] = entry
        self._heap = [e for e in earliest.values() if self._due_ms(e[2]) is not None]
        heapify(self._heap)
