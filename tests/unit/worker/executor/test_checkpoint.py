"""Checkpoints in the executors: what a job saves is there for the session, and for what follows."""

from pathlib import Path

import msgspec
import pytest

from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.held import HeldJob
from tenure.worker.port import FactKind
from tests.unit.worker.executor.bench import Bench, bench

#: So many that word of a drain reaches a child before it has done them all.
ITEMS = 2_000
KINDS = ["count_on", "count_on_async", "count_on_in_child"]


def saved_by(job: HeldJob) -> bytes:
    """What a job has saved last."""
    assert job.saved is not None
    return job.saved.newest[1]


@pytest.mark.parametrize("name", KINDS)
def test_the_next_attempt_goes_on(name: str, tmp_path: Path) -> None:
    """One attempt breaks off, the next one begins with what it has saved."""
    with bench(name) as pool:
        first = pool.job(name, 6, 3, str(tmp_path / "none"))
        (result,) = pool.run(first)
        assert result.outcome is AttemptOutcome.FAILED
        assert pool.kinds(first)[-2:] == [FactKind.SAVED, FactKind.ENDED]
        second = pool.job(name, 6, -1, str(tmp_path / "none"), resume=saved_by(first))
        (result,) = pool.run(second)
        assert msgspec.msgpack.decode(result.result) == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("name", KINDS)
def test_a_job_that_is_wanted_back_ends_between_two_items(name: str, tmp_path: Path) -> None:
    """It is handed back, with all that it has finished."""
    with bench(name) as pool:
        job = begun(pool, name, tmp_path)
        job.wanted_back = True
        pool.pool.tell_lease(job)
        (tmp_path / "go").touch()
        assert pool.outcome_after(job, FactKind.ENDED) is AttemptOutcome.RELEASED
        second = pool.job(name, ITEMS, -1, str(tmp_path / "none"), resume=saved_by(job))
        (result,) = pool.run(second)
        done, rest = msgspec.msgpack.decode(result.result)
        assert done
        assert rest
        assert [*done, *rest] == [*range(ITEMS)]


def test_a_child_that_dies_has_told_all_before(tmp_path: Path) -> None:
    """What was saved right before a crash is there for the next attempt."""
    name = "count_on_in_child"
    with bench(name) as pool:
        first = pool.job(name, 6, 4, str(tmp_path / "kill"))
        (result,) = pool.run(first)
        assert result.outcome is AttemptOutcome.LOST
        second = pool.job(name, 6, -1, str(tmp_path / "none"), resume=saved_by(first))
        (result,) = pool.run(second)
        assert msgspec.msgpack.decode(result.result) == [[0, 1, 2, 3], [4, 5]]


def begun(pool: Bench, name: str, folder: Path) -> HeldJob:
    """A job that is at its first item until the file ``go`` is there."""
    return pool.begin(pool.job(name, ITEMS, -1, str(folder / "go")), folder / "go.waiting")
