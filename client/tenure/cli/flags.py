"""Options and arguments that several commands have of their own."""

import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

import click

from tenure.cli import texts
from tenure.cli.command import argument, option

JobIds = Annotated[
    Sequence[str],
    argument(metavar="ID…", help="Jobs' ids; - reads them from stdin.", nargs=-1),
]
JobId = Annotated[str, argument(metavar="ID", help="A job's id.")]
WaitTimeout = Annotated[
    float | None,
    option(
        "--wait-timeout",
        metavar="SECONDS",
        help="Exit 124 after this.  [default: none]",
        type=click.FloatRange(min=0),
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
        raise click.BadParameter(f"expected {error}, got {text!r}") from None


def ids(given: Sequence[str]) -> list[str]:
    """The ids that were given; for ``-`` those on stdin, between blanks, in its place.

    Raises:
        BadParameter: There are none.
    """
    found = [
        part for text in given for part in (sys.stdin.read().split() if text == "-" else [text])
    ]
    if not found:
        raise click.BadParameter("expected ids of jobs on stdin, got none")
    return found
