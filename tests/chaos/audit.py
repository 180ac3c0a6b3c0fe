"""What a run proves: every checker over its history and its journal, and the times it took."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.oracles.court import Evidence, PartitionLog, hear, require
from tests.oracles.facts import Fact, token_of
from tests.oracles.history import END, START, Row, read_history
from tests.oracles.journal import Change

_TRACE_END_BYTES = 128 * 1024


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
    history: Path,
    changes: Sequence[Change],
    traces: Iterable[Path],
    *,
    failovers: int,
    all_trace: bool = True,
) -> Audit:
    """Check a run on etcd by what the watch saw from revision 1 on.

    Args:
        history: The directory of the recorders' files.
        changes: All of them, of one partition.
        traces: What masters wrote of their batches and their state.
        failovers: How many may have caught a first grant's event uncommitted.
        all_trace: Whether all masters did; if not, nobody knows when batches had committed.

    Raises:
        InvariantBroken: with the first violations.
    """
    told = Traces(traces)
    trace = told.rows(0) if all_trace else ()
    log = PartitionLog(partition=0, changes=changes, hashes=told.hashes(0), trace=trace)
    return _audit(history, log, failovers)


def audit_sqlite(
    history: Path, batches: Sequence[bytes], traces: Iterable[Path], *, failovers: int
) -> Audit:
    """Check a run on SQLite by the journal that is left (it was not truncated).

    Raises:
        InvariantBroken: with the first violations.
    """
    told = Traces(traces)
    log = PartitionLog(partition=0, batches=batches, hashes=told.hashes(0), trace=told.rows(0))
    return _audit(history, log, failovers)


def _audit(history: Path, log: PartitionLog, failovers: int) -> Audit:
    rows = read_history(history)
    verdict = hear(Evidence(rows=rows, logs=[log], failovers=failovers))
    require(verdict.violations)
    return Audit(
        rows=rows,
        facts=verdict.facts,
        acked=verdict.acked,
        unknown=verdict.unknown,
        recovered=verdict.recovered,
        completed=verdict.results,
        reruns=verdict.reruns,
    )


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


class Traces:
    """What masters wrote of a run: when batches were sent and had committed, hashes of states.

    Args:
        files: Of all their processes.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._rows: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        for file in files:
            for row in trace_rows(file):
                self._rows[row["partition"]].append(row)

    def rows(self, partition: int) -> list[dict[str, Any]]:
        """All of one partition, process by process."""
        return self._rows[partition]

    def hashes(self, partition: int) -> dict[int, str]:
        """By seq: the hash of the state that a leader had there, when its term began or ended."""
        found = self._rows[partition]
        return {row["last_seq"]: row["hash"] for row in found if row["event"] == "state"}


def in_flight(trace: Path) -> list[tuple[int, int]]:
    """Batches (partition, number) that a master had sent and not seen committed, by its trace.

    Only the trace's end is read: a batch is not on its way for long.
    """
    sent: dict[tuple[int, int], None] = {}
    for row in trace_rows(trace, last_bytes=_TRACE_END_BYTES):
        if row["event"] == "append_sent":
            sent[row["partition"], row["number"]] = None
        elif row["event"] == "append_committed":
            sent.pop((row["partition"], row["number"]), None)
    return list(sent)


def trace_rows(trace: Path, *, last_bytes: int | None = None) -> Iterator[dict[str, Any]]:
    """What a master wrote while it could; a first and a last line may be torn."""
    if not trace.exists():
        return
    with trace.open("rb") as file:
        if last_bytes is not None:
            file.seek(max(0, file.seek(0, os.SEEK_END) - last_bytes))
        lines = file.read().splitlines()
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue
