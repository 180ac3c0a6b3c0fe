"""S14, between partitions: each message in an outbox takes effect once, and in order.

Both ends are in journals: what a partition has said, and what the other one has taken. The numbers
of one line (from a partition to another) have no gap; a cluster that was set back goes on above all
that it had given before. What was taken is what was said, from the first number on, each one once:
whoever dies in between. With each taking, in the events right before it, comes its effect, and no
effect comes without its message. Once all is well nothing waits longer than ``TAKEN_WITHIN_MS``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tests.oracles.facts import (
    CancelAsked,
    Fact,
    Freed,
    Message,
    Registered,
    Released,
    Requeued,
    Sent,
    Settled,
    Submitted,
    Taken,
    TermBegan,
    Told,
    Trimmed,
    Withdrawn,
    last_ms,
)
from tests.oracles.verdict import Violation

TAKEN_WITHIN_MS: Final = 20_000
#: Numbers of one epoch.
_EPOCH_BITS: Final = 31

#: (source, target).
Line = tuple[int, int]


def check_post(facts: Mapping[int, Sequence[Fact]], *, drained: bool) -> list[Violation]:
    """All lines between partitions.

    Args:
        facts: Of each partition, in journal order.
        drained: Whether all was well again at the end, for long enough.
    """
    said: dict[Line, list[Sent]] = {}
    violations = []
    for source, found in facts.items():
        violations += _read_outbox(source, found, said)
    if not said:
        return violations
    taken: dict[Line, int] = {}
    ends_ms = {partition: last_ms(found) for partition, found in facts.items()}
    for target, found in facts.items():
        inbox = _Inbox(target, said)
        for fact in found:
            inbox.see(fact)
        violations += inbox.violations
        taken |= inbox.taken
    for (source, target), line in said.items():
        count = taken.get((source, target), 0)
        for sent in line[count : count + 1]:
            waits_ms = min(ends_ms[source], ends_ms.get(target, 0)) - sent.at_ms
            if drained and waits_ms > TAKEN_WITHIN_MS:
                wrong = f"message {sent.number} to {target} was never taken"
                violations.append(Violation("S14", f"partition {source}", wrong))
    violations += _check_trims(facts, said, taken)
    return violations


def _read_outbox(
    source: int, facts: Sequence[Fact], said: dict[Line, list[Sent]]
) -> list[Violation]:
    """What a partition has said, and that its numbers have no gap."""
    epoch = 0
    violations = []
    for fact in facts:
        if isinstance(fact, TermBegan):
            epoch = int(fact.token[:8], 16)
        elif isinstance(fact, Sent):
            line = said.setdefault((source, fact.target), [])
            number = max(line[-1].number + 1 if line else 1, (epoch << _EPOCH_BITS) + 1)
            if fact.number != number:
                wrong = f"message {number} to {fact.target} has the number {fact.number}"
                violations.append(Violation("S14", f"partition {source}", wrong))
            line.append(fact)
    return violations


def _check_trims(
    facts: Mapping[int, Sequence[Fact]],
    said: Mapping[Line, Sequence[Sent]],
    taken: Mapping[Line, int],
) -> list[Violation]:
    """Nothing is forgotten that was not taken."""
    violations = []
    for source, found in facts.items():
        for fact in found:
            if not isinstance(fact, Trimmed):
                continue
            line = said.get((source, fact.target), ())
            count = taken.get((source, fact.target), 0)
            if len(line) > count and line[count].number <= fact.upto:
                wrong = f"{fact.upto} to {fact.target} is forgotten, and {count} were taken"
                violations.append(Violation("S14", f"partition {source}", wrong))
    return violations


class _Inbox:
    """What one partition takes."""

    def __init__(self, target: int, said: Mapping[Line, Sequence[Sent]]) -> None:
        self.violations: list[Violation] = []
        #: How many messages of each line were taken.
        self.taken: dict[Line, int] = {}
        self._target = target
        self._said = said
        #: An effect whose message must come next.
        self._effect: Registered | Released | Told | None = None
        self._jobs: set[str] = set()
        self._keys: set[tuple[str, str, str]] = set()
        #: Jobs that have ended, or were asked to.
        self._stopping: set[str] = set()
        #: Jobs that wait for their parents: which, and in which run; and what was heard of those.
        self._parents: dict[str, tuple[str, ...]] = {}
        self._waiting: dict[str, int] = {}
        self._heard: dict[tuple[str, str], str] = {}
        #: By (parent here, child elsewhere): the child's run.
        self._registered: dict[tuple[str, str], int] = {}

    def see(self, fact: Fact) -> None:
        """The next fact."""
        effect, self._effect = self._effect, None
        if effect is not None and not isinstance(fact, Taken):
            self._say(f"seq {effect.seq}: {type(effect).__name__} without a message")
        match fact:
            case Submitted():
                self._jobs.add(fact.job)
                self._keys.add((fact.tenant, fact.queue, fact.key))
                if fact.parents:
                    self._parents[fact.job] = fact.parents
                    self._waiting[fact.job] = 0
            case Freed():
                self._waiting.pop(fact.job, None)
            case CancelAsked() | Settled() | Withdrawn():
                self._waiting.pop(fact.job, None)
                self._stopping.add(fact.job)
            case Requeued():
                self._requeue(fact)
            case Registered():
                self._registered[fact.parent, fact.child] = fact.run
                self._effect = fact
            case Released():
                self._registered.pop((fact.parent, fact.child), None)
                self._effect = fact
            case Told():
                self._heard[fact.child, fact.parent] = fact.outcome
                self._effect = fact
            case Sent(message=Message(kind="tell", outcome="GONE", job=parent, child=child)):
                self._registered.pop((parent, child), None)
            case Taken():
                self._take(fact, effect)
            case _:
                pass

    def _requeue(self, fact: Requeued) -> None:
        self._stopping.discard(fact.job)
        if not fact.pending and fact.job in self._parents:
            self._waiting[fact.job] = fact.run
            for parent in self._parents[fact.job]:
                self._heard.pop((fact.job, parent), None)

    def _take(self, fact: Taken, effect: Registered | Released | Told | None) -> None:
        place = (fact.source, self._target)
        line, count = self._said.get(place, ()), self.taken.get(place, 0)
        if count >= len(line) or line[count].number != fact.number:
            expected = line[count].number if count < len(line) else "nothing"
            self._say(f"took {fact.number} of {fact.source}, where {expected} was next")
            # Whatever comes, go on behind it.
            self.taken[place] = sum(sent.number <= fact.number for sent in line)
            return
        self.taken[place] = count + 1
        message = line[count].message
        if effect is not None and not _is_of(effect, message):
            self._say(f"seq {effect.seq}: {type(effect).__name__} is not what {message} calls for")
        wrong = self._missing(message, effect)
        if wrong:
            self._say(f"took {fact.number} of {fact.source}, {message}, but {wrong}")

    def _missing(self, message: Message, effect: Registered | Released | Told | None) -> str:
        """Why a message that was taken has not had its effect."""
        job, child = message.job, message.child
        match message.kind:
            case "submit":
                known = job in self._jobs or (message.key[2] and message.key in self._keys)
                return "" if known else "its job is not there"
            case "register":
                run = self._registered.get((job, child), -1)
                return "" if run >= message.run else "nobody is registered"
            case "release":
                run = self._registered.get((job, child), -1)
                return "still registered" if effect is None and 0 <= run <= message.run else ""
            case "tell":
                waits = self._waiting.get(child) == message.run and job in self._parents[child]
                heard = self._heard.get((child, job))
                return f"it has heard {heard}" if waits and heard != message.outcome else ""
            case "cancel":
                there = job in self._jobs and job not in self._stopping
                return "the job goes on" if there else ""
        return ""

    def _say(self, wrong: str) -> None:
        self.violations.append(Violation("S14", f"partition {self._target}", wrong))


def _is_of(effect: Registered | Released | Told, message: Message) -> bool:
    kind = {Registered: "register", Released: "release", Told: "tell"}[type(effect)]
    if (kind, effect.parent, effect.child) != (message.kind, message.job, message.child):
        return False
    return not isinstance(effect, Told) or effect.outcome == message.outcome
