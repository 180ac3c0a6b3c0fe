import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tenure.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BlockerKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BLOCKER_KIND_UNSPECIFIED: _ClassVar[BlockerKind]
    BLOCKER_KIND_NOT_DUE: _ClassVar[BlockerKind]
    BLOCKER_KIND_PARENTS: _ClassVar[BlockerKind]
    BLOCKER_KIND_TENANT_PAUSED: _ClassVar[BlockerKind]
    BLOCKER_KIND_QUEUE_PAUSED: _ClassVar[BlockerKind]
    BLOCKER_KIND_JOB_TYPE_PAUSED: _ClassVar[BlockerKind]
    BLOCKER_KIND_QUEUE_CONCURRENCY: _ClassVar[BlockerKind]
    BLOCKER_KIND_KEY_CONCURRENCY: _ClassVar[BlockerKind]
    BLOCKER_KIND_QUEUE_RATE: _ClassVar[BlockerKind]
    BLOCKER_KIND_KEY_RATE: _ClassVar[BlockerKind]
    BLOCKER_KIND_CIRCUIT_BREAKER: _ClassVar[BlockerKind]
    BLOCKER_KIND_NO_WORKER: _ClassVar[BlockerKind]
    BLOCKER_KIND_NO_LABELS: _ClassVar[BlockerKind]
    BLOCKER_KIND_STICKY_WORKER_BUSY: _ClassVar[BlockerKind]
    BLOCKER_KIND_NO_CREDIT: _ClassVar[BlockerKind]
    BLOCKER_KIND_RESERVED: _ClassVar[BlockerKind]
    BLOCKER_KIND_ORDER: _ClassVar[BlockerKind]
    BLOCKER_KIND_LEADER: _ClassVar[BlockerKind]
    BLOCKER_KIND_RETRY_BUDGET: _ClassVar[BlockerKind]
    BLOCKER_KIND_KEY_CIRCUIT_BREAKER: _ClassVar[BlockerKind]
    BLOCKER_KIND_QUARANTINE: _ClassVar[BlockerKind]
BLOCKER_KIND_UNSPECIFIED: BlockerKind
BLOCKER_KIND_NOT_DUE: BlockerKind
BLOCKER_KIND_PARENTS: BlockerKind
BLOCKER_KIND_TENANT_PAUSED: BlockerKind
BLOCKER_KIND_QUEUE_PAUSED: BlockerKind
BLOCKER_KIND_JOB_TYPE_PAUSED: BlockerKind
BLOCKER_KIND_QUEUE_CONCURRENCY: BlockerKind
BLOCKER_KIND_KEY_CONCURRENCY: BlockerKind
BLOCKER_KIND_QUEUE_RATE: BlockerKind
BLOCKER_KIND_KEY_RATE: BlockerKind
BLOCKER_KIND_CIRCUIT_BREAKER: BlockerKind
BLOCKER_KIND_NO_WORKER: BlockerKind
BLOCKER_KIND_NO_LABELS: BlockerKind
BLOCKER_KIND_STICKY_WORKER_BUSY: BlockerKind
BLOCKER_KIND_NO_CREDIT: BlockerKind
BLOCKER_KIND_RESERVED: BlockerKind
BLOCKER_KIND_ORDER: BlockerKind
BLOCKER_KIND_LEADER: BlockerKind
BLOCKER_KIND_RETRY_BUDGET: BlockerKind
BLOCKER_KIND_KEY_CIRCUIT_BREAKER: BlockerKind
BLOCKER_KIND_QUARANTINE: BlockerKind

class JobSpec(_message.Message):
    __slots__ = ("job_id", "options", "payload", "key", "limit_key", "sticky_key", "parents", "workflow_id")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_KEY_FIELD_NUMBER: _ClassVar[int]
    STICKY_KEY_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    options: int
    payload: bytes
    key: str
    limit_key: str
    sticky_key: str
    parents: _containers.RepeatedScalarFieldContainer[str]
    workflow_id: str
    def __init__(self, job_id: _Optional[str] = ..., options: _Optional[int] = ..., payload: _Optional[bytes] = ..., key: _Optional[str] = ..., limit_key: _Optional[str] = ..., sticky_key: _Optional[str] = ..., parents: _Optional[_Iterable[str]] = ..., workflow_id: _Optional[str] = ...) -> None: ...

class SubmitJobsRequest(_message.Message):
    __slots__ = ("options", "jobs", "all_or_nothing")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    ALL_OR_NOTHING_FIELD_NUMBER: _ClassVar[int]
    options: _containers.RepeatedCompositeFieldContainer[_common_pb2.JobOptions]
    jobs: _containers.RepeatedCompositeFieldContainer[JobSpec]
    all_or_nothing: bool
    def __init__(self, options: _Optional[_Iterable[_Union[_common_pb2.JobOptions, _Mapping]]] = ..., jobs: _Optional[_Iterable[_Union[JobSpec, _Mapping]]] = ..., all_or_nothing: bool = ...) -> None: ...

class SubmitJobsResponse(_message.Message):
    __slots__ = ("job_ids", "existing", "errors", "late")
    JOB_IDS_FIELD_NUMBER: _ClassVar[int]
    EXISTING_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    job_ids: _containers.RepeatedScalarFieldContainer[str]
    existing: _containers.RepeatedScalarFieldContainer[int]
    errors: _containers.RepeatedCompositeFieldContainer[SubmitError]
    late: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, job_ids: _Optional[_Iterable[str]] = ..., existing: _Optional[_Iterable[int]] = ..., errors: _Optional[_Iterable[_Union[SubmitError, _Mapping]]] = ..., late: _Optional[_Iterable[int]] = ...) -> None: ...

class SubmitError(_message.Message):
    __slots__ = ("index", "refusal")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    index: int
    refusal: _common_pb2.Refusal
    def __init__(self, index: _Optional[int] = ..., refusal: _Optional[_Union[_common_pb2.Refusal, _Mapping]] = ...) -> None: ...

class StreamSubmitsRequest(_message.Message):
    __slots__ = ("number", "request", "in_parts")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    IN_PARTS_FIELD_NUMBER: _ClassVar[int]
    number: int
    request: SubmitJobsRequest
    in_parts: bool
    def __init__(self, number: _Optional[int] = ..., request: _Optional[_Union[SubmitJobsRequest, _Mapping]] = ..., in_parts: bool = ...) -> None: ...

class StreamSubmitsResponse(_message.Message):
    __slots__ = ("number", "response", "refusal", "late")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    number: int
    response: SubmitJobsResponse
    refusal: _common_pb2.Refusal
    late: LateJobs
    def __init__(self, number: _Optional[int] = ..., response: _Optional[_Union[SubmitJobsResponse, _Mapping]] = ..., refusal: _Optional[_Union[_common_pb2.Refusal, _Mapping]] = ..., late: _Optional[_Union[LateJobs, _Mapping]] = ...) -> None: ...

class LateJobs(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[LateJob]
    def __init__(self, jobs: _Optional[_Iterable[_Union[LateJob, _Mapping]]] = ...) -> None: ...

class LateJob(_message.Message):
    __slots__ = ("index", "refusal")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    index: int
    refusal: _common_pb2.Refusal
    def __init__(self, index: _Optional[int] = ..., refusal: _Optional[_Union[_common_pb2.Refusal, _Mapping]] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("number", "worker", "fence", "granted_at", "started_at", "ended_at", "outcome", "error", "run", "accepted_at", "log_bytes")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    GRANTED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_AT_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    number: int
    worker: str
    fence: str
    granted_at: _timestamp_pb2.Timestamp
    started_at: _timestamp_pb2.Timestamp
    ended_at: _timestamp_pb2.Timestamp
    outcome: _common_pb2.AttemptOutcome
    error: _common_pb2.JobError
    run: int
    accepted_at: _timestamp_pb2.Timestamp
    log_bytes: int
    def __init__(self, number: _Optional[int] = ..., worker: _Optional[str] = ..., fence: _Optional[str] = ..., granted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., outcome: _Optional[_Union[_common_pb2.AttemptOutcome, str]] = ..., error: _Optional[_Union[_common_pb2.JobError, _Mapping]] = ..., run: _Optional[int] = ..., accepted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., log_bytes: _Optional[int] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("job_id", "state", "options", "payload", "key", "submitted_at", "ready_at", "finished_at", "attempts_charged", "losses_charged", "run", "attempts", "result", "result_content_type", "error", "failure_reason", "cancel_requested", "cancel_reason", "partition", "progress", "limit_key", "sticky_key", "parents", "workflow_id", "checkpoint_at", "checkpoint_bytes")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    READY_AT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_CHARGED_FIELD_NUMBER: _ClassVar[int]
    LOSSES_CHARGED_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    RESULT_CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FAILURE_REASON_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REASON_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_KEY_FIELD_NUMBER: _ClassVar[int]
    STICKY_KEY_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    WORKFLOW_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_AT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_BYTES_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    state: _common_pb2.JobState
    options: _common_pb2.JobOptions
    payload: bytes
    key: str
    submitted_at: _timestamp_pb2.Timestamp
    ready_at: _timestamp_pb2.Timestamp
    finished_at: _timestamp_pb2.Timestamp
    attempts_charged: int
    losses_charged: int
    run: int
    attempts: _containers.RepeatedCompositeFieldContainer[Attempt]
    result: bytes
    result_content_type: str
    error: _common_pb2.JobError
    failure_reason: _common_pb2.FailureReason
    cancel_requested: bool
    cancel_reason: str
    partition: int
    progress: float
    limit_key: str
    sticky_key: str
    parents: _containers.RepeatedScalarFieldContainer[str]
    workflow_id: str
    checkpoint_at: _timestamp_pb2.Timestamp
    checkpoint_bytes: int
    def __init__(self, job_id: _Optional[str] = ..., state: _Optional[_Union[_common_pb2.JobState, str]] = ..., options: _Optional[_Union[_common_pb2.JobOptions, _Mapping]] = ..., payload: _Optional[bytes] = ..., key: _Optional[str] = ..., submitted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ready_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., finished_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., attempts_charged: _Optional[int] = ..., losses_charged: _Optional[int] = ..., run: _Optional[int] = ..., attempts: _Optional[_Iterable[_Union[Attempt, _Mapping]]] = ..., result: _Optional[bytes] = ..., result_content_type: _Optional[str] = ..., error: _Optional[_Union[_common_pb2.JobError, _Mapping]] = ..., failure_reason: _Optional[_Union[_common_pb2.FailureReason, str]] = ..., cancel_requested: bool = ..., cancel_reason: _Optional[str] = ..., partition: _Optional[int] = ..., progress: _Optional[float] = ..., limit_key: _Optional[str] = ..., sticky_key: _Optional[str] = ..., parents: _Optional[_Iterable[str]] = ..., workflow_id: _Optional[str] = ..., checkpoint_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., checkpoint_bytes: _Optional[int] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("job_id", "without_payload")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    without_payload: bool
    def __init__(self, job_id: _Optional[str] = ..., without_payload: bool = ...) -> None: ...

class GetJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("partition", "filter", "page_size", "page_token")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    partition: int
    filter: str
    page_size: int
    page_token: str
    def __init__(self, partition: _Optional[int] = ..., filter: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs", "next_page_token")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    next_page_token: str
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CountJobsRequest(_message.Message):
    __slots__ = ("partition", "filter")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    partition: int
    filter: str
    def __init__(self, partition: _Optional[int] = ..., filter: _Optional[str] = ...) -> None: ...

class CountJobsResponse(_message.Message):
    __slots__ = ("counts",)
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    counts: _containers.RepeatedCompositeFieldContainer[StateCount]
    def __init__(self, counts: _Optional[_Iterable[_Union[StateCount, _Mapping]]] = ...) -> None: ...

class StateCount(_message.Message):
    __slots__ = ("state", "count")
    STATE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    state: _common_pb2.JobState
    count: int
    def __init__(self, state: _Optional[_Union[_common_pb2.JobState, str]] = ..., count: _Optional[int] = ...) -> None: ...

class WaitJobRequest(_message.Message):
    __slots__ = ("job_id", "timeout")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    timeout: _duration_pb2.Duration
    def __init__(self, job_id: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WaitJobResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: JobResult
    def __init__(self, result: _Optional[_Union[JobResult, _Mapping]] = ...) -> None: ...

class JobResult(_message.Message):
    __slots__ = ("job_id", "state", "result", "content_type", "error", "failure_reason", "attempts", "refusal", "cancel_reason")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FAILURE_REASON_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REASON_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    state: _common_pb2.JobState
    result: bytes
    content_type: str
    error: _common_pb2.JobError
    failure_reason: _common_pb2.FailureReason
    attempts: int
    refusal: _common_pb2.Refusal
    cancel_reason: str
    def __init__(self, job_id: _Optional[str] = ..., state: _Optional[_Union[_common_pb2.JobState, str]] = ..., result: _Optional[bytes] = ..., content_type: _Optional[str] = ..., error: _Optional[_Union[_common_pb2.JobError, _Mapping]] = ..., failure_reason: _Optional[_Union[_common_pb2.FailureReason, str]] = ..., attempts: _Optional[int] = ..., refusal: _Optional[_Union[_common_pb2.Refusal, _Mapping]] = ..., cancel_reason: _Optional[str] = ...) -> None: ...

class StreamResultsRequest(_message.Message):
    __slots__ = ("job_ids",)
    JOB_IDS_FIELD_NUMBER: _ClassVar[int]
    job_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, job_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class StreamResultsResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[JobResult]
    def __init__(self, results: _Optional[_Iterable[_Union[JobResult, _Mapping]]] = ...) -> None: ...

class WatchPosition(_message.Message):
    __slots__ = ("partition", "seq")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    partition: int
    seq: int
    def __init__(self, partition: _Optional[int] = ..., seq: _Optional[int] = ...) -> None: ...

class WatchJobsRequest(_message.Message):
    __slots__ = ("partition", "filter", "after_seq")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQ_FIELD_NUMBER: _ClassVar[int]
    partition: int
    filter: str
    after_seq: int
    def __init__(self, partition: _Optional[int] = ..., filter: _Optional[str] = ..., after_seq: _Optional[int] = ...) -> None: ...

class WatchJobsResponse(_message.Message):
    __slots__ = ("changes", "position")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[JobChange]
    position: WatchPosition
    def __init__(self, changes: _Optional[_Iterable[_Union[JobChange, _Mapping]]] = ..., position: _Optional[_Union[WatchPosition, _Mapping]] = ...) -> None: ...

class JobChange(_message.Message):
    __slots__ = ("job_id", "state", "name", "queue", "changed_at", "seq")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_AT_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    state: _common_pb2.JobState
    name: str
    queue: str
    changed_at: _timestamp_pb2.Timestamp
    seq: int
    def __init__(self, job_id: _Optional[str] = ..., state: _Optional[_Union[_common_pb2.JobState, str]] = ..., name: _Optional[str] = ..., queue: _Optional[str] = ..., changed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., seq: _Optional[int] = ...) -> None: ...

class CancelJobsRequest(_message.Message):
    __slots__ = ("job_ids", "reason")
    JOB_IDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    job_ids: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    def __init__(self, job_ids: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ...) -> None: ...

class CancelJobsResponse(_message.Message):
    __slots__ = ("verdicts",)
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedCompositeFieldContainer[JobVerdict]
    def __init__(self, verdicts: _Optional[_Iterable[_Union[JobVerdict, _Mapping]]] = ...) -> None: ...

class RequeueJobsRequest(_message.Message):
    __slots__ = ("job_ids", "payload")
    JOB_IDS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    job_ids: _containers.RepeatedScalarFieldContainer[str]
    payload: bytes
    def __init__(self, job_ids: _Optional[_Iterable[str]] = ..., payload: _Optional[bytes] = ...) -> None: ...

class RequeueJobsResponse(_message.Message):
    __slots__ = ("verdicts",)
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedCompositeFieldContainer[JobVerdict]
    def __init__(self, verdicts: _Optional[_Iterable[_Union[JobVerdict, _Mapping]]] = ...) -> None: ...

class PurgeJobsRequest(_message.Message):
    __slots__ = ("job_ids",)
    JOB_IDS_FIELD_NUMBER: _ClassVar[int]
    job_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, job_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class PurgeJobsResponse(_message.Message):
    __slots__ = ("verdicts",)
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedCompositeFieldContainer[JobVerdict]
    def __init__(self, verdicts: _Optional[_Iterable[_Union[JobVerdict, _Mapping]]] = ...) -> None: ...

class JobVerdict(_message.Message):
    __slots__ = ("job_id", "state", "refusal")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    state: _common_pb2.JobState
    refusal: _common_pb2.Refusal
    def __init__(self, job_id: _Optional[str] = ..., state: _Optional[_Union[_common_pb2.JobState, str]] = ..., refusal: _Optional[_Union[_common_pb2.Refusal, _Mapping]] = ...) -> None: ...

class BoostJobsRequest(_message.Message):
    __slots__ = ("job_ids", "priority", "delay")
    JOB_IDS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    job_ids: _containers.RepeatedScalarFieldContainer[str]
    priority: int
    delay: _duration_pb2.Duration
    def __init__(self, job_ids: _Optional[_Iterable[str]] = ..., priority: _Optional[int] = ..., delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class BoostJobsResponse(_message.Message):
    __slots__ = ("verdicts",)
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedCompositeFieldContainer[JobVerdict]
    def __init__(self, verdicts: _Optional[_Iterable[_Union[JobVerdict, _Mapping]]] = ...) -> None: ...

class ExplainJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class ExplainJobResponse(_message.Message):
    __slots__ = ("job_id", "state", "ahead", "blockers", "estimated_wait", "basis", "open_parents")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    BLOCKERS_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_WAIT_FIELD_NUMBER: _ClassVar[int]
    BASIS_FIELD_NUMBER: _ClassVar[int]
    OPEN_PARENTS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    state: _common_pb2.JobState
    ahead: int
    blockers: _containers.RepeatedCompositeFieldContainer[Blocker]
    estimated_wait: _duration_pb2.Duration
    basis: str
    open_parents: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, job_id: _Optional[str] = ..., state: _Optional[_Union[_common_pb2.JobState, str]] = ..., ahead: _Optional[int] = ..., blockers: _Optional[_Iterable[_Union[Blocker, _Mapping]]] = ..., estimated_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., basis: _Optional[str] = ..., open_parents: _Optional[_Iterable[str]] = ...) -> None: ...

class Blocker(_message.Message):
    __slots__ = ("kind", "text", "freed_by", "until")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FREED_BY_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    kind: BlockerKind
    text: str
    freed_by: str
    until: _timestamp_pb2.Timestamp
    def __init__(self, kind: _Optional[_Union[BlockerKind, str]] = ..., text: _Optional[str] = ..., freed_by: _Optional[str] = ..., until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class StreamLogsRequest(_message.Message):
    __slots__ = ("job_id", "attempt", "follow", "after")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    attempt: int
    follow: bool
    after: LogPosition
    def __init__(self, job_id: _Optional[str] = ..., attempt: _Optional[int] = ..., follow: bool = ..., after: _Optional[_Union[LogPosition, _Mapping]] = ...) -> None: ...

class LogPosition(_message.Message):
    __slots__ = ("run", "attempt", "line")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    run: int
    attempt: int
    line: int
    def __init__(self, run: _Optional[int] = ..., attempt: _Optional[int] = ..., line: _Optional[int] = ...) -> None: ...

class StreamLogsResponse(_message.Message):
    __slots__ = ("run", "attempt", "lines", "done")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    run: int
    attempt: int
    lines: _containers.RepeatedCompositeFieldContainer[_common_pb2.LogLine]
    done: bool
    def __init__(self, run: _Optional[int] = ..., attempt: _Optional[int] = ..., lines: _Optional[_Iterable[_Union[_common_pb2.LogLine, _Mapping]]] = ..., done: bool = ...) -> None: ...
