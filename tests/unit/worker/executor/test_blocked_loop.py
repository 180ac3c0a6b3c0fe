"""A job that blocks the loop of async jobs: who is told, who gets on, and when it is enough."""

import logging
from pathlib import Path

import pytest

from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.executor.loop import BLOCKED_MS, PROBE_MS, STUCK_LOOKS_MAX, STUCK_LOOKS_MIN
from tenure.worker.executor.patience import GRACE_MS
from tenure.worker.held import HeldJob
from tenure.worker.port import FactKind, Load
from tests.unit.worker.executor.bench import Bench, bench, until_exists

STARTED, ENDED = FactKind.STARTED, FactKind.ENDED
TIMED_OUT, COMPLETED, LOST = (
    AttemptOutcome.TIMED_OUT,
    AttemptOutcome.COMPLETED,
    AttemptOutcome.LOST,
)


class TestBlockedLoop:
    """A job that blocks the loop."""

    @pytest.mark.parametrize("name", ["block_loop", "block_loop_later"])
    def test_blocked_loop_is_reported_with_the_jobs_name(
        self, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One warning names the job and its line; plain functions go on meanwhile."""
        started, release = tmp_path / "s", tmp_path / "r"
        with bench(name, "double") as pool, caplog.at_level(logging.WARNING):
            pool.pass_time(PROBE_MS)
            job = pool.begin(pool.job(name, str(started), str(release)), started)
            for _ in range(8):
                pool.pass_time(BLOCKED_MS // 2)
            assert pool.result("double", 1).outcome is AttemptOutcome.COMPLETED
            blocked = pool.pool.loop_blocked
            assert blocked is not None
            assert (blocked.job_id, blocked.name) == (job.job_id, name)
            assert blocked.ms >= 3 * BLOCKED_MS
            assert "in block_loop" in blocked.stack
            assert "tenure/worker" not in blocked.stack
            release.touch()
            pool.until(lambda: ENDED in pool.kinds(job))
            pool.until_turned()
            assert pool.pool.loop_blocked is None
        (warning,) = [record.message for record in caplog.records]
        assert f"({name})" in warning
        assert job.job_id in warning
        assert blocked.stack in warning

    def test_each_blockage_is_reported(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A loop that has turned and is blocked again is news."""
        with bench("block_loop") as pool, caplog.at_level(logging.WARNING):
            for number in range(2):
                started, release = tmp_path / f"s{number}", tmp_path / f"r{number}"
                pool.until_turned()
                job = pool.begin(pool.job("block_loop", str(started), str(release)), started)
                for _ in range(5):
                    pool.pass_time(BLOCKED_MS)
                release.touch()
                pool.until(lambda job=job: ENDED in pool.kinds(job))  # type: ignore[misc]
        assert len(caplog.records) == 2

    def test_a_callback_that_blocks_the_loop_is_found(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No job runs at that moment: the stack alone says what it is."""
        started, release = tmp_path / "s", tmp_path / "r"
        with bench("block_by_callback") as pool, caplog.at_level(logging.WARNING):
            pool.until_turned()
            pool.pool.run([pool.job("block_by_callback", str(started), str(release))])
            until_exists(started)
            for _ in range(5):
                pool.pass_time(BLOCKED_MS)
            blocked = pool.pool.loop_blocked
            release.touch()
        assert blocked is not None
        assert blocked.job_id == ""
        assert "in _block" in blocked.stack
        assert "a callback has blocked" in caplog.records[0].message

    def test_a_blocked_loop_takes_no_slots(self, tmp_path: Path) -> None:
        """What could not begin in it lets others have the slots, and comes first when it turns."""
        started, release = tmp_path / "s", tmp_path / "r"
        with bench("block_loop", "double_async", "double", slots=3) as pool:
            self._block(pool, pool.job("block_loop", str(started), str(release)), started)
            waiting = [pool.job("double_async", number) for number in range(5)]
            pool.pool.run(waiting)
            assert [pool.result("double", 1).outcome for _ in range(3)] == [COMPLETED] * 3
            assert not any(job.claimed for job in waiting)
            release.touch()
            pool.until_turned()
            pool.until(lambda: all(ENDED in pool.kinds(job) for job in waiting))
            ended = [job for kind, job in pool.facts if kind is ENDED]
            assert [job for job in ended if job in waiting] == waiting
            assert len(pool.run(*[pool.job("double_async", number) for number in range(9)])) == 9

    def test_what_has_a_slot_when_the_loop_is_blocked_gives_it_back(self, tmp_path: Path) -> None:
        """Also what the master has taken back meanwhile: no slot is kept for what never begins."""
        started, release = tmp_path / "s", tmp_path / "r"
        with bench("block_loop", "double_async", "deaf", slots=3) as pool:
            pool.until_turned()
            pool.begin(pool.job("block_loop", str(started), str(release)), started)
            waiting = [pool.job("double_async", number) for number in range(2)]
            pool.pool.run(waiting)
            assert all(job.withdraw() for job in waiting)
            self._wait_blocked(pool)
            for number in range(2):
                job = pool.job("deaf", str(tmp_path / str(number)), str(release))
                pool.begin(job, tmp_path / str(number))
            release.touch()
            pool.until_turned()
            assert len(pool.run(*[pool.job("double_async", number) for number in range(9)])) == 9
            assert [pool.kinds(job) for job in waiting] == [[], []]

    def test_a_loop_whose_blocker_was_given_up_is_stuck(self, tmp_path: Path) -> None:
        """One job is enough: whoever decides on a restart is told, with any number of slots."""
        started, release = tmp_path / "s", tmp_path / "r"
        told: list[Load] = []

        def note() -> None:
            told.append(pool.pool.load(pool.clock.boot_ms()))

        with bench("block_loop", "double", slots=20, on_lost=note) as pool:
            job = pool.job("block_loop", str(started), str(release), timeout_ms=1_000)
            self._block(pool, job, started)
            assert told == []
            pool.pass_time(GRACE_MS)
            assert pool.outcome_after(job, FactKind.ABANDONED) is TIMED_OUT
            for _ in range(STUCK_LOOKS_MIN):
                pool.pass_time(PROBE_MS)
            load = told[-1]
            assert (load.stuck, load.lost) == (True, 1)
            assert load.blocked is not None
            assert load.blocked.job_id == job.job_id
            assert pool.result("double", 1).outcome is COMPLETED
            release.touch()
            pool.until_turned()
            assert not pool.pool.load(pool.clock.boot_ms()).stuck

    @pytest.mark.parametrize(("timeout_ms", "outcome"), [(0, LOST), (3_600_000, None)])
    def test_a_job_that_blocks_for_a_minute_is_given_up(
        self, timeout_ms: int, outcome: AttemptOutcome | None, tmp_path: Path
    ) -> None:
        """Its error says what to do. One with a timeout may take so long, whatever that does."""
        started, release = tmp_path / "s", tmp_path / "r"
        with bench("block_loop") as pool:
            job = pool.job("block_loop", str(started), str(release), timeout_ms=timeout_ms)
            self._block(pool, job, started)
            for _ in range(STUCK_LOOKS_MAX - 5):
                pool.pass_time(PROBE_MS)
            assert job.result is None
            for _ in range(6 + STUCK_LOOKS_MIN):
                pool.pass_time(PROBE_MS)
            assert pool.pool.load(pool.clock.boot_ms()).stuck is (outcome is not None)
            assert (job.result and job.result.outcome) is outcome
            if job.result is not None and job.result.fault is not None:
                assert "give it a timeout" in job.result.fault.message
            release.touch()

    def test_a_blocker_that_ends_by_itself_leaves_no_loop_stuck(self, tmp_path: Path) -> None:
        """Its attempt has a result a moment before the loop turns."""
        started, release = tmp_path / "s", tmp_path / "r"
        with bench("block_loop") as pool:
            pool.pass_time(PROBE_MS)
            job = pool.begin(pool.job("block_loop", str(started), str(release)), started)
            for _ in range(2 * STUCK_LOOKS_MIN):
                pool.pass_time(BLOCKED_MS)
            release.touch()
            pool.until(lambda: job.result is not None)
            for _ in range(STUCK_LOOKS_MIN):
                assert not pool.pool.load(pool.clock.boot_ms()).stuck
                pool.until_turned()
                pool.pass_time(PROBE_MS)

    def test_a_callback_that_blocks_for_a_minute_leaves_the_loop_stuck(
        self, tmp_path: Path
    ) -> None:
        """There is nobody to give up: only a new process helps."""
        started, release = tmp_path / "s", tmp_path / "r"
        with bench("block_by_callback") as pool:
            pool.until_turned()
            pool.pool.run([pool.job("block_by_callback", str(started), str(release))])
            until_exists(started)
            self._wait_blocked(pool)
            assert not pool.pool.load(pool.clock.boot_ms()).stuck
            for _ in range(STUCK_LOOKS_MAX):
                pool.pass_time(PROBE_MS)
            assert pool.pool.load(pool.clock.boot_ms()).stuck
            release.touch()

    def test_time_that_nobody_has_seen_blames_nobody(self, tmp_path: Path) -> None:
        """A machine that slept for an hour wakes up to a job that has run for a moment."""
        started, release = tmp_path / "s", tmp_path / "r"
        with bench("block_loop") as pool:
            pool.until_turned()
            job = pool.begin(pool.job("block_loop", str(started), str(release)), started)
            pool.pass_time(3_600_000)
            for _ in range(3):
                pool.pass_time(PROBE_MS)
            assert job.result is None
            release.touch()
            assert pool.outcome_after(job, ENDED) is COMPLETED

    def _block(self, pool: Bench, job: HeldJob, started: Path) -> None:
        """Has a job block the loop until the watch has said so."""
        pool.until_turned()
        pool.begin(job, started)
        self._wait_blocked(pool)

    def _wait_blocked(self, pool: Bench) -> None:
        while pool.pool.loop_blocked is None:
            pool.pass_time(PROBE_MS)
