"""The process that starts commands: what it does when it cannot, or when they do not behave."""

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tenure.worker.executor.launch import (
    TROUBLE,
    Finished,
    Launch,
    Said,
    Signal,
    ToLauncher,
    inflow_of_worker,
)
from tenure.worker.executor.stream import receive, send

WAIT_S = 30.0


class Launched:
    """A launcher, and the worker's end of its socket."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._sock = ours
        ours.settimeout(WAIT_S)
        self._inflow = inflow_of_worker()
        self._heard: list[Said | Finished] = []
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tenure.worker.launcher", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    def say(self, *said: ToLauncher) -> None:
        """Says this in one write."""
        send(self._sock, *said)

    def finished(self, number: int) -> Finished:
        """Waits until a command has ended."""
        while True:
            for said in self._heard:
                if isinstance(said, Finished) and said.number == number:
                    return said
            self._heard += receive(self._sock, self._inflow)

    def descriptors(self) -> set[int]:
        """The files that it has open."""
        return {int(entry.name) for entry in Path(f"/proc/{self.process.pid}/fd").iterdir()}

    def allow(self, files: int) -> None:
        """It may open so many more."""
        known, most = self.descriptors(), 0
        while files:
            files -= most not in known
            most += 1
        resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (most, 1000))

    def close(self) -> None:
        """Ends it."""
        self._sock.close()
        self.process.wait(WAIT_S)


@contextmanager
def launcher() -> Iterator[Launched]:
    """A launcher, ended in the end."""
    made = Launched()
    try:
        yield made
    finally:
        made.close()


def launch(number: int, script: str, *words: bytes, cwd: bytes = b"", odd: bytes = b"") -> Launch:
    """A script to run."""
    env = {b"PATH": os.environb[b"PATH"], b"ODD": odd}
    argv = [b"sh", b"-c", script.encode(), *words]
    return Launch(number, argv, env, cwd, b"", True, 1 << 16, [], 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_signal_that_comes_at_once_is_met(number: signal.Signals) -> None:
    """Even by a command that has not become one yet: it has no group, and ignores what the launcher
    ignores.
    """
    with launcher() as made:
        for turn in range(10):
            # No shell: one that meets SIGINT before it has started something may forget it.
            sleep = Launch(turn, [b"sleep", b"600"], {}, b"", b"", True, 1 << 16, [], 0)
            made.say(sleep, Signal(turn, number))
        assert {made.finished(turn).status for turn in range(10)} == {-number}


def test_what_cannot_be_started_costs_no_file() -> None:
    """Refusals for want of files leave none open: when there are some again, commands run."""
    with launcher() as made:
        made.say(launch(1, "exit 0"))
        assert made.finished(1).status == 0
        before = made.descriptors()
        for room in range(1, 8):
            made.allow(room)
            made.say(launch(10 + room, "exit 0"))
            assert made.finished(10 + room).refusal.startswith(TROUBLE)
            assert made.descriptors() == before
        made.allow(100)
        made.say(launch(99, "exit 7"))
        assert made.finished(99).status == 7


def test_who_has_left_and_writes_on_holds_nobody_up(tmp_path: Path) -> None:
    """A command may start what leaves its group and writes to its pipes without end: its own end is
    told all the same, and other commands run.
    """
    with launcher() as made:
        script = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec yes >&2' & sleep 0.2; exit 3"
        made.say(launch(1, script))
        assert made.finished(1).status == 3
        made.say(launch(2, "exit 4"))
        assert made.finished(2).status == 4


def test_arguments_need_not_be_text(tmp_path: Path) -> None:
    """Names of files are bytes; so may be those of folders and values of variables."""
    folder = os.fsencode(tmp_path) + b"/\xff"
    Path(os.fsdecode(folder)).mkdir()
    with launcher() as made:
        made.say(launch(1, 'printf "%s" "$0$ODD"; pwd', b"\xfd", cwd=folder, odd=b"\xfe"))
        assert made.finished(1).stdout == b"\xfd\xfe" + folder + b"\n"
