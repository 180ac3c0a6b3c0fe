"""The application's middleware, put around its jobs when it is loaded.

Without any, nothing here is called: the functions and the runners are those of ``attempt``.
"""

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack
from typing import Any, Final

from tenure.client.context import JobContext, enter_job
from tenure.client.errors import Permanent, RemoteError
from tenure.client.job import JobDef
from tenure.client.middleware import Execution, Finish, Middleware, enter, overriding
from tenure.worker.attempt import JobTable, run_coroutine, run_function
from tenure.worker.held import AttemptResult, HeldJob

_LOGGER: Final = logging.getLogger(__name__)

MakeContext = Callable[[], JobContext]
RunFunction = Callable[[JobTable, HeldJob, MakeContext], AttemptResult]
RunCoroutine = Callable[[JobTable, HeldJob, MakeContext], Coroutine[Any, Any, AttemptResult]]


class Application(dict[str, JobDef[..., Any]]):
    """The jobs of an application, inside its middleware.

    Attributes:
        finishers: Those to tell about ends, the last one registered first.
    """

    def __init__(self, jobs: JobTable, middleware: Iterable[Middleware]) -> None:
        """Wraps the jobs.

        Raises:
            Rejected: Something is no middleware.
        """
        given = [*middleware]
        runners = overriding(given, "on_run")
        super().__init__(
            {name: _surrounded(job, runners) for name, job in jobs.items()} if runners else jobs
        )
        self.finishers = overriding(given, "on_finish")[::-1]

    def part(self, names: Iterable[str]) -> "Application":
        """Some of its jobs, as they are."""
        part = Application({name: self[name] for name in names}, ())
        part.finishers = self.finishers
        return part


def finishers_of(jobs: JobTable) -> Sequence[Middleware]:
    """Those to tell about ends of attempts."""
    return jobs.finishers if isinstance(jobs, Application) else ()


def function_runner(jobs: JobTable) -> RunFunction:
    """What runs the plain functions of an application."""
    finishers = finishers_of(jobs)
    if not finishers:
        return run_function

    def run(jobs: JobTable, job: HeldJob, context: MakeContext) -> AttemptResult:
        # Here as well: an attempt that does not come to its function has a context, too.
        enter_job(context)
        result = run_function(jobs, job, context)
        tell_finish(finishers, jobs, job, result)
        return result

    return run


def tell_finish(
    finishers: Iterable[Middleware], jobs: JobTable, job: HeldJob, result: AttemptResult
) -> None:
    """Tells how an attempt of a plain function has ended."""
    finish = _finish_of(jobs, job, result)
    for one in finishers:
        try:
            waiting = one.on_finish(finish)
            if waiting is not None:
                _discard(waiting)
                raise _needs_coroutine(one, "on_finish", job.terms.name)
        except BaseException as error:  # noqa: BLE001  (user code: the attempt has ended)
            _log(one, job, error)


def coroutine_runner(jobs: JobTable) -> RunCoroutine:
    """What runs the coroutine functions of an application."""
    finishers = finishers_of(jobs)
    if not finishers:
        return run_coroutine

    async def run(jobs: JobTable, job: HeldJob, context: MakeContext) -> AttemptResult:
        enter_job(context)
        result = await run_coroutine(jobs, job, context)
        await tell_finish_in_loop(finishers, jobs, job, result)
        return result

    return run


async def tell_finish_in_loop(
    finishers: Iterable[Middleware], jobs: JobTable, job: HeldJob, result: AttemptResult
) -> None:
    """The same of a coroutine function."""
    finish = _finish_of(jobs, job, result)
    for one in finishers:
        try:
            waiting = one.on_finish(finish)
            if waiting is not None:
                await waiting
        # A cancel that comes now comes too late: the attempt has ended.
        except BaseException as error:  # noqa: BLE001  (user code, and its end)
            _log(one, job, error)


def _surrounded(job: JobDef[..., Any], layers: Sequence[Middleware]) -> JobDef[..., Any]:
    around = _around_coroutine if job.executor == "async" else _around_function
    return type(job)(
        functools.wraps(job.fn)(around(job, layers)),
        name=job.name,
        executor=job.executor,
        settings=job.settings,
        signature=job.signature,
        limits=job.limits,
        batching=job.batching,
        pool=job.pool,
    )


def _around_function(job: JobDef[..., Any], layers: Sequence[Middleware]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        execution = Execution(job, args, kwargs)
        with ExitStack() as stack:
            for one in layers:
                layer = one.on_run(execution)
                if isinstance(layer, AbstractAsyncContextManager):
                    raise _needs_coroutine(one, "on_run", job.name)
                stack.enter_context(layer)
            execution.result = job.fn(*execution.args, **execution.kwargs)
        return execution.result

    return run


def _around_coroutine(job: JobDef[..., Any], layers: Sequence[Middleware]) -> Callable[..., Any]:
    async def run(*args: Any, **kwargs: Any) -> Any:
        execution = Execution(job, args, kwargs)
        async with AsyncExitStack() as stack:
            for one in layers:
                await enter(stack, one.on_run(execution))
            execution.result = await job.fn(*execution.args, **execution.kwargs)
        return execution.result

    return run


def _finish_of(jobs: JobTable, job: HeldJob, result: AttemptResult) -> Finish:
    # An attempt that was given up has been reported already, whatever its code does in the end.
    reported = job.result or result
    fault = reported.fault
    error = None
    if fault is not None:
        error = RemoteError(
            type=fault.type,
            message=fault.message,
            traceback=fault.traceback,
            category=fault.category,
        )
    return Finish(
        job.terms.name,
        jobs.get(job.terms.name),
        reported.outcome,
        error,
        reported.result,
        job.terms.content_type,
    )


def _needs_coroutine(middleware: Middleware, hook: str, job_name: str) -> Permanent:
    return Permanent(
        f"expected {type(middleware).__name__}.{hook} to be plain around {job_name}, a plain "
        "function, but it is async: only coroutine jobs can await; ask is_async"
    )


def _discard(waiting: Awaitable[None]) -> None:
    if inspect.iscoroutine(waiting):
        waiting.close()


def _log(middleware: Middleware, job: HeldJob, error: BaseException) -> None:
    _LOGGER.error(
        "expected %s.on_finish to end well for job %s (%s), but it raised %s; what the attempt "
        "came to stands",
        type(middleware).__name__,
        job.job_id,
        job.terms.name,
        type(error).__name__,
        exc_info=error,
        extra={"action": "middleware", "job_id": job.job_id},
    )
