"""The worker's executor port inside the simulated loop: no threads, user code in virtual time.

Slots, batches, timeouts, graces and what is given up are the shipped ones; only who runs the code
is another.
"""

import asyncio
import contextvars
import re
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from tenure.client.parent_result import Fetched, Results, ResultsNeeded
from tenure.protocol.errors import TenureError
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.testing.loop import outside_loop
from tenure.worker.attempt import JobTable, RefusedCall, ThreadClock, context_of, prepare, raised
from tenure.worker.executor.batch import batch_sizes, batches_of, in_loop, stage_of
from tenure.worker.executor.batch_call import Batch, function_caller
from tenure.worker.executor.gate import SlotGate
from tenure.worker.executor.outbox import Outbox
from tenure.worker.executor.patience import Patience, grace_ms
from tenure.worker.held import AttemptResult, HeldJob
from tenure.worker.port import Fact, Load

#: Has a value in the code of jobs, and in what that starts: the job's id.
IN_JOB: Final[contextvars.ContextVar[str]] = contextvars.ContextVar("in_job")

#: What a MessagePack payload begins with in which no argument stands for a result.
_NO_RESULTS: Final = b"\x92"
#: The folders of a file, where a traceback names it.
_FOLDERS: Final = re.compile(r'(?<=File ")[^"\n]*[/\\]')


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
        on_lost: Called when a job was given up whose code still runs.
        folders: Whether the tracebacks of attempts name files with their folders. Without them what
            is sent and stored has the same bytes wherever the code lies.
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
        on_lost: Callable[[], None] | None = None,
        folders: bool = True,
    ) -> None:
        self._jobs = jobs
        self._clock = clock
        self._spawn = spawn
        self._tasks: dict[HeldJob, _Task] = {}
        self._outbox = Outbox(wake)
        # All kinds run here alike.
        gate = self._gate = SlotGate(slots, lambda job: "async")
        gate.serve("async", self._start_all)
        self.batch_sizes = batch_sizes(jobs)
        self._batches = batches_of(jobs, clock, in_loop, gate.offer)
        self._stage = stage_of(self._batches, "async", jobs, gate, self._outbox, clock, parents)
        self._run_function = self._stage.function_runner()
        self._run_coroutine = self._stage.coroutine_runner()
        self._patience = Patience(self, clock, self._outbox, self._batches, on_lost)
        self._folders = folders

    @property
    def busy(self) -> bool:
        """Whether it runs a job."""
        return bool(self._tasks)

    @property
    def running(self) -> list[str]:
        """The jobs whose code runs, also if they were given up."""
        return [job.job_id for job in self._tasks]

    def start(self) -> None:
        """There is nothing to make ready."""

    def run(self, jobs: list[HeldJob]) -> None:
        if self._batches is None:
            self._gate.offer(jobs)
        else:
            self._batches.put(jobs)

    def stop(self, job: HeldJob, outcome: AttemptOutcome) -> None:
        self._patience.stop(job, outcome)

    def tell_lease(self, job: HeldJob) -> None:
        """User code asks the job itself: it runs in the same process."""

    def take_facts(self) -> list[Fact]:
        return self._patience.hear(self._outbox.take())

    def tick(self, now_ms: int) -> None:
        self._patience.tick(now_ms)

    def next_wake_ms(self) -> int | None:
        return self._patience.next_ms()

    def load(self, now_ms: int) -> Load:
        return Load(lost=self._patience.lost)

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    # What can be done about jobs: the Means port.

    def ask(self, job: HeldJob, outcome: AttemptOutcome) -> int:
        task = self._tasks.get(job)
        alone = self._batches is None or self._batches.to_interrupt(job) is not None
        if task is not None and alone:
            # A task cancelled before its first step would never say how it ended; that step is
            # in the loop's queue by now.
            asyncio.get_running_loop().call_soon(task.cancel)
        return grace_ms(outcome)

    def kill(self, job: HeldJob) -> bool:
        return False

    def replace(self, job: HeldJob) -> None:
        self._gate.release()

    # How jobs run.

    def _start_all(self, jobs: list[HeldJob]) -> None:
        for job in jobs:
            self._start(job)

    def _start(self, job: HeldJob | None) -> None:
        """Begins a job that has a slot; if it is not to begin any more, the next one."""
        while job is not None and not self._stage.begin(job, self._clock.boot_ms()):
            job = self._stage.next()
        if job is None:
            return
        task = self._spawn(self._work(job), f"job {job.job_id}")
        if task is not None:
            self._tasks.update(dict.fromkeys(_parts(job), task))

    async def _work(self, job: HeldJob) -> None:
        result = await self._attempt(job)
        if not self._folders:
            result = _without_folders(result)
            if isinstance(job, Batch):
                for part, each in job.results.items():
                    job.results[part] = _without_folders(each)
        for part in _parts(job):
            self._tasks.pop(part, None)
        if self._stage.settle(job, result, self._clock.boot_ms()):
            self._start(self._stage.next())

    async def _attempt(self, job: HeldJob) -> AttemptResult:
        IN_JOB.set(job.job_id)
        definition = self._jobs.get(job.terms.name)
        if definition is None or definition.executor != "async":
            try:
                for part in _parts(job):
                    await self._fetch_first(part)
            except asyncio.CancelledError as error:
                if any(part.stop is None for part in _parts(job)):
                    raise
                if not isinstance(job, Batch):
                    return raised(job, error)
            clock = _StoppedClock(self._clock)
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


def _without_folders(result: AttemptResult) -> AttemptResult:
    """The same, with a traceback that names files alone."""
    fault = result.fault
    if fault is None:
        return result
    bare = fault._replace(traceback=_FOLDERS.sub("", fault.traceback))
    return msgspec.structs.replace(result, fault=bare)
