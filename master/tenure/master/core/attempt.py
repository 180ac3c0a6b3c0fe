"""Attempts: how one ends, what it costs, when the next one is due, and what is kept of it."""

from collections.abc import Iterator
from itertools import cycle
from typing import Final

import msgspec

from tenure.master.core.config import PartitionConfig
from tenure.master.core.event import EndedRow
from tenure.master.core.record import Attempt, JobFault, JobRecord, RetryPolicy
from tenure.master.core.state import State
from tenure.protocol.fence import Lease
from tenure.protocol.limits import CUT
from tenure.protocol.vocabulary import (
    AttemptOutcome,
    Backoff,
    ErrorCategory,
    FailureReason,
    Jitter,
    JobState,
)

_KEPT_FIRST: Final = 10
_KEPT_LAST: Final = 10
_HISTORY_BYTES_MAX: Final = 64 * 1024


def draws(jitter: list[float]) -> Iterator[float]:
    """Uniform numbers without end, from those that a command brought."""
    return cycle(jitter or [0.5])


def timeout_fault(what: str, limit_ms: int) -> JobFault:
    """What the master says of an attempt that it timed out."""
    return JobFault("tenure.TimedOut", f"{what} of {limit_ms} ms")


def lost_fault(worker: str, lease_ttl_ms: int) -> JobFault:
    """What the master says of an attempt whose worker fell silent."""
    return JobFault(
        "tenure.LeaseExpired",
        f"worker {worker} was not heard of for its lease of {lease_ttl_ms} ms",
    )


def backoff_ms(retry: RetryPolicy, failures: int, category: ErrorCategory, draw: float) -> int:
    """The delay before the attempt after n failures.

    Exponential: base × factor^(n−1); linear: base × n; fixed: base; fibonacci: base × F(n) with
    F(1) = F(2) = 1; none: 0. The cap applies before the jitter; full jitter draws from [0, d),
    equal jitter from [d/2, d) ("Exponential Backoff and Jitter", AWS Architecture Blog, 2015).

    Args:
        retry: The job's policy.
        failures: n, at least 1.
        category: SYSTEM errors may have a base of their own.
        draw: Uniform in [0, 1).
    """
    base = retry.base_ms
    if category is ErrorCategory.SYSTEM and retry.system_base_ms:
        base = retry.system_base_ms
    match retry.backoff:
        case Backoff.EXPONENTIAL:
            delay = _exponential(base, retry.factor, failures, retry.cap_ms)
        case Backoff.LINEAR:
            delay = base * failures
        case Backoff.FIXED:
            delay = base
        case Backoff.FIBONACCI:
            delay = base * _fibonacci(failures)
        case Backoff.NONE:
            return 0
    delay = min(delay, retry.cap_ms)
    match retry.jitter:
        case Jitter.FULL:
            return int(delay * draw)
        case Jitter.EQUAL:
            return int(delay / 2 + delay / 2 * draw)
        case Jitter.NONE:
            return delay


def _exponential(base: int, factor: float, failures: int, cap_ms: int) -> int:
    try:
        return int(min(base * factor ** (failures - 1), cap_ms))
    except OverflowError:
        return cap_ms


def _fibonacci(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def stretch(state: State, record: JobRecord, now_ms: int) -> float:
    """How many times as long a job's backoff is as its policy says, in bad times: 1 to 8.

    With adaptive retry it is (1 + 3 f) × (1 + l): f of the recent attempts of its job type failed,
    and l of the partition's slots are taken.
    """
    policy = record.policy
    if not state.settings.job_type(policy.tenant, policy.name).adaptive_retry:
        return 1.0
    job_type = state.lanes.known_job_type(policy.tenant, policy.name)
    failing = 0.0 if job_type is None else job_type.breaker.failure_rate(now_ms)
    return (1 + 3 * failing) * (1 + state.load())


def end_attempt(
    state: State,
    record: JobRecord,
    lease: Lease,
    outcome: AttemptOutcome,
    fault: JobFault | None,
    *,
    now_ms: int,
    started_ms: int,
    accepted_ms: int,
    draw: float,
    never_arrived: bool = False,
    final: FailureReason | None = None,
) -> EndedRow:
    """What becomes of a RUNNING job whose attempt ended without a result.

    Args:
        state: The partition.
        record: The job.
        lease: The lease that ends; the job's newest, or about to be adopted.
        outcome: How the attempt ended; not COMPLETED.
        fault: What went wrong, if anything did.
        now_ms: The time.
        started_ms: When the attempt started; 0: not, as far as is known.
        accepted_ms: When its worker had the grant; 0: never, as far as is known.
        draw: Uniform in [0, 1), for the retry's jitter.
        never_arrived: A RELEASED attempt whose grant got lost on the way.
        final: Set if the job must not run again, whatever the budgets say.
    """
    attempts, losses, undelivered = record.attempts_charged, record.losses_charged, 0
    if outcome is AttemptOutcome.RELEASED:
        undelivered = record.undelivered + 1 if never_arrived else 0
        reason = _after_release(state.config, record, undelivered, started_ms)
    elif outcome is AttemptOutcome.LOST:
        losses += 1
        reason = _after_loss(record, losses)
    else:
        attempts += 1
        reason = _after_failure(record, attempts, outcome, fault)
    reason = final or reason
    ready_ms, after = record.ready_ms, JobState.PENDING
    if record.cancel_requested:
        after, reason = JobState.CANCELLED, None
    elif reason is not None:
        after = JobState.FAILED
    elif outcome is not AttemptOutcome.RELEASED:
        after = JobState.RETRYING
        failures = losses if outcome is AttemptOutcome.LOST else attempts
        times = stretch(state, record, now_ms)
        ready_ms = now_ms + _delay_ms(record.policy.retry, failures, fault, draw, times)
    return EndedRow(
        job_id=record.job_id,
        lease=lease,
        outcome=outcome,
        state=after,
        ready_ms=ready_ms,
        started_ms=started_ms,
        attempts_charged=attempts,
        losses_charged=losses,
        undelivered=undelivered,
        fault=fault,
        failure_reason=reason,
        accepted_ms=accepted_ms,
    )


def _after_release(
    config: PartitionConfig, record: JobRecord, undelivered: int, started_ms: int
) -> FailureReason | None:
    if record.policy.at_most_once and started_ms:
        return FailureReason.LOST
    return FailureReason.POISON if undelivered >= config.max_undelivered else None


def _after_loss(record: JobRecord, losses: int) -> FailureReason | None:
    if record.policy.at_most_once:
        return FailureReason.LOST
    return FailureReason.POISON if losses > record.policy.retry.max_lost else None


def _after_failure(
    record: JobRecord, attempts: int, outcome: AttemptOutcome, fault: JobFault | None
) -> FailureReason | None:
    retry = record.policy.retry
    if outcome is AttemptOutcome.FAILED_PERMANENT:
        return FailureReason.PERMANENT
    if fault is not None and (
        fault.category is ErrorCategory.PERMANENT or fault.type in retry.non_retryable
    ):
        return FailureReason.PERMANENT
    if attempts < retry.max_attempts and not record.policy.at_most_once:
        return None
    if outcome is AttemptOutcome.TIMED_OUT:
        return FailureReason.TIMED_OUT
    return FailureReason.EXHAUSTED


def _delay_ms(
    retry: RetryPolicy, failures: int, fault: JobFault | None, draw: float, times: float
) -> int:
    """How long a retry waits: as the job asked, or its backoff, stretched up to its cap."""
    if fault is not None and fault.retry_after_ms is not None:
        return fault.retry_after_ms
    category = ErrorCategory.TRANSIENT if fault is None else fault.category
    delay_ms = backoff_ms(retry, failures, category, draw)
    return max(min(int(delay_ms * times), retry.cap_ms), delay_ms)


def remember_attempt(record: JobRecord) -> None:
    """Moves the last attempt from the record's own fields to its history, before a new one."""
    if record.lease is None or not record.attempt:
        return
    attempt = Attempt(
        number=record.attempt,
        worker=record.worker,
        lease=record.lease,
        granted_ms=record.granted_ms,
        started_ms=record.started_ms,
        ended_ms=record.ended_ms,
        outcome=record.outcome or AttemptOutcome.LOST,
        fault=record.fault,
        accepted_ms=record.accepted_ms,
    )
    record.history = _cut([*record.history, attempt])
    record.fault = None


def _cut(history: list[Attempt]) -> tuple[Attempt, ...]:
    """Keeps the first and the last attempts, and the size of their errors within the limit."""
    if len(history) > _KEPT_FIRST + _KEPT_LAST:
        del history[_KEPT_FIRST]
    size = sum(_error_bytes(attempt) for attempt in history)
    for cut in (_without_traceback, _without_message):
        for index, attempt in enumerate(history):
            if size <= _HISTORY_BYTES_MAX:
                return tuple(history)
            history[index] = cut(attempt)
            size -= _error_bytes(attempt) - _error_bytes(history[index])
    return tuple(history)


def _error_bytes(attempt: Attempt) -> int:
    fault = attempt.fault
    return 0 if fault is None else len(fault.message) + len(fault.traceback)


def _without_traceback(attempt: Attempt) -> Attempt:
    if attempt.fault is None or len(attempt.fault.traceback) <= len(CUT):
        return attempt
    fault = msgspec.structs.replace(attempt.fault, traceback=CUT)
    return msgspec.structs.replace(attempt, fault=fault)


def _without_message(attempt: Attempt) -> Attempt:
    if attempt.fault is None or len(attempt.fault.message) <= len(CUT):
        return attempt
    fault = msgspec.structs.replace(attempt.fault, message=CUT)
    return msgspec.structs.replace(attempt, fault=fault)
