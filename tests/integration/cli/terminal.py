"""A terminal with a command in it: what a user sees, types, and waits for."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import pexpect
from pexpect import fdpexpect

REPOSITORY = Path(__file__).resolve().parents[3]
TIMEOUT_S = 30
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what would change what a command prints."""
    ours = ("TENURE_", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "COLORTERM")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **kept,
        "PYTHONPATH": str(REPOSITORY),
        "TENURE_ADDRESS": "m:1",
        "TENURE_CONFIG": os.devnull,
        "TERM": "xterm-256color",
        **more,
    }


class Terminal:
    """One command at a terminal. It is not forked off us: a process with threads must not."""

    def __init__(
        self,
        *arguments: str,
        columns: int = 100,
        stdout: IO[bytes] | int | None = None,
        module: str = "tests.integration.cli.program",
        **variables: str,
    ) -> None:
        """Starts it; ``stdout`` takes its data elsewhere, as a pipe in a shell does."""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=theirs,
            stdout=theirs if stdout is None else stdout,
            stderr=theirs,
            cwd=REPOSITORY,
            env=environment(variables),
        )
        os.close(theirs)
        self.screen = fdpexpect.fdspawn(self._ours, timeout=TIMEOUT_S, encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.screen.close()

    def rest(self) -> str:
        """Everything that is still written there, until the command ends."""
        self.screen.expect(pexpect.EOF)
        text: str = self.screen.before
        return text.replace("\r\n", "\n")

    def code(self) -> int:
        """Its exit code."""
        return self.process.wait(TIMEOUT_S)


def plain(text: str) -> str:
    """Without colours and movements of the cursor."""
    return ESCAPES.sub("", text)


def run(
    arguments: Sequence[str], *, module: str = "tests.integration.cli.program", **variables: str
) -> subprocess.CompletedProcess[str]:
    """One command without a terminal, to its end."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=environment(variables),
        timeout=TIMEOUT_S,
        check=False,
    )
