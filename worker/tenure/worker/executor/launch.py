"""What a worker and its launcher say to each other.

```
 worker ──Launch, Signal, Guard, Release──► launcher ──Said…, Finished──► worker
```
This module loads little: the launcher is a copy of itself for each command that it starts.
"""

from typing import Final

import msgspec

from tenure.protocol.vocabulary import LogStream
from tenure.worker.executor.stream import Inflow

#: What a refusal begins with that is not the command's fault: another time it can be started.
TROUBLE: Final = "!"


class Launch(msgspec.Struct, frozen=True, array_like=True, tag="launch"):
    """Start a command.

    Attributes:
        number: By which both call it.
        argv: The program and its arguments, which need not be text.
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
    argv: list[bytes]
    env: dict[bytes, bytes]
    cwd: bytes
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


class Said(msgspec.Struct, frozen=True, array_like=True, tag="said"):
    """What a command has written, of a long text its beginning and its end.

    Attributes:
        number: Which.
        stream: Where.
        skipped: How many ends of lines are left out before it; None: nothing is.
        data: The text.
    """

    number: int
    stream: LogStream
    skipped: int | None
    data: bytes


class Finished(msgspec.Struct, frozen=True, array_like=True, tag="finished"):
    """A command has ended.

    Attributes:
        number: Which.
        status: Its exit status, or minus a signal's number.
        stdout: What it wrote there, if that is wanted and the status is 0.
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
FromLauncher = Said | Finished

_decode_to_launcher: Final = msgspec.msgpack.Decoder(ToLauncher).decode
_decode_from_launcher: Final = msgspec.msgpack.Decoder(FromLauncher).decode


def inflow_of_launcher() -> Inflow[ToLauncher]:
    """Reads what a worker says."""
    return Inflow(_decode_to_launcher)


def inflow_of_worker() -> Inflow[FromLauncher]:
    """Reads what a launcher says."""
    return Inflow(_decode_from_launcher)
