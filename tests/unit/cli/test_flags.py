"""Texts that options are given as."""

from datetime import timedelta

import pytest
import typer

from tenure.cli.flags import comma_separated, parse_duration, parse_label


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("250ms", timedelta(milliseconds=250)),
        ("90s", timedelta(seconds=90)),
        ("1.5h", timedelta(minutes=90)),
        ("1h30m", timedelta(minutes=90)),
        ("2d", timedelta(days=2)),
        ("0s", timedelta(0)),
    ],
)
def test_durations(text: str, span: timedelta) -> None:
    """Numbers with units add up."""
    assert parse_duration(text) == span


@pytest.mark.parametrize("text", ["", "5", "5x", "-5s", "s", "5 s", "1h 30m"])
def test_what_is_no_duration(text: str) -> None:
    """A number without a unit is no duration: nobody should guess it."""
    with pytest.raises(typer.BadParameter):
        parse_duration(text)


def test_labels_and_lists() -> None:
    """Labels are pairs; lists are comma-separated, blanks do not count."""
    assert parse_label("zone=eu=west") == ("zone", "eu=west")
    assert comma_separated(" a, b,,") == ["a", "b"]
    for text in ("zone", "=eu", "zone="):
        with pytest.raises(typer.BadParameter):
            parse_label(text)
