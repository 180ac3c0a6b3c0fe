"""The ``tenure`` command as its users run it: a process, its exit code, its two streams."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from tests.chaos.cluster import REPOSITORY, tenure

#: Long enough for a slow machine; nothing here should need a tenth of it.
TIMEOUT_S = 45.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def complaint(self) -> str:
        """The one line of stderr that is the command's own (a node also logs there).

        Raises:
            AssertionError: there is none, or more than one.
        """
        lines = [line for line in self.stderr.splitlines() if line.startswith("tenure: ")]
        if len(lines) != 1:
            raise AssertionError(f"expected one line that says what is wrong, got {self}")
        return lines[0]


def run(*arguments: str, timeout_s: float = TIMEOUT_S, stdin: str = "") -> Outcome:
    """Run one command to its end, in the repository's folder."""
    done = subprocess.run(
        tenure(*arguments),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=REPOSITORY,
        check=False,
    )
    if "Traceback" in done.stderr:
        raise AssertionError(f"expected a readable line, got a traceback:\n{done.stderr}")
    return Outcome(done.returncode, done.stdout, done.stderr)
