"""Commands as jobs: a function says which program is to run with which arguments.

There is no shell, so no argument can be taken for anything else. What the program writes to its
stdout is the job's result: as text, as bytes, or not at all, as the function's annotation says.
"""

# Values of any type are looked at here, so that the type of their parts is not known.
# pyright: reportUnknownArgumentType=none, reportUnknownVariableType=none

from __future__ import annotations

import errno
import functools
import os
import re
import typing
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, Generic, TypeVar

from tenure.client.errors import Rejected, invalid
from tenure.protocol.limits import PAYLOAD_BYTES_DEFAULT
from tenure.protocol.refusal import Reason

__all__ = ["Command", "CommandFailed", "CommandNotFound"]

#: What becomes of stdout: text, bytes, or nothing.
Output = TypeVar("Output", str, bytes, None)
#: What an argument may be.
Argument = str | int | float | os.PathLike[str]

#: What a command may be given in all. Nobody passes on more to the process that starts commands.
COMMAND_BYTES_MAX: Final = 8 * 1024 * 1024
_ANNOTATION: Final = re.compile(r"(\w+\.)*Command(\[.*\])?")


class Command(Generic[Output]):
    """A program to run, with its arguments, and what it finds when it starts.

    ``Command[str]`` gives its stdout as text, ``Command[bytes]`` as it is, ``Command[None]`` drops
    it.

    Attributes:
        argv: The program, by its path or as found on ``PATH``, and its arguments.
        stdin: What it can read.
        cwd: Its working directory; None: the worker's.
        env: Variables that it has besides the worker's own.
    """

    def __init__(
        self,
        program: Argument,
        *arguments: Argument,
        stdin: str | bytes = b"",
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Runs nothing yet.

        Raises:
            Rejected: INVALID_ARGUMENT: an argument is none; ``field`` names it. PAYLOAD_TOO_LARGE:
                all of them and ``stdin`` are more than 8 MiB.
        """
        given = enumerate((program, *arguments))
        self.argv: Final = tuple(_argument(f"argv[{index}]", part) for index, part in given)
        if not self.argv[0]:
            raise invalid("argv[0]", "the name of a program, got an empty text")
        self.stdin: Final = stdin.encode() if isinstance(stdin, str) else stdin
        self.cwd: Final = None if cwd is None else os.fspath(cwd)
        self.env: Final = {
            _argument("env", name): _argument(f"env[{name}]", value)
            for name, value in (env or {}).items()
        }
        for name in self.env:
            if not name or "=" in name:
                raise invalid("env", f"names of variables, got {name!r}")
        texts = (*self.argv, *self.env, *self.env.values())
        if len(self.stdin) + sum(len(os.fsencode(text)) for text in texts) > COMMAND_BYTES_MAX:
            raise CommandTooLarge(self.argv[0])

    def __repr__(self) -> str:
        return f"<Command {self.argv[0]}>"


class CommandFailed(Exception):
    """A command ended with another status than 0, or was killed. It is tried again as others are.

    Attributes:
        status: Its exit status, or minus the number of the signal that killed it.
        stderr: The end of what it wrote to its stderr.
    """

    def __init__(self, message: str, *, status: int, stderr: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.stderr = stderr


class CommandNotFound(Rejected):
    """There is no such program, or it may not be run: no retry can help.

    The reason is COMMAND_NOT_FOUND.
    """

    def __init__(self, program: str, why: str) -> None:
        super().__init__(
            f"expected to run {program}, but {why}; install it on all workers of this job, or "
            "give its path",
            reason=Reason.COMMAND_NOT_FOUND,
            metadata={"program": program},
        )


class CommandTooLarge(Rejected):
    """A command is given more than a program can be given: no retry can help.

    The reason is PAYLOAD_TOO_LARGE.
    """

    def __init__(self, program: str) -> None:
        super().__init__(
            f"expected {program} to be given arguments that the kernel takes, and at most "
            f"{COMMAND_BYTES_MAX} bytes with its stdin; give it long texts as stdin, and more than "
            "that in a file",
            reason=Reason.PAYLOAD_TOO_LARGE,
            metadata={"program": program, "limit": str(COMMAND_BYTES_MAX)},
            field="command",
        )


class OutputTooLarge(Rejected):
    """A command wrote more to its stdout than a result may have, and was killed for that.

    The reason is PAYLOAD_TOO_LARGE.
    """

    def __init__(self, program: str) -> None:
        super().__init__(
            f"expected {program} to write at most {PAYLOAD_BYTES_DEFAULT} bytes to its stdout, but "
            "it wrote more and was killed; have it write to a file, or annotate the job with "
            "Command[None] to drop what it writes",
            reason=Reason.PAYLOAD_TOO_LARGE,
            metadata={"program": program, "limit": str(PAYLOAD_BYTES_DEFAULT)},
            field="result",
        )


def not_started(program: str, why: str) -> Rejected:
    """Why a command could not be started, by what the system said."""
    if why == os.strerror(errno.E2BIG):
        return CommandTooLarge(program)
    return CommandNotFound(program, why)


#: Runs a command to its end and gives back its stdout; asked whether that is wanted.
Run = Callable[[Command[Any], bool], bytes]


def _run_here(command: Command[Any], wanted: bool) -> bytes:
    """Runs a command as a plain call of the job does, outside a worker."""
    import subprocess

    try:
        done = subprocess.run(
            command.argv,
            input=command.stdin,
            stdout=subprocess.PIPE if wanted else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=command.cwd,
            env={**os.environ, **command.env},
            check=False,
        )
    except OSError as error:
        raise not_started(command.argv[0], os.strerror(error.errno or 0)) from None
    if done.returncode:
        stderr = done.stderr.decode("utf-8", "replace")
        raise CommandFailed(
            f"expected {command.argv[0]} to end with exit status 0, but it ended with "
            f"{done.returncode}",
            status=done.returncode,
            stderr=stderr,
        )
    return done.stdout or b""


#: How commands are run here; workers have their own way.
_runner: Final[ContextVar[Run]] = ContextVar("tenure_command_runner", default=_run_here)


def run_commands_by(run: Run) -> None:
    """Says how commands are run in the ``contextvars.Context`` of a job."""
    _runner.set(run)


def says_command(function: Callable[..., Any]) -> bool:
    """Whether a function's annotation says that it gives back a command."""
    hint = getattr(function, "__annotations__", {}).get("return")
    if isinstance(hint, str):
        return _ANNOTATION.fullmatch(hint.strip()) is not None
    return hint is Command or typing.get_origin(hint) is Command


def output_of(hint: Any) -> Any:
    """What a function annotated with this gives back as a job: a command's stdout."""
    if hint is Command:
        return str
    if typing.get_origin(hint) is Command:
        (output,) = typing.get_args(hint)
        return None if output is type(None) else output
    return hint


def as_job(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with its command run and that one's stdout as what it gives back."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        command = function(*args, **kwargs)
        if not isinstance(command, Command):
            raise TypeError(
                f"expected {function.__qualname__} to give back a Command, as it is annotated, "
                f"but it gave back a value of type {type(command).__qualname__}"
            )
        output = output_of(typing.get_type_hints(function).get("return"))
        stdout = _runner.get()(command, output is not None)
        if output is None:
            return None
        return stdout if output is bytes else stdout.decode("utf-8", "replace")

    return run


def _argument(path: str, value: Any) -> str:
    plain: object = os.fspath(value) if hasattr(value, "__fspath__") else value
    if isinstance(plain, bool) or not isinstance(plain, str | int | float):
        raise invalid(path, f"text, a number or a path, got {type(plain).__qualname__}")
    text = str(plain)
    if "\0" in text:
        raise invalid(path, "without a NUL, which no program can be given")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise invalid(path, f"text that can be encoded, got {text!r}") from None
    return text
