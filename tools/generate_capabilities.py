"""Writes ``docs/capabilities.md``: what Tenure can do, clause by clause, and which tests assert it.

The clauses are in ``tests/capabilities/*.toml``, one file for each section of the page; a section
has rows, a row is one capability, and each of its clauses promises one thing and names the tests
that fail when the promise is broken, as pytest does: ``path::function``. `make reference` calls
this.
"""

from __future__ import annotations

import argparse
import ast
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
PAGE: Final = REPOSITORY / "docs" / "capabilities.md"
SECTIONS: Final = REPOSITORY / "tests" / "capabilities"

_INTRODUCTION: Final = """# What Tenure can do, and which tests say so

Written by `make reference` from the files in `tests/capabilities`. Each line is one promise, with
the tests that fail when it is broken. `make test` runs them all.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One promise.

    Attributes:
        says: What is promised.
        tests: The tests that assert it, each ``path::function``.
    """

    says: str
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One capability, with all that is promised of it."""

    capability: str
    clauses: tuple[Clause, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What one file says: its title, and its rows in the order of the page."""

    title: str
    rows: tuple[Row, ...]


def sections(folder: Path = SECTIONS) -> list[Section]:
    """Every section, in the order of the files' names.

    Raises:
        KeyError: A section, row or clause lacks one of its fields.
    """
    return [_section(tomllib.loads(path.read_text("utf-8"))) for path in sorted(folder.iterdir())]


def clauses(found: Sequence[Section]) -> Iterator[Clause]:
    """Every clause of some sections."""
    for section in found:
        for row in section.rows:
            yield from row.clauses


@cache
def known_tests(path: Path) -> dict[str, bool]:
    """The tests of a module, read and not imported: is it one that `make test` leaves out?

    A test is a function, a method (``TestStops::test_cancel``), or the class that Hypothesis makes
    of a state machine.
    """
    return dict(_tests(ast.parse(path.read_text("utf-8")).body))


def _tests(body: Sequence[ast.stmt]) -> Iterator[tuple[str, bool]]:
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() if node.name.startswith("test_"):
                marks = [ast.unparse(decorator) for decorator in node.decorator_list]
                yield node.name, "pytest.mark.nightly" in marks
            case ast.ClassDef() if node.name.startswith("Test"):
                for name, is_nightly in _tests(node.body):
                    yield f"{node.name}::{name}", is_nightly
            case ast.Assign(targets=[ast.Name(id=name)]) if name.startswith("Test"):
                yield name, False


def page(found: Sequence[Section]) -> str:
    """The page as Markdown."""
    parts = [_INTRODUCTION]
    for section in found:
        parts.append(f"\n## {section.title}\n")
        for row in section.rows:
            parts.append(f"\n### {row.capability}\n\n| what is promised | tests |\n|---|---|\n")
            parts += [_line(clause) for clause in row.clauses]
    return "".join(parts)


def _section(table: dict[str, Any]) -> Section:
    return Section(
        title=table["title"],
        rows=tuple(
            Row(
                capability=row["capability"],
                clauses=tuple(
                    Clause(says=clause["says"], tests=tuple(clause["tests"]))
                    for clause in row["clause"]
                ),
            )
            for row in table["row"]
        ),
    )


def _line(clause: Clause) -> str:
    named = [test.partition("::") for test in clause.tests]
    links = "<br>".join(f"[`{name}`](../{path})" for path, _, name in named)
    return f"| {clause.says} | {links} |\n"


def main() -> None:
    """Writes the page."""
    argparse.ArgumentParser(
        prog="python -m tools.generate_capabilities", description=__doc__
    ).parse_args()
    PAGE.write_text(page(sections()), "utf-8")


if __name__ == "__main__":
    main()
