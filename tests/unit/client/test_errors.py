"""The errors that users meet: what they are, and what they say."""

from datetime import timedelta

import pytest

from tenure.client import (
    JobFailed,
    Reason,
    Rejected,
    RemoteError,
    RetryLater,
    TenureError,
    Unavailable,
    WaitTimeout,
)
from tenure.client.errors import error_type_names, without_callback
from tenure.protocol.vocabulary import ErrorCategory, FailureReason


class Broken(KeyError):
    """An error of an application."""


def test_a_failed_jobs_error_says_what_happened() -> None:
    """One line names the job, the number of attempts, the reason and the remote error."""
    remote = RemoteError(type="ValueError", message="bad", category=ErrorCategory.PERMANENT)
    error = JobFailed("id-1", remote, 1, FailureReason.PERMANENT)
    assert str(error) == (
        "expected job id-1 to complete, but it failed (PERMANENT) after 1 attempt: ValueError: bad"
    )
    assert isinstance(error, TenureError)
    assert not error.retryable


def test_a_failed_jobs_text_has_the_traceback_from_the_worker() -> None:
    """What a program prints when it lets the error pass shows where the job failed."""
    trace = 'Traceback (most recent call last):\n  File "app.py", line 3, in f\nKeyError: 1\n'
    error = JobFailed("id-1", RemoteError(type="KeyError", message="1", traceback=trace), 4)
    assert trace in str(error)
    assert str(error).startswith(error.message)
    assert "\n" not in error.message


def test_a_wait_timeout_counts_the_others() -> None:
    """A wait for several jobs names one and says how many more there are."""
    assert "job id-1 and 1 other to end" in str(WaitTimeout("id-1", 1, others=1))
    assert "job id-1 and 7 others to end" in str(WaitTimeout("id-1", 1, others=7))


def test_a_wait_timeout_is_both_kinds() -> None:
    """Code that knows only TimeoutError catches it, and so does code that knows only ours."""
    error = WaitTimeout("id-1", 2.5)
    assert isinstance(error, TimeoutError)
    assert isinstance(error, TenureError)
    assert "2.5 s" in str(error)
    assert error.retryable


def test_error_names_cover_base_classes() -> None:
    """A policy may name an error or any of its base classes; builtins go without a module."""
    names = error_type_names(Broken)
    assert names[0] == f"{__name__}.Broken"
    assert names[1:4] == ["KeyError", "LookupError", "Exception"]


def test_a_retry_wish_looks_forward() -> None:
    """A delay below zero is refused where it is written."""
    assert RetryLater(timedelta(seconds=3)).after == timedelta(seconds=3)
    with pytest.raises(TenureError):
        RetryLater(timedelta(seconds=-3))


def test_who_hears_that_a_callback_was_refused_knows_of_its_job() -> None:
    """The job is there: the error says so, with its id, and does not pass for a refusal of it."""
    refusal = Rejected("expected space", reason=Reason.STORE_FULL)
    told = without_callback("id-1", refusal)
    assert isinstance(told, Unavailable)
    assert "only job id-1 was taken" in str(told)
    assert told.reason is Reason.OUTCOME_UNKNOWN
    assert told.metadata["job_id"] == "id-1"
    assert told.__cause__ is refusal
