"""What a child writes to its standard streams: passed on to the worker's stderr, the end kept.

The end is what is left of a child that has crashed: its last words.
"""

import os
import select
import threading
from contextlib import suppress
from typing import Final

from tenure.worker.executor.stream import waiting_bytes

#: How much of the end is kept.
KEPT_BYTES: Final = 8 * 1024
#: How long the rest of what a dead child wrote may take to be read: who reads stderr may be slow.
LAST_S: Final = 1.0
_READ_BYTES: Final = 64 * 1024
_STDERR: Final = 2


class LastWords:
    """Reads a pipe to its end, in a thread of its own: whoever reads stderr may be slow.

    Args:
        descriptor: The end to read from; closed in the end.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._kept = b""
        self._read_bytes = 0
        self._is_over = False
        #: Held while the pipe is read, and told of it.
        self._reading = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="tenure-words", daemon=True)
        self._thread.start()

    def last(self) -> str:
        """What the child wrote last. To be asked when it is dead."""
        with self._reading:
            if not self._is_over:
                # What it has started may live and hold the pipe open. All that the child itself
                # has written is in there.
                end = self._read_bytes + waiting_bytes(self._descriptor)
                self._reading.wait_for(lambda: self._is_over or self._read_bytes >= end, LAST_S)
            return self._kept.decode("utf-8", "replace").strip()

    def _work(self) -> None:
        readable = select.poll()
        readable.register(self._descriptor, select.POLLIN)
        while not self._is_over:
            readable.poll()
            _pass_on(self._read())

    def _read(self) -> bytes:
        """Reads what there is; nothing when the pipe has ended."""
        data = b""
        with self._reading:
            with suppress(OSError):
                data = os.read(self._descriptor, _READ_BYTES)
            self._kept = (self._kept + data)[-KEPT_BYTES:]
            self._read_bytes += len(data)
            if not data:
                self._is_over = True
                os.close(self._descriptor)
            self._reading.notify_all()
        return data


def _pass_on(data: bytes) -> None:
    with suppress(OSError):  # Nobody reads the worker's stderr: the child is to go on.
        while data:
            data = data[os.write(_STDERR, data) :]
