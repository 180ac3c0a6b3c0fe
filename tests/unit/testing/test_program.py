"""Programs: what they say is heard, and they end when they are stopped, with what they started."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from tenure.testing.program import Program
from tests.processes import has_ended

#: Says a line, complains, and does as its argument says.
CHILD = """
import signal, subprocess, sys
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
print("it complained", file=sys.stderr, flush=True)
print(child.pid, flush=True)
if sys.argv[1] == "brief":
    child.kill()
else:
    signal.pause()
"""


class Heard(Program):
    """Keeps what was said."""

    def __init__(self, folder: Path, manner: str) -> None:
        self.lines: list[bytes] = []
        self.spoke, self.silent = threading.Event(), threading.Event()
        command = [sys.executable, "-c", CHILD, manner]
        super().__init__("child", command, folder / "log", folder=folder)

    def said(self, line: bytes) -> None:
        self.lines.append(line)
        self.spoke.set()

    def fell_silent(self) -> None:
        self.silent.set()


@pytest.mark.parametrize(
    ("manner", "grace_s", "code"),
    [
        ("polite", 20.0, -signal.SIGTERM),
        ("polite", 0.0, -signal.SIGKILL),
        ("stubborn", 0.1, -signal.SIGKILL),
    ],
)
def test_it_is_stopped_with_what_it_started(
    tmp_path: Path, manner: str, grace_s: float, code: int
) -> None:
    """SIGTERM if there is time for it, then SIGKILL to all; a second stop changes nothing."""
    program = Heard(tmp_path, manner)
    assert program.spoke.wait(20)
    assert os.getpgid(program.pid) == program.pid
    assert program.stop(grace_s) == code
    assert program.stop(grace_s) == code
    assert not program.running
    assert program.silent.is_set()
    assert program.log_tail(1) == "it complained"
    while not has_ended(int(program.lines[0])):
        pass


def test_who_listens_is_told_that_it_has_ended(tmp_path: Path) -> None:
    """Of itself, with everything heard before; a signal to it is then lost, and no error."""
    program = Heard(tmp_path, "brief")
    assert program.silent.wait(20)
    assert len(program.lines) == 1
    program.send(signal.SIGTERM)
    assert program.stop() == 0
