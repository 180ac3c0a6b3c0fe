"""Slots and the one queue before them, shared by all kinds of executors.

Jobs begin in the order in which they came, whatever kind they are of; no more than ``slots`` run at
once. The thread in which a job ends asks for the next one, so a stream of small jobs of one kind
costs no hop between threads.
"""

import threading
from collections import deque
from collections.abc import Callable

from tenure.client.job import Executor as Kind
from tenure.worker.held import HeldJob

#: Queues jobs of one kind, from any thread.
Submit = Callable[[list[HeldJob]], None]


class SlotGate:
    """Lets jobs through as slots are free. Thread-safe."""

    def __init__(self, slots: int, kind_of: Callable[[HeldJob], Kind]) -> None:
        self._free = slots
        self._kind_of = kind_of
        self._submits: dict[Kind, Submit] = {}
        self._queue: deque[HeldJob] = deque()
        #: Kinds that could not use a slot at present, and the jobs of these, in order.
        self._aside: dict[Kind, deque[HeldJob]] = {}
        self._lock = threading.Lock()

    def serve(self, kind: Kind, submit: Submit) -> None:
        """Names who runs jobs of a kind. Before the first ``offer``."""
        self._submits[kind] = submit

    def offer(self, jobs: list[HeldJob]) -> None:
        """Queues jobs, and passes on what has a slot."""
        with self._lock:
            self._queue.extend(jobs)
            if self._aside:
                self._sort_out()
            ready = self._take()
        self._pass_on(ready)

    def next(self, kind: Kind) -> HeldJob | None:
        """Frees one slot. Returns the next job if it is of this kind; others go their own way."""
        with self._lock:
            if not self._queue:
                self._free += 1
                return None
            # Jobs wait only while no slot is free: this slot is the first one's.
            job = self._queue.popleft()
        its_kind = self._kind_of(job)
        if its_kind == kind:
            return job
        self._submits[its_kind]([job])
        return None

    def ahead(self, kind: Kind, fits: Callable[[HeldJob], bool], parts: int) -> list[HeldJob]:
        """The first jobs that wait, for one who has a slot and runs them one after the other.

        They need no slots of their own. It ends at a job that does not fit or is of another kind.

        Args:
            kind: Theirs.
            fits: Whether one more is wanted.
            parts: With how many the jobs that wait are to be shared.
        """
        found: list[HeldJob] = []
        with self._lock:
            queue = self._queue
            most = -(-len(queue) // parts)
            while len(found) < most and self._kind_of(queue[0]) == kind and fits(queue[0]):
                found.append(queue.popleft())
        return found

    def back(self, jobs: list[HeldJob]) -> None:
        """Takes jobs again that ``ahead`` gave and that were not begun: they come first."""
        with self._lock:
            self._queue.extendleft(reversed(jobs))
            ready = self._take()
        self._pass_on(ready)

    def set_aside(self, kind: Kind, returned: list[HeldJob]) -> None:
        """Gives a kind no slots until ``let_in``: others get them. May be said again and again.

        Args:
            kind: Whose jobs could not begin now.
            returned: Those of them that had slots and have not begun; they come first again.
        """
        with self._lock:
            self._aside.setdefault(kind, deque()).extendleft(reversed(returned))
            self._sort_out()
            self._free += len(returned)
            ready = self._take()
        self._pass_on(ready)

    def let_in(self, kind: Kind) -> None:
        """Ends that: who was set aside has waited longest."""
        with self._lock:
            aside = self._aside.pop(kind, None)
            if not aside:
                return
            self._queue.extendleft(reversed(aside))
            ready = self._take()
        self._pass_on(ready)

    def release(self) -> None:
        """Frees the slot of a job that was given up: its code goes on without one."""
        with self._lock:
            self._free += 1
            ready = self._take()
        self._pass_on(ready)

    def _sort_out(self) -> None:
        """Moves what is to be aside out of the queue."""
        queue = self._queue
        for _ in range(len(queue)):
            job = queue.popleft()
            self._aside.get(self._kind_of(job), queue).append(job)

    def _take(self) -> list[HeldJob]:
        count = min(self._free, len(self._queue))
        self._free -= count
        return [self._queue.popleft() for _ in range(count)]

    def _pass_on(self, ready: list[HeldJob]) -> None:
        if not ready:
            return
        by_kind: dict[Kind, list[HeldJob]] = {}
        for job in ready:
            by_kind.setdefault(self._kind_of(job), []).append(job)
        for kind, jobs in by_kind.items():
            self._submits[kind](jobs)
