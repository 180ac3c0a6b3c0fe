"""Which files an application is made of, and when they change: real files in a folder."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tenure.worker import sources
from tenure.worker.sources import Sources


def write(path: Path, text: str, *, at_s: int) -> Path:
    """A file of a known time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (at_s, at_s))
    return path


@pytest.mark.parametrize("how", ["time", "size", "gone", "appeared"])
def test_a_change_is_seen(tmp_path: Path, how: str) -> None:
    """Another time, another size, a file that is gone, one that is there after all."""
    kept = write(tmp_path / "kept.py", "1", at_s=1_000)
    path = tmp_path / "a.py"
    if how != "appeared":
        write(path, "1", at_s=1_000)
    files = Sources([kept, path])
    assert files.changed() is None
    if how == "gone":
        path.unlink()
    else:
        write(path, "22" if how == "size" else "2", at_s=1_000 if how == "size" else 1_001)
    assert files.changed() == path
    assert files.wait_changed() == path
    assert asyncio.run(files.until_changed()) == path


def test_an_application_is_what_it_has_imported_and_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules that are not imported yet as well; nobody's libraries, nothing hidden."""
    wanted = {
        write(tmp_path / name, "", at_s=1)
        for name in ("shop/__init__.py", "shop/jobs.py", "shop/new.py", "beside.py")
    }
    write(tmp_path / "other.py", "", at_s=1)
    write(tmp_path / "shop/.hidden/a.py", "", at_s=1)
    write(tmp_path / ".venv/lib/site-packages/library.py", "", at_s=1)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path / ".venv/lib/site-packages"))
    for name in ("shop.jobs", "beside", "library"):
        __import__(name)
    assert sources.loaded("shop.jobs", tmp_path) == wanted


def test_an_application_of_one_module(tmp_path: Path) -> None:
    """It is watched, also if it is not there yet."""
    assert sources.loaded("lone_jobs", tmp_path) == {tmp_path / "lone_jobs.py"}


def test_an_error_names_the_files_that_it_comes_from(tmp_path: Path) -> None:
    """Of the folder, through all causes: where it was raised, and where the syntax is wrong."""
    raising = write(tmp_path / "raising.py", "def go():\n    raise KeyError('a')\n", at_s=1)
    namespace: dict[str, object] = {}
    exec(compile(raising.read_text(), str(raising), "exec"), namespace)  # noqa: S102
    broken = SyntaxError("no", (str(tmp_path / "broken.py"), 1, 1, "("))
    try:
        try:
            namespace["go"]()  # type: ignore[operator]
        except KeyError as error:
            raise broken from error
    except SyntaxError as error:
        found = sources.named_by(error, tmp_path)
    assert found == {raising, tmp_path / "broken.py"}
