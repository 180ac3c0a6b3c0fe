"""Inputs that reach deep: random messages that are well formed, and what mutations make of them."""

from __future__ import annotations

from random import Random
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.unit.worker.masters import TOKEN, job_id

_WORDS: Final = ("", "job", "double", "x" * 200, "\x00", job_id(1), job_id(2), job_id(1, 5))
_NUMBERS: Final = (0, 1, 2, 3, TOKEN.revision, 255, 1 << 31, (1 << 63) - 1)
_FLOATS: Final = (0.0, -1.0, 50.0, 1e308, float("inf"), float("nan"))
_UNSIGNED: Final = (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_INT32)


def fill(message: Message, rng: Random, depth: int = 0) -> Message:
    """Gives a message's fields values that a sound peer might send, or a broken one."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.3 + 0.1 * depth:
            continue
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            continue
        times = rng.choice((1, 1, 2, 3)) if field.is_repeated else 1
        for _ in range(times):
            _put(message, field, rng, depth)
    return message


def _put(message: Message, field: FieldDescriptor, rng: Random, depth: int) -> None:
    held: Any = getattr(message, field.name)
    if field.message_type is not None:
        if field.message_type.name == "Token" and rng.random() < 0.8:
            part = held.add() if field.is_repeated else held
            part.epoch, part.revision = TOKEN
        elif depth < 5:
            part = held.add() if field.is_repeated else held
            part.SetInParent()
            fill(part, rng, depth + 1)
        return
    value = _value(field, rng)
    if field.is_repeated:
        held.append(value)
    else:
        setattr(message, field.name, value)


def _value(field: FieldDescriptor, rng: Random) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return rng.choice(_WORDS).encode()
        case FieldDescriptor.CPPTYPE_STRING:
            return rng.choice(_WORDS)
        case FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return rng.choice(_FLOATS)
        case FieldDescriptor.CPPTYPE_ENUM:
            return rng.choice((0, 1, 2, 99))
    if field.name == "partition":
        return rng.choice((0, 0, 0, 1, 4_000_000_000))
    limit = (1 << 31) - 1 if field.cpp_type in _UNSIGNED else (1 << 63) - 1
    return min(rng.choice(_NUMBERS), limit)


def mutate(data: bytes, rng: Random) -> bytes:
    """A few bytes changed, cut out, put in or repeated."""
    changed = bytearray(data)
    for _ in range(rng.randint(0, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0 if at < len(changed):
                changed[at] = rng.randrange(256)
            case 1:
                del changed[at : at + rng.randint(1, 8)]
            case 2:
                changed[at:at] = rng.randbytes(rng.randint(1, 8))
            case _:
                changed[at:at] = changed[at : at + rng.randint(1, 32)]
    return bytes(changed)
