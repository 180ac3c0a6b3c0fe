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
#: How long a worker that has ended waits for what its application does at its exit.
EXIT_S: Final = 5.0


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


def main() -> int:
    """Runs the worker, or the supervisor, that the pipe describes. Returns an exit code."""
    with os.fdopen(int(sys.argv[1]), "rb") as pipe:
        told = json.loads(pipe.read())
    try:
        return carry_out(told)
    except KeyboardInterrupt:
        return 130


def _end_in_time(code: int) -> None:
    """Ends this process soon, whatever the application still does at its exit.

    Python waits there for the threads of pools, as long as they take: a job that hangs in one would
    keep a worker from being started again.
    """
    import logging
    import threading

    def end() -> None:
        logging.getLogger(__name__).warning(
            "ending without waiting any longer for threads that jobs have left behind, or for what "
            "the application does at its exit",
            extra={"action": "exit"},
        )
        sys.stdout.flush()
        os._exit(code)

    timer = threading.Timer(EXIT_S, end)
    timer.daemon = True
    timer.start()


def carry_out(told: dict[str, Any]) -> int:
    """Runs what it was told to be, in this process. Returns the exit code."""
    from tenure.cli import exits, terminal
    from tenure.worker.probe import Unusable

    terminal.log_to_stderr(told["level"])
    try:
        return _supervise(told) if _is_supervised(told) else _work(told)
    except Unusable as error:
        exits.say_refused(str(error), error.reason)
        return exits.code_of_reason(error.reason)


def _is_supervised(told: Mapping[str, Any]) -> bool:
    settings = told["worker"]
    return "lifeline" not in told and ("processes" in settings or bool(settings.get("reload")))


def _work(told: dict[str, Any]) -> int:
    from tenure.cli import exits, security
    from tenure.cli.configuration import BadSetting
    from tenure.protocol.errors import TenureError
    from tenure.protocol.refusal import Reason

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
        if lifeline is None:
            exits.say(f"tenure: {error}")
        else:
            _tell_refusal(lifeline, str(error), Reason.INVALID_ARGUMENT, exits.USAGE)
        return exits.USAGE
    except TenureError as error:
        code = exits.code_of(error)
        if lifeline is None:
            exits.explain(error)
        elif told["worker"].get("reload") and error.reason == Reason.APP_NOT_IMPORTABLE:
            code = _wait_for_mending(lifeline, error, told["worker"]["app"])
        else:
            _tell_refusal(lifeline, error.message, error.reason, code)
        return code


def _lifeline(told: dict[str, Any]) -> Lifeline | None:
    if "lifeline" not in told:
        return None
    from tenure.worker.lifeline import Lifeline

    return Lifeline(told["lifeline"])


def _tell_refusal(
    lifeline: Lifeline, message: str, reason: str, code: int, *, waits: bool = False
) -> None:
    """Several workers cannot start for one reason: the supervisor says it, once."""
    from tenure.worker.pulse import Phase, Pulse, Refusal

    refusal = Refusal(message=message, reason=str(reason), code=code)
    phase = Phase.WAITING if waits else Phase.STARTING
    lifeline.tell(Pulse(phase=phase, refusal=refusal))


def _wait_for_mending(lifeline: Lifeline, error: TenureError, app: str) -> int:
    """With ``--reload``, an application that does not import is tried again when a file changes."""
    from pathlib import Path

    from tenure.cli import exits
    from tenure.worker import sources
    from tenure.worker.exits import EXIT_RESTART

    folder = Path.cwd()
    files = sources.Sources(sources.loaded(app, folder) | sources.named_by(error, folder))
    _tell_refusal(lifeline, error.message, error.reason, exits.code_of(error), waits=True)
    files.wait_changed()
    return EXIT_RESTART


def _supervise(told: dict[str, Any]) -> int:
    from tenure.cli import exits
    from tenure.cli.texts import parse_range

    with exits.extra("worker"):
        from tenure.worker.supervisor import Command, supervise

    settings = told["worker"]
    health = {name: settings.pop(name, None) for name in ("health", "insecure")}
    least, most = parse_range(settings.pop("processes", "1"))

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
        health=health["health"],
        insecure=bool(health["insecure"]),
    )
    if refusal is None:
        return exits.OK
    exits.say_refused(refusal.message, refusal.reason)
    return refusal.code


if __name__ == "__main__":
    exit_code = main()
    _end_in_time(exit_code)
    sys.exit(exit_code)
