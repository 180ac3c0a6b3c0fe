"""The court: a whole run is let go, and each lost, doubled or reordered entry is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import msgspec
import pytest

from tenure.testing.cluster import simulated_cluster
from tenure.testing.process import run_processes
from tests.oracles.court import Evidence, hear, judge
from tests.oracles.history import END, RESULT, START, SUBMIT, Row
from tests.simulation.run import Run, evidence


@cache
def good() -> Evidence:
    """A short run without faults, with everything that a simulation tells."""

    async def main() -> Evidence:
        run = Run()
        async with simulated_cluster(seed=1, jobs=[run.echo], masters=1, workers=1) as cluster:
            client = cluster.client()
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                for number in range(8):
                    group.create_task(run.one(client, f"job {number}", 0.1, failures=number % 2))
            found = evidence(run.ledger, cluster)
            batches = cluster.journal()
        # By its batches at rest: the store's own changes are judged in the tests of the journal.
        logs = [replace(found.logs[0], changes=None, batches=batches)]
        return replace(found, logs=logs, faults=(), skew_ms=0.0)

    return run_processes(main, limit_s=120)


def with_rows(rows: Sequence[Row]) -> set[str]:
    """What the good run breaks with another history."""
    return {violation.invariant for violation in judge(replace(good(), rows=rows))}


def with_batches(batches: Sequence[bytes]) -> set[str]:
    """What the good run breaks with another journal."""
    log = replace(good().logs[0], batches=batches)
    return {violation.invariant for violation in judge(replace(good(), logs=[log]))}


def find(f: str, kind: str = "ok") -> int:
    """Where the history has the last row of this operation."""
    rows = good().rows
    return max(at for at, row in enumerate(rows) if row.f == f and row.type == kind)


def changed(at: int, **fields: object) -> list[Row]:
    """The good history with one row changed."""
    rows = list(good().rows)
    rows[at] = msgspec.structs.replace(rows[at], **fields)
    return rows


def test_a_good_run_is_let_go() -> None:
    """Nothing is found, and the counts are the run's."""
    verdict = hear(good())

    assert verdict.violations == []
    assert (verdict.acked, verdict.results, verdict.executions) == (8, 8, 12)
    assert (verdict.lost, verdict.unexpected, verdict.duplicated) == (0, 0, 0)
    assert (verdict.accepted_twice, verdict.overlaps, verdict.terms) == (0, 0, 1)
    assert len(verdict.reruns) == 4
    assert "8 acked" in str(verdict)


@pytest.mark.parametrize("place", [1, 3, 5])
def test_a_damaged_journal_is_refused(place: int) -> None:
    """A batch is lost, is there twice, or two change places."""
    batches = list(good().logs[0].all_batches())
    reordered = list(batches)
    reordered[place : place + 2] = reversed(reordered[place : place + 2])

    assert "S6" in with_batches(batches[:place] + batches[place + 1 :])
    assert "S6" in with_batches([*batches[: place + 1], *batches[place:]])
    assert "S6" in with_batches(reordered)


def test_a_cut_journal_is_refused() -> None:
    """Without its last batches what was acknowledged and read is not there."""
    batches = list(good().logs[0].all_batches())

    assert {"S1", "S3"} <= with_batches(batches[:2])


def test_rows_out_of_order_are_refused() -> None:
    """Each effect is told after its cause."""
    assert "S10" in with_rows(changed(find(START), boottime=-1.0))
    assert "S10" in with_rows(changed(find(END), boottime=10**9))
    assert "S8" in with_rows(changed(find(SUBMIT), boottime=0.0))
    assert "S8" in with_rows(changed(find(RESULT), boottime=0.0))


def test_rows_lost_or_doubled_are_refused() -> None:
    """A worker's start or end that is missing, an execution or an answer too many."""
    rows = list(good().rows)
    without_end = rows[: find(END)] + rows[find(END) + 1 :]
    again = [*rows, msgspec.structs.replace(rows[find(START)], boottime=rows[-1].boottime)]
    unasked = [row for row in rows if row.call != rows[find(SUBMIT)].call]

    assert "S4" in with_rows(without_end)
    assert "S15" in with_rows(again)
    assert "S2" in with_rows(unasked)


def test_an_unanswered_run_is_refused() -> None:
    """After the drain everybody who asked has been told how it ended."""
    assert "L1" in with_rows(changed(find(RESULT), type="info"))
