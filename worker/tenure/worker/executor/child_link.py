"""One child process, as its worker sees it: its sockets, its jobs, its end."""

import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, NamedTuple

from tenure.worker.cgroup import Groups
from tenure.worker.executor import frame
from tenure.worker.executor.board import Board, new_page
from tenure.worker.executor.ending import Ending
from tenure.worker.executor.words import LastWords
from tenure.worker.held import HeldJob

_PAGE_KIB: Final = os.sysconf("SC_PAGE_SIZE") // 1024


class Given(NamedTuple):
    """A job that a child has and has not answered.

    Attributes:
        number: By which the two call it; they rise.
        job: The job.
        cost_us: How long it is going to take, by those before it.
    """

    number: int
    job: HeldJob
    cost_us: int


class Outflow:
    """A stream of bytes into a socket that may be full. Never waits."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._rest = b""

    @property
    def is_stuck(self) -> bool:
        """Whether something waits until the socket takes more."""
        return bool(self._rest)

    def push(self, data: bytes = b"") -> None:
        """Sends this, behind what waits."""
        data = self._rest + data
        try:
            sent = self.sock.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(data)  # The child is gone: whoever waits for its end finds out.
        self._rest = data[sent:]


class ChildLink:
    """One child. All calls come from one thread.

    Attributes:
        given: Jobs not answered, in order; the first one runs.
        is_ready: It has imported the application.
        has_slot: Jobs run in it, in a slot that it holds.
        is_old: It is to be replaced.
        is_leaving: It gets no more jobs, and is about to end.
        is_stalled: Nothing is put behind the job that runs.
        head_ms: Since when the first job is the first.
        due_ms: When it is killed unless it is ready, or has ended, by then; None: never.
        done: How many jobs it has run.
        base_kib: Its memory when it was ready.
        weighed_ms: When its memory was looked at.
    """

    def __init__(self, app: str, groups: Groups | None = None) -> None:
        """Starts the process.

        Args:
            app: What it imports.
            groups: Where it gets a control group of its own; None: it is in its worker's.

        Raises:
            OSError: It cannot be started.
            RuntimeError: The same: there can be no more threads.
        """
        self.given: deque[Given] = deque()
        self.is_ready = self.has_slot = self.is_old = self.is_leaving = self.is_stalled = False
        self.head_ms = self.done = self.base_kib = self.weighed_ms = 0
        self.due_ms: int | None = None
        self._killed = False
        self._number = 0
        self._groups = groups
        self._leaf = groups.leaf() if groups is not None else None
        with ExitStack() as kept, ExitStack() as theirs:
            kept.callback(self._end_leaf)
            ours = [kept.enter_context(sock) for sock in self._sockets(theirs)]
            page = new_page()
            theirs.callback(os.close, page)
            reader, writer = os.pipe()
            theirs.callback(os.close, writer)
            kept.callback(os.close, reader)
            self._process = self._start(app, page, writer)
            kept.callback(self._process.wait)
            kept.callback(self._kill_group)
            self.board = Board(os.dup(page))
            kept.callback(self.board.close)
            #: Readable when the process has ended.
            self.pidfd = os.pidfd_open(self._process.pid)
            kept.callback(os.close, self.pidfd)
            self._words = LastWords(reader)
            kept.pop_all()
        self.jobs, self.control = map(Outflow, ours)
        self.inflow = frame.inflow_of_parent()

    def _sockets(self, theirs: ExitStack) -> list[socket.socket]:
        ours: list[socket.socket] = []
        self._theirs: list[int] = []
        for _ in range(2):
            our, their = socket.socketpair()
            our.setblocking(False)
            ours.append(our)
            self._theirs.append(theirs.enter_context(their).fileno())
        return ours

    def _start(self, app: str, page: int, writer: int) -> subprocess.Popen[bytes]:
        # What this process can import the child can, wherever its path came from.
        path = os.pathsep.join(entry or os.curdir for entry in sys.path)
        passed = [*self._theirs, page]
        # A session of its own: killing it takes along what its jobs have started. Its stdout goes
        # to stderr: the worker's own stdout is for events.
        level = str(logging.getLogger().getEffectiveLevel())
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "tenure.worker.child"),
                *(*map(str, passed), str(os.getpid()), app, level),
                *([self.leaf] if self.leaf else []),
            ],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            env={**os.environ, "PYTHONPATH": path},
            pass_fds=passed,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def leaf(self) -> str:
        """The folder of its control group; empty: it has none of its own."""
        return str(self._leaf.folder) if self._leaf is not None else ""

    @property
    def is_idle(self) -> bool:
        """Whether it can have a job at once."""
        return self.is_ready and not self.has_slot and not self.is_leaving

    @property
    def ahead_us(self) -> int:
        """How long its jobs are going to take."""
        return sum(given.cost_us for given in self.given)

    def give(self, jobs: list[tuple[HeldJob, int]]) -> None:
        """Gives it jobs, with what they cost, in one write."""
        data: list[bytes] = []
        for job, cost_us in jobs:
            self._number += 1
            self.given.append(Given(self._number, job, cost_us))
            data.append(frame.packed(_run_of(self._number, job)))
        self.jobs.push(b"".join(data))

    def say(self, said: frame.Stop | frame.Lease | frame.Answer) -> None:
        """Says something to a job."""
        self.control.push(frame.packed(said))

    def has_begun(self, number: int) -> bool:
        """Whether a job's turn has come."""
        return self.board.begun >= number

    def running(self, number: int) -> HeldJob | None:
        """The job of this number, if it is its turn."""
        return self.given[0].job if self.given and self.given[0].number == number else None

    def take_back(self) -> list[HeldJob]:
        """Takes back all jobs that have not begun, in order."""
        if not self.given:
            return []
        begun = self.board.take_back(self.given[-1].number)
        taken: list[HeldJob] = []
        while self.given and self.given[-1].number > begun:
            taken.append(self.given.pop().job)
        return taken[::-1]

    def hear(self) -> list[frame.ToParent] | None:
        """What it says; None: it has closed its end.

        Raises:
            BrokenFrame: That cannot be read.
        """
        try:
            data = self.jobs.sock.recv(frame.READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return self.inflow.frames(data) if data else None

    def retire(self, due_ms: int) -> None:
        """Lets it end in order: it has no job, and gets none.

        Args:
            due_ms: When it is killed if it has not: threads that its jobs have left may keep it.
        """
        self.is_leaving = True
        self.due_ms = due_ms
        with suppress(OSError):
            self.jobs.sock.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """Kills it and everything that it has started. Idempotent."""
        self._killed = True
        self._kill_group()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def memory_kib(self) -> int:
        """How much memory it has now; 0 when it is gone."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_bytes().split()[1]) * _PAGE_KIB
        except (OSError, IndexError):
            return 0

    def bury(self, memory_max: int = 0) -> Ending:
        """Reaps it, and ends what it has started. Waits for its end.

        Args:
            memory_max: The limit on memory of the job that ran, in bytes; 0: it had none.
        """
        self._kill_group()
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        for sock in (self.jobs.sock, self.control.sock):
            sock.close()
        os.close(self.pidfd)
        self.board.close()
        ending = Ending(self._process.returncode, usage.ru_maxrss, self._words.last(), self._killed)
        if self._leaf is not None and memory_max and not self._killed:
            ending = ending.by_group(self._leaf, memory_max)
        self._end_leaf()
        return ending

    def _end_leaf(self) -> None:
        if self._groups is not None and self._leaf is not None:
            self._groups.end(self._leaf)


def _run_of(number: int, job: HeldJob) -> frame.Run:
    terms = job.terms
    return frame.Run(
        number,
        job.job_id,
        terms.name,
        job.lease.fence,
        job.attempt,
        job.expires_ms,
        job.deadline_ms,
        terms.timeout_ms,
        terms.content_type,
        [*terms.non_retryable],
        job.payload,
        job.resume,
    )
