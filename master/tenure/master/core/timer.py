"""Timers: when to look at something again.

An entry says only *when to look*; what to do then is read off the thing itself. So an entry is
never cancelled: looked at too early, the thing names its next time. There is one entry at or before
each thing's next time; no-op jobs have none.
"""

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Final, Generic, TypeAlias, TypeVar

T = TypeVar("T")
#: (due, tie-break) of an entry: all entries are in the order of their marks.
Mark: TypeAlias = tuple[int, int]

#: Entries are thinned out when there are this many more of them than twice the things.
_SLACK: Final = 1_024
#: Of the entries that are to be thinned out, so many are looked at whenever something is armed.
_THINNED_AT_ONCE: Final = 4


class Timers(Generic[T]):
    """Heaps of (due, tie-break, thing); ties fall in the order in which they were armed.

    When there are too many entries all of them become the old ones, and are looked through a few
    at a time: those of things that want nothing, or that have an earlier one, are dropped. Half of
    a million in one go would hold the loop for a second.
    """

    __slots__ = ("_due_ms", "_heap", "_kept", "_name", "_old", "_serial", "_things")

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
        #: What was not looked through yet, and the names of things that an entry was kept of.
        self._old: list[tuple[int, int, T]] = []
        self._kept: set[str] = set()
        self._serial = 0

    def __len__(self) -> int:
        return len(self._heap) + len(self._old)

    def arm(self, thing: T) -> None:
        """Sees to it that the thing is looked at when it next wants to be, if ever."""
        due = self._due_ms(thing)
        if due is not None:
            self.arm_at(thing, due)

    def arm_at(self, thing: T, due_ms: int) -> None:
        """Sees to it that the thing is looked at then."""
        self._serial += 1
        heappush(self._heap, (due_ms, self._serial, thing))
        if self._old:
            self._thin_out()
        elif len(self._heap) > 2 * self._things() + _SLACK:
            self._old, self._heap = self._heap, []

    def _thin_out(self) -> None:
        """Looks through some of the old entries, the earliest first."""
        old, kept = self._old, self._kept
        for _ in range(min(_THINNED_AT_ONCE, len(old))):
            entry = heappop(old)
            thing = entry[2]
            name = self._name(thing)
            if name not in kept and self._due_ms(thing) is not None:
                kept.add(name)
                heappush(self._heap, entry)
        if not old:
            self._kept = set()

    def _first(self) -> list[tuple[int, int, T]]:
        """The heap with the first entry; empty: there is none."""
        heap, old = self._heap, self._old
        return old if old and (not heap or old[0][:2] < heap[0][:2]) else heap

    def next_ms(self) -> int | None:
        """When ``due`` has something to give."""
        first = self._first()
        return first[0][0] if first else None

    def walk(self, now_ms: int) -> Iterator[tuple[T, Mark]]:
        """What is due, earliest first, each with its mark; changes nothing, and nothing may.

        Walks the heaps best first: an entry is looked at only when its parent was due.
        """
        frontier = [(*heap[0][:2], heap, 0) for heap in (self._heap, self._old) if heap]
        heapify(frontier)
        while frontier and frontier[0][0] <= now_ms:
            due, serial, heap, node = heappop(frontier)
            yield heap[node][2], (due, serial)
            for child in (2 * node + 1, 2 * node + 2):
                if child < len(heap):
                    heappush(frontier, (*heap[child][:2], heap, child))

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
        taken: list[T] = []
        while mark is not None and (first := self._first()) and first[0][:2] <= mark:
            taken.append(heappop(first)[2])
        if self._kept and not self._old:
            self._kept = set()
        return taken

    def things(self) -> list[tuple[int, T]]:
        """All (due, thing), in no special order; for audits."""
        return [(due, thing) for due, _, thing in (*self._heap, *self._old)]
