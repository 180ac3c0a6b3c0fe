"""Commands: what they are told, what comes back, how they end, and that all of them does."""

import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tenure.protocol.vocabulary import AttemptOutcome, ErrorCategory
from tenure.worker.executor.launch import Finished
from tenure.worker.executor.pool import TIMEOUT_GRACE_MS
from tenure.worker.port import FactKind
from tests.processes import has_ended
from tests.unit.worker.executor.bench import WAIT_S, Bench, bench, wait_gone

COMPLETED, FAILED = AttemptOutcome.COMPLETED, AttemptOutcome.FAILED
PERMANENT = AttemptOutcome.FAILED_PERMANENT
TIMED_OUT, CANCELLED = AttemptOutcome.TIMED_OUT, AttemptOutcome.CANCELLED


def value(pool: Bench, name: str, *args: object) -> object:
    """What a job gives back."""
    result = pool.result(name, *args)
    assert result.outcome is COMPLETED, result.fault
    return msgspec.msgpack.decode(result.result)


class TestRuns:
    """Commands that end well."""

    def test_stdout_is_the_result_and_no_shell_reads_the_arguments(self) -> None:
        """As text, as bytes, or not at all, as the annotation says."""
        with bench("echo", "shout", "mute_script") as pool:
            assert value(pool, "echo", "a b", "$HOME; rm *") == "a b $HOME; rm *\n"
            assert value(pool, "shout", "loud") == b"LOUD"
            assert value(pool, "mute_script", "echo nobody hears; exit 0") is None

    def test_the_environment_names_the_attempt(self) -> None:
        """The job, the attempt and the fence, besides the worker's variables and its own."""
        with bench("told") as pool:
            job = pool.job("told", "TENURE_JOB_ID", attempt=3)
            (result,) = pool.run(job)
            assert msgspec.msgpack.decode(result.result) == job.job_id
            job = pool.job("told", "TENURE_FENCE")
            (result,) = pool.run(job)
            assert msgspec.msgpack.decode(result.result) == job.lease.fence
            assert value(pool, "told", "TENURE_ATTEMPT") == "1"
            assert value(pool, "told", "TENURE_JOB_NAME") == "told"
            assert value(pool, "told", "OWN") == "mine"
            assert value(pool, "told", "PATH") == os.environ["PATH"]

    def test_a_workers_variables_need_not_be_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What its environment holds is passed on as it is."""
        monkeypatch.setitem(os.environb, b"ODD", b"\xff")
        with bench("shout", "told") as pool:
            assert value(pool, "shout", "on") == b"ON"
            assert value(pool, "told", "ODD") == "\ufffd"

    def test_working_directory_and_niceness(self, tmp_path: Path) -> None:
        """As the command and the job's limits say."""
        own = os.getpriority(os.PRIO_PROCESS, 0)
        with bench("script") as pool:
            told = value(pool, "script", "pwd; nice", str(tmp_path))
            assert told == f"{tmp_path}\n{min(own + 3, 19)}\n"

    def test_many_at_once(self) -> None:
        """As many as there are slots, each with its own output."""
        with bench("echo", slots=8) as pool:
            jobs = [pool.job("echo", str(number)) for number in range(60)]
            results = pool.run(*jobs)
            texts = [msgspec.msgpack.decode(result.result) for result in results]
            assert texts == [f"{number}\n" for number in range(60)]


class TestEnds:
    """Commands that do not."""

    def test_another_status_than_0(self) -> None:
        """The attempt failed, with the status and the end of stderr."""
        with bench("script") as pool:
            result = pool.result("script", "echo some >&2; echo no luck >&2; exit 3")
        assert result.outcome is FAILED
        assert result.fault is not None
        assert result.fault.type == "tenure.client.command.CommandFailed"
        assert "exit status 3" in result.fault.message
        assert "it said last: no luck" in result.fault.message
        assert result.fault.traceback == "It said last:\nsome\nno luck"

    def test_a_signal_is_named(self) -> None:
        """As of a child, with the peak of memory."""
        with bench("script") as pool:
            result = pool.result("script", "kill -SEGV $$")
        assert result.outcome is FAILED
        assert result.fault is not None
        assert "SIGSEGV" in result.fault.message
        assert "MiB of memory" in result.fault.message

    def test_no_such_program(self) -> None:
        """No retry helps, and the reason is a type of its own."""
        with bench("no_such_command", "script") as pool:
            result = pool.result("no_such_command")
            assert result.outcome is PERMANENT
            assert result.fault is not None
            assert result.fault.type == "COMMAND_NOT_FOUND"
            assert result.fault.category is ErrorCategory.PERMANENT
            assert "/no/such/program-4711" in result.fault.message
            result = pool.result("script", "pwd", "/no/such/folder")
            assert result.fault is not None
            assert (result.outcome, result.fault.type) == (PERMANENT, "COMMAND_NOT_FOUND")
            assert "/no/such/folder" in result.fault.message

    def test_more_than_a_program_can_be_given(self) -> None:
        """One long argument, or a long stdin: no retry helps, and the error says what does. Other
        commands of the worker run on.
        """
        with bench("echo", "script", "shout_file", slots=3) as pool:
            other = pool.job("script", "sleep 0.5; echo on")
            pool.pool.run([other])
            for job in (pool.job("echo", "x" * 200_000), pool.job("shout_file", 20 << 20)):
                (result,) = pool.run(job)
                assert result.fault is not None
                assert (result.outcome, result.fault.type) == (PERMANENT, "PAYLOAD_TOO_LARGE")
                assert "as stdin" in result.fault.message
            pool.until(lambda: other.result is not None)
            assert other.result is not None
            assert other.result.outcome is COMPLETED

    def test_endless_output_ends_the_command(self) -> None:
        """A result is bounded: whoever writes on is killed, and the worker keeps none of it."""
        with bench("script", "mute_script") as pool:
            result = pool.result("script", "yes")
            assert result.outcome is PERMANENT
            assert result.fault is not None
            assert result.fault.type == "PAYLOAD_TOO_LARGE"
            assert value(pool, "mute_script", "yes | head -c 2000000") is None

    def test_limits_hold_a_command(self) -> None:
        """Memory, CPU time and open files, each with an end that says so."""
        with bench("small_python") as pool:
            result = pool.result("small_python", "x = b'x' * (200 << 20)")
            assert result.fault is not None
            assert "MemoryError" in result.fault.message
            result = pool.result("small_python", "while True: pass")
            assert result.fault is not None
            assert "SIGXCPU (it used up its CPU time)" in result.fault.message
            result = pool.result("small_python", "a = [open('/dev/null') for _ in range(40)]")
            assert result.fault is not None
            assert "Too many open files" in result.fault.message

    def test_a_launcher_that_dies_costs_the_attempts(self, tmp_path: Path) -> None:
        """The commands die with it; the next one has another."""
        with bench("script", slots=1) as pool:
            job = pool.job("script", f"echo $$ > {tmp_path}/p; sleep 600")
            pool.pool.run([job])
            running = _written(tmp_path / "p")
            launcher = pool.pool._launcher._process
            assert launcher is not None
            launcher.kill()
            pool.until(lambda: job.result is not None)
            assert job.result is not None
            assert job.result.outcome is FAILED
            assert job.result.fault is not None
            assert job.result.fault.category is ErrorCategory.SYSTEM
            wait_gone(running)
            assert value(pool, "script", "echo on") == "on\n"


class TestStops:
    """Cancels and timeouts."""

    def test_a_cancel_is_a_sigterm(self, tmp_path: Path) -> None:
        """A command that handles it may clean up."""
        with bench("script") as pool:
            text = f"trap 'echo clean > {tmp_path}/c; exit 1' TERM; echo $$ > {tmp_path}/p"
            job = pool.job("script", f"{text}; while true; do sleep 0.01; done")
            pool.pool.run([job])
            _written(tmp_path / "p")
            pool.pool.stop(job, CANCELLED)
            assert pool.outcome_after(job, FactKind.ENDED) is CANCELLED
            assert (tmp_path / "c").read_text() == "clean\n"

    def test_a_stop_at_the_last_moment_is_met(self) -> None:
        """It comes when the command is about to be launched and is not known yet: it is not begun,
        for nobody would end it later.
        """
        with bench("script") as pool:
            launcher, about, stopped = pool.pool._launcher, threading.Event(), threading.Event()
            run = launcher.run

            def run_late(*args: Any) -> Finished | None:
                about.set()
                stopped.wait(WAIT_S)
                return run(*args)

            launcher.run = run_late  # type: ignore[method-assign]
            job = pool.job("script", "sleep 600", at_most_once=True)
            pool.pool.run([job])
            about.wait(WAIT_S)
            pool.pool.stop(job, AttemptOutcome.LOST)
            stopped.set()
            assert pool.outcome_after(job, FactKind.ENDED) is AttemptOutcome.LOST

    def test_a_timeout_ends_all_that_it_has_started(self, tmp_path: Path) -> None:
        """SIGTERM, and after the grace SIGKILL, to the whole group."""
        with bench("script") as pool:
            inner = f"sh -c \"trap '' TERM; echo \\$\\$ > {tmp_path}/g; sleep 600; sleep 600\""
            job = pool.job("script", f"trap '' TERM; {inner}", timeout_ms=60_000)
            pool.pool.run([job])
            grandchild = _written(tmp_path / "g")
            pool.until(lambda: FactKind.STARTED in pool.kinds(job))
            pool.pass_time(60_001)
            assert job.stop is TIMED_OUT
            assert not has_ended(grandchild)
            pool.pass_time(TIMEOUT_GRACE_MS + 1)
            assert pool.outcome_after(job, FactKind.ENDED) is TIMED_OUT
            wait_gone(grandchild)

    def test_what_a_command_leaves_behind_goes_with_it(self, tmp_path: Path) -> None:
        """A program that goes on in the background is ended with the one that was waited for."""
        with bench("script") as pool:
            text = f"sleep 600 & echo $! > {tmp_path}/g"
            assert value(pool, "script", text) == ""
            wait_gone(int((tmp_path / "g").read_text()))

    def test_no_command_outlives_the_pool(self, tmp_path: Path) -> None:
        """Closing ends what runs."""
        with bench("script") as pool:
            pool.pool.run([pool.job("script", f"echo $$ > {tmp_path}/p; sleep 600")])
            running = _written(tmp_path / "p")
        wait_gone(running)


def _written(path: Path) -> int:
    """The number in a file that another process is writing."""
    tick = threading.Event()
    while not path.exists() or not path.read_text().endswith("\n"):
        tick.wait(0.005)
    return int(path.read_text())
