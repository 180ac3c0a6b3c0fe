"""Who imports what: commands must answer at once, and a worker needs no command line.

Modules are counted, not milliseconds: the former do not depend on what else the machine does.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenure.client import Client
from tests.chaos.cluster import Cluster
from tests.integration import app
from tests.integration.cli.terminal import REPOSITORY, TIMEOUT_S, environment

#: What `tenure --help` imported when it took 75 ms, and some room: a library would not fit in.
MODULES_MAX = 150
#: Slow to import, each for a command that needs it.
SLOW = {"asyncio", "google", "grpc", "pydantic", "rich", "typer", "msgspec"}
SLOW_PARTS = {"tenure.client", "tenure.v1", "tenure.master", "tenure.worker", "logging", "email"}
COMMAND_LINE = {"click", "rich", "typer", "tenure.cli.command", "tenure.cli.main"}

SCRIPT = """
import sys
from tenure.cli import main
code = main.run(sys.argv[1:])
print(*sorted(sys.modules), file=sys.stderr)
sys.exit(code)
"""


def modules(*arguments: str) -> list[str]:
    """What a command has imported by its end."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=environment({}),
        timeout=TIMEOUT_S,
        check=True,
    )
    return done.stderr.split()


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["jobs", "--help"], ["jobs", "list", "--help"], ["worker", "--help"]],
)
def test_help_imports_little(arguments: list[str]) -> None:
    """No RPC, no event loop, no rich, and not many modules of any kind."""
    loaded = modules(*arguments)
    assert sorted(SLOW & {name.partition(".")[0] for name in loaded}) == []
    assert sorted(SLOW_PARTS & set(loaded)) == []
    assert len(loaded) <= MODULES_MAX


@pytest.mark.parametrize("arguments", [["version"], ["config", "show"], ["completion", "bash"]])
def test_commands_that_call_nobody_import_no_rpc(arguments: list[str]) -> None:
    """They answer as fast as the help."""
    assert sorted(SLOW & {name.partition(".")[0] for name in modules(*arguments)}) == []


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One master on SQLite and one worker, as ``tenure worker`` starts it."""
    directory = tmp_path_factory.mktemp("imports")
    with Cluster(directory, f"sqlite://{directory}/store.db") as cluster:
        cluster.start_masters(1)
        worker = cluster.start_worker("worker-1", app="tests.integration.app")
        cluster.wait_said(worker, "registered")
        yield cluster


@pytest.mark.parametrize("job", [app.modules_here, app.modules_in_child], ids=lambda job: job.name)
def test_worker_imports_no_command_line(cluster: Cluster, job: app.Modules) -> None:
    """Neither the worker's process nor those of its jobs have anything of the command's."""
    with Client(cluster.addresses) as client:
        loaded = client.submit(job).result(timeout=30)
    assert "tenure.worker" in loaded
    assert sorted(COMMAND_LINE & set(loaded)) == []


def test_a_supervisor_imports_no_rpc_and_no_command_line() -> None:
    """Nothing in it can be broken by what a worker needs; and it starts its workers from there."""
    script = SCRIPT.replace("code = main.run(sys.argv[1:])", "code = 0").replace(
        "from tenure.cli import main",
        "from tenure.cli import exits, launch, terminal, texts; import tenure.worker.supervisor",
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = {*done.stderr.split()}
    assert "tenure.worker.fleet" in loaded
    assert sorted({"grpc", "google", "tenure.client"} & loaded) == []
    assert sorted(COMMAND_LINE & loaded) == []


def test_the_users_modules_hide_none_of_ours(tmp_path: Path) -> None:
    """A file in the current folder that is called as one of the standard library's is let alone."""
    for name in ("asyncio", "json", "logging", "random", "uuid"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('imported')")
    done = subprocess.run(
        [Path(sys.executable).with_name("tenure"), "worker", "no_such_app"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment({"PYTHONPATH": ""}),
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 2
    assert "there is no module no_such_app" in done.stderr
    assert "imported" not in done.stderr


def test_worker_is_still_known_by_what_was_typed(cluster: Cluster) -> None:
    """Its process shows application and options, and has the id that was started."""
    worker = cluster.processes["worker-1"]
    shown = Path(f"/proc/{worker.pid}/cmdline").read_bytes().decode().split("\0")
    assert "tests.integration.app" in shown
    assert shown[shown.index("--name") + 1] == "worker-1"
