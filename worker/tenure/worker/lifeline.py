"""The socket between a supervisor and each of its worker processes.

The worker says how it is, message by message; the supervisor says nothing, it only keeps its end
open. When that end closes the supervisor is dead, however it died, and the worker drains: nobody is
left who would stop it. A thread of its own waits for that, so that it is noticed while the
application is being imported, too.
"""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from tenure.worker.pulse import Pulse

#: Larger than any message.
MESSAGE_BYTES_MAX: Final = 65_536
#: How a worker ends that has lost its supervisor before it has begun.
_LOST_CODE: Final = 0

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Pulse).decode


def pair() -> tuple[socket.socket, socket.socket]:
    """The supervisor's end, which does not block, and the worker's."""
    # Messages arrive whole or not at all, and an end that is closed is told.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


def read(end: socket.socket) -> list[Pulse] | None:
    """What a worker has said and nobody has read; None: nothing will come any more."""
    said: list[Pulse] = []
    while True:
        try:
            message = end.recv(MESSAGE_BYTES_MAX)
        except BlockingIOError:
            return said
        except ConnectionError:
            message = b""
        if not message:
            return said or None
        # A job of the worker's may have found the socket: what it says there is nothing.
        with suppress(msgspec.DecodeError):
            said.append(_decode(message))


class Lifeline:
    """The worker's end.

    Args:
        fd: What it has inherited.
    """

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._end = socket.socket(fileno=fd)
        self._lock = threading.Lock()
        self._lost = False
        self._when_lost: Callable[[], object] = _end_at_once
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def when_lost(self, act: Callable[[], object]) -> None:
        """What to do when the supervisor is gone, in any thread; before: end at once."""
        with self._lock:
            self._when_lost = act
            lost = self._lost
        if lost:
            act()

    def tell(self, pulse: Pulse) -> None:
        """Says how this process is; a supervisor that does not read misses it."""
        with suppress(OSError):
            self._end.send(_encode(pulse), socket.MSG_DONTWAIT)

    def _watch(self) -> None:
        with self._end, suppress(OSError):
            while self._end.recv(1):
                pass
        with self._lock:
            self._lost = True
            act = self._when_lost
        # Its loop may be closed: then it ends anyway.
        with suppress(RuntimeError):
            act()


def _end_at_once() -> None:
    os._exit(_LOST_CODE)
