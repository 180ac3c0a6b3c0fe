"""Loading an application: its jobs, or one readable line that says why not."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason
from tenure.worker import app

JOBS = """
from tenure.client import job

@job
def resize(url: str) -> str:
    return url

@job(name="notify")
async def notify() -> None: ...

again = resize.options(priority=1)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, not on the path; modules imported from it are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    known = set(sys.modules)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_jobs_are_found_in_the_current_folder(folder: Path) -> None:
    """A module beside us is importable; its jobs are known by their names, variants once."""
    (folder / "shop_jobs.py").write_text(JOBS)
    jobs = app.load("shop_jobs")
    assert sorted(jobs) == ["notify", "shop_jobs.resize"]
    assert jobs["notify"].executor == "async"


@pytest.mark.parametrize(
    ("source", "module", "says"),
    [
        pytest.param("", "nowhere", "there is no module nowhere", id="no such module"),
        pytest.param("", "shop.jobs", "there is no module shop", id="no such package"),
        pytest.param(
            "import left_pad_4711", "broken", "No module named 'left_pad_4711'", id="its import"
        ),
        pytest.param("1 / 0", "broken", "ZeroDivisionError: division by zero", id="raises"),
        pytest.param("def f(:", "broken", "SyntaxError", id="syntax"),
        pytest.param("raise SystemExit(1)", "broken", "SystemExit", id="exits"),
        pytest.param("x = 1", "broken", "it has no job", id="no job"),
        pytest.param(
            "from tenure.client import job\n"
            "@job(name='a')\ndef f() -> None: ...\n"
            "@job(name='a')\ndef g() -> None: ...\n",
            "broken",
            "two jobs named a",
            id="one name twice",
        ),
    ],
)
def test_refusals_are_readable(folder: Path, source: str, module: str, says: str) -> None:
    """APP_NOT_IMPORTABLE, naming the application and the cause in one line."""
    (folder / "broken.py").write_text(source)
    with pytest.raises(Rejected) as caught:
        app.load(module)
    assert caught.value.reason is Reason.APP_NOT_IMPORTABLE
    assert module in caught.value.message
    assert says in caught.value.message
    assert "\n" not in caught.value.message


def test_interrupt_is_not_a_refusal(folder: Path) -> None:
    """Ctrl-C during the import stays Ctrl-C."""
    (folder / "broken.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        app.load("broken")
