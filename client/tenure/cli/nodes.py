"""``tenure dev``, ``tenure master`` and ``tenure worker``: the long-running commands."""

from __future__ import annotations

from pathlib import Path

from tenure.cli import exits, launch, terminal
from tenure.cli.command import command
from tenure.cli.invocation import Invocation
from tenure.cli.settings import Role


@command(
    "dev",
    role=Role.DEV,
    examples=[
        ("tenure dev app.jobs", "a master and one worker, jobs kept in .tenure"),
        ("tenure dev app.jobs --workers 4 --ephemeral", "four workers; nothing is kept"),
    ],
)
def dev(cli: Invocation) -> int:
    """Runs a whole cluster here: a master on an embedded store, and a worker for APP."""
    from tenure.cli import dev as tree

    given = {"app": None, "slots": None, **cli.config.values(Role.DEV.value)}
    given["data_dir"] = Path(given["data_dir"])
    given["workers"] = given["workers"] if given["app"] else 0
    return tree.run(tree.DevConfig(**given, verbose=cli.verbose > 0, quiet=cli.quiet))


@command(
    "master",
    role=Role.MASTER,
    examples=[
        ("tenure master --store sqlite:///var/lib/tenure/jobs.db", "one node, on its own disk"),
        ("tenure master --store etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379", "a cluster"),
    ],
)
def master(cli: Invocation) -> int:
    """Runs a master."""
    terminal.log_to_stderr(_level(cli))
    with exits.extra("master"):
        from tenure.master.main import MasterConfig, run

    return run(MasterConfig(**cli.config.values(Role.MASTER.value)))


@command(
    "worker",
    role=Role.WORKER,
    examples=[
        ("tenure worker app.jobs --master 127.0.0.1:7400 --slots 8", "eight jobs at once"),
        ("tenure worker app.jobs --queues media,mail --label zone=eu", "only these queues"),
    ],
)
def worker(cli: Invocation) -> int:
    """Runs a worker that serves the @job functions of an importable module."""
    launch.become_worker(
        {
            "client": cli.config.values(Role.CLIENT.value),
            "worker": cli.config.values(Role.WORKER.value),
            "level": _level(cli),
        }
    )


def _level(cli: Invocation) -> str:
    return "DEBUG" if cli.verbose else "WARNING" if cli.quiet else "INFO"
