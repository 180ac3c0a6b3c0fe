"""Child processes: batches over the pipe, who is charged for a crash, replacement, last words."""

import logging
import os
import selectors
import signal
import socket
import threading
from pathlib import Path
from queue import SimpleQueue

import msgspec
import pytest

from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.executor import child_link, process
from tenure.worker.executor.child_link import ChildLink
from tenure.worker.executor.process import NEVER, ProcessExecutor, Recycling
from tenure.worker.executor.words import LastWords
from tenure.worker.exits import EXIT_BROKEN
from tenure.worker.held import HeldJob
from tenure.worker.port import FactKind
from tests.unit.worker.executor.bench import WAIT_S, Bench, bench, until_exists, wait_gone

STARTED, ENDED = FactKind.STARTED, FactKind.ENDED
COMPLETED, LOST = AttemptOutcome.COMPLETED, AttemptOutcome.LOST
TIMED_OUT, CANCELLED = AttemptOutcome.TIMED_OUT, AttemptOutcome.CANCELLED


def executor_of(pool: Bench) -> ProcessExecutor:
    """The pool's children."""
    found = pool.pool._processes
    assert found is not None
    return found


def call_small(pool: Bench, *names: str) -> None:
    """Jobs of these names pass for small ones: they go to a child many at once."""
    executor_of(pool)._costs.update(dict.fromkeys(names, process.COST_US_MIN))


def values(jobs: list[HeldJob]) -> list[object]:
    """What jobs gave back."""
    return [msgspec.msgpack.decode(job.result.result) for job in jobs if job.result is not None]


class EndsFirst(selectors.DefaultSelector):
    """Says that a child's stream has ended only along with the child's own end, and behind it."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(timeout)
        while any(map(_is_at_end, found)) and not any(map(_is_process, found)):
            found = super().select(WAIT_S)
        return sorted(found, key=_is_process, reverse=True)


class TestBatches:
    """Many jobs in one write."""

    def test_small_jobs_travel_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Once it is known that they are small there are far fewer writes and reads than jobs."""
        writes: list[int] = []
        give = ChildLink.give

        def counted(self: ChildLink, jobs: list[tuple[HeldJob, int]]) -> None:
            writes.append(len(jobs))
            give(self, jobs)

        monkeypatch.setattr(ChildLink, "give", counted)
        with bench("double_in_child", slots=1) as pool:
            call_small(pool, "double_in_child")
            jobs = [pool.job("double_in_child", number) for number in range(500)]
            pool.run(*jobs)
        assert values(jobs) == [2 * number for number in range(500)]
        assert sum(writes) == 500
        assert len(writes) < 100
        assert all(job.started_ms is not None for job in jobs)

    def test_large_payloads_do_not_wait_in_a_child(self) -> None:
        """What is given ahead is bounded in bytes; a payload at the limit goes alone."""
        with bench("length_in_child", slots=1) as pool:
            call_small(pool, "length_in_child")
            jobs = [pool.job("length_in_child", "x" * 200_000) for _ in range(20)]
            pool.run(*jobs)
            assert values(jobs) == [200_000] * 20

    def test_jobs_of_a_batch_run_one_at_a_time_in_order(self, tmp_path: Path) -> None:
        """A child is one slot, however much it has been given."""
        trace = tmp_path / "trace"
        with bench("note_run_in_child", slots=1) as pool:
            call_small(pool, "note_run_in_child")
            pool.run(*[pool.job("note_run_in_child", str(trace), str(n)) for n in range(60)])
        assert trace.read_text().split() == [str(number) for number in range(60)]

    def test_at_most_once_jobs_are_given_one_by_one(self, tmp_path: Path) -> None:
        """That one has begun is said before its child has it."""
        trace = tmp_path / "trace"
        with bench("note_run_in_child", slots=1) as pool:
            call_small(pool, "note_run_in_child")
            jobs = [
                pool.job("note_run_in_child", str(trace), str(n), at_most_once=True)
                for n in range(10)
            ]
            pool.run(*jobs)
            assert all(job.started_ms is not None for job in jobs)
            assert not any(len(child.given) > 1 for child in executor_of(pool)._children)


class TestCharges:
    """Only what ran is charged."""

    def test_a_crash_costs_the_job_that_ran_and_none_behind_it(self, tmp_path: Path) -> None:
        """The others of its batch run in another child, once each, and were never lost."""
        trace = tmp_path / "trace"
        with bench("note_run_in_child", slots=1) as pool:
            call_small(pool, "note_run_in_child")
            jobs = [pool.job("note_run_in_child", str(trace), str(n), n == 20) for n in range(50)]
            pool.run(*jobs)
        outcomes = [job.result.outcome for job in jobs if job.result is not None]
        assert outcomes == [LOST if number == 20 else COMPLETED for number in range(50)]
        assert trace.read_text().split() == [str(number) for number in range(50)]

    def test_a_child_killed_while_idle_costs_nothing(self) -> None:
        """The next job runs elsewhere."""
        with bench("where_in_child", slots=1) as pool:
            (first,) = values([_ran(pool, "where_in_child")])
            assert isinstance(first, int)
            os.kill(first, signal.SIGKILL)
            (second,) = values([_ran(pool, "where_in_child")])
            assert second != first

    def test_the_end_of_a_child_is_seen_before_that_of_its_stream(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The kernel tells of both at once, in any order: it costs the job that ran, no more."""
        monkeypatch.setattr(selectors, "DefaultSelector", EndsFirst)
        with bench("where_in_child", "kill_itself_in_child", slots=1) as pool:
            assert pool.result("kill_itself_in_child").outcome is LOST
            assert values([_ran(pool, "where_in_child")])

    def test_a_stopped_child_holds_up_nobody(self, tmp_path: Path) -> None:
        """Jobs behind one that is stopped, and cannot answer, go to another child unstarted."""
        started, mark = str(tmp_path / "s"), str(tmp_path / "m")
        name = "unless_first_in_child"
        with bench(name, slots=2) as pool:
            call_small(pool, name)
            jobs = [pool.job(name, started, mark, timeout_ms=60_000) for _ in range(40)]
            pool.pool.run(jobs)
            until_exists(Path(started))
            pool.until(lambda: sum(ENDED in pool.kinds(job) for job in jobs) == 39)
            (stuck,) = [job for job in jobs if job.result is None]
            pool.pass_time(60_001)
            pool.until(lambda: stuck.result is not None)
            assert stuck.result is not None
            assert stuck.result.outcome is TIMED_OUT
            others = {job.result.outcome for job in jobs if job.result and job is not stuck}
            assert others == {COMPLETED}

    def test_a_job_behind_another_is_cancelled_at_once(self, tmp_path: Path) -> None:
        """It has not begun: it ends without having run, and the one that runs goes on."""
        started, trace = tmp_path / "s", tmp_path / "trace"
        names = ("until_told_in_child", "note_run_in_child")
        with bench(*names, slots=1) as pool:
            call_small(pool, *names)
            first = pool.job("until_told_in_child", str(started))
            behind = [pool.job("note_run_in_child", str(trace), str(n)) for n in range(3)]
            pool.pool.run([first, *behind])
            until_exists(started)
            for job in behind:
                # Whoever is back at the gate is withdrawn there, as a session does it.
                if not job.withdraw():
                    pool.pool.stop(job, CANCELLED)
                    assert pool.outcome_after(job, ENDED) is CANCELLED
            assert first.result is None
            pool.pool.stop(first, CANCELLED)
            assert pool.outcome_after(first, ENDED) is CANCELLED
        assert not trace.exists()

    def test_a_crash_is_noticed_though_a_copy_of_the_child_lives(self, tmp_path: Path) -> None:
        """What it has forked holds its sockets open, and ends with it."""
        with bench("fork_and_crash_in_child", slots=1) as pool:
            assert pool.result("fork_and_crash_in_child", str(tmp_path / "f")).outcome is LOST
            wait_gone(int((tmp_path / "f").read_text()))


class TestReplacement:
    """Children grow old."""

    def test_a_child_that_has_run_its_number_is_replaced_without_a_pause(self) -> None:
        """The old one works until the new one is ready, and ends by itself."""
        with bench("where_in_child", slots=1) as pool:
            executor_of(pool)._recycling = Recycling(jobs=5)
            seen: list[object] = []
            while len(set(seen)) < 4:
                seen += values([_ran(pool, "where_in_child")])
            executor = executor_of(pool)
            # Each has run its number at least: nobody had to wait for the next one's start. Of two
            # that were started one after the other, the second may be the first that is ready.
            young = {child.pid for child in executor._children if not child.is_old}
            counts = [seen.count(pid) for pid in dict.fromkeys(seen) if pid not in young]
            assert counts
            assert all(count >= 5 for count in counts)
            executor._recycling = NEVER
            while any(child.is_old for child in executor._children):
                _ran(pool, "where_in_child")

    def test_a_child_that_has_grown_is_replaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What it may have more than when it was ready is bounded; its jobs are not charged."""
        monkeypatch.setattr(process, "WEIGH_MS", 0)
        with bench("grow_in_child", slots=1) as pool:
            executor_of(pool)._recycling = Recycling(growth_kib=64 * 1024)
            (big,) = values([_ran(pool, "grow_in_child", 100)])
            while values([_ran(pool, "grow_in_child", 0)]) == [big]:
                pass

    def test_a_child_that_cannot_be_listened_to_is_tried_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There may be no more threads for a while: it is ended, and jobs wait for the next one."""
        tries: list[int] = []

        class Scarce(LastWords):
            def __init__(self, descriptor: int) -> None:
                tries.append(descriptor)
                if len(tries) <= 2:
                    raise RuntimeError("can't start new thread")
                super().__init__(descriptor)

        monkeypatch.setattr(child_link, "LastWords", Scarce)
        monkeypatch.setattr(process, "RESPAWN_MS", 10)
        with bench("double_in_child", slots=1) as pool:
            assert pool.result("double_in_child", 2).outcome is COMPLETED
        assert len(tries) > 2

    def test_there_is_one_child_more_than_are_busy(self, tmp_path: Path) -> None:
        """So that a crash does not cost the next job the start of a child."""
        with bench("until_told_in_child", slots=1) as pool:
            job = pool.begin(pool.job("until_told_in_child", str(tmp_path / "s")), tmp_path / "s")
            executor = executor_of(pool)
            pool.pass_time(0)
            while sum(child.is_ready for child in executor._children) < 2:
                _wait(0.01)
            pool.pool.stop(job, CANCELLED)
            pool.outcome_after(job, ENDED)
            assert len(executor._children) == 2


class TestLastWords:
    """The error says how the child ended."""

    @pytest.mark.parametrize(
        ("name", "says", "words"),
        [
            ("segfault_in_child", "SIGSEGV", "applications.py"),
            ("abort_in_child", "SIGABRT", "Fatal Python error"),
            ("crash_in_child", "exit status 17", ""),
            ("kill_itself_in_child", "SIGKILL, and not by this worker", ""),
            ("say_and_crash_in_child", "that was all", "x" * 1000 + "\nthat was all"),
        ],
    )
    def test_signal_memory_and_words(self, name: str, says: str, words: str) -> None:
        """The signal by its name, the peak of memory, and the end of what it wrote."""
        with bench(name, slots=1) as pool:
            result = pool.result(name)
        assert result.outcome is LOST
        assert result.fault is not None
        assert result.fault.type == "tenure.LOST"
        assert says in result.fault.message
        assert "MiB of memory" in result.fault.message
        assert words in result.fault.traceback

    def test_a_child_that_closes_its_sockets_is_ended(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It can answer no more: the attempt is lost, and the next job runs elsewhere."""
        monkeypatch.setattr(process, "EXIT_MS_MAX", 50)
        with bench("slam_in_child", "double_in_child", slots=1) as pool:
            assert pool.result("slam_in_child").outcome is LOST
            assert pool.result("double_in_child", 2).outcome is COMPLETED

    def test_deep_recursion_is_an_error_of_the_job(self) -> None:
        """Python says so by itself, and the child lives on."""
        with bench("recurse_in_child", slots=1) as pool:
            result = pool.result("recurse_in_child")
        assert result.outcome is AttemptOutcome.FAILED
        assert result.fault is not None
        assert result.fault.type == "RecursionError"


def _ran(pool: Bench, name: str, *args: object) -> HeldJob:
    job = pool.job(name, *args)
    pool.run(job)
    return job


def _is_process(event: tuple[selectors.SelectorKey, int]) -> bool:
    return isinstance(event[0].fileobj, int)


def _is_at_end(event: tuple[selectors.SelectorKey, int]) -> bool:
    sock = event[0].fileobj
    if not isinstance(sock, socket.socket):
        return False
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return False


def _wait(seconds: float) -> None:
    threading.Event().wait(seconds)


class TestLimits:
    """What one job may use, and that the next one in its child may use as much."""

    def test_memory(self) -> None:
        """An allocation beyond the limit fails; below it, and after it, all is well."""
        with bench("grasp_in_child", slots=1) as pool:
            for _ in range(2):
                result = pool.result("grasp_in_child", 200)
                assert result.outcome is AttemptOutcome.FAILED
                assert result.fault is not None
                assert result.fault.type == "MemoryError"
                assert values([_ran(pool, "grasp_in_child", 20)]) == [20]

    def test_files(self) -> None:
        """So many besides those of the child."""
        with bench("open_in_child", slots=1) as pool:
            assert values([_ran(pool, "open_in_child", 20)]) == [20]
            result = pool.result("open_in_child", 60)
            assert result.fault is not None
            assert "Too many open files" in result.fault.message

    def test_cpu_time(self) -> None:
        """Whoever uses it up is killed where it is; that is its own failure, and no lost worker."""
        with bench("burn_in_child", "double_in_child", slots=1) as pool:
            result = pool.result("burn_in_child")
            assert result.outcome is AttemptOutcome.FAILED
            assert result.fault is not None
            assert "SIGXCPU (it used up its CPU time)" in result.fault.message
            assert "in burn_in_child" in result.fault.traceback
            assert pool.result("double_in_child", 2).outcome is COMPLETED

    def test_niceness_is_the_jobs_only(self) -> None:
        """A child that cannot be less nice again runs no other job."""
        with bench("nice_in_child", "double_in_child", slots=1) as pool:
            nice = min(os.getpriority(os.PRIO_PROCESS, 0) + 7, 19)
            # While the first two begin, either may have a job: of three jobs one child has two.
            ran = [*values([_ran(pool, "nice_in_child", False) for _ in range(3)])]
            assert {found for found, _ in ran} == {nice}  # type: ignore[misc]
            assert len({child for _, child in ran}) < 3  # type: ignore[misc]
            ((again, child),) = values([_ran(pool, "nice_in_child", True)])  # type: ignore[misc]
            assert again == nice
            ((_, other),) = values([_ran(pool, "nice_in_child", False)])  # type: ignore[misc]
            assert other != child

    def test_a_child_that_does_not_end_is_killed(self) -> None:
        """One that is replaced after its job may be kept by a thread that this has left behind."""
        with bench("dangle_in_child", "double_in_child", slots=1) as pool:
            (pid,) = values([_ran(pool, "dangle_in_child")])
            assert pool.result("double_in_child", 2).outcome is COMPLETED
            pool.pass_time(process.EXIT_MS_MAX)
            executor_of(pool)._ring()
            assert isinstance(pid, int)
            wait_gone(pid)

    def test_a_fork_bomb(self, tmp_path: Path) -> None:
        """The kernel stops it, and what it has forked goes with its child."""
        with bench("bomb_in_child", slots=1) as pool:
            executor_of(pool)._recycling = Recycling(jobs=1)
            (count,) = values([_ran(pool, "bomb_in_child", str(tmp_path / "s"))])
            assert isinstance(count, int)
            assert count < 30


def test_a_worker_whose_children_nobody_serves_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody could say what becomes of their jobs, and their leases would be renewed for ever."""
    statuses: SimpleQueue[int] = SimpleQueue()

    monkeypatch.setattr(os, "_exit", statuses.put)
    with bench("double_in_child") as pool:
        executor_of(pool)._order(lambda: [][0])
        assert statuses.get(timeout=WAIT_S) == EXIT_BROKEN
    (record,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert record.exc_info is not None
