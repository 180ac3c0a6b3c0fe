"""Which code a result is of."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit() -> str:
    """The commit of this repository, marked if it was changed since; empty outside of one."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    folder = Path(__file__).parent
    try:
        found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return found.stdout.strip()
