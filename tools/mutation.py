"""Changes the core and the journal line by line, and shows which changes no unit test notices.

Mutmut wants the code it changes in a folder ``src``, so the run has a folder of its own,
``.mutation``, which keeps the results for ``mutmut browse``. Prints one row a module; the diffs of
the survivors are in ``.mutation/survivors.txt``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = REPOSITORY / ".mutation"
PACKAGES: Final = ("core", "journal")
_SOURCES: Final = "master/tenure/master"
_OTHERS: Final = ("protos", "client", "worker", "testing")
_SETTINGS: Final = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = [{only}]
also_copy = ["master"]
pytest_add_cli_args_test_selection = [{tests}]
use_git_change_detection = false
use_setproctitle = false

[tool.pytest.ini_options]
pythonpath = ["."]
consider_namespace_packages = true
addopts = ["--import-mode=importlib", "-m", "not nightly", "-p", "no:cacheprovider"]
markers = ["nightly", "etcd", "fault(number, ...)"]
timeout = 600
"""


def modules() -> list[str]:
    """All that can be named, as ``core/attempt``."""
    return [
        f"{package}/{path.stem}"
        for package in PACKAGES
        for path in sorted((REPOSITORY / _SOURCES / package).glob("*.py"))
        if path.stem != "__init__"
    ]


def prepare(names: list[str]) -> None:
    """Makes the folder: the code under ``src``, the tests that are to notice, the settings."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    shutil.copytree(REPOSITORY / "master" / "tenure", FOLDER / "src" / "tenure")
    shutil.copytree(REPOSITORY / "tests", FOLDER / "tests")
    only = ", ".join(f'"src/tenure/master/{name}.py"' for name in names)
    packages = dict.fromkeys(name.partition("/")[0] for name in names)
    tests = ", ".join(f'"tests/unit/master/{package}"' for package in packages)
    (FOLDER / "pyproject.toml").write_text(_SETTINGS.format(only=only, tests=tests))


def mutmut(*args: str) -> subprocess.CompletedProcess[str]:
    """Runs mutmut in the folder."""
    paths = [str(FOLDER / "mutants" / "src"), *(str(REPOSITORY / other) for other in _OTHERS)]
    return subprocess.run(
        [sys.executable, "-m", "mutmut", *args],
        cwd=FOLDER,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        text=True,
        stdout=subprocess.PIPE if args[0] != "run" else None,
        check=False,
    )


def results() -> dict[str, str]:
    """What became of each change, by its name."""
    lines = mutmut("results", "--all", "true").stdout.splitlines()
    pairs = (line.strip().rpartition(": ") for line in lines)
    return {name: fate for name, _, fate in pairs if name}


def main() -> int:
    """Prepares, runs, and tells."""
    known = modules()
    parser = argparse.ArgumentParser(prog="python -m tools.mutation", description=__doc__)
    parser.add_argument(
        "modules",
        nargs="*",
        metavar="MODULE",
        help="as in core/attempt journal/frame; default: all of them, which takes hours",
    )
    names = parser.parse_args().modules or known
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no such module: {', '.join(unknown)}; there are {', '.join(known)}")
    prepare(names)
    if mutmut("run").returncode:
        return 1
    fates = results()
    sys.stdout.write(
        f"{'module':24} {'changes':>8} {'noticed':>8} {'survive':>8} {'untested':>8}\n"
    )
    for name in names:
        module = f"tenure.master.{name.replace('/', '.')}."
        counts = Counter(fate for change, fate in fates.items() if change.startswith(module))
        survive, untested = counts["survived"], counts["no tests"]
        noticed = counts.total() - survive - untested
        sys.stdout.write(f"{name:24} {counts.total():8} {noticed:8} {survive:8} {untested:8}\n")
    survivors = [change for change, fate in fates.items() if fate == "survived"]
    shown = [mutmut("show", change).stdout for change in survivors]
    (FOLDER / "survivors.txt").write_text("\n".join(shown))
    return 0


if __name__ == "__main__":
    sys.exit(main())
