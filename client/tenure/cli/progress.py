"""Progress on stderr, for somebody who looks at it; for all others nothing is drawn."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bar:
    """How far something has come. One that is not shown takes the same calls."""

    def __init__(self, progress: Progress | None = None, task: TaskID | None = None) -> None:
        self._progress = progress
        self._task = task

    @property
    def is_shown(self) -> bool:
        """Whether anybody sees it: if not, nobody needs to find out how far it is."""
        return self._progress is not None

    def set(self, done: float, note: str = "") -> None:
        """So much of the total is done."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, note=note)


@contextlib.contextmanager
def bar(title: str, total: float, *, shown: bool) -> Iterator[Bar]:
    """A progress bar that disappears in the end.

    Args:
        title: What is going on.
        total: What ``Bar.set`` counts up to.
        shown: Whether to draw it. rich is imported only then.
    """
    if not shown:
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True, expand=True) as progress:
        yield Bar(progress, progress.add_task(title, total=total, note=""))
