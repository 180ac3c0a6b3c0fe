"""An application that its users have not finished: it ends its process, or does not come up."""

import os
import time
from pathlib import Path

from tenure.client import Retry, job

#: While this file exists, the module ends every process that imports it.
BROKEN = "SHAKY_BROKEN"

if BROKEN in os.environ and Path(os.environ[BROKEN]).exists():
    os._exit(7)


@job(name="hold", retry=Retry(max_lost=100, backoff="none"))
def hold(seconds: float) -> int:
    """Keeps a slot for so long; returns which process it ran in."""
    time.sleep(seconds)
    return os.getpid()


@job(name="leave", retry=Retry(max_lost=1, backoff="none"))
def leave(code: int) -> None:
    """Ends the worker's process with this code."""
    os._exit(code)
