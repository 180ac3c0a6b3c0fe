from tenure.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SpaceLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPACE_LEVEL_UNSPECIFIED: _ClassVar[SpaceLevel]
    SPACE_LEVEL_ROOMY: _ClassVar[SpaceLevel]
    SPACE_LEVEL_TIDYING: _ClassVar[SpaceLevel]
    SPACE_LEVEL_NO_BULK: _ClassVar[SpaceLevel]
    SPACE_LEVEL_NO_SUBMITS: _ClassVar[SpaceLevel]

class PartitionRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PARTITION_ROLE_UNSPECIFIED: _ClassVar[PartitionRole]
    PARTITION_ROLE_FOLLOWER: _ClassVar[PartitionRole]
    PARTITION_ROLE_RECOVERING: _ClassVar[PartitionRole]
    PARTITION_ROLE_ADOPTING: _ClassVar[PartitionRole]
    PARTITION_ROLE_SERVING: _ClassVar[PartitionRole]
    PARTITION_ROLE_FROZEN: _ClassVar[PartitionRole]
    PARTITION_ROLE_FULL: _ClassVar[PartitionRole]
    PARTITION_ROLE_HALTED: _ClassVar[PartitionRole]
SPACE_LEVEL_UNSPECIFIED: SpaceLevel
SPACE_LEVEL_ROOMY: SpaceLevel
SPACE_LEVEL_TIDYING: SpaceLevel
SPACE_LEVEL_NO_BULK: SpaceLevel
SPACE_LEVEL_NO_SUBMITS: SpaceLevel
PARTITION_ROLE_UNSPECIFIED: PartitionRole
PARTITION_ROLE_FOLLOWER: PartitionRole
PARTITION_ROLE_RECOVERING: PartitionRole
PARTITION_ROLE_ADOPTING: PartitionRole
PARTITION_ROLE_SERVING: PartitionRole
PARTITION_ROLE_FROZEN: PartitionRole
PARTITION_ROLE_FULL: PartitionRole
PARTITION_ROLE_HALTED: PartitionRole

class GetTopologyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTopologyResponse(_message.Message):
    __slots__ = ("cluster_id", "partition_count", "leaders", "masters", "now_ms")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_COUNT_FIELD_NUMBER: _ClassVar[int]
    LEADERS_FIELD_NUMBER: _ClassVar[int]
    MASTERS_FIELD_NUMBER: _ClassVar[int]
    NOW_MS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    partition_count: int
    leaders: _containers.RepeatedCompositeFieldContainer[PartitionLeader]
    masters: _containers.RepeatedScalarFieldContainer[str]
    now_ms: int
    def __init__(self, cluster_id: _Optional[str] = ..., partition_count: _Optional[int] = ..., leaders: _Optional[_Iterable[_Union[PartitionLeader, _Mapping]]] = ..., masters: _Optional[_Iterable[str]] = ..., now_ms: _Optional[int] = ...) -> None: ...

class PartitionLeader(_message.Message):
    __slots__ = ("partition", "token", "name", "address")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    partition: int
    token: _common_pb2.Token
    name: str
    address: str
    def __init__(self, partition: _Optional[int] = ..., token: _Optional[_Union[_common_pb2.Token, _Mapping]] = ..., name: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class ListMembersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListMembersResponse(_message.Message):
    __slots__ = ("members",)
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[Member]
    def __init__(self, members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("incarnation", "name", "address", "version", "workers")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    incarnation: str
    name: str
    address: str
    version: str
    workers: int
    def __init__(self, incarnation: _Optional[str] = ..., name: _Optional[str] = ..., address: _Optional[str] = ..., version: _Optional[str] = ..., workers: _Optional[int] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("cluster_id", "name", "address", "version", "store", "partitions", "workers", "space", "alarms")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    name: str
    address: str
    version: str
    store: str
    partitions: _containers.RepeatedCompositeFieldContainer[PartitionStatus]
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    space: StoreSpace
    alarms: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, cluster_id: _Optional[str] = ..., name: _Optional[str] = ..., address: _Optional[str] = ..., version: _Optional[str] = ..., store: _Optional[str] = ..., partitions: _Optional[_Iterable[_Union[PartitionStatus, _Mapping]]] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ..., space: _Optional[_Union[StoreSpace, _Mapping]] = ..., alarms: _Optional[_Iterable[str]] = ...) -> None: ...

class StoreSpace(_message.Message):
    __slots__ = ("used_bytes", "file_bytes", "quota_bytes", "level")
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    QUOTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    used_bytes: int
    file_bytes: int
    quota_bytes: int
    level: SpaceLevel
    def __init__(self, used_bytes: _Optional[int] = ..., file_bytes: _Optional[int] = ..., quota_bytes: _Optional[int] = ..., level: _Optional[_Union[SpaceLevel, str]] = ...) -> None: ...

class PartitionStatus(_message.Message):
    __slots__ = ("partition", "role", "token", "applied_seq", "committed_seq", "batch_number", "jobs", "ready", "running", "payload_bytes", "detail", "payload_bytes_max")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    APPLIED_SEQ_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_SEQ_FIELD_NUMBER: _ClassVar[int]
    BATCH_NUMBER_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    partition: int
    role: PartitionRole
    token: _common_pb2.Token
    applied_seq: int
    committed_seq: int
    batch_number: int
    jobs: int
    ready: int
    running: int
    payload_bytes: int
    detail: str
    payload_bytes_max: int
    def __init__(self, partition: _Optional[int] = ..., role: _Optional[_Union[PartitionRole, str]] = ..., token: _Optional[_Union[_common_pb2.Token, _Mapping]] = ..., applied_seq: _Optional[int] = ..., committed_seq: _Optional[int] = ..., batch_number: _Optional[int] = ..., jobs: _Optional[int] = ..., ready: _Optional[int] = ..., running: _Optional[int] = ..., payload_bytes: _Optional[int] = ..., detail: _Optional[str] = ..., payload_bytes_max: _Optional[int] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("incarnation", "name", "slots", "leases", "job_names", "heartbeat_age_ms", "draining", "queues")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    JOB_NAMES_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    incarnation: str
    name: str
    slots: int
    leases: int
    job_names: _containers.RepeatedScalarFieldContainer[str]
    heartbeat_age_ms: int
    draining: bool
    queues: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, incarnation: _Optional[str] = ..., name: _Optional[str] = ..., slots: _Optional[int] = ..., leases: _Optional[int] = ..., job_names: _Optional[_Iterable[str]] = ..., heartbeat_age_ms: _Optional[int] = ..., draining: bool = ..., queues: _Optional[_Iterable[str]] = ...) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BackupResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class TransferLeaderRequest(_message.Message):
    __slots__ = ("partition", "master", "term")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    MASTER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    partition: int
    master: str
    term: _common_pb2.Token
    def __init__(self, partition: _Optional[int] = ..., master: _Optional[str] = ..., term: _Optional[_Union[_common_pb2.Token, _Mapping]] = ...) -> None: ...

class TransferLeaderResponse(_message.Message):
    __slots__ = ("partition", "master", "from_master")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    MASTER_FIELD_NUMBER: _ClassVar[int]
    FROM_MASTER_FIELD_NUMBER: _ClassVar[int]
    partition: int
    master: str
    from_master: str
    def __init__(self, partition: _Optional[int] = ..., master: _Optional[str] = ..., from_master: _Optional[str] = ...) -> None: ...
