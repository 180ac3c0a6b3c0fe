"""What goes to stdout: a table for people, JSON for machines, names for scripts."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

T = TypeVar("T")

_COLOURS: Final = {
    "COMPLETED": "32",
    "SERVING": "32",
    "RUNNING": "36",
    "FAILED": "31",
    "HALTED": "31",
    "CANCELLED": "33",
    "RETRYING": "33",
    "FROZEN": "33",
}


class Format(StrEnum):
    """The values of ``-o``."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    NAME = "name"


class View(Generic[T]):
    """How one kind of thing is shown in each format."""

    def __init__(
        self,
        columns: Sequence[str],
        row: Callable[[T], Sequence[object]],
        data: Callable[[T], object],
        name: Callable[[T], str],
    ) -> None:
        """Args:
        columns: Headings of the table.
        row: A thing's cells.
        data: A thing as JSON values.
        name: A thing's name or id.
        """
        self.columns = columns
        self.row = row
        self.data = data
        self.name = name

    def show(self, things: Iterable[T], form: Format) -> None:
        """Prints all of them."""
        match form:
            case Format.TABLE:
                print_table(self.columns, [self.row(thing) for thing in things])
            case Format.JSON:
                print_json([self.data(thing) for thing in things])
            case Format.JSONL:
                for thing in things:
                    print_json_line(self.data(thing))
            case Format.NAME:
                for thing in things:
                    print(self.name(thing))


def message_data(message: Message) -> dict[str, Any]:
    """The proto3 JSON of an API message, as values."""
    data: dict[str, Any] = MessageToDict(message)
    return data


def print_json(data: object) -> None:
    """One document, indented."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def print_json_line(data: object) -> None:
    """One document on one line, at once, for those who follow."""
    print(json.dumps(data, ensure_ascii=False, separators=(",", ":")), flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as they need to be; nothing is cut."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [
        max(len(heading), *(len(row[index]) for row in cells)) if cells else len(heading)
        for index, heading in enumerate(columns)
    ]
    last = len(columns) - 1
    for row in [list(columns), *cells]:
        padded = [
            paint(cell) + " " * (widths[index] - len(cell) if index < last else 0)
            for index, cell in enumerate(row)
        ]
        print("  ".join(padded).rstrip())


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """``name: value`` lines, aligned; empty values are left out."""
    shown = [(name, str(value)) for name, value in fields if value not in (None, "", [])]
    width = max((len(name) for name, _ in shown), default=0) + 1
    for name, value in shown:
        first, *more = value.splitlines() or [""]
        print(f"{name + ':':<{width}} {paint(first)}")
        for line in more:
            print(" " * (width + 1) + line)


def paint(text: str) -> str:
    """Colours a state's name on a terminal that wants colours."""
    code = _COLOURS.get(text)
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if code is None or plain or not sys.stdout.isatty():
        return text
    return f"\x1b[{code}m{text}\x1b[0m"
