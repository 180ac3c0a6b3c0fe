"""S12: a delayed job never starts early; while all is well it is ready soon after its time.

By the term's own clock, exactly: nothing becomes ready, and nothing is granted, before its time,
neither a delayed submit nor a retry with backoff. (Adopted leases are left out: a dead leader's
clock decided on them.) And that clock never runs back, from event to event and from term to term.

By the clients' and workers' clock: a job that was submitted with a delay starts no earlier than
that long after the call began, less what the masters' clocks were apart (``skew_ms``). A term's
time is always within the masters' clocks, however slow the store was in telling of them, and so is
the next one's (ADR 10); so it gains no more on the true time than that, across any failovers.

While all is well (one term, past its window, no fault shortly before or meanwhile) a job becomes
ready within ``READY_WITHIN_MS`` of its time. When it then starts is a matter of order and capacity.
The term's times are compared with the faults' by the wall clock, so this is held only if no clock
was bent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Final

from tests.oracles.evidence import FaultWindow
from tests.oracles.facts import (
    Boosted,
    Fact,
    Freed,
    Granted,
    JobFact,
    Readied,
    Requeued,
    Submitted,
    TermBegan,
    Waits,
)
from tests.oracles.history import START, SUBMIT, Row
from tests.oracles.verdict import Violation

READY_WITHIN_MS: Final = 2_000
#: A term's window, and what a fault may leave to be done when it has ended.
_SETTLE_MS: Final = 10_000
#: Clocks are read in whole milliseconds: each wall and boot clock, and the term's.
_ROUNDING_MS: Final = 3


def check_delays(lives: Mapping[str, Sequence[JobFact]]) -> list[Violation]:
    """Each job's facts by themselves, by the term's clock."""
    violations = []
    for job, life in lives.items():
        due_ms = 0
        for fact in life:
            match fact:
                case Submitted() | Waits() | Boosted() | Freed():
                    due_ms = fact.ready_ms
                case Requeued():
                    due_ms = fact.at_ms
                case Readied() | Granted():
                    if fact.at_ms < due_ms:
                        what = "granted" if isinstance(fact, Granted) else "ready"
                        detail = f"was {what} {due_ms - fact.at_ms} ms before its time"
                        violations.append(Violation("S12", job, detail))
                case _:
                    pass
    return violations


def check_term_time(facts: Iterable[Fact]) -> list[Violation]:
    """One partition's facts in journal order: no event was decided before the one before it."""
    now_ms = 0
    violations = []
    for fact in facts:
        if isinstance(fact, Submitted | Readied | Granted | Requeued | TermBegan):
            if fact.at_ms < now_ms:
                detail = f"time ran back by {now_ms - fact.at_ms} ms"
                violations.append(Violation("S12", f"seq {fact.seq}", detail))
            now_ms = max(now_ms, fact.at_ms)
    return violations


def check_early_starts(
    rows: Sequence[Row], lives: Mapping[str, Sequence[JobFact]], *, skew_ms: float
) -> list[Violation]:
    """The first start of each delayed job against the beginning of the call that submitted it.

    A job that was requeued, or boosted, has another time.
    """
    asked = {row.hash: row for row in reversed(rows) if row.f == SUBMIT and row.type == "invoke"}
    violations = []
    for row in rows:
        life = lives.get(row.job, ())
        if row.f != START or not life or not isinstance(life[0], Submitted):
            continue
        submit = asked.get(life[0].content)
        if submit is None or submit.delay_ms <= 0:
            continue
        least_ms = submit.delay_ms - skew_ms - _ROUNDING_MS
        waited_ms = row.boottime - submit.boottime
        if waited_ms < least_ms and not any(isinstance(f, Requeued | Boosted) for f in life):
            detail = f"started after {waited_ms:.0f} ms, with a delay of {submit.delay_ms:.0f}"
            violations.append(Violation("S12", row.job, detail))
    return violations


def check_late_ready(
    facts: Sequence[Fact], faults: Sequence[FaultWindow], *, wall_ahead_ms: float
) -> list[Violation]:
    """One partition's delays and backoffs that ended while all was well.

    Args:
        facts: In journal order.
        faults: All that there were.
        wall_ahead_ms: What the wall clock is ahead of the boot clock.
    """
    due_ms: dict[str, int] = {}
    term_ms = inf
    violations = []
    for fact in facts:
        match fact:
            case TermBegan():
                term_ms = fact.at_ms
            case Submitted() | Waits() | Boosted() | Freed():
                due_ms[fact.job] = fact.ready_ms
            case Readied():
                since_ms = due_ms.get(fact.job, fact.at_ms)
                if fact.at_ms <= since_ms + READY_WITHIN_MS or since_ms < term_ms + _SETTLE_MS:
                    continue
                first_ms = since_ms - wall_ahead_ms - _SETTLE_MS
                last_ms = fact.at_ms - wall_ahead_ms
                if not any(f.since_ms <= last_ms and f.until_ms >= first_ms for f in faults):
                    detail = f"became ready {fact.at_ms - since_ms} ms late, while all was well"
                    violations.append(Violation("S12", fact.job, detail))
            case _:
                pass
    return violations
