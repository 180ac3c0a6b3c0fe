"""The tool that changes code: which changes it makes, and that who runs the code runs them."""

import tomllib
from pathlib import Path

import pytest

from tenure.master.core import key
from tenure.master.core.key import KeyRecord, Keys
from tenure.protocol.ids import JobId
from tools import mutation

SOURCES = Path(mutation.__file__).parents[1] / "master" / "tenure" / "master"
SAMPLE = """
LIMIT = 3

class Gate:
    @property
    def open(self) -> bool:
        return self.count < LIMIT

def check(count: int, least: int = 1) -> None:
    if count < least:
        raise ValueError("expected more than that")
"""


def test_functions_are_changed_and_nothing_else(tmp_path: Path) -> None:
    """Also behind decorators; not what runs at import, not defaults, not words for people."""
    path = tmp_path / "sample.py"
    path.write_text(SAMPLE)
    changes = {(c.function, c.old, c.new) for c in mutation.changes_of("core/sample", path)}
    assert ("Gate.open", "return self.count < LIMIT", "return self.count <= LIMIT") in changes
    assert ("check", "if count < least:", "if count <= least:") in changes
    assert {new for _, _, new in changes if "raise" in new} == {"raise ValueError(None)"}
    assert {function for function, _, _ in changes} == {"Gate.open", "check"}


def test_the_end_of_a_module_is_changed_too(tmp_path: Path) -> None:
    """Also by leaving it out, as a last case of several: then no line is another one."""
    path = tmp_path / "sample.py"
    cases = ("case 1:", "return 1", "case _:", "return 2")
    body = "".join(f"{'    ' * (2 + at % 2)}{line}\n" for at, line in enumerate(cases))
    path.write_text(f"def name(of: int) -> int:\n    match of:\n{body}")
    changes = {(c.old, c.new) for c in mutation.changes_of("core/sample", path)}
    assert ("case _:\nreturn 2", "") in changes
    assert ("case 1:\nreturn 1", "") in changes


def test_a_change_is_what_importers_run() -> None:
    """A change that is planted in a child is seen there by who imported the class long before."""
    (change,) = (
        change
        for change in mutation.changes_of("core/key", SOURCES / "core" / "key.py")
        if change.function == "Keys.get" and "now_ms <= record.until_ms" in change.new
    )
    keys = Keys()
    keys.put(("t", "q", "k"), KeyRecord(JobId("a"), 100, 1))

    def look() -> str | None:
        return keys.get(("t", "q", "k"), 100)

    def change_and_look() -> str | None:
        mutation.live_functions(key)["Keys.get"].__code__ = change.code
        return look()

    assert look() is None
    assert mutation.in_child(look, cpu_seconds=5) is None
    assert mutation.in_child(change_and_look, cpu_seconds=5) == "a"
    assert look() is None


def test_an_endless_loop_ends() -> None:
    """A child that does not come back is ended, and that is told."""

    def spin() -> None:
        while True:
            pass

    assert "ended" in str(mutation.in_child(spin, cpu_seconds=1))


def explained() -> list[dict[str, str]]:
    """What no test can notice."""
    rows: list[dict[str, str]] = tomllib.loads(mutation.EXPLANATIONS.read_text())["survives"]
    return rows


@pytest.mark.parametrize("row", explained(), ids=lambda row: f"{row['module']}:{row['function']}")
def test_explanations_are_of_code_that_is_there(row: dict[str, str]) -> None:
    """An explanation names a module, lines of it, and a reason."""
    assert row["module"] in mutation.modules()
    source = (SOURCES / f"{row['module']}.py").read_text()
    stripped = "\n".join(line.strip() for line in source.splitlines())
    assert row["old"] in stripped
    assert row["old"] != row["new"]
    assert row["because"]
