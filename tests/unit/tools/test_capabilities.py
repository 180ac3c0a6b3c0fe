"""What is promised is asserted: each clause of the capabilities names tests that are there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tools.generate_capabilities import (
    PAGE,
    REPOSITORY,
    Clause,
    clauses,
    known_tests,
    page,
    sections,
)

CLAUSES = list(clauses(sections()))


def missing(clause: Clause, repository: Path = REPOSITORY) -> list[str]:
    """The tests that a clause names and that are not there."""
    gone = []
    for test in clause.tests:
        path, _, name = test.partition("::")
        module = repository / path
        if not module.is_file() or name not in known_tests(module):
            gone.append(test)
    return gone


def is_only_nightly(clause: Clause, repository: Path = REPOSITORY) -> bool:
    """Whether `make test` runs no test of a clause."""
    named = [test.partition("::") for test in clause.tests]
    return all(known_tests(repository / path)[name] for path, _, name in named)


def test_every_named_test_exists() -> None:
    """A test that was renamed or deleted leaves its clause behind, and that shows."""
    assert [test for clause in CLAUSES for test in missing(clause)] == []


def test_no_clause_is_without_a_test() -> None:
    """What nothing asserts is not promised; one of the tests is run by `make test`."""
    assert [clause.says for clause in CLAUSES if is_only_nightly(clause)] == []


def test_nothing_is_said_twice() -> None:
    """A clause stands once in its row, names a test once, and ends in no full stop."""
    rows = [row for section in sections() for row in section.rows]
    said = Counter((row.capability, clause.says) for row in rows for clause in row.clauses)

    assert [says for says, times in said.items() if times > 1 or says[1].endswith(".")] == []
    assert [c.says for c in CLAUSES if len(set(c.tests)) < len(c.tests)] == []


def test_the_page_is_fresh() -> None:
    """No clause was changed without the page."""
    assert PAGE.read_text("utf-8") == page(sections()), "run `make reference` and commit the page"


@pytest.mark.parametrize("name", ["test_gone", "helper", "TestGone"])
def test_a_test_that_is_not_there_is_found(tmp_path: Path, name: str) -> None:
    """The check can fail: for a name that is not there, and for a function that is no test."""
    (tmp_path / "test_x.py").write_text("def test_one(): ...\ndef helper(): ...\n")

    assert missing(Clause(says="", tests=(f"test_x.py::{name}",)), tmp_path)
    assert missing(Clause(says="", tests=("test_y.py::test_one",)), tmp_path)
    assert not missing(Clause(says="", tests=("test_x.py::test_one",)), tmp_path)


def test_what_only_a_night_runs_is_found(tmp_path: Path) -> None:
    """A clause needs one test that every change runs; none at all is not enough either."""
    (tmp_path / "test_x.py").write_text(
        "@pytest.mark.nightly\ndef test_long(): ...\ndef test_quick(): ...\nTestAll = A.TestCase\n"
    )
    long, quick, machine = (f"test_x.py::{name}" for name in ("test_long", "test_quick", "TestAll"))

    assert is_only_nightly(Clause(says="", tests=(long,)), tmp_path)
    assert is_only_nightly(Clause(says="", tests=()), tmp_path)
    assert not is_only_nightly(Clause(says="", tests=(long, quick)), tmp_path)
    assert not is_only_nightly(Clause(says="", tests=(machine,)), tmp_path)


def test_methods_are_tests_too(tmp_path: Path) -> None:
    """As pytest names them, with their class."""
    module = tmp_path / "test_x.py"
    module.write_text("class TestA:\n  def test_one(self): ...\n  def helper(self): ...\n")

    assert known_tests(module) == {"TestA::test_one": False}
