"""The documents of commands and settings are what the code says now."""

import tomllib
from pathlib import Path

import pytest

from tenure.cli.configuration import load
from tenure.cli.settings import SETTINGS
from tools.generate_reference import REPOSITORY, pages

DOCS = REPOSITORY / "docs"


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_committed_page_is_fresh(path: Path) -> None:
    """No command and no setting was changed without its documents."""
    assert path.read_text("utf-8") == pages()[path], "run `make reference` and commit its changes"


def test_reference_file_says_the_defaults() -> None:
    """As it is, it sets nothing."""
    for found in load(None, {}, {}, config=str(DOCS / "tenure.toml")).found.values():
        assert found.source == "default"


def test_reference_file_is_valid_when_uncommented(tmp_path: Path) -> None:
    """Every line of it can be used: all settings are there, and each is taken."""
    text = (DOCS / "tenure.toml").read_text("utf-8")
    lines = [
        line[1:] if line[:1] == "#" and line[1:2] != " " else line for line in text.splitlines()
    ]
    file = tmp_path / "all.toml"
    file.write_text("\n".join(lines))
    said = {
        f"{table}.{key}" for table, keys in tomllib.loads(file.read_text()).items() for key in keys
    }
    assert said == {setting.name for setting in SETTINGS}
    for setting, found in load(None, {}, {}, config=str(file)).found.items():
        assert found.source.startswith(str(file)), setting.name
