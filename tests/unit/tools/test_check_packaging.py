"""The packaging check finds what it is there to find."""

import zipfile
from pathlib import Path

import pytest

from tools import check_packaging
from tools.check_packaging import REPOSITORY, SOURCES, Failed, Report

EXTRA_FILES = ("tests/unit/test_tidy.py", "tenure/__init__.py", "tenure/benchmarks/__init__.py")


def make_wheel(folder: Path, *, without: str = "", plus: str = "") -> Path:
    """A wheel of the tree's files (empty: only their names are judged)."""
    names = {
        path.relative_to(REPOSITORY / source).as_posix()
        for source in SOURCES
        for path in (REPOSITORY / source / "tenure").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    wheel = folder / "tenure.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in sorted(names - {without} | {plus} - {""}):
            archive.writestr(name, b"")
    return wheel


def test_whole_wheel_passes(tmp_path: Path) -> None:
    """The tree's files, all of them and no others."""
    check_packaging.check_wheel(make_wheel(tmp_path))


@pytest.mark.parametrize("name", EXTRA_FILES)
def test_leaked_file_is_found(tmp_path: Path, name: str) -> None:
    """A test, a benchmark or a package that would swallow the namespace."""
    with pytest.raises(Failed, match="too many"):
        check_packaging.check_wheel(make_wheel(tmp_path, plus=name))


@pytest.mark.parametrize("name", ["tenure/client/py.typed", "tenure/v1/jobs.proto"])
def test_missing_file_is_found(tmp_path: Path, name: str) -> None:
    """What the tree has, the wheel must have."""
    with pytest.raises(Failed, match=name):
        check_packaging.check_wheel(make_wheel(tmp_path, without=name))


def test_missing_interpreter_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """A Python that is not there was not tested: the report fails and says so."""
    report = Report()

    with report.check("there is a Python 3.0"):
        check_packaging.interpreter("3.0")

    assert report.failed == ["there is a Python 3.0"]
    assert "not run: no Python 3.0" in capsys.readouterr().out


def test_failed_command_shows_what_it_said() -> None:
    """The exit code and both streams are in the message."""
    with pytest.raises(Failed, match=r"(?s)ended with 3.*out.*err"):
        check_packaging.run("sh", "-c", "echo out; echo err >&2; exit 3")
