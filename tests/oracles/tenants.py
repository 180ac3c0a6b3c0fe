"""S19: no tenant sees another's job or payload.

A list that was asked for one tenant's jobs shows no other's; a submit is answered a job of the
tenant that it was made for; and wherever a job's payload is shown, to a client that reads it or to
the worker that runs it, it is the one that was submitted for that job, or that this run of it was
requeued with. What belongs to whom is the journal's word.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.oracles.facts import Fact, Submitted, contents_of, run_of
from tests.oracles.history import GET, LIST, START, SUBMIT, Row
from tests.oracles.verdict import Violation


def check_tenants(rows: Iterable[Row], facts: Iterable[Fact]) -> list[Violation]:
    """Rows of jobs that the journal does not have are passed over: S2 is about them."""
    facts = [*facts]
    jobs = {fact.job: fact for fact in facts if isinstance(fact, Submitted)}
    contents = contents_of(facts)
    violations = []
    for row in rows:
        if row.type != "ok":
            continue
        if row.tenant and row.f in (LIST, SUBMIT):
            shown = [job for job, _ in row.seen] if row.f == LIST else [row.job]
            violations += [
                Violation("S19", job, f"shown to {row.tenant}, but it is {jobs[job].tenant}'s")
                for job in shown
                if job in jobs and jobs[job].tenant != row.tenant
            ]
        elif row.hash and row.f in (GET, START) and row.job in contents:
            runs = contents[row.job]
            if row.lease:
                fine = row.hash == runs.get(int(run_of(row.lease), 16))
            else:
                fine = row.hash in runs.values()
            if not fine:
                detail = f"{row.process} was shown another payload than was submitted"
                violations.append(Violation("S19", row.job, detail))
    return violations
