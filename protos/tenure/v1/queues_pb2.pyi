import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tenure.v1 import jobs_pb2 as _jobs_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FairBy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAIR_BY_UNSPECIFIED: _ClassVar[FairBy]
    FAIR_BY_GRANTS: _ClassVar[FairBy]
    FAIR_BY_TIME: _ClassVar[FairBy]

class LimitStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LIMIT_STRATEGY_UNSPECIFIED: _ClassVar[LimitStrategy]
    LIMIT_STRATEGY_QUEUE: _ClassVar[LimitStrategy]
    LIMIT_STRATEGY_CANCEL_IN_PROGRESS: _ClassVar[LimitStrategy]
    LIMIT_STRATEGY_CANCEL_NEWEST: _ClassVar[LimitStrategy]

class BreakerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BREAKER_STATE_UNSPECIFIED: _ClassVar[BreakerState]
    BREAKER_STATE_CLOSED: _ClassVar[BreakerState]
    BREAKER_STATE_OPEN: _ClassVar[BreakerState]
    BREAKER_STATE_HALF_OPEN: _ClassVar[BreakerState]

class BreakerOverride(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BREAKER_OVERRIDE_UNSPECIFIED: _ClassVar[BreakerOverride]
    BREAKER_OVERRIDE_NONE: _ClassVar[BreakerOverride]
    BREAKER_OVERRIDE_CLOSED: _ClassVar[BreakerOverride]
    BREAKER_OVERRIDE_OPEN: _ClassVar[BreakerOverride]
FAIR_BY_UNSPECIFIED: FairBy
FAIR_BY_GRANTS: FairBy
FAIR_BY_TIME: FairBy
LIMIT_STRATEGY_UNSPECIFIED: LimitStrategy
LIMIT_STRATEGY_QUEUE: LimitStrategy
LIMIT_STRATEGY_CANCEL_IN_PROGRESS: LimitStrategy
LIMIT_STRATEGY_CANCEL_NEWEST: LimitStrategy
BREAKER_STATE_UNSPECIFIED: BreakerState
BREAKER_STATE_CLOSED: BreakerState
BREAKER_STATE_OPEN: BreakerState
BREAKER_STATE_HALF_OPEN: BreakerState
BREAKER_OVERRIDE_UNSPECIFIED: BreakerOverride
BREAKER_OVERRIDE_NONE: BreakerOverride
BREAKER_OVERRIDE_CLOSED: BreakerOverride
BREAKER_OVERRIDE_OPEN: BreakerOverride

class RateLimit(_message.Message):
    __slots__ = ("count", "per", "burst")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    PER_FIELD_NUMBER: _ClassVar[int]
    BURST_FIELD_NUMBER: _ClassVar[int]
    count: int
    per: _duration_pb2.Duration
    burst: int
    def __init__(self, count: _Optional[int] = ..., per: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., burst: _Optional[int] = ...) -> None: ...

class QueueSettings(_message.Message):
    __slots__ = ("weight", "fair_by", "paused", "concurrency", "key_concurrency", "key_strategy", "rate", "key_rate", "reserved", "reserved_priority", "depth_max", "refuse_late", "key_breaker", "key_breaker_overrides")
    class KeyBreakerOverridesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: BreakerOverride
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[BreakerOverride, str]] = ...) -> None: ...
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    FAIR_BY_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    KEY_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    KEY_STRATEGY_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    KEY_RATE_FIELD_NUMBER: _ClassVar[int]
    RESERVED_FIELD_NUMBER: _ClassVar[int]
    RESERVED_PRIORITY_FIELD_NUMBER: _ClassVar[int]
    DEPTH_MAX_FIELD_NUMBER: _ClassVar[int]
    REFUSE_LATE_FIELD_NUMBER: _ClassVar[int]
    KEY_BREAKER_FIELD_NUMBER: _ClassVar[int]
    KEY_BREAKER_OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    weight: float
    fair_by: FairBy
    paused: bool
    concurrency: int
    key_concurrency: int
    key_strategy: LimitStrategy
    rate: RateLimit
    key_rate: RateLimit
    reserved: float
    reserved_priority: int
    depth_max: int
    refuse_late: bool
    key_breaker: BreakerSettings
    key_breaker_overrides: _containers.ScalarMap[str, BreakerOverride]
    def __init__(self, weight: _Optional[float] = ..., fair_by: _Optional[_Union[FairBy, str]] = ..., paused: bool = ..., concurrency: _Optional[int] = ..., key_concurrency: _Optional[int] = ..., key_strategy: _Optional[_Union[LimitStrategy, str]] = ..., rate: _Optional[_Union[RateLimit, _Mapping]] = ..., key_rate: _Optional[_Union[RateLimit, _Mapping]] = ..., reserved: _Optional[float] = ..., reserved_priority: _Optional[int] = ..., depth_max: _Optional[int] = ..., refuse_late: bool = ..., key_breaker: _Optional[_Union[BreakerSettings, _Mapping]] = ..., key_breaker_overrides: _Optional[_Mapping[str, BreakerOverride]] = ...) -> None: ...

class Queue(_message.Message):
    __slots__ = ("tenant", "name", "partition", "settings", "counts", "oldest_ready_at", "granted_per_s", "finished_per_s", "mean_run", "key_breakers")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_READY_AT_FIELD_NUMBER: _ClassVar[int]
    GRANTED_PER_S_FIELD_NUMBER: _ClassVar[int]
    FINISHED_PER_S_FIELD_NUMBER: _ClassVar[int]
    MEAN_RUN_FIELD_NUMBER: _ClassVar[int]
    KEY_BREAKERS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    name: str
    partition: int
    settings: QueueSettings
    counts: _containers.RepeatedCompositeFieldContainer[_jobs_pb2.StateCount]
    oldest_ready_at: _timestamp_pb2.Timestamp
    granted_per_s: float
    finished_per_s: float
    mean_run: _duration_pb2.Duration
    key_breakers: _containers.RepeatedCompositeFieldContainer[KeyBreaker]
    def __init__(self, tenant: _Optional[str] = ..., name: _Optional[str] = ..., partition: _Optional[int] = ..., settings: _Optional[_Union[QueueSettings, _Mapping]] = ..., counts: _Optional[_Iterable[_Union[_jobs_pb2.StateCount, _Mapping]]] = ..., oldest_ready_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., granted_per_s: _Optional[float] = ..., finished_per_s: _Optional[float] = ..., mean_run: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., key_breakers: _Optional[_Iterable[_Union[KeyBreaker, _Mapping]]] = ...) -> None: ...

class KeyBreaker(_message.Message):
    __slots__ = ("limit_key", "state", "open_until", "failure_rate")
    LIMIT_KEY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OPEN_UNTIL_FIELD_NUMBER: _ClassVar[int]
    FAILURE_RATE_FIELD_NUMBER: _ClassVar[int]
    limit_key: str
    state: BreakerState
    open_until: _timestamp_pb2.Timestamp
    failure_rate: float
    def __init__(self, limit_key: _Optional[str] = ..., state: _Optional[_Union[BreakerState, str]] = ..., open_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., failure_rate: _Optional[float] = ...) -> None: ...

class GetQueueRequest(_message.Message):
    __slots__ = ("tenant", "name")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    name: str
    def __init__(self, tenant: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class GetQueueResponse(_message.Message):
    __slots__ = ("queue",)
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: Queue
    def __init__(self, queue: _Optional[_Union[Queue, _Mapping]] = ...) -> None: ...

class ListQueuesRequest(_message.Message):
    __slots__ = ("partition", "tenant", "page_size", "page_token")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    partition: int
    tenant: str
    page_size: int
    page_token: str
    def __init__(self, partition: _Optional[int] = ..., tenant: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListQueuesResponse(_message.Message):
    __slots__ = ("queues", "next_page_token")
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    queues: _containers.RepeatedCompositeFieldContainer[Queue]
    next_page_token: str
    def __init__(self, queues: _Optional[_Iterable[_Union[Queue, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateQueueRequest(_message.Message):
    __slots__ = ("tenant", "name", "settings", "update_mask")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    name: str
    settings: QueueSettings
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, tenant: _Optional[str] = ..., name: _Optional[str] = ..., settings: _Optional[_Union[QueueSettings, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdateQueueResponse(_message.Message):
    __slots__ = ("queue",)
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: Queue
    def __init__(self, queue: _Optional[_Union[Queue, _Mapping]] = ...) -> None: ...

class TenantSettings(_message.Message):
    __slots__ = ("weight", "paused")
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    weight: float
    paused: bool
    def __init__(self, weight: _Optional[float] = ..., paused: bool = ...) -> None: ...

class Tenant(_message.Message):
    __slots__ = ("name", "partition", "settings", "counts")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    partition: int
    settings: TenantSettings
    counts: _containers.RepeatedCompositeFieldContainer[_jobs_pb2.StateCount]
    def __init__(self, name: _Optional[str] = ..., partition: _Optional[int] = ..., settings: _Optional[_Union[TenantSettings, _Mapping]] = ..., counts: _Optional[_Iterable[_Union[_jobs_pb2.StateCount, _Mapping]]] = ...) -> None: ...

class ListTenantsRequest(_message.Message):
    __slots__ = ("partition", "page_size", "page_token")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    partition: int
    page_size: int
    page_token: str
    def __init__(self, partition: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListTenantsResponse(_message.Message):
    __slots__ = ("tenants", "next_page_token")
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tenants: _containers.RepeatedCompositeFieldContainer[Tenant]
    next_page_token: str
    def __init__(self, tenants: _Optional[_Iterable[_Union[Tenant, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateTenantRequest(_message.Message):
    __slots__ = ("partition", "name", "settings", "update_mask")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    partition: int
    name: str
    settings: TenantSettings
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, partition: _Optional[int] = ..., name: _Optional[str] = ..., settings: _Optional[_Union[TenantSettings, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdateTenantResponse(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: Tenant
    def __init__(self, tenant: _Optional[_Union[Tenant, _Mapping]] = ...) -> None: ...

class BreakerSettings(_message.Message):
    __slots__ = ("failure_rate", "window", "volume_min", "open_for", "probes")
    FAILURE_RATE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    VOLUME_MIN_FIELD_NUMBER: _ClassVar[int]
    OPEN_FOR_FIELD_NUMBER: _ClassVar[int]
    PROBES_FIELD_NUMBER: _ClassVar[int]
    failure_rate: float
    window: _duration_pb2.Duration
    volume_min: int
    open_for: _duration_pb2.Duration
    probes: int
    def __init__(self, failure_rate: _Optional[float] = ..., window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., volume_min: _Optional[int] = ..., open_for: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., probes: _Optional[int] = ...) -> None: ...

class JobTypeSettings(_message.Message):
    __slots__ = ("paused", "breaker", "breaker_override", "retry_budget", "adaptive_retry")
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    BREAKER_FIELD_NUMBER: _ClassVar[int]
    BREAKER_OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    RETRY_BUDGET_FIELD_NUMBER: _ClassVar[int]
    ADAPTIVE_RETRY_FIELD_NUMBER: _ClassVar[int]
    paused: bool
    breaker: BreakerSettings
    breaker_override: BreakerOverride
    retry_budget: float
    adaptive_retry: bool
    def __init__(self, paused: bool = ..., breaker: _Optional[_Union[BreakerSettings, _Mapping]] = ..., breaker_override: _Optional[_Union[BreakerOverride, str]] = ..., retry_budget: _Optional[float] = ..., adaptive_retry: bool = ...) -> None: ...

class JobType(_message.Message):
    __slots__ = ("tenant", "name", "partition", "settings", "breaker_state", "breaker_open_until", "failure_rate", "counts")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    BREAKER_STATE_FIELD_NUMBER: _ClassVar[int]
    BREAKER_OPEN_UNTIL_FIELD_NUMBER: _ClassVar[int]
    FAILURE_RATE_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    name: str
    partition: int
    settings: JobTypeSettings
    breaker_state: BreakerState
    breaker_open_until: _timestamp_pb2.Timestamp
    failure_rate: float
    counts: _containers.RepeatedCompositeFieldContainer[_jobs_pb2.StateCount]
    def __init__(self, tenant: _Optional[str] = ..., name: _Optional[str] = ..., partition: _Optional[int] = ..., settings: _Optional[_Union[JobTypeSettings, _Mapping]] = ..., breaker_state: _Optional[_Union[BreakerState, str]] = ..., breaker_open_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., failure_rate: _Optional[float] = ..., counts: _Optional[_Iterable[_Union[_jobs_pb2.StateCount, _Mapping]]] = ...) -> None: ...

class ListJobTypesRequest(_message.Message):
    __slots__ = ("partition", "tenant", "page_size", "page_token")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    partition: int
    tenant: str
    page_size: int
    page_token: str
    def __init__(self, partition: _Optional[int] = ..., tenant: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListJobTypesResponse(_message.Message):
    __slots__ = ("job_types", "next_page_token")
    JOB_TYPES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    job_types: _containers.RepeatedCompositeFieldContainer[JobType]
    next_page_token: str
    def __init__(self, job_types: _Optional[_Iterable[_Union[JobType, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateJobTypeRequest(_message.Message):
    __slots__ = ("partition", "tenant", "name", "settings", "update_mask")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    partition: int
    tenant: str
    name: str
    settings: JobTypeSettings
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, partition: _Optional[int] = ..., tenant: _Optional[str] = ..., name: _Optional[str] = ..., settings: _Optional[_Union[JobTypeSettings, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdateJobTypeResponse(_message.Message):
    __slots__ = ("job_type",)
    JOB_TYPE_FIELD_NUMBER: _ClassVar[int]
    job_type: JobType
    def __init__(self, job_type: _Optional[_Union[JobType, _Mapping]] = ...) -> None: ...

class GetArgumentSchemaRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetArgumentSchemaResponse(_message.Message):
    __slots__ = ("schema",)
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    schema: str
    def __init__(self, schema: _Optional[str] = ...) -> None: ...
