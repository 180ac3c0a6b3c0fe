"""S11: at each grant no eligible job of that queue with an earlier key is older than 250 ms.

The journal alone tells who waited: jobs become ready and leave by its events, in its order, and a
grant tells when it was decided. What it does not tell is left out, so that nothing is claimed that
cannot be known:

- A job is eligible once the event that made it ready has committed; ``Extents.committed`` tells
  what surely had.
- Jobs are held up together with their queue, or with nothing: those that something else may hold
  up or send elsewhere (``Submitted.apart``) neither are passed over nor pass over others.
- A session takes only what its worker serves. A worker serves, by (queue, job name), at least what
  it was ever given.
- Grants of one decision share their time: a job that leaves with one of them was not passed over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import Final, NamedTuple

from tests.oracles.facts import (
    Boosted,
    Fact,
    Freed,
    Granted,
    JobFact,
    Readied,
    Requeued,
    Submitted,
    Waits,
    is_about_job,
)
from tests.oracles.journal_facts import Extents
from tests.oracles.verdict import Violation

PASSED_OVER_MS: Final = 250

#: (class, place): smaller is earlier.
Key = tuple[int, int]


def order_key(priority: int, ready_ms: int, aging_step_ms: int) -> Key:
    """The documented order: priority 0 first, then by ``ready + priority * step``."""
    if priority == 0:
        return 0, ready_ms
    if aging_step_ms == 0:
        return priority, ready_ms
    return 1, ready_ms + priority * aging_step_ms


def check_order(facts: Sequence[Fact], extents: Extents, *, aging_step_ms: int) -> list[Violation]:
    """One sweep over one partition's facts."""
    sweep = _Sweep(extents, aging_step_ms, _served(facts))
    together: list[Granted] = []
    for fact in facts:
        if together and not (isinstance(fact, Granted) and fact.at_ms == together[0].at_ms):
            sweep.grant(together)
            together = []
        if isinstance(fact, Granted):
            together.append(fact)
        elif is_about_job(fact):
            sweep.see(fact)
    if together:
        sweep.grant(together)
    return sweep.violations


def _served(facts: Iterable[Fact]) -> dict[str, set[tuple[str, str]]]:
    """By worker incarnation: each (queue, job name) that it was ever given."""
    names: dict[str, tuple[str, str]] = {}
    served: dict[str, set[tuple[str, str]]] = {}
    for fact in facts:
        if isinstance(fact, Submitted):
            names[fact.job] = (fact.queue, fact.name)
        elif isinstance(fact, Granted) and fact.job in names:
            served.setdefault(fact.holder, set()).add(names[fact.job])
    return served


class _Entry(NamedTuple):
    """A job that waits, since an event."""

    key: Key
    seq: int
    job: str
    ready_ms: int


class _Sweep:
    def __init__(
        self, extents: Extents, aging_step_ms: int, served: dict[str, set[tuple[str, str]]]
    ) -> None:
        self.violations: list[Violation] = []
        self._extents = extents
        self._step_ms = aging_step_ms
        self._served = served
        self._jobs: dict[str, Submitted] = {}
        self._ready_ms: dict[str, int] = {}
        #: The present entry of each job that waits.
        self._waiting: dict[str, _Entry] = {}
        #: Entries whose events may not have committed, with their batches.
        self._fresh: deque[tuple[int, _Entry]] = deque()
        #: Entries that have not waited for long, by when they have.
        self._young: list[tuple[int, _Entry]] = []
        #: (tenant, queue) → name → heap of those that must not be passed over.
        self._queues: dict[tuple[str, str], dict[str, list[_Entry]]] = {}

    def see(self, fact: JobFact) -> None:
        """Anything but a grant."""
        match fact:
            case Submitted():
                self._jobs[fact.job] = fact
                self._ready_ms[fact.job] = fact.ready_ms
                if fact.pending:
                    self._wait(fact.job, fact.seq)
            case Readied():
                self._wait(fact.job, fact.seq)
            case Waits() | Freed():
                self._ready_ms[fact.job] = fact.ready_ms
                if fact.pending:
                    self._wait(fact.job, fact.seq)
            case Boosted():
                self._ready_ms[fact.job] = fact.ready_ms
                self._waiting.pop(fact.job, None)
                submitted = self._jobs.get(fact.job)
                if submitted is not None:
                    self._jobs[fact.job] = submitted._replace(priority=fact.priority)
                if fact.pending:
                    self._wait(fact.job, fact.seq)
            case Requeued():
                self._ready_ms[fact.job] = fact.at_ms
                if fact.pending:
                    self._wait(fact.job, fact.seq)
            case _:
                self._waiting.pop(fact.job, None)

    def grant(self, together: list[Granted]) -> None:
        """All grants of one decision."""
        last: dict[tuple[str, str, str], tuple[Key, str]] = {}
        for fact in together:
            self._waiting.pop(fact.job, None)
            job = self._jobs.get(fact.job)
            if job is not None and not job.apart:
                key = order_key(job.priority, self._ready_ms[fact.job], self._step_ms)
                place = (fact.holder, job.tenant, job.queue)
                last[place] = max((key, fact.job), last.get(place, (key, fact.job)))
        now_ms = together[0].at_ms
        self._advance(self._extents.committed(self._extents.index(together[0].seq)), now_ms)
        for (holder, tenant, queue), (key, granted) in last.items():
            for name, heap in self._queues.get((tenant, queue), {}).items():
                if (queue, name) in self._served[holder]:
                    self._look(heap, key, granted, now_ms)

    def _wait(self, job: str, seq: int) -> None:
        submitted = self._jobs.get(job)
        if submitted is None or submitted.apart:
            return
        ready_ms = self._ready_ms[job]
        key = order_key(submitted.priority, ready_ms, self._step_ms)
        entry = self._waiting[job] = _Entry(key, seq, job, ready_ms)
        self._fresh.append((self._extents.index(seq), entry))

    def _advance(self, committed: int, now_ms: int) -> None:
        """Lets entries count that have committed, and then have waited for long enough."""
        while self._fresh and self._fresh[0][0] <= committed:
            _, entry = self._fresh.popleft()
            if self._waiting.get(entry.job) is entry:
                heappush(self._young, (entry.ready_ms + PASSED_OVER_MS, entry))
        while self._young and self._young[0][0] <= now_ms:
            _, entry = heappop(self._young)
            job = self._jobs[entry.job]
            lanes = self._queues.setdefault((job.tenant, job.queue), {})
            heappush(lanes.setdefault(job.name, []), entry)

    def _look(self, heap: list[_Entry], key: Key, granted: str, now_ms: int) -> None:
        while heap:
            first = heap[0]
            if self._waiting.get(first.job) is not first:
                heappop(heap)
                continue
            if first.key < key:
                waited_ms = now_ms - first.ready_ms
                detail = f"passed over by {granted} after it had been ready for {waited_ms} ms"
                self.violations.append(Violation("S11", first.job, detail))
                heappop(heap)
            return
