from tenure.v1 import common_pb2 as _common_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JournalBatch(_message.Message):
    __slots__ = ("format", "partition", "token", "number", "first_seq", "event_count", "stamp_ms", "previous_hash", "events", "crc32c")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    EVENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    STAMP_MS_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_HASH_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    format: int
    partition: int
    token: _common_pb2.Token
    number: int
    first_seq: int
    event_count: int
    stamp_ms: int
    previous_hash: bytes
    events: bytes
    crc32c: int
    def __init__(self, format: _Optional[int] = ..., partition: _Optional[int] = ..., token: _Optional[_Union[_common_pb2.Token, _Mapping]] = ..., number: _Optional[int] = ..., first_seq: _Optional[int] = ..., event_count: _Optional[int] = ..., stamp_ms: _Optional[int] = ..., previous_hash: _Optional[bytes] = ..., events: _Optional[bytes] = ..., crc32c: _Optional[int] = ...) -> None: ...

class SnapshotSlice(_message.Message):
    __slots__ = ("format", "partition", "snapshot_id", "index", "records", "crc32c")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    format: int
    partition: int
    snapshot_id: str
    index: int
    records: bytes
    crc32c: int
    def __init__(self, format: _Optional[int] = ..., partition: _Optional[int] = ..., snapshot_id: _Optional[str] = ..., index: _Optional[int] = ..., records: _Optional[bytes] = ..., crc32c: _Optional[int] = ...) -> None: ...

class SnapshotManifest(_message.Message):
    __slots__ = ("format", "partition", "snapshot_id", "slice_count", "first_batch", "previous_hash", "last_seq", "token", "stamp_ms", "crc32c")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    SLICE_COUNT_FIELD_NUMBER: _ClassVar[int]
    FIRST_BATCH_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_HASH_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    STAMP_MS_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    format: int
    partition: int
    snapshot_id: str
    slice_count: int
    first_batch: int
    previous_hash: bytes
    last_seq: int
    token: _common_pb2.Token
    stamp_ms: int
    crc32c: int
    def __init__(self, format: _Optional[int] = ..., partition: _Optional[int] = ..., snapshot_id: _Optional[str] = ..., slice_count: _Optional[int] = ..., first_batch: _Optional[int] = ..., previous_hash: _Optional[bytes] = ..., last_seq: _Optional[int] = ..., token: _Optional[_Union[_common_pb2.Token, _Mapping]] = ..., stamp_ms: _Optional[int] = ..., crc32c: _Optional[int] = ...) -> None: ...
