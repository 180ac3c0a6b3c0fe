"""A held job: who takes it first has it."""

from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.held import AttemptResult
from tests.unit.worker.rig import DONE, held


def test_begun_job_cannot_be_withdrawn() -> None:
    """Started wins over a take-back."""
    job = held()
    assert job.begin(5)
    assert not job.withdraw()
    assert job.started_ms == 5


def test_withdrawn_job_cannot_begin() -> None:
    """What was given back never runs."""
    job = held()
    assert job.withdraw()
    assert not job.begin(5)
    assert job.started_ms is None


def test_first_result_stays() -> None:
    """An attempt that was given up keeps that result, whatever its code returns later."""
    job = held()
    job.begin(5)
    assert job.finish(AttemptResult(AttemptOutcome.TIMED_OUT), 9)
    assert not job.finish(DONE, 20)
    assert job.result is not None
    assert job.result.outcome is AttemptOutcome.TIMED_OUT
    assert job.run_ms == 4


def test_asking_makes_a_loss_final() -> None:
    """A job that was told of its lost lease stops: the lease must not come back."""
    job = held(expires_ms=100)
    assert not job.is_lost(99)
    assert not job.lost_seen
    assert job.is_lost(100)
    job.expires_ms = 1_000
    assert job.is_lost(101)
