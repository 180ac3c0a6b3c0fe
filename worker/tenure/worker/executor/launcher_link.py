"""A worker's launcher, as that one sees it: commands to wait for, and groups that are guarded."""

import itertools
import logging
import os
import socket
import subprocess
import sys
import threading
from queue import SimpleQueue
from typing import Final

from tenure.worker.executor.launch import (
    Finished,
    Guard,
    Launch,
    Release,
    Signal,
    inflow_of_worker,
)
from tenure.worker.executor.stream import BrokenFrame, receive, send

_LOGGER: Final = logging.getLogger(__name__)
#: How long the launcher's end is waited for.
CLOSE_S: Final = 5.0


class LauncherLost(OSError):
    """The process that starts commands has died, and with it all that ran: try again."""


class LauncherLink:
    """Starts the launcher when it is first needed, and again when it has died. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: dict[int, SimpleQueue[Finished | None]] = {}
        self._guarded: dict[int, Guard] = {}
        self._numbers = itertools.count(1)
        self._closed = False

    def number(self) -> int:
        """What a command is to be called by."""
        return next(self._numbers)

    def run(self, launch: Launch) -> Finished:
        """Runs a command to its end.

        Raises:
            LauncherLost: Nobody knows how it ended, but ended it has.
        """
        answer: SimpleQueue[Finished | None] = SimpleQueue()
        with self._lock:
            self._waiting[launch.number] = answer
            self._say(launch)
        finished = answer.get()
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
        if self._closed:
            self._lost()
            return
        if self._sock is None:
            self._start()
        if self._sock is not None:
            try:
                send(self._sock, said)
            except BrokenFrame:
                pass  # The thread that listens finds out, and tells those who wait.

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        # What this process can import the launcher can, wherever its path came from.
        path = os.pathsep.join(entry or os.curdir for entry in sys.path)
        descriptor = theirs.fileno()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tenure.worker.launcher", str(descriptor)],
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, "PYTHONPATH": path},
                    pass_fds=(descriptor,),
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                _LOGGER.error(
                    "expected to start the process that starts commands, but %s",
                    error,
                    extra={"action": "spawn"},
                )
                self._lost()
                return
        self._sock = ours
        for guard in self._guarded.values():
            send(ours, guard)
        threading.Thread(
            target=self._listen, args=(ours, self._process), name="tenure-launcher", daemon=True
        ).start()

    def _listen(self, sock: socket.socket, process: subprocess.Popen[bytes]) -> None:
        inflow = inflow_of_worker()
        try:
            while True:
                for finished in receive(sock, inflow):
                    with self._lock:
                        answer = self._waiting.pop(finished.number, None)
                    if answer is not None:
                        answer.put(finished)
        except BrokenFrame:
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

    def _lost(self) -> None:
        for answer in self._waiting.values():
            answer.put(None)
        self._waiting.clear()
