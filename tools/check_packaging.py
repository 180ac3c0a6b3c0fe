"""Checks the distributions as users get them: built, installed into empty environments, used.

Usage: `python tools/check_packaging.py [--python VERSION …] [--thorough]`. It builds the wheel and
the sdist and looks into them; installs the wheel once per extra on the oldest Python and uses what
the extra promises; runs a job on every Python; and runs the unit tests on the oldest releases of
all dependencies (with `--thorough`, on every Python with the newest as well). An interpreter that
is not there is a failure; `--python` narrows the matrix, and what that leaves out is printed.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parent.parent
PYTHONS: Final = ("3.11", "3.12", "3.13")
SOURCES: Final = ("protos", "client", "worker", "master", "testing")
#: Each is a portion of the namespace, and has to carry its own mark for type checkers.
PORTIONS: Final = ("cli", "client", "etcdapi", "master", "protocol", "testing", "v1", "worker")

_BASE: Final = ("client", "etcdapi", "protocol", "v1")
#: Extra -> the portions of which every module has to import with it.
PROMISED: Final = {
    "": _BASE,
    "cli": (*_BASE, "cli"),
    "worker": (*_BASE, "cli", "worker"),
    "master": (*_BASE, "cli", "master"),
    "testing": PORTIONS,
    "pydantic": _BASE,
    "all": PORTIONS,
}
_MASTER: Final = ("master", "--store", "sqlite:///nowhere/store.db")
#: Extra -> a command that needs more, and the extra that its one line has to name.
REFUSED: Final = {
    "": ((("version",), "cli"), (_MASTER, "cli")),
    "cli": ((_MASTER, "master"), (("dev", "--ephemeral", "--listen", "127.0.0.1:0"), "master")),
    "worker": ((_MASTER, "master"),),
}

#: They look at the repository's own files: what a type checker, or the newest click, makes of them.
_NOT_OF_WHEEL: Final = ("tests/unit/client/test_typing.py", "tests/unit/cli/test_reference.py")

IMPORT_ALL: Final = """
import importlib, pkgutil, sys
for portion in sys.argv[1:]:
    package = importlib.import_module(f"tenure.{portion}")
    for module in pkgutil.walk_packages(package.__path__, f"tenure.{portion}."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
"""
APP: Final = """
from tenure.client import job

@job
def add(a: int, b: int) -> int:
    return a + b
"""
SUBMIT: Final = """
import sys
from app import add
from tenure.client import Client

with Client(sys.argv[1]) as client:
    assert client.submit(add, 19, 23).result(timeout=30) == 42
"""
TYPED: Final = """
from typing import assert_type

import tenure.cli.main
import tenure.etcdapi.etcd_pb2
import tenure.master.main
import tenure.protocol.limits
import tenure.testing.cluster
import tenure.v1.jobs_pb2
import tenure.worker.runtime
from tenure.client import Client, JobHandle, job

@job
def add(a: int, b: int) -> int:
    return a + b

def use(client: Client) -> None:
    handle = client.submit(add, 1, 2)
    assert_type(handle, JobHandle[int])
    assert_type(handle.result(), int)
    client.submit(add, 1, "2")  # type: ignore[arg-type]
"""


class Failed(Exception):
    """A check has found something; the message is what a person needs to know."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment that has what was installed into it and nothing else."""

    root: Path

    @property
    def python(self) -> str:
        return str(self.root / "bin" / "python")

    @property
    def tenure(self) -> str:
        return str(self.root / "bin" / "tenure")


@dataclass(slots=True)
class Report:
    """What was checked, as it goes; a check that fails does not keep the others from running.

    Checks may run in several threads.
    """

    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def check(self, name: str) -> Iterator[None]:
        """Times the block; prints what went wrong if it raises `Failed`."""
        started = time.monotonic()
        try:
            yield
        except Failed as error:
            self.failed.append(name)
            print(f"FAILED         {name}\n{textwrap.indent(str(error), '    ')}", flush=True)
        else:
            self.passed.append(name)
            print(f"ok    {time.monotonic() - started:5.1f} s  {name}", flush=True)


def run(*command: str, cwd: Path = REPOSITORY, timeout_s: float = 300) -> str:
    """Runs a command to its end; returns its stdout.

    Raises:
        Failed: it took too long, or its exit code is not 0.
    """
    code, stdout, stderr = _outcome(*command, cwd=cwd, timeout_s=timeout_s)
    if code != 0:
        output = "\n".join(f"{stdout}\n{stderr}".strip().splitlines()[-60:])
        raise Failed(f"{' '.join(command)}\nended with {code}:\n{output}")
    return stdout


def _outcome(*command: str, cwd: Path, timeout_s: float) -> tuple[int, str, str]:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=_clean_environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command)}\ndid not end within {timeout_s:.0f} s") from None
    return done.returncode, done.stdout, done.stderr


def _clean_environment() -> dict[str, str]:
    """Ours without what would let an environment see this one, or a user's settings."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "TENURE_")) and name != "VIRTUAL_ENV"
    }
    # An interpreter is looked for here, and never fetched.
    return ours | {"UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1"}


def uv(*arguments: str, cwd: Path = REPOSITORY) -> str:
    """Runs uv, of the development tools."""
    return run(sys.executable, "-m", "uv", "--quiet", *arguments, cwd=cwd)


def interpreter(version: str) -> str:
    """The path of a Python of this version: on PATH, or one of pyenv's.

    Raises:
        Failed: there is none.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [shutil.which(f"python{version}")]
    candidates += map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python")))
    for candidate in filter(None, candidates):
        # pyenv's shims are on PATH also for versions that it does not run.
        with contextlib.suppress(Failed, OSError):
            code = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"
            found, path = run(candidate, "-c", code, timeout_s=30).split(maxsplit=1)
            if found == version:
                return path.strip()
    raise Failed(
        f"not run: no Python {version} on PATH or among pyenv's; install one, or say which to"
        ' test: make packaging PYTHONS="3.11"'
    )


def make_environment(root: Path, python: str, *requirements: str) -> Environment:
    """An empty environment with these requirements (uv's arguments) installed."""
    uv("venv", "--python", python, str(root))
    environment = Environment(root)
    uv("pip", "install", "--python", environment.python, *requirements)
    return environment


# ---- the files ----------------------------------------------------------------------------------


def build(folder: Path) -> Path:
    """Builds an sdist, a wheel from it, and one from the tree; returns the first wheel.

    Raises:
        Failed: they cannot be built, or the wheels differ.
    """
    uv("build", "--out-dir", str(folder), str(REPOSITORY))
    uv("build", "--wheel", "--out-dir", str(folder / "direct"), str(REPOSITORY))
    (wheel,) = folder.glob("*.whl")
    (direct,) = (folder / "direct").glob("*.whl")
    if wheel.read_bytes() != direct.read_bytes():
        names = [set(zipfile.ZipFile(path).namelist()) for path in (wheel, direct)]
        raise Failed(
            "the wheel made from the sdist is another one than that made from the tree; names in"
            f" one of them only: {sorted(names[0] ^ names[1])}"
        )
    return wheel


def check_wheel(wheel: Path) -> None:
    """The wheel has every file of the product's sources and nothing else.

    Raises:
        Failed: a file is missing, or one too many is there.
    """
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = {
        path.relative_to(REPOSITORY / source).as_posix()
        for source in SOURCES
        for path in (REPOSITORY / source / "tenure").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    if names != sources:
        raise Failed(f"not in the wheel: {sorted(sources - names)}\ntoo many: {names - sources}")
    unmarked = [name for name in PORTIONS if f"tenure/{name}/py.typed" not in names]
    if unmarked:
        raise Failed(f"no py.typed in {unmarked}")
    portions = {name.split("/")[1] for name in names}
    if portions != set(PORTIONS):
        raise Failed(f"expected the portions {PORTIONS}, found {sorted(portions)}")


def check_metadata(environment: Environment) -> None:
    """What is installed says the version and the extras of pyproject.toml.

    Raises:
        Failed: it does not.
    """
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    told = json.loads(run(environment.tenure, "version", "-o", "json"))
    if told["version"] != project["version"] or told["commit"] is not None:
        raise Failed(f"expected {project['version']} and no commit, got {told}")
    if set(project["optional-dependencies"]) != set(PROMISED) - {""}:
        raise Failed("the extras of pyproject.toml are not those that are checked here")


# ---- what is installed --------------------------------------------------------------------------


def check_promises(extra: str, environment: Environment, folder: Path) -> None:
    """Every module of the promised portions imports; what needs more says which extra.

    Raises:
        Failed: one does not, or a command says something else.
    """
    run(environment.python, "-I", "-W", "error", "-c", IMPORT_ALL, *PROMISED[extra], cwd=folder)
    for arguments, needed in REFUSED.get(extra, ()):
        code, stdout, stderr = _outcome(environment.tenure, *arguments, cwd=folder, timeout_s=60)
        said = [line for line in stderr.splitlines() if line.startswith("tenure: ")]
        named = len(said) == 1 and f"pip install 'tenure[{needed}]'" in said[0]
        if code != 2 or stdout or not named or "Traceback" in stderr:
            raise Failed(
                f"expected `tenure {' '.join(arguments)}` to end with 2 and one line that names"
                f" tenure[{needed}], but it ended with {code}:\n{stdout}{stderr}"
            )


def check_types(environment: Environment, folder: Path) -> None:
    """A user's file type-checks against what is installed, and a mistake in it is found.

    Raises:
        Failed: mypy complains.
    """
    path = folder / "typed.py"
    path.write_text(TYPED)
    mypy = (sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder / "mypy"))
    run(*mypy, "--python-executable", environment.python, str(path), cwd=folder)


def check_job(environment: Environment, folder: Path) -> None:
    """`tenure dev` starts, a job runs by the SDK and by the command, and TERM ends all.

    Raises:
        Failed: one of that does not.
    """
    folder.mkdir(exist_ok=True)
    (folder / "app.py").write_text(APP)
    (folder / "submit.py").write_text(SUBMIT)
    with (folder / "stderr").open("w+") as errors:
        dev = subprocess.Popen(
            (environment.tenure, "dev", "app", "--ephemeral", "--listen", "127.0.0.1:0"),
            cwd=folder,
            env=_clean_environment(),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            address = _served_at(dev)
            run(environment.python, "submit.py", address, cwd=folder, timeout_s=60)
            submit = (environment.tenure, "submit", "app.add", "19", "23", "--wait")
            shown = run(*submit, "--address", address, cwd=folder, timeout_s=60)
            if "42" not in shown:
                raise Failed(f"expected the job's result, 42, but `tenure submit` printed: {shown}")
            dev.send_signal(signal.SIGTERM)
            if (code := dev.wait(timeout=60)) != 0:
                raise Failed(f"`tenure dev` ended with {code} on TERM")
        except (Failed, subprocess.TimeoutExpired) as error:
            errors.seek(0)
            raise Failed(f"{error}\n`tenure dev` said:\n{errors.read()}") from None
        finally:
            dev.kill()
            dev.communicate()


def _served_at(dev: subprocess.Popen[str]) -> str:
    """The address of the line that a node prints when it serves."""
    for line in dev.stdout or ():
        event = json.loads(line)
        if event["event"] == "serving":
            address: str = event["address"]
            return address
    raise Failed("`tenure dev` ended before it served")


def run_units(environment: Environment, cache: Path) -> None:
    """The product's unit tests and the replayed histories, with the wheel and not the tree.

    Raises:
        Failed: a test does.
    """
    units = [
        f"tests/unit/{name}" for name in PORTIONS if (REPOSITORY / "tests/unit" / name).is_dir()
    ]
    pytest = (environment.python, "-m", "pytest", "-q", "-o", f"cache_dir={cache}")
    chosen = (
        "-m",
        "not nightly and not etcd and not hypothesis",
        *(f"--ignore={name}" for name in _NOT_OF_WHEEL),
    )
    run(*pytest, *chosen, *units, "tests/histories", timeout_s=600)


# ---- the matrix ---------------------------------------------------------------------------------


def check_extras(report: Report, wheel: Path, python: str, folder: Path) -> None:
    """Each extra in an environment of its own; then types and a job where all are installed."""
    for extra in PROMISED:
        name = f"tenure[{extra}]" if extra else "tenure"
        with report.check(f"{name} keeps its promises"):
            root = folder / (extra or "base")
            wanted = f"{wheel}[{extra}]" if extra else str(wheel)
            environment = make_environment(root, python, wanted)
            check_promises(extra, environment, folder)
    installed = Environment(folder / "all")
    with report.check("what is installed says the version and extras of pyproject.toml"):
        check_metadata(installed)
    with report.check("py.typed: mypy --strict on a user's file"):
        check_types(installed, folder)


def check_newest(
    report: Report, wheel: Path, version: str, python: str, folder: Path, *, units: bool
) -> None:
    """One Python with the newest of all dependencies: every module, a job, perhaps all tests."""
    with report.check(f"Python {version}, newest dependencies: every module imports, a job runs"):
        environment = make_environment(folder, python, f"{wheel}[all]")
        check_promises("all", environment, folder)
        check_job(environment, folder / "job")
    if units:
        with report.check(f"Python {version}, newest dependencies: unit tests"):
            group = ("--group", f"{REPOSITORY / 'pyproject.toml'}:test")
            uv("pip", "install", "--python", environment.python, *group)
            run_units(environment, folder / "cache")


def check_floor(report: Report, wheel: Path, version: str, python: str, folder: Path) -> None:
    """The oldest releases that pyproject.toml allows of what Tenure itself names."""
    with report.check(f"Python {version}, oldest dependencies: every module imports, a job runs"):
        folder.mkdir()
        floor = folder / "floor.txt"
        lowest = ("--resolution", "lowest-direct", "--python", python, "--all-extras")
        uv("pip", "compile", *lowest, "pyproject.toml", "--output-file", str(floor))
        group = ("--group", f"{REPOSITORY / 'pyproject.toml'}:test")
        wanted = ("--constraints", str(floor), f"{wheel}[all]", *group)
        environment = make_environment(folder / "environment", python, *wanted)
        check_promises("all", environment, folder)
        check_job(environment, folder / "job")
    with report.check(f"Python {version}, oldest dependencies: unit tests"):
        run_units(environment, folder / "cache")


def check_all(pythons: Sequence[str], *, thorough: bool) -> Report:
    """The whole matrix."""
    report = Report()
    if left_out := [version for version in PYTHONS if version not in pythons]:
        print(f"LEFT OUT: Python {', '.join(left_out)} (asked for: {', '.join(pythons)})")
    found: dict[str, str] = {}
    for version in pythons:
        with report.check(f"there is a Python {version}"):
            found[version] = interpreter(version)
    with tempfile.TemporaryDirectory(prefix="tenure-packaging-") as temporary:
        folder = Path(temporary)
        wheel = None
        with report.check("wheel and sdist build, and the sdist builds the same wheel"):
            wheel = build(folder / "dist")
        if wheel is None or not found:
            return report
        with report.check("the wheel has the product's files and no others"):
            check_wheel(wheel)
        oldest = min(found, key=lambda version: tuple(map(int, version.split("."))))
        with ThreadPoolExecutor(1) as beside:
            # It takes as long as all others together, and mostly one core.
            floor = (report, wheel, oldest, found[oldest], folder / "floor")
            floor_checked = beside.submit(check_floor, *floor)
            check_extras(report, wheel, found[oldest], folder)
            for version, python in found.items():
                check_newest(report, wheel, version, python, folder / version, units=thorough)
            floor_checked.result()
    return report


def main() -> int:
    """Parses the command line and runs the matrix. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Checks the distributions as users get them.")
    parser.add_argument("--python", nargs="+", default=PYTHONS, metavar="VERSION")
    parser.add_argument("--thorough", action="store_true", help="unit tests on every Python")
    arguments = parser.parse_args()
    report = check_all(arguments.python, thorough=arguments.thorough)
    print(f"packaging: {len(report.passed)} passed, {len(report.failed)} failed")
    for name in report.failed:
        print(f"FAILED  {name}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
