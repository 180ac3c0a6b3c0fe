"""The process that starts a worker's commands, and ends them when the worker dies.

It has one thread and little memory, so it can be forked: between fork and exec a command gets its
session, its limits, and a signal that kills it when this process dies. The worker itself cannot do
that, with its threads and gRPC. It runs nobody's code, and lives as long as its worker: when that
one is gone, it kills the groups of all commands and all children, whatever these have started.
"""

import ctypes
import os
import resource
import selectors
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from typing import Final, NoReturn

from tenure.worker.executor.launch import (
    TROUBLE,
    Finished,
    Guard,
    Launch,
    Release,
    Signal,
    inflow_of_launcher,
)
from tenure.worker.executor.stream import READ_BYTES, BrokenFrame, send

#: How much of the end of a command's stderr is kept.
STDERR_BYTES: Final = 8 * 1024
#: How a process says that it could not become what it should.
_UNUSABLE: Final = 127
_PR_SET_PDEATHSIG: Final = 1
#: What this process, or Python, ignores, and commands are to meet as others do.
_RESTORED: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGPIPE,
    signal.SIGTERM,
    signal.SIGXFSZ,
)
#: Bound to the C library before there is anything to start.
_prctl: Final = ctypes.CDLL(None).prctl


def die_with_parent(parent: int) -> None:
    """Has this process killed when the thread that has started it ends.

    Args:
        parent: The id of that thread's process; if it is gone already, this process ends here.
    """
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class _Running:
    """A command that has been started."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.stdout: list[bytes] = []
        self.size = 0
        self.stderr = b""
        self.is_cut = False
        out, their_out = os.pipe()
        err, their_err = os.pipe()
        flaw, their_flaw = os.pipe()
        source = os.memfd_create("stdin")
        with open(source, "wb", closefd=False) as file:
            file.write(launch.stdin)
        os.lseek(source, 0, os.SEEK_SET)
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _become(launch, source, their_out, their_err, their_flaw, parent)
        for descriptor in (source, their_out, their_err, their_flaw):
            os.close(descriptor)
        self.out, self.err, self.flaw = out, err, flaw
        self.pidfd = os.pidfd_open(self.pid)
        for descriptor in (out, err, flaw):
            os.set_blocking(descriptor, False)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal to it and to all that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        if number == signal.SIGKILL:
            _kill_leaf(self.launch.leaf)

    def take(self, descriptor: int) -> bool:
        """Reads some of its output. False: there is none, or no more."""
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return False
        if descriptor == self.out and self.launch.wanted:
            self.size += len(data)
            if self.size <= self.launch.bytes_max:
                self.stdout.append(data)
            elif not self.is_cut:
                self.is_cut = True
                self.kill()
        else:
            self.stderr = (self.stderr + data)[-STDERR_BYTES:]
        return bool(data)

    def finish(self) -> Finished:
        """Reaps it, and ends what it has left behind."""
        self.kill()
        _, status, usage = os.wait4(self.pid, 0)
        for descriptor in (self.out, self.err):
            while self.take(descriptor):
                pass
        refusal = b""
        with suppress(BlockingIOError):
            refusal = os.read(self.flaw, READ_BYTES)
        for descriptor in (self.out, self.err, self.flaw, self.pidfd):
            os.close(descriptor)
        return Finished(
            self.launch.number,
            os.waitstatus_to_exitcode(status),
            b"" if self.is_cut else b"".join(self.stdout),
            self.stderr,
            usage.ru_maxrss,
            self.is_cut,
            refusal.decode("utf-8", "replace"),
        )


def _kill_leaf(folder: str) -> None:
    """Kills what is in a control group, if there is one: also what has left its process group."""
    if folder:
        # A kernel before 5.14 does not have this; there the worker kills what it finds.
        with suppress(OSError):
            _write(f"{folder}/cgroup.kill", b"1")


def _write(file: str, data: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _become(launch: Launch, source: int, out: int, err: int, flaw: int, parent: int) -> NoReturn:
    """In the new process: becomes the command."""
    where = ""
    try:
        os.setsid()
        if launch.leaf:
            where = f"{TROUBLE}its control group {launch.leaf}: "
            _write(f"{launch.leaf}/cgroup.procs", b"0")
            where = ""
        for number in _RESTORED:
            signal.signal(number, signal.SIG_DFL)
        for wanted, descriptor in enumerate((source, out, err)):
            os.dup2(descriptor, wanted)
        os.nice(launch.nice)
        if launch.cwd:
            where = f"its working directory {launch.cwd}: "
            os.chdir(launch.cwd)
            where = ""
        for kind, soft, hard in launch.limits:
            most = resource.getrlimit(kind)[1]
            if most != resource.RLIM_INFINITY:
                soft, hard = min(soft, most), min(hard, most)
            resource.setrlimit(kind, (soft, hard))
        die_with_parent(parent)
        os.execvpe(launch.argv[0], launch.argv, launch.env)
    except OSError as error:
        os.write(flaw, f"{where}{error.strerror}".encode())
    except ValueError as error:
        os.write(flaw, str(error).encode())
    finally:
        os._exit(_UNUSABLE)


class Launcher:
    """The commands of one worker.

    Args:
        sock: The worker's end is the other one.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._inflow = inflow_of_launcher()
        self._running: dict[int, _Running] = {}
        #: Groups of processes, with their control groups.
        self._guarded: dict[int, str] = {}
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Works until the worker is gone; then all that it has started goes, too."""
        self._selector.register(self._sock, selectors.EVENT_READ, self._hear)
        try:
            while True:
                for key, _ in self._selector.select():
                    # One that has ended takes along what was said of its output.
                    if key.fd in self._selector.get_map():
                        key.data()
        except BrokenFrame:
            pass
        finally:
            for running in self._running.values():
                running.kill()
            for group, leaf in self._guarded.items():
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGKILL)
                _kill_leaf(leaf)

    def _hear(self) -> None:
        try:
            data = self._sock.recv(READ_BYTES)
        except OSError as error:
            raise BrokenFrame from error
        if not data:
            raise BrokenFrame
        for said in self._inflow.frames(data):
            match said:
                case Launch():
                    self._launch(said)
                case Signal(number, what):
                    if number in self._running:
                        self._running[number].kill(what)
                case Guard(group, leaf):
                    self._guarded[group] = leaf
                case Release(group):
                    self._guarded.pop(group, None)

    def _launch(self, launch: Launch) -> None:
        try:
            running = _Running(launch)
        except OSError as error:
            # Too many processes or files: the command is not to blame.
            send(self._sock, Finished(launch.number, -1, b"", b"", 0, False, f"{TROUBLE}{error}"))
            return
        self._running[launch.number] = running
        for descriptor in (running.out, running.err):
            self._selector.register(
                descriptor, selectors.EVENT_READ, partial(self._read, running, descriptor)
            )
        self._selector.register(running.pidfd, selectors.EVENT_READ, partial(self._ended, running))

    def _read(self, running: _Running, descriptor: int) -> None:
        if not running.take(descriptor):
            self._selector.unregister(descriptor)

    def _ended(self, running: _Running) -> None:
        known = self._selector.get_map()
        for descriptor in (running.out, running.err, running.pidfd):
            if descriptor in known:
                self._selector.unregister(descriptor)
        del self._running[running.launch.number]
        send(self._sock, running.finish())


def main(arguments: list[str]) -> int:
    """Entry point. Argument: the descriptor of a socket."""
    # The terminal's signals go to the whole group; the worker decides what they mean.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sock = socket.socket(fileno=int(arguments[0]))
    sock.set_inheritable(False)
    Launcher(sock).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
