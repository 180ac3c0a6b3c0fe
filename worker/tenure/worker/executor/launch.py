"""What a worker and its launcher say to each other.

```
 worker ──Launch, Signal, Guard, Release──► launcher ──Finished──► worker
```
This module loads little: the launcher is a copy of itself for each command that it starts.
"""

from typing import Final

import msgspec

from tenure.worker.executor.stream import Inflow

#: A refusal that begins so is not the command's fault.
TROUBLE: Final = "!"


class Launch(msgspec.Struct, frozen=True, array_like=True, tag="launch"):
    """Start a command.

    Attributes:
        number: By which both call it.
        argv: The program and its arguments.
        env: All its variables.
        cwd: Its working directory; empty: the launcher's.
        stdin: What it can read.
        wanted: Whether its stdout is; else it is treated as stderr.
        bytes_max: How long its stdout may be.
        limits: Kinds of resources with their soft and hard limits.
        nice: How much others come first.
        leaf: The control group that it runs in; empty: the launcher's.
    """

    number: int
    argv: list[str]
    env: dict[str, str]
    cwd: str
    stdin: bytes
    wanted: bool
    bytes_max: int
    limits: list[tuple[int, int, int]]
    nice: int
    leaf: str = ""


class Signal(msgspec.Struct, frozen=True, array_like=True, tag="signal"):
    """Send this signal to a command and all that it has started."""

    number: int
    signal: int


class Guard(msgspec.Struct, frozen=True, array_like=True, tag="guard"):
    """When the worker dies, kill this group of processes, and its control group if it has one."""

    group: int
    leaf: str = ""


class Release(msgspec.Struct, frozen=True, array_like=True, tag="release"):
    """The group has ended."""

    group: int


class Finished(msgspec.Struct, frozen=True, array_like=True, tag="finished"):
    """A command has ended.

    Attributes:
        number: Which.
        status: Its exit status, or minus a signal's number.
        stdout: What it wrote there.
        stderr: The end of what it wrote there.
        peak_kib: The most memory that a process of it had at once.
        is_cut: It wrote more to its stdout than it may, and was killed for that.
        refusal: Why it could not be started; empty: it was.
    """

    number: int
    status: int
    stdout: bytes
    stderr: bytes
    peak_kib: int
    is_cut: bool
    refusal: str


ToLauncher = Launch | Signal | Guard | Release

_decode_to_launcher: Final = msgspec.msgpack.Decoder(ToLauncher).decode
_decode_finished: Final = msgspec.msgpack.Decoder(Finished).decode


def inflow_of_launcher() -> Inflow[ToLauncher]:
    """Reads what a worker says."""
    return Inflow(_decode_to_launcher)


def inflow_of_worker() -> Inflow[Finished]:
    """Reads what a launcher says."""
    return Inflow(_decode_finished)
