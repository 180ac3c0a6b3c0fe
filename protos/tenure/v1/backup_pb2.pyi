from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BackupRecord(_message.Message):
    __slots__ = ("header", "manifest", "slice", "batch", "partition", "totals", "restart")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    header: BackupHeader
    manifest: bytes
    slice: bytes
    batch: bytes
    partition: BackupPartition
    totals: BackupTotals
    restart: BackupRestart
    def __init__(self, header: _Optional[_Union[BackupHeader, _Mapping]] = ..., manifest: _Optional[bytes] = ..., slice: _Optional[bytes] = ..., batch: _Optional[bytes] = ..., partition: _Optional[_Union[BackupPartition, _Mapping]] = ..., totals: _Optional[_Union[BackupTotals, _Mapping]] = ..., restart: _Optional[_Union[BackupRestart, _Mapping]] = ...) -> None: ...

class BackupHeader(_message.Message):
    __slots__ = ("format", "cluster_id", "partitions", "epoch", "version", "made_ms")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MADE_MS_FIELD_NUMBER: _ClassVar[int]
    format: int
    cluster_id: str
    partitions: int
    epoch: int
    version: str
    made_ms: int
    def __init__(self, format: _Optional[int] = ..., cluster_id: _Optional[str] = ..., partitions: _Optional[int] = ..., epoch: _Optional[int] = ..., version: _Optional[str] = ..., made_ms: _Optional[int] = ...) -> None: ...

class BackupPartition(_message.Message):
    __slots__ = ("partition", "slices", "batches", "last_batch", "last_hash", "stamp_ms")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    SLICES_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    LAST_BATCH_FIELD_NUMBER: _ClassVar[int]
    LAST_HASH_FIELD_NUMBER: _ClassVar[int]
    STAMP_MS_FIELD_NUMBER: _ClassVar[int]
    partition: int
    slices: int
    batches: int
    last_batch: int
    last_hash: bytes
    stamp_ms: int
    def __init__(self, partition: _Optional[int] = ..., slices: _Optional[int] = ..., batches: _Optional[int] = ..., last_batch: _Optional[int] = ..., last_hash: _Optional[bytes] = ..., stamp_ms: _Optional[int] = ...) -> None: ...

class BackupTotals(_message.Message):
    __slots__ = ("records", "bytes", "hash")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    records: int
    bytes: int
    hash: bytes
    def __init__(self, records: _Optional[int] = ..., bytes: _Optional[int] = ..., hash: _Optional[bytes] = ...) -> None: ...

class BackupRestart(_message.Message):
    __slots__ = ("partition",)
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    partition: int
    def __init__(self, partition: _Optional[int] = ...) -> None: ...
