"""What goes to stdout: a table for people, JSON for machines, names for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from tenure.cli import terminal

if TYPE_CHECKING:
    from google.protobuf.message import Message

T = TypeVar("T")

#: Between columns.
_GAP: Final = "  "
#: A column of a table that is too wide for its terminal keeps this many characters.
_CUT_MIN: Final = 9


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

    def show(self, things: Iterable[T], form: Format, *, headers: bool = True) -> None:
        """Prints all of them."""
        match form:
            case Format.TABLE:
                print_table(self.columns, [self.row(thing) for thing in things], headers=headers)
            case Format.JSON:
                print_json([self.data(thing) for thing in things])
            case Format.JSONL:
                for thing in things:
                    print_json_line(self.data(thing))
            case Format.NAME:
                for thing in things:
                    print(terminal.harmless(self.name(thing)))


def message_data(message: Message) -> dict[str, Any]:
    """The proto3 JSON of an API message, as values."""
    from google.protobuf.json_format import MessageToDict

    data: dict[str, Any] = MessageToDict(message)
    return data


def print_json(data: object) -> None:
    """One document, indented."""
    ascii_only = not terminal.is_unicode(sys.stdout)
    print(terminal.harmless_json(json.dumps(data, indent=2, ensure_ascii=ascii_only)))


def print_json_line(data: object) -> None:
    """One document on one line, at once, for those who follow."""
    ascii_only = not terminal.is_unicode(sys.stdout)
    line = json.dumps(data, ensure_ascii=ascii_only, separators=(",", ":"))
    print(terminal.harmless_json(line), flush=True)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, headers: bool = True
) -> None:
    """Columns as wide as they need to be. On a terminal that is too narrow, cells are cut.

    What names a thing, the first column, is never cut; nothing is where stdout is no terminal.
    """
    cells = [[_one_line(cell) for cell in row] for row in rows]
    heading = [list(columns)] if headers else []
    lines = [*heading, *cells]
    widths = [max((len(line[index]) for line in lines), default=0) for index in range(len(columns))]
    widths = fitted(widths, terminal.width())
    last = len(columns) - 1
    for number, line in enumerate(lines):
        padded = []
        for index, (cell, width) in enumerate(zip(line, widths, strict=True)):
            cut = _cut(cell, width)
            shown = cut if number < len(heading) else terminal.paint(cut, by=cell)
            padded.append(shown + " " * (width - len(cut) if index < last else 0))
        print(_GAP.join(padded).rstrip())


def fitted(widths: Sequence[int], limit: int | None) -> list[int]:
    """Widths of columns that fit into a line, the widest cut first, the first column never."""
    fitting = list(widths)
    if limit is None or len(fitting) < 2:
        return fitting
    excess = sum(fitting) + len(_GAP) * (len(fitting) - 1) - limit
    while excess > 0:
        widest = max(range(1, len(fitting)), key=fitting.__getitem__)
        if fitting[widest] <= _CUT_MIN:
            break
        fitting[widest] -= 1
        excess -= 1
    return fitting


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - 1] + "…"


def _one_line(cell: object) -> str:
    return " ".join(terminal.harmless(str(cell)).split("\n"))


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """``name: value`` lines, aligned; empty values are left out."""
    given = [(name, value) for name, value in fields if value not in (None, "", [])]
    shown = [(name, terminal.harmless(str(value))) for name, value in given]
    width = max((len(name) for name, _ in shown), default=0) + 1
    for name, value in shown:
        first, *more = value.splitlines() or [""]
        print(f"{name + ':':<{width}} {terminal.paint(first, by=first)}")
        for line in more:
            print(" " * (width + 1) + line)
