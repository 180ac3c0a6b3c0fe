"""The table of faults: complete, and what the markers say."""

from __future__ import annotations

from tools.generate_reliability import PAGE, fault_rows, marked_tests, page, recorded, table

RESULTS = {
    "tests/a/test_x.py::test_one": {"outcome": "passed", "cases": 3, "date": "2026-01-02"},
    "tests/a/test_x.py::test_two": {"outcome": "failed", "cases": 1, "date": "2026-01-02"},
    "tests/a/test_x.py::test_four": {
        "outcome": "skipped",
        "cases": 1,
        "date": "2026-01-03",
        "commit": "c0ffee",
    },
}


def named(*names: str) -> list[str]:
    """Tests, as pytest names them."""
    return [f"tests/a/test_x.py::test_{name}" for name in names]


def row(number: int, **more: object) -> dict[str, object]:
    """A row of the table."""
    return {"number": number, "fault": "f", "required": "r", "invariants": ["S1"]} | more


def verdict(text: str) -> str:
    """The last column of a table's last line."""
    return text.rstrip("\n").rpartition("\n")[2].rsplit("|", 2)[1].strip()


def test_every_fault_has_its_number() -> None:
    """Rows are numbered from 1 on, and a row without a test says why it has none."""
    rows = fault_rows()
    tests = marked_tests()

    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
    assert set(tests) <= {row["number"] for row in rows}
    assert [
        row["number"] for row in rows if row["number"] not in tests and "cannot" not in row
    ] == []


def test_the_page_names_the_tests_of_today() -> None:
    """`make reliability` was run since a marker was added or a test renamed."""
    assert page() == PAGE.read_text("utf-8")


def test_verdicts() -> None:
    """One failure fails a row; one without results, or skipped, says so; reasons are told."""
    one, two, three, four = named("one", "two", "three", "four")

    assert verdict(table([row(1)], {1: [one]}, RESULTS)) == "passed (3 cases, 2026-01-02)"
    assert verdict(table([row(1)], {1: [one, two]}, RESULTS)) == "**failed**"
    assert verdict(table([row(1)], {1: [one, three]}, RESULTS)) == "1 of 2 run, passed"
    assert verdict(table([row(1)], {1: [three]}, RESULTS)) == "not run"
    assert verdict(table([row(1)], {1: [four]}, RESULTS)) == "not run"
    assert verdict(table([row(1)], {1: [one, four]}, RESULTS)) == "1 of 2 run, passed"
    assert verdict(table([row(1, cannot="no tape drive")], {}, RESULTS)) == "no tape drive"
    assert verdict(table([row(1)], {}, RESULTS)) == "not tested"


def test_the_table_says_which_code_its_results_are_of() -> None:
    """By day and commit, the newest first; results of tests that are gone do not count."""
    one, three, four = named("one", "three", "four")

    assert recorded({1: [one, four], 2: [one, three]}, RESULTS) == (
        "Of 3 tests: 1 on 2026-01-03 at c0ffee; 1 on 2026-01-02 (of which commit, was not noted);"
        " 1 not run since they were marked.\n"
    )
