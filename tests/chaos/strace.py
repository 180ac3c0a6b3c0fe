"""Bends a running process's system calls: ``strace`` attached for a while, with an injection."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

_ATTACHED: Final = b"attached"
_END_TIMEOUT_S: Final = 10.0
#: How strace marks the calls that it has bent.
_BENT: Final = re.compile(rb"\((?:INJECTED|DELAYED)\)")


class NotAttached(RuntimeError):
    """strace could not trace the process."""


class Injection:
    """What came of an injection so far.

    Args:
        path: What strace writes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def bent(self) -> int:
        """How many calls were bent."""
        return len(_BENT.findall(self._path.read_bytes())) if self._path.exists() else 0


@contextmanager
def injected(pid: int, calls: str, what: str) -> Iterator[Injection]:
    """While the body runs, system calls of a process are bent.

    Args:
        pid: Whose; all its threads are meant.
        calls: Which, for example ``fsync,fdatasync``.
        what: How, in strace's words: ``delay_enter=500000`` (µs), ``error=EIO:when=1``.

    Raises:
        NotAttached: it cannot be traced; it may just have ended.
    """
    with TemporaryDirectory() as directory:
        path = Path(directory) / "calls"
        command = ["strace", "-f", "-o", str(path), "-e", f"trace={calls}"]
        command += ["-e", f"inject={calls}:{what}", "-e", "signal=none", "-p", str(pid)]
        tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            if tracer.stderr is None:
                raise NotAttached("strace says nothing")
            first = tracer.stderr.readline()
            if _ATTACHED not in first:
                raise NotAttached(first.decode(errors="replace").strip())
            yield Injection(path)
        finally:
            # It must be able to let go: what is traced by a killed tracer may stay stopped.
            tracer.send_signal(signal.SIGINT)
            try:
                tracer.communicate(timeout=_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                tracer.kill()
                tracer.communicate()


def why_not() -> str:
    """Why no process can be bent here; empty: they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        try:
            with injected(sleeper.pid, "fsync", "delay_enter=1"):
                return ""
        except NotAttached as error:
            return f"no process can be traced: {error}"
        finally:
            sleeper.kill()
