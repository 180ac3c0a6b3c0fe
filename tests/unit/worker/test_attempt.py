"""What an attempt's code is told, and what becomes of what it raises."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.client import Cancelled, LeaseLost
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.attempt import CUT, context_of, cut, fault_of, raised
from tenure.worker.held import Terms
from tests.unit.worker.rig import held


class StillClock:
    """A clock that stands."""

    def boot_ms(self) -> int:
        return 5_000

    def wall_ms(self) -> int:
        return 1_800_000_000_000


@pytest.mark.parametrize(
    ("timeout_ms", "deadline_ms", "expected_ms"),
    [
        (0, 0, None),
        (2_000, 0, 1_800_000_002_000),
        (0, 1_800_000_001_000, 1_800_000_001_000),
        (2_000, 1_800_000_001_000, 1_800_000_001_000),
        (500, 1_800_000_001_000, 1_800_000_000_500),
    ],
)
def test_deadline_is_the_earlier_of_timeout_and_deadline(
    timeout_ms: int, deadline_ms: int, expected_ms: int | None
) -> None:
    """The job sees when it must have ended, whichever limit comes first."""
    job = held(terms=Terms("double", timeout_ms=timeout_ms), deadline_ms=deadline_ms)
    deadline = context_of(job, StillClock()).deadline
    if expected_ms is None:
        assert deadline is None
    else:
        assert deadline == datetime.fromtimestamp(expected_ms / 1000, UTC)


def test_deadline_does_not_depend_on_when_it_is_asked_for() -> None:
    """The timeout runs from the job's start."""
    job = held(terms=Terms("double", timeout_ms=2_000))
    job.begin(StillClock().boot_ms() - 700)
    deadline = context_of(job, StillClock()).deadline
    assert deadline == datetime.fromtimestamp(1_800_000_001.3, UTC)


def test_lost_lease_wins_over_a_cancel() -> None:
    """A job that has lost its lease is told so, even if it was cancelled too."""
    job = held(expires_ms=5_000)
    job.stop = AttemptOutcome.CANCELLED
    with pytest.raises(LeaseLost) as caught:
        context_of(job, StillClock()).checkpoint()
    assert raised(job, caught.value).outcome is AttemptOutcome.LOST


def test_stopped_job_has_the_outcome_it_was_asked_for() -> None:
    """Whatever a job raises on its way out, it was told to go."""
    job = held()
    job.stop = AttemptOutcome.TIMED_OUT
    assert raised(job, ValueError("clean-up failed")).outcome is AttemptOutcome.TIMED_OUT


def test_unasked_cancellation_is_a_failure() -> None:
    """A job that raises Cancelled by itself was not cancelled by anyone."""
    assert raised(held(), Cancelled("x")).outcome is AttemptOutcome.FAILED


class Unprintable(Exception):
    """An error of user code at its worst."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_unprintable_error_is_reported_all_the_same() -> None:
    """An error whose own text fails does not take the worker along."""
    assert "RuntimeError" in fault_of(Unprintable()).message


def test_unpaired_surrogates_become_valid_text() -> None:
    """A message is always valid UTF-8, or no envelope could carry it."""
    fault_of(ValueError("\ud800")).message.encode()


@given(st.text(), st.integers(len(CUT), 64))
def test_cut_text_fits(text: str, bytes_max: int) -> None:
    """A cut text is within the limit in bytes, valid, and marked; a short one is untouched."""
    result = cut(text, bytes_max)
    assert len(result.encode()) <= bytes_max
    if len(text.encode("utf-8", "replace")) > bytes_max:
        assert result.endswith(CUT)
    else:
        assert result == text.encode("utf-8", "replace").decode()
