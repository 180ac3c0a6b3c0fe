"""One call of a batch handler: the items it is made with, and what comes of each.

An item whose arguments do not decode fails by itself, and is not in the call; neither is one that
was cancelled before. What the function returns is judged item by item, as if each had had a call of
its own; what it raises is every item's error.
"""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec

from tenure.client.batch_handler import ITEM, enter_batch
from tenure.client.context import JobContext, enter_job
from tenure.protocol.errors import Rejected
from tenure.protocol.fence import NO_TOKEN, Lease
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.attempt import (
    JobTable,
    RefusedCall,
    ThreadClock,
    context_of,
    end_copy_of,
    fault_of,
    prepare,
    prepare_in_loop,
    raised,
    returned,
    said,
    stopped,
)
from tenure.worker.held import AttemptResult, HeldJob
from tenure.worker.middleware import (
    MakeContext,
    RunCoroutine,
    RunFunction,
    coroutine_runner,
    finishers_of,
    function_runner,
    tell_finish,
    tell_finish_in_loop,
)

#: What a runner says of the batch itself; each item has a result of its own.
_ALL_SAID: Final = AttemptResult(AttemptOutcome.COMPLETED)


class Batch(HeldJob, eq=False, gc=False, kw_only=True):
    """What takes the slot of a call: to executors a job like any other.

    Attributes:
        items: The jobs that have begun with it; none before it has its slot.
        results: What came of them, as far as that is settled.
    """

    items: list[HeldJob] = msgspec.field(default_factory=list)
    results: dict[HeldJob, AttemptResult] = msgspec.field(default_factory=dict)

    def all_stopped(self) -> bool:
        """Whether nothing is left in the call that anybody waits for."""
        return all(item.stop is not None or item in self.results for item in self.items)

    def give_up(self, result: AttemptResult, now_ms: int) -> bool:
        """Another item was given up. Whether the call is lost with it: it was the last one."""
        left = any(item.result is None and item not in self.results for item in self.items)
        return not left and self.finish(result, now_ms)


class _Call:
    """A call in the making, in the thread of its executor."""

    def __init__(self, jobs: JobTable, batch: Batch, clock: ThreadClock) -> None:
        self.function = jobs[batch.terms.name].fn
        self._definition = jobs[batch.terms.name]
        self._batch = batch
        self._clock = clock
        self._items: list[HeldJob] = []
        self.values: list[Any] = []

    def take(self, item: HeldJob, args: list[Any], kwargs: dict[str, Any]) -> None:
        """The item's arguments are here."""
        if item.stop is not None:
            why = "the job was asked to stop before the call of its batch"
            self._batch.results[item] = stopped(item.stop, why)
            return
        self._items.append(item)
        self.values.append(args[0] if args else kwargs[ITEM])

    def refuse(self, item: HeldJob, error: BaseException) -> None:
        """The item's arguments cannot be had."""
        self._batch.results[item] = raised(item, error)

    def enter(self) -> None:
        """Makes the contexts of the items, and that of the call, the current ones."""
        enter_job(self._context)
        enter_batch(partial(_contexts, self._items, self._clock))

    def _context(self) -> JobContext:
        """Of the call as a whole: no job's id and fence, and the end of all items is its end."""
        items, clock = self._items, self._clock

        def progress(pct: float) -> None:
            for item in items:
                item.report_progress(pct)

        def output(stream: int, level: int, text: str) -> None:
            # Whose line it is nobody can tell: all have one log.
            said(items[0], clock, None, stream, level, text)
            for item in items:
                item.log = items[0].log

        def lost() -> bool:
            now_ms = clock.boot_ms()
            if not all(item.revoked or now_ms >= item.expires_ms for item in items):
                return False
            # From here on none of them can be revived.
            return all([item.is_lost(now_ms) for item in items])  # noqa: C419  (each is told)

        deadlines = [context.deadline for context in _contexts(items, clock)]
        soonest = min((at for at in deadlines if at is not None), default=None)
        return JobContext(
            id="",
            name=self._batch.terms.name,
            attempt=max(item.attempt for item in items),
            lease=Lease(NO_TOKEN, 0, 0),
            deadline_ms=None if soonest is None else round(soonest.timestamp() * 1000),
            on_progress=progress,
            on_output=output,
            is_cancelled=lambda: all(item.is_cancelled() for item in items),
            is_lost=lost,
            is_superseded=lambda: all(item.revoked for item in items),
        )

    def returned(self, outcomes: Any) -> None:
        """The function has returned."""
        items, definition, results = self._items, self._definition, self._batch.results
        if not isinstance(outcomes, list | tuple) or len(outcomes) != len(items):
            refusal = RefusedCall()
            refusal.__cause__ = self._wrong_shape(outcomes)
            self.failed(refusal)
            return
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                results[item] = raised(item, outcome)
            else:
                results[item] = returned(item, definition, outcome)

    def failed(self, error: BaseException) -> None:
        """The function has raised: each item is charged by its own policy."""
        fault = fault_of(error)
        for item in self._items:
            # Its traceback is written once, not a thousand times.
            self._batch.results[item] = raised(item, error, lambda _: fault)

    def _wrong_shape(self, outcomes: Any) -> Rejected:
        got = (
            f"{len(outcomes)}"
            if isinstance(outcomes, list | tuple)
            else f"what is no list: {type(outcomes).__name__}"
        )
        name = self._definition.name
        return Rejected(
            f"expected batch handler {name} to return a list of {len(self._items)} outcomes, one "
            f"for each item in order (a value, or an exception), but it returned {got}",
            reason=Reason.INVALID_ARGUMENT,
            metadata={"job": name},
            field="return",
        )


def _contexts(items: Sequence[HeldJob], clock: ThreadClock) -> Sequence[JobContext]:
    return tuple(context_of(item, clock) for item in items)


def function_caller(jobs: JobTable, clock: ThreadClock) -> RunFunction:
    """What runs the plain functions of an application that has batch handlers."""
    alone, finishers = function_runner(jobs), finishers_of(jobs)

    def run(jobs: JobTable, job: HeldJob, context: MakeContext) -> AttemptResult:
        if not isinstance(job, Batch):
            return alone(jobs, job, context)
        pid = os.getpid()
        call = _Call(jobs, job, clock)
        for item in job.items:
            try:
                _, args, kwargs = prepare(jobs, item, item.parents)
            except BaseException as error:  # noqa: BLE001  (user code: it is the item's result)
                call.refuse(item, error)
            else:
                call.take(item, args, kwargs)
        if call.values:
            call.enter()
            try:
                outcomes = call.function(call.values)
            except BaseException as error:  # noqa: BLE001  (user code: it is the items' result)
                call.failed(error)
            else:
                call.returned(outcomes)
        end_copy_of(pid)
        for item in job.items if finishers else ():
            enter_job(partial(context_of, item, clock))
            tell_finish(finishers, jobs, item, job.results[item])
        return _ALL_SAID

    return run


def coroutine_caller(jobs: JobTable, clock: ThreadClock) -> RunCoroutine:
    """The same for coroutine functions."""
    alone, finishers = coroutine_runner(jobs), finishers_of(jobs)

    async def run(jobs: JobTable, job: HeldJob, context: MakeContext) -> AttemptResult:
        if not isinstance(job, Batch):
            return await alone(jobs, job, context)
        pid = os.getpid()
        call = _Call(jobs, job, clock)
        for item in job.items:
            try:
                _, args, kwargs = await prepare_in_loop(jobs, item)
            except BaseException as error:  # noqa: BLE001  (user code: it is the item's result)
                call.refuse(item, error)
            else:
                call.take(item, args, kwargs)
        if call.values:
            call.enter()
            try:
                outcomes = await call.function(call.values)
            except BaseException as error:  # noqa: BLE001  (user code: it is the items' result)
                call.failed(error)
            else:
                call.returned(outcomes)
        end_copy_of(pid)
        for item in job.items if finishers else ():
            enter_job(partial(context_of, item, clock))
            await tell_finish_in_loop(finishers, jobs, item, job.results[item])
        return _ALL_SAID

    return run
