"""Plain functions, each in a thread.

A thread cannot be killed: a job that is to stop learns it at its next checkpoint. The thread of one
that was given up ends with it, whenever that is; another one works in its place. Threads are
daemons, so one that never comes back does not keep the process.

Where there can be no more threads (a limit on processes counts them, too) jobs wait for those that
there are, or that can be started later. After some seconds they go back, to run elsewhere.
"""

import contextvars
import logging
import threading
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final

from tenure.worker.attempt import context_of
from tenure.worker.executor.runner import Stage
from tenure.worker.held import AttemptResult, HeldJob

_LOGGER: Final = logging.getLogger(__name__)
#: How often it is tried to start threads that could not be started, and how long jobs wait for it.
RETRY_MS: Final = 1_000
REFUSED_MS_MAX: Final = 5_000


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
        #: Since when no thread can be started, and when that is tried again.
        self._refused_ms: int | None = None
        self._retry_ms = 0

    def submit(self, jobs: list[HeldJob]) -> None:
        """Queues jobs that have slots."""
        with self._lock:
            self._spare -= len(jobs)
            self._start()
        for job in jobs:
            self._queue.put(job)

    def tick(self, now_ms: int) -> None:
        """Tries again to start what could not be started; jobs that have waited too long go back.

        All calls come from the session's thread.
        """
        if self._refused_ms is None or now_ms < self._retry_ms:
            return
        with self._lock:
            self._start()
            if self._refused_ms is None or now_ms < self._refused_ms + REFUSED_MS_MAX:
                return
            self._refused_ms = now_ms
            waiting = self._take_back()
        for job in waiting:
            self._stage.pass_over(job)
            following = self._stage.next()
            if following is not None:
                self.submit([following])

    def _start(self) -> None:
        """Starts the threads that are missing, with the lock held."""
        while self._spare < 0 and len(self._threads) < self._threads_max:
            name = f"tenure-job-{self._started}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.add(thread)
            try:
                thread.start()
            except RuntimeError as error:
                self._threads.discard(thread)
                self._refused(error)
                return
            self._started += 1
            self._spare += 1
        self._refused_ms = None

    def _refused(self, error: RuntimeError) -> None:
        now_ms = self._stage.clock.boot_ms()
        self._retry_ms = now_ms + RETRY_MS
        if self._refused_ms is not None:
            return
        self._refused_ms = now_ms
        _LOGGER.error(
            "expected to start a thread for a job, but %s; trying again, until then there are %d: "
            "raise the limit on this worker's processes, or lower --slots",
            error,
            len(self._threads),
            extra={"action": "spawn"},
        )

    def _take_back(self) -> list[HeldJob]:
        """Takes the jobs out of the queue for which there is no thread, with the lock held."""
        waiting: list[HeldJob] = []
        try:
            while self._spare < 0:
                job = self._queue.get_nowait()
                if job is not None:
                    waiting.append(job)
                self._spare += 1
        except Empty:
            pass  # They are on their way into the queue, or a thread has just taken them.
        return waiting

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
