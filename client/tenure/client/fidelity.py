"""Whether a value that has been encoded and decoded is what it was, and where it is not."""

# Values of any type are looked at here, so that the type of their parts is not known.
# pyright: reportUnknownArgumentType=none, reportUnknownMemberType=none
# pyright: reportUnknownVariableType=none

from __future__ import annotations

import dataclasses
import enum
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from tenure.client.foreign import is_model

#: Two values of the same one of these types are the same if they are equal.
_COMPARED: Final = frozenset(
    {type(None), bool, int, str, bytes, bytearray, uuid.UUID, date, timedelta}
)
#: The others that have no parts.
_LEAVES: Final = frozenset({float, Decimal, datetime, time})
#: How far down a value that cannot be encoded is searched for the part that is to blame.
_DEPTH_MAX: Final = 16
TOO_DEEP: Final = "it is nested too deeply, or holds itself"
_CHANGES: Final = "its value would change on the way"


class Flaw(NamedTuple):
    """Where a value does not survive, and why.

    Attributes:
        path: From the value on: ``.point.x[0]``.
        why: What would happen, and what to do about it.
    """

    path: str
    why: str


def flaw_of(sent: Any, got: Any) -> Flaw | None:
    """Where what has arrived differs from what was sent: in type or value. None: nowhere."""
    try:
        return _flaw_of(sent, got)
    except RecursionError:
        return Flaw("", TOO_DEEP)


def _flaw_of(sent: Any, got: Any) -> Flaw | None:
    kind = type(sent)
    if kind is datetime and sent.tzinfo is None:
        return Flaw("", "it is a datetime without a time zone: give it one, such as tzinfo=UTC")
    if kind is not type(got):
        # As the type system has it, a whole number is fine where a float is asked for.
        if kind is int and type(got) is float and sent == got:
            return None
        return Flaw("", _other_type(sent, got))
    if kind in _COMPARED:
        return None if sent == got else Flaw("", _CHANGES)
    if kind is list or kind is tuple:
        return _flaw_in_sequence(sent, got)
    if kind in _LEAVES:
        return None if _same_leaf(sent, got) else Flaw("", _CHANGES)
    if isinstance(sent, dict):
        return _flaw_in_dict(sent, got)
    if isinstance(sent, set | frozenset):
        return _flaw_in_set(sent, got)
    names = _field_names(sent)
    if names is None:
        return None if _same_leaf(sent, got) else Flaw("", _CHANGES)
    return _flaw_in_fields(names, sent, got)


def _parts(value: Any) -> list[tuple[str, Any]]:
    """What a value consists of, by path."""
    names = _field_names(value)
    if names is not None:
        return [(f".{name}", getattr(value, name, None)) for name in names]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    if isinstance(value, dict):
        # The key first: the flaw may be its own.
        return [(f"[{key!r}]", part) for key, held in value.items() for part in (key, held)]
    return []


def first_unencodable(value: Any, encode: Callable[[Any], object]) -> Flaw | None:
    """The innermost part of a value that cannot be encoded. None: all of it can."""
    path, limit = "", _DEPTH_MAX
    while True:
        try:
            encode(value)
        except RecursionError:
            why = TOO_DEEP
        except (TypeError, ValueError, OverflowError) as error:
            why = str(error)
        else:
            return None
        inner = next(_unencodable_parts(value, encode), None) if limit else None
        if inner is None:
            return Flaw(path, why)
        suffix, value = inner
        path, limit = path + suffix, limit - 1


def _unencodable_parts(value: Any, encode: Callable[[Any], object]) -> Iterator[tuple[str, Any]]:
    for suffix, part in _parts(value):
        try:
            encode(part)
        except (TypeError, ValueError, OverflowError, RecursionError):
            yield suffix, part


def _field_names(value: Any) -> tuple[str, ...] | None:
    """The fields of a value; None: it has none that we know of."""
    kind: Any = type(value)
    names = _class_fields(kind)
    if names is not None and is_model(kind):
        # Each model may have some more.
        return (
            *names,
            *(value.__pydantic_extra__ or ()),
            *(value.__pydantic_private__ or ()),
        )
    return names


@lru_cache(maxsize=1024)
def _class_fields(kind: Any) -> tuple[str, ...] | None:
    if issubclass(kind, msgspec.Struct):
        return tuple(kind.__struct_fields__)
    if issubclass(kind, tuple):
        return getattr(kind, "_fields", None)
    if is_model(kind):
        return tuple(kind.__pydantic_fields__)
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    attributes = getattr(kind, "__attrs_attrs__", None)
    return None if attributes is None else tuple(a.name for a in attributes)


def _flaw_in_sequence(sent: list[Any] | tuple[Any, ...], got: Any) -> Flaw | None:
    if len(sent) != len(got):
        return Flaw("", _CHANGES)
    # Rows of one plain type are compared in one go.
    kinds = {*map(type, sent)}
    if len(kinds) == 1 and kinds <= _COMPARED and kinds == {*map(type, got)} and sent == got:
        return None
    for index, (one, other) in enumerate(zip(sent, got, strict=True)):
        flaw = _flaw_of(one, other)
        if flaw is not None:
            return Flaw(f"[{index}]{flaw.path}", flaw.why)
    return None


def _flaw_in_fields(names: tuple[str, ...], sent: Any, got: Any) -> Flaw | None:
    if names != _field_names(got):
        return Flaw("", _CHANGES)
    for name in names:
        flaw = _flaw_of(getattr(sent, name, None), getattr(got, name, None))
        if flaw is not None:
            return Flaw(f".{name}{flaw.path}", flaw.why)
    return None


def _flaw_in_dict(sent: dict[Any, Any], got: dict[Any, Any]) -> Flaw | None:
    keys = {key: key for key in got}
    for key, value in sent.items():
        if key not in keys:
            return Flaw(f"[{key!r}]", _lost_key(key))
        flaw = _flaw_of(key, keys[key]) or _flaw_of(value, got[key])
        if flaw is not None:
            return Flaw(f"[{key!r}]{flaw.path}", flaw.why)
    return None if len(sent) == len(got) else Flaw("", _CHANGES)


def _flaw_in_set(sent: set[Any] | frozenset[Any], got: Any) -> Flaw | None:
    found = {value: value for value in got}
    for index, value in enumerate(sent):
        flaw = _flaw_of(value, found[value]) if value in found else Flaw("", _CHANGES)
        if flaw is not None:
            return Flaw(f"[{index}]{flaw.path}", flaw.why)
    return None if len(sent) == len(got) else Flaw("", _CHANGES)


def _same_leaf(sent: Any, got: Any) -> bool:
    """Whether two values of one type, which have no parts that we know, are the same."""
    if isinstance(sent, float) and sent and sent == got:
        return True
    if isinstance(sent, float | Decimal):
        # By their texts: NaN is the same as NaN here, and 0.0 is not -0.0.
        return repr(sent) == repr(got)
    if isinstance(sent, datetime):
        if sent.utcoffset() == got.utcoffset():
            return bool(sent.replace(tzinfo=None) == got.replace(tzinfo=None))
        # By the instant. Across zones a doubled hour never equals anything: hence in UTC.
        return bool(sent.astimezone(UTC) == got.astimezone(UTC))
    if isinstance(sent, time):
        return bool(sent == got and sent.utcoffset() == got.utcoffset())
    if isinstance(sent, enum.Enum):
        return sent is got or sent == got
    return bool(sent == got)


def _other_type(sent: Any, got: Any) -> str:
    if isinstance(sent, float) and got is None:
        return "JSON has neither NaN nor infinity"
    if isinstance(sent, int) and isinstance(got, float):
        return "no float holds this whole number exactly: pass text, or annotate it with int"
    mine, other = type(sent).__qualname__, type(got).__qualname__
    return (
        f"it is of type {mine} and would arrive as {other}: pass that, or name {mine} in the "
        "annotation"
    )


def _lost_key(key: Any) -> str:
    if isinstance(key, str):
        return "its type has no such key: it would be lost"
    return (
        f"the key is a {type(key).__qualname__} and would change on the way: annotate the "
        "parameter, such as dict[int, str], or use text"
    )
