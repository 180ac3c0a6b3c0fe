from tenure.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeliverRequest(_message.Message):
    __slots__ = ("source", "target", "token", "messages")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    source: int
    target: int
    token: _common_pb2.Token
    messages: _containers.RepeatedCompositeFieldContainer[PartitionMessage]
    def __init__(self, source: _Optional[int] = ..., target: _Optional[int] = ..., token: _Optional[_Union[_common_pb2.Token, _Mapping]] = ..., messages: _Optional[_Iterable[_Union[PartitionMessage, _Mapping]]] = ...) -> None: ...

class PartitionMessage(_message.Message):
    __slots__ = ("number", "body")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    number: int
    body: bytes
    def __init__(self, number: _Optional[int] = ..., body: _Optional[bytes] = ...) -> None: ...

class DeliverResponse(_message.Message):
    __slots__ = ("taken_number",)
    TAKEN_NUMBER_FIELD_NUMBER: _ClassVar[int]
    taken_number: int
    def __init__(self, taken_number: _Optional[int] = ...) -> None: ...
