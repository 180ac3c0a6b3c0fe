"""What a node tells systemd: that it serves, that it ends, how it is, and that its loop turns.

The protocol is that of sd_notify(3): lines in a datagram to the socket that NOTIFY_SOCKET names.
Without that variable nobody listens, and nothing is sent.
"""

import asyncio
import os
import socket
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Final

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """systemd's ear.

    Args:
        environ: Where systemd has left its address. The variables are taken out: what this process
            starts, jobs' programs for example, must not speak for it.

    Attributes:
        watchdog_s: How often it wants to hear that the process is well, at least twice as often as
            it must; None: it does not.
    """

    def __init__(self, environ: MutableMapping[str, str] | None = None) -> None:
        known = os.environ if environ is None else environ
        name, usec, pid = (known.pop(variable, "") for variable in _VARIABLES)
        # A name in the abstract space begins with a zero byte, written as @.
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self.watchdog_s: float | None = None
        if name and usec.isdigit() and int(usec) and pid in ("", str(os.getpid())):
            self.watchdog_s = int(usec) / 2_000_000
        self._status = ""

    def ready(self) -> None:
        """It serves: what was ordered after it may start."""
        self._say("READY=1")

    def reloading(self) -> None:
        """It replaces its parts; ``ready`` says when it is done."""
        self._say(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """It ends, in its own time."""
        self._say("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; sent when it has changed."""
        if text != self._status:
            self._status = text
            self._say(f"STATUS={text}")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Says that the running loop turns, for as long as the body runs and the loop does."""
        interval_s = self.watchdog_s
        if interval_s is None:
            yield
            return
        loop = asyncio.get_running_loop()
        timer: asyncio.Handle

        def beat() -> None:
            nonlocal timer
            self._say("WATCHDOG=1")
            timer = loop.call_later(interval_s, beat)

        timer = loop.call_soon(beat)
        try:
            yield
        finally:
            timer.cancel()

    def _say(self, text: str) -> None:
        if not self._address:
            return
        # One that listens no more, or has enough to read, is not waited for.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
            ear.setblocking(False)
            ear.sendto(text.encode(), self._address)
