"""What an attempt's code is told, and what becomes of what it raises."""

import contextvars
from datetime import UTC, datetime
from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.client import Cancelled, LeaseLost, Permanent, job
from tenure.client.codec import JSON, encode_args
from tenure.protocol.limits import CUT
from tenure.protocol.text import cut
from tenure.protocol.vocabulary import AttemptOutcome, ErrorCategory
from tenure.worker.attempt import context_of, fault_of, raised, returned, run_function
from tenure.worker.held import AttemptResult, Terms
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


@job(name="twice")
def twice(numbers: list[int]) -> list[int]:
    """Has annotations."""
    return numbers * 2


class Moody:
    """A codec that raises what the test says."""

    content_type = "application/vnd.t.moody"
    version = 1
    error: BaseException | None = None

    def encode(self, data: object) -> bytes:
        if self.error is not None:
            raise self.error
        return msgspec.msgpack.encode(data)

    def decode(self, payload: bytes) -> object:
        return msgspec.msgpack.decode(payload)


MOODY = Moody()


def result_of(payload: bytes, content_type: str) -> AttemptResult:
    """What becomes of a call of ``twice``."""
    attempt = held(terms=Terms("twice", content_type=content_type), payload=payload)
    context = partial(context_of, attempt, StillClock())
    return contextvars.Context().run(run_function, {"twice": twice}, attempt, context)


@pytest.mark.parametrize("payload", [b"", b"\x92\x90\x80", b"\xff" * 9])
def test_a_payload_of_an_unknown_codec_is_for_another_worker(payload: bytes) -> None:
    """The attempt fails before anything is run, and is retried; the worker goes on."""
    result = result_of(payload, "application/vnd.t.nowhere;version=7")
    assert result.outcome is AttemptOutcome.FAILED
    assert result.fault is not None
    assert result.fault.type == "UNKNOWN_CODEC"
    assert result.fault.category is ErrorCategory.TRANSIENT


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        (b"\xc1", "payload"),
        (msgspec.msgpack.encode([[["1"]], {}]), "numbers[0]"),
        (msgspec.msgpack.encode([[], {}]), "numbers"),
    ],
)
def test_arguments_that_do_not_fit_fail_for_good(payload: bytes, path: str) -> None:
    """Calling again cannot help; the message has the path."""
    result = result_of(payload, "")
    assert result.outcome is AttemptOutcome.FAILED_PERMANENT
    assert result.fault is not None
    assert (result.fault.type, path in result.fault.message) == ("INVALID_ARGUMENT", True)


def test_a_result_is_encoded_as_the_arguments_are() -> None:
    """Who sent JSON reads JSON."""
    payload = encode_args(twice.options(codec=JSON), ([1],), {})
    assert result_of(payload, JSON).result == b"[1,1]"


@pytest.mark.parametrize("value", [(1, 1), [True], ["1"], object()])
def test_a_result_that_would_change_fails_for_good(value: object) -> None:
    """It is not what the annotation promises to whoever waits."""
    result = returned(held(), twice, value)
    assert result.outcome is AttemptOutcome.FAILED_PERMANENT
    assert result.fault is not None
    assert "result" in result.fault.message


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (OSError("no key service"), AttemptOutcome.FAILED),
        (Permanent("key destroyed"), AttemptOutcome.FAILED_PERMANENT),
        (SystemExit(1), AttemptOutcome.FAILED),
    ],
)
def test_what_a_codec_raises_is_the_attempts(
    error: BaseException, outcome: AttemptOutcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the function had raised it, whatever it is: no codec ends a worker."""
    payload = encode_args(twice.options(codec=MOODY), ([1],), {})
    monkeypatch.setattr(MOODY, "error", error)
    assert result_of(payload, MOODY.content_type).outcome is outcome
