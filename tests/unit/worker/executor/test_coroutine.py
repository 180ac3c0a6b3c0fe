"""Jobs that share tasks: it costs less, and no job may notice."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.held import AttemptResult
from tenure.worker.port import FactKind
from tests.unit.worker import applications
from tests.unit.worker.executor.bench import bench, until_exists

COMPLETED, FAILED = AttemptOutcome.COMPLETED, AttemptOutcome.FAILED


def value_of(result: AttemptResult) -> Any:
    """What the job has returned."""
    assert result.outcome is COMPLETED
    return msgspec.msgpack.decode(result.result)


class TestLanes:
    """Which jobs run in which task."""

    def test_small_jobs_share_tasks(self) -> None:
        """Jobs that do not wait cost far fewer tasks than there are jobs."""
        with bench("task_name", slots=8) as pool:
            names = {value_of(result) for result in pool.run(*_jobs(pool, "task_name", 500))}
        assert len(names) < 250

    def test_jobs_that_wait_have_tasks_of_their_own(self) -> None:
        """No two of them are in one task, even one after the other."""
        with bench("wait_in_task", slots=2) as pool:
            names = [value_of(result) for result in pool.run(*_jobs(pool, "wait_in_task", 20))]
        assert len(set(names)) == 20

    def test_all_slots_wait_at_once(self, tmp_path: Path) -> None:
        """A job that waits keeps none of the others from beginning."""
        with bench("meet", slots=100) as pool:
            jobs = [pool.job("meet", str(tmp_path), 100) for _ in range(100)]
            assert {value_of(result) for result in pool.run(*jobs)} == {"met"}

    def test_small_jobs_let_the_loop_turn(self) -> None:
        """A job that waits gets on beside an endless stream of jobs that do not."""
        with bench("wait_in_task", "task_name", slots=2) as pool:
            waiting = pool.job("wait_in_task")
            pool.run(waiting, *_jobs(pool, "task_name", 5_000))
            ended = [job for kind, job in pool.facts if kind is FactKind.ENDED]
        assert ended.index(waiting) < 4_000

    def test_close_ends_what_waits(self, tmp_path: Path) -> None:
        """Closing cancels what waits, begins nothing more and ends the loop."""
        with bench("until_told_async", slots=1) as pool:
            job = pool.begin(pool.job("until_told_async", str(tmp_path / "s")), tmp_path / "s")
            queued = pool.job("until_told_async", str(tmp_path / "t"))
            pool.pool.run([queued])
            executor = pool.pool._coroutines
            assert executor is not None
        assert not executor._job_loop._thread.is_alive()
        assert job.result is not None
        assert not queued.claimed


class TestIsolation:
    """What a job does to its task and its context is its own."""

    @pytest.mark.parametrize(
        ("how", "outcome"),
        [
            ("nothing", COMPLETED),
            ("keep", COMPLETED),
            ("cancel", COMPLETED),
            ("take back", COMPLETED),
            ("cancel soon", COMPLETED),
            ("cancel and wait", FAILED),
            ("time out", FAILED),
            ("fail in a group", FAILED),
        ],
    )
    def test_cancellation_hits_nobody_else(self, how: str, outcome: AttemptOutcome) -> None:
        """A job that cancels its task, now, later or in part, harms itself at most."""
        with bench("misuse_task", "wait_in_task", slots=2) as pool:
            misusers = [pool.job("misuse_task", how) for _ in range(10)]
            others = [_jobs(pool, "wait_in_task", 2) for _ in misusers]
            for misuser, pair in zip(misusers, others, strict=True):
                pool.pool.run([misuser, *pair])
            pool.until(lambda: all(job.result for pair in others for job in pair))
            for task in applications.KEPT:
                task.cancel()
            applications.KEPT.clear()
        results = [job.result for job in misusers if job.result is not None]
        assert [result.outcome for result in results] == [outcome] * 10
        assert {job.result.outcome for pair in others for job in pair if job.result} == {COMPLETED}

    def test_a_kept_task_is_no_other_jobs(self, tmp_path: Path) -> None:
        """Whoever keeps a task of a job that has ended can cancel nothing with it."""
        with bench("misuse_task", "until_told_async", slots=1) as pool:
            job = pool.job("until_told_async", str(tmp_path / "s"))
            pool.pool.run([pool.job("misuse_task", "keep")])
            pool.begin(job, tmp_path / "s")
            (task,) = applications.KEPT
            applications.KEPT.clear()
            assert task.done()
            pool.pool.stop(job, AttemptOutcome.CANCELLED)
            assert pool.outcome_after(job, FactKind.ENDED) is AttemptOutcome.CANCELLED

    def test_a_task_known_weakly_is_no_other_jobs(self, tmp_path: Path) -> None:
        """The same for variables and caches of a task, which are kept by weak references to it."""
        with bench("misuse_task", "until_told_async", slots=1) as pool:
            job = pool.job("until_told_async", str(tmp_path / "s"))
            # In one lane, if there were nothing against it.
            pool.pool.run([pool.job("misuse_task", "keep weakly"), job])
            until_exists(tmp_path / "s")
            assert all(task.done() for task in applications.KEPT_WEAKLY)
            pool.pool.stop(job, AttemptOutcome.CANCELLED)
            assert pool.outcome_after(job, FactKind.ENDED) is AttemptOutcome.CANCELLED

    def test_a_job_that_cancels_all_tasks_ends_no_executor(self) -> None:
        """Jobs that wait are harmed; those that come later find a loop, and lanes."""
        with bench("misuse_task", "wait_in_task", slots=4) as pool:
            for _ in range(5):
                misusers = _jobs(pool, "misuse_task", 4, "cancel all")
                assert {value_of(result) for result in pool.run(*misusers)} == {"unharmed"}
                assert value_of(pool.result("wait_in_task"))

    def test_cancel_stops_the_job_it_names(self, tmp_path: Path) -> None:
        """Of jobs that began in one lane the one that waits is cancelled, and no later one."""
        with bench("task_name", "until_told_async", "wait_in_task", slots=1) as pool:
            first = _jobs(pool, "task_name", 5)
            job = pool.job("until_told_async", str(tmp_path / "s"))
            last = _jobs(pool, "wait_in_task", 5)
            pool.pool.run(first)
            pool.begin(job, tmp_path / "s")
            pool.pool.run(last)
            for ended in first:
                pool.pool.stop(ended, AttemptOutcome.CANCELLED)
            pool.pool.stop(job, AttemptOutcome.CANCELLED)
            pool.until(lambda: all(other.result is not None for other in last))
        outcomes = [known.result.outcome for known in (*first, job, *last) if known.result]
        assert outcomes == [COMPLETED] * 5 + [AttemptOutcome.CANCELLED] + [COMPLETED] * 5

    def test_traceback_of_a_cancelled_job_is_its_own(self, tmp_path: Path) -> None:
        """Where it waited is said; how it was run is not."""
        with bench("until_told_async") as pool:
            job = pool.begin(pool.job("until_told_async", str(tmp_path / "s")), tmp_path / "s")
            pool.pool.stop(job, AttemptOutcome.CANCELLED)
            pool.outcome_after(job, FactKind.ENDED)
        assert job.result is not None
        assert job.result.fault is not None
        assert "applications.py" in job.result.fault.traceback
        assert "executor" not in job.result.fault.traceback

    def test_context_follows_the_job(self) -> None:
        """After waits, among others, a job and its tasks see its own variables and context."""
        with bench("carry_trace_async", slots=7) as pool:
            jobs = [pool.job("carry_trace_async", number) for number in range(50)]
            results = pool.run(*jobs)
        assert [value_of(result) for result in results] == [
            [str(number), str(number), job.job_id] for number, job in enumerate(jobs)
        ]


def _jobs(pool: Any, name: str, count: int, *args: str) -> list[Any]:
    return [pool.job(name, *args) for _ in range(count)]
