"""How jobs begin, whatever runs them."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.executor.patience import GRACE_MS
from tenure.worker.port import FactKind
from tests.unit.worker.executor.bench import bench


@pytest.mark.parametrize("name", ["double", "double_async", "double_in_child"])
def test_a_job_that_was_stopped_before_its_turn_does_not_run(name: str) -> None:
    """A stop may meet it on its way back from a child in which it had not begun: nobody is there to
    be told, so its code is not called, and its slot is free for the next.
    """
    with bench(name, slots=1) as pool:
        job = pool.job(name, 2)
        job.stop = AttemptOutcome.CANCELLED
        other = pool.job(name, 2)
        results = pool.run(job, other)
        outcomes = [result.outcome for result in results]
        assert outcomes == [AttemptOutcome.CANCELLED, AttemptOutcome.COMPLETED]
        assert job.started_ms is None


def test_a_job_that_came_too_late_frees_its_slot_once(tmp_path: Path) -> None:
    """An at-most-once job is passed over, its lease being lost, and its worker, which has yet to
    hear that, wants it stopped for the same reason: no more jobs run than there are slots.
    """
    with bench("deaf", slots=1) as pool:
        late = pool.job("deaf", "", "", at_most_once=True, expires_ms=pool.clock.boot_ms())
        pool.pool.run([late])
        until(lambda: pool.pool._outbox._facts)
        pool.pool.stop(late, AttemptOutcome.LOST)
        pool.until(lambda: pool.kinds(late))
        assert pool.kinds(late) == [FactKind.UNSTARTED]
        late.freed = True
        pool.pass_time(GRACE_MS)
        assert (late.result, pool.pool.lost) == (None, 0)
        release = tmp_path / "release"
        jobs = [pool.job("deaf", str(tmp_path / str(n)), str(release)) for n in range(2)]
        pool.begin(jobs[0], tmp_path / "0")
        pool.pool.run(jobs[1:])
        assert not jobs[1].claimed
        release.touch()
        pool.until(lambda: all(FactKind.ENDED in pool.kinds(job) for job in jobs))


def until(done: Callable[[], object]) -> None:
    """Waits for another thread."""
    tick = threading.Event()
    while not done():
        tick.wait(0.005)
