"""What a command is told: its settings, and how to speak to whoever started it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from tenure.cli import exits, terminal
from tenure.cli.output import Format, View

if TYPE_CHECKING:
    from tenure.cli.configuration import Configuration
    from tenure.client import AsyncClient

T = TypeVar("T")

_HOME_AND_CLEAR: Final = "\x1b[H\x1b[J"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One run of a command.

    Attributes:
        config: The settings of the command's role.
        file: What ``--config`` named.
        form: How data is shown.
        headers: Whether tables have headings.
        limit: At most so many rows or events.
        watch_s: Show again after so many seconds; None: once.
        dry_run: Change nothing.
        yes: Do not ask.
        no_input: Never ask.
        quiet: Only errors on stderr.
        verbose: How often ``-v`` was given.
    """

    config: Configuration
    file: str | None
    form: Format
    headers: bool
    limit: int
    watch_s: float | None
    dry_run: bool
    yes: bool
    no_input: bool
    quiet: bool
    verbose: int

    def say(self, text: str) -> None:
        """A line for people, on stderr, unless they want quiet."""
        if not self.quiet:
            exits.say(text)

    def hint(self, text: str) -> None:
        """A line for somebody at a terminal."""
        if sys.stderr.isatty():
            self.say(text)

    def show(self, view: View[T], things: Iterable[T]) -> None:
        """Data, on stdout."""
        view.show(things, self.form, headers=self.headers)

    @property
    def shows_progress(self) -> bool:
        """Whether somebody may look at a progress bar."""
        return not self.quiet and terminal.is_lively(sys.stderr)

    def confirm(self, question: str, why: str) -> None:
        """Asks before something that cannot be undone.

        Args:
            question: For somebody at a terminal.
            why: For who cannot be asked.

        Raises:
            BadParameter: Nobody can be asked, and --yes was not given.
            Abort: The answer was no.
        """
        import click

        if self.yes:
            return
        if self.no_input or not sys.stdin.isatty():
            raise click.BadParameter(f"expected --yes: {why}")
        click.confirm(question, abort=True, err=True)

    def with_client(self, work: Callable[[AsyncClient], Awaitable[T]]) -> T:
        """Runs ``work`` with a client made of the settings.

        Raises:
            TenureError: What the work raised; ``main`` turns it into a line and an exit code.
        """
        from tenure.cli import session

        if self.verbose:
            terminal.log_to_stderr("DEBUG" if self.verbose > 1 else "INFO")
        return session.with_client(self.config.values("client"), work, self.say)

    def answer(
        self, fetch: Callable[[AsyncClient], Awaitable[T]], show: Callable[[T], int | None]
    ) -> int:
        """Fetches and shows; with ``--watch`` again and again. Returns the exit code."""

        async def work(client: AsyncClient) -> int:
            import asyncio

            while True:
                data = await fetch(client)
                if self.watch_s is not None and terminal.is_lively(sys.stdout):
                    sys.stdout.write(_HOME_AND_CLEAR)
                code = show(data) or exits.OK
                if self.watch_s is None:
                    return code
                sys.stdout.flush()
                await asyncio.sleep(self.watch_s)

        return self.with_client(work)
