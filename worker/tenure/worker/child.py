"""A child process: ``tenure.worker.child JOBS CONTROL BOARD PARENT APP LEVEL [LEAF]``.

It takes jobs over one inherited socket and answers on it, one job at a time, in order. User code
runs in the main thread, where signals and C libraries expect it; a second thread reads what the
parent says meanwhile, over a socket of its own. An answer leaves as soon as it is there, so that a
job which ends the process takes no other one's result along. When the parent is gone, the child
ends at once; when it is paused, the child knows its lease's deadline.
"""

import asyncio
import contextvars
import faulthandler
import itertools
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from time import monotonic, perf_counter_ns
from typing import NoReturn

from tenure.client.confinement import Limits
from tenure.protocol.errors import Rejected, error_of, refusal_from_wire
from tenure.protocol.fence import parse_fence
from tenure.protocol.ids import partition_of
from tenure.v1 import common_pb2, jobs_pb2
from tenure.worker import app, capture
from tenure.worker.attempt import JobTable, context_of, raised
from tenure.worker.cgroup import Leaf
from tenure.worker.clock import SystemClock
from tenure.worker.confinement import Confinement
from tenure.worker.executor import frame
from tenure.worker.executor.board import Board
from tenure.worker.held import AttemptResult, HeldJob, Terms
from tenure.worker.launcher import die_with_parent
from tenure.worker.middleware import function_runner
from tenure.worker.teller import Teller

#: Exit statuses that the parent's log explains.
EXIT_PARENT_GONE = 3
EXIT_APP = 4
PROGRESS_S_MIN = 0.2
#: As that of the worker's own log.
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class Child:
    """The child's side of the sockets.

    Args:
        sock: Jobs come and answers go here.
        control: What the parent says to the job that runs.
        board: Which jobs have begun, and which were taken back.
        jobs: The functions.
        leaf: Its control group, if it has one of its own.
    """

    def __init__(
        self,
        sock: socket.socket,
        control: socket.socket,
        board: Board,
        jobs: JobTable,
        leaf: Leaf | None = None,
    ) -> None:
        self._sock = sock
        self._control = control
        self._board = board
        self._jobs = jobs
        self._leaf = leaf
        self._run = function_runner(jobs)
        #: Where threads wait for the answers to what they have asked.
        self._answers: dict[int, SimpleQueue[frame.Answer]] = {}
        self._asks = itertools.count(1)
        #: The job that runs, or ran last, by its number.
        self._current: tuple[int, HeldJob] | None = None
        #: What was said of leases, and that jobs are to stop, before their turns came.
        self._early: dict[int, frame.Lease] = {}
        self._early_stops: dict[int, frame.Stop] = {}
        self._sending = threading.Lock()
        self._teller = Teller(self._say)
        self._progressed = 0.0
        self._clock = SystemClock()

    def serve(self) -> None:
        """Runs jobs for as long as the parent has any to give.

        Raises:
            BrokenFrame: The parent is gone, or wants no more of this child.
        """
        threading.Thread(target=self._listen, name="tenure-parent", daemon=True).start()
        self._say(frame.Ready())
        inflow = frame.inflow_of_child()
        while True:
            for said in frame.receive(self._sock, inflow):
                if isinstance(said, frame.Run):
                    self._serve(said)

    def _serve(self, run: frame.Run) -> None:
        number = run.number
        if not self._board.begin(number):
            self._early.pop(number, None)
            self._early_stops.pop(number, None)
            self._say(frame.Skipped(number))
            return
        job = _job_of(run)
        self._current = (number, job)
        self._teller.begin(number, job)
        self._catch_up(number, job)
        definition = self._jobs.get(run.name)
        limits = definition.limits if definition is not None else None
        begun_ns = perf_counter_ns()
        is_spent = False
        if limits is None:
            result = contextvars.Context().run(self._attempt, number, job)
        else:
            result, is_spent = self._attempt_confined(number, job, limits)
        run_us = (perf_counter_ns() - begun_ns) // 1000
        fault = tuple(result.fault) if result.fault is not None else None
        self._teller.end(
            frame.Ended(
                number,
                run_us,
                result.outcome,
                result.result,
                fault,  # type: ignore[arg-type]
                is_spent,
            )
        )

    def _say(self, *said: frame.ToParent) -> None:
        # Threads that a job has started may have something to say, too.
        with self._sending:
            frame.send(self._sock, *said)

    def _listen(self) -> NoReturn:
        inflow = frame.inflow_of_child()
        while True:
            try:
                heard = frame.receive(self._control, inflow)
            except frame.BrokenFrame:
                _end_with_parent()
            for said in heard:
                self._hear(said)

    def _hear(self, said: frame.ToChild) -> None:
        match said:
            case frame.Answer(ask):
                answers = self._answers.get(ask)
                if answers is not None:
                    answers.put(said)
            # First the note, then the look at who runs; the other thread does it the other way
            # round, so one of the two finds it.
            case frame.Stop(number):
                self._early_stops[number] = said
                self._catch_up_to(number)
            case frame.Lease(number):
                self._early[number] = said
                self._catch_up_to(number)
            case _:
                pass

    def _catch_up_to(self, number: int) -> None:
        """Tells the job that runs what was said to it; what is for one before it is for nobody."""
        current = self._current
        if current is not None and current[0] >= number:
            self._catch_up(*current)
            self._early.pop(number, None)
            self._early_stops.pop(number, None)

    def _catch_up(self, number: int, job: HeldJob) -> None:
        lease = self._early.pop(number, None)
        if lease is not None:
            job.expires_ms = lease.expires_ms
            job.revoked = lease.revoked
            job.wanted_back = lease.wanted_back
        if self._early_stops and (stop := self._early_stops.pop(number, None)) is not None:
            job.stop = stop.outcome

    def _attempt_confined(
        self, number: int, job: HeldJob, limits: Limits
    ) -> tuple[AttemptResult, bool]:
        """Runs a job within its limits. Also tells whether this child is left with some of them."""
        try:
            confinement = Confinement(limits, self._leaf)
        except (OSError, ValueError) as error:
            return raised(job, error), True
        result = contextvars.Context().run(self._attempt, number, job)
        return result, not confinement.lift()

    def _attempt(self, number: int, job: HeldJob) -> AttemptResult:
        progress, save = partial(self._progress, number), partial(self._save, number)
        context = context_of(job, self._clock, progress, save, self._teller.word)
        job.parents = self
        return self._run(self._jobs, job, lambda: context)

    # Where the results of parents come from.

    def fetch(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        ask, answers = next(self._asks), SimpleQueue[frame.Answer]()
        self._answers[ask] = answers
        found: list[jobs_pb2.JobResult] = []
        try:
            self._say(frame.Ask(ask, [*job_ids]))
            while True:
                answer = answers.get()
                if answer.refusal:
                    raise error_of(refusal_from_wire(common_pb2.Refusal.FromString(answer.refusal)))
                found += map(jobs_pb2.JobResult.FromString, answer.results)
                if not answer.more:
                    return found
        finally:
            del self._answers[ask]

    async def fetch_async(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        return await asyncio.to_thread(self.fetch, job_ids)

    def _progress(self, number: int, pct: float) -> None:
        # The parent's heartbeats carry it: more often than this nobody would see.
        now = monotonic()
        if now - self._progressed >= PROGRESS_S_MIN:
            self._progressed = now
            self._say(frame.Progress(number, pct))

    def _save(self, number: int, data: bytes) -> None:
        # Each at once: if the next step takes this process along, the parent has it.
        self._say(frame.Saved(number, data))


def _job_of(run: frame.Run) -> HeldJob:
    lease = parse_fence(run.fence)
    return HeldJob(
        job_id=run.job_id,
        partition=partition_of(run.job_id),
        token=lease.token,
        seq=lease.seq,
        run=lease.run,
        terms=Terms(
            run.name,
            timeout_ms=run.timeout_ms,
            content_type=run.content_type,
            non_retryable=frozenset(run.non_retryable),
        ),
        payload=run.payload,
        resume=run.resume,
        attempt=run.attempt,
        deadline_ms=run.deadline_ms,
        expires_ms=run.expires_ms,
    )


def _end_with_parent() -> NoReturn:
    """Ends this process, and with it what its jobs have started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(EXIT_PARENT_GONE)


def main(arguments: list[str]) -> int:
    """Entry point.

    Arguments: three descriptors, the parent, the application, the log's level, and the folder of a
    control group, if there is one for this process.
    """
    jobs_fd, control_fd, board_fd, parent = map(int, arguments[:4])
    die_with_parent(parent)
    leaf = Leaf(Path(arguments[6])) if len(arguments) > 6 else None
    if leaf is not None:
        leaf.join()
    # The terminal's Ctrl-C goes to the whole group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A crash says where: the parent keeps the last of what comes over stderr.
    faulthandler.enable(all_threads=False)
    faulthandler.register(signal.SIGXCPU, all_threads=False, chain=True)
    sock, control = socket.socket(fileno=jobs_fd), socket.socket(fileno=control_fd)
    for inherited in (sock, control):
        # What jobs start must not hold them open.
        inherited.set_inheritable(False)
    board = Board(board_fd)
    try:
        logging.basicConfig(stream=sys.stderr, level=int(arguments[5]), format=LOG_FORMAT)
        jobs = app.load(arguments[4])
        capture.install()
    except Rejected as error:
        sys.stderr.write(f"{error.message}\n")
        return EXIT_APP
    try:
        Child(sock, control, board, jobs, leaf).serve()
    except frame.BrokenFrame:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
