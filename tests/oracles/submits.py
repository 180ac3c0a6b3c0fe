"""S1, S2, S20: what was acknowledged is there; what is there was asked for and never refused.

The model is a total queue: every submit has its own content, and sets are compared. A submit of
unknown outcome may be there or not. Only submits with a key share contents: they may be answered a
job of another content, and what must hold then is S16. The jobs of schedules go apart (S13).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tests.oracles.facts import (
    Fact,
    Purged,
    Requeued,
    SchedulePut,
    Settled,
    Submitted,
    Withdrawn,
)
from tests.oracles.history import CANCEL, RESULT, SUBMIT, Row
from tests.oracles.verdict import Violation


class Present(NamedTuple):
    """A job found when the run was over, with the hash of what was submitted.

    ``state`` is empty while it is open; a purged one was there, and has ended.
    """

    job: str
    content: str
    state: str
    purged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How the submits of a run ended, and what is wrong with them."""

    acked: int
    failed: int
    unknown: int
    recovered: int
    lost: int
    unexpected: int
    duplicated: int
    violations: list[Violation]


def present_jobs(facts: Iterable[Fact]) -> list[Present]:
    """The jobs of a whole journal, each in its last state."""
    contents: list[tuple[str, str]] = []
    states: dict[str, str] = {}
    purged: set[str] = set()
    for fact in facts:
        match fact:
            case Submitted():
                contents.append((fact.job, fact.content))
            case Settled():
                states[fact.job] = fact.state
            case Requeued():
                states[fact.job] = ""
            case Purged():
                purged.add(fact.job)
            case Withdrawn():
                contents = [known for known in contents if known[0] != fact.job]
            case _:
                pass
    return [Present(job, content, states.get(job, ""), job in purged) for job, content in contents]


def scheduled_contents(facts: Iterable[Fact]) -> set[str]:
    """The contents of all schedules' jobs."""
    return {fact.plan.content for fact in facts if isinstance(fact, SchedulePut)}


def check_submits(
    rows: Iterable[Row], present: Sequence[Present], scheduled: Container[str] = ()
) -> Tally:
    """Compare the submits of a history with the jobs that exist after it.

    Args:
        rows: The history.
        present: The jobs of all partitions.
        scheduled: Contents of jobs that schedules submit: they are not looked at here.
    """
    present = [job for job in present if job.content not in scheduled]
    invoked: set[str] = set()
    acked: list[Row] = []
    failed: set[str] = set()
    unknown: set[str] = set()
    for row in rows:
        if row.f != SUBMIT:
            continue
        match row.type:
            case "invoke":
                invoked.add(row.hash)
            case "ok":
                acked.append(row)
            case "fail":
                failed.add(row.hash)
            case "info":
                unknown.add(row.hash)
    there = {job.content for job in present}
    lost = _lost(acked, present)
    unexpected = _unexpected(present, invoked)
    duplicated = _duplicated(acked, present)
    return Tally(
        acked=len(acked),
        failed=len(failed),
        unknown=len(unknown),
        recovered=len(unknown & there),
        lost=len(lost),
        unexpected=len(unexpected),
        duplicated=len(duplicated),
        violations=[
            *lost,
            *unexpected,
            *duplicated,
            *_failed_but_there(failed, {row.hash for row in acked} | unknown, present),
        ],
    )


def check_wholes(rows: Iterable[Row], facts: Iterable[Fact]) -> list[Violation]:
    """S20 for jobs that are all or nothing: one event has all of them, or there is none."""
    wholes: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.f == SUBMIT and row.whole:
            wholes[row.whole].add(row.hash)
    if not wholes:
        return []
    taken = {fact.content: fact.seq for fact in facts if isinstance(fact, Submitted)}
    found = []
    for name, contents in wholes.items():
        parts = contents & taken.keys()
        if parts and (len(parts) < len(contents) or len({taken[part] for part in parts}) > 1):
            why = f"{len(parts)} of {len(contents)} jobs were taken, or not all at once"
            found.append(Violation("S20", name, why))
    return found


def check_failed_cancels(rows: Sequence[Row], states: dict[str, str]) -> list[Violation]:
    """S20 for cancels: a job whose only cancels failed is not CANCELLED, and was never read so."""
    asked = {row.job for row in rows if row.f == CANCEL and row.type in ("ok", "info")}
    failed = {row.job for row in rows if row.f == CANCEL and row.type == "fail"} - asked
    read = {
        row.job: row.state
        for row in rows
        if row.f == RESULT and row.type == "ok" and row.state == "CANCELLED"
    }
    return [
        Violation("S20", job, "a cancel that was reported failed took effect")
        for job in sorted(failed)
        if "CANCELLED" in (states.get(job), read.get(job))
    ]


def _lost(acked: list[Row], present: Sequence[Present]) -> list[Violation]:
    there = {job.job: job.content for job in present}
    found = []
    for row in acked:
        content = there.get(row.job)
        if content is None:
            found.append(Violation("S1", row.job, f"acknowledged to {row.process}, then lost"))
        elif content != row.hash and not row.key:
            found.append(Violation("S1", row.job, "present with another content than was acked"))
    return found


def _unexpected(present: Sequence[Present], invoked: set[str]) -> list[Violation]:
    return [
        Violation("S2", job.job, "present, but nobody ever submitted it")
        for job in present
        if job.content not in invoked
    ]


def _duplicated(acked: list[Row], present: Sequence[Present]) -> list[Violation]:
    ids: defaultdict[str, set[str]] = defaultdict(set)
    entries: defaultdict[str, int] = defaultdict(int)
    for job in present:
        ids[job.content].add(job.job)
        entries[job.job] += 1
    found = [
        Violation("S1", job, f"present {count} times")
        for job, count in entries.items()
        if count > 1
    ]
    keyed = {row.hash for row in acked if row.key}
    for row in acked:
        ids[row.hash].add(row.job)
    found += [
        Violation("S1", content, f"one submit became the jobs {', '.join(sorted(jobs))}")
        for content, jobs in ids.items()
        if len(jobs) > 1 and content not in keyed
    ]
    return found


def _failed_but_there(
    failed: set[str], others: set[str], present: Sequence[Present]
) -> list[Violation]:
    return [
        Violation("S20", job.job, "its submit was reported failed, but it is present")
        for job in present
        if job.content in failed - others
    ]
