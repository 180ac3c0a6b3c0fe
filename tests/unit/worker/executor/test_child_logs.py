"""What jobs in child processes say reaches their worker: while they run, and when they die."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenure.protocol.vocabulary import AttemptOutcome, LogStream
from tenure.worker.held import HeldJob
from tests.unit.worker.executor.bench import WAIT_S, Bench, bench


@pytest.fixture(autouse=True)
def informed() -> Iterator[None]:
    """The worker logs from INFO on, as the command does."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.INFO)
    yield
    root.setLevel(before)


def said(job: HeldJob) -> list[tuple[LogStream, int, str]]:
    """What the worker holds of what a job has said."""
    log = job.log
    return [] if log is None else [(row.stream, row.level, row.text) for row in log.after(0)]


def until_said(pool: Bench, job: HeldJob, count: int) -> None:
    """Waits until so many lines of a running job are there."""
    tick = threading.Event()
    end_ms = pool.clock.boot_ms() + int(WAIT_S * 1000)
    while len(said(job)) < count:
        assert pool.clock.boot_ms() < end_ms, said(job)
        tick.wait(0.01)


def test_lines_come_while_the_job_runs(tmp_path: Path) -> None:
    """Prints and records arrive within a moment; the last word, a line without an end, with the
    job's end.
    """
    with bench("talk_in_child") as pool:
        job = pool.job("talk_in_child", str(tmp_path / "release"))
        pool.pool.run([job])
        until_said(pool, job, 2)
        assert said(job) == [
            (LogStream.STDOUT, 0, "a line"),
            (LogStream.LOGGING, logging.INFO, "a record"),
        ]
        assert job.result is None
        (tmp_path / "release").touch()
        pool.until(lambda: job.result is not None)
        assert said(job)[2:] == [(LogStream.STDERR, 0, "last words")]


def test_what_was_said_outlives_the_child(tmp_path: Path) -> None:
    """A child that dies takes along the words of its last moments at most."""
    with bench("edge_in_child") as pool:
        job = pool.job("edge_in_child", str(tmp_path / "release"))
        pool.pool.run([job])
        until_said(pool, job, 1)
        (tmp_path / "release").touch()
        pool.until(lambda: job.result is not None)
        assert job.result is not None
        assert job.result.outcome is AttemptOutcome.LOST
        assert said(job) == [(LogStream.STDOUT, 0, "on the edge")]


def test_jobs_of_one_child_say_each_their_own() -> None:
    """Many small jobs follow each other in a child: none has another one's lines, and those that
    say nothing have no log.
    """
    with bench("say_in_child", "double_in_child", slots=1) as pool:
        talkers = [pool.job("say_in_child", f"job {n}") for n in range(10)]
        others = [pool.job("double_in_child", n) for n in range(10)]
        mixed = [job for pair in zip(talkers, others, strict=True) for job in pair]
        pool.run(*mixed)
        assert [[text for _, _, text in said(job)] for job in talkers] == [
            [f"job {n}"] for n in range(10)
        ]
        assert all(job.log is None for job in others)
