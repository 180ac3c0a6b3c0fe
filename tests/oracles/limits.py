"""S17: limits hold at each grant, in the order of a partition's leaders and over all failovers.

The limits in force are those of the last event that has set them.

- *Concurrency.* With each grant, the jobs of its queue that run, and those that share its limit key
  there, are no more than may run at once. A lease counts from its grant or its adoption until it is
  closed, whoever led then. (A limit that is lowered stops nobody: they run out.)
- *Rates.* In one term, and since the rate was last changed, no more is granted in any time than
  ``burst + rate * time``; and since that beginning no more than ``rate * time``: a bucket is empty
  then, for nobody knows what the last leader granted at its end. So no failover gives a burst more.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.oracles.facts import (
    Adopted,
    Closed,
    Fact,
    Granted,
    QueueSet,
    Rate,
    Settled,
    Submitted,
    TermBegan,
    Waits,
)
from tests.oracles.verdict import Violation

#: (tenant, queue), and the limit key of those that share one; "": the queue's own limits.
Place = tuple[str, str, str]


def check_limits(facts: Sequence[Fact]) -> list[Violation]:
    """One partition's facts, in journal order."""
    limited = {
        (fact.tenant, fact.queue)
        for fact in facts
        if isinstance(fact, QueueSet)
        if fact.concurrency or fact.key_concurrency or fact.rate or fact.key_rate
    }
    if not limited:
        return []
    warden = _Warden(limited)
    for fact in facts:
        warden.see(fact)
    return warden.violations


class _Bucket:
    """What may be granted, in units of 1 / ``per_ms`` grants: nothing is rounded."""

    def __init__(self, rate: Rate, empty_ms: int) -> None:
        self._rate = rate
        self._level = 0
        self._at_ms = empty_ms

    def take(self, now_ms: int) -> bool:
        """One grant; whether there was room for it."""
        count, per_ms, burst = self._rate
        gained = (now_ms - self._at_ms) * count
        self._level = min(self._level + gained, burst * per_ms) - per_ms
        self._at_ms = now_ms
        return self._level >= 0


class _Warden:
    def __init__(self, limited: set[tuple[str, str]]) -> None:
        self.violations: list[Violation] = []
        self._limited = limited
        self._rules: dict[tuple[str, str], QueueSet] = {}
        #: The jobs of the limited queues: where each counts.
        self._places: dict[str, tuple[Place, ...]] = {}
        self._running: dict[Place, set[str]] = {}
        self._buckets: dict[Place, _Bucket] = {}
        #: When all buckets were empty; those of one place, if that was later.
        self._term_ms = 0
        self._empty_ms: dict[Place, int] = {}

    def see(self, fact: Fact) -> None:
        """The next fact."""
        match fact:
            case Submitted():
                queue = (fact.tenant, fact.queue)
                if queue in self._limited:
                    keys = ("", fact.limit_key) if fact.limit_key else ("",)
                    self._places[fact.job] = tuple((*queue, key) for key in keys)
            case Granted() | Adopted():
                for place in self._places.get(fact.job, ()):
                    self._running.setdefault(place, set()).add(fact.job)
                    if isinstance(fact, Granted):
                        self._check(place, fact)
            case Closed() | Settled() | Waits():
                for place in self._places.get(fact.job, ()):
                    self._running.get(place, set()).discard(fact.job)
            case TermBegan():
                self._term_ms = fact.at_ms
                self._buckets.clear()
            case QueueSet():
                self._set(fact)
            case _:
                pass

    def _set(self, fact: QueueSet) -> None:
        queue = (fact.tenant, fact.queue)
        before = self._rules.get(queue, QueueSet(0, 0, *queue))
        self._rules[queue] = fact
        if before.rate != fact.rate:
            self._buckets.pop((*queue, ""), None)
            self._empty_ms[(*queue, "")] = fact.at_ms
        if before.key_rate != fact.key_rate:
            keys = {key for tenant, name, key in self._buckets if key and (tenant, name) == queue}
            for key in keys:
                del self._buckets[*queue, key]
            self._empty_ms[(*queue, _ANY_KEY)] = fact.at_ms

    def _check(self, place: Place, fact: Granted) -> None:
        """One grant, which counts by now."""
        tenant, queue, key = place
        rules = self._rules.get((tenant, queue))
        if rules is None:
            return
        what = f"limit key {key} of queue {queue}" if key else f"queue {queue}"
        concurrency = rules.key_concurrency if key else rules.concurrency
        running = len(self._running[place])
        if concurrency and running > concurrency:
            self._say(fact.job, f"granted as number {running} of {what}: {concurrency} may run")
        rate = rules.key_rate if key else rules.rate
        if rate is None:
            return
        bucket = self._buckets.get(place)
        if bucket is None:
            changed_ms = self._empty_ms.get((tenant, queue, key and _ANY_KEY), 0)
            bucket = self._buckets[place] = _Bucket(rate, max(self._term_ms, changed_ms))
        if not bucket.take(fact.at_ms):
            self._say(fact.job, f"granted when {what} had no token: {rate}")

    def _say(self, job: str, wrong: str) -> None:
        self.violations.append(Violation("S17", job, wrong))


#: Stands for all limit keys of a queue.
_ANY_KEY = "*"
