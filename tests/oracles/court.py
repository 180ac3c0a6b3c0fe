"""The court: every checker over all that is known of a run, with one verdict.

    verdict = hear(Evidence(rows=..., logs=[PartitionLog(partition=0, changes=...)], ...))
    print(verdict)
    require(verdict.violations)

The simulator and chaos both end here, so an invariant is checked in one way everywhere. Each
checker's module says what exactly it claims and why that holds with every fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tenure.master.core.config import PartitionConfig
from tests.oracles.evidence import Evidence, FaultWindow, PartitionLog, Said, Sample
from tests.oracles.executions import check_executions, duplicate_executions
from tests.oracles.facts import Fact, TermBegan
from tests.oracles.history import KILLED, RESULT, START, SUBMIT, Row
from tests.oracles.journal import check_chain, check_journal
from tests.oracles.journal_facts import journal_facts
from tests.oracles.leases import check_leases
from tests.oracles.replay import check_replay
from tests.oracles.results import check_echo, check_results
from tests.oracles.submits import Tally, check_failed_cancels, check_submits, present_jobs
from tests.oracles.verdict import Violation, require

__all__ = [
    "Evidence",
    "FaultWindow",
    "PartitionLog",
    "Said",
    "Sample",
    "Verdict",
    "hear",
    "judge",
    "require",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a run came to.

    Attributes:
        violations: Every way in which an invariant does not hold.
        facts: What the journals say, partition by partition.
        acked: Submits that were acknowledged.
        refused: Submits that were refused.
        unknown: Submits of which nobody knows what became.
        recovered: How many of those took effect.
        results: Results that were read.
        executions: Starts of jobs.
        reruns: Jobs that were started under more than one lease, with how many.
        terms: Terms that began.
    """

    violations: list[Violation]
    facts: list[Fact]
    acked: int
    refused: int
    unknown: int
    recovered: int
    results: int
    executions: int
    reruns: dict[str, int]
    terms: int

    def count(self, invariant: str) -> int:
        """How many violations there are of one invariant."""
        return sum(found.invariant == invariant for found in self.violations)

    def __str__(self) -> str:
        return (
            f"{self.acked} acked, {self.refused} refused, {self.unknown} unknown"
            f" ({self.recovered} recovered), {self.results} results read, {self.executions}"
            f" executions, {len(self.reruns)} jobs started again, {self.terms} terms,"
            f" {len(self.violations)} violations"
        )


def judge(evidence: Evidence) -> list[Violation]:
    """Every way in which the run breaks an invariant."""
    return hear(evidence).violations


def hear(evidence: Evidence) -> Verdict:
    """Runs every checker on what the evidence allows it to claim."""
    rows = evidence.rows
    violations: list[Violation] = []
    facts: list[Fact] = []
    for log in evidence.logs:
        found, wrong = _read(log, evidence.partitions)
        facts += found
        violations += wrong
    present = present_jobs(facts)
    tally = check_submits(rows, present)
    terms = sum(isinstance(fact, TermBegan) for fact in facts)
    failovers = evidence.failovers
    if failovers is None:
        failovers = max(0, terms - len(evidence.logs))
    violations += tally.violations
    violations += check_failed_cancels(rows, {job.job: job.state for job in present})
    violations += check_results(rows, facts)
    violations += check_leases(rows, facts)
    violations += check_executions(rows, facts, failovers=failovers)
    if evidence.echo:
        violations += check_echo(rows)
    if evidence.drained:
        violations += _unread(rows)
    return _sum_up(evidence, violations, facts, tally, terms)


def _sum_up(
    evidence: Evidence,
    violations: list[Violation],
    facts: list[Fact],
    tally: Tally,
    terms: int,
) -> Verdict:
    rows = evidence.rows
    return Verdict(
        violations=violations,
        facts=facts,
        acked=tally.acked,
        refused=tally.failed,
        unknown=tally.unknown,
        recovered=tally.recovered,
        results=sum(row.f == RESULT and row.type == "ok" for row in rows),
        executions=sum(row.f == START for row in rows),
        reruns=duplicate_executions(rows),
        terms=terms,
    )


def _read(log: PartitionLog, partitions: int) -> tuple[list[Fact], list[Violation]]:
    """What one journal says, and what is wrong with it."""
    batches = log.all_batches()
    if log.changes is None:
        violations = check_chain(log.partition, batches)
    else:
        violations = check_journal(log.changes)
    facts = journal_facts(batches)
    config = PartitionConfig(partition=log.partition, partitions=partitions)
    violations += check_replay(batches, present_jobs(facts), facts, log.hashes, config=config)
    return facts, violations


def _unread(rows: Iterable[Row] | Sequence[Row]) -> list[Violation]:
    """After the final drain each client that lived to see it has read how its jobs ended."""
    rows = list(rows)
    killed = {row.incarnation for row in rows if row.detail == KILLED}
    acked = {
        row.job
        for row in rows
        if row.f == SUBMIT and row.type == "ok" and row.incarnation not in killed
    }
    read = {row.job for row in rows if row.f == RESULT and row.type == "ok"}
    return [Violation("S1", job, "nobody ever read how it ended") for job in sorted(acked - read)]
