"""S15: how often a job may be executed, and the numbers of its attempts.

Charged executions of a job are at most max_attempts + max_lost + F, where F counts the failovers
that may have caught a first grant's event uncommitted: such a run is known to its worker alone. A
checkpoint takes back the losses that were charged before it. What a worker hands back when it ends,
or is drained, costs nothing. And a loss has been lost: either the lease's time was over, or its
worker has reported it so; what a worker just does not list any more it was rid of otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from tests.oracles.facts import Adopted, Closed, Fact, Granted, Saved, Settled, Submitted, run_of
from tests.oracles.history import START, Row
from tests.oracles.verdict import Violation
from tests.oracles.word import Word


def check_executions(
    rows: Sequence[Row], facts: Sequence[Fact], *, failovers: int, words: Sequence[Word] = ()
) -> list[Violation]:
    """Count the starts that workers recorded against the budgets that the journal shows.

    Losses are judged where somebody listened to what was said of them (``words``).
    """
    budget = {
        fact.job: fact.max_attempts + fact.max_lost for fact in facts if isinstance(fact, Submitted)
    }
    for fact in facts:
        if isinstance(fact, Saved) and fact.job in budget:
            budget[fact.job] += fact.forgiven
    violations = [
        Violation("S15", fact.job, f"lease {fact.lease} was handed back, and charged")
        for fact in facts
        if isinstance(fact, Closed) and fact.outcome == "RELEASED" and fact.charged
    ]
    if words:
        violations += _unreported(facts, words)
    free = {fact.lease for fact in facts if isinstance(fact, Closed) and not fact.charged} - {
        fact.lease for fact in facts if isinstance(fact, Settled)
    }
    starts = _starts(rows)
    for (job, _run), leases in starts.items():
        charged = [lease for lease in leases if lease not in free]
        limit = budget.get(job, 0) + failovers
        if len(charged) > limit:
            violations.append(
                Violation("S15", job, f"{len(charged)} charged executions, at most {limit} allowed")
            )
        violations += _repeats(job, leases)
        violations += _falling(job, leases, failovers)
    return violations + _attempts_fall(facts)


def duplicate_executions(rows: Sequence[Row]) -> dict[str, int]:
    """Jobs that were started under more than one lease, and under how many."""
    return {job: len(leases) for (job, _), leases in _starts(rows).items() if len(leases) > 1}


def _starts(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, list[Row]]]:
    """Starts by job and run, then by lease."""
    starts: defaultdict[tuple[str, str], dict[str, list[Row]]] = defaultdict(dict)
    for row in rows:
        if row.f == START:
            starts[row.job, run_of(row.lease)].setdefault(row.lease, []).append(row)
    return starts


def _unreported(facts: Iterable[Fact], words: Iterable[Word]) -> list[Violation]:
    told = {lease for word in words if word.kind == "lost" for _, lease in word.leases}
    return [
        Violation("S15", fact.job, f"lease {fact.lease} was charged, in time and not reported lost")
        for fact in facts
        if isinstance(fact, Closed)
        and (fact.outcome, fact.charged) == ("LOST", "loss")
        and not fact.expired
        and fact.lease not in told
    ]


def _repeats(job: str, leases: dict[str, list[Row]]) -> list[Violation]:
    return [
        Violation("S15", job, f"lease {lease} was executed {len(found)} times")
        for lease, found in leases.items()
        if len(found) > 1
    ]


def _falling(job: str, leases: dict[str, list[Row]], failovers: int) -> list[Violation]:
    """Attempts rise with the leases; a failover may forget a first grant and count it again."""
    numbers = [leases[lease][0].attempt for lease in sorted(leases)]
    repeated = sum(1 for before, after in pairwise(numbers) if after <= before)
    if repeated <= failovers:
        return []
    return [Violation("S15", job, f"attempt numbers {numbers} do not rise")]


def _attempts_fall(facts: Iterable[Fact]) -> list[Violation]:
    """In the journal itself, where nothing is forgotten, attempts of a run rise by one."""
    last: dict[tuple[str, str], int] = {}
    violations = []
    for fact in facts:
        if not isinstance(fact, Granted | Adopted):
            continue
        # Each requeue starts the count anew.
        key = (fact.job, run_of(fact.lease))
        if fact.attempt <= last.get(key, 0):
            violations.append(
                Violation("S15", fact.job, f"attempt {fact.attempt} was granted after {last[key]}")
            )
        last[key] = fact.attempt
    return violations
