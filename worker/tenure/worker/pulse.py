"""What a worker process says of itself, to its supervisor and to probes."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

_PAGES: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Phase(StrEnum):
    """Where a worker process is between its start and its end."""

    STARTING = "starting"  #: imports the application, or no master has welcomed it yet
    READY = "ready"  #: at least one master has
    DRAINING = "draining"  #: takes nothing more, and ends soon
    WAITING = "waiting"  #: the application does not import; it waits until a file changes


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a worker process cannot start.

    Attributes:
        message: One line for people.
        reason: From the published list.
        code: The exit code that says the same.
    """

    message: str
    reason: str
    code: int


class Pulse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of a worker process.

    Attributes:
        phase: Where it is.
        slots: How many jobs it may run at once.
        busy: How many of those are taken.
        backlog: Ready jobs that it could run, as the masters said with their last heartbeats.
        masters: How many have welcomed it.
        rss_bytes: Its memory.
        ended: Attempts by their outcome, since it started.
        refusal: Why it cannot start.
    """

    phase: Phase
    slots: int = 0
    busy: int = 0
    backlog: int = 0
    masters: int = 0
    rss_bytes: int = 0
    ended: dict[str, int] = {}
    refusal: Refusal | None = None


def rss_bytes() -> int:
    """This process's resident memory; 0 where the kernel does not tell."""
    try:
        return int(_PAGES.read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0
