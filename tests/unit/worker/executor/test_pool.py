"""The executors with real threads, a real loop and real children."""

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tenure.protocol.limits import ERROR_MESSAGE_BYTES_MAX
from tenure.protocol.vocabulary import AttemptOutcome, ErrorCategory
from tenure.worker.executor.patience import GRACE_MS, RELEASE_GRACE_MS
from tenure.worker.port import FactKind
from tests.processes import has_ended
from tests.unit.worker.executor.bench import Bench, bench, until_exists, wait_gone

STARTED, ENDED = FactKind.STARTED, FactKind.ENDED
CANCELLED, TIMED_OUT = AttemptOutcome.CANCELLED, AttemptOutcome.TIMED_OUT
COMPLETED = AttemptOutcome.COMPLETED
LOST, RELEASED = AttemptOutcome.LOST, AttemptOutcome.RELEASED


class TestRuns:
    """Jobs that end by themselves."""

    @pytest.mark.parametrize("name", ["double", "double_async", "double_in_child"])
    def test_results_come_back(self, name: str) -> None:
        """Each executor calls the function with its arguments and encodes what it returns."""
        with bench(name) as pool:
            jobs = [pool.job(name, number) for number in range(20)]
            results = pool.run(*jobs)
            assert [msgspec.msgpack.decode(result.result) for result in results] == [
                2 * number for number in range(20)
            ]
            # A start is news only as long as the end is not.
            assert all(pool.kinds(job) in ([ENDED], [STARTED, ENDED]) for job in jobs)

    @pytest.mark.parametrize("name", ["who", "who_in_child"])
    def test_context_names_the_attempt(self, name: str) -> None:
        """``current_job()`` has the id, the name, the attempt and the fence."""
        with bench(name) as pool:
            job = pool.job(name, attempt=3)
            (result,) = pool.run(job)
            assert msgspec.msgpack.decode(result.result) == [
                job.job_id,
                name,
                "3",
                job.lease.fence,
            ]

    @pytest.mark.parametrize("name", ["leave_trace", "leave_trace_async"])
    def test_context_variables_do_not_leak(self, name: str) -> None:
        """What one job sets the next one in the same thread or loop does not see."""
        with bench(name, slots=1) as pool:
            results = pool.run(*[pool.job(name) for _ in range(3)])
            assert {msgspec.msgpack.decode(result.result) for result in results} == {"clean"}

    def test_no_more_than_the_slots_run_at_once(self, tmp_path: Path) -> None:
        """Slots bound all kinds together; the next job begins when one ends."""
        with bench("deaf", "double_async", slots=1) as pool:
            release = tmp_path / "release"
            first = pool.begin(
                pool.job("deaf", str(tmp_path / "one"), str(release)), tmp_path / "one"
            )
            second, third = pool.job("double_async", 1), pool.job("double_async", 2)
            pool.pool.run([second, third])
            assert not second.claimed
            release.touch()
            pool.until(lambda: ENDED in pool.kinds(third))
            order = [job for kind, job in pool.facts if kind is ENDED]
            assert order == [first, second, third]

    def test_withdrawn_job_does_not_run(self, tmp_path: Path) -> None:
        """A job that was given back while it waited is passed over, and holds no slot."""
        with bench("deaf", "note_run", slots=1) as pool:
            release, trace = tmp_path / "release", tmp_path / "trace"
            pool.begin(pool.job("deaf", str(tmp_path / "one"), str(release)), tmp_path / "one")
            jobs = [pool.job("note_run", str(trace)) for _ in range(3)]
            pool.pool.run(jobs)
            assert jobs[1].withdraw()
            release.touch()
            pool.until(lambda: ENDED in pool.kinds(jobs[2]))
            assert pool.kinds(jobs[1]) == []
            assert trace.read_text().splitlines() == ["ran", "ran"]

    @pytest.mark.parametrize("name", ["double", "double_async", "double_in_child"])
    def test_job_whose_lease_is_over_does_not_run(self, name: str) -> None:
        """The deadline is looked at once more when the job's turn comes."""
        with bench(name, slots=1) as pool:
            late = pool.job(name, 1, expires_ms=pool.clock.boot_ms())
            pool.pool.run([late])
            pool.until(lambda: pool.kinds(late))
            assert pool.kinds(late) == [FactKind.UNSTARTED]
            assert pool.result(name, 4).outcome is AttemptOutcome.COMPLETED


class TestFaults:
    """Jobs that fail."""

    @pytest.mark.parametrize(
        ("kind", "outcome", "category", "type_name"),
        [
            ("plain", AttemptOutcome.FAILED, ErrorCategory.TRANSIENT, "RuntimeError"),
            (
                "permanent",
                AttemptOutcome.FAILED_PERMANENT,
                ErrorCategory.PERMANENT,
                "tenure.client.errors.Permanent",
            ),
            (
                "later",
                AttemptOutcome.FAILED,
                ErrorCategory.TRANSIENT,
                "tenure.client.errors.RetryLater",
            ),
            (
                "listed",
                AttemptOutcome.FAILED_PERMANENT,
                ErrorCategory.PERMANENT,
                "tests.unit.worker.applications.BadInput",
            ),
            ("os", AttemptOutcome.FAILED, ErrorCategory.SYSTEM, "OSError"),
            ("exit", AttemptOutcome.FAILED, ErrorCategory.TRANSIENT, "SystemExit"),
        ],
    )
    def test_errors_are_classified(
        self, kind: str, outcome: AttemptOutcome, category: ErrorCategory, type_name: str
    ) -> None:
        """The class says whether a retry can help; the traceback shows user code only."""
        listed = frozenset({"tests.unit.worker.applications.BadInput"})
        with bench("fail") as pool:
            result = pool.result("fail", kind, non_retryable=listed)
        assert result.fault is not None
        assert (result.outcome, result.fault.category, result.fault.type) == (
            outcome,
            category,
            type_name,
        )
        assert "applications.py" in result.fault.traceback
        assert "executor" not in result.fault.traceback
        assert result.fault.retry_after_ms == (7_000 if kind == "later" else None)

    def test_long_messages_are_cut(self) -> None:
        """A message over its limit is cut and marked."""
        with bench("fail") as pool:
            fault = pool.result("fail", "long").fault
        assert fault is not None
        assert len(fault.message) == ERROR_MESSAGE_BYTES_MAX
        assert fault.message.endswith("[cut]")

    @pytest.mark.parametrize("name", ["double", "double_in_child"])
    @pytest.mark.parametrize(
        ("payload", "path"),
        [
            pytest.param(msgspec.msgpack.encode(([], {})), "number", id="missing"),
            pytest.param(msgspec.msgpack.encode(([1, 2], {})), "too many", id="too many"),
            pytest.param(msgspec.msgpack.encode((["x"], {})), "number", id="wrong type"),
            pytest.param(b"\xc1", "payload", id="no payload at all"),
        ],
    )
    def test_arguments_that_do_not_fit(self, name: str, payload: bytes, path: str) -> None:
        """No retry can mend them: FAILED_PERMANENT, with the path of what is wrong."""
        with bench(name) as pool:
            result = pool.result(name, payload=payload)
        assert result.outcome is AttemptOutcome.FAILED_PERMANENT
        assert result.fault is not None
        assert result.fault.type == "INVALID_ARGUMENT"
        assert path in result.fault.message

    @pytest.mark.parametrize(
        ("name", "type_name", "says"),
        [
            ("give_back_too_much", "PAYLOAD_TOO_LARGE", "262144"),
            ("give_back_nonsense", "INVALID_ARGUMENT", "result"),
        ],
    )
    def test_results_that_cannot_travel(self, name: str, type_name: str, says: str) -> None:
        """Refused at the worker, naming the limit."""
        with bench(name) as pool:
            result = pool.result(name)
        assert result.outcome is AttemptOutcome.FAILED_PERMANENT
        assert result.fault is not None
        assert result.fault.type == type_name
        assert says in result.fault.message

    def test_unknown_job_fails_with_its_name(self) -> None:
        """Another worker may have it, so a retry can help."""
        with bench("double") as pool:
            job = pool.job("who")
            (result,) = pool.run(job)
        assert result.outcome is AttemptOutcome.FAILED
        assert result.fault is not None
        assert result.fault.type == "UNKNOWN_JOB"
        assert "who" in result.fault.message


class TestStops:
    """Cancels, timeouts, lost leases."""

    @pytest.mark.parametrize("name", ["until_told", "until_told_async", "until_told_in_child"])
    @pytest.mark.parametrize("outcome", [CANCELLED, RELEASED])
    def test_asked_job_ends(self, name: str, outcome: AttemptOutcome, tmp_path: Path) -> None:
        """A job that has checkpoints ends at the next one, with the outcome it was asked for."""
        with bench(name) as pool:
            job = pool.begin(pool.job(name, str(tmp_path / "s")), tmp_path / "s")
            pool.pool.stop(job, outcome)
            assert pool.outcome_after(job, ENDED) is outcome

    @pytest.mark.parametrize("name", ["until_told", "until_told_in_child"])
    def test_revoked_lease_ends_the_job(self, name: str, tmp_path: Path) -> None:
        """LeaseLost at the next checkpoint, reported as LOST."""
        with bench(name) as pool:
            job = pool.begin(pool.job(name, str(tmp_path / "s")), tmp_path / "s")
            job.revoked = True
            pool.pool.tell_lease(job)
            assert pool.outcome_after(job, ENDED) is LOST

    @pytest.mark.parametrize("name", ["until_told", "until_told_in_child"])
    def test_job_fences_itself_at_its_deadline(self, name: str, tmp_path: Path) -> None:
        """No word from the session is needed: it may be paused. A renewal moves the deadline."""
        with bench(name) as pool:
            # A child may take long to start: until then the lease has to stand.
            job = pool.job(name, str(tmp_path / "s"), expires_ms=pool.clock.boot_ms() + 60_000)
            pool.begin(job, tmp_path / "s")
            job.expires_ms = pool.clock.boot_ms() + 50
            renewed_ms = job.expires_ms
            pool.pool.tell_lease(job)
            assert pool.outcome_after(job, ENDED) is LOST
            assert job.ended_ms is not None
            assert job.ended_ms >= renewed_ms

    @pytest.mark.parametrize("name", ["until_told", "until_told_async", "until_told_in_child"])
    def test_timeout(self, name: str, tmp_path: Path) -> None:
        """A job that runs past its timeout is TIMED_OUT, not before."""
        with bench(name) as pool:
            pool.clock.stand()
            job = pool.job(name, str(tmp_path / "s"), timeout_ms=60_000)
            pool.begin(job, tmp_path / "s")
            pool.pass_time(59_999)
            assert job.stop is None
            pool.pass_time(1)
            pool.until(lambda: job.result is not None)
            assert job.result is not None
            assert job.result.outcome is TIMED_OUT

    @pytest.mark.parametrize("name", ["deaf", "stubborn_async"])
    def test_lost_slot_is_replaced(self, name: str, tmp_path: Path) -> None:
        """What does not stop is reported at its limit, and the next job begins beside its code."""
        started, release = tmp_path / "s", tmp_path / "r"
        with bench(name, slots=1) as pool:
            job = pool.job(name, str(started), str(release), timeout_ms=1_000)
            pool.begin(job, started)
            beside = pool.job(name, str(tmp_path / "beside"), str(release))
            pool.pool.run([beside])
            assert not beside.claimed
            pool.pass_time(1_001)
            pool.pass_time(GRACE_MS)
            assert pool.outcome_after(job, FactKind.ABANDONED) is TIMED_OUT
            assert pool.pool.lost == 1
            until_exists(tmp_path / "beside")
            release.touch()
            pool.until(lambda: FactKind.FREED in pool.kinds(job))
            pool.until(lambda: ENDED in pool.kinds(beside))
            assert pool.kinds(job) == [STARTED, FactKind.ABANDONED, FactKind.FREED]
            assert job.result is not None
            assert job.result.outcome is TIMED_OUT
            assert pool.pool.lost == 0

    @pytest.mark.parametrize("name", ["deaf", "stubborn_async"])
    def test_late_end_of_a_lost_slot_frees_no_other(self, name: str, tmp_path: Path) -> None:
        """However many were lost and have come back, no more than the slots run at once."""
        with bench(name, slots=2) as pool:
            late = tmp_path / "late"
            lost = [pool.job(name, str(tmp_path / f"l{n}"), str(late)) for n in range(4)]
            for number, job in enumerate(lost):
                pool.begin(job, tmp_path / f"l{number}")
                pool.pool.stop(job, CANCELLED)
                pool.pass_time(GRACE_MS + 1)
            assert pool.pool.lost == 4
            late.touch()
            pool.until(lambda: all(FactKind.FREED in pool.kinds(job) for job in lost))
            assert pool.pool.lost == 0
            release = tmp_path / "release"
            jobs = [pool.job(name, str(tmp_path / f"j{n}"), str(release)) for n in range(3)]
            pool.pool.run(jobs)
            until_exists(tmp_path / "j0")
            until_exists(tmp_path / "j1")
            assert not jobs[2].claimed
            release.touch()
            pool.until(lambda: all(ENDED in pool.kinds(job) for job in jobs))

    def test_lost_slots_are_told_as_they_come(self, tmp_path: Path) -> None:
        """Whoever decides on a restart learns of each one, with the count as it is then."""
        told: list[int] = []
        with bench("deaf", slots=1, on_lost=lambda: told.append(pool.pool.lost)) as pool:
            for number in range(3):
                job = pool.job("deaf", str(tmp_path / str(number)), str(tmp_path / "release"))
                pool.begin(job, tmp_path / str(number))
                pool.pool.stop(job, LOST)
            (tmp_path / "release").touch()
        assert told == [1, 2, 3]

    def test_deaf_child_is_killed_after_the_grace(self, tmp_path: Path) -> None:
        """A process can always be stopped."""
        with bench("deaf_in_child", "double_in_child", slots=1) as pool:
            job = pool.begin(pool.job("deaf_in_child", str(tmp_path / "s")), tmp_path / "s")
            pool.pool.stop(job, RELEASED)
            pool.pass_time(RELEASE_GRACE_MS + 1)
            assert pool.outcome_after(job, ENDED) is RELEASED
            assert pool.result("double_in_child", 2).outcome is AttemptOutcome.COMPLETED

    def test_kill_takes_along_what_the_child_has_started(self, tmp_path: Path) -> None:
        """No orphan survives a timeout."""
        started = tmp_path / "s"
        with bench("parent_in_child") as pool:
            job = pool.job("parent_in_child", str(started), timeout_ms=1_000)
            pool.begin(job, started)
            grandchild = _written(started)
            pool.pass_time(1_001)
            assert pool.outcome_after(job, ENDED) is TIMED_OUT
        wait_gone(grandchild)

    def test_first_wish_counts(self, tmp_path: Path) -> None:
        """A timeout after a cancel does not change what was asked for."""
        with bench("until_told") as pool:
            job = pool.job("until_told", str(tmp_path / "s"), timeout_ms=1_000)
            pool.begin(job, tmp_path / "s")
            pool.pool.stop(job, CANCELLED)
            pool.pass_time(1_001)
            pool.until(lambda: job.result is not None)
            assert job.result is not None
            assert job.result.outcome is CANCELLED

    def test_ended_jobs_leave_no_alarms(self) -> None:
        """Long timeouts of short jobs do not pile up."""
        with bench("double", slots=4) as pool:
            for _ in range(4):
                pool.run(*[pool.job("double", 1, timeout_ms=3_600_000) for _ in range(600)])
            assert len(pool.pool._patience._alarms) <= 1_100


class TestChildren:
    """What a child does costs one attempt."""

    @pytest.mark.parametrize("name", ["crash_in_child", "abort_in_child", "babble_in_child"])
    def test_crash_costs_one_attempt(self, name: str) -> None:
        """An exit, a signal or an answer that cannot be read: LOST, and the child is replaced."""
        with bench(name, "double_in_child", slots=1) as pool:
            assert pool.result(name).outcome is LOST
            assert pool.result("double_in_child", 2).outcome is AttemptOutcome.COMPLETED

    def test_crash_does_not_touch_the_neighbours(self, tmp_path: Path) -> None:
        """A job in another child goes on."""
        started = tmp_path / "s"
        with bench("crash_in_child", "until_told_in_child", slots=2) as pool:
            job = pool.begin(pool.job("until_told_in_child", str(started)), started)
            assert pool.result("crash_in_child").outcome is LOST
            assert job.result is None
            pool.pool.stop(job, CANCELLED)
            assert pool.outcome_after(job, ENDED) is CANCELLED

    def test_progress_comes_through(self, tmp_path: Path) -> None:
        """What a child's job reports is in the parent's books for the next heartbeat."""
        with bench("until_told_in_child") as pool:
            job = pool.job("until_told_in_child", str(tmp_path / "s"))
            pool.begin(job, tmp_path / "s")
            tick = threading.Event()
            while job.progress != 50:
                tick.wait(0.005)

    def test_prints_stay_out_of_stdout(self, capfd: pytest.CaptureFixture[str]) -> None:
        """The worker's stdout is for its events."""
        with bench("print_in_child") as pool:
            assert pool.result("print_in_child").outcome is AttemptOutcome.COMPLETED
        assert capfd.readouterr().out == ""

    def test_no_child_outlives_the_pool(self, tmp_path: Path) -> None:
        """Closing kills what runs."""
        with bench("deaf_in_child", slots=1) as pool:
            pool.begin(pool.job("deaf_in_child", str(tmp_path / "s")), tmp_path / "s")
            executor = pool.pool._processes
            assert executor is not None
            pids = [child.pid for child in executor._children]
        assert all(map(has_ended, pids))


def test_facts_come_in_batches() -> None:
    """Under load there are far fewer wake-ups than facts."""
    wakes = []
    with bench("double_async", slots=50) as pool:
        _count_wakes(pool, wakes.append)
        jobs = [pool.job("double_async", number) for number in range(2_000)]
        pool.run(*jobs)
    assert len(wakes) < len(jobs)


def _count_wakes(pool: Bench, note: Callable[[None], None]) -> None:
    outbox = pool.pool._outbox
    wake = outbox._wake

    def counted() -> None:
        note(None)
        wake()

    outbox._wake = counted


def _written(path: Path) -> int:
    """The number in a file that another process is writing."""
    tick = threading.Event()
    while not path.read_text():
        tick.wait(0.005)
    return int(path.read_text())
