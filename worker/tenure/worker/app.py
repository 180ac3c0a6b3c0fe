"""The application: an importable module whose ``@job`` functions a worker serves.

What the module calls ``MIDDLEWARE``, a list, is put around them, here and in child processes.
"""

import importlib
import sys
from pathlib import Path
from typing import Any, Final

from tenure.client.job import JobDef
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason
from tenure.worker.attempt import JobTable
from tenure.worker.middleware import Application

#: The name of the list.
MIDDLEWARE: Final = "MIDDLEWARE"
#: Of an import's error as much as fits into one readable line.
_CAUSE_CHARS_MAX: Final = 300


def load(app: str) -> JobTable:
    """Imports a module and collects its jobs. The current folder is on the path.

    Args:
        app: The module's dotted name, for example ``app.jobs``.

    Raises:
        Rejected: APP_NOT_IMPORTABLE: there is no such module, its import failed, it has no job,
            two of its jobs have one name, or its middleware is none.
    """
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(app)
    # The module is user code: whatever it raises, a SystemExit too, means that it does not import.
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise _refused(app, _cause(app, error)) from error
    jobs: dict[str, JobDef[..., Any]] = {}
    for value in list(vars(module).values()):
        if not isinstance(value, JobDef):
            continue
        known = jobs.setdefault(value.name, value)
        if known.fn is not value.fn:
            raise _refused(app, f"it has two jobs named {value.name}")
    if not jobs:
        raise _refused(app, "it has no job: decorate a function with tenure.client.job")
    try:
        return Application(jobs, getattr(module, MIDDLEWARE, ()))
    except (Rejected, TypeError) as error:
        raise _refused(app, f"its {MIDDLEWARE} is no list of middleware: {error}") from None


def _cause(app: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and f"{app}.".startswith(f"{error.name}."):
        return f"there is no module {error.name} in the current folder or on PYTHONPATH"
    text = " ".join(str(error).split())[:_CAUSE_CHARS_MAX]
    return f"it raised {type(error).__name__}: {text}"


def _refused(app: str, why: str) -> Rejected:
    return Rejected(
        f"expected to import the jobs of {app}, but {why}",
        reason=Reason.APP_NOT_IMPORTABLE,
        metadata={"app": app},
        field="app",
    )
