"""Coroutine functions, in a loop that has a thread of its own.

Jobs run in *lanes*. A lane is a task that runs jobs one after the other for as long as none of them
waits, so a stream of small jobs costs no task, no callback and no turn of the loop each:

```
 inbox ──► lane: job, job, job ──(a millisecond is over)──► ends, another lane takes the rest
                    └──(has to wait)──► keeps the lane to its end; other lanes take the rest
```
Whatever reaches a task later (a timeout, a TaskGroup, a cancel) hits only the job that it was meant
for: a lane takes no further job once one has waited in it, cancelled it, or kept a reference to it,
be it a weak one (variables of a task are kept by those).

The loop (``loop``) may be shared by the executors of several pools.
"""

import asyncio
import contextvars
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from typing import Any, Final

from tenure.worker.attempt import context_of
from tenure.worker.executor.loop import JobLoop
from tenure.worker.executor.runner import Stage
from tenure.worker.held import AttemptResult, HeldJob

#: Lanes opened by a job that waits. With two, a thousand jobs that all wait have begun after ten
#: turns of the loop; with one it would take a thousand.
OPENED_BY_WAIT: Final = 2


class _Lane(asyncio.Task[None]):
    """A task that runs jobs.

    Attributes:
        fresh: It has not had its first step, so it runs no job.
        spent: It belongs to one job from now on.
    """

    def __init__(
        self,
        drive: Callable[["_Lane"], Coroutine[Any, Any, None]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.fresh = True
        self.spent = False
        super().__init__(drive(self), loop=loop, context=contextvars.Context())

    def cancel(self, msg: Any | None = None) -> bool:
        if self.fresh:
            return False  # By a job that cancels all tasks: jobs that come later need it.
        # Even if that is taken back: the task may raise CancelledError at its next wait.
        self.spent = True
        return super().cancel(msg)


class CoroutineExecutor:
    """Runs coroutine functions in a loop for user code."""

    def __init__(self, stage: Stage, job_loop: JobLoop) -> None:
        """Starts nothing yet.

        Args:
            stage: Where jobs come from and go to.
            job_loop: Where they run.
        """
        self._stage = stage
        self._job_loop = job_loop
        self._run_code = stage.coroutine_runner()
        #: Jobs that have slots, in the order in which they are to begin.
        self._inbox: deque[HeldJob] = deque()
        self._woken = False
        #: Lanes that are open and have not had their first step.
        self._fresh = 0
        self._waiting: dict[HeldJob, _Lane] = {}
        self._closed = False

    def start(self) -> None:
        """Starts the loop, unless it runs."""
        self._job_loop.enter(self._waiting)

    def submit(self, jobs: list[HeldJob]) -> None:
        """Queues jobs that have slots. From any thread; wakes the loop once for many."""
        self._inbox.extend(jobs)
        if not self._woken:
            self._woken = True
            self._job_loop.call(self._take)

    def take_back(self) -> list[HeldJob]:
        """Takes back the jobs that have slots and wait for the loop to turn, in order."""
        taken: list[HeldJob] = []
        with suppress(IndexError):
            while True:
                taken.append(self._inbox.popleft())
        return taken

    def interrupt(self, job: HeldJob) -> None:
        """Cancels the job's task."""
        self._job_loop.call(self._cancel, job)

    def close(self) -> None:
        """Cancels all jobs and leaves the loop. Jobs that do not obey are left behind."""
        if not self._closed:
            self._closed = True
            self._job_loop.call(self._cancel_all)
        self._job_loop.leave(self._waiting)

    def _take(self) -> None:
        self._woken = False
        self._open_lanes(1)

    def _cancel(self, job: HeldJob) -> None:
        # A job begins and has its first step in one go: here it waits, or it has ended.
        lane = self._waiting.get(job)
        if lane is not None:
            lane.cancel()

    def _cancel_all(self) -> None:
        for lane in self._waiting.values():
            lane.cancel()

    def _open_lanes(self, count: int) -> None:
        """Opens lanes for the inbox: at most so many, and no more than it has jobs."""
        loop = self._job_loop.loop
        if loop is None or self._closed:
            return
        for _ in range(min(count, len(self._inbox) - self._fresh)):
            self._fresh += 1
            # The loop holds it until its first step, and ``_waiting`` when that was not its last.
            _Lane(self._drive, loop)

    async def _drive(self, lane: _Lane) -> None:
        """Runs jobs in a lane until it is spent, or the loop ought to turn."""
        stage, inbox = self._stage, self._inbox
        references, weak = sys.getrefcount(lane), weakref.getweakrefcount(lane)
        lane.fresh = False
        self._fresh -= 1
        opened_ms = now_ms = stage.clock.boot_ms()
        try:
            while inbox and now_ms == opened_ms and not self._closed:
                try:
                    job = inbox.popleft()
                except IndexError:
                    break  # Taken back since: the loop had not turned for long.
                if stage.begin(job, now_ms):
                    result = await self._attempt(lane, job)
                    now_ms = stage.clock.boot_ms()
                    if not stage.settle(job, result, now_ms):
                        break  # Given up long ago, and its slot with it: this lane was replaced.
                following = stage.next()
                if following is not None:
                    inbox.append(following)
                # Whoever still holds the task could cancel the next job with it.
                if lane.spent or sys.getrefcount(lane) > references:
                    break
                if weakref.getweakrefcount(lane) > weak:
                    break
        finally:
            self._open_lanes(1)

    @types.coroutine
    def _attempt(self, lane: _Lane, job: HeldJob) -> Generator[Any, None, AttemptResult]:
        """Runs a job in a context of its own, so that nothing leaks from it into the next one."""
        stage, job_loop, run = self._stage, self._job_loop, contextvars.Context().run
        code = self._run_code(stage.jobs, job, partial(context_of, job, stage.clock))
        step: Callable[[Any], Any] = code.send
        value: BaseException | None = None
        try:
            while True:
                job_loop.busy = job
                awaited = run(step, value)
                job_loop.busy = None
                if job not in self._waiting:
                    lane.spent = True
                    self._waiting[job] = lane
                    self._open_lanes(OPENED_BY_WAIT)
                try:
                    yield awaited
                    step, value = code.send, None
                except BaseException as error:  # noqa: BLE001  (the job's own code is to meet it)
                    step, value = code.throw, error.with_traceback(None)
        except StopIteration as end:
            result: AttemptResult = end.value
            return result
        finally:
            job_loop.busy = None
            self._waiting.pop(job, None)
