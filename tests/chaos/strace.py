"""Bends a running process's system calls: ``strace`` attached for a while, with an injection."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_ATTACHED = b"attached"
_END_TIMEOUT_S = 10.0


class NotAttached(RuntimeError):
    """strace could not trace the process."""


@contextmanager
def injected(pid: int, calls: str, what: str) -> Iterator[None]:
    """While the body runs, system calls of a process are bent.

    Args:
        pid: Whose; all its threads are meant.
        calls: Which, for example ``fsync,fdatasync``.
        what: How, in strace's words: ``delay_enter=500000`` (µs), ``error=EIO:when=1``.

    Raises:
        NotAttached: it cannot be traced; it may just have ended.
    """
    inject = f"inject={calls}:{what}"
    command = [
        "strace",
        "-f",
        "-o",
        "/dev/null",
        "-e",
        f"trace={calls}",
        "-e",
        inject,
        "-e",
        "signal=none",
    ]
    tracer = subprocess.Popen(
        [*command, "-p", str(pid)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        if tracer.stderr is None:
            raise NotAttached("strace says nothing")
        first = tracer.stderr.readline()
        if _ATTACHED not in first:
            raise NotAttached(first.decode(errors="replace"))
        yield
    finally:
        # It must be able to let go: what is traced by a killed tracer may stay stopped.
        tracer.send_signal(signal.SIGINT)
        try:
            tracer.communicate(timeout=_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.communicate()
