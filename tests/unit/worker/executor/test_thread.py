"""Plain functions where the machine lets no more threads start."""

import logging
from pathlib import Path

import pytest

from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.executor.thread import REFUSED_MS_MAX, RETRY_MS
from tenure.worker.port import FactKind
from tests.unit.worker.executor.bench import Bench, bench, no_threads

COMPLETED = AttemptOutcome.COMPLETED
ENDED, UNSTARTED = FactKind.ENDED, FactKind.UNSTARTED
JOBS = "tenure-job-"


def runs_in_all_slots(pool: Bench, slots: int, folder: Path) -> bool:
    """Whether so many jobs run at once, and no more."""
    release = folder / "release"
    jobs = [pool.job("deaf", str(folder / str(n)), str(release)) for n in range(slots + 1)]
    for number, job in enumerate(jobs[:-1]):
        pool.begin(job, folder / str(number))
    pool.pool.run(jobs[-1:])
    bounded = not jobs[-1].claimed
    release.touch()
    pool.until(lambda: all(ENDED in pool.kinds(job) for job in jobs))
    return bounded


def test_jobs_wait_until_a_thread_can_be_started(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker goes on, says it once, tries again, and has as many threads as slots then."""
    with bench("double", "deaf", slots=2) as pool, caplog.at_level(logging.ERROR):
        pool.clock.stand()
        jobs = [pool.job("double", number) for number in range(5)]
        with no_threads(JOBS):
            pool.pool.run(jobs)
            for _ in range(3):
                pool.pass_time(RETRY_MS)
            assert not any(job.claimed for job in jobs)
        pool.pass_time(RETRY_MS)
        pool.until(lambda: all(ENDED in pool.kinds(job) for job in jobs))
        assert runs_in_all_slots(pool, 2, tmp_path)
    (record,) = caplog.records
    assert "can't start new thread" in record.message


def test_threads_that_there_are_do_the_work() -> None:
    """With one of three they run all the same, one after the other."""
    with bench("double", slots=3) as pool:
        assert pool.result("double", 1).outcome is COMPLETED
        with no_threads(JOBS):
            assert len(pool.run(*[pool.job("double", number) for number in range(20)])) == 20


def test_a_job_that_finds_no_thread_goes_back(tmp_path: Path) -> None:
    """After some seconds another worker may have it; its slot is free, once."""
    with bench("double", "deaf", slots=2) as pool:
        jobs = [pool.job("double", number) for number in range(2)]
        with no_threads(JOBS):
            pool.pool.run(jobs)
            pool.pass_time(REFUSED_MS_MAX)
            pool.until(lambda: all(pool.kinds(job) for job in jobs))
        assert [pool.kinds(job) for job in jobs] == [[UNSTARTED], [UNSTARTED]]
        assert runs_in_all_slots(pool, 2, tmp_path)


def test_what_follows_a_job_of_another_kind_waits_like_the_others() -> None:
    """It is the children's own thread that finds no thread for it, and it goes on."""
    with bench("double", "double_in_child", slots=1) as pool:
        first, second = pool.job("double_in_child", 1), pool.job("double", 1)
        with no_threads(JOBS):
            pool.pool.run([first, second])
            pool.until(lambda: ENDED in pool.kinds(first))
        pool.pass_time(RETRY_MS)
        pool.until(lambda: ENDED in pool.kinds(second))
        assert pool.result("double_in_child", 2).outcome is COMPLETED


def test_items_of_a_batch_go_back_one_by_one() -> None:
    """The call takes a slot, and it is its items that are leased."""
    with bench("double_what_came", slots=1) as pool:
        items = [pool.job("double_what_came", ("", number)) for number in range(3)]
        with no_threads(JOBS):
            pool.pool.run(items)
            pool.pass_time(REFUSED_MS_MAX)
            pool.pass_time(REFUSED_MS_MAX)
            pool.until(lambda: all(pool.kinds(item) for item in items))
        assert [pool.kinds(item) for item in items] == [[UNSTARTED]] * 3
