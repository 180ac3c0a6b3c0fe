import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from tenure.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_ACCEPTED: _ClassVar[Verdict]
    VERDICT_DUPLICATE: _ClassVar[Verdict]
    VERDICT_SUPERSEDED: _ClassVar[Verdict]
    VERDICT_GONE: _ClassVar[Verdict]
    VERDICT_IGNORED: _ClassVar[Verdict]
VERDICT_UNSPECIFIED: Verdict
VERDICT_ACCEPTED: Verdict
VERDICT_DUPLICATE: Verdict
VERDICT_SUPERSEDED: Verdict
VERDICT_GONE: Verdict
VERDICT_IGNORED: Verdict

class SessionRequest(_message.Message):
    __slots__ = ("hello", "credit", "updates", "goodbye", "vitals")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    VITALS_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    credit: CreditLimit
    updates: _containers.RepeatedCompositeFieldContainer[PartitionUpdate]
    goodbye: Goodbye
    vitals: Vitals
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., credit: _Optional[_Union[CreditLimit, _Mapping]] = ..., updates: _Optional[_Iterable[_Union[PartitionUpdate, _Mapping]]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., vitals: _Optional[_Union[Vitals, _Mapping]] = ...) -> None: ...

class Vitals(_message.Message):
    __slots__ = ("drained", "stopping", "quarantine", "slots_used", "slots_lost", "children", "rss_bytes", "cpu_share", "loop_lag_ms", "loop_blocked")
    DRAINED_FIELD_NUMBER: _ClassVar[int]
    STOPPING_FIELD_NUMBER: _ClassVar[int]
    QUARANTINE_FIELD_NUMBER: _ClassVar[int]
    SLOTS_USED_FIELD_NUMBER: _ClassVar[int]
    SLOTS_LOST_FIELD_NUMBER: _ClassVar[int]
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_SHARE_FIELD_NUMBER: _ClassVar[int]
    LOOP_LAG_MS_FIELD_NUMBER: _ClassVar[int]
    LOOP_BLOCKED_FIELD_NUMBER: _ClassVar[int]
    drained: bool
    stopping: bool
    quarantine: Quarantine
    slots_used: int
    slots_lost: int
    children: int
    rss_bytes: int
    cpu_share: float
    loop_lag_ms: int
    loop_blocked: LoopBlocked
    def __init__(self, drained: bool = ..., stopping: bool = ..., quarantine: _Optional[_Union[Quarantine, _Mapping]] = ..., slots_used: _Optional[int] = ..., slots_lost: _Optional[int] = ..., children: _Optional[int] = ..., rss_bytes: _Optional[int] = ..., cpu_share: _Optional[float] = ..., loop_lag_ms: _Optional[int] = ..., loop_blocked: _Optional[_Union[LoopBlocked, _Mapping]] = ...) -> None: ...

class Quarantine(_message.Message):
    __slots__ = ("reason", "by_hand", "lifted", "for_ms")
    REASON_FIELD_NUMBER: _ClassVar[int]
    BY_HAND_FIELD_NUMBER: _ClassVar[int]
    LIFTED_FIELD_NUMBER: _ClassVar[int]
    FOR_MS_FIELD_NUMBER: _ClassVar[int]
    reason: str
    by_hand: bool
    lifted: bool
    for_ms: int
    def __init__(self, reason: _Optional[str] = ..., by_hand: bool = ..., lifted: bool = ..., for_ms: _Optional[int] = ...) -> None: ...

class LoopBlocked(_message.Message):
    __slots__ = ("job_id", "name", "blocked_ms", "stack")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_MS_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    name: str
    blocked_ms: int
    stack: str
    def __init__(self, job_id: _Optional[str] = ..., name: _Optional[str] = ..., blocked_ms: _Optional[int] = ..., stack: _Optional[str] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("incarnation", "name", "job_names", "queues", "slots", "labels", "build_id", "protocol", "argument_schemas")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class ArgumentSchemasEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    JOB_NAMES_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ARGUMENT_SCHEMAS_FIELD_NUMBER: _ClassVar[int]
    incarnation: str
    name: str
    job_names: _containers.RepeatedScalarFieldContainer[str]
    queues: _containers.RepeatedScalarFieldContainer[str]
    slots: int
    labels: _containers.ScalarMap[str, str]
    build_id: str
    protocol: int
    argument_schemas: _containers.ScalarMap[str, str]
    def __init__(self, incarnation: _Optional[str] = ..., name: _Optional[str] = ..., job_names: _Optional[_Iterable[str]] = ..., queues: _Optional[_Iterable[str]] = ..., slots: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., build_id: _Optional[str] = ..., protocol: _Optional[int] = ..., argument_schemas: _Optional[_Mapping[str, str]] = ...) -> None: ...

class CreditLimit(_message.Message):
    __slots__ = ("number", "limit")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    number: int
    limit: int
    def __init__(self, number: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class PartitionUpdate(_message.Message):
    __slots__ = ("partition", "token", "declare", "heartbeat", "accepted_assignment", "started", "returned", "reports", "checkpoints", "logs")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DECLARE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    partition: int
    token: _common_pb2.Token
    declare: LeaseSet
    heartbeat: Heartbeat
    accepted_assignment: int
    started: _containers.RepeatedCompositeFieldContainer[LeaseRef]
    returned: _containers.RepeatedCompositeFieldContainer[LeaseRef]
    reports: _containers.RepeatedCompositeFieldContainer[Report]
    checkpoints: _containers.RepeatedCompositeFieldContainer[Checkpoint]
    logs: _containers.RepeatedCompositeFieldContainer[LogChunk]
    def __init__(self, partition: _Optional[int] = ..., token: _Optional[_Union[_common_pb2.Token, _Mapping]] = ..., declare: _Optional[_Union[LeaseSet, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., accepted_assignment: _Optional[int] = ..., started: _Optional[_Iterable[_Union[LeaseRef, _Mapping]]] = ..., returned: _Optional[_Iterable[_Union[LeaseRef, _Mapping]]] = ..., reports: _Optional[_Iterable[_Union[Report, _Mapping]]] = ..., checkpoints: _Optional[_Iterable[_Union[Checkpoint, _Mapping]]] = ..., logs: _Optional[_Iterable[_Union[LogChunk, _Mapping]]] = ...) -> None: ...

class LogChunk(_message.Message):
    __slots__ = ("lease", "after", "lines")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseRef
    after: int
    lines: _containers.RepeatedCompositeFieldContainer[_common_pb2.LogLine]
    def __init__(self, lease: _Optional[_Union[LeaseRef, _Mapping]] = ..., after: _Optional[int] = ..., lines: _Optional[_Iterable[_Union[_common_pb2.LogLine, _Mapping]]] = ...) -> None: ...

class LeaseRef(_message.Message):
    __slots__ = ("job_id", "seq", "run", "token")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    seq: int
    run: int
    token: _common_pb2.Token
    def __init__(self, job_id: _Optional[str] = ..., seq: _Optional[int] = ..., run: _Optional[int] = ..., token: _Optional[_Union[_common_pb2.Token, _Mapping]] = ...) -> None: ...

class HeldLease(_message.Message):
    __slots__ = ("lease", "started", "running_ms", "progress")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    RUNNING_MS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseRef
    started: bool
    running_ms: int
    progress: float
    def __init__(self, lease: _Optional[_Union[LeaseRef, _Mapping]] = ..., started: bool = ..., running_ms: _Optional[int] = ..., progress: _Optional[float] = ...) -> None: ...

class LeaseSet(_message.Message):
    __slots__ = ("leases",)
    LEASES_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[HeldLease]
    def __init__(self, leases: _Optional[_Iterable[_Union[HeldLease, _Mapping]]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("number", "last_assignment", "held")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LAST_ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    number: int
    last_assignment: int
    held: LeaseSet
    def __init__(self, number: _Optional[int] = ..., last_assignment: _Optional[int] = ..., held: _Optional[_Union[LeaseSet, _Mapping]] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("lease", "outcome", "result", "content_type", "error", "run_ms", "log")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RUN_MS_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseRef
    outcome: _common_pb2.AttemptOutcome
    result: bytes
    content_type: str
    error: _common_pb2.JobError
    run_ms: int
    log: bytes
    def __init__(self, lease: _Optional[_Union[LeaseRef, _Mapping]] = ..., outcome: _Optional[_Union[_common_pb2.AttemptOutcome, str]] = ..., result: _Optional[bytes] = ..., content_type: _Optional[str] = ..., error: _Optional[_Union[_common_pb2.JobError, _Mapping]] = ..., run_ms: _Optional[int] = ..., log: _Optional[bytes] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("lease", "number", "data")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseRef
    number: int
    data: bytes
    def __init__(self, lease: _Optional[_Union[LeaseRef, _Mapping]] = ..., number: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class CheckpointAck(_message.Message):
    __slots__ = ("lease", "number")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseRef
    number: int
    def __init__(self, lease: _Optional[_Union[LeaseRef, _Mapping]] = ..., number: _Optional[int] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("welcome", "opened", "closed", "instructions", "credit_acked", "drain", "undrain", "quarantine")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    CREDIT_ACKED_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    UNDRAIN_FIELD_NUMBER: _ClassVar[int]
    QUARANTINE_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    opened: _containers.RepeatedCompositeFieldContainer[PartitionOpened]
    closed: _containers.RepeatedCompositeFieldContainer[PartitionClosed]
    instructions: _containers.RepeatedCompositeFieldContainer[PartitionInstruction]
    credit_acked: int
    drain: Drain
    undrain: Undrain
    quarantine: Quarantine
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., opened: _Optional[_Iterable[_Union[PartitionOpened, _Mapping]]] = ..., closed: _Optional[_Iterable[_Union[PartitionClosed, _Mapping]]] = ..., instructions: _Optional[_Iterable[_Union[PartitionInstruction, _Mapping]]] = ..., credit_acked: _Optional[int] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., undrain: _Optional[_Union[Undrain, _Mapping]] = ..., quarantine: _Optional[_Union[Quarantine, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("cluster_id", "master", "lease_ttl", "heartbeat_interval", "now_ms", "masters")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    MASTER_FIELD_NUMBER: _ClassVar[int]
    LEASE_TTL_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    NOW_MS_FIELD_NUMBER: _ClassVar[int]
    MASTERS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    master: str
    lease_ttl: _duration_pb2.Duration
    heartbeat_interval: _duration_pb2.Duration
    now_ms: int
    masters: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, cluster_id: _Optional[str] = ..., master: _Optional[str] = ..., lease_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., heartbeat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., now_ms: _Optional[int] = ..., masters: _Optional[_Iterable[str]] = ...) -> None: ...

class PartitionOpened(_message.Message):
    __slots__ = ("partition", "token")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    partition: int
    token: _common_pb2.Token
    def __init__(self, partition: _Optional[int] = ..., token: _Optional[_Union[_common_pb2.Token, _Mapping]] = ...) -> None: ...

class PartitionClosed(_message.Message):
    __slots__ = ("partition", "token", "hint")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    partition: int
    token: _common_pb2.Token
    hint: str
    def __init__(self, partition: _Optional[int] = ..., token: _Optional[_Union[_common_pb2.Token, _Mapping]] = ..., hint: _Optional[str] = ...) -> None: ...

class PartitionInstruction(_message.Message):
    __slots__ = ("partition", "token", "assignment", "verdicts", "revokes", "cancels", "heartbeat_ack", "hold", "backlog", "checkpoint_acks", "logs")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    REVOKES_FIELD_NUMBER: _ClassVar[int]
    CANCELS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_ACK_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ACKS_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    partition: int
    token: _common_pb2.Token
    assignment: Assignment
    verdicts: _containers.RepeatedCompositeFieldContainer[ReportVerdict]
    revokes: _containers.RepeatedCompositeFieldContainer[Revoke]
    cancels: _containers.RepeatedCompositeFieldContainer[LeaseRef]
    heartbeat_ack: HeartbeatAck
    hold: Hold
    backlog: int
    checkpoint_acks: _containers.RepeatedCompositeFieldContainer[CheckpointAck]
    logs: _containers.RepeatedCompositeFieldContainer[LogWish]
    def __init__(self, partition: _Optional[int] = ..., token: _Optional[_Union[_common_pb2.Token, _Mapping]] = ..., assignment: _Optional[_Union[Assignment, _Mapping]] = ..., verdicts: _Optional[_Iterable[_Union[ReportVerdict, _Mapping]]] = ..., revokes: _Optional[_Iterable[_Union[Revoke, _Mapping]]] = ..., cancels: _Optional[_Iterable[_Union[LeaseRef, _Mapping]]] = ..., heartbeat_ack: _Optional[_Union[HeartbeatAck, _Mapping]] = ..., hold: _Optional[_Union[Hold, _Mapping]] = ..., backlog: _Optional[int] = ..., checkpoint_acks: _Optional[_Iterable[_Union[CheckpointAck, _Mapping]]] = ..., logs: _Optional[_Iterable[_Union[LogWish, _Mapping]]] = ...) -> None: ...

class LogWish(_message.Message):
    __slots__ = ("lease", "after", "stop")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseRef
    after: int
    stop: bool
    def __init__(self, lease: _Optional[_Union[LeaseRef, _Mapping]] = ..., after: _Optional[int] = ..., stop: bool = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("number", "options", "grants")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    number: int
    options: _containers.RepeatedCompositeFieldContainer[_common_pb2.JobOptions]
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    def __init__(self, number: _Optional[int] = ..., options: _Optional[_Iterable[_Union[_common_pb2.JobOptions, _Mapping]]] = ..., grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("job_id", "seq", "run", "attempt", "options", "payload", "deadline_ms", "checkpoint")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    seq: int
    run: int
    attempt: int
    options: int
    payload: bytes
    deadline_ms: int
    checkpoint: bytes
    def __init__(self, job_id: _Optional[str] = ..., seq: _Optional[int] = ..., run: _Optional[int] = ..., attempt: _Optional[int] = ..., options: _Optional[int] = ..., payload: _Optional[bytes] = ..., deadline_ms: _Optional[int] = ..., checkpoint: _Optional[bytes] = ...) -> None: ...

class ReportVerdict(_message.Message):
    __slots__ = ("lease", "verdict")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseRef
    verdict: Verdict
    def __init__(self, lease: _Optional[_Union[LeaseRef, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, str]] = ...) -> None: ...

class Revoke(_message.Message):
    __slots__ = ("lease", "unless_started", "reason")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    UNLESS_STARTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    lease: LeaseRef
    unless_started: bool
    reason: str
    def __init__(self, lease: _Optional[_Union[LeaseRef, _Mapping]] = ..., unless_started: bool = ..., reason: _Optional[str] = ...) -> None: ...

class HeartbeatAck(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class Hold(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Undrain(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
