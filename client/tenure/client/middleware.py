"""Middleware: code of the user's around every submit and every run, and after every attempt.

```
 client    on_submit  A( B( encode, send, wait for the master's word ) )
 worker    on_run     A( B( the job's function ) ), then the result is encoded
           on_finish  B, A: told what will be reported
```
The first one registered is the outermost. A layer is a context manager, so what a generator does
before its ``yield`` happens on the way in, and what it does after it on the way out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    nullcontext,
)
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tenure.client.codec import decode_result
from tenure.client.context import JobContext, current_job
from tenure.client.errors import RemoteError, invalid
from tenure.protocol.vocabulary import AttemptOutcome

if TYPE_CHECKING:
    from tenure.client.handle import AsyncJobHandle
    from tenure.client.job import JobDef
    from tenure.client.options import Options

    AnyJob = JobDef[..., Any]

#: What surrounds a submit or a run.
Layer = AbstractContextManager[Any] | AbstractAsyncContextManager[Any]


class Call(NamedTuple):
    """One call's arguments."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Submission:
    """One ``submit`` (one call), ``map`` or ``submit_many`` (a call for each item).

    Attributes:
        job: What is submitted; ``submission.job = submission.job.options(…)`` changes how.
        calls: The arguments, in order; replace a ``Call`` to change them.
        handles: Of the jobs that were accepted; empty before.
    """

    __slots__ = ("calls", "handles", "job")

    def __init__(self, job: JobDef[..., Any], calls: Iterable[Call]) -> None:
        self.job = job
        self.calls: Final = [*calls]
        self.handles: Sequence[AsyncJobHandle[Any]] = ()

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job.name

    @property
    def options(self) -> Options:
        """Queue, priority, labels and so on."""
        return self.job.settings


class Execution:
    """One attempt, around the call of the job's function.

    Attributes:
        job: The definition that the worker serves.
        args: Positional arguments, decoded; may be changed before the ``yield``.
        kwargs: Named ones.
        result: What the function returned; may be changed after the ``yield``.
    """

    __slots__ = ("args", "job", "kwargs", "result")

    def __init__(self, job: JobDef[..., Any], args: Iterable[Any], kwargs: dict[str, Any]) -> None:
        self.job: Final = job
        self.args: Final = [*args]
        self.kwargs: Final = kwargs
        self.result: Any = None

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job.name

    @property
    def options(self) -> Options:
        """As the worker's definition has them; a submit may have changed some."""
        return self.job.settings

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function, so that a layer may be async."""
        return self.job.executor == "async"

    @property
    def context(self) -> JobContext:
        """What ``current_job()`` is inside the function."""
        return current_job()


class Finish:
    """The end of an attempt, as it will be reported to the master.

    Attributes:
        name: The job's name.
        job: Its definition; None: this worker has none.
        outcome: What came of it.
        error: What it raised, or why its arguments or result were refused.
    """

    __slots__ = ("_content_type", "_result", "error", "job", "name", "outcome")

    def __init__(
        self,
        name: str,
        job: JobDef[..., Any] | None,
        outcome: AttemptOutcome,
        error: RemoteError | None,
        result: bytes,
        content_type: str,
    ) -> None:
        """Used by workers."""
        self.name: Final = name
        self.job: Final = job
        self.outcome: Final = outcome
        self.error: Final = error
        self._result = result
        self._content_type = content_type

    @property
    def options(self) -> Options | None:
        """As the worker's definition has them."""
        return None if self.job is None else self.job.settings

    @property
    def context(self) -> JobContext:
        """What ``current_job()`` was inside the function."""
        return current_job()

    @property
    def result(self) -> Any:
        """The result as its receiver will have it, decoded when it is asked for; None: none."""
        return decode_result(self._result, self._content_type, self.job)


class Middleware:
    """Base class: override what you need. What is not overridden costs nothing."""

    def on_submit(self, submission: Submission, /) -> Layer:
        """Surrounds a submit. An error before the ``yield`` keeps the jobs from being submitted."""
        return nullcontext(submission)

    def on_run(self, execution: Execution, /) -> Layer:
        """Surrounds the function. An error is the attempt's, as if the function had raised it."""
        return nullcontext(execution)

    def on_finish(self, finish: Finish, /) -> Awaitable[None] | None:
        """Is told how an attempt ended. An error is logged, and changes nothing."""


def overriding(middleware: Iterable[Middleware], hook: str) -> tuple[Middleware, ...]:
    """Those that override a hook.

    Raises:
        Rejected: One is no ``Middleware``.
    """
    given = [*middleware]
    for index, one in enumerate(given):
        if not isinstance(one, Middleware):
            raise invalid(f"middleware[{index}]", f"an object of a Middleware class, got {one!r}")
    return tuple(one for one in given if getattr(type(one), hook) is not getattr(Middleware, hook))


async def enter(stack: AsyncExitStack, layer: Layer) -> None:
    """Enters a layer of either kind."""
    if isinstance(layer, AbstractAsyncContextManager):
        await stack.enter_async_context(layer)
    else:
        stack.enter_context(layer)


async def submit_through(
    middleware: Sequence[Middleware],
    job: AnyJob,
    calls: Iterable[Call],
    send: Callable[[AnyJob, Sequence[Call]], Awaitable[Sequence[AsyncJobHandle[Any]]]],
) -> Sequence[AsyncJobHandle[Any]]:
    """Submits inside all layers.

    A layer cannot keep an error to itself: there would be no handle to return.
    """
    submission = Submission(job, calls)
    failure: BaseException | None = None
    async with AsyncExitStack() as stack:
        for one in middleware:
            await enter(stack, one.on_submit(submission))
        try:
            submission.handles = await send(submission.job, submission.calls)
        except BaseException as error:
            failure = error
            raise
    if failure is not None:
        raise failure
    return submission.handles
