"""S17, where a job does not just wait for its limit key: who is cancelled, and that somebody is.

A key is crowded when more of its jobs wait or run than may run at once.

- ``CANCEL_NEWEST``: who is cancelled for its key's sake waits and has not begun in its run, and as
  many of its key as may run do so, or wait and have begun or came before it.
- ``CANCEL_IN_PROGRESS``: of those that wait or run, in the order of their submits, as many of the
  first go as are too many.
- Nothing is crowded for longer than ``RELIEVED_WITHIN_MS``, but for jobs that were asked to stop.

The journal's order decides: what is cancelled by one event is judged by what was before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from tests.oracles.facts import (
    Adopted,
    Boosted,
    CancelAsked,
    Closed,
    Fact,
    Freed,
    Granted,
    JobFact,
    QueueSet,
    Readied,
    Requeued,
    Settled,
    Submitted,
    TermBegan,
    Waits,
    Withdrawn,
    is_about_job,
)
from tests.oracles.verdict import Violation

#: It is seen to at once, but for what a new leader has to do first.
RELIEVED_WITHIN_MS: Final = 20_000
#: What is said to jobs that have to go.
GIVES_WAY: Final = "another job of its limit key has its place"

#: (tenant, queue, limit key).
Key = tuple[str, str, str]


def check_crowding(facts: Sequence[Fact]) -> list[Violation]:
    """One partition's facts, in journal order."""
    cancelling = {
        (fact.tenant, fact.queue)
        for fact in facts
        if isinstance(fact, QueueSet) and fact.strategy != "QUEUE" and fact.key_concurrency
    }
    if not cancelling:
        return []
    usher = _Usher(cancelling)
    for fact in facts:
        usher.see(fact)
    return usher.violations


class _Surplus(NamedTuple):
    """Who has to go: which of those that wait, and which of those that run."""

    waiting: frozenset[str]
    running: frozenset[str]


_NOBODY: Final = _Surplus(frozenset(), frozenset())


class _Crowd:
    """The jobs of one limit key."""

    def __init__(self) -> None:
        #: Those that run, and whether they were asked to stop.
        self.running: dict[str, bool] = {}
        #: Those that wait for a worker, and how many came before each.
        self.waiting: dict[str, int] = {}
        #: The same of all that ever were there; and who has been granted in its run.
        self.places: dict[str, int] = {}
        self.begun: set[str] = set()
        #: Since when too many are there; None: there are not.
        self.since_ms: int | None = None
        #: As of the event that cancels some: who may go.
        self.surplus = _NOBODY
        self.judged_seq = -1

    def find_surplus(self, strategy: str, limit: int) -> _Surplus:
        """Who has to go now."""
        in_order = sorted(self.waiting, key=self.waiting.__getitem__)
        if strategy == "CANCEL_NEWEST":
            fresh = [job for job in in_order if job not in self.begun]
            room = max(limit - len(self.running) - (len(in_order) - len(fresh)), 0)
            return _Surplus(frozenset(fresh[room:]), frozenset())
        if strategy == "CANCEL_IN_PROGRESS":
            there = [*in_order, *(job for job, asked in self.running.items() if not asked)]
            there.sort(key=self.places.__getitem__)
            oldest = frozenset(there[: max(len(there) - limit, 0)])
            return _Surplus(oldest & self.waiting.keys(), oldest & self.running.keys())
        return _NOBODY


class _Usher:
    def __init__(self, cancelling: set[tuple[str, str]]) -> None:
        self.violations: list[Violation] = []
        self._cancelling = cancelling
        self._rules: dict[tuple[str, str], QueueSet] = {}
        self._jobs: dict[str, tuple[Key, int]] = {}
        self._crowds: dict[Key, _Crowd] = {}
        self._now_ms = 0

    def see(self, fact: Fact) -> None:
        """The next fact."""
        self._now_ms = max(self._now_ms, getattr(fact, "at_ms", 0))
        if isinstance(fact, TermBegan):
            for crowd in self._crowds.values():
                if crowd.since_ms is not None:
                    crowd.since_ms = self._now_ms
        elif isinstance(fact, QueueSet):
            self._rules[fact.tenant, fact.queue] = fact
            for key in self._crowds:
                if key[:2] == (fact.tenant, fact.queue):
                    self._look(key)
        elif is_about_job(fact):
            if isinstance(fact, Submitted):
                self._submit(fact)
            if fact.job in self._jobs:
                key, ordinal = self._jobs[fact.job]
                self._judge(key, fact)
                self._move(self._crowds[key], fact, ordinal)
                self._look(key)

    def _submit(self, fact: Submitted) -> None:
        if fact.limit_key and (fact.tenant, fact.queue) in self._cancelling:
            key = (fact.tenant, fact.queue, fact.limit_key)
            self._jobs[fact.job] = (key, len(self._jobs))
            self._crowds.setdefault(key, _Crowd())

    def _judge(self, key: Key, fact: JobFact) -> None:
        """Whether a job that goes for its key's sake has to."""
        if not isinstance(fact, CancelAsked | Settled) or fact.reason != GIVES_WAY:
            return
        crowd, rules = self._crowds[key], self._rules.get(key[:2])
        if isinstance(fact, Settled) and fact.lease:
            # It was asked to stop before, and has.
            return
        if crowd.judged_seq != fact.seq and rules is not None:
            crowd.surplus = crowd.find_surplus(rules.strategy, rules.key_concurrency)
            crowd.judged_seq = fact.seq
        waiting, running = crowd.surplus
        if fact.job not in (running if isinstance(fact, CancelAsked) else waiting):
            self._say(fact.job, f"seq {fact.seq}: goes for limit key {key[2]}, but need not")

    @staticmethod
    def _move(crowd: _Crowd, fact: JobFact, ordinal: int) -> None:
        job = fact.job
        crowd.places[job] = ordinal
        if isinstance(fact, Requeued):
            crowd.begun.discard(job)
        match fact:
            case Granted() | Adopted():
                crowd.waiting.pop(job, None)
                crowd.running[job] = False
                crowd.begun.add(job)
            case CancelAsked():
                if job in crowd.running:
                    crowd.running[job] = True
            case Closed():
                crowd.running.pop(job, None)
            case Readied():
                crowd.waiting[job] = ordinal
            case Submitted() | Waits() | Freed() | Boosted() | Requeued():
                crowd.running.pop(job, None)
                crowd.waiting.pop(job, None)
                if fact.pending:
                    crowd.waiting[job] = ordinal
            case Settled() | Withdrawn():
                crowd.running.pop(job, None)
                crowd.waiting.pop(job, None)
            case _:
                pass

    def _look(self, key: Key) -> None:
        """Whether too many are there, and for how long by now."""
        crowd, rules = self._crowds[key], self._rules.get(key[:2])
        if rules is None or rules.strategy == "QUEUE" or not rules.key_concurrency:
            crowd.since_ms = None
            return
        surplus = crowd.find_surplus(rules.strategy, rules.key_concurrency)
        if not surplus.waiting and not surplus.running:
            crowd.since_ms = None
        elif crowd.since_ms is None:
            crowd.since_ms = self._now_ms
        elif self._now_ms - crowd.since_ms > RELIEVED_WITHIN_MS:
            jobs = sorted(surplus.waiting or crowd.running)
            self._say(jobs[0], f"too many of limit key {key[2]} since {crowd.since_ms}")
            crowd.since_ms = self._now_ms

    def _say(self, job: str, wrong: str) -> None:
        self.violations.append(Violation("S17", job, wrong))
