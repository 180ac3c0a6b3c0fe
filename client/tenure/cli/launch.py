"""A worker's process: it has nothing of the command line's in it.

The command has read its flags with typer, which a worker has no use for. So it hands what it was
told through a pipe to a fresh interpreter in its own place: the process id, the streams and the
signals' meaning stay. The command line is repeated for who looks at the list of processes.

With ``--processes`` that interpreter is the supervisor, which starts its workers in the same way.

``python -m tenure.cli.launch FD [what was typed…]``
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from tenure.protocol.errors import TenureError
    from tenure.worker.lifeline import Lifeline

#: What a pipe holds on every system that we run on; a writer would wait for a reader beyond it.
_PIPE_BYTES: Final = 65_536


def become_worker(told: Mapping[str, Any]) -> NoReturn:
    """Ends this program, and begins a worker's in the same process.

    Args:
        told: Of the configuration the tables ``client`` and ``worker``, and the ``level`` from
            which on it logs.

    Raises:
        BadSetting: They are absurdly long.
    """
    reader = _piped(told)
    os.set_inheritable(reader, True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, _arguments(reader, sys.argv[1:]))


def _piped(told: Mapping[str, Any]) -> int:
    """The reading end of a pipe that holds all of it."""
    message = json.dumps(told).encode()
    if len(message) > _PIPE_BYTES:
        from tenure.cli.configuration import BadSetting

        raise BadSetting(f"expected a worker's settings to fit into {_PIPE_BYTES} bytes")
    reader, writer = os.pipe()
    os.write(writer, message)
    os.close(writer)
    return reader


def _arguments(reader: int, shown: list[str]) -> list[str]:
    # Every other command would pay for the import.
    import subprocess

    # The same switches as ours: -O, -W and -X are the user's choice for the worker.
    switches: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    # -P: the user's modules must not hide the standard library's while we are still importing.
    if "-P" not in switches:
        switches.append("-P")
    return [sys.executable, *switches, "-m", "tenure.cli.launch", str(reader), *shown]


def main() -> None:
    """Runs the worker, or the supervisor, that the pipe describes, and exits."""
    with os.fdopen(int(sys.argv[1]), "rb") as pipe:
        told = json.loads(pipe.read())
    from tenure.cli import terminal

    terminal.log_to_stderr(told["level"])
    try:
        sys.exit(_supervise(told) if "processes" in told["worker"] else _run(told))
    except KeyboardInterrupt:
        sys.exit(130)


def _run(told: dict[str, Any]) -> int:
    from tenure.cli import exits, security
    from tenure.cli.configuration import BadSetting
    from tenure.protocol.errors import TenureError

    lifeline = _lifeline(told)
    client = told["client"]
    masters = client.pop("address").split(",")
    try:
        with exits.extra("worker"):
            from tenure.worker.config import WorkerConfig
            from tenure.worker.runtime import main as run_worker

        config = WorkerConfig(masters=masters, **security.arguments(client), **told["worker"])
        return run_worker(config, lifeline)
    except BadSetting as error:
        exits.say(f"tenure: {error}")
        return exits.USAGE
    except TenureError as error:
        if lifeline is None:
            exits.explain(error)
        else:
            _tell_refusal(lifeline, error)
        return exits.code_of(error)


def _lifeline(told: dict[str, Any]) -> Lifeline | None:
    if "lifeline" not in told:
        return None
    from tenure.worker.lifeline import Lifeline

    return Lifeline(told["lifeline"])


def _tell_refusal(lifeline: Lifeline, error: TenureError) -> None:
    """Several workers cannot start for one reason: the supervisor says it, once."""
    from tenure.cli import exits
    from tenure.worker.pulse import Phase, Pulse, Refusal

    refusal = Refusal(message=error.message, reason=str(error.reason), code=exits.code_of(error))
    lifeline.tell(Pulse(phase=Phase.STARTING, refusal=refusal))


def _supervise(told: dict[str, Any]) -> int:
    from tenure.cli import exits
    from tenure.cli.texts import parse_range

    with exits.extra("worker"):
        from tenure.worker.supervisor import Command, supervise

    settings = told["worker"]
    least, most = parse_range(settings.pop("processes"))

    def make_command(name: str, lifeline: int) -> Command:
        """How one of its workers is started: as this process was."""
        its_own = {**told, "worker": {**settings, "name": name}, "lifeline": lifeline}
        reader = _piped(its_own)
        return Command(_arguments(reader, [*sys.argv[2:], "--name", name]), reader)

    refusal = supervise(
        least,
        most,
        name=settings.get("name", ""),
        drain_timeout_s=settings["drain_timeout_s"],
        make_command=make_command,
    )
    if refusal is None:
        return exits.OK
    exits.say_refused(refusal.message, refusal.reason)
    return refusal.code


if __name__ == "__main__":
    main()
