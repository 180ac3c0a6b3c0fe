"""How ``tenure worker`` becomes a process that has nothing of the command line's in it.

The command has read its flags with typer, which a worker has no use for. So it hands what it was
told through a pipe to a fresh interpreter in its own place: the process id, the streams and the
signals' meaning stay. The command line is repeated for who looks at the list of processes.

``python -m tenure.cli.launch FD [what was typed…]``
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any, Final, NoReturn

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
    message = json.dumps(told).encode()
    if len(message) > _PIPE_BYTES:
        from tenure.cli.configuration import BadSetting

        raise BadSetting(f"expected a worker's settings to fit into {_PIPE_BYTES} bytes")
    # Every other command would pay for the import.
    import subprocess

    reader, writer = os.pipe()
    os.write(writer, message)
    os.close(writer)
    os.set_inheritable(reader, True)
    sys.stdout.flush()
    sys.stderr.flush()
    # The same switches as ours: -O, -W and -X are the user's choice for the worker.
    switches: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    # -P: the user's modules must not hide the standard library's while we are still importing.
    arguments = [*switches, "-P", "-m", "tenure.cli.launch", str(reader), *sys.argv[1:]]
    os.execv(sys.executable, [sys.executable, *arguments])


def main() -> None:
    """Runs the worker that the pipe describes, and exits."""
    with os.fdopen(int(sys.argv[1]), "rb") as pipe:
        told = json.loads(pipe.read())
    try:
        sys.exit(_run(told["client"], told["worker"], told["level"]))
    except KeyboardInterrupt:
        sys.exit(130)


def _run(client: dict[str, Any], worker: dict[str, Any], level: str) -> int:
    from tenure.cli import exits, security, terminal
    from tenure.cli.configuration import BadSetting
    from tenure.protocol.errors import TenureError

    terminal.log_to_stderr(level)
    masters = client.pop("address").split(",")
    try:
        with exits.extra("worker"):
            from tenure.worker.config import WorkerConfig
            from tenure.worker.runtime import main as run_worker

        return run_worker(WorkerConfig(masters=masters, **security.arguments(client), **worker))
    except BadSetting as error:
        exits.say(f"tenure: {error}")
        return exits.USAGE
    except TenureError as error:
        exits.explain(error)
        return exits.code_of(error)


if __name__ == "__main__":
    main()
