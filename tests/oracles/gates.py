"""S17, what is closed: nothing is granted of a queue, tenant, job type or limit key that is.

- *Pauses.* Between the event that pauses a queue, a tenant or a job type and the one that lets it
  go on, no grant of its jobs is in the journal.
- *Breakers.* A breaker that people hold open lets nothing through. One that works by itself is
  followed here, for it goes by what the journal says: how attempts end, and when. It opens when so
  many of the attempts in its window have failed, for a time; then it lets as many probes through as
  it is told, and opens again when one fails, or closes when as many have succeeded. A term begins
  with all of them closed. Of its window between eleven and twelve twelfths are known to a leader
  (the documentation says so): where that decides whether it opens, nothing is claimed from then on,
  until the next term or the next settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.oracles.facts import (
    Closed,
    Fact,
    Fuse,
    Granted,
    JobTypeSet,
    QueueSet,
    Settled,
    Submitted,
    TenantSet,
    TermBegan,
)
from tests.oracles.verdict import Violation

#: How attempts end that count against a breaker, and those that count for it.
_FAILURES: Final = frozenset({"FAILED", "FAILED_PERMANENT", "TIMED_OUT", "LOST"})
_SUCCESS: Final = "COMPLETED"
#: A window is forgotten in so many parts.
_PARTS: Final = 12


def check_gates(facts: Sequence[Fact]) -> list[Violation]:
    """One partition's facts, in journal order."""
    if not any(isinstance(fact, QueueSet | TenantSet | JobTypeSet) for fact in facts):
        return []
    porter = _Porter()
    for fact in facts:
        porter.see(fact)
    return porter.violations


class _Porter:
    def __init__(self) -> None:
        self.violations: list[Violation] = []
        #: By job: its queue, its tenant, its job type and its limit key if it has one, as gates.
        self._gates: dict[str, tuple[tuple[str, ...], ...]] = {}
        #: What is closed, and by which event.
        self._closed: dict[tuple[str, ...], int] = {}
        #: Those of limit keys begin with the first grant or the first end: of a grant that a leader
        #: did not live to journal only the end is known.
        self._breakers: dict[tuple[str, ...], _Breaker] = {}
        #: How queues are run, by tenant and name.
        self._queues: dict[tuple[str, str], QueueSet] = {}
        #: The lease that was closed last: whose, and by which event.
        self._newest = ("", 0)

    def see(self, fact: Fact) -> None:
        """The next fact."""
        match fact:
            case Submitted():
                tenant = fact.tenant
                gates = (("queue", tenant, fact.queue), ("tenant", tenant))
                own = [("job type", tenant, fact.name)]
                if fact.limit_key:
                    own.append(("limit key", tenant, fact.queue, fact.limit_key))
                self._gates[fact.job] = (*gates, *own)
            case Granted():
                self._grant(fact)
            case Closed():
                self._newest = (fact.job, fact.seq)
                self._end(fact)
            case Settled():
                late = fact.state == _SUCCESS and self._newest != (fact.job, fact.seq)
                if late and fact.job in self._gates:
                    # A result under a lease that was closed before.
                    self._doubt(fact.job)
            case QueueSet():
                self._turn(("queue", fact.tenant, fact.queue), fact.paused, fact.seq)
                self._set_keys(fact)
            case TenantSet():
                self._turn(("tenant", fact.tenant), fact.paused, fact.seq)
            case JobTypeSet():
                gate = ("job type", fact.tenant, fact.name)
                self._turn(gate, fact.paused or fact.override == "OPEN", fact.seq)
                self._fuse(gate, fact.breaker if fact.override == "NONE" else None)
            case TermBegan():
                for breaker in self._breakers.values():
                    breaker.close()
            case _:
                pass

    def _turn(self, gate: tuple[str, ...], closed: bool, seq: int) -> None:
        if closed:
            self._closed.setdefault(gate, seq)
        else:
            self._closed.pop(gate, None)

    def _set_keys(self, fact: QueueSet) -> None:
        """The breakers of a queue's limit keys: those that are other ones now begin anew."""
        queue = (fact.tenant, fact.queue)
        self._queues[queue] = fact
        held = {key for key, override in fact.key_overrides if override == "OPEN"}
        free = {key for key, _ in fact.key_overrides}
        for gate in [gate for gate in self._closed if gate[0] == "limit key"]:
            if gate[1:3] == queue and gate[3] not in held:
                del self._closed[gate]
        for key in held:
            self._closed.setdefault(("limit key", *queue, key), fact.seq)
        for gate in list(self._breakers):
            if gate[0] == "limit key" and gate[1:3] == queue:
                self._fuse(gate, None if gate[3] in free else fact.key_breaker)

    def _fuse(self, gate: tuple[str, ...], fuse: Fuse | None) -> None:
        known = self._breakers.get(gate)
        if fuse is None:
            self._breakers.pop(gate, None)
        elif known is None or known.fuse != fuse:
            self._breakers[gate] = _Breaker(fuse)

    def _grant(self, fact: Granted) -> None:
        gates = self._gates.get(fact.job, ())
        for gate in gates:
            if gate in self._closed:
                what = " ".join(gate)
                self._say(fact, f"granted though {what} is closed since seq {self._closed[gate]}")
        for gate, breaker in self._breakers_of(fact.job):
            wrong = breaker.grant(fact.job, fact.at_ms)
            if wrong:
                self._say(fact, f"granted though the breaker of {' '.join(gate)} {wrong}")

    def _begin(self, gate: tuple[str, ...]) -> None:
        """A limit key's breaker is there as soon as it is asked for."""
        if gate[0] != "limit key" or gate in self._breakers:
            return
        queue = self._queues.get((gate[1], gate[2]))
        if queue is not None and gate[3] not in dict(queue.key_overrides):
            self._fuse(gate, queue.key_breaker)

    def _breakers_of(self, job: str) -> list[tuple[tuple[str, ...], _Breaker]]:
        gates = self._gates.get(job, ())
        for gate in gates:
            self._begin(gate)
        return [(gate, self._breakers[gate]) for gate in gates if gate in self._breakers]

    def _end(self, fact: Closed) -> None:
        for _, breaker in self._breakers_of(fact.job):
            breaker.end(fact.job, fact.outcome, fact.at_ms)

    def _doubt(self, job: str) -> None:
        for _, breaker in self._breakers_of(job):
            breaker.doubt()

    def _say(self, fact: Granted, wrong: str) -> None:
        self.violations.append(Violation("S17", fact.job, f"seq {fact.seq}: {wrong}"))


class _Breaker:
    """One breaker, followed."""

    def __init__(self, fuse: Fuse) -> None:
        self.fuse = fuse
        self.close()

    def close(self) -> None:
        """Lets everything through, and knows of no attempt."""
        #: When attempts ended, and whether they failed.
        self._ended: list[tuple[int, bool]] = []
        #: Until when it is open; None: it is not.
        self._open_until_ms: int | None = None
        self._unknown = False
        self._probing: set[str] = set()
        self._succeeded = 0

    def grant(self, job: str, now_ms: int) -> str:
        """A job was granted; why it should not have been."""
        if self._unknown or self._open_until_ms is None:
            return ""
        if now_ms < self._open_until_ms:
            return f"is open for {self._open_until_ms - now_ms} ms yet"
        self._probing.add(job)
        if len(self._probing) + self._succeeded > self.fuse.probes:
            return f"lets {self.fuse.probes} probes through, and this is one more"
        return ""

    def doubt(self) -> None:
        """It has heard of something that is not known here."""
        self._unknown = True

    def end(self, job: str, outcome: str, now_ms: int) -> None:
        """An attempt has ended."""
        failed, probe = outcome in _FAILURES, job in self._probing
        self._probing.discard(job)
        if not failed and outcome != _SUCCESS:
            return
        self._ended.append((now_ms, failed))
        if self._open_until_ms is None:
            if failed:
                self._judge(now_ms)
        elif probe and failed:
            self._open(now_ms)
        elif probe:
            self._succeeded += 1
            if self._succeeded >= self.fuse.probes and not self._unknown:
                self.close()

    def _judge(self, now_ms: int) -> None:
        """A failure may have been one too many."""
        part_ms = -(-self.fuse.window_ms // _PARTS)
        longest_ms, shortest_ms = now_ms - part_ms * _PARTS, now_ms - part_ms * (_PARTS - 1)
        cuts = {at_ms for at_ms, _ in self._ended if longest_ms < at_ms <= shortest_ms}
        found = {self._trips(since_ms) for since_ms in (longest_ms, *cuts)}
        if found == {True}:
            self._open(now_ms)
        elif True in found:
            self._unknown = True

    def _trips(self, since_ms: int) -> bool:
        failures = [failed for at_ms, failed in self._ended if at_ms > since_ms]
        enough = len(failures) >= self.fuse.volume_min
        return enough and sum(failures) >= self.fuse.failure_rate * len(failures)

    def _open(self, now_ms: int) -> None:
        self._open_until_ms = now_ms + self.fuse.open_for_ms
        self._probing.clear()
        self._succeeded = 0
