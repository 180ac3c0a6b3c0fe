"""``examples/quickstart``: runs as it says, and is typed so that mistakes in it are found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.cluster import REPOSITORY
from tests.integration.desk import Desk

pytestmark = pytest.mark.timeout(180)

#: What a reader may get wrong in ``main.py``: the code, and the wrong code.
MISTAKES = {
    "no_argument": ('c.submit(resize, "s3://a.png", width=320)', "c.submit(resize)"),
    "argument_type": ("width=320", 'width="320"'),
    "argument_name": ("width=320", "height=320"),
    "too_many_arguments": ('42, "hi")', '42, "hi", 7)'),
    "option_name": ("priority=2", "prio=2"),
    "option_type": ("delay=timedelta(hours=1)", "delay=3600"),
    "items_type": ('["a", "b", "c"]', "[1, 2, 3]"),
    "result_type": ("print(done.result())", "done.result().pop()"),
    "no_job": ("c.map(resize,", "c.map(str.upper,"),
    "handle_method": ("again.status()", "again.state()"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the example, as a user has it."""
    return Path(
        shutil.copytree(
            REPOSITORY / "examples" / "quickstart",
            tmp_path / "quickstart",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    )


@pytest.fixture
def desk(folder: Path) -> Iterator[Desk]:
    """A reader in that folder."""
    desk = Desk(folder)
    yield desk
    desk.close()


def test_it_runs(desk: Desk) -> None:
    """Both programs print a result, that a key is one job, and the results of a batch."""
    dev = desk.start("dev", "tenure dev app.jobs --ephemeral --listen 127.0.0.1:0")
    desk.address = desk.wait_said(dev, "serving").fields["address"]
    desk.wait_said(dev, "registered")
    for program in ("main.py", "async_main.py"):
        first, key, *batch = desk.run(f"python {program}").splitlines()
        assert first.endswith(" s3://a.png?w=320")
        assert key == "True SCHEDULED"
        assert sorted(batch) == ["a?w=640", "b?w=640", "c?w=640"]
    assert "2 passed" in desk.run("python -m pytest -q -p no:cacheprovider test_jobs.py")


def test_both_checkers_find_each_mistake(folder: Path) -> None:
    """The example has no error under mypy and pyright, both strict; each mistake is one where it
    was made, whatever else follows from it.
    """
    program = (folder / "main.py").read_text("utf-8")
    lines: dict[str, int] = {}
    for name, (right, wrong) in MISTAKES.items():
        text = program.replace(right, wrong, 1)
        (folder / f"wrong_{name}.py").write_text(text, "utf-8")
        pairs = zip(program.splitlines(), text.splitlines(), strict=True)
        (lines[f"wrong_{name}.py"],) = (
            number for number, (before, after) in enumerate(pairs, 1) if before != after
        )
    for errors in (mypy_errors(folder), pyright_errors(folder)):
        assert errors.keys() == lines.keys()
        assert {file: line for file, line in lines.items() if line not in errors[file]} == {}


def mypy_errors(folder: Path) -> dict[str, set[int]]:
    """The lines with errors, by file."""
    cache = REPOSITORY / ".mypy_cache" / "quickstart"
    done = check(folder, "mypy", "--strict", f"--cache-dir={cache}", "--output=json", ".")
    found: dict[str, set[int]] = {}
    for line in done.splitlines():
        error = json.loads(line)
        if error["severity"] == "error":
            found.setdefault(error["file"], set()).add(error["line"])
    return found


def pyright_errors(folder: Path) -> dict[str, set[int]]:
    """The same by the other checker."""
    settings = {"typeCheckingMode": "strict", "include": ["."]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), "utf-8")
    report = check(folder, "pyright", "--pythonpath", sys.executable, "--outputjson")
    found: dict[str, set[int]] = {}
    for error in json.loads(report)["generalDiagnostics"]:
        line = error["range"]["start"]["line"] + 1
        found.setdefault(Path(error["file"]).name, set()).add(line)
    return found


def check(folder: Path, *command: str) -> str:
    """What a checker prints of the folder."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout
