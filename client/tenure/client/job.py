"""``@job``: turns a function into a job definition that can be called, tuned and submitted."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Generic, Literal, ParamSpec, Protocol, Self, TypeVar, cast, overload

from tenure.client.batch_handler import Batching, ItemSignature
from tenure.client.command import Command, Output, as_job, says_command
from tenure.client.confinement import Limits
from tenure.client.content_type import Codec, content_type_of
from tenure.client.errors import Rejected, invalid
from tenure.client.options import (
    ConflictName,
    Options,
    ParentFailureName,
    Retry,
    RowKey,
    RunIfName,
    Selectors,
    check_name,
    default_name,
    row_keys,
)
from tenure.client.parent_result import placeholder
from tenure.client.signature import Signature
from tenure.protocol.limits import DEFAULT_QUEUE
from tenure.protocol.refusal import Reason
from tenure.v1 import common_pb2

__all__ = [
    "AsyncBatchJob",
    "AsyncJob",
    "BatchJob",
    "Executor",
    "Job",
    "JobDef",
    "Retry",
    "job",
    "named",
]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
#: One item of a batch handler.
I = TypeVar("I")  # noqa: E741  (next to P and R it says what it is)

#: Where a function runs: in a thread, in the worker's event loop, or in a spawned child process; or
#: what runs is the command that it gives back.
Executor = Literal["thread", "async", "process", "command"]
#: Where batch handlers may run.
BatchExecutor = Literal["thread", "async"]

#: Where a job has a process of its own, which can be held to limits.
_CONFINED: Final = frozenset({"process", "command"})
_UNCHANGED: Final[Any] = object()
#: Settings that are no part of the options that jobs of a batch share.
_ROW_SETTINGS: Final = frozenset(
    {"key", "limit_key", "sticky_key", "after", "on_success", "on_failure"}
)


class HasId(Protocol):
    """A job's handle, of either kind of client."""

    @property
    def id(self) -> str:
        """The job's id."""
        ...


class JobDef(Generic[P, R_co]):
    """A function that can be submitted, and how its jobs are to be run. Immutable.

    Attributes:
        name: What the cluster knows it by.
        fn: The function itself.
        executor: Where workers run it.
        settings: Queue, priority, timeouts and so on.
        signature: What it takes and returns.
        batching: How its jobs are put together for one call; None: each has a call of its own.
        pool: Whose slots it takes at a worker; empty: those of its executor, or the default ones.
        limits: What an attempt may use; None: as much as the worker may.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        name: str,
        executor: Executor,
        settings: Options,
        signature: Signature | None = None,
        batching: Batching | None = None,
        pool: str = "",
        limits: Limits | None = None,
    ) -> None:
        """Used by ``job()``; ``signature`` is handed on to copies of one definition."""
        check_name("name", name)
        if pool:
            check_name("pool", pool)
        functools.update_wrapper(cast("Any", self), fn)
        self.name: Final = name
        self.fn: Final = fn
        self.executor: Final[Executor] = executor
        self.settings: Final = settings
        self.batching: Final = batching
        self.signature: Final = signature or (
            Signature(name, fn) if batching is None else ItemSignature(name, fn)
        )
        self.pool: Final = pool
        self.limits: Final = limits
        self._wire: common_pb2.JobOptions | None = None

    @property
    def queue(self) -> str:
        """The queue that its jobs wait in."""
        return self.settings.queue

    @property
    def retry(self) -> Retry | None:
        """When a failed job is tried again; None: the defaults."""
        return self.settings.retry

    @property
    def timeout(self) -> timedelta | None:
        """Each attempt's own limit."""
        return self.settings.timeout

    @property
    def wire(self) -> common_pb2.JobOptions:
        """The settings as a message, built once. Shared: never change it."""
        if self._wire is None:
            self._wire = self.settings.to_wire(self.name)
        return self._wire

    @property
    def has_row_keys(self) -> bool:
        """Whether calls have a limit key or a sticky key."""
        return bool(self.settings.limit_key or self.settings.sticky_key)

    @property
    def has_callbacks(self) -> bool:
        """Whether other jobs are submitted with each of its jobs."""
        return self.settings.on_success is not None or self.settings.on_failure is not None

    def row_keys(
        self, calls: Iterable[tuple[Sequence[Any], Mapping[str, Any]]]
    ) -> Sequence[tuple[str, str]]:
        """The limit key and the sticky key of each call; none if no call has any.

        Raises:
            Rejected: What was made of a call's arguments is no key; ``field`` names which.
        """
        if not self.has_row_keys:
            return ()
        given = [*calls]
        limits = row_keys("limit_key", self.settings.limit_key, given)
        stickies = row_keys("sticky_key", self.settings.sticky_key, given)
        return [*zip(limits, stickies, strict=True)]

    def options(
        self,
        *,
        queue: str = _UNCHANGED,
        tenant: str = _UNCHANGED,
        priority: int | None = _UNCHANGED,
        delay: timedelta | None = _UNCHANGED,
        at: datetime | None = _UNCHANGED,
        key: str = _UNCHANGED,
        key_window: timedelta | None = _UNCHANGED,
        timeout: timedelta | None = _UNCHANGED,
        schedule_timeout: timedelta | None = _UNCHANGED,
        deadline: timedelta | None = _UNCHANGED,
        heartbeat_timeout: timedelta | None = _UNCHANGED,
        retry: Retry | None = _UNCHANGED,
        labels: Mapping[str, str] = _UNCHANGED,
        at_most_once: bool = _UNCHANGED,
        result_ttl: timedelta | None = _UNCHANGED,
        codec: Codec | str = _UNCHANGED,
        key_conflict: ConflictName = _UNCHANGED,
        limit_key: str = _UNCHANGED,
        sticky_key: str = _UNCHANGED,
        requires: Selectors = _UNCHANGED,
        prefers: Selectors = _UNCHANGED,
        after: Iterable[str | HasId] = _UNCHANGED,
        run_if: RunIfName = _UNCHANGED,
        on_parent_failure: ParentFailureName = _UNCHANGED,
        on_success: JobDef[..., Any] | Step[Any] | None = _UNCHANGED,
        on_failure: JobDef[..., Any] | Step[Any] | None = _UNCHANGED,
    ) -> Self:
        """The same job with other settings; what is not named stays.

        Args:
            queue: The queue to wait in; jobs of one queue start in order.
            tenant: On whose behalf.
            priority: 0 (critical) to 10 (low); None: 5.
            delay: Wait this long first (at most 366 days).
            at: Wait until then; must have a time zone. Excludes ``delay``.
            key: Idempotency key: within its window the same (tenant, queue, key) is the same job.
            key_window: How long the key stays taken; None: 24 hours (at most 7 days).
            timeout: Each attempt's own limit (at most 7 days).
            schedule_timeout: Fail the job if no attempt has started within this time.
            deadline: Limit of the whole job, retries included.
            heartbeat_timeout: Time out an attempt that reports no progress for this long, and for
                the 6.5 s that word of it may take.
            retry: When to try again.
            labels: Names and values to find jobs by.
            at_most_once: Never run it a second time, not even after a crash.
            result_ttl: How long the result is kept.
            codec: How arguments and result are encoded: a codec, or the content type of one that is
                registered (``"application/json"`` is).
            key_conflict: What a taken ``key`` comes to: ``return`` the job that has it, ``reject``
                this one (JOB_KEY_CONFLICT), or ``replace`` that one unless it runs.
            limit_key: Jobs of the queue with the same one share its limits per key.
            sticky_key: Jobs of the queue with the same one go to one worker while it lives.
            requires: Labels that its worker must have: ``{"gpu": "*", "zone": ["eu", "us"]}``.
            prefers: Labels that its worker had better have, the more the better.
            after: Jobs that must have ended first, by their handles or ids (at most 1,000).
            run_if: Which of their outcomes let it run: ``all_succeeded``, ``any_failed`` (else it
                is cancelled as not needed), or ``always``.
            on_parent_failure: What becomes of it if not all have succeeded: ``fail``, ``ignore``
                that, or ``hold`` it until the failed one was requeued and has succeeded.
            on_success: Submitted with it, to run when it has COMPLETED, else it is
                FAILED/DEPENDENCY. ``job.bind(…)`` says with which arguments; a job as it is gets
                the result as its only one.
            on_failure: The same, to run when it is FAILED or CANCELLED, else it is CANCELLED as
                not needed. A job as it is gets the id of the one that failed.

        Raises:
            Rejected: A value is out of range; ``field`` names it. UNKNOWN_CODEC.
        """
        given = {
            "queue": queue,
            "tenant": tenant,
            "priority": priority,
            "delay": delay,
            "at": at,
            "key": key,
            "key_window": key_window,
            "timeout": timeout,
            "schedule_timeout": schedule_timeout,
            "deadline": deadline,
            "heartbeat_timeout": heartbeat_timeout,
            "retry": retry,
            "labels": labels,
            "at_most_once": at_most_once,
            "result_ttl": result_ttl,
            "content_type": codec if codec is _UNCHANGED else content_type_of(codec),
            "key_conflict": key_conflict,
            "limit_key": limit_key,
            "sticky_key": sticky_key,
            "requires": requires,
            "prefers": prefers,
            "after": after if after is _UNCHANGED else tuple(map(_id_of, after)),
            "run_if": run_if,
            "on_parent_failure": on_parent_failure,
            "on_success": on_success,
            "on_failure": on_failure,
        }
        return self._changed({k: v for k, v in given.items() if v is not _UNCHANGED})

    def _changed(self, changes: dict[str, Any]) -> Self:
        changed = type(self)(
            self.fn,
            name=self.name,
            executor=self.executor,
            settings=dataclasses.replace(self.settings, **changes),
            signature=self.signature,
            limits=self.limits,
            batching=self.batching,
            pool=self.pool,
        )
        if changes.keys() <= _ROW_SETTINGS:
            # They belong to the row, so a batch of keyed jobs shares one message.
            changed._wire = self.wire
        return changed

    def callbacks(self, job_id: str) -> list[tuple[JobDef[..., Any], Step[Any]]]:
        """The jobs to be submitted with one of this job: how they run, and with which arguments.

        Args:
            job_id: The one of this job.
        """
        found: list[tuple[JobDef[..., Any], Step[Any]]] = []
        for name, callback, run_if in (
            ("on_success", self.settings.on_success, "all_succeeded"),
            ("on_failure", self.settings.on_failure, "any_failed"),
        ):
            if callback is None:
                continue
            if not isinstance(callback, Step):
                given = placeholder(job_id) if name == "on_success" else job_id
                callback = Step(callback, (given,), {})
            job = callback.job.options(
                after=[*callback.job.settings.after, job_id], run_if=cast("RunIfName", run_if)
            )
            found.append((job, callback))
        return found

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Step[R_co]:
        """A call of the job that is not submitted yet: a step of a workflow, or a callback."""
        return Step(self, args, kwargs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} on queue {self.queue}>"


class Flow(Generic[R_co]):
    """Something to start that comes to a result: a step, or a chain, group or chord of steps."""


class Step(Flow[R_co]):
    """A job and its arguments, not submitted yet. Made by ``JobDef.bind``."""

    def __init__(
        self, job: JobDef[..., R_co], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self.job: Final = job
        self.args: Final = args
        self.kwargs: Final = dict(kwargs)

    def __repr__(self) -> str:
        return f"<Step {self.job.name}>"


def _id_of(job: str | HasId) -> str:
    return job if isinstance(job, str) else job.id


class Job(JobDef[P, R_co]):
    """A job whose function is a plain one. Calling it calls the function, here and now."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        result: R_co = self.fn(*args, **kwargs)
        return result


class AsyncJob(JobDef[P, R_co]):
    """A job whose function is a coroutine function. Calling it makes the coroutine, here."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        coroutine: Coroutine[Any, Any, R_co] = self.fn(*args, **kwargs)
        return coroutine


class BatchJob(JobDef[[I], R_co], Generic[I, R_co]):
    """A job whose plain function takes many items at once. Calling it calls the function, here."""

    def __call__(self, items: list[I], /) -> Sequence[R_co | Exception]:
        outcomes: Sequence[R_co | Exception] = self.fn(items)
        return outcomes


class AsyncBatchJob(JobDef[[I], R_co], Generic[I, R_co]):
    """The same of a coroutine function. Calling it makes the coroutine, here."""

    def __call__(self, items: list[I], /) -> Coroutine[Any, Any, Sequence[R_co | Exception]]:
        coroutine: Coroutine[Any, Any, Sequence[R_co | Exception]] = self.fn(items)
        return coroutine


class JobDecorator(Protocol):
    """What ``job(queue=…)`` returns."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncJob[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Command[Output]], /) -> Job[P, Output]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Job[P, R]: ...


class BatchDecorator(Protocol):
    """What ``job(batch=…)`` returns."""

    @overload
    def __call__(
        self, fn: Callable[[list[I]], Coroutine[Any, Any, Sequence[R | Exception]]], /
    ) -> AsyncBatchJob[I, R]: ...
    @overload
    def __call__(self, fn: Callable[[list[I]], Sequence[R | Exception]], /) -> BatchJob[I, R]: ...


# The coroutine overload comes first: the other one would take it for a function that returns a
# coroutine, and every handle of an async job would have the wrong type.
@overload
def job(  # type: ignore[overload-overlap]
    fn: Callable[P, Coroutine[Any, Any, R]], /
) -> AsyncJob[P, R]: ...
@overload
def job(fn: Callable[P, Command[Output]], /) -> Job[P, Output]: ...
@overload
def job(fn: Callable[P, R], /) -> Job[P, R]: ...
@overload
def job(
    *,
    name: str | None = None,
    queue: str = DEFAULT_QUEUE,
    executor: Executor | None = None,
    pool: str = "",
    limits: Limits | None = None,
    retry: Retry | None = None,
    timeout: timedelta | None = None,
    priority: int | None = None,
    labels: Mapping[str, str] | None = None,
    schedule_timeout: timedelta | None = None,
    deadline: timedelta | None = None,
    heartbeat_timeout: timedelta | None = None,
    at_most_once: bool = False,
    result_ttl: timedelta | None = None,
    codec: Codec | str | None = None,
    key_conflict: ConflictName = "return",
    limit_key: RowKey = "",
    sticky_key: RowKey = "",
    requires: Selectors | None = None,
    prefers: Selectors | None = None,
) -> JobDecorator: ...
@overload
def job(
    *,
    batch: int,
    linger_ms: int | None = None,
    name: str | None = None,
    queue: str = DEFAULT_QUEUE,
    executor: BatchExecutor | None = None,
    pool: str = "",
    retry: Retry | None = None,
    timeout: timedelta | None = None,
    priority: int | None = None,
    labels: Mapping[str, str] | None = None,
    schedule_timeout: timedelta | None = None,
    deadline: timedelta | None = None,
    heartbeat_timeout: timedelta | None = None,
    at_most_once: bool = False,
    result_ttl: timedelta | None = None,
    codec: Codec | str | None = None,
    key_conflict: ConflictName = "return",
    limit_key: RowKey = "",
    sticky_key: RowKey = "",
    requires: Selectors | None = None,
    prefers: Selectors | None = None,
) -> BatchDecorator: ...
def job(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    batch: int | None = None,
    linger_ms: int | None = None,
    name: str | None = None,
    executor: Executor | None = None,
    pool: str = "",
    limits: Limits | None = None,
    labels: Mapping[str, str] | None = None,
    codec: Codec | str | None = None,
    requires: Selectors | None = None,
    prefers: Selectors | None = None,
    **settings: Any,
) -> Any:
    """Makes a job of a function: ``@job`` or ``@job(queue="media", …)``.

    Args:
        fn: The function, when used without parentheses.
        batch: One call takes the items of up to this many jobs (at most 1,000): the function has
            one parameter, a list of items, and returns a list of what came of each, a value or an
            exception. ``submit`` takes one item.
        linger_ms: How long the first of them waits for others; None: 50 (at most 60,000).
        name: What the cluster knows it by; default ``module.function``.
        executor: ``"process"`` runs it in a spawned child (CPU work, code that may crash). The
            default is a thread for functions, the worker's event loop for coroutine functions, and
            ``"command"`` for functions that say which command to run: those annotated with
            ``Command``.
        limits: What an attempt may use, for ``"process"`` and ``"command"``.
        pool: Its class, for which workers may have slots of their own (``tenure worker --pool
            cpu=2``). Where they have none, a job takes those of its executor, if there are such
            (``--pool process=2``), or the default ones (``--slots``).
        labels: Names and values to find jobs by.
        codec: How arguments and result are encoded; the default is MessagePack.
        requires: Labels that workers must have.
        prefers: Labels that workers had better have.
        **settings: As ``JobDef.options`` takes them; ``limit_key`` and ``sticky_key`` may also be
            functions that make the key of the job's arguments.

    Raises:
        Rejected: A setting is out of range; ``field`` names it. UNKNOWN_CODEC.
    """
    if codec is not None:
        settings["content_type"] = content_type_of(codec)
    options = Options(
        labels=dict(labels or {}),
        requires=dict(requires or {}),
        prefers=dict(prefers or {}),
        **settings,
    )

    batching = _batching_for(batch, linger_ms, executor)

    def decorate(function: Callable[..., Any]) -> Any:
        is_async = inspect.iscoroutinefunction(function)
        where = _executor_for(function, executor)
        if limits is not None and where not in _CONFINED:
            raise invalid("limits", "given for process and command jobs: others share a process")
        if where == "command" and batching is not None:
            raise invalid("batch", "given for a handler in Python: a command has one job")
        return _kind_of(is_async, batching is not None)(
            as_job(function) if where == "command" else function,
            name=name or default_name(function),
            executor=where,
            settings=options,
            limits=limits,
            batching=batching,
            pool=pool,
        )

    return decorate if fn is None else decorate(fn)


def named(name: str, *, codec: Codec | str | None = None, **settings: Any) -> Job[..., Any]:
    """A job known by name only: its function lives elsewhere, so arguments go unchecked.

    Args:
        name: The job's name.
        codec: As ``job`` takes it.
        **settings: As ``JobDef.options`` takes them.
    """

    def elsewhere(*args: Any, **kwargs: Any) -> Any:
        raise Rejected(
            f"expected to run job {name}, but its function is not defined here",
            reason=Reason.UNKNOWN_JOB,
            metadata={"job": name},
        )

    if codec is not None:
        settings["content_type"] = content_type_of(codec)
    return Job(
        elsewhere,
        name=name,
        executor="thread",
        settings=Options(**settings),
        signature=Signature(name, elsewhere, stands_in=True),
    )


def _batching_for(
    batch: int | None, linger_ms: int | None, executor: Executor | None
) -> Batching | None:
    if batch is None:
        if linger_ms is not None:
            raise invalid("linger_ms", "given together with batch, got it alone")
        return None
    if executor not in (None, "thread", "async"):
        raise invalid("executor", f"'thread' or 'async' for a batch handler, got {executor!r}")
    return Batching.checked(batch, linger_ms)


def _kind_of(is_async: bool, is_batch: bool) -> type[JobDef[..., Any]]:
    if is_batch:
        return AsyncBatchJob if is_async else BatchJob
    return AsyncJob if is_async else Job


def _executor_for(function: Callable[..., Any], wish: Executor | None) -> Executor:
    if inspect.iscoroutinefunction(function):
        if wish not in (None, "async"):
            raise invalid("executor", f"'async' for a coroutine function, got {wish!r}")
        return "async"
    if says_command(function):
        if wish not in (None, "command"):
            raise invalid("executor", f"'command' for one that gives a Command, got {wish!r}")
        return "command"
    if wish == "command":
        raise invalid(
            "executor", "'command' for a function annotated with what it gives back: Command[str]"
        )
    if wish not in (None, "thread", "process"):
        raise invalid("executor", f"'thread' or 'process' for a plain function, got {wish!r}")
    return wish or "thread"
