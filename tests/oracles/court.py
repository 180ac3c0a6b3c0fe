"""The court: every checker over all that is known of a run, with one verdict.

    verdict = hear(Evidence(rows=..., logs=[PartitionLog(partition=0, changes=...)], ...))
    print(verdict)
    require(verdict.violations)

The simulator and chaos both end here, so an invariant is checked in one way everywhere. Each
checker's module says what exactly it claims and why that holds with every fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from tenure.master.core.config import PartitionConfig
from tests.oracles.beginnings import check_beginnings
from tests.oracles.checkpoints import check_checkpoints
from tests.oracles.commits import CommitTimes, check_commits, told_after
from tests.oracles.crowding import check_crowding
from tests.oracles.delays import (
    check_delays,
    check_early_starts,
    check_late_ready,
    check_term_time,
)
from tests.oracles.dependencies import check_dependencies
from tests.oracles.evidence import Evidence, FaultWindow, PartitionLog, Said, Sample
from tests.oracles.executions import check_executions, duplicate_executions
from tests.oracles.facts import Fact, JobFact, TermBegan, lives_of
from tests.oracles.gates import check_gates
from tests.oracles.history import RESULT, START, Row
from tests.oracles.journal import BatchWritten, check_chain, check_journal
from tests.oracles.journal_facts import Extents, journal_facts
from tests.oracles.keys import check_keys
from tests.oracles.leases import check_leases
from tests.oracles.lifecycle import check_lives, check_times
from tests.oracles.limits import check_limits
from tests.oracles.liveness import check_drained, check_latency, check_leaders
from tests.oracles.overlaps import Overlap, check_overlaps, overlaps
from tests.oracles.post import check_post
from tests.oracles.queue_order import check_order
from tests.oracles.registers import check_registers
from tests.oracles.replay import check_replay
from tests.oracles.resources import check_resources
from tests.oracles.results import accepted_twice, check_echo, check_results
from tests.oracles.schedules import check_schedules
from tests.oracles.slots import check_slots, given_up
from tests.oracles.submits import (
    Present,
    Tally,
    check_failed_cancels,
    check_submits,
    check_wholes,
    present_jobs,
    scheduled_contents,
)
from tests.oracles.tenants import check_tenants
from tests.oracles.tokens import check_tokens
from tests.oracles.verdict import Violation, require
from tests.oracles.words import Commits, check_words

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
        lost: Acknowledged submits that are not there (S1).
        unexpected: Jobs that nobody submitted (S2).
        duplicated: Submits that are there more than once (S1).
        accepted_twice: Runs of jobs with more than one accepted result (S3).
        results: Results that were read.
        executions: Starts of jobs.
        reruns: Jobs that were started under more than one lease, with how many.
        overlaps: Executions of one job that ran side by side.
        overlap_ms: How long the longest of them did.
        given_up: Attempts that were given up while their code went on.
        terms: Terms that began.
    """

    violations: list[Violation]
    facts: list[Fact]
    acked: int
    refused: int
    unknown: int
    recovered: int
    lost: int
    unexpected: int
    duplicated: int
    accepted_twice: int
    results: int
    executions: int
    reruns: dict[str, int]
    overlaps: int
    overlap_ms: float
    given_up: int
    terms: int

    def count(self, invariant: str) -> int:
        """How many violations there are of one invariant."""
        return sum(found.invariant == invariant for found in self.violations)

    def __str__(self) -> str:
        return (
            f"{self.acked} acked, {self.refused} refused, {self.unknown} unknown"
            f" ({self.recovered} recovered); lost {self.lost}, unexpected {self.unexpected},"
            f" duplicated {self.duplicated}, accepted twice {self.accepted_twice};"
            f" {self.results} results read, {self.executions} executions, {len(self.reruns)} jobs"
            f" started again, {self.overlaps} at once (at most {self.overlap_ms:.0f} ms),"
            f" {self.given_up} given up;"
            f" {self.terms} terms; {len(self.violations)} violations"
        )


def judge(evidence: Evidence) -> list[Violation]:
    """Every way in which the run breaks an invariant."""
    return hear(evidence).violations


def hear(evidence: Evidence) -> Verdict:
    """Runs every checker on what the evidence allows it to claim."""
    case = _Case(evidence)
    rows, facts = evidence.rows, case.facts
    for log in evidence.logs:
        case.read(log)
    present = present_jobs(facts)
    tally = check_submits(rows, present, scheduled_contents(facts))
    doubled = check_results(rows, facts)
    terms = sum(isinstance(fact, TermBegan) for fact in facts)
    failovers = evidence.failovers
    if failovers is None:
        failovers = max(0, terms - len(evidence.logs))
    found = overlaps(rows)
    violations = case.violations
    violations += tally.violations
    violations += check_wholes(rows, facts)
    violations += check_failed_cancels(rows, {job.job: job.state for job in present})
    violations += doubled
    violations += check_leases(rows, facts)
    violations += check_executions(rows, facts, failovers=failovers, words=evidence.words)
    violations += check_keys(rows, facts)
    violations += check_tenants(rows, facts)
    violations += case.judge_plans()
    violations += case.judge_tokens()
    violations += case.judge_jobs(found)
    violations += case.judge_liveness(present)
    if evidence.echo:
        violations += check_echo(rows, facts)
    return _sum_up(case, tally, found, terms)


class _Case:
    """What is known of a run while it is heard."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.violations: list[Violation] = []
        self.facts: list[Fact] = []
        self._by_partition: dict[int, list[Fact]] = {}
        self._lives: dict[str, list[JobFact]] = {}

    def read(self, log: PartitionLog) -> None:
        """Everything that one journal shows by itself, or with the history."""
        evidence, violations = self.evidence, self.violations
        batches = log.all_batches()
        if log.changes is None:
            violations += check_chain(log.partition, batches)
        else:
            violations += check_journal(log.changes)
        facts = journal_facts(batches)
        lives = lives_of(facts)
        extents = Extents.of_batches(batches)
        config = PartitionConfig(partition=log.partition, partitions=evidence.partitions)
        present = present_jobs(facts)
        violations += check_replay(batches, present, facts, log.hashes, config=config)
        violations += check_lives(lives)
        violations += check_delays(lives)
        violations += check_term_time(facts)
        violations += check_order(facts, extents, aging_step_ms=evidence.aging_step_ms)
        violations += check_limits(facts)
        violations += check_crowding(facts)
        violations += check_gates(facts)
        committed_ms = _committed_ms(log, facts, extents)
        times = CommitTimes(extents, committed_ms)
        violations += check_commits(evidence.rows, lives, times)
        if evidence.words:
            violations += check_words(
                [word for word in evidence.words if word.partition == log.partition],
                log.changes or (),
                facts,
                Commits(batches, extents, log.trace, committed_ms),
                lease_ttl_ms=evidence.lease_ttl_ms,
            )
            violations += check_beginnings(log.partition, log.changes or (), log.trace)
        if evidence.faults is not None and evidence.skew_ms == 0 and evidence.rows:
            first = evidence.rows[0]
            ahead_ms = first.wall - first.boottime
            violations += check_late_ready(facts, evidence.faults, wall_ahead_ms=ahead_ms)
        self.facts += facts
        self._by_partition[log.partition] = facts
        self._lives.update(lives)

    def judge_tokens(self) -> list[Violation]:
        """Who held which office."""
        changes = [change for log in self.evidence.logs for change in log.changes or ()]
        return check_tokens(self._by_partition, changes, self.evidence.announcements)

    def judge_plans(self) -> list[Violation]:
        """What schedules and parents bring about, in all partitions together."""
        evidence, facts = self.evidence, self._by_partition
        rows, drained = evidence.rows, evidence.drained
        return [
            *check_schedules(facts, rows, partitions=evidence.partitions, drained=drained),
            *check_dependencies(facts, rows, drained=drained),
            *check_post(facts, drained=drained),
        ]

    def judge_jobs(self, found: Sequence[Overlap]) -> list[Violation]:
        """What jobs and clients saw, in real time."""
        evidence, rows, lives = self.evidence, self.evidence.rows, self._lives
        ttl_ms, reaction_ms = evidence.lease_ttl_ms, evidence.reaction_ms
        violations = check_times(
            rows, lives, evidence.faults, lease_ttl_ms=ttl_ms, reaction_ms=reaction_ms
        )
        if evidence.faults is not None:
            violations += check_overlaps(
                found, evidence.faults, lease_ttl_ms=ttl_ms, reaction_ms=reaction_ms
            )
            violations += check_slots(rows, evidence.faults, evidence.capacity, evidence.capacities)
        if evidence.skew_ms is not None:
            violations += check_early_starts(rows, lives, skew_ms=evidence.skew_ms)
        violations += check_checkpoints(rows, lives, evidence.words)
        return violations + check_registers(rows, lives)

    def judge_liveness(self, present: Sequence[Present]) -> list[Violation]:
        """What must come in time, once all is healed."""
        evidence, rows = self.evidence, self.evidence.rows
        violations = check_drained(rows, present) if evidence.drained else []
        if evidence.faults is None:
            return violations
        if evidence.announcements:
            last_ms = rows[-1].boottime if rows else -inf
            violations += check_leaders(
                evidence.announcements,
                evidence.faults,
                evidence.partitions,
                until_ms=max(last_ms, evidence.announcements[-1].at_ms),
                office_ttl_ms=evidence.office_ttl_ms,
            )
        violations += check_latency(rows, evidence.faults, steady_ms=evidence.steady_ms)
        return violations + check_resources(evidence.samples, evidence.faults, kept=evidence.kept)


def _committed_ms(log: PartitionLog, facts: Sequence[Fact], extents: Extents) -> dict[int, float]:
    """When batches had committed, as far as somebody tells."""
    terms = [extents.number(fact.seq) for fact in facts if isinstance(fact, TermBegan)]
    times = told_after(log.trace, terms)
    for change in log.changes or ():
        if isinstance(change, BatchWritten) and change.at_ms is not None:
            times[change.number] = change.at_ms
    return times


def _sum_up(case: _Case, tally: Tally, found: Sequence[Overlap], terms: int) -> Verdict:
    rows: Sequence[Row] = case.evidence.rows
    return Verdict(
        violations=case.violations,
        facts=case.facts,
        acked=tally.acked,
        refused=tally.failed,
        unknown=tally.unknown,
        recovered=tally.recovered,
        lost=tally.lost,
        unexpected=tally.unexpected,
        duplicated=tally.duplicated,
        accepted_twice=accepted_twice(case.facts),
        results=sum(row.f == RESULT and row.type == "ok" for row in rows),
        executions=sum(row.f == START for row in rows),
        reruns=duplicate_executions(rows),
        overlaps=len(found),
        overlap_ms=max((overlap.length_ms for overlap in found), default=0.0),
        given_up=given_up(rows),
        terms=terms,
    )
