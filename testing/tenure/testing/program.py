"""Programs on this machine that say what they do, line by line: started, heard, stopped.

For tests and benchmarks of real processes, each of which decides what a line is to it. Everything
is synchronous and uses only the standard library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO


class Program:
    """A running program, known by its pid. Its stderr goes to a file.

    Override ``said`` and ``fell_silent``, which its reader's thread calls; what they need must be
    there before this class's ``__init__`` starts the program.

    Args:
        name: For people.
        command: What to run.
        log: Where its stderr goes, after what is there.
        environment: Added to this process's own.
        folder: Where it runs; None: here.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **(environment or {})},
                cwd=folder,
                # Its group is it and what it started.
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, name=f"stdout of {name}", daemon=True)
        self._reader.start()

    def said(self, line: bytes) -> None:
        """It has written a line to its stdout."""

    def fell_silent(self) -> None:
        """It has ended, and said all that it had to say."""

    @property
    def pid(self) -> int:
        """The operating system's id."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended (a frozen one has not)."""
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Sends a signal; one that has ended needs none."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def stop(self, grace_s: float = 0.0) -> int:
        """Ends it and all that it started, and closes its pipes. Idempotent.

        Args:
            grace_s: So long it may take to end by itself after SIGTERM; 0: SIGKILL at once.

        Returns:
            Its exit code.
        """
        if grace_s > 0:
            self.send(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(grace_s)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self.process.wait()
        self._reader.join(timeout=5)
        pipes: tuple[IO[bytes] | None, ...] = (self.process.stdin, self.process.stdout)
        for pipe in filter(None, pipes):
            with suppress(OSError):
                pipe.close()
        return code

    def log_tail(self, lines: int = 15) -> str:
        """The end of what it wrote to stderr."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _read(self) -> None:
        if self.process.stdout is None:
            return
        for line in self.process.stdout:
            self.said(line)
        # Its stdout is closed, so it ends now or has ended.
        self.process.wait()
        self.fell_silent()
