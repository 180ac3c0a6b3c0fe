"""Which source files an application is made of, and when they change: for ``--reload``.

Looked at by time and size: there are hundreds at most, and no event of the system is needed.
"""

import asyncio
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Final

#: How often they are looked at.
LOOK_S: Final = 0.5
#: Folders in whose files nobody works.
_FOREIGN: Final = frozenset({"site-packages", "dist-packages", "node_modules", "__pycache__"})

#: What tells one state of a file from another; None: it is not there.
Stamp = tuple[int, int] | None


class Sources:
    """Files, as they were when they were first looked at.

    Args:
        files: Which.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._stamps = {path: _stamp(path) for path in files}

    def changed(self) -> Path | None:
        """One that is another by now, or gone, or there after all."""
        return next((path for path, known in self._stamps.items() if _stamp(path) != known), None)

    async def until_changed(self) -> Path:
        """Waits for that; which one it was."""
        while True:
            path = self.changed()
            if path is not None:
                return path
            await asyncio.sleep(LOOK_S)

    def wait_changed(self) -> Path:
        """The same, in a process that has no loop yet."""
        while (path := self.changed()) is None:
            time.sleep(LOOK_S)
        return path


def loaded(app: str, folder: Path) -> set[Path]:
    """Files below a folder that this process has imported, and all of the application's package.

    The latter so that a module that could not be imported, or is not there yet, is seen too.
    """
    files = {
        Path(name)
        for module in list(sys.modules.values())
        if (name := getattr(module, "__file__", None)) is not None
    }
    top = folder.joinpath(*app.split(".")[:1])
    files.update(top.rglob("*.py") if top.is_dir() else [top.with_suffix(".py")])
    return {path for path in files if _is_own(path, folder)}


def named_by(error: BaseException | None, folder: Path) -> set[Path]:
    """Files below a folder that an import's error comes from."""
    files: set[Path] = set()
    while error is not None:
        files.update(Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__))
        if isinstance(error, SyntaxError) and error.filename:
            files.add(Path(error.filename))
        error = error.__cause__ or error.__context__
    return {path for path in files if _is_own(path, folder)}


def _is_own(path: Path, folder: Path) -> bool:
    if not path.is_relative_to(folder):
        return False
    parts = path.relative_to(folder).parts
    return not any(part in _FOREIGN or part.startswith(".") for part in parts)


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
