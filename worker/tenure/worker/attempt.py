"""One attempt: the job's function called with its arguments, and what came of it as a result.

The three executors share this; the process executor runs it on the other side of a pipe.
"""

import os
import threading
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

from tenure.client.codec import decode_args, encode_result
from tenure.client.command import CommandFailed, CommandNotFound, CommandTooLarge, OutputTooLarge
from tenure.client.context import JobContext, enter_job
from tenure.client.errors import LeaseLost, Permanent, RetryLater, error_type_names
from tenure.client.job import JobDef
from tenure.client.parent_result import Fetched, Results, ResultsNeeded
from tenure.protocol.errors import Rejected
from tenure.protocol.limits import ERROR_MESSAGE_BYTES_MAX, TRACEBACK_BYTES_MAX
from tenure.protocol.refusal import Reason
from tenure.protocol.text import cut
from tenure.protocol.vocabulary import AttemptOutcome, ErrorCategory, LogStream
from tenure.worker.attempt_log import AttemptLog
from tenure.worker.held import AttemptResult, Fault, HeldJob

#: The functions that a worker serves, by job name.
JobTable = Mapping[str, JobDef[..., Any]]

#: Class names of user code have no bound of their own.
TYPE_BYTES_MAX: Final = 512
_SECOND_MS: Final = 1000
#: What this worker lacks and another may have.
_ELSEWHERE: Final = frozenset({Reason.UNKNOWN_JOB, Reason.UNKNOWN_CODEC})
#: Looked up once, not for each job.
_COMPLETED: Final = AttemptOutcome.COMPLETED
_LOGGING: Final = LogStream.LOGGING
_getpid: Final = os.getpid
#: Two threads of one job may say its first word at the same moment.
_MAKING: Final = threading.Lock()


class ThreadClock(Protocol):
    """Time for threads of user code."""

    def boot_ms(self) -> int:
        """CLOCK_BOOTTIME."""

    def wall_ms(self) -> int:
        """UTC since the Unix epoch."""


class RefusedCall(Exception):
    """The payload does not fit the function; the cause says where."""


def run_function(jobs: JobTable, job: HeldJob, context: Callable[[], JobContext]) -> AttemptResult:
    """Calls a plain function, in a ``contextvars.Context`` of its own. Never raises.

    Args:
        jobs: The functions.
        job: Which one, and its arguments.
        context: Makes what ``current_job()`` returns.
    """
    pid = _getpid()
    try:
        definition, args, kwargs = prepare(jobs, job, job.parents)
        enter_job(context)
        value = definition.fn(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001  (user code: all it raises is its result)
        end_copy_of(pid)
        return raised(job, error)
    end_copy_of(pid)
    return returned(job, definition, value)


async def run_coroutine(
    jobs: JobTable, job: HeldJob, context: Callable[[], JobContext]
) -> AttemptResult:
    """The same for a coroutine function.

    A task that is cancelled here is a stopped job: the outcome is reported, the loop goes on.
    """
    pid = _getpid()
    try:
        definition, args, kwargs = await prepare_in_loop(jobs, job)
        enter_job(context)
        value = await definition.fn(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001  (user code: all it raises is its result)
        end_copy_of(pid)
        return raised(job, error)
    end_copy_of(pid)
    return returned(job, definition, value)


def end_copy_of(pid: int) -> None:
    """Ends this process if it is a copy of that one, which the job's code has forked.

    Its work is done when the code returns. It must not answer in the other one's place, nor take
    the next job that waits there.
    """
    if _getpid() != pid:
        os._exit(0)


def prepare(
    jobs: JobTable, job: HeldJob, results: Results | None = None
) -> tuple[JobDef[..., Any], list[Any], dict[str, Any]]:
    """The function to call and its arguments.

    Args:
        jobs: The functions.
        job: Which one.
        results: Where those of parents come from; they are waited for here.

    Raises:
        ResultsNeeded: Arguments stand for such results, and there are no ``results``.
        RefusedCall: The arguments do not fit; calling again cannot help.
        Rejected: UNKNOWN_JOB or UNKNOWN_CODEC: another worker may have it.
    """
    definition = jobs.get(job.terms.name)
    if definition is None:
        raise Rejected(
            f"expected a job named {job.terms.name}, but this worker's application has none",
            reason=Reason.UNKNOWN_JOB,
            metadata={"job": job.terms.name},
        )
    try:
        args, kwargs = decode_args(job.payload, job.terms.content_type, definition, results)
    except Rejected as error:
        if error.reason is Reason.UNKNOWN_CODEC:
            raise
        raise RefusedCall from error
    return definition, args, kwargs


async def prepare_in_loop(
    jobs: JobTable, job: HeldJob
) -> tuple[JobDef[..., Any], list[Any], dict[str, Any]]:
    """As ``prepare``, where nothing may wait but by ``await``."""
    try:
        return prepare(jobs, job)
    except ResultsNeeded as needed:
        results = job.parents
        if results is None:
            raise
        found = await results.fetch_async(needed.job_ids)
        return prepare(jobs, job, Fetched(needed.job_ids, found, results))


def context_of(
    job: HeldJob,
    clock: ThreadClock,
    on_progress: Callable[[float], None] | None = None,
    on_checkpoint: Callable[[bytes], None] | None = None,
    on_word: Callable[[], None] | None = None,
) -> JobContext:
    """What ``current_job()`` is to return inside the job, whenever it is first asked.

    Args:
        job: The job.
        clock: Time.
        on_progress: Takes the job's progress; the default notes it for heartbeats.
        on_checkpoint: Takes what the job saves; the default keeps it for the session.
        on_word: Told whenever the job has said something.
    """
    deadline_ms = job.deadline_ms or None
    if job.terms.timeout_ms:
        now_ms = clock.boot_ms()
        begun_ms = now_ms if job.started_ms is None else job.started_ms
        timeout_at_ms = clock.wall_ms() - now_ms + begun_ms + job.terms.timeout_ms
        deadline_ms = timeout_at_ms if deadline_ms is None else min(deadline_ms, timeout_at_ms)
    return JobContext(
        id=job.job_id,
        name=job.terms.name,
        attempt=job.attempt,
        lease=job.lease,
        deadline_ms=deadline_ms,
        on_progress=on_progress or job.report_progress,
        is_cancelled=job.is_cancelled,
        is_lost=lambda: job.is_lost(clock.boot_ms()),
        is_superseded=lambda: job.revoked,
        saved=job.resume,
        on_checkpoint=on_checkpoint or job.save,
        is_wanted_back=job.is_wanted_back,
        on_output=partial(said, job, clock, on_word),
    )


def said(
    job: HeldJob,
    clock: ThreadClock,
    on_word: Callable[[], None] | None,
    stream: int,
    level: int,
    text: str,
) -> None:
    """The job's code has said something. Most jobs never do, and have no log."""
    log = log_of(job)
    if stream == _LOGGING:
        log.record(clock.wall_ms(), level, text)
    else:
        log.write(clock.wall_ms(), LogStream(stream), text)
    if on_word is not None:
        on_word()


def log_of(job: HeldJob) -> AttemptLog:
    """The job's log, which is made with its first word."""
    log = job.log
    if log is None:
        with _MAKING:
            log = job.log
            if log is None:
                log = job.log = AttemptLog()
    return log


def returned(job: HeldJob, definition: JobDef[..., Any], value: Any) -> AttemptResult:
    """The result of a function that returned. Its codec may be user code: it may raise anything."""
    if job.handed_back:
        # It was told to stop and has hidden that: what it returns is not the whole.
        return AttemptResult(AttemptOutcome.RELEASED)
    try:
        return AttemptResult(_COMPLETED, encode_result(value, definition, job.terms.content_type))
    except Rejected as error:
        return AttemptResult(AttemptOutcome.FAILED_PERMANENT, fault=_rejection(error))
    except BaseException as error:  # noqa: BLE001  (user code: all it raises is its result)
        return raised(job, error)


def raised(
    job: HeldJob, error: BaseException, describe: Callable[[BaseException], Fault] | None = None
) -> AttemptResult:
    """The result of a function that raised.

    A job that was asked to stop has stopped, whatever it raised on its way out.

    Args:
        job: The job.
        error: What it raised.
        describe: Says what the error is; the default is ``fault_of``.
    """
    describe = describe or fault_of
    if isinstance(error, LeaseLost) and job.lost_seen:
        return AttemptResult(AttemptOutcome.LOST, fault=describe(error))
    if job.stop is not None:
        return AttemptResult(job.stop, fault=describe(error))
    if job.handed_back:
        return AttemptResult(AttemptOutcome.RELEASED)
    if isinstance(error, RefusedCall) and isinstance(error.__cause__, Rejected):
        return AttemptResult(AttemptOutcome.FAILED_PERMANENT, fault=_rejection(error.__cause__))
    if isinstance(error, CommandNotFound | CommandTooLarge | OutputTooLarge):
        return AttemptResult(AttemptOutcome.FAILED_PERMANENT, fault=_rejection(error))
    if isinstance(error, Rejected) and error.reason in _ELSEWHERE:
        return AttemptResult(AttemptOutcome.FAILED, fault=_rejection(error, _TRANSIENT))
    names = error_type_names(type(error))
    permanent = isinstance(error, Permanent) or not job.terms.non_retryable.isdisjoint(names)
    if permanent:
        fault = describe(error)._replace(category=ErrorCategory.PERMANENT)
        return AttemptResult(AttemptOutcome.FAILED_PERMANENT, fault=fault)
    return AttemptResult(AttemptOutcome.FAILED, fault=describe(error))


def stopped(outcome: AttemptOutcome, message: str) -> AttemptResult:
    """The result of an attempt that was ended from outside."""
    fault = Fault(f"tenure.{outcome.name}", message, "", ErrorCategory.SYSTEM)
    return AttemptResult(outcome, fault=fault)


def fault_of(error: BaseException) -> Fault:
    """An exception as a fault: without this module's own frames, within the limits."""
    retry_after_ms = None
    if isinstance(error, RetryLater):
        retry_after_ms = int(error.after.total_seconds() * _SECOND_MS)
    try:
        message = str(error)
    except Exception as broken:  # noqa: BLE001  (user code: __str__ may do anything)
        message = f"(its __str__ raised {type(broken).__name__})"
    trace = error.__traceback__
    # The first frame is the executor's call; users know their own code better.
    inner = trace.tb_next if trace is not None and trace.tb_next is not None else trace
    try:
        lines = traceback.format_exception(type(error), error, inner)
    except Exception as broken:  # noqa: BLE001  (the same)
        lines = [f"(no traceback: formatting it raised {type(broken).__name__})"]
    if isinstance(error, CommandFailed):
        # Whose fault it is says the command, and no line of Python's.
        lines = ["It said last:\n", error.stderr] if error.stderr else []
    return Fault(
        cut(error_type_names(type(error))[0], TYPE_BYTES_MAX),
        cut(message, ERROR_MESSAGE_BYTES_MAX),
        cut("".join(lines), TRACEBACK_BYTES_MAX),
        ErrorCategory.SYSTEM if isinstance(error, OSError | MemoryError) else _TRANSIENT,
        retry_after_ms,
    )


_TRANSIENT: Final = ErrorCategory.TRANSIENT


def _rejection(error: Rejected, category: ErrorCategory = ErrorCategory.PERMANENT) -> Fault:
    """A refusal of the contract: its reason is the type that users look for."""
    return Fault(str(error.reason), cut(str(error), ERROR_MESSAGE_BYTES_MAX), "", category)
