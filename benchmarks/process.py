"""Processes that a measurement starts: their JSON lines, CPU time, memory, and end."""

from __future__ import annotations

import contextlib
import json
import queue
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil  # type: ignore[import-untyped]

from tenure.testing.program import Program

#: The folder that `benchmarks` and `examples` are imported from.
ROOT: Final = Path(__file__).resolve().parents[1]
#: How long a process may take to end by itself.
TERM_GRACE_S: Final = 10.0


class ProcessFailed(RuntimeError):
    """A process ended or fell silent when its line was expected."""


class Process(Program):
    """One started program. Its stdout is read as JSON lines, its stderr goes to a file.

    Args:
        name: What reports call it.
        arguments: The command line.
        log: Where its stderr goes; the end of it is part of every error.
    """

    def __init__(self, name: str, arguments: list[str], log: Path) -> None:
        self._lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._passed_over: list[dict[str, Any]] = []
        #: Every line so far, each with `received_s`, the harness's own monotonic clock.
        self.history: list[dict[str, Any]] = []
        super().__init__(name, arguments, log, folder=ROOT)
        self._usage = psutil.Process(self.pid)

    def expect(self, event: str, timeout_s: float = 30.0, **fields: object) -> dict[str, Any]:
        """Takes the first line with this event and these fields; others stay for later calls.

        Raises:
            ProcessFailed: It did not come in time, or the process ended first.
        """
        deadline = time.monotonic() + timeout_s
        for index, line in enumerate(self._passed_over):
            if _fits(line, event, fields):
                return self._passed_over.pop(index)
        while True:
            try:
                new = self._lines.get(timeout=max(deadline - time.monotonic(), 0.001))
            except queue.Empty:
                raise self._failed(f"say {event} within {timeout_s:g} s") from None
            if new is None:
                raise self._failed(f"say {event} before it ended")
            if _fits(new, event, fields):
                return new
            self._passed_over.append(new)

    def cpu_seconds(self) -> float:
        """User and system time so far, of this process and its children."""
        total = 0.0
        family = [self._usage]
        # A child may end while they are counted.
        with contextlib.suppress(psutil.NoSuchProcess):
            family += self._usage.children(recursive=True)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def resident_bytes(self) -> int:
        """Resident memory now."""
        size: int = self._usage.memory_info().rss
        return size

    def said(self, line: bytes) -> None:
        with contextlib.suppress(ValueError):
            fields = {**json.loads(line), "received_s": time.monotonic()}
            self.history.append(fields)
            self._lines.put(fields)

    def fell_silent(self) -> None:
        self._lines.put(None)

    def _failed(self, what: str) -> ProcessFailed:
        return ProcessFailed(
            f"expected {self.name} to {what}, but it did not; its log ends:\n{self.log_tail()}"
        )


def _fits(line: dict[str, Any], event: str, fields: dict[str, object]) -> bool:
    return line.get("event") == event and fields.items() <= line.items()


class ProcessGroup:
    """Starts processes and stops them all at the end, the youngest first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.processes: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in reversed(self.processes):
            process.stop(TERM_GRACE_S if error is None else 0.0)

    def tenure(self, name: str, *arguments: str) -> Process:
        """Starts `tenure …` with these arguments."""
        return self.start(name, "tenure.cli", *arguments)

    def start(self, name: str, *arguments: str) -> Process:
        """Starts `python -m …` with these arguments."""
        log = self._folder / f"{name}.log"
        process = Process(name, [sys.executable, "-m", *arguments], log)
        self.processes.append(process)
        return process


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder for one measurement."""
    with tempfile.TemporaryDirectory(prefix="tenure-bench-") as name:
        yield Path(name)
