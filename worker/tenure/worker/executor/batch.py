"""Jobs of batch handlers on their way into calls.

```
 pool ──► line of its handler ──(full, or the first has waited long enough)──► a Batch in the gate
                └───────── drawn when the batch has its slot ─────────► items of its call
```
A ``Batch`` takes one slot. Which items it has is settled when it begins, so what comes while it
waits for its slot goes with it. Until then an item is a job that has not begun: it may be
withdrawn.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from tenure.client.batch_handler import Batching
from tenure.protocol.fence import NO_TOKEN
from tenure.worker.attempt import JobTable, ThreadClock
from tenure.worker.executor.batch_call import Batch, coroutine_caller, function_caller
from tenure.worker.executor.runner import Stage
from tenure.worker.held import AttemptResult, HeldJob, Terms
from tenure.worker.middleware import RunCoroutine, RunFunction

#: Calls a function after so many seconds, in the session's thread.
Later = Callable[[float, Callable[[], None]], object]
#: The clock's grain: a timer may come this much early by it.
_GRAIN_MS: Final = 1


def batches_of(
    jobs: JobTable, clock: ThreadClock, later: Later, offer: Callable[[list[HeldJob]], None]
) -> "Batches | None":
    """The lines of an application; None: it has no batch handler."""
    sizes = batch_sizes(jobs)
    return Batches(jobs, clock, later, offer) if sizes else None


def batch_sizes(jobs: JobTable) -> Mapping[str, int]:
    """How many items calls have at most, by the names of batch handlers."""
    return {
        name: definition.batching.size
        for name, definition in jobs.items()
        if definition.batching is not None
    }


def in_loop(delay_s: float, function: Callable[[], None]) -> None:
    """Calls a function later in the loop that runs here."""
    asyncio.get_running_loop().call_later(delay_s, function)


class _Line:
    """The items of one handler that are in no call yet."""

    def __init__(self, name: str, batching: Batching) -> None:
        self.terms = Terms(name)
        self.size, self.linger_ms = batching
        self.waiting: deque[HeldJob] = deque()
        #: Batches that wait for their slots; each will take what waits, up to its size.
        self.queued = 0
        #: When the first item came that none of these will take.
        self.since_ms = 0
        self.timed = False

    @property
    def left_over(self) -> int:
        """Items beyond what the queued batches will take."""
        return len(self.waiting) - self.queued * self.size

    def batch(self) -> Batch:
        """One more batch for the gate."""
        self.queued += 1
        return Batch(
            job_id="", partition=0, token=NO_TOKEN, seq=0, terms=self.terms, expires_ms=1 << 62
        )


class Batches:
    """All lines of an application. Items come in the session's thread, executors draw them."""

    def __init__(
        self,
        jobs: JobTable,
        clock: ThreadClock,
        later: Later,
        offer: Callable[[list[HeldJob]], None],
    ) -> None:
        self._lines = {
            name: _Line(name, definition.batching)
            for name, definition in jobs.items()
            if definition.batching is not None
        }
        self._clock = clock
        self._later = later
        self._offer = offer
        self._lock = threading.Lock()
        self._batch_of: dict[HeldJob, Batch] = {}

    def put(self, jobs: list[HeldJob]) -> None:
        """Queues jobs: items into their lines, full batches and all others into the gate."""
        ready: list[HeldJob] = []
        with self._lock:
            for job in jobs:
                line = self._lines.get(job.terms.name)
                if line is None:
                    ready.append(job)
                    continue
                line.waiting.append(job)
                left_over = line.left_over
                if left_over == 1:
                    line.since_ms = self._clock.boot_ms()
                if left_over >= line.size:
                    ready.append(line.batch())
            for line in self._lines.values():
                if line.left_over <= 0:
                    continue
                if not line.linger_ms:
                    ready.append(line.batch())
                elif not line.timed:
                    self._time(line, line.linger_ms)
        self._offer(ready)

    def _time(self, line: _Line, after_ms: int) -> None:
        line.timed = True
        self._later(after_ms / 1000, lambda: self._overdue(line))

    def _overdue(self, line: _Line) -> None:
        """An item may have waited for others for long enough."""
        with self._lock:
            line.timed = False
            if line.left_over <= 0:
                return
            rest_ms = line.since_ms + line.linger_ms - self._clock.boot_ms()
            if rest_ms > _GRAIN_MS:
                # The one that this was meant for has gone with an earlier batch.
                self._time(line, rest_ms)
                return
            batch = line.batch()
        self._offer([batch])

    def draw(self, batch: Batch, begin: Callable[[HeldJob], bool]) -> bool:
        """Gives a batch its items, now that it has a slot. False: none is left."""
        line = self._lines[batch.terms.name]
        items = batch.items
        with self._lock:
            line.queued -= 1
            while line.waiting and len(items) < line.size:
                item = line.waiting.popleft()
                if begin(item):
                    items.append(item)
            self._batch_of.update(dict.fromkeys(items, batch))
        if not items:
            return False
        batch.job_id = items[0].job_id
        return True

    def release(self, batch: Batch) -> None:
        """The call is over, and all its items are settled."""
        with self._lock:
            for item in batch.items:
                del self._batch_of[item]

    def batch_of(self, job: HeldJob) -> Batch | None:
        """The call that the job is in; None: in none, or it is over."""
        with self._lock:
            return self._batch_of.get(job)

    def to_interrupt(self, job: HeldJob) -> HeldJob | None:
        """What is to be interrupted for a job that shall stop; None: others are in its call."""
        batch = self.batch_of(job)
        if batch is None:
            return job
        return batch if batch.all_stopped() else None


class BatchStage(Stage):
    """Where jobs come from and go to that may be batches."""

    def __init__(self, *arguments: Any, batches: Batches) -> None:
        super().__init__(*arguments)
        self._batches = batches

    def function_runner(self) -> RunFunction:
        return function_caller(self.jobs, self.clock)

    def coroutine_runner(self) -> RunCoroutine:
        return coroutine_caller(self.jobs, self.clock)

    def begin(self, job: HeldJob, now_ms: int) -> bool:
        begin = super().begin
        if not isinstance(job, Batch):
            return begin(job, now_ms)
        return self._batches.draw(job, lambda item: begin(item, now_ms))

    def pass_over(self, job: HeldJob) -> None:
        pass_over = super().pass_over
        if not isinstance(job, Batch):
            pass_over(job)
            return

        def give_back(item: HeldJob) -> bool:
            pass_over(item)
            return False

        self._batches.draw(job, give_back)

    def settle(self, job: HeldJob, result: AttemptResult, now_ms: int) -> bool:
        if not isinstance(job, Batch):
            return super().settle(job, result, now_ms)
        keeps_slot = job.finish(result, now_ms)
        for item in job.items:
            super().settle(item, job.results[item], now_ms)
        self._batches.release(job)
        return keeps_slot


def stage_of(batches: Batches | None, *arguments: Any) -> Stage:
    """The stage of jobs of one kind.

    Args:
        batches: Those of batch handlers; None: there are none.
        *arguments: Of ``Stage``.
    """
    return Stage(*arguments) if batches is None else BatchStage(*arguments, batches=batches)
