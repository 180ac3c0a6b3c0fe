"""Plain functions, each in a thread.

A thread cannot be killed: a job that is to stop learns it at its next checkpoint. The thread of one
that was given up ends with it, whenever that is; another one works in its place. Threads are
daemons, so one that never comes back does not keep the process.
"""

import contextvars
import threading
from functools import partial
from queue import SimpleQueue

from tenure.worker.attempt import context_of
from tenure.worker.executor.runner import Stage
from tenure.worker.held import AttemptResult, HeldJob


class ThreadExecutor:
    """Starts threads as they are needed, at most one a slot, and keeps them."""

    def __init__(self, stage: Stage, slots: int) -> None:
        self._stage = stage
        self._run = stage.function_runner()
        #: How many threads there may be, those of jobs that were given up included.
        self._threads_max = slots
        self._queue: SimpleQueue[HeldJob | None] = SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._started = 0
        self._lock = threading.Lock()
        #: Threads that wait for a job, minus jobs that wait for a thread.
        self._spare = 0

    def submit(self, jobs: list[HeldJob]) -> None:
        """Queues jobs that have slots."""
        with self._lock:
            self._spare -= len(jobs)
            while self._spare < 0 and len(self._threads) < self._threads_max:
                self._spare += 1
                name = f"tenure-job-{self._started}"
                self._started += 1
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._threads.add(thread)
                thread.start()
        for job in jobs:
            self._queue.put(job)

    def replace(self) -> None:
        """A job was given up: there may be one more thread, until its own has ended."""
        with self._lock:
            self._threads_max += 1

    def close(self) -> None:
        """Lets idle threads end."""
        with self._lock:
            idle = len(self._threads)
        for _ in range(idle):
            self._queue.put(None)

    def _work(self) -> None:
        stage = self._stage
        while (job := self._queue.get()) is not None:
            while job is not None:
                if stage.begin(job, stage.clock.boot_ms()):
                    # A context of its own, so that nothing leaks from one job into the next.
                    result = contextvars.Context().run(self._attempt, job)
                    if not stage.settle(job, result, stage.clock.boot_ms()):
                        self._retire()
                        return
                job = stage.next()
            with self._lock:
                self._spare += 1

    def _retire(self) -> None:
        """Ends this thread, whose job was given up: another one has its slot."""
        with self._lock:
            self._threads.discard(threading.current_thread())
            self._threads_max -= 1

    def _attempt(self, job: HeldJob) -> AttemptResult:
        stage = self._stage
        return self._run(stage.jobs, job, partial(context_of, job, stage.clock))
