"""Attempts: backoffs against their formulas, budgets, what is kept of attempts."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core import command as commands
from tenure.master.core.attempt import _cut, backoff_ms, draws, lost_fault, timeout_fault
from tenure.master.core.record import Attempt, JobFault, Policy, RetryPolicy
from tenure.protocol.fence import Lease, Token
from tenure.protocol.vocabulary import (
    AttemptOutcome,
    Backoff,
    ErrorCategory,
    FailureReason,
    Jitter,
    JobState,
)
from tests.unit.master.core.rig import CONFIG, Rig

PLAIN = RetryPolicy(jitter=Jitter.NONE, base_ms=100, cap_ms=1_000)
TRANSIENT = ErrorCategory.TRANSIENT
EXPIRY_MS = CONFIG.lease_ttl_ms + CONFIG.lease_margin_ms


def with_retry(**fields: object) -> Policy:
    """A policy that retries without jitter, unless told otherwise."""
    return Policy(name="job", retry=RetryPolicy(**{"jitter": Jitter.NONE, **fields}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        (Backoff.EXPONENTIAL, [100, 200, 400, 800, 1_000, 1_000]),
        (Backoff.LINEAR, [100, 200, 300, 400, 500, 600]),
        (Backoff.FIXED, [100] * 6),
        (Backoff.FIBONACCI, [100, 100, 200, 300, 500, 800]),
        (Backoff.NONE, [0] * 6),
    ],
)
def test_backoff_formulas(backoff: Backoff, delays: list[int]) -> None:
    """Each strategy's delays after 1, 2, 3 … failures, capped."""
    retry = RetryPolicy(backoff=backoff, jitter=Jitter.NONE, base_ms=100, cap_ms=1_000)
    assert [backoff_ms(retry, n, TRANSIENT, 0.7) for n in range(1, 7)] == delays


@given(
    backoff=st.sampled_from(Backoff),
    jitter=st.sampled_from(Jitter),
    failures=st.integers(1, 1_000),
    factor=st.floats(1, 100),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_backoff_stays_within_cap_and_jitter(
    backoff: Backoff, jitter: Jitter, failures: int, factor: float, draw: float
) -> None:
    """Full jitter is in [0, d], equal jitter in [d/2, d], none is d; d is at most the cap."""
    plain = RetryPolicy(backoff=backoff, jitter=Jitter.NONE, factor=factor)
    spread = RetryPolicy(backoff=backoff, jitter=jitter, factor=factor)
    delay = backoff_ms(plain, failures, TRANSIENT, 0.0)
    drawn = backoff_ms(spread, failures, TRANSIENT, draw)
    assert 0 <= delay <= plain.cap_ms
    lowest = {Jitter.FULL: 0, Jitter.EQUAL: delay // 2, Jitter.NONE: delay}[jitter]
    assert lowest <= drawn <= delay


def test_jitter_follows_the_draw() -> None:
    """The draw is what the command brought: full d×u, equal d/2 + d/2×u."""
    full = RetryPolicy(backoff=Backoff.FIXED, jitter=Jitter.FULL, base_ms=1_000)
    equal = RetryPolicy(backoff=Backoff.FIXED, jitter=Jitter.EQUAL, base_ms=1_000)
    assert backoff_ms(full, 1, TRANSIENT, 0.25) == 250
    assert backoff_ms(equal, 1, TRANSIENT, 0.25) == 625


def test_system_errors_have_their_own_base() -> None:
    """SYSTEM errors back off from system_base_ms, if it is set."""
    retry = RetryPolicy(jitter=Jitter.NONE, base_ms=100, system_base_ms=5_000)
    assert backoff_ms(retry, 2, ErrorCategory.SYSTEM, 0.0) == 10_000
    assert backoff_ms(retry, 2, TRANSIENT, 0.0) == 200
    assert backoff_ms(PLAIN, 2, ErrorCategory.SYSTEM, 0.0) == 200


def test_retry_is_due_after_its_backoff() -> None:
    """A failed job waits RETRYING for exactly its delay; its age starts anew."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(with_retry(base_ms=3_000))
    row = rig.grant_one()
    rig.now_ms += 50
    rig.fail(row)
    record = rig.record(job_id)
    assert (record.state, record.ready_ms) == (JobState.RETRYING, rig.now_ms + 3_000)
    rig.pass_time(2_999)
    assert rig.state(job_id) is JobState.RETRYING
    rig.pass_time(1)
    assert rig.state(job_id) is JobState.PENDING
    assert rig.record(job_id).ready_ms == rig.now_ms


def test_retry_after_wins_over_backoff() -> None:
    """The job's own wish for a delay beats strategy, cap and jitter."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(Policy(name="job"))
    rig.fail(rig.grant_one(), JobFault("app.RateLimited", "wait", retry_after_ms=120_000))
    assert rig.record(job_id).ready_ms == rig.now_ms + 120_000


def test_max_attempts() -> None:
    """max_attempts failures end the job FAILED/EXHAUSTED; each attempt is numbered."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(with_retry(backoff=Backoff.NONE, max_attempts=3))
    for attempt in (1, 2, 3):
        row = rig.grant_one()
        assert rig.record(job_id).attempt == attempt
        rig.fail(row)
        rig.pass_time(0)
    record = rig.record(job_id)
    assert (record.state, record.failure_reason) == (JobState.FAILED, FailureReason.EXHAUSTED)
    assert record.attempts_charged == 3
    assert [attempt.number for attempt in record.history] == [1, 2]


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (AttemptOutcome.FAILED_PERMANENT, None),
        (AttemptOutcome.FAILED, JobFault("app.E", "", category=ErrorCategory.PERMANENT)),
        (AttemptOutcome.FAILED, JobFault("app.Hopeless", "")),
    ],
)
def test_permanent_failures(outcome: AttemptOutcome, fault: JobFault | None) -> None:
    """A permanent outcome, category or listed type ends the job at once."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(with_retry(non_retryable=("app.Hopeless",)))
    rig.report(rig.grant_one(), outcome, fault=fault)
    record = rig.record(job_id)
    assert (record.state, record.failure_reason) == (JobState.FAILED, FailureReason.PERMANENT)


def test_last_timeout_names_itself() -> None:
    """The last allowed attempt that times out ends the job FAILED/TIMED_OUT."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(with_retry(max_attempts=1))
    rig.report(rig.grant_one(), AttemptOutcome.TIMED_OUT)
    assert rig.record(job_id).failure_reason is FailureReason.TIMED_OUT


@pytest.mark.parametrize("max_lost", [0, 2])
def test_max_lost(max_lost: int) -> None:
    """max_lost losses are survived, the next one is POISON; no attempt is charged."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(with_retry(backoff=Backoff.NONE, max_lost=max_lost))
    for _ in range(max_lost):
        rig.report(rig.grant_one(), AttemptOutcome.LOST)
        rig.pass_time(0)
        assert rig.state(job_id) is JobState.PENDING
    rig.report(rig.grant_one(), AttemptOutcome.LOST)
    record = rig.record(job_id)
    assert (record.state, record.failure_reason) == (JobState.FAILED, FailureReason.POISON)
    assert (record.attempts_charged, record.losses_charged) == (0, max_lost + 1)


def test_budgets_are_apart() -> None:
    """Losses do not use up attempts, nor attempts losses."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(with_retry(backoff=Backoff.NONE, max_attempts=2, max_lost=1))
    for outcome in (AttemptOutcome.FAILED, AttemptOutcome.LOST):
        rig.report(rig.grant_one(), outcome)
        rig.pass_time(0)
    assert rig.state(job_id) is JobState.PENDING
    rig.report(rig.grant_one(), AttemptOutcome.FAILED)
    assert rig.record(job_id).failure_reason is FailureReason.EXHAUSTED


@pytest.mark.parametrize("by_report", [False, True])
def test_returns_are_charged_to_no_budget(by_report: bool) -> None:
    """A job handed back, started or not, keeps its age and its budgets."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(with_retry(max_attempts=1, max_lost=0))
    ready_ms = rig.now_ms
    for _ in range(15):
        row = rig.grant_one()
        rig.start(row)
        rig.now_ms += 10
        if by_report:
            rig.report(row, AttemptOutcome.RELEASED)
        else:
            rig.give_back(row)
        record = rig.record(job_id)
        assert (record.state, record.ready_ms) == (JobState.PENDING, ready_ms)
        assert (record.attempts_charged, record.losses_charged, record.undelivered) == (0, 0, 0)
    assert record.attempt == 15


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (AttemptOutcome.LOST, FailureReason.LOST),
        (AttemptOutcome.FAILED, FailureReason.EXHAUSTED),
        (AttemptOutcome.TIMED_OUT, FailureReason.TIMED_OUT),
    ],
)
def test_at_most_once_never_runs_again(outcome: AttemptOutcome, reason: FailureReason) -> None:
    """An at_most_once job that was lost or failed has ended."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(Policy(name="job", at_most_once=True))
    rig.report(rig.grant_one(), outcome)
    assert rig.record(job_id).failure_reason is reason


def test_at_most_once_expiry() -> None:
    """An at_most_once job whose lease expires is FAILED/LOST; its late success is refused."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(Policy(name="job", at_most_once=True))
    rig.grant_one()
    rig.pass_time(EXPIRY_MS)
    assert rig.record(job_id).failure_reason is FailureReason.LOST


@pytest.mark.parametrize("started", [False, True])
def test_at_most_once_return(started: bool) -> None:
    """Handed back unstarted it may run; interrupted it has run, and must not run again."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(Policy(name="job", at_most_once=True))
    row = rig.grant_one()
    if started:
        rig.start(row)
    rig.give_back(row)
    assert rig.state(job_id) is (JobState.FAILED if started else JobState.PENDING)


def test_history_keeps_first_and_last_attempts() -> None:
    """Ended attempts are kept in order: the first and the last ten, with times and workers."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(with_retry(backoff=Backoff.NONE, max_attempts=100))
    for index in range(40):
        row = rig.grant_one()
        rig.start(row)
        rig.now_ms += 7
        rig.fail(row, JobFault("app.E", f"failure {index}"))
        rig.pass_time(0)
    record = rig.record(job_id)
    assert [a.number for a in record.history] == [*range(1, 11), *range(30, 40)]
    first = record.history[0]
    assert (first.worker, first.outcome) == ("worker-1", AttemptOutcome.FAILED)
    assert first.ended_ms - first.started_ms == 7
    assert first.fault == JobFault("app.E", "failure 0")
    assert (record.attempt, record.fault) == (40, JobFault("app.E", "failure 39"))


def test_a_later_attempt_has_a_greater_fence() -> None:
    """As text, too, which is what users compare in their databases: after a failure, under the next
    leader, and in a new run.
    """
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(with_retry(backoff=Backoff.NONE, max_attempts=3))
    fences = []
    for step in ("fail", "lose the leader", "requeue", "end"):
        row = rig.grant_one()
        fences.append(row.lease.fence)
        rig.report(
            row, AttemptOutcome.FAILED if step == "fail" else AttemptOutcome.FAILED_PERMANENT
        )
        if step == "lose the leader":
            rig.crash(window_ms=0)
            rig.open_session(1)
        if step != "fail":
            rig.do(commands.RequeueJobs(job_ids=[job_id]))
        rig.pass_time(0)
    assert fences == sorted(set(fences))


def test_history_errors_are_cut() -> None:
    """The errors of the kept attempts take at most 64 KiB, tracebacks are cut first and marked."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(with_retry(backoff=Backoff.NONE, max_attempts=100))
    fault = JobFault("app.E", "m" * 4_096, "t" * 32_768)
    for _ in range(30):
        rig.fail(rig.grant_one(), fault)
        rig.pass_time(0)
    history = rig.record(job_id).history
    faults = [attempt.fault for attempt in history if attempt.fault is not None]
    assert sum(len(f.message) + len(f.traceback) for f in faults) <= 64 * 1024
    assert faults[0].traceback == "[cut]"
    assert faults[-1].message == fault.message


def attempt_of(fault: JobFault | None) -> Attempt:
    """An ended attempt."""
    return Attempt(
        number=1,
        worker="w",
        lease=Lease(Token(1, 1), 1, 0),
        granted_ms=1,
        started_ms=2,
        ended_ms=3,
        outcome=AttemptOutcome.FAILED,
        fault=fault,
    )


HALF = 32 * 1024


@pytest.mark.parametrize(
    ("errors", "kept"),
    [
        # What is exactly within the limit is left, and attempts without an error count for nothing.
        ([None, ("m" * HALF, ""), ("m" * HALF, "")], [None, ("m" * HALF, ""), ("m" * HALF, "")]),
        # Tracebacks go before messages, the oldest first, and no more of them than need be.
        (
            [None, ("m", "t" * HALF), ("m", "t" * HALF), ("m", "t" * HALF)],
            [None, ("m", "[cut]"), ("m", "[cut]"), ("m", "t" * HALF)],
        ),
        ([("m" * 2 * HALF, "12345"), ("", "1")], [("[cut]", "12345"), ("", "1")]),
        (
            [("12345", "t"), None, ("m" * HALF, "t"), ("m" * HALF, "t" * 9)],
            [("12345", "t"), None, ("[cut]", "t"), ("m" * HALF, "[cut]")],
        ),
        ([("m" * 3 * HALF, "t" * 9)], [("[cut]", "[cut]")]),
    ],
)
def test_errors_are_cut_as_far_as_need_be(
    errors: list[tuple[str, str] | None], kept: list[tuple[str, str] | None]
) -> None:
    """The oldest errors give way, by as much as keeps all of them within the limit."""
    history = [attempt_of(None if error is None else JobFault("E", *error)) for error in errors]
    found = [attempt.fault for attempt in _cut(history)]
    assert [fault and (fault.message, fault.traceback) for fault in found] == kept


def test_draws_never_end() -> None:
    """Numbers come round again; a command without any gets the middle."""
    assert list(islice(draws([0.1, 0.2]), 3)) == [0.1, 0.2, 0.1]
    assert list(islice(draws([]), 2)) == [0.5, 0.5]


def test_what_the_master_says_of_attempts() -> None:
    """The master's own faults have types of their own, which clients can tell."""
    assert timeout_fault("its timeout", 5) == JobFault("tenure.TimedOut", "its timeout of 5 ms")
    assert lost_fault("w", 7) == JobFault(
        "tenure.LeaseExpired", "worker w was not heard of for its lease of 7 ms"
    )


def test_backoff_counts_what_happened() -> None:
    """Losses back off by the number of losses, failures by that of failures."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(with_retry(base_ms=1_000, max_lost=9))
    outcomes = (AttemptOutcome.LOST, AttemptOutcome.LOST, AttemptOutcome.FAILED)
    for outcome, delay_ms in zip(outcomes, (1_000, 2_000, 1_000), strict=True):
        rig.report(rig.grant_one(), outcome)
        record = rig.record(job_id)
        assert (record.ready_ms - rig.now_ms, record.undelivered) == (delay_ms, 0)
        rig.pass_time(delay_ms)


def test_backoff_goes_by_the_faults_category() -> None:
    """A job that failed by the system's fault waits by the system's base."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(with_retry(base_ms=1_000, system_base_ms=7_000))
    rig.fail(rig.grant_one(), JobFault("E", "m", category=ErrorCategory.SYSTEM))
    assert rig.record(job_id).ready_ms == rig.now_ms + 7_000


def test_requeued_job_remembers_its_attempts() -> None:
    """History goes on over runs; the number of attempts starts anew."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(with_retry(max_attempts=1))
    old = rig.grant_one()
    rig.fail(old)
    rig.do(commands.RequeueJobs(job_ids=[job_id]))
    new = rig.grant_one()
    record = rig.record(job_id)
    assert (record.attempt, record.run) == (1, 1)
    assert [attempt.lease for attempt in record.history] == [old.lease]
    assert new.lease > old.lease
    assert new.lease.run == 1
