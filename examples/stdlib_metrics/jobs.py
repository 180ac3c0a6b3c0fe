"""The jobs of this example. A worker serves them with `tenure worker examples.stdlib_metrics.jobs`.

They run in process children: parsing is CPU work, and threads would take turns at it.
"""

from __future__ import annotations

import time
from pathlib import Path

from examples.stdlib_metrics.metrics import ModuleMetrics, measure_source, stdlib_root
from tenure.client import Retry, job

#: A file that cannot be parsed today cannot be parsed in a second: such a job fails at once.
#: Some versions of Python raise ValueError for a null byte.
UNPARSABLE = (SyntaxError, ValueError)


@job(queue="analysis", executor="process", retry=Retry(non_retryable=UNPARSABLE))
def measure(path: str, at_least_seconds: float = 0.0) -> ModuleMetrics:
    """Measures one Python file.

    Args:
        path: The file: absolute, or relative to the standard library.
        at_least_seconds: Measure again and again, resting in between, until this time has passed.
            It stands for the long jobs of real life, so that a fault finds some of them running.
    """
    file = stdlib_root() / path
    began = time.monotonic()
    metrics = measure_source(file.read_bytes(), path)
    while (left := at_least_seconds - (time.monotonic() - began)) > 0:
        time.sleep(min(left, 0.5))
        metrics = measure_source(file.read_bytes(), path)
    return metrics


def name_of(path: Path) -> str:
    """What to call a file in a job's arguments: relative to the standard library if inside it."""
    root = stdlib_root()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
