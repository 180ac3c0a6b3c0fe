"""A child process that runs plain functions, one after the other: ``tenure.worker.child FD APP``.

It takes jobs over an inherited socket and answers on it. User code runs in the main thread, where
signals and C libraries expect it; a second thread reads what the parent says meanwhile. When the
parent is gone, the child ends at once; when it is paused, the child knows its lease's deadline.
"""

import asyncio
import contextvars
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from queue import SimpleQueue
from time import monotonic

from tenure.protocol.errors import Rejected, error_of, refusal_from_wire
from tenure.protocol.fence import parse_fence
from tenure.protocol.ids import partition_of
from tenure.v1 import common_pb2, jobs_pb2
from tenure.worker import app
from tenure.worker.attempt import JobTable, context_of
from tenure.worker.clock import SystemClock
from tenure.worker.executor import frame
from tenure.worker.held import AttemptResult, HeldJob, Terms
from tenure.worker.middleware import function_runner

#: Exit statuses that the parent's log explains.
EXIT_PARENT_GONE = 3
EXIT_APP = 4
PROGRESS_S_MIN = 0.2


class Child:
    """The child's side of the socket."""

    def __init__(self, sock: socket.socket, jobs: JobTable) -> None:
        self._sock = sock
        self._jobs = jobs
        self._run = function_runner(jobs)
        self._queue: SimpleQueue[HeldJob] = SimpleQueue()
        self._answers: SimpleQueue[frame.Answer] = SimpleQueue()
        self._current: HeldJob | None = None
        self._progressed = 0.0
        self._clock = SystemClock()

    def serve(self) -> None:
        """Runs jobs for as long as the parent lives."""
        threading.Thread(target=self._listen, name="tenure-parent", daemon=True).start()
        frame.send(self._sock, frame.Ready())
        while True:
            job = self._queue.get()
            result = contextvars.Context().run(self._attempt, job)
            fault = tuple(result.fault) if result.fault is not None else None
            frame.send(
                self._sock,
                frame.Ended(result.outcome, result.result, fault),  # type: ignore[arg-type]
            )

    def _listen(self) -> None:
        while True:
            try:
                said = frame.receive_in_child(self._sock)
            except frame.BrokenFrame:
                os._exit(EXIT_PARENT_GONE)
            match said:
                case frame.Run():
                    self._current = _job_of(said)
                    self._queue.put(self._current)
                case frame.Stop(outcome=outcome) if self._current is not None:
                    self._current.stop = outcome
                case frame.Answer():
                    self._answers.put(said)
                case frame.Lease() as lease if self._current is not None:
                    self._current.expires_ms = lease.expires_ms
                    self._current.revoked = lease.revoked
                case _:
                    pass

    def _attempt(self, job: HeldJob) -> AttemptResult:
        context = context_of(job, self._clock, self._progress)
        job.parents = self
        return self._run(self._jobs, job, lambda: context)

    # Where the results of parents come from.

    def fetch(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        frame.send(self._sock, frame.Ask([*job_ids]))
        answer = self._answers.get()
        if answer.refusal:
            raise error_of(refusal_from_wire(common_pb2.Refusal.FromString(answer.refusal)))
        return [jobs_pb2.JobResult.FromString(row) for row in answer.results]

    async def fetch_async(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        return await asyncio.to_thread(self.fetch, job_ids)

    def _progress(self, pct: float) -> None:
        # The parent's heartbeats carry it: more often than this nobody would see.
        now = monotonic()
        if now - self._progressed >= PROGRESS_S_MIN:
            self._progressed = now
            frame.send(self._sock, frame.Progress(pct))


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
        attempt=run.attempt,
        deadline_ms=run.deadline_ms,
        expires_ms=run.expires_ms,
    )


def main(arguments: list[str]) -> int:
    """Entry point. Arguments: the socket's file descriptor, the application's module."""
    descriptor, module = arguments
    # The terminal's Ctrl-C goes to the whole group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=int(descriptor))
    try:
        jobs = app.load(module)
    except Rejected as error:
        sys.stderr.write(f"{error.message}\n")
        return EXIT_APP
    try:
        Child(sock, jobs).serve()
    except frame.BrokenFrame:
        return EXIT_PARENT_GONE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
