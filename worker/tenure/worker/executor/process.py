"""Plain functions in spawned child processes: what they crash, leak or block is theirs alone.

Each child has a thread here that feeds it one job at a time and waits for the answer. Children are
started before there is work; a child that dies, or whose answer cannot be read, costs the attempt
it ran (LOST) and is replaced. Children are spawned, never forked: a copy of a process that uses
gRPC deadlocks.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import Final

from tenure.client.parent_result import Results
from tenure.protocol.errors import TenureError, refusal_to_wire
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.attempt import stopped
from tenure.worker.executor import frame
from tenure.worker.executor.runner import Stage
from tenure.worker.held import AttemptResult, HeldJob

_LOGGER: Final = logging.getLogger(__name__)
#: An application that takes longer to import is not going to.
READY_S_MAX: Final = 60.0
#: Pause after a child that never became ready.
RESPAWN_S: Final = 1.0
#: The standard streams of children: nothing to read, and stdout is the worker's own.
_STDERR: Final = 2


class Child:
    """One child process and its socket."""

    def __init__(self, app: str) -> None:
        ours, theirs = socket.socketpair()
        self._sock = ours
        self._lock = threading.Lock()
        # What this process can import the child can, wherever its path came from.
        path = os.pathsep.join(entry or os.curdir for entry in sys.path)
        descriptor = theirs.fileno()
        command = [sys.executable, "-m", "tenure.worker.child", str(descriptor), app]
        try:
            # A session of its own: killing it takes along what the job has started.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=_STDERR,
                env={**os.environ, "PYTHONPATH": path},
                pass_fds=(descriptor,),
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()

    def wait_ready(self) -> bool:
        """Waits until it has imported the application."""
        self._sock.settimeout(READY_S_MAX)
        try:
            ready = isinstance(frame.receive_in_parent(self._sock), frame.Ready)
        except frame.BrokenFrame:
            return False
        self._sock.settimeout(None)
        return ready

    def run(self, job: HeldJob) -> AttemptResult | None:
        """Runs one job. None: the child is of no more use."""
        terms = job.terms
        request = frame.Run(
            job_id=job.job_id,
            name=terms.name,
            fence=job.lease.fence,
            attempt=job.attempt,
            expires_ms=job.expires_ms,
            deadline_ms=job.deadline_ms,
            timeout_ms=terms.timeout_ms,
            content_type=terms.content_type,
            non_retryable=list(terms.non_retryable),
            payload=job.payload,
        )
        try:
            with self._lock:
                frame.send(self._sock, request)
            # What was said while the lock was taken.
            if job.stop is not None:
                self.tell(frame.Stop(job.stop))
            if job.revoked or job.expires_ms != request.expires_ms:
                self.tell(frame.Lease(job.expires_ms, job.revoked))
            while True:
                match frame.receive_in_parent(self._sock):
                    case frame.Progress(pct=pct):
                        job.progress = pct
                    case frame.Ask(job_ids=job_ids) if job.parents is not None:
                        answer = _answer(job.parents, job_ids)
                        with self._lock:
                            frame.send(self._sock, answer)
                    case frame.Ended() as ended:
                        return ended.as_result()
                    case _:
                        return None
        except frame.BrokenFrame:
            return None

    def tell(self, said: frame.Stop | frame.Lease) -> None:
        """Says something to a running job, if that is possible without waiting.

        The session's thread calls this, so it must not block. What a deaf child misses does not
        matter: it is killed when its grace is over.
        """
        if self._lock.acquire(blocking=False):
            try:
                frame.send_at_once(self._sock, said)
            except frame.BrokenFrame:
                pass  # The thread that waits for its answer finds out.
            finally:
                self._lock.release()

    def is_alive(self) -> bool:
        """Whether the process still exists."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kills it and everything that it has started. Idempotent."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def bury(self) -> int:
        """Kills and reaps it. Returns its exit status."""
        self.kill()
        self._sock.close()
        return self._process.wait()


def _answer(parents: Results, job_ids: list[str]) -> frame.Answer:
    """What a child that asked for results is told."""
    try:
        return frame.Answer([row.SerializeToString() for row in parents.fetch(job_ids)])
    except TenureError as error:
        return frame.Answer([], refusal_to_wire(error.to_refusal()).SerializeToString())


class ProcessExecutor:
    """Children: one a core from the start, more as jobs wait for one, at most one a slot."""

    def __init__(self, stage: Stage, app: str, children: int) -> None:
        self._stage = stage
        self._app = app
        self._queue: SimpleQueue[HeldJob | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._children: set[Child] = set()
        self._running: dict[HeldJob, Child] = {}
        self._closing = threading.Event()
        self._children_max = children
        self._threads: list[threading.Thread] = []
        #: Children that wait for a job, minus jobs that wait for a child.
        self._spare = 0

    def start(self) -> None:
        """Starts the first children, without waiting until they are ready."""
        with self._lock:
            for _ in range(min(self._children_max, os.cpu_count() or 1)):
                self._add_child()

    def submit(self, jobs: list[HeldJob]) -> None:
        """Queues jobs that have slots."""
        with self._lock:
            self._spare -= len(jobs)
            while self._spare < 0 and len(self._threads) < self._children_max:
                self._add_child()
        for job in jobs:
            self._queue.put(job)

    def _add_child(self) -> None:
        self._spare += 1
        name = f"tenure-child-{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _next(self) -> HeldJob | None:
        """The job that takes over the slot of the one that ended; None: the child is spare."""
        job = self._stage.next()
        if job is None:
            with self._lock:
                self._spare += 1
        return job

    @property
    def children(self) -> int:
        """How many processes there are now."""
        return len(self._children)

    def tell(self, job: HeldJob, said: frame.Stop | frame.Lease) -> None:
        """Says something to the job, if it runs."""
        with self._lock:
            child = self._running.get(job)
            if child is not None:
                child.tell(said)

    def kill(self, job: HeldJob) -> None:
        """Kills the job's child."""
        with self._lock:
            child = self._running.get(job)
            if child is not None:
                child.kill()

    def close(self) -> None:
        """Kills all children. Waits until they are gone, so that none outlives the worker."""
        self._closing.set()
        with self._lock:
            for child in self._children:
                child.kill()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=READY_S_MAX)

    def _work(self) -> None:
        owes_slot = False
        while not self._closing.is_set():
            child = self._spawn()
            if child is None:
                self._closing.wait(RESPAWN_S)
                continue
            # The slot of a job that took its child along is free only now that there is another.
            job = self._next() if owes_slot else None
            try:
                owes_slot = self._feed(child, job)
            finally:
                with self._lock:
                    self._children.discard(child)
                child.bury()

    def _spawn(self) -> Child | None:
        try:
            child = Child(self._app)
        except OSError as error:
            _LOGGER.error(
                "expected to start a child process, but %s; trying again",
                error,
                extra={"action": "spawn"},
            )
            return None
        with self._lock:
            self._children.add(child)
            if self._closing.is_set():
                child.kill()
        if child.wait_ready():
            return child
        with self._lock:
            self._children.discard(child)
        status = child.bury()
        if not self._closing.is_set():
            _LOGGER.error(
                "expected a child process to import %s, but it ended with status %d; trying again",
                self._app,
                status,
                extra={"action": "spawn"},
            )
        return None

    def _feed(self, child: Child, job: HeldJob | None) -> bool:
        """Gives jobs to the child until it is of no more use. Returns whether a slot is owed."""
        stage = self._stage
        while True:
            if job is None:
                job = self._queue.get()
                if job is None:
                    return False
            if not child.is_alive():
                # It died idle: that is nothing to charge the job with.
                self._queue.put(job)
                return False
            if stage.begin(job, stage.clock.boot_ms()) and not self._run(child, job):
                return True
            job = self._next()

    def _run(self, child: Child, job: HeldJob) -> bool:
        """Runs a job. Returns whether the child lives on."""
        with self._lock:
            self._running[job] = child
        result = child.run(job)
        # From here on the child cannot be killed for this job any more.
        with self._lock:
            del self._running[job]
        if result is not None:
            self._stage.settle(job, result, self._stage.clock.boot_ms())
            return True
        status = child.bury()
        outcome = job.stop or AttemptOutcome.LOST
        why = f"the child process that ran the job ended with status {status}"
        self._stage.settle(job, stopped(outcome, why), self._stage.clock.boot_ms())
        return False
