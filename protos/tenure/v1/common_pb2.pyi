import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_SCHEDULED: _ClassVar[JobState]
    JOB_STATE_BLOCKED: _ClassVar[JobState]
    JOB_STATE_PENDING: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_RETRYING: _ClassVar[JobState]
    JOB_STATE_COMPLETED: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]

class AttemptOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTEMPT_OUTCOME_UNSPECIFIED: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_COMPLETED: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_FAILED: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_FAILED_PERMANENT: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_TIMED_OUT: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_LOST: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_RELEASED: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_CANCELLED: _ClassVar[AttemptOutcome]

class FailureReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAILURE_REASON_UNSPECIFIED: _ClassVar[FailureReason]
    FAILURE_REASON_EXHAUSTED: _ClassVar[FailureReason]
    FAILURE_REASON_PERMANENT: _ClassVar[FailureReason]
    FAILURE_REASON_TIMED_OUT: _ClassVar[FailureReason]
    FAILURE_REASON_EXPIRED: _ClassVar[FailureReason]
    FAILURE_REASON_POISON: _ClassVar[FailureReason]
    FAILURE_REASON_LOST: _ClassVar[FailureReason]
    FAILURE_REASON_DEPENDENCY: _ClassVar[FailureReason]

class Backoff(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BACKOFF_UNSPECIFIED: _ClassVar[Backoff]
    BACKOFF_EXPONENTIAL: _ClassVar[Backoff]
    BACKOFF_LINEAR: _ClassVar[Backoff]
    BACKOFF_FIXED: _ClassVar[Backoff]
    BACKOFF_FIBONACCI: _ClassVar[Backoff]
    BACKOFF_NONE: _ClassVar[Backoff]

class Jitter(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JITTER_UNSPECIFIED: _ClassVar[Jitter]
    JITTER_FULL: _ClassVar[Jitter]
    JITTER_EQUAL: _ClassVar[Jitter]
    JITTER_NONE: _ClassVar[Jitter]

class ErrorCategory(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_CATEGORY_UNSPECIFIED: _ClassVar[ErrorCategory]
    ERROR_CATEGORY_TRANSIENT: _ClassVar[ErrorCategory]
    ERROR_CATEGORY_PERMANENT: _ClassVar[ErrorCategory]
    ERROR_CATEGORY_SYSTEM: _ClassVar[ErrorCategory]

class KeyConflict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_CONFLICT_UNSPECIFIED: _ClassVar[KeyConflict]
    KEY_CONFLICT_RETURN: _ClassVar[KeyConflict]
    KEY_CONFLICT_REJECT: _ClassVar[KeyConflict]
    KEY_CONFLICT_REPLACE: _ClassVar[KeyConflict]

class RunIf(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_IF_UNSPECIFIED: _ClassVar[RunIf]
    RUN_IF_ALL_SUCCEEDED: _ClassVar[RunIf]
    RUN_IF_ANY_FAILED: _ClassVar[RunIf]
    RUN_IF_ALWAYS: _ClassVar[RunIf]

class ParentFailure(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PARENT_FAILURE_UNSPECIFIED: _ClassVar[ParentFailure]
    PARENT_FAILURE_FAIL: _ClassVar[ParentFailure]
    PARENT_FAILURE_IGNORE: _ClassVar[ParentFailure]
    PARENT_FAILURE_HOLD: _ClassVar[ParentFailure]

class LogStream(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOG_STREAM_UNSPECIFIED: _ClassVar[LogStream]
    LOG_STREAM_LOGGING: _ClassVar[LogStream]
    LOG_STREAM_STDOUT: _ClassVar[LogStream]
    LOG_STREAM_STDERR: _ClassVar[LogStream]
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_SCHEDULED: JobState
JOB_STATE_BLOCKED: JobState
JOB_STATE_PENDING: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_RETRYING: JobState
JOB_STATE_COMPLETED: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState
ATTEMPT_OUTCOME_UNSPECIFIED: AttemptOutcome
ATTEMPT_OUTCOME_COMPLETED: AttemptOutcome
ATTEMPT_OUTCOME_FAILED: AttemptOutcome
ATTEMPT_OUTCOME_FAILED_PERMANENT: AttemptOutcome
ATTEMPT_OUTCOME_TIMED_OUT: AttemptOutcome
ATTEMPT_OUTCOME_LOST: AttemptOutcome
ATTEMPT_OUTCOME_RELEASED: AttemptOutcome
ATTEMPT_OUTCOME_CANCELLED: AttemptOutcome
FAILURE_REASON_UNSPECIFIED: FailureReason
FAILURE_REASON_EXHAUSTED: FailureReason
FAILURE_REASON_PERMANENT: FailureReason
FAILURE_REASON_TIMED_OUT: FailureReason
FAILURE_REASON_EXPIRED: FailureReason
FAILURE_REASON_POISON: FailureReason
FAILURE_REASON_LOST: FailureReason
FAILURE_REASON_DEPENDENCY: FailureReason
BACKOFF_UNSPECIFIED: Backoff
BACKOFF_EXPONENTIAL: Backoff
BACKOFF_LINEAR: Backoff
BACKOFF_FIXED: Backoff
BACKOFF_FIBONACCI: Backoff
BACKOFF_NONE: Backoff
JITTER_UNSPECIFIED: Jitter
JITTER_FULL: Jitter
JITTER_EQUAL: Jitter
JITTER_NONE: Jitter
ERROR_CATEGORY_UNSPECIFIED: ErrorCategory
ERROR_CATEGORY_TRANSIENT: ErrorCategory
ERROR_CATEGORY_PERMANENT: ErrorCategory
ERROR_CATEGORY_SYSTEM: ErrorCategory
KEY_CONFLICT_UNSPECIFIED: KeyConflict
KEY_CONFLICT_RETURN: KeyConflict
KEY_CONFLICT_REJECT: KeyConflict
KEY_CONFLICT_REPLACE: KeyConflict
RUN_IF_UNSPECIFIED: RunIf
RUN_IF_ALL_SUCCEEDED: RunIf
RUN_IF_ANY_FAILED: RunIf
RUN_IF_ALWAYS: RunIf
PARENT_FAILURE_UNSPECIFIED: ParentFailure
PARENT_FAILURE_FAIL: ParentFailure
PARENT_FAILURE_IGNORE: ParentFailure
PARENT_FAILURE_HOLD: ParentFailure
LOG_STREAM_UNSPECIFIED: LogStream
LOG_STREAM_LOGGING: LogStream
LOG_STREAM_STDOUT: LogStream
LOG_STREAM_STDERR: LogStream

class Token(_message.Message):
    __slots__ = ("epoch", "revision")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    revision: int
    def __init__(self, epoch: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class LeaseId(_message.Message):
    __slots__ = ("token", "seq", "run")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    token: Token
    seq: int
    run: int
    def __init__(self, token: _Optional[_Union[Token, _Mapping]] = ..., seq: _Optional[int] = ..., run: _Optional[int] = ...) -> None: ...

class RetryPolicy(_message.Message):
    __slots__ = ("backoff", "base", "factor", "cap", "jitter", "max_attempts", "max_lost", "system_base", "non_retryable")
    BACKOFF_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    CAP_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    MAX_LOST_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_BASE_FIELD_NUMBER: _ClassVar[int]
    NON_RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    backoff: Backoff
    base: _duration_pb2.Duration
    factor: float
    cap: _duration_pb2.Duration
    jitter: Jitter
    max_attempts: int
    max_lost: int
    system_base: _duration_pb2.Duration
    non_retryable: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, backoff: _Optional[_Union[Backoff, str]] = ..., base: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., factor: _Optional[float] = ..., cap: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., jitter: _Optional[_Union[Jitter, str]] = ..., max_attempts: _Optional[int] = ..., max_lost: _Optional[int] = ..., system_base: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., non_retryable: _Optional[_Iterable[str]] = ...) -> None: ...

class LabelSelector(_message.Message):
    __slots__ = ("key", "values")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    key: str
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ...) -> None: ...

class JobOptions(_message.Message):
    __slots__ = ("name", "queue", "tenant", "priority", "delay", "at_ms", "retry", "timeout", "schedule_timeout", "deadline", "heartbeat_timeout", "at_most_once", "result_ttl", "labels", "content_type", "key_window", "key_conflict", "requires", "prefers", "run_if", "on_parent_failure")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    AT_MOST_ONCE_FIELD_NUMBER: _ClassVar[int]
    RESULT_TTL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    KEY_WINDOW_FIELD_NUMBER: _ClassVar[int]
    KEY_CONFLICT_FIELD_NUMBER: _ClassVar[int]
    REQUIRES_FIELD_NUMBER: _ClassVar[int]
    PREFERS_FIELD_NUMBER: _ClassVar[int]
    RUN_IF_FIELD_NUMBER: _ClassVar[int]
    ON_PARENT_FAILURE_FIELD_NUMBER: _ClassVar[int]
    name: str
    queue: str
    tenant: str
    priority: int
    delay: _duration_pb2.Duration
    at_ms: int
    retry: RetryPolicy
    timeout: _duration_pb2.Duration
    schedule_timeout: _duration_pb2.Duration
    deadline: _duration_pb2.Duration
    heartbeat_timeout: _duration_pb2.Duration
    at_most_once: bool
    result_ttl: _duration_pb2.Duration
    labels: _containers.ScalarMap[str, str]
    content_type: str
    key_window: _duration_pb2.Duration
    key_conflict: KeyConflict
    requires: _containers.RepeatedCompositeFieldContainer[LabelSelector]
    prefers: _containers.RepeatedCompositeFieldContainer[LabelSelector]
    run_if: RunIf
    on_parent_failure: ParentFailure
    def __init__(self, name: _Optional[str] = ..., queue: _Optional[str] = ..., tenant: _Optional[str] = ..., priority: _Optional[int] = ..., delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., at_ms: _Optional[int] = ..., retry: _Optional[_Union[RetryPolicy, _Mapping]] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., schedule_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., deadline: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., heartbeat_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., at_most_once: bool = ..., result_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., content_type: _Optional[str] = ..., key_window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., key_conflict: _Optional[_Union[KeyConflict, str]] = ..., requires: _Optional[_Iterable[_Union[LabelSelector, _Mapping]]] = ..., prefers: _Optional[_Iterable[_Union[LabelSelector, _Mapping]]] = ..., run_if: _Optional[_Union[RunIf, str]] = ..., on_parent_failure: _Optional[_Union[ParentFailure, str]] = ...) -> None: ...

class JobError(_message.Message):
    __slots__ = ("type", "message", "traceback", "category", "retry_after")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    type: str
    message: str
    traceback: str
    category: ErrorCategory
    retry_after: _duration_pb2.Duration
    def __init__(self, type: _Optional[str] = ..., message: _Optional[str] = ..., traceback: _Optional[str] = ..., category: _Optional[_Union[ErrorCategory, str]] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("reason", "message", "metadata", "field", "retry_after")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    metadata: _containers.ScalarMap[str, str]
    field: str
    retry_after: _duration_pb2.Duration
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., field: _Optional[str] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class LogLine(_message.Message):
    __slots__ = ("number", "time_ms", "stream", "level", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: int
    time_ms: int
    stream: LogStream
    level: int
    text: str
    def __init__(self, number: _Optional[int] = ..., time_ms: _Optional[int] = ..., stream: _Optional[_Union[LogStream, str]] = ..., level: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class JobLog(_message.Message):
    __slots__ = ("lines",)
    LINES_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedCompositeFieldContainer[LogLine]
    def __init__(self, lines: _Optional[_Iterable[_Union[LogLine, _Mapping]]] = ...) -> None: ...
