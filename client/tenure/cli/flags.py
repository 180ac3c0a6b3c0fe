"""Options that many commands share, and the texts they are given as."""

import re
from datetime import timedelta
from typing import Annotated, Final

import typer

from tenure.cli.output import Format

#: Seconds that one operation may take, failovers included.
TIMEOUT_S: Final = 10.0

Output = Annotated[
    Format, typer.Option("--output", "-o", help="table, json, jsonl, or name (ids only).")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="TENURE_ADDRESS",
        metavar="HOST:PORT[,…]",
        help="Any masters of the cluster.  [default: 127.0.0.1:7400]",
        show_default=False,
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", help="Limit of one operation.")
]

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(text: str) -> timedelta:
    """``90s``, ``5m``, ``1h30m``, ``2d``, ``250ms``.

    Raises:
        BadParameter: It is none of these.
    """
    if _DURATION.fullmatch(text) is None:
        raise typer.BadParameter(f"expected a duration such as 90s, 5m, 1h30m or 2d, got {text!r}")
    return timedelta(
        seconds=sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    )


def parse_label(text: str) -> tuple[str, str]:
    """``name=value``.

    Raises:
        BadParameter: It is something else.
    """
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise typer.BadParameter(f"expected a label such as zone=eu, got {text!r}")
    return name, value


def comma_separated(text: str) -> list[str]:
    """The parts of a list given as one word."""
    return [part.strip() for part in text.split(",") if part.strip()]
