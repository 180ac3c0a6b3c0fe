"""Writes the table of faults in ``docs/reliability.md``: row, tests, last result.

`make reliability` runs the tests that carry the marker `fault`, notes their outcomes in
``docs/faults.json``, and calls this. The rest of the page is written by hand.
"""

from __future__ import annotations

import argparse
import ast
import json
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
PAGE: Final = REPOSITORY / "docs" / "reliability.md"
ROWS: Final = REPOSITORY / "tests" / "faults.toml"
RESULTS: Final = REPOSITORY / "docs" / "faults.json"
BEGIN: Final = "<!-- faults: written by `make reliability` -->\n"
END: Final = "<!-- /faults -->\n"

_HEAD: Final = """| # | what strikes | what must come of it | invariants | tests | last result |
|---|---|---|---|---|---|
"""


def fault_rows() -> list[dict[str, Any]]:
    """The table of faults, in the order of their numbers."""
    rows: list[dict[str, Any]] = tomllib.loads(ROWS.read_text("utf-8"))["row"]
    return rows


def marked_tests(folder: Path = REPOSITORY / "tests") -> dict[int, list[str]]:
    """The tests of each row, as pytest names them: ``path::function``."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    for path in sorted(folder.rglob("test_*.py")):
        name = path.relative_to(REPOSITORY).as_posix()
        for function in _functions(ast.parse(path.read_text("utf-8"))):
            for number in sorted(set(_numbers(function.decorator_list))):
                found[number].append(f"{name}::{function.name}")
    return dict(found)


def table(
    rows: Sequence[Mapping[str, Any]],
    tests: Mapping[int, Sequence[str]],
    results: Mapping[str, Mapping[str, Any]],
) -> str:
    """The table as Markdown."""
    lines = []
    for row in rows:
        named = tests.get(row["number"], ())
        shown = "<br>".join(f"`{name.rpartition('/')[2]}`" for name in named)
        invariants = " ".join(row["invariants"])
        came_out = _verdict(named, results) if named else row.get("cannot", "not tested")
        if named and "cannot" in row:
            came_out += f"; {row['cannot']}"
        lines.append(
            f"| {row['number']} | {row['fault']} | {row['required']} | {invariants} |"
            f" {shown} | {came_out} |"
        )
    return _HEAD + "\n".join(lines) + "\n"


def recorded(tests: Mapping[int, Sequence[str]], results: Mapping[str, Mapping[str, Any]]) -> str:
    """One line: how many of the results are of which day and which commit, the newest first."""
    named = {name for names in tests.values() for name in names}
    counts: Counter[tuple[str, str]] = Counter()
    for name in named & results.keys():
        counts[results[name]["date"], results[name].get("commit", "")] += 1
    told = [
        f"{count} on {date} {f'at {commit}' if commit else '(of which commit, was not noted)'}"
        for (date, commit), count in sorted(counts.items(), reverse=True)
    ]
    missing = len(named - results.keys())
    if missing:
        told.append(f"{missing} not run since they were marked")
    return f"Of {len(named)} tests: {'; '.join(told)}.\n"


def page() -> str:
    """``docs/reliability.md`` with the table of today."""
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    _, after = rest.split(END)
    tests = marked_tests()
    found = f"{recorded(tests, results)}\n{table(fault_rows(), tests, results)}"
    return before + BEGIN + found + END + after


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _numbers(decorators: Sequence[ast.expr]) -> Iterator[int]:
    """What stands in each ``pytest.mark.fault(…)`` in some decorators."""
    for decorator in decorators:
        for node in ast.walk(decorator):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
                for argument in node.args:
                    yield ast.literal_eval(argument)


def _verdict(tests: Sequence[str], results: Mapping[str, Mapping[str, Any]]) -> str:
    known = [results[name] for name in tests if name in results]
    if any(result["outcome"] not in ("passed", "skipped") for result in known):
        return "**failed**"
    # One that was skipped says nothing: the machine could not do what it takes.
    ran = [result for result in known if result["outcome"] == "passed"]
    if len(ran) < len(tests):
        return "not run" if not ran else f"{len(ran)} of {len(tests)} run, passed"
    cases = sum(result["cases"] for result in ran)
    return f"passed ({cases} case{'s'[: cases != 1]}, {max(r['date'] for r in ran)})"


def main() -> None:
    """Writes the page."""
    argparse.ArgumentParser(
        prog="python -m tools.generate_reliability", description=__doc__
    ).parse_args()
    PAGE.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
