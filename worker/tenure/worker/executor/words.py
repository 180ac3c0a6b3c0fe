"""What a child writes to its standard streams: passed on to the worker's stderr, the end kept.

The end is what is left of a child that has crashed: its last words.
"""

import os
import threading
from contextlib import suppress
from typing import Final

#: How much of the end is kept.
KEPT_BYTES: Final = 8 * 1024
#: How long the rest of what a dead child wrote may take to arrive.
LAST_S: Final = 0.1
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
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="tenure-words", daemon=True)
        self._thread.start()

    def last(self) -> str:
        """What the child wrote last. To be asked when it is dead."""
        # What it has started may live and hold the pipe open: then this is the end.
        self._over.wait(LAST_S)
        return self._kept.decode("utf-8", "replace").strip()

    def _read(self) -> None:
        with suppress(OSError):
            while data := os.read(self._descriptor, _READ_BYTES):
                self._kept = (self._kept + data)[-KEPT_BYTES:]
                _pass_on(data)
        os.close(self._descriptor)
        self._over.set()


def _pass_on(data: bytes) -> None:
    with suppress(OSError):  # Nobody reads the worker's stderr: the child is to go on.
        while data:
            data = data[os.write(_STDERR, data) :]
