"""The worker's executor port inside the simulated loop: no threads, user code in virtual time."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

from tenure.client.parent_result import Fetched, Results, ResultsNeeded
from tenure.protocol.errors import TenureError
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.testing.loop import outside_loop
from tenure.worker.attempt import JobTable, RefusedCall, ThreadClock, context_of, prepare
from tenure.worker.executor.batch import batch_sizes, batches_of, in_loop
from tenure.worker.executor.batch_call import Batch, coroutine_caller, function_caller
from tenure.worker.executor.outbox import Outbox
from tenure.worker.held import AttemptResult, HeldJob
from tenure.worker.middleware import coroutine_runner, function_runner
from tenure.worker.port import Fact, FactKind, Load

#: Has a value in the code of jobs, and in what that starts: the job's id.
IN_JOB: Final[contextvars.ContextVar[str]] = contextvars.ContextVar("in_job")

#: What a MessagePack payload begins with in which no argument stands for a result.
_NO_RESULTS: Final = b"\x92"


class _Task(Protocol):
    def cancel(self) -> bool: ...


class _StoppedClock:
    """Shows the time of its making: while a plain function runs, none passes."""

    def __init__(self, clock: ThreadClock) -> None:
        self._boot_ms = clock.boot_ms()
        self._wall_ms = clock.wall_ms()

    def boot_ms(self) -> int:
        return self._boot_ms

    def wall_ms(self) -> int:
        return self._wall_ms


class LoopExecutor:
    """Runs jobs as tasks of the worker's own process. Plain functions take no virtual time.

    The task of a job is called ``job`` and the job's id.

    Args:
        jobs: The functions.
        slots: How many jobs run at once.
        clock: The worker's clock.
        spawn: Starts a task in the worker's process; None if that has ended.
        wake: Called when there are facts to take.
        parents: Where the results of jobs come from that others have as arguments.
    """

    def __init__(
        self,
        jobs: JobTable,
        slots: int,
        *,
        clock: ThreadClock,
        spawn: Callable[[Coroutine[Any, Any, None], str], _Task | None],
        wake: Callable[[], None],
        parents: Results | None = None,
    ) -> None:
        self._jobs = jobs
        self._parents = parents
        self._run_function = function_runner(jobs)
        self._run_coroutine = coroutine_runner(jobs)
        self._free = slots
        self._clock = clock
        self._spawn = spawn
        self._outbox = Outbox(wake)
        self._queue: deque[HeldJob] = deque()
        self._tasks: dict[HeldJob, _Task] = {}
        self.batch_sizes = batch_sizes(jobs)
        self._batches = batches_of(jobs, clock, in_loop, self._offer)
        if self._batches is not None:
            self._run_coroutine = coroutine_caller(jobs, clock)

    @property
    def busy(self) -> bool:
        """Whether it runs a job."""
        return bool(self._tasks)

    def start(self) -> None:
        """There is nothing to make ready."""

    def run(self, jobs: list[HeldJob]) -> None:
        if self._batches is None:
            self._offer(jobs)
        else:
            self._batches.put(jobs)

    def _offer(self, jobs: list[HeldJob]) -> None:
        self._queue.extend(jobs)
        self._fill()

    def stop(self, job: HeldJob, outcome: AttemptOutcome) -> None:
        if job.result is None and job.stop is None:
            job.stop = outcome
            task = self._tasks.get(job)
            alone = self._batches is None or self._batches.to_interrupt(job) is not None
            if task is not None and alone:
                # A task cancelled before its first step would never say how it ended; that step is
                # in the loop's queue by now.
                asyncio.get_running_loop().call_soon(task.cancel)

    def tell_lease(self, job: HeldJob) -> None:
        """User code asks the job itself: it runs in the same process."""

    def take_facts(self) -> list[Fact]:
        return self._outbox.take()

    def tick(self, now_ms: int) -> None:
        for job in list(self._tasks):
            due_ms = self._timeout_ms(job)
            if due_ms is not None and due_ms <= now_ms:
                self.stop(job, AttemptOutcome.TIMED_OUT)

    def next_wake_ms(self) -> int | None:
        due = [self._timeout_ms(job) for job in self._tasks]
        return min((due_ms for due_ms in due if due_ms is not None), default=None)

    @property
    def running(self) -> list[str]:
        """The jobs that have begun and not ended."""
        return [job.job_id for job in self._tasks]

    def load(self, now_ms: int) -> Load:
        return Load()

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    def _timeout_ms(self, job: HeldJob) -> int | None:
        if not job.terms.timeout_ms or job.started_ms is None or job.stop is not None:
            return None
        return job.started_ms + job.terms.timeout_ms

    def _fill(self) -> None:
        while self._free and self._queue:
            job = self._queue.popleft()
            if isinstance(job, Batch) and self._batches is not None:
                begun = self._batches.draw(job, self._begin)
            else:
                begun = self._begin(job)
            if not begun:
                continue
            self._free -= 1
            task = self._spawn(self._work(job), f"job {job.job_id}")
            if task is not None:
                self._tasks.update(dict.fromkeys(_parts(job), task))

    def _begin(self, job: HeldJob) -> bool:
        now_ms = self._clock.boot_ms()
        if not job.begin(now_ms):
            return False
        if now_ms >= job.expires_ms:
            job.started_ms = None
            self._outbox.post(FactKind.UNSTARTED, job)
            return False
        job.parents = self._parents
        job.keep = self._outbox.save
        self._outbox.post(FactKind.STARTED, job)
        return True

    async def _work(self, job: HeldJob) -> None:
        result = await self._attempt(job)
        self._free += 1
        if isinstance(job, Batch) and self._batches is not None:
            self._batches.release(job)
        for part in _parts(job):
            self._tasks.pop(part, None)
            of_it = job.results[part] if isinstance(job, Batch) else result
            part.finish(of_it, self._clock.boot_ms())
            self._outbox.post(FactKind.ENDED, part)
        self._fill()

    async def _attempt(self, job: HeldJob) -> AttemptResult:
        IN_JOB.set(job.job_id)
        definition = self._jobs.get(job.terms.name)
        if definition is None or definition.executor != "async":
            clock = _StoppedClock(self._clock)
            for part in _parts(job):
                await self._fetch_first(part)
            run = self._run_function
            if isinstance(job, Batch):
                run = function_caller(self._jobs, clock)
            # Real ones run in threads and processes, where each may have a loop of its own.
            with outside_loop():
                return run(self._jobs, job, partial(context_of, job, clock))
        return await self._run_coroutine(self._jobs, job, partial(context_of, job, self._clock))

    async def _fetch_first(self, job: HeldJob) -> None:
        """Fetches the results that a plain function has as arguments: it cannot wait itself."""
        results = job.parents
        if results is None or job.payload.startswith(_NO_RESULTS):
            return
        # What else is wrong with the arguments is the attempt's own to meet.
        with suppress(TenureError, RefusedCall):
            try:
                prepare(self._jobs, job)
            except ResultsNeeded as needed:
                found = await results.fetch_async(needed.job_ids)
                job.parents = Fetched(needed.job_ids, found, results)


def _parts(job: HeldJob) -> list[HeldJob]:
    """The jobs that run with one task."""
    return job.items if isinstance(job, Batch) else [job]
