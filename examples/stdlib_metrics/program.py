"""The programs that a demo starts, and one log of all the JSON lines they print."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

#: The folder that `examples` is imported from.
ROOT: Final = Path(__file__).resolve().parents[2]
_STOP_S: Final = 40.0


class DemoFailed(RuntimeError):
    """Something did not go as the demo promises; the message is one clear line."""


class Line:
    """One JSON line that a program printed, and when it was read (`time.monotonic`)."""

    __slots__ = ("at", "fields", "source")

    def __init__(self, source: str, fields: dict[str, Any], at: float) -> None:
        self.source = source
        self.fields = fields
        self.at = at

    @property
    def event(self) -> str:
        """What happened."""
        return str(self.fields.get("event", ""))


class EventLog:
    """The lines of all programs, in the order in which they were read."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._changed = threading.Condition()

    def add(self, line: Line) -> None:
        """Takes a line and wakes whoever waits for one."""
        with self._changed:
            self.lines.append(line)
            self._changed.notify_all()

    def wake(self) -> None:
        """Lets waiters look again, although there is no new line."""
        with self._changed:
            self._changed.notify_all()

    def wait(
        self,
        what: str,
        wanted: Callable[[Line], bool],
        *,
        timeout_s: float,
        giving_up: Callable[[], str | None] = lambda: None,
    ) -> Line:
        """Returns the first line that is wanted, an old one too.

        Args:
            what: The line, in words, for the error.
            wanted: Picks it.
            timeout_s: How long it may take.
            giving_up: Says why it can no longer come, or None.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for line in self.lines:
                    if wanted(line):
                        return line
                left = deadline - time.monotonic()
                why = giving_up() or (f"it did not within {timeout_s:g} s" if left <= 0 else None)
                if why:
                    raise DemoFailed(f"expected {what}, but {why}")
                self._changed.wait(min(left, 0.5))


class Program:
    """One process of the cluster: `python -m tenure.cli …`, its stdout in the event log.

    Args:
        name: What the timeline calls it.
        arguments: The command and its flags.
        events: Where its lines go.
        folder: Where its stderr goes, as `<name>.log`, and its lines, as `<name>.jsonl`.
    """

    def __init__(self, name: str, arguments: list[str], events: EventLog, folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._lines = folder / f"{name}.jsonl"
        self._events = events
        with self.log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tenure.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=ROOT,
            )
        threading.Thread(target=self._read, name=f"read-{name}", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.stop()
        elif self.running:
            self.kill()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def expect(self, event: str, *, timeout_s: float = 30.0) -> Line:
        """Waits for the first line of this program with this event."""
        return self._events.wait(
            f"{self.name} to say {event}",
            lambda line: line.source == self.name and line.event == event,
            timeout_s=timeout_s,
            giving_up=lambda: None if self.running else f"it ended; its log ends: {self.tail()}",
        )

    def kill(self) -> None:
        """SIGKILL: it has no chance to say or save anything."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM, and SIGKILL if that is not enough. Returns the exit code."""
        if self.running:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.wait()

    def tail(self, lines: int = 5) -> str:
        """The end of its stderr, on one line."""
        text = self.log.read_text(errors="replace").splitlines()
        return " | ".join(text[-lines:]) or "(empty)"

    def _read(self) -> None:
        if self._process.stdout is None:
            raise RuntimeError("expected a pipe from the process")
        with self._process.stdout as stdout, self._lines.open("wb") as copy:
            for raw in stdout:
                copy.write(raw)
                with suppress(ValueError):
                    self._events.add(Line(self.name, json.loads(raw), time.monotonic()))
        self._process.wait()
        self._events.wake()
