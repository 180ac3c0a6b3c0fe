"""Pages whose blocks are code: a worker serves ``jobs.py``, and ``main.py`` submits to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.cluster import REPOSITORY
from tests.integration.desk import Desk

pytestmark = pytest.mark.timeout(120)

PAGES = ("docs/middleware.md", "docs/payloads.md")
_BLOCK = re.compile(r"^```(\w*)\n# ([\w/.]+)\n(.*?)^```$", re.M | re.S)


def files(page: str) -> dict[str, str]:
    """The files of a page: blocks with the same first line are one file, in order."""
    text = (REPOSITORY / page).read_text("utf-8")
    found: dict[str, str] = {}
    for language, name, code in _BLOCK.findall(text):
        assert language == "python"
        found[name] = found.get(name, "") + code
    pictures = text.count("\n```text\n")
    assert text.count("\n```") == 2 * (len(_BLOCK.findall(text)) + pictures), "whose is a block?"
    return found


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A reader in an empty folder."""
    desk = Desk(tmp_path)
    yield desk
    desk.close()


@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, desk: Desk) -> None:
    """The jobs are served, and the program that uses them finds what the page says."""
    for name, code in files(page).items():
        (desk.folder / name).write_text(code, "utf-8")
    dev = desk.start("dev", "tenure dev jobs --ephemeral --listen 127.0.0.1:0")
    desk.address = desk.wait_said(dev, "serving").fields["address"]
    desk.wait_said(dev, "registered")

    desk.run("python main.py")
