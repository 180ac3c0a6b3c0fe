"""A job that goes on talking until it is told to end."""

import logging
import subprocess
import sys
import threading
from pathlib import Path

from tenure.client import Command, current_job, job

_LOGGER = logging.getLogger(__name__)


@job(name="talk")
def talk(release: str) -> int:
    """Says something ten times a second; returns which attempt it was."""
    attempt = current_job().attempt
    step = 0
    while not Path(release).exists():
        sys.stdout.write(f"attempt {attempt} step {step}\n")
        step += 1
        threading.Event().wait(0.1)
    _LOGGER.warning("attempt %d was released", attempt)
    return attempt


@job(name="mutter")
def mutter(text: str) -> None:
    """Says something without ending the line, and so does a program that it starts."""
    sys.stdout.write(text)
    sys.stdout.flush()
    subprocess.run(["printf", text], check=True)


@job(name="mutter_async")
async def mutter_async(text: str) -> None:
    """The same in the loop."""
    sys.stdout.write(text)
    sys.stdout.flush()


@job(name="recite")
def recite(release: str) -> Command[str]:
    """A command that does the same on its stderr; what it writes to stdout is the result."""
    step = 'echo result; i=0; while [ ! -e "$0" ]; do echo step $i >&2; i=$((i+1)); sleep 0.1; done'
    return Command("sh", "-c", step, release)
