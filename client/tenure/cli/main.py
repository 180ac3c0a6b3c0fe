"""The tree of commands, and what becomes of an error that a command lets pass.

A command's module is imported when the command is run, and what it needs is imported inside it:
``--help`` is quick, and nobody pays for what another command needs.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

import click

from tenure.cli import exits
from tenure.cli.command import LazyGroup, NoSuchOption, ReaderGone
from tenure.cli.configuration import BadSetting

app = LazyGroup(
    "tenure",
    help="Runs background jobs on a cluster: fenced leases, exact order, no lost job.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples=[
        ("tenure dev app.jobs", "one master and one worker on this machine"),
        ("tenure submit app.jobs.resize s3://a.png --wait", "run a job, print its result"),
        ("tenure jobs list --state failed -o json", "look at jobs"),
    ],
    notes=(
        "Exit codes: 0 ok, 1 the job failed, 2 usage, 3 not found, 4 unavailable, 5 permission, "
        "6 conflict, 124 timed out, 130 interrupted."
    ),
    lazy={
        "dev": (
            "tenure.cli.nodes",
            "dev",
            "Runs a whole cluster here: a master on an embedded store, and a worker for APP.",
        ),
        "master": ("tenure.cli.nodes", "master", "Runs a master."),
        "worker": (
            "tenure.cli.nodes",
            "worker",
            "Runs a worker that serves the @job functions of an importable module.",
        ),
        "submit": ("tenure.cli.submit", "submit", "Submits one job."),
        "jobs": (
            "tenure.cli.jobs",
            "app",
            "Look at jobs, wait for them, stop them, run them again.",
        ),
        "queues": (
            "tenure.cli.queues",
            "app",
            "Queues, tenants and job types: how they do, and how they are run.",
        ),
        "workers": (
            "tenure.cli.workers",
            "app",
            "Workers: how they do, what they run, and whether they get work.",
        ),
        "schedules": (
            "tenure.cli.schedules",
            "app",
            "Jobs by the calendar: cron with time zones.",
        ),
        "workflows": (
            "tenure.cli.workflows",
            "app",
            "Workflows: jobs that wait for each other, as a whole.",
        ),
        "batches": (
            "tenure.cli.batches",
            "app",
            "What is done to all jobs that match a filter: cancel, requeue, purge, boost.",
        ),
        "whatif": (
            "tenure.cli.whatif",
            "whatif",
            "Replays recorded jobs through the real scheduler, on a clock that jumps.",
        ),
        "cluster": ("tenure.cli.cluster", "app", "The cluster: masters, leaders, workers."),
        "config": ("tenure.cli.config", "app", "What is set, and by whom."),
        "completion": (
            "tenure.cli.completion",
            "completion",
            "Prints a script that completes commands and options.",
        ),
        "version": (
            "tenure.cli.version",
            "version",
            "Prints the versions of Tenure and of what it runs on.",
        ),
    },
)


def main() -> None:
    """Runs the command line and exits."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As on stderr: a character that a terminal cannot show must not end a command.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command; returns its exit code. Errors become one line on stderr."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except (ReaderGone, BrokenPipeError):
        # Python would complain when it flushes stdout at its exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.OK
    return code


def _run(arguments: list[str]) -> int:
    try:
        code = app.main(arguments, prog_name="tenure", standalone_mode=False)
    except click.ClickException as error:
        exits.say(_usage_line(error))
        return exits.USAGE
    except BadSetting as error:
        exits.say(f"tenure: {error}")
        return exits.USAGE
    except UnicodeEncodeError as error:
        # A shell hands over any bytes; what is sent to a cluster is text.
        exits.say(f"tenure: expected text in UTF-8, got {error.object!r}")
        return exits.USAGE
    except (click.Abort, KeyboardInterrupt):
        return exits.INTERRUPTED
    except Exception as error:
        known = _tenure_error(error)
        if known is None:
            raise
        exits.explain(known)
        return exits.code_of(known)
    return code if isinstance(code, int) else exits.OK


def _tenure_error(error: Exception) -> Any:
    """The error, if it is one of ours. Its class is there only if a command has imported it."""
    module = sys.modules.get("tenure.protocol.errors")
    return error if module is not None and isinstance(error, module.TenureError) else None


def _usage_line(error: click.ClickException) -> str:
    message = error.format_message()
    if message.startswith("Usage:"):
        return message  # A group without a command shows its help.
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f" (see `{context.command_path} --help`)" if context else ""
    if context and isinstance(error, click.NoSuchOption):
        import difflib

        known = [name for option in context.command.params for name in option.opts]
        near = difflib.get_close_matches(error.option_name, known, n=1)
        message = f"No such option {error.option_name}."
        message += f" Did you mean {near[0]}?" if near else ""
        message += f" {error.why}" if isinstance(error, NoSuchOption) else ""
    line = " ".join(message.split()).removeprefix("Invalid value: ").rstrip(".")
    return f"tenure: {line}{hint}"
