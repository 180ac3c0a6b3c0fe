"""The process that starts a worker's commands, and ends them when the worker dies.

It has one thread and little memory, so it can be forked: between fork and exec a command gets its
session, its limits, and a signal that kills it when this process dies. The worker itself cannot do
that, with its threads and gRPC. It runs nobody's code, and lives as long as its worker: when that
one is gone, it kills the groups of all commands and all children, whatever these have started.

What a command says goes to the worker ten times a second, of much of it the beginning and the end:
one that writes without end costs neither of the two much.
"""

import ctypes
import errno
import os
import resource
import selectors
import signal
import socket
import sys
from contextlib import ExitStack, suppress
from functools import partial
from time import monotonic
from typing import Final, NoReturn

from tenure.protocol.vocabulary import LogStream
from tenure.worker.executor.excerpt import Excerpt
from tenure.worker.executor.launch import (
    TROUBLE,
    Finished,
    Guard,
    Launch,
    Release,
    Said,
    Signal,
    inflow_of_launcher,
)
from tenure.worker.executor.stream import READ_BYTES, BrokenFrame, send, waiting_bytes

#: How much of the end of a command's stderr is kept.
STDERR_BYTES: Final = 8 * 1024
#: What commands write within this time goes together.
PAUSE_S: Final = 0.1
#: How a process says that it could not become what it should.
_UNUSABLE: Final = 127
_PR_SET_PDEATHSIG: Final = 1
#: What is not the command's fault.
_TROUBLES: Final = frozenset({errno.EAGAIN, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
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
        self.size = self.read_bytes = 0
        self.stderr = b""
        self.is_cut = False
        #: What the worker has not been told.
        self.words = {LogStream.STDOUT: Excerpt(), LogStream.STDERR: Excerpt()}
        with ExitStack() as kept, ExitStack() as theirs:
            self.out, their_out = _pipe(kept, theirs)
            self.err, their_err = _pipe(kept, theirs)
            self.flaw, their_flaw = _pipe(kept, theirs)
            source = os.memfd_create("stdin")
            theirs.callback(os.close, source)
            with open(source, "wb", closefd=False) as file:
                file.write(launch.stdin)
            os.lseek(source, 0, os.SEEK_SET)
            parent = os.getpid()
            self.pid = os.fork()
            if self.pid == 0:
                _become(launch, source, their_out, their_err, their_flaw, parent)
            kept.callback(os.waitpid, self.pid, 0)
            kept.callback(os.kill, self.pid, signal.SIGKILL)
            self.pidfd = os.pidfd_open(self.pid)
            kept.pop_all()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal to it and to all that it has started."""
        if number == signal.SIGKILL:
            _kill_leaf(self.launch.leaf)
        with suppress(PermissionError):
            while True:
                try:
                    os.killpg(self.pid, number)
                    return
                except ProcessLookupError:
                    # It has no group yet, but for a moment only, unless it is dead. What it is to
                    # ignore it blocks until then, and meets it later.
                    if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                        return
                    os.sched_yield()

    def take(self, descriptor: int) -> bool:
        """Reads some of its output. False: there is none, or no more."""
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return False
        self.read_bytes += len(data)
        is_stdout = descriptor == self.out
        if is_stdout and self.launch.wanted:
            self.size += len(data)
            if self.size <= self.launch.bytes_max:
                self.stdout.append(data)
            elif not self.is_cut:
                self.is_cut = True
                self.kill()
        else:
            self.stderr = (self.stderr + data)[-STDERR_BYTES:]
            self.words[LogStream.STDOUT if is_stdout else LogStream.STDERR].add(data)
        return bool(data)

    def said(self) -> list[Said]:
        """What it has written since this was asked last."""
        return [
            Said(self.launch.number, stream, skipped, data)
            for stream, words in self.words.items()
            if words
            for skipped, data in words.take()
        ]

    def finish(self) -> Finished:
        """Reaps it, and ends what it has left behind."""
        self.kill()
        _, status, usage = os.wait4(self.pid, 0)
        for descriptor in (self.out, self.err):
            # What has left its group may write on for ever.
            end = self.read_bytes + waiting_bytes(descriptor)
            while self.read_bytes < end and self.take(descriptor):
                pass
        refusal = b""
        with suppress(BlockingIOError):
            refusal = os.read(self.flaw, READ_BYTES)
        for descriptor in (self.out, self.err, self.flaw, self.pidfd):
            os.close(descriptor)
        stdout = b"".join(self.stdout)
        if status or self.is_cut:
            # It is nobody's result any more, and may say what went wrong.
            self.words[LogStream.STDOUT].add(stdout)
            stdout = b""
        return Finished(
            self.launch.number,
            os.waitstatus_to_exitcode(status),
            stdout,
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


def _pipe(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    """A pipe that is read here and written there."""
    reader, writer = os.pipe()
    ours.callback(os.close, reader)
    theirs.callback(os.close, writer)
    os.set_blocking(reader, False)
    return reader, writer


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
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for wanted, descriptor in enumerate((source, out, err)):
            os.dup2(descriptor, wanted)
        os.nice(launch.nice)
        if launch.cwd:
            where = f"its working directory {os.fsdecode(launch.cwd)}: "
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
        trouble = TROUBLE if error.errno in _TROUBLES else ""
        os.write(flaw, os.fsencode(f"{trouble}{where}{error.strerror}"))
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
        #: When what was said is to be told; None: nothing was.
        self._tell_s: float | None = None

    def serve(self) -> None:
        """Works until the worker is gone; then all that it has started goes, too."""
        self._selector.register(self._sock, selectors.EVENT_READ, self._hear)
        try:
            while True:
                for key, _ in self._selector.select(self._patience_s()):
                    # One that has ended takes along what was said of its output.
                    if key.fd in self._selector.get_map():
                        key.data()
                if self._patience_s() == 0:
                    self._tell()
        except BrokenFrame:
            pass
        finally:
            for running in self._running.values():
                running.kill()
            for group, leaf in self._guarded.items():
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGKILL)
                _kill_leaf(leaf)

    def _patience_s(self) -> float | None:
        """How long nothing needs to be told."""
        return None if self._tell_s is None else max(0.0, self._tell_s - monotonic())

    def _tell(self) -> None:
        """Tells the worker what all commands have said."""
        self._tell_s = None
        for running in self._running.values():
            if said := running.said():
                send(self._sock, *said)

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
            # Too many processes or files.
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
        elif self._tell_s is None and any(running.words.values()):
            self._tell_s = monotonic() + PAUSE_S

    def _ended(self, running: _Running) -> None:
        known = self._selector.get_map()
        for descriptor in (running.out, running.err, running.pidfd):
            if descriptor in known:
                self._selector.unregister(descriptor)
        del self._running[running.launch.number]
        finished = running.finish()
        send(self._sock, *running.said(), finished)


def main(arguments: list[str]) -> int:
    """Entry point. Argument: the descriptor of a socket."""
    # The terminal's signals go to the whole group; the worker decides what they mean. They are
    # blocked, too, so that a command meets those that come before it is ready for them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, _RESTORED)
    sock = socket.socket(fileno=int(arguments[0]))
    sock.set_inheritable(False)
    Launcher(sock).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
