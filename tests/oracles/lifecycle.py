"""S10: submit < grant < start < complete, and nothing starts once a cancel was acknowledged.

In the journal's order, exactly: a job is submitted first and once; it is granted only while it
waits for a worker; it ends once a run; after it was asked to stop, or has ended, it is granted only
after a requeue; it is forgotten only when it has ended. In real time, by the rows of all processes
of one machine: it is submitted, started and ended in that order, and each result that was read was
come to before.

After an acknowledged cancel a job may yet start under a lease that was given before: the worker has
it, and is told, or lets it lapse by itself. So it starts no later than one lease TTL after the
acknowledgement, and the time for which its process could not act. Requeued jobs are left out there:
a client's clock does not tell which run it was that started.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf

from tests.oracles.evidence import FaultWindow
from tests.oracles.facts import (
    Adopted,
    Boosted,
    CancelAsked,
    Closed,
    Freed,
    Granted,
    JobFact,
    Purged,
    Readied,
    Requeued,
    Saved,
    Settled,
    Submitted,
    Waits,
    Withdrawn,
)
from tests.oracles.history import CANCEL, END, RESULT, START, SUBMIT, Row
from tests.oracles.overlaps import hit_ms
from tests.oracles.verdict import Violation


def check_lives(lives: Mapping[str, Sequence[JobFact]]) -> list[Violation]:
    """Each job's facts by themselves, in the journal's order; the journal is whole."""
    violations = []
    for job, life in lives.items():
        judge = _Life()
        for fact in life:
            wrong = judge.see(fact)
            if wrong:
                violations.append(Violation("S10", job, f"seq {fact.seq}: {wrong}"))
    return violations


class _Life:
    """Where one job is: waiting (for a worker or for its time), running, ended or gone."""

    def __init__(self) -> None:
        self._where = "nowhere"
        self._asked = False

    def see(self, fact: JobFact) -> str:
        """Take one fact; what is wrong with it, or nothing."""
        where = self._where
        if isinstance(fact, Submitted):
            self._where = "ready" if fact.pending else "early"
            return "" if where == "nowhere" else f"submitted, though it was {where}"
        match fact:
            case Readied():
                self._where = "ready"
                return "" if where == "early" else f"became ready, though it was {where}"
            case Granted():
                self._where = "running"
                if self._asked:
                    return "granted after a cancel"
                return "" if where == "ready" else f"granted, though it was {where}"
            case Adopted():
                self._where = "running"
                fine = where in ("early", "ready", "running")
                return "" if fine else f"adopted, though it was {where}"
            case Closed():
                return "" if where == "running" else f"a lease closed, though it was {where}"
            case Saved():
                return "" if where == "running" else f"saved something, though it was {where}"
            case Waits():
                self._where = "ready" if fact.pending else "early"
                return "" if where == "running" else f"waits again, though it was {where}"
            case Boosted():
                self._where = "ready" if fact.pending else "early"
                fine = where in ("early", "ready")
                return "" if fine else f"boosted, though it was {where}"
            case CancelAsked():
                self._asked = True
                return "" if where == "running" else f"asked to stop, though it was {where}"
            case Settled():
                self._where = "ended"
                fine = where in ("early", "ready", "running")
                return "" if fine else f"ended as {fact.state}, though it was {where}"
            case Freed():
                self._where = "ready" if fact.pending else "early"
                return "" if where == "early" else f"let run by its parents, though it was {where}"
            case Withdrawn():
                self._where = "nowhere"
                return "" if where == "early" else f"withdrawn, though it was {where}"
            case Requeued():
                self._where, self._asked = "ready" if fact.pending else "early", False
                return "" if where == "ended" else f"requeued, though it was {where}"
            case Purged():
                self._where = "gone"
                return "" if where == "ended" else f"forgotten, though it was {where}"


def check_times(
    rows: Sequence[Row],
    lives: Mapping[str, Sequence[JobFact]],
    faults: Sequence[FaultWindow] | None,
    *,
    lease_ttl_ms: float,
    reaction_ms: float,
) -> list[Violation]:
    """The real-time half; the grace after a cancel is held only if all faults are known."""
    asked_ms = _asked_ms(rows, lives)
    cancelled_ms = {} if faults is None else _cancelled_ms(rows, lives)
    started: dict[tuple[str, str], float] = {}
    ended: dict[tuple[str, str], float] = {}
    violations = []
    for row in rows:
        job, at_ms, wrong = row.job, row.boottime, ""
        if row.f == START:
            started.setdefault((job, row.lease), at_ms)
            late_ms = at_ms - cancelled_ms.get(job, inf) - lease_ttl_ms - reaction_ms
            if at_ms < asked_ms.get(job, -inf):
                wrong = "started before it was submitted"
            elif late_ms > hit_ms(faults or (), row.process, cancelled_ms.get(job, at_ms), at_ms):
                wrong = f"started {late_ms:.0f} ms too late after its cancel was acknowledged"
        elif row.f == END:
            ended[job, row.hash] = min(at_ms, ended.get((job, row.hash), inf))
            if at_ms < started.get((job, row.lease), inf):
                wrong = f"ended under {row.lease} before it started"
        elif row.f == RESULT and row.state == "COMPLETED" and row.type == "ok":
            unended = at_ms < ended.get((job, row.hash), inf)
            wrong = f"{row.process} read what no worker had come to yet" if unended else ""
        if wrong:
            violations.append(Violation("S10", job, wrong))
    return violations


def _asked_ms(rows: Iterable[Row], lives: Mapping[str, Sequence[JobFact]]) -> dict[str, float]:
    """When each job was first asked for: by its content, so that unknown outcomes count too."""
    first: dict[str, float] = {}
    for row in rows:
        if row.f == SUBMIT and row.type == "invoke":
            first.setdefault(row.hash, row.boottime)
    found: dict[str, float] = {}
    for job, life in lives.items():
        submitted = life[0]
        if isinstance(submitted, Submitted) and submitted.content in first:
            found[job] = first[submitted.content]
    return found


def _cancelled_ms(rows: Iterable[Row], lives: Mapping[str, Sequence[JobFact]]) -> dict[str, float]:
    """When a cancel was first acknowledged, of jobs that were never requeued."""
    found: dict[str, float] = {}
    for row in rows:
        if row.f == CANCEL and row.type == "ok":
            life = lives.get(row.job, ())
            if life and not any(isinstance(fact, Requeued) for fact in life):
                found.setdefault(row.job, row.boottime)
    return found
