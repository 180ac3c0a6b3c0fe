"""Ports that tests are given: nobody else has them, now or when they are free again."""

from __future__ import annotations

import subprocess
import sys

from tests.chaos import ports
from tests.chaos.cluster import REPOSITORY


def test_no_port_is_given_twice() -> None:
    """Neither in this process, nor in another one as long as this one lives."""
    given = [ports.free_port() for _ in range(100)]
    assert len(set(given)) == 100
    look = "import sys; from tests.chaos.ports import reserved; print(reserved(int(sys.argv[1])))"

    def elsewhere(port: int) -> str:
        command = [sys.executable, "-c", look, str(port)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
        return done.stdout.strip()

    assert elsewhere(given[0]) == "False"
    # Below all that are given: nobody has it.
    assert elsewhere(1) == "True"
