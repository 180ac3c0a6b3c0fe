"""S5 in real time: how long two executions of one job ran side by side, and whether that may be.

Without faults no two executions of a job overlap. With faults they may: a worker that cannot be
told that its lease is gone runs on until its own deadline. That comes at most one lease TTL after
it sent the last heartbeat that was answered; and none that was sent after the next grant is
answered in favour of the old lease, for whoever grants has closed that lease, or has never known
it. After the deadline the job must notice. So the overlap is at most

    lease TTL + reaction + the time for which the first execution's process could not act.

Code that was asked to stop and says that it goes on (``DEFY``) its worker can only give up. What it
does from then on is no execution of the job any more; until then it is one.

An execution whose end nobody recorded (its process died) counts up to its start: the claim is the
weaker for it, never wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

from tests.oracles.evidence import FaultWindow
from tests.oracles.history import DEFY, END, QUIT, START, Row
from tests.oracles.verdict import Violation


class Overlap(NamedTuple):
    """Two executions of a job ran at the same time; the first one's lease is the older."""

    job: str
    process: str
    since_ms: float
    until_ms: float

    @property
    def length_ms(self) -> float:
        """How long."""
        return self.until_ms - self.since_ms


def overlaps(rows: Iterable[Row]) -> list[Overlap]:
    """All pairs of executions of one job under different leases that ran side by side."""
    starts: dict[str, dict[str, Row]] = {}
    ends: dict[tuple[str, str], float] = {}
    defied: dict[tuple[str, str], float] = {}
    for row in rows:
        if row.f == START:
            starts.setdefault(row.job, {}).setdefault(row.lease, row)
        elif row.f in (END, QUIT):
            ends[row.job, row.lease] = row.boottime
        elif row.f == DEFY:
            defied.setdefault((row.job, row.lease), row.boottime)
    found = []
    for job, leases in starts.items():
        if len(leases) < 2:
            continue
        for first, second in combinations([leases[lease] for lease in sorted(leases)], 2):
            since_ms = max(first.boottime, second.boottime)
            until_ms = min(ends.get((job, row.lease), row.boottime) for row in (first, second))
            until_ms = min(until_ms, defied.get((job, first.lease), until_ms))
            if since_ms < until_ms:
                found.append(Overlap(job, first.process, since_ms, until_ms))
    return found


def check_overlaps(
    found: Iterable[Overlap],
    faults: Sequence[FaultWindow],
    *,
    lease_ttl_ms: float,
    reaction_ms: float,
) -> list[Violation]:
    """Hold what overlapped to the bound; ``faults`` are all that there were."""
    violations = []
    for overlap in found:
        if not faults:
            detail = f"ran twice at once for {overlap.length_ms:.0f} ms, without any fault"
            violations.append(Violation("S5", overlap.job, detail))
            continue
        still_ms = hit_ms(faults, overlap.process, overlap.since_ms, overlap.until_ms)
        bound_ms = lease_ttl_ms + reaction_ms + still_ms
        if overlap.length_ms > bound_ms:
            detail = f"ran twice at once for {overlap.length_ms:.0f} ms, at most {bound_ms:.0f}"
            violations.append(Violation("S5", overlap.job, detail))
    return violations


def hit_ms(faults: Iterable[FaultWindow], process: str, since_ms: float, until_ms: float) -> float:
    """For how long, between two moments, something was wrong that may concern a process.

    However many things were wrong at once, each moment counts once.
    """
    total_ms, reached_ms = 0.0, since_ms
    for fault in sorted(faults, key=lambda fault: fault.since_ms):
        if fault.node in ("", process):
            begin_ms, end_ms = max(fault.since_ms, reached_ms), min(fault.until_ms, until_ms)
            if begin_ms < end_ms:
                total_ms += end_ms - begin_ms
                reached_ms = end_ms
    return total_ms
