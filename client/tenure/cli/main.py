"""The tree of commands, and what becomes of an error that a command lets pass.

What a command needs is imported inside it, so that ``--help`` is quick and a worker loads nothing
of the command line's.
"""

import sys
from typing import Any, Final

import typer

from tenure.cli import cluster, exits, jobs, nodes, submit
from tenure.cli.flags import Output
from tenure.cli.output import Format, print_json, print_json_line
from tenure.cli.version import installed

_EPILOG: Final = """Examples:

  tenure dev app.jobs                     one master and one worker on this machine

  tenure submit app.jobs.resize s3://a.png --wait

  tenure jobs list --state failed -o json

Exit codes: 0 ok, 1 the job failed, 2 usage, 3 not found, 4 unavailable, 5 permission, 6 conflict,
124 timed out, 130 interrupted."""

#: Typer uses the package click or, in later releases, a copy of its own: this is either one's
#: ClickException.
_CLICK_ERROR: Final[Any] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="tenure",
    help="Runs background jobs on a cluster: fenced leases, exact order, no lost job.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("dev")(nodes.dev)
app.command("master")(nodes.master)
app.command("worker")(nodes.worker)
app.command("submit", context_settings={"ignore_unknown_options": True})(submit.submit)
app.add_typer(jobs.app, name="jobs")
app.add_typer(cluster.app, name="cluster")


@app.command()
def version(output: Output = Format.TABLE) -> None:
    """Prints the versions of Tenure and of what it runs on."""
    versions = installed()
    match output:
        case Format.JSON:
            print_json(versions)
        case Format.JSONL:
            print_json_line(versions)
        case Format.NAME:
            print(versions["version"])
        case Format.TABLE:
            print(
                f"tenure {versions['version']} (Python {versions['python']}, "
                f"gRPC {versions['grpc']}, protobuf {versions['protobuf']})"
            )


def main() -> None:
    """Runs the command line and exits."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command; returns its exit code. Errors become one line on stderr."""
    from tenure.protocol.errors import TenureError

    try:
        code = app(arguments, prog_name="tenure", standalone_mode=False)
    except _CLICK_ERROR as error:
        exits.say(_usage_line(error))
        return exits.USAGE
    except (typer.Abort, KeyboardInterrupt):
        return exits.INTERRUPTED
    except TenureError as error:
        exits.explain(error)
        return exits.code_of(error)
    except BrokenPipeError:
        # The reader has seen enough. Python would complain at exit when it flushes stdout.
        sys.stderr.close()
        return exits.OK
    return code if isinstance(code, int) else exits.OK


def _usage_line(error: Any) -> str:
    message: str = error.format_message()
    if message.startswith("Usage:"):
        return message  # A group without a command shows its help.
    context = getattr(error, "ctx", None)
    hint = f"; see `{context.command_path} --help`" if context else ""
    line = " ".join(message.split()).removeprefix("Invalid value: ").rstrip(".")
    return f"tenure: {line}{hint}"
