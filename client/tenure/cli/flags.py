"""Options and arguments that several commands have of their own."""

import sys
from datetime import timedelta
from typing import Annotated

import typer

from tenure.cli import texts

JobIds = Annotated[
    list[str],
    typer.Argument(metavar="ID…", help="Jobs' ids; - reads them from stdin.", show_default=False),
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id.", show_default=False)]
WaitTimeout = Annotated[
    float | None,
    typer.Option(
        "--wait-timeout", min=0, metavar="SECONDS", help="Exit 124 after this.  [default: none]"
    ),
]


def duration(text: str) -> timedelta:
    """``90s``, ``5m``, ``1h30m``, ``2d``, ``250ms``.

    Raises:
        BadParameter: It is none of these.
    """
    try:
        return timedelta(seconds=texts.parse_duration(text))
    except ValueError as error:
        raise typer.BadParameter(f"expected {error}, got {text!r}") from None


def ids(given: list[str]) -> list[str]:
    """The ids that were given; for ``-`` those on stdin, between blanks, in its place.

    Raises:
        BadParameter: There are none.
    """
    found = [
        part for text in given for part in (sys.stdin.read().split() if text == "-" else [text])
    ]
    if not found:
        raise typer.BadParameter("expected ids of jobs on stdin, got none")
    return found
