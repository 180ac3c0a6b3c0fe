"""S16: one job a (tenant, queue, key) in its window, and concurrent submits get the same id.

In the journal: a key's next job is accepted only after the window of the one before, by the term's
clock; or if it asks to replace it, and that one does not run: if it waits it is cancelled by the
next event, for that reason. (A job that was withdrawn had never been accepted.)

At the clients: whatever id a submit with a key was answered, the job of that id is one that the
journal accepted under that very key; so two concurrent submits with different answers would need
two jobs of one key in the journal, and those are never in one window, but where one has replaced
the other. A submit that asks to be rejected is answered its own job or none, and a refusal names
one that has the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from tests.oracles.facts import (
    Adopted,
    Closed,
    Fact,
    Granted,
    Requeued,
    Settled,
    Submitted,
    Waits,
    Withdrawn,
)
from tests.oracles.history import SUBMIT, Row
from tests.oracles.verdict import Violation

#: What is said to a job whose key another one has taken.
REPLACED: Final = "replaced by a newer job with its key"

_Name = tuple[str, str, str]


def check_keys(rows: Iterable[Row], facts: Iterable[Fact]) -> list[Violation]:
    """Facts of all partitions, each in journal order; a key lives in one of them."""
    ring = _Ring()
    for fact in facts:
        ring.see(fact)
    return ring.violations + _check_answers(rows, ring.names, ring.contents)


class _Ring:
    """The keys of all partitions."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        #: By job: its key, and its content.
        self.names: dict[str, str] = {}
        self.contents: dict[str, str] = {}
        #: By key: whose it is.
        self._holders: dict[_Name, Submitted] = {}
        #: Jobs with keys that run, and those that have ended.
        self._running: set[str] = set()
        self._ended: set[str] = set()
        #: Jobs that have lost their keys, and must be cancelled by the next event.
        self._replaced: dict[str, int] = {}

    def see(self, fact: Fact) -> None:
        """The next fact."""
        if self._replaced:
            self._check_replaced(fact)
        match fact:
            case Submitted():
                self.names[fact.job] = fact.key
                self.contents[fact.job] = fact.content
                if fact.key:
                    self._submit(fact)
            case Granted() | Adopted():
                if self.names.get(fact.job):
                    self._running.add(fact.job)
            case Closed() | Waits():
                self._running.discard(fact.job)
            case Settled():
                self._running.discard(fact.job)
                self._ended.add(fact.job)
            case Requeued():
                self._ended.discard(fact.job)
            case Withdrawn():
                self._withdraw(fact.job)
            case _:
                pass

    def _submit(self, fact: Submitted) -> None:
        name = (fact.tenant, fact.queue, fact.key)
        former = self._holders.get(name)
        self._holders[name] = fact
        if former is None or fact.at_ms >= former.at_ms + former.key_window_ms:
            return
        left_ms = former.at_ms + former.key_window_ms - fact.at_ms
        if fact.conflict != "REPLACE":
            wrong = f"while {former.job} held it, {left_ms} ms too soon"
            self._say(fact.job, f"accepted for key {fact.key} {wrong}")
        elif former.job in self._running:
            self._say(fact.job, f"has taken key {fact.key} from {former.job}, which runs")
        elif former.job not in self._ended:
            self._replaced[former.job] = fact.seq

    def _withdraw(self, job: str) -> None:
        """It was never there, and its key is free."""
        for name, holder in list(self._holders.items()):
            if holder.job == job:
                del self._holders[name]

    def _check_replaced(self, fact: Fact) -> None:
        """Who has lost its key is cancelled with the event after."""
        for job, seq in list(self._replaced.items()):
            if isinstance(fact, Settled) and fact.job == job and fact.reason == REPLACED:
                del self._replaced[job]
            elif fact.seq > seq + 1:
                self._say(job, "has lost its key to a newer job, and was not cancelled")
                del self._replaced[job]
            elif fact.seq < seq:
                # The next partition's journal; this one ends before the event.
                del self._replaced[job]

    def _say(self, job: str, wrong: str) -> None:
        self.violations.append(Violation("S16", job, wrong))


def _check_answers(
    rows: Iterable[Row], names: Mapping[str, str], contents: Mapping[str, str]
) -> list[Violation]:
    """What submits with keys were told."""
    violations = []
    for row in rows:
        if row.f != SUBMIT or row.type not in ("ok", "fail") or not row.key or not row.job:
            continue
        key = names.get(row.job, row.key)
        another = contents.get(row.job, row.hash) != row.hash
        if key != row.key:
            detail = f"answered for key {row.key}, but its key is {key!r}"
            violations.append(Violation("S16", row.job, detail))
        elif row.type == "fail" and row.job not in names:
            violations.append(Violation("S16", row.job, f"told to have {key}, and is not there"))
        elif row.type == "ok" and row.conflict == "REJECT" and another:
            detail = f"answered for key {key}, though it was to be rejected: it is another's"
            violations.append(Violation("S16", row.job, detail))
    return violations
