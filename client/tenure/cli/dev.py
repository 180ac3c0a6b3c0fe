"""``tenure dev``: a master and workers as one process tree, for one machine.

```
 tenure dev ─┬─ tenure master --store sqlite:///…   started first; its serving line starts the rest
             └─ tenure worker APP --master …        one or more; stopped first, so that it can drain
                                                    (with --reload one, a supervisor of them all)
```
Nothing of gRPC runs in this process. The children have sessions of their own: Ctrl-C reaches only
this process, which then stops them in order. If it is killed, the kernel ends them.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tenure.cli import exits
from tenure.cli.configuration import CONFIG_VARIABLE
from tenure.cli.settings import SETTINGS
from tenure.worker.exits import EXIT_RESTART

#: How long a child may take to end after TERM, a worker's drain included.
STOP_TIMEOUT_S: Final = 35.0
#: More names of jobs than this are counted, not listed.
_LISTED_MAX: Final = 8
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DevConfig:
    """What ``tenure dev`` is started with.

    Attributes:
        app: Module to serve, or None for a master alone.
        data_dir: Where the store lies; made if missing.
        listen: Where the master listens.
        workers: How many worker processes.
        slots: Jobs each worker runs at once; None: the worker's default.
        ephemeral: Use a temporary directory instead of ``data_dir``.
        insecure: Allow an address that is not loopback.
        verbose: Let the children log more.
        quiet: Let the children log little.
        reload: Start workers again when a source file changes; a supervisor does that.
    """

    app: str | None
    data_dir: Path
    listen: str
    workers: int
    slots: int | None
    ephemeral: bool
    insecure: bool
    verbose: bool
    quiet: bool = False
    reload: bool = False


def run(config: DevConfig) -> int:
    """Runs until SIGINT or SIGTERM, or until a child fails. Returns the exit code."""
    with contextlib.ExitStack() as stack:
        directory = config.data_dir
        if config.ephemeral:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tenure-")))
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            exits.say(
                f"tenure: cannot make the data directory {directory}: {error.strerror}; "
                "name another one with --data-dir, or keep nothing with --ephemeral"
            )
            return exits.USAGE
        return asyncio.run(_Tree(config, directory.resolve()).run())


class _Tree:
    """The children, and the order in which they start and stop."""

    def __init__(self, config: DevConfig, directory: Path) -> None:
        self._config = config
        self._directory = directory
        self._store = f"sqlite://{directory / 'tenure.db'}"
        self._serving = asyncio.Event()
        self._stopping = asyncio.Event()
        self._address = ""
        self._workers: dict[int, Process] = {}
        self._introduced = False
        self._code = exits.OK

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        config = self._config
        arguments = ["master", "--store", self._store, "--listen", config.listen, "--name", "dev"]
        arguments += ["--insecure"] if config.insecure else []
        master = await self._start(arguments)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(master))
            try:
                if await self._until_serving():
                    # A supervisor numbers its workers itself.
                    programs = min(config.workers, 1) if config.reload else config.workers
                    for index in range(1, programs + 1):
                        worker = await self._start(self._worker_arguments(index))
                        self._workers[index] = worker
                        group.create_task(self._keep(index, worker))
                    self._greet()
                    await self._stopping.wait()
            finally:
                self._stopping.set()
                for child in self._workers.values():
                    _signal(child, signal.SIGTERM)
                for child in [*self._workers.values()]:
                    await _ended(child)
                _signal(master, signal.SIGTERM)
                await _ended(master)
        return self._code

    def _worker_arguments(self, index: int) -> list[str]:
        arguments = ["worker", str(self._config.app), "--master", self._address]
        if self._config.reload:
            arguments += ["--name", "dev", "--processes", str(self._config.workers), "--reload"]
        else:
            arguments += ["--name", f"dev-{index}"]
        if self._config.slots is not None:
            arguments += ["--slots", str(self._config.slots)]
        return arguments

    async def _start(self, arguments: list[str]) -> Process:
        config = self._config
        arguments = [*arguments, *(["--verbose"] if config.verbose else [])]
        arguments += ["--quiet"] if config.quiet else []
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tenure.cli",
            *arguments,
            env=_children_environment(os.environ, self._address),
            stdout=PIPE,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )

    async def _keep(self, index: int, worker: Process) -> None:
        """Follows a worker, and starts it again when it asks for that."""
        while await self._follow(worker) == EXIT_RESTART and not self._stopping.is_set():
            worker = await self._start(self._worker_arguments(index))
            self._workers[index] = worker
            if self._stopping.is_set():
                # It was started while the others were being told.
                _signal(worker, signal.SIGTERM)

    async def _follow(self, child: Process) -> int:
        """Passes a child's stdout through; if the child ends by itself, all end.

        Returns how it ended.
        """
        if child.stdout is not None:
            while line := await _next_line(child.stdout):
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
                self._notice(line)
        code = await child.wait()
        if code != EXIT_RESTART and not self._stopping.is_set():
            self._code = code if code > 0 else exits.JOB_FAILED
            if not exits.USAGE <= code <= exits.CONFLICT:
                # With those codes it has said itself what is wrong.
                exits.say(f"tenure: a child process ended with code {code}; stopping the others")
            self._stopping.set()
        return code

    def _notice(self, line: bytes) -> None:
        if not line.startswith(b'{"event"'):
            return
        with contextlib.suppress(ValueError, KeyError, TypeError):
            event = json.loads(line)
            if event["event"] == "serving" and not self._serving.is_set():
                self._address = event["address"]
                self._serving.set()
            elif event["event"] == "registered" and not self._introduced:
                self._introduced = True
                self._introduce(event["jobs"])

    async def _until_serving(self) -> bool:
        """Whether the master came up before something stopped us."""
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self._serving.wait())
            stopping = group.create_task(self._stopping.wait())
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            serving.cancel()
            stopping.cancel()
        return self._serving.is_set() and not self._stopping.is_set()

    def _greet(self) -> None:
        if self._config.quiet:
            return
        kept = "gone when this ends" if self._config.ephemeral else f"kept in {self._directory}"
        exits.say(f"serving on {self._address}; jobs are {kept}")
        if self._config.app is None:
            exits.say(f"next: tenure worker APP --master {self._address}")

    def _introduce(self, jobs: Sequence[str]) -> None:
        """The first worker is there: only now what it runs can be submitted and is run."""
        if self._config.quiet:
            return
        more = len(jobs) - _LISTED_MAX
        exits.say(
            f"running {', '.join(jobs[:_LISTED_MAX])}{f' and {more} more' if more > 0 else ''}"
        )
        flag = "" if self._address == "127.0.0.1:7400" else f" --address {self._address}"
        exits.say(f"next: tenure submit {jobs[0]} ARG… --wait{flag}   (Ctrl-C stops all)")


async def _next_line(stdout: asyncio.StreamReader) -> bytes:
    """A line of a child's; of one that is too long to be kept (a job's own print), a piece."""
    try:
        return await stdout.readuntil()
    except asyncio.LimitOverrunError as too_long:
        return await stdout.read(too_long.consumed)
    except asyncio.IncompleteReadError as end:
        return end.partial


def _children_environment(environ: Mapping[str, str], address: str) -> dict[str, str]:
    """Ours without settings: all of them come to the children as flags.

    What is meant for a cluster elsewhere (addresses, certificates, a store) is not meant for this;
    jobs that are clients, too, are clients of this one.
    """
    ours = {"TENURE_TOKEN", *(setting.variable for setting in SETTINGS)}
    kept = {name: value for name, value in environ.items() if name not in ours}
    ours_now = {"TENURE_ADDRESS": address} if address else {}
    return {**kept, **ours_now, CONFIG_VARIABLE: os.devnull}


def _signal(child: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(number)


async def _ended(child: Process) -> None:
    """Waits for a child that was asked to end, and kills it if it does not."""
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await child.wait()
    except TimeoutError:
        _signal(child, signal.SIGKILL)
        await child.wait()


def _end_with_parent() -> None:
    """In the child, before it becomes another program: TERM me when my parent dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
