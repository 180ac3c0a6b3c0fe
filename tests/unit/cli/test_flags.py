"""Options that several commands share."""

import io
from datetime import timedelta

import click
import pytest

from tenure.cli.flags import duration, ids


def test_durations() -> None:
    """Numbers with units are times; what is none is a usage error that shows some."""
    assert duration("1h30m") == timedelta(minutes=90)
    with pytest.raises(click.BadParameter, match="90s, 5m"):
        duration("soon")


def test_ids_come_from_the_line_or_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dash stands for what stdin holds; none at all is a mistake."""
    monkeypatch.setattr("sys.stdin", io.StringIO("b\nc \n"))
    assert ids(["a", "-", "d"]) == ["a", "b", "c", "d"]
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(click.BadParameter, match="stdin"):
        ids(["-"])
