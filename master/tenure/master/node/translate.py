"""Between the wire and the core: options become policies, records become jobs.

Everything a client sends is validated here, once; inside, types say it.
"""

import re
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from tenure.master.core.command import SubmitSetting
from tenure.master.core.record import (
    Attempt,
    JobFault,
    JobRecord,
    LabelSelector,
    Policy,
    RetryPolicy,
)
from tenure.master.core.session import Holding
from tenure.master.node.memo import Memo
from tenure.protocol import limits
from tenure.protocol.errors import Rejected
from tenure.protocol.ids import home_partition, partition_of
from tenure.protocol.refusal import Reason
from tenure.protocol.text import cut
from tenure.protocol.vocabulary import (
    TERMINAL,
    Backoff,
    ErrorCategory,
    Jitter,
    JobState,
    KeyConflict,
    ParentFailure,
    RunIf,
)
from tenure.v1 import common_pb2, jobs_pb2

E = TypeVar("E", bound=IntEnum)

_NAME: Final = re.compile(limits.NAME_PATTERN)
#: What those have who say nothing of it.
_RETRY: Final = RetryPolicy()
_CATEGORIES: Final = {category.value: category for category in ErrorCategory}
#: The end of the year 9999, the last moment that a Timestamp can show.
_AT_MS_MAX: Final = 253_402_300_799_999


def invalid(field: str, message: str) -> Rejected:
    """The error for a wrong field: its path and a readable line."""
    return Rejected(
        f"expected a valid {field}, but {message}",
        reason=Reason.INVALID_ARGUMENT,
        metadata={"field": field},
        field=field,
    )


class Setting(NamedTuple):
    """One kind of options, validated: the core's setting and the home of its queue."""

    core: SubmitSetting
    home: int


class SettingCache:
    """Validates options once: batches repeat the same few kinds for ever.

    Args:
        partitions: How many partitions the cluster has.
    """

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._known: Memo[bytes, Setting] = Memo()

    def get(self, options: common_pb2.JobOptions, path: str) -> Setting:
        """The setting that options mean. Raises Rejected with the field's path."""
        key = options.SerializeToString(deterministic=True)
        known = self._known.get(key)
        if known is None:
            core = setting_of(options, path)
            home = home_partition(core.policy.tenant, core.policy.queue, self._partitions)
            known = self._known.put(key, Setting(core, home), 2 * len(key))
        return known


def setting_of(options: common_pb2.JobOptions, path: str) -> SubmitSetting:
    """Validates options and turns them into the core's terms."""
    size = options.ByteSize()
    if size > limits.OPTIONS_BYTES_MAX:
        raise invalid(
            path,
            f"it has {size} bytes (at most {limits.OPTIONS_BYTES_MAX}); data is for the payload",
        )
    priority = options.priority if options.HasField("priority") else limits.PRIORITY_DEFAULT
    if priority > limits.PRIORITY_MAX:
        raise invalid(f"{path}.priority", out_of_range(priority))
    delay_ms = _span(options, "delay", path, limits.DELAY_MS_MAX)
    if options.at_ms < 0:
        raise invalid(f"{path}.at_ms", "it lies before 1970")
    if options.at_ms > _AT_MS_MAX:
        raise invalid(f"{path}.at_ms", "it lies behind the year 9999")
    if delay_ms and options.at_ms:
        raise invalid(f"{path}.at_ms", "delay is set too; give one of the two")
    timeout = limits.TIMEOUT_MS_MAX
    span = limits.DELAY_MS_MAX
    window_ms = _span(options, "key_window", path, limits.KEY_WINDOW_MS_MAX)
    policy = Policy(
        name=checked_name(options.name, f"{path}.name"),
        queue=checked_name(options.queue or limits.DEFAULT_QUEUE, f"{path}.queue"),
        tenant=checked_name(options.tenant or limits.DEFAULT_TENANT, f"{path}.tenant"),
        retry=_retry(options, f"{path}.retry"),
        timeout_ms=_span(options, "timeout", path, timeout),
        schedule_timeout_ms=_span(options, "schedule_timeout", path, timeout),
        deadline_ms=_span(options, "deadline", path, span),
        heartbeat_timeout_ms=_span(options, "heartbeat_timeout", path, timeout),
        at_most_once=options.at_most_once,
        result_ttl_ms=_span(options, "result_ttl", path, span),
        labels=tuple(
            (checked_name(k, f"{path}.labels"), checked_name(v, f"{path}.labels[{k}]"))
            for k, v in sorted(options.labels.items())
        ),
        content_type=options.content_type or limits.DEFAULT_CONTENT_TYPE,
        key_window_ms=window_ms or limits.KEY_WINDOW_MS_DEFAULT,
        key_conflict=checked_member(
            KeyConflict, options.key_conflict or KeyConflict.RETURN, f"{path}.key_conflict"
        ),
        run_if=checked_member(RunIf, options.run_if or RunIf.ALL_SUCCEEDED, f"{path}.run_if"),
        on_parent_failure=checked_member(
            ParentFailure,
            options.on_parent_failure or ParentFailure.FAIL,
            f"{path}.on_parent_failure",
        ),
        requires=_selectors(options.requires, f"{path}.requires"),
        prefers=_selectors(options.prefers, f"{path}.prefers"),
    )
    return SubmitSetting(policy, priority, delay_ms, options.at_ms)


def out_of_range(priority: int) -> str:
    """What is wrong with a priority."""
    return (
        f"{priority} is not between {limits.PRIORITY_MIN} (critical) and "
        f"{limits.PRIORITY_MAX} (low)"
    )


def _selectors(
    selectors: Sequence[common_pb2.LabelSelector], path: str
) -> tuple[LabelSelector, ...]:
    """What is asked of a worker's labels, in one order whatever the caller's."""
    most = limits.SELECTORS_MAX
    if len(selectors) > most:
        raise invalid(path, f"it asks for {len(selectors)} labels (at most {most})")
    found: set[tuple[str, tuple[str, ...]]] = set()
    for index, selector in enumerate(selectors):
        where = f"{path}[{index}]"
        if len(selector.values) > most:
            raise invalid(f"{where}.values", f"there are {len(selector.values)} (at most {most})")
        values = {
            checked_name(value, f"{where}.values[{number}]")
            for number, value in enumerate(selector.values)
        }
        found.add((checked_name(selector.key, f"{where}.key"), tuple(sorted(values))))
    return tuple([LabelSelector(key, values) for key, values in sorted(found)])


def _retry(options: common_pb2.JobOptions, path: str) -> RetryPolicy:
    if not options.HasField("retry"):
        return _RETRY
    retry, span = options.retry, limits.DELAY_MS_MAX
    for field, value in (("max_attempts", retry.max_attempts), ("max_lost", retry.max_lost)):
        if value > limits.ATTEMPTS_MAX:
            raise invalid(f"{path}.{field}", f"{value} is above {limits.ATTEMPTS_MAX}")
    factor = retry.factor or limits.BACKOFF_FACTOR_DEFAULT
    if not 1.0 <= factor <= 1000.0:
        raise invalid(f"{path}.factor", f"{factor} is not between 1 and 1000")
    base_ms, cap_ms = limits.BACKOFF_BASE_MS_DEFAULT, limits.BACKOFF_CAP_MS_DEFAULT
    if retry.HasField("base"):
        base_ms = checked_span(retry.base, f"{path}.base", span)
    if retry.HasField("cap"):
        cap_ms = checked_span(retry.cap, f"{path}.cap", span)
    return RetryPolicy(
        backoff=checked_member(Backoff, retry.backoff or Backoff.EXPONENTIAL, f"{path}.backoff"),
        base_ms=base_ms,
        factor=factor,
        cap_ms=cap_ms,
        jitter=checked_member(Jitter, retry.jitter or Jitter.FULL, f"{path}.jitter"),
        max_attempts=retry.max_attempts or limits.MAX_ATTEMPTS_DEFAULT,
        max_lost=retry.max_lost or limits.MAX_LOST_DEFAULT,
        system_base_ms=_span(retry, "system_base", path, span),
        non_retryable=tuple(retry.non_retryable),
    )


def checked_member(kind: type[E], value: int, path: str) -> E:
    """The member with this number. Raises Rejected with the field's path, as all these do."""
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(f"{member.value} ({member.name})" for member in kind)
        raise invalid(path, f"{value} is none of {known}") from None


def _span(message: Message, field: str, path: str, max_ms: int) -> int:
    """A field's span of time in milliseconds; most are not set, which is quickly seen."""
    if not message.HasField(field):
        return 0
    return checked_span(getattr(message, field), f"{path}.{field}", max_ms)


def checked_span(duration: Duration, path: str, max_ms: int) -> int:
    """A span of time in milliseconds, neither negative nor too long."""
    span_ms = duration.ToMilliseconds()
    if span_ms < 0:
        raise invalid(path, f"{span_ms} ms is negative")
    if span_ms > max_ms:
        days = f" ({max_ms // limits.DAY_MS} days)" if max_ms >= limits.DAY_MS else ""
        raise invalid(path, f"{span_ms} ms is above the limit of {max_ms} ms{days}")
    return span_ms


def checked_name(text: str, path: str) -> str:
    """The name of a queue, a job, a tenant or a label."""
    if _NAME.fullmatch(text) is None:
        raise invalid(
            path,
            f"{text[:140]!r} is not 1 to {limits.NAME_CHARS_MAX} characters of letters, digits "
            "and . _ / -",
        )
    return text


def options_of(policy: Policy) -> common_pb2.JobOptions:
    """A policy as a worker and a reader see it (priority and delay belong to the job)."""
    options = common_pb2.JobOptions(
        name=policy.name,
        queue=policy.queue,
        tenant=policy.tenant,
        at_most_once=policy.at_most_once,
        labels=dict(policy.labels),
        content_type=policy.content_type,
    )
    for field, span_ms in (
        (options.timeout, policy.timeout_ms),
        (options.schedule_timeout, policy.schedule_timeout_ms),
        (options.deadline, policy.deadline_ms),
        (options.heartbeat_timeout, policy.heartbeat_timeout_ms),
        (options.result_ttl, policy.result_ttl_ms),
        (options.key_window, policy.key_window_ms),
    ):
        if span_ms:
            field.FromMilliseconds(span_ms)
    retry, wire = policy.retry, options.retry
    wire.backoff = wire_enum(retry.backoff)
    wire.base.FromMilliseconds(retry.base_ms)
    wire.factor = retry.factor
    wire.cap.FromMilliseconds(retry.cap_ms)
    wire.jitter = wire_enum(retry.jitter)
    wire.max_attempts = retry.max_attempts
    wire.max_lost = retry.max_lost
    if retry.system_base_ms:
        wire.system_base.FromMilliseconds(retry.system_base_ms)
    wire.non_retryable.extend(retry.non_retryable)
    if policy.key_conflict is not KeyConflict.RETURN:
        options.key_conflict = wire_enum(policy.key_conflict)
    if policy.run_if is not RunIf.ALL_SUCCEEDED:
        options.run_if = wire_enum(policy.run_if)
    if policy.on_parent_failure is not ParentFailure.FAIL:
        options.on_parent_failure = wire_enum(policy.on_parent_failure)
    for wanted in policy.requires:
        options.requires.add(key=wanted.key, values=wanted.values)
    for wanted in policy.prefers:
        options.prefers.add(key=wanted.key, values=wanted.values)
    return options


def fault_to_wire(fault: JobFault) -> common_pb2.JobError:
    """An attempt's error as a message."""
    wire = common_pb2.JobError(
        type=fault.type,
        message=fault.message,
        traceback=fault.traceback,
        category=wire_enum(fault.category),
    )
    if fault.retry_after_ms is not None:
        wire.retry_after.FromMilliseconds(fault.retry_after_ms)
    return wire


def fault_from_wire(wire: common_pb2.JobError) -> JobFault:
    """An attempt's error from a message, cut to the limits."""
    after = None
    if wire.HasField("retry_after"):
        after = min(max(wire.retry_after.ToMilliseconds(), 0), limits.DELAY_MS_MAX)
    return JobFault(
        type=wire.type[: limits.NAME_CHARS_MAX * 2],
        message=cut(wire.message, limits.ERROR_MESSAGE_BYTES_MAX),
        traceback=cut(wire.traceback, limits.TRACEBACK_BYTES_MAX),
        # A newer worker's report is not refused for a word that this release does not know.
        category=_CATEGORIES.get(wire.category, ErrorCategory.TRANSIENT),
        retry_after_ms=after,
    )


def log_from_wire(data: bytes) -> bytes:
    """What an attempt has said, from a report: its end, where a worker sends more than is kept."""
    if len(data) <= limits.ATTEMPT_LOG_BYTES_MAX:
        return data
    lines, room = log_lines(data), limits.ATTEMPT_LOG_BYTES_MAX
    kept = len(lines)
    # What a line takes beside its own bytes is at most its tag and its length.
    while kept and (room := room - lines[kept - 1].ByteSize() - 4) >= 0:
        kept -= 1
    return common_pb2.JobLog(lines=lines[kept:]).SerializeToString()


def log_lines(data: bytes) -> Sequence[common_pb2.LogLine]:
    """The lines of a JobLog; none, if a worker has sent something else."""
    try:
        return common_pb2.JobLog.FromString(data).lines
    except DecodeError:
        return ()


def parents_of(record: JobRecord) -> Sequence[str]:
    """The jobs that one waits for; its workflow is none of them."""
    return record.parents[1:] if record.workflow_id else record.parents


def job_of(record: JobRecord, holding: Holding | None, *, with_payload: bool) -> jobs_pb2.Job:
    """A record as its users see it.

    Args:
        record: The job's.
        holding: What this term knows of its running attempt; None: nothing, or none runs.
        with_payload: Whether its arguments and its result are part of it.
    """
    job = jobs_pb2.Job(
        job_id=record.job_id,
        state=wire_enum(record.state),
        options=options_of(record.policy),
        key=record.key,
        attempts_charged=record.attempts_charged,
        losses_charged=record.losses_charged,
        run=record.run,
        cancel_requested=record.cancel_requested,
        cancel_reason=record.cancel_reason,
        partition=partition_of(record.job_id),
        parents=parents_of(record),
        workflow_id=record.workflow_id,
        limit_key=record.limit_key,
        sticky_key=record.sticky_key,
    )
    job.options.priority = record.priority
    stamp(job.submitted_at, record.submitted_ms)
    stamp(job.ready_at, record.ready_ms)
    if record.state in TERMINAL:
        stamp(job.finished_at, record.ended_ms)
    job.attempts.extend(_attempt(attempt) for attempt in record.history)
    if record.lease is not None:
        job.attempts.append(_last_attempt(record, holding))
    if record.logs:
        sizes = {(log.run, log.attempt): len(log.lines) for log in record.logs}
        for attempt in job.attempts:
            attempt.log_bytes = sizes.get((attempt.run, attempt.number), 0)
    if holding is not None:
        job.progress = holding.progress
    if record.checkpoint is not None:
        stamp(job.checkpoint_at, record.checkpoint.saved_ms)
        job.checkpoint_bytes = len(record.checkpoint.data)
    if record.fault is not None:
        job.error.CopyFrom(fault_to_wire(record.fault))
    if record.failure_reason is not None:
        job.failure_reason = wire_enum(record.failure_reason)
    if with_payload:
        job.payload = record.payload
        job.result = record.result
        job.result_content_type = record.result_content_type
    return job


def result_of(record: JobRecord) -> jobs_pb2.JobResult:
    """What a waiter wants to know of a terminal record (or of its present state)."""
    return add_result(jobs_pb2.StreamResultsResponse(), record)


def add_result(envelope: jobs_pb2.StreamResultsResponse, record: JobRecord) -> jobs_pb2.JobResult:
    """Writes what ``result_of`` says into an envelope, in place."""
    # Set one by one, a row takes two thirds of the time that it takes by keywords.
    result = envelope.results.add()
    result.job_id = record.job_id
    result.state = wire_enum(record.state)
    result.result = record.result
    result.attempts = record.attempt
    if record.result_content_type:
        result.content_type = record.result_content_type
    if record.fault is not None:
        result.error.CopyFrom(fault_to_wire(record.fault))
    if record.failure_reason is not None:
        result.failure_reason = wire_enum(record.failure_reason)
    if record.cancel_reason and record.state is JobState.CANCELLED:
        result.cancel_reason = record.cancel_reason
    return result


def _attempt(attempt: Attempt) -> jobs_pb2.Attempt:
    wire = jobs_pb2.Attempt(
        number=attempt.number,
        worker=attempt.worker,
        fence=attempt.lease.fence,
        run=attempt.lease.run,
        outcome=wire_enum(attempt.outcome),
    )
    stamp(wire.granted_at, attempt.granted_ms)
    stamp(wire.accepted_at, attempt.accepted_ms)
    stamp(wire.started_at, attempt.started_ms)
    stamp(wire.ended_at, attempt.ended_ms)
    if attempt.fault is not None:
        wire.error.CopyFrom(fault_to_wire(attempt.fault))
    return wire


def _last_attempt(record: JobRecord, holding: Holding | None) -> jobs_pb2.Attempt:
    lease = record.lease
    if lease is None:
        raise ValueError(f"expected job {record.job_id} to have had a lease")
    wire = jobs_pb2.Attempt(
        number=record.attempt, worker=record.worker, fence=lease.fence, run=lease.run
    )
    known = record if holding is None else holding
    stamp(wire.granted_at, record.granted_ms)
    stamp(wire.accepted_at, known.accepted_ms)
    stamp(wire.started_at, known.started_ms)
    if record.outcome is not None:
        wire.outcome = wire_enum(record.outcome)
        stamp(wire.ended_at, record.ended_ms)
        if record.fault is not None:
            wire.error.CopyFrom(fault_to_wire(record.fault))
    return wire


def wire_enum(member: IntEnum) -> Any:
    """A member of the vocabulary is its number; typed so that the stubs' enum fields take it."""
    return member


def stamp(field: Timestamp, ms: int) -> None:
    """Sets a time; 0 is none."""
    if ms:
        field.FromMilliseconds(ms)
