"""What the planning client does, and that its jobs say so: in one process, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tenure.testing.cluster import simulated_cluster
from tenure.testing.process import elapse, run_processes
from tests.chaos import app
from tests.chaos.arena import queues_of
from tests.chaos.measure import planned_of
from tests.chaos.planner import Planner
from tests.chaos.scope import find_unjudged
from tests.oracles.court import hear
from tests.oracles.evidence import Evidence, PartitionLog
from tests.oracles.facts import Submitted
from tests.oracles.history import START, SUBMIT, Recorder, read_history
from tests.oracles.verdict import require

PARTITIONS = 4
#: Of virtual time.
SECONDS = 60.0
#: A job of many steps does not yield here: they take no time.
STEP_S = 0.0


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this test's jobs and clients write."""
    monkeypatch.setenv("CHAOS_HISTORY", str(tmp_path))
    monkeypatch.setenv("CHAOS_PROCESS", "workers")
    app._recorder.cache_clear()
    yield tmp_path
    app._recorder().close()
    app._recorder.cache_clear()


def played(history: Path, seconds: float) -> Evidence:
    """What a planner and three workers leave behind to whom nothing is done."""
    logs: list[PartitionLog] = []

    async def main() -> None:
        jobs = [app.echo, app.flaky, app.defy, app.climb]
        async with simulated_cluster(
            seed=1, jobs=jobs, workers=3, partitions=PARTITIONS, slots=20
        ) as cluster:
            with Recorder(history, "planner") as recorder:
                # It is in what is submitted, and else in nothing: each run is the same one.
                recorder.incarnation = "first"
                planner = Planner(
                    cluster.client(), recorder, queues_of(PARTITIONS), Random(1), step_s=STEP_S
                )
                async with asyncio.TaskGroup() as group:
                    group.create_task(planner.run())
                    await elapse(seconds)
                    planner.stopping.set()
            logs.extend(
                PartitionLog(partition=partition, batches=cluster.journal(partition))
                for partition in range(PARTITIONS)
            )

    run_processes(main)
    return Evidence(rows=read_history(history), logs=logs, partitions=PARTITIONS)


def test_it_gives_each_invariant_something_to_be_judged_by(history: Path) -> None:
    """Schedules, limits, keys, tenants, reads, lists, requeues, purges, what is saved, defiance."""
    evidence = played(history, SECONDS)
    verdict = hear(evidence)
    require(verdict.violations)
    due = {one.what.split(",")[0] for one in find_unjudged(evidence, verdict.facts) if one.due}
    # Nothing was done to anybody here, and nobody was watched.
    assert due <= {"L1", "R1", "S8"}
    done = planned_of(evidence.rows, verdict.facts)
    # Triggers are rare, and here no long job is lost.
    rare = {"triggers", "attempts that went on behind what was saved"}
    assert {what for what, times in done.items() if not times} <= rare
    assert done["lists"] + done["purges"] + done["requeues"] < 2 * SECONDS
    assert all(row.hash for row in evidence.rows if row.f == START)
    # Some were answered another's job, and some were refused for it.
    taken = [row for row in evidence.rows if row.f == SUBMIT and row.type != "invoke" and row.key]
    contents = {fact.job: fact.content for fact in verdict.facts if isinstance(fact, Submitted)}
    assert any(row.type == "ok" and contents[row.job] != row.hash for row in taken)
    assert any(row.type == "fail" and row.job for row in taken)
