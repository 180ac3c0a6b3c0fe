"""Texts that settings and options are given as: numbers, durations, lists, pairs, addresses.

Each parser takes what a flag, a variable or a TOML file holds, and raises ValueError with what was
expected.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from tenure.cli.settings import Kind, Setting, Value

_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/,\[\]]+):([0-9]{1,5})")
_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_RATE: Final = re.compile(r"(\d+)/(\d+(?:\.\d+)?(?:ms|s|m|h|d)|ms|s|m|h|d)")
_NAME: Final = re.compile(r"[A-Za-z0-9._/-]{1,128}")
_RANGE: Final = re.compile(r"([0-9]{1,9})(?::([0-9]{1,9}))?")
_BYTES: Final = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|TiB)?")
_BYTE_UNITS: Final = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_SWITCHES: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def parse(setting: Setting, given: object) -> Value:
    """What a setting is given as, in a flag, a variable or a file.

    Raises:
        ValueError: It is something else; the text says what was expected.
    """
    value = _PARSERS[setting.kind](given)
    numbers: tuple[float, ...] = ()
    if isinstance(value, int | float) and not isinstance(value, bool):
        numbers = (value,)
    elif setting.kind is Kind.RANGE:
        numbers = parse_range(str(value))
    low, high = setting.minimum, setting.maximum
    for number in numbers:
        if low is not None and number < low:
            raise ValueError(f"at least {low:g}")
        if high is not None and number > high:
            raise ValueError(f"at most {high:g}")
    return value


def parse_duration(text: str) -> float:
    """``90s``, ``5m``, ``1h30m``, ``2d``, ``250ms`` in seconds.

    Raises:
        ValueError: It is none of these.
    """
    if _DURATION.fullmatch(text) is None:
        raise ValueError("a duration such as 90s, 5m, 1h30m or 2d")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def parse_pair(text: str) -> tuple[str, str]:
    """``name=value``.

    Raises:
        ValueError: It is something else.
    """
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ValueError("a pair such as zone=eu")
    return name, value


def parse_rate(text: str) -> tuple[int, float]:
    """``10/s``, ``100/m``, ``5/30s``: how many, and in how many seconds.

    Raises:
        ValueError: It is none of these.
    """
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError("a rate such as 10/s, 100/m or 5/30s")
    span = match[2]
    return int(match[1]), parse_duration(span if span[0].isdigit() else f"1{span}")


def parse_selector(text: str) -> tuple[str, list[str]]:
    """``zone=eu,us``, or ``gpu`` for a label of any value: the label, and its values.

    Raises:
        ValueError: It is neither.
    """
    label, equals, values = text.partition("=")
    wanted = comma_separated(values)
    if not label or bool(equals) is not bool(wanted):
        raise ValueError("a label such as gpu, zone=eu or zone=eu,us")
    return label, wanted


def comma_separated(text: str) -> list[str]:
    """The parts of a list given as one word."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise ValueError("text")
    return given


def _integer(given: object) -> int:
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    if isinstance(given, str) and re.fullmatch(r"[+-]?\d+", given):
        return int(given)
    raise ValueError("a whole number")


def _seconds(given: object) -> float:
    if isinstance(given, int | float) and not isinstance(given, bool):
        return float(given)
    if isinstance(given, str):
        if re.fullmatch(r"-?\d+(?:\.\d+)?", given):
            return float(given)
        if _DURATION.fullmatch(given):
            return parse_duration(given)
    raise ValueError("seconds, or a duration such as 90s or 5m,")


def _bytes(given: object) -> int:
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    if isinstance(given, str) and (match := _BYTES.fullmatch(given)):
        return int(match[1]) * _BYTE_UNITS[match[2] or "B"]
    raise ValueError("bytes, or a size such as 512MiB or 2GiB,")


def _switch(given: object) -> bool:
    if isinstance(given, bool):
        return given
    if isinstance(given, str) and given.lower() in _SWITCHES:
        return _SWITCHES[given.lower()]
    raise ValueError("true or false")


def _list(given: object) -> list[str]:
    if isinstance(given, str):
        return comma_separated(given)
    if isinstance(given, list) and all(isinstance(part, str) for part in given):
        return list(given)
    raise ValueError("a list of names")


def _pairs(given: object) -> dict[str, str]:
    if isinstance(given, dict):
        if not all(isinstance(value, str) for value in given.values()):
            raise ValueError("a table of texts")
        return dict(given)
    return dict(map(parse_pair, _list(given)))


def _counts(given: object) -> dict[str, int]:
    rows = (
        given.items()
        if isinstance(given, dict)
        else [row.partition("=")[::2] for row in _list(given)]
    )
    return dict(_count(name, number) for name, number in rows)


def _count(name: str, number: object) -> tuple[str, int]:
    if _NAME.fullmatch(name):
        if isinstance(number, int) and not isinstance(number, bool) and number >= 0:
            return name, number
        if isinstance(number, str) and re.fullmatch(r"[0-9]{1,9}", number):
            return name, int(number)
    raise ValueError("a name and a number, such as cpu=2,")


def _addresses(given: object) -> str:
    parts = _list(given)
    matches = [_ADDRESS.fullmatch(part) for part in parts]
    if not parts or not all(match and 0 < int(match[2]) < 65_536 for match in matches):
        raise ValueError("HOST:PORT, one or several, comma-separated,")
    return ",".join(parts)


def parse_range(text: str) -> tuple[int, int]:
    """``4``, or ``2:8``: the least and the most.

    Raises:
        ValueError: It is neither.
    """
    match = _RANGE.fullmatch(text)
    if match is None or (match[2] and int(match[2]) < int(match[1])):
        raise ValueError("a number such as 4, or MIN:MAX such as 2:8")
    return int(match[1]), int(match[2] or match[1])


def _range(given: object) -> str:
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    least, most = parse_range(_text(given))
    return f"{least}:{most}"


_PARSERS: Final[Mapping[Kind, Callable[[object], Value]]] = {
    Kind.TEXT: _text,
    Kind.PATH: _text,
    Kind.INTEGER: _integer,
    Kind.SECONDS: _seconds,
    Kind.BYTES: _bytes,
    Kind.SWITCH: _switch,
    Kind.LIST: _list,
    Kind.PAIRS: _pairs,
    Kind.COUNTS: _counts,
    Kind.ADDRESSES: _addresses,
    Kind.RANGE: _range,
}
