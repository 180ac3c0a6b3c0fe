"""Values that msgspec does not know by itself: pydantic's models, and what their fields hold.

Pydantic is never imported here. Whoever passes a model has imported it, and a model brings its own
serializer and validator along. Nothing here need be exact: ``codec`` tries each value out.
"""

# Values of any type are looked at here, so that the type of their parts is not known.
# pyright: reportUnknownArgumentType=none, reportUnknownMemberType=none
# pyright: reportUnknownVariableType=none

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec


def is_model(kind: type) -> bool:
    """Whether it is a class of pydantic models. (Pydantic's dataclasses are dataclasses.)"""
    return hasattr(kind, "__pydantic_fields__") and hasattr(kind, "model_validate")


def to_plain(value: Any) -> Any:
    """A value that MessagePack has no form for, as one that it has."""
    kind: type = type(value)
    if is_model(kind):
        return value.model_dump(mode="python", by_alias=True, round_trip=True, warnings=False)
    # What the fields of models hold: it is the model that makes them of the text again.
    if isinstance(value, _textual()) or hasattr(kind, "__get_pydantic_core_schema__"):
        return str(value)
    raise _untold(kind)


def from_plain(kind: type, plain: Any) -> Any:
    """A value of a type that msgspec does not know, of what MessagePack holds for it.

    A model is validated without strictness: what has no form of its own on the wire, such as a
    UUID, is text by now.
    """
    return _made(kind, plain, lambda model: model.model_validate(plain, strict=False))


def to_json(value: Any) -> Any:
    """A value that JSON has no form for, as one that it has; models as pydantic writes them."""
    kind: type = type(value)
    if is_model(kind):
        return value.model_dump(mode="json", by_alias=True, round_trip=True, warnings=False)
    raise _untold(kind)


def from_json(kind: type, data: Any) -> Any:
    """A value of a type that msgspec does not know, of what JSON holds for it."""
    return _made(
        kind, data, lambda model: model.model_validate_json(msgspec.json.encode(data), strict=False)
    )


@cache
def _textual() -> tuple[type, ...]:
    """What is its own text. Few programs have any of it, so none imports it with the client."""
    import ipaddress
    from pathlib import PurePath

    return (
        PurePath,
        ipaddress.IPv4Address,
        ipaddress.IPv6Address,
        ipaddress.IPv4Network,
        ipaddress.IPv6Network,
        ipaddress.IPv4Interface,
        ipaddress.IPv6Interface,
    )


def _made(kind: type, plain: Any, validate: Callable[[Any], Any]) -> Any:
    if kind is object:
        return plain
    if not is_model(kind):
        raise TypeError(
            f"no value of type {getattr(kind, '__qualname__', kind)} can be made of what travels: "
            "annotate it with one of the types in docs/payloads.md"
        )
    try:
        return validate(kind)
    except ValueError as error:
        raise ValueError(_first_line(error)) from None


def _untold(kind: type) -> TypeError:
    return TypeError(
        f"a value of type {kind.__qualname__} cannot travel: pass plain data, a dataclass, a "
        "msgspec Struct or a pydantic model instead (docs/payloads.md)"
    )


def _first_line(error: ValueError) -> str:
    """Pydantic's first complaint, with the path of its field and without the value."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    first = errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else str(first["msg"])
