"""Coroutine functions, each a task in a loop of their own thread.

A job that blocks this loop delays other coroutine jobs, but neither heartbeats nor reports: those
live in the main thread's loop. ``busy_task`` says which job it is.
"""

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVarTuple

from tenure.client.context import activate
from tenure.worker.attempt import context_of, prepare, raised, returned
from tenure.worker.executor.runner import Stage
from tenure.worker.held import AttemptResult, HeldJob

A = TypeVarTuple("A")
#: How long the end of the loop is waited for.
CLOSE_S: Final = 1.0


class CoroutineExecutor:
    """A thread with an event loop for user code."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._inbox: deque[HeldJob] = deque()
        self._woken = False
        self._tasks: dict[HeldJob, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tenure-async-jobs", daemon=True)
        #: Rises with each turn that ``probe`` asked for.
        self.turns = 0

    def start(self) -> None:
        """Starts the loop's thread."""
        self._thread.start()
        self._ready.wait()

    def submit(self, jobs: list[HeldJob]) -> None:
        """Queues jobs that have slots. From any thread; wakes the loop once for many."""
        self._inbox.extend(jobs)
        if not self._woken:
            self._woken = True
            self._call(self._take)

    def interrupt(self, job: HeldJob) -> None:
        """Cancels the job's task."""
        self._call(self._cancel, job)

    def probe(self) -> None:
        """Asks the loop to turn once and to count it."""
        self._call(self._turn)

    def busy_job(self) -> HeldJob | None:
        """The job whose code runs in the loop at this moment."""
        task = asyncio.current_task(self._loop) if self._loop is not None else None
        if task is None:
            return None
        return next((job for job, known in list(self._tasks.items()) if known is task), None)

    def close(self) -> None:
        """Cancels all tasks and ends the loop. Jobs that do not obey are left behind."""
        self._call(self._closing.set)
        if self._thread.is_alive():
            self._thread.join(timeout=CLOSE_S)

    def _call(self, function: Callable[[*A], object], *args: *A) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # The loop is closed: nothing is left to tell it.
                self._loop.call_soon_threadsafe(function, *args)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        await self._closing.wait()
        for job in list(self._tasks):
            self._cancel(job)
        while running := [task for task in self._tasks.values() if not task.done()]:
            await asyncio.wait(running)

    def _turn(self) -> None:
        self.turns += 1

    def _take(self) -> None:
        self._woken = False
        while self._inbox:
            self._spawn(self._inbox.popleft())

    def _spawn(self, job: HeldJob | None) -> None:
        """Begins this job, or the next one that still wants to begin."""
        stage = self._stage
        while job is not None:
            if self._loop is not None and stage.begin(job):
                # A context of its own, so that nothing leaks from one job into the next. No group:
                # a job's task reports its own end, and its callbacks cost as much as the job.
                context = contextvars.Context()
                self._tasks[job] = self._loop.create_task(self._work(job), context=context)
                return
            job = stage.next()

    def _cancel(self, job: HeldJob) -> None:
        # A task cancelled before its first step would never run, and never say how it ended. Its
        # first step is in the loop's queue by now, so one more turn is enough.
        asyncio.get_running_loop().call_soon(self._cancel_begun, job)

    def _cancel_begun(self, job: HeldJob) -> None:
        task = self._tasks.get(job)
        if task is not None:
            task.cancel()

    async def _work(self, job: HeldJob) -> None:
        result = await self._attempt(job)
        del self._tasks[job]
        self._stage.settle(job, result)
        self._spawn(self._stage.next())

    async def _attempt(self, job: HeldJob) -> AttemptResult:
        try:
            definition, args, kwargs = prepare(self._stage.jobs, job)
            with activate(context_of(job, self._stage.clock)):
                value = await definition.fn(*args, **kwargs)
        # A cancelled task here is a stopped job: the outcome is reported, the loop goes on.
        except BaseException as error:  # noqa: BLE001  (user code: all it raises is its result)
            return raised(job, error)
        return returned(job, value)
