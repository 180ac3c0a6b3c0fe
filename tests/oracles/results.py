"""S3: at most one accepted terminal result a job and run, and every read shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tests.oracles.facts import Fact, Requeued, Settled, contents_of
from tests.oracles.history import REQUEUE, RESULT, SUBMIT, Row
from tests.oracles.verdict import Violation


def check_results(rows: Sequence[Row], facts: Iterable[Fact]) -> list[Violation]:
    """Compare what was accepted with what clients read, for jobs that nobody requeues mid-read."""
    violations: list[Violation] = []
    accepted: dict[tuple[str, int], Settled] = {}
    by_job: dict[str, set[tuple[str, str]]] = {}
    for fact in facts:
        if not isinstance(fact, Settled):
            continue
        earlier = accepted.setdefault((fact.job, fact.run), fact)
        if earlier is not fact:
            violations.append(
                Violation("S3", fact.job, f"settled at seq {earlier.seq} and at seq {fact.seq}")
            )
        by_job.setdefault(fact.job, set()).add((fact.state, fact.content))
    for row in rows:
        if row.f != RESULT or row.type != "ok":
            continue
        known = by_job.get(row.job)
        if known is None:
            violations.append(Violation("S3", row.job, "a result was read that none accepted"))
        elif (row.state, row.hash) not in known:
            violations.append(
                Violation("S3", row.job, f"{row.process} read {row.state} {row.hash}, not {known}")
            )
    return violations


def accepted_twice(facts: Iterable[Fact]) -> int:
    """How many runs of jobs have more than one accepted result."""
    runs = Counter((fact.job, fact.run) for fact in facts if isinstance(fact, Settled))
    return sum(count > 1 for count in runs.values())


def check_echo(rows: Sequence[Row], facts: Sequence[Fact]) -> list[Violation]:
    """For jobs that return their argument: each COMPLETED result is that of its run.

    It is what was submitted, or what the job was last requeued with; nobody else's. What jobs
    return that were handed what others had come to was not submitted: they are left out.
    """
    asked = {row.hash for row in rows if row.f == SUBMIT and not row.handed}
    edits = {(row.job, row.hash) for row in rows if row.f == REQUEUE}
    contents = contents_of(facts)
    violations: list[Violation] = []
    for fact in facts:
        match fact:
            case Requeued() if fact.content and (fact.job, fact.content) not in edits:
                why = "requeued with arguments that nobody asked for"
                violations.append(Violation("S2", fact.job, why))
            case Settled(state="COMPLETED") if fact.job in contents:
                runs = contents[fact.job]
                if runs[0] in asked and fact.content != runs.get(fact.run):
                    why = f"the result of run {fact.run} is not made from its own payload"
                    violations.append(Violation("S3", fact.job, why))
            case _:
                pass
    return violations
