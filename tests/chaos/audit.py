"""What a run proves: every checker over its history and its journal, and the times it took."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.oracles.executions import check_executions, duplicate_executions
from tests.oracles.facts import Fact, token_of
from tests.oracles.history import END, KILLED, RESULT, START, SUBMIT, Row, read_history
from tests.oracles.journal import BatchWritten, Change, check_chain, check_journal
from tests.oracles.journal_facts import journal_facts
from tests.oracles.leases import check_leases
from tests.oracles.replay import check_replay
from tests.oracles.results import check_echo, check_results
from tests.oracles.submits import check_failed_cancels, check_submits, present_jobs
from tests.oracles.verdict import Violation, require


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """A run that kept every invariant.

    Attributes:
        rows: Its history.
        facts: What its journal says.
        acked: How many submits were acknowledged.
        unknown: How many ended without anybody knowing.
        recovered: How many of those took effect.
        completed: How many results were read.
        reruns: Jobs that were started more than once, with how often.
    """

    rows: list[Row]
    facts: list[Fact]
    acked: int
    unknown: int
    recovered: int
    completed: int
    reruns: dict[str, int]

    def __str__(self) -> str:
        return (
            f"{self.acked} acked, {self.unknown} unknown ({self.recovered} recovered),"
            f" {self.completed} results read, {len(self.reruns)} jobs started again; lost 0,"
            " accepted twice 0"
        )


def audit_etcd(
    history: Path, changes: Sequence[Change], hashes: Mapping[int, str], *, failovers: int
) -> Audit:
    """Check a run on etcd by what the watch saw from revision 1 on.

    Args:
        history: The directory of the recorders' files.
        changes: All of them, of one partition.
        hashes: What leaders traced of their state (``live_hashes``).
        failovers: How many may have caught a first grant's event uncommitted.

    Raises:
        InvariantBroken: with the first violations.
    """
    batches = [change.data for change in changes if isinstance(change, BatchWritten)]
    return _audit(history, batches, check_journal(changes), hashes, failovers)


def audit_sqlite(
    history: Path, batches: Sequence[bytes], hashes: Mapping[int, str], *, failovers: int
) -> Audit:
    """Check a run on SQLite by the journal that is left (it was not truncated).

    Raises:
        InvariantBroken: with the first violations.
    """
    return _audit(history, batches, check_chain(0, batches), hashes, failovers)


def _audit(
    history: Path,
    batches: Sequence[bytes],
    found: list[Violation],
    hashes: Mapping[int, str],
    failovers: int,
) -> Audit:
    rows = read_history(history)
    facts = journal_facts(batches)
    present = present_jobs(facts)
    tally = check_submits(rows, present)
    states = {job.job: job.state for job in present}
    require(
        [
            *found,
            *tally.violations,
            *check_failed_cancels(rows, states),
            *check_results(rows, facts),
            *check_echo(rows),
            *check_leases(rows, facts),
            *check_executions(rows, facts, failovers=failovers),
            *check_replay(batches, present, facts, hashes),
            *_unread(rows),
        ]
    )
    return Audit(
        rows=rows,
        facts=facts,
        acked=tally.acked,
        unknown=tally.unknown,
        recovered=tally.recovered,
        completed=sum(row.f == RESULT and row.type == "ok" for row in rows),
        reruns=duplicate_executions(rows),
    )


def _unread(rows: Iterable[Row]) -> list[Violation]:
    """After the final drain each client that lived to see it has read how its jobs ended."""
    rows = list(rows)
    killed = {row.incarnation for row in rows if row.detail == KILLED}
    acked = {
        row.job
        for row in rows
        if row.f == SUBMIT and row.type == "ok" and row.incarnation not in killed
    }
    read = {row.job for row in rows if row.f == RESULT and row.type == "ok"}
    return [Violation("S1", job, "nobody ever read how it ended") for job in acked - read]


# Times and counts.


def token_text(term: str) -> str:
    """The first digits of the fences of a term, from ``EPOCH.REVISION``."""
    epoch, _, revision = term.partition(".")
    return f"{int(epoch):08x}{int(revision):016x}"


def first_start(rows: Iterable[Row], term: str) -> float:
    """When the first job started under a lease of a term (boot clock, ms)."""
    token = token_text(term)
    return min(
        (row.boottime for row in rows if row.f == START and token_of(row.lease) == token),
        default=float("inf"),
    )


def running_at(rows: Sequence[Row], at_ms: float) -> int:
    """How many executions were under way at a moment: those that began before and ended after."""
    began = {row.lease for row in rows if row.f == START and row.boottime <= at_ms}
    return sum(row.f == END and row.boottime > at_ms and row.lease in began for row in rows)


def live_hashes(traces: Iterable[Path]) -> dict[int, str]:
    """By seq: the hash of the state that a leader had there, at the ends of its terms."""
    return {
        row["last_seq"]: row["hash"]
        for trace in traces
        for row in trace_rows(trace)
        if row["event"] == "state"
    }


def in_flight(trace: Path) -> list[int]:
    """Batches that a dead master had sent and not seen committed."""
    sent: dict[int, None] = {}
    for row in trace_rows(trace):
        if row["event"] == "append_sent":
            sent[row["number"]] = None
        elif row["event"] == "append_committed":
            sent.pop(row["number"], None)
    return list(sent)


def trace_rows(trace: Path) -> Iterator[dict[str, Any]]:
    """What a master wrote while it could; a last line may be torn."""
    if not trace.exists():
        return
    for line in trace.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return
