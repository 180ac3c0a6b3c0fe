"""Ports of loopback for processes that are yet to start, and may be killed and started again."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
import threading
from functools import cache
from pathlib import Path

#: Below the range the kernel takes for outgoing connections, and beside etcd's test members.
_PORTS = range(12_000, 20_000)
_LOCK = threading.Lock()
_given: set[int] = set()


def free_port() -> int:
    """A port of loopback that nobody listens on now.

    It is given once: to nobody else in this process, nor in others that run tests now.
    """
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with _LOCK, socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in _given and reserved(port):
                _given.add(port)
                return port
    raise OSError("expected a free port on loopback, but found none")


def reserved(port: int) -> bool:
    """Reserves a port until this process ends; False: another process has."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@cache
def _reservations() -> int:
    """A file whose bytes are locked, one for each port; it stays empty."""
    path = Path(tempfile.gettempdir()) / f"tenure-test-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
