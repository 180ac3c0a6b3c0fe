"""Network namespaces: a process behind a cable of its own, whose packets can really be lost.

    with Namespace("m1", 1) as place:
        start([*place.wrapper, "tenure", "master", "--listen", f"{place.inside}:7400", …])
        place.lose_sent()       # what it sends is dropped; what is sent to it arrives
        place.heal()

It needs root and a kernel with namespaces; ``why_not`` says what is missing. The other end of the
cable lies in the test's own namespace, where the proxy's doors are.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from functools import cache
from types import TracebackType
from typing import Self

#: Beside what machines and containers use by themselves.
_NETWORK = "10.213"
_ALL = f"{_NETWORK}.0.0/16"


@cache
def why_not() -> str:
    """Why there can be no namespaces here; empty: there can."""
    try:
        with Namespace("probe", 0):
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        output = getattr(error, "stderr", "") or ""
        return f"no network namespaces: {error} {output}".strip()


class Namespace:
    """One namespace with one cable to this one.

    Args:
        label: Unique in this process.
        number: Unique in this process, 0 to 15: gives the addresses.

    Attributes:
        inside: Its address.
        outside: This side's address, as it sees it. Those of other namespaces are reached through
            it, too, and all of them from here.
    """

    def __init__(self, label: str, number: int) -> None:
        # Several runs may share the machine: names and addresses go by the process.
        own = os.getpid() % 4_096
        self.name = f"tenure-{own}-{label}"
        self._cable = f"tn{own}{label}"[:14]
        self._far = f"{self._cable}x"
        block = own * 16 + number
        network = f"{_NETWORK}.{block // 64 % 256}.{block % 64 * 4}"
        base = int(network.rpartition(".")[2])
        stem = network.rpartition(".")[0]
        self.outside = f"{stem}.{base + 1}"
        self.inside = f"{stem}.{base + 2}"
        self.wrapper = ["ip", "netns", "exec", self.name]

    def __enter__(self) -> Self:
        _ip("netns", "add", self.name)
        try:
            _ip("link", "add", self._cable, "type", "veth", "peer", "name", self._far)
            _ip("link", "set", self._far, "netns", self.name)
            _ip("addr", "add", f"{self.outside}/30", "dev", self._cable)
            _ip("link", "set", self._cable, "up")
            self._inside("addr", "add", f"{self.inside}/30", "dev", self._far)
            self._inside("link", "set", self._far, "up")
            self._inside("link", "set", "lo", "up")
            self._inside("route", "add", _ALL, "via", self.outside)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take it down. Idempotent."""
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", self._cable)
        with suppress(subprocess.CalledProcessError):
            _ip("netns", "del", self.name)

    def unplug(self) -> None:
        """The cable is pulled at its end: nothing passes either way.

        This end stays up: packets without a way through it would take the machine's own way out,
        where anybody may answer.
        """
        self._inside("link", "set", self._far, "down")

    def lose_sent(self) -> None:
        """What it sends is lost; what is sent to it arrives."""
        self._inside("route", "add", "blackhole", f"{self.outside}/32")
        self._inside("route", "replace", "blackhole", _ALL)

    def lose_received(self) -> None:
        """What is sent to it is lost; what it sends arrives."""
        _ip("route", "add", "blackhole", f"{self.inside}/32")

    def limit(self, kbit_per_s: int) -> None:
        """What is sent to it passes no faster than this (a token bucket of the kernel's).

        Raises:
            CalledProcessError: this kernel has no such queue.
        """
        _run(
            *("tc", "qdisc", "add", "dev", self._cable, "root", "tbf"),
            *("rate", f"{kbit_per_s}kbit", "burst", "16kb", "latency", "400ms"),
        )

    def heal(self) -> None:
        """All is as it was at first. Idempotent."""
        self._inside("link", "set", self._far, "up")
        for undo in (
            lambda: self._inside("route", "del", "blackhole", f"{self.outside}/32"),
            # A link that was down has lost its routes.
            lambda: self._inside("route", "replace", _ALL, "via", self.outside),
            lambda: _ip("route", "del", "blackhole", f"{self.inside}/32"),
            lambda: _run("tc", "qdisc", "del", "dev", self._cable, "root"),
        ):
            with suppress(subprocess.CalledProcessError):
                undo()

    def _inside(self, *arguments: str) -> None:
        _ip("-n", self.name, *arguments)


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
