"""A release of the past, as its commit in this repository's history has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from tests.chaos.cluster import REPOSITORY

_PORTIONS = ("protos", "client", "worker", "master", "testing")


@dataclass(frozen=True, slots=True)
class Release:
    """A source tree that runs with the dependencies of today.

    Attributes:
        version: Its number.
        tree: Where it lies.
    """

    version: str
    tree: Path

    @property
    def path(self) -> str:
        """PYTHONPATH for its processes; the jobs of the tests are of today."""
        return os.pathsep.join([*(str(self.tree / name) for name in _PORTIONS), str(REPOSITORY)])

    def home_of(self, module: str) -> Path:
        """Where its processes find a module."""
        code = f"import importlib, sys; print(importlib.import_module({module!r}).__file__)"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": self.path},
            capture_output=True,
            text=True,
            check=True,
        )
        return Path(done.stdout.strip())


def commit_of(version: str) -> str:
    """The commit that a release's histories were recorded at."""
    manifest = REPOSITORY / "tests" / "histories" / version / "manifest.json"
    commit: str = json.loads(manifest.read_text("utf-8"))["commit"]
    return commit


def check_out(version: str, folder: Path) -> Release | None:
    """Unpacks a release into a folder; None: this clone has no history to find it in.

    Raises:
        LookupError: It has its whole history, and the commit is not in it.
    """
    commit = commit_of(version)
    if _git("cat-file", "-e", f"{commit}^{{commit}}").returncode != 0:
        if _git("rev-parse", "--is-shallow-repository").stdout.strip() == b"true":
            return None
        raise LookupError(
            f"expected release {version} at commit {commit}, as tests/histories/{version}/"
            "manifest.json says, but the repository does not have it"
        )
    archive = _git("archive", "--format=tar", commit, *_PORTIONS)
    if archive.returncode != 0:
        raise LookupError(archive.stderr.decode())
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return Release(version, folder)


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True)
