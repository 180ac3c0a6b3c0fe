"""Real processes that tell what they do: JSON lines on stdout become events of one shared timeline.

A waiting test sleeps on the timeline's condition and wakes with the next event, so nothing is
polled but what no process announces.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tenure.cli.exits import UNAVAILABLE
from tenure.testing.program import Program
from tests.oracles.history import boottime_ms

T = TypeVar("T")

#: How often a condition is looked at that no event announces.
LOOK_AGAIN_S = 0.02


class Expired(AssertionError):
    """A deadline passed before what a test waited for; the message shows the logs."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a process: when it was read (boot clock, ms), who wrote it, what it says."""

    at_ms: float
    process: str
    fields: dict[str, Any]

    @property
    def name(self) -> str:
        """The ``event`` of the line."""
        return str(self.fields.get("event", ""))


class Timeline:
    """All events of a cluster in the order in which they were read. Safe for many threads."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._changed = threading.Condition()

    def add(self, event: Event) -> None:
        """A process said something."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def nudge(self) -> None:
        """Something changed that is no event: those who wait look again."""
        with self._changed:
            self._changed.notify_all()

    def events(self) -> list[Event]:
        """What has been said so far."""
        with self._changed:
            return list(self._events)

    def wait(self, look: Callable[[list[Event]], T | None], timeout_s: float) -> T | None:
        """What ``look`` finds in the events, as soon as it finds something; None: too late."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                found = look(self._events)
                if found is not None:
                    return found
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(timeout=left)


def until(condition: Callable[[], T | None], timeout_s: float) -> T | None:
    """What a condition that nobody announces comes to; None: too late.

    The condition is looked at again and again; it is true as soon as it returns something other
    than None or False.
    """
    never = threading.Event()
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found is not None and found is not False:
            return found
        if time.monotonic() > deadline:
            return None
        never.wait(timeout=LOOK_AGAIN_S)


class Process(Program):
    """One process of a cluster, known by name; killed, frozen and ended by its pid.

    Args:
        name: Unique among the live ones; the log is ``NAME.N.log`` for its n-th start.
        command: What to run.
        directory: For logs.
        timeline: Takes the JSON lines of its stdout.
        environment: Added to this process's own.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        directory: Path,
        timeline: Timeline,
        environment: Mapping[str, str],
    ) -> None:
        self._timeline = timeline
        self._told_to_end = False
        starts = len(list(directory.glob(f"{name}.*.log")))
        super().__init__(name, command, directory / f"{name}.{starts}.log", environment=environment)

    @property
    def crashed(self) -> bool:
        """Whether it ended in error and nobody had told it to."""
        return not self._told_to_end and self.process.poll() not in (None, 0)

    @property
    def found_no_store(self) -> bool:
        """Whether it is a master that ended at its start, as etcd was away: to be started again."""
        return self.process.poll() == UNAVAILABLE and not self.events("serving")

    def events(self, name: str = "") -> list[Event]:
        """What this very process has said, all of it or one kind."""
        return [
            event
            for event in self._timeline.events()
            if event.process == self.log.name and name in ("", event.name)
        ]

    def let_end(self) -> None:
        """It may end by itself in whatever way: that is no crash."""
        self._told_to_end = True

    def kill(self) -> float:
        """SIGKILL, and wait until it is gone. Returns the boot clock just before, in ms."""
        at_ms = boottime_ms()
        self._told_to_end = True
        self.send(signal.SIGKILL)
        self.process.wait()
        return at_ms

    def terminate(self) -> float:
        """SIGTERM; returns the boot clock just before, in ms."""
        at_ms = boottime_ms()
        self._told_to_end = True
        self.send(signal.SIGTERM)
        return at_ms

    def freeze(self) -> float:
        """SIGSTOP to it and its children; returns the boot clock in ms once it has stopped."""
        os.killpg(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)
        return boottime_ms()

    def thaw(self) -> float:
        """SIGCONT to all that ``freeze`` stopped; returns the boot clock just before, in ms."""
        at_ms = boottime_ms()
        os.killpg(self.pid, signal.SIGCONT)
        return at_ms

    def tell(self, line: str) -> None:
        """One line on its stdin; one that has ended needs no telling."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.write(line.encode() + b"\n")
                self.process.stdin.flush()

    def wait_exit(self, timeout_s: float) -> int:
        """Its exit code.

        Raises:
            Expired: it does not end in time.
        """
        try:
            return self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise Expired(f"{self.name} did not end in {timeout_s} s:\n{self.log_tail()}") from None

    def said(self, line: bytes) -> None:
        try:
            fields = json.loads(line)
        except ValueError:
            fields = {"event": "text", "line": line.decode(errors="replace")}
        self._timeline.add(Event(boottime_ms(), self.log.name, fields))

    def fell_silent(self) -> None:
        # Those who wait for it look again.
        self._timeline.nudge()
