"""A worker's launcher, as that one sees it: commands to wait for, and groups that are guarded."""

import itertools
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from typing import Final, NamedTuple

from tenure.worker.executor.launch import (
    Finished,
    Guard,
    Launch,
    Release,
    Said,
    Signal,
    inflow_of_worker,
)
from tenure.worker.executor.stream import BrokenFrame, receive, send

_LOGGER: Final = logging.getLogger(__name__)
#: How long the launcher's end is waited for.
CLOSE_S: Final = 5.0


class LauncherLost(OSError):
    """The process that starts commands has died, and with it all that ran: try again."""


class _Waiting(NamedTuple):
    """Who waits for a command's end, and who hears what it says; None for an end: nobody knows."""

    ended: SimpleQueue[Finished | None]
    hear: Callable[[Said], None]


class LauncherLink:
    """Starts the launcher when it is first needed, and again when it has died. Thread-safe.

    Who says something holds the lock until the launcher has read it. The thread that listens waits
    for no lock but in the end: the launcher may be waiting until it is heard.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: dict[int, _Waiting] = {}
        self._guarded: dict[int, Guard] = {}
        self._numbers = itertools.count(1)
        self._closed = False

    def number(self) -> int:
        """What a command is to be called by."""
        return next(self._numbers)

    def run(
        self, launch: Launch, hear: Callable[[Said], None], is_wanted: Callable[[], bool]
    ) -> Finished | None:
        """Runs a command to its end. None: it was not begun, as it is not wanted any more.

        Args:
            launch: The command.
            hear: Told what it says, before its end, in the thread that listens to the launcher.
            is_wanted: Asked before it begins. Who changes that signals it afterwards, and either
                this sees the change, or the signal finds the command.

        Raises:
            LauncherLost: Nobody knows how it ended, but ended it has.
        """
        waiting = _Waiting(SimpleQueue(), hear)
        with self._lock:
            if not is_wanted():
                return None
            self._waiting[launch.number] = waiting
            self._say(launch)
        finished = waiting.ended.get()
        if finished is None:
            raise LauncherLost("the process that starts this worker's commands has died")
        return finished

    def signal(self, number: int, what: int) -> None:
        """Sends a signal to a command and all that it has started, if it runs."""
        with self._lock:
            if number in self._waiting:
                self._say(Signal(number, what))

    def guard(self, group: int, leaf: str = "") -> None:
        """Has a group of processes, and its control group, killed when this process dies."""
        with self._lock:
            self._guarded[group] = Guard(group, leaf)
            self._say(self._guarded[group])

    def release(self, group: int) -> None:
        """The group has ended."""
        with self._lock:
            self._guarded.pop(group, None)
            self._say(Release(group))

    def close(self) -> None:
        """Kills what runs, and ends the launcher."""
        with self._lock:
            self._closed = True
            sock, process = self._sock, self._process
            if sock is not None:
                sock.shutdown(socket.SHUT_RDWR)
        if process is not None:
            try:
                process.wait(CLOSE_S)
            except subprocess.TimeoutExpired:
                process.kill()

    def _say(self, said: Launch | Signal | Guard | Release) -> None:
        """Says something, with the lock held; starts the launcher if there is none."""
        if not self._closed and self._sock is None:
            self._start()
        if self._closed or self._sock is None:
            self._lost()
            return
        with suppress(BrokenFrame):  # The thread that listens finds out, and tells those who wait.
            send(self._sock, said)

    def _start(self) -> None:
        """Starts the launcher, if that can be done."""
        try:
            sock, process = self._spawned()
        except (OSError, RuntimeError) as error:
            _LOGGER.error(
                "expected to start the process that starts commands, but %s",
                error,
                extra={"action": "spawn"},
            )
            return
        self._sock, self._process = sock, process
        with suppress(BrokenFrame):  # The same.
            send(sock, *self._guarded.values())

    def _spawned(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        """A launcher that is listened to, and the socket to it."""
        ours, theirs = socket.socketpair()
        # What this process can import the launcher can, wherever its path came from.
        path = os.pathsep.join(entry or os.curdir for entry in sys.path)
        descriptor = theirs.fileno()
        # If anything fails the launcher sees its socket closed, and ends.
        with theirs, ExitStack() as kept:
            kept.callback(ours.close)
            process = subprocess.Popen(
                [sys.executable, "-m", "tenure.worker.launcher", str(descriptor)],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
                pass_fds=(descriptor,),
                start_new_session=True,
            )
            threading.Thread(
                target=self._listen, args=(ours, process), name="tenure-launcher", daemon=True
            ).start()
            kept.pop_all()
        return ours, process

    def _listen(self, sock: socket.socket, process: subprocess.Popen[bytes]) -> None:
        inflow = inflow_of_worker()
        try:
            while True:
                for said in receive(sock, inflow):
                    self._hear(said)
        except BrokenFrame:
            with suppress(OSError):  # Whoever is in the middle of saying something is to stop.
                sock.shutdown(socket.SHUT_RDWR)
            with self._lock:
                if not self._closed:
                    _LOGGER.error(
                        "the process that starts commands has died: those that ran are lost",
                        extra={"action": "launcher_lost"},
                    )
                self._sock = None
                self._lost()
        sock.close()
        process.wait()

    def _hear(self, said: Said | Finished) -> None:
        if isinstance(said, Finished):
            waiting = self._waiting.pop(said.number, None)
            if waiting is not None:
                waiting.ended.put(said)
        elif (waiting := self._waiting.get(said.number)) is not None:
            waiting.hear(said)

    def _lost(self) -> None:
        """Nobody hears any more of the commands that ran."""
        for number in [*self._waiting]:
            if (waiting := self._waiting.pop(number, None)) is not None:
                waiting.ended.put(None)
