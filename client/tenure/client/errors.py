"""The errors that users of the SDK meet, outside their jobs and inside.

```
TenureError
├── Rejected       the request is wrong: do not send it again
│   ├── JobFailed      result(): the job ended FAILED
│   ├── JobCancelled   result(): the job was cancelled
│   └── Cancelled      inside a job: someone cancelled it; clean up and let it pass
├── Fenced
│   └── LeaseLost      inside a job: another worker may have it; stop touching the world
└── Unavailable    the cluster cannot answer now: try again
    └── WaitTimeout    wait for longer (it is a TimeoutError too)
BatchFailed            map(): some were refused; has the handles of the others
Permanent, RetryLater  raised by a job to say how its failure is to be treated
```
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tenure.protocol.errors import Fenced, Rejected, TenureError, Unavailable
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import ErrorCategory, FailureReason

__all__ = [
    "BatchFailed",
    "Cancelled",
    "Fenced",
    "JobCancelled",
    "JobFailed",
    "LeaseLost",
    "Permanent",
    "Reason",
    "Rejected",
    "RemoteError",
    "RetryLater",
    "TenureError",
    "Unavailable",
    "WaitTimeout",
    "error_type_names",
    "invalid",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteError:
    """What went wrong in a job's last attempt, as its worker saw it.

    Attributes:
        type: Class name, qualified by its module unless it is a builtin.
        message: At most 4 KiB.
        traceback: At most 32 KiB; may be empty.
        category: What kind of trouble; None if the worker did not say.
    """

    type: str
    message: str
    traceback: str = ""
    category: ErrorCategory | None = None

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


class JobFailed(Rejected):
    """A job ended FAILED. Its text ends with the traceback from the worker, if that sent one.

    Attributes:
        job_id: The job.
        error: The last attempt's error.
        attempts: How many attempts there were.
        failure_reason: Why there was no further one.
    """

    def __init__(
        self,
        job_id: str,
        error: RemoteError,
        attempts: int,
        failure_reason: FailureReason | None = None,
    ) -> None:
        why = failure_reason.name if failure_reason else "FAILED"
        super().__init__(
            f"expected job {job_id} to complete, but it failed ({why}) after "
            f"{attempts} attempt{'' if attempts == 1 else 's'}: {error}",
            reason=Reason.JOB_FAILED,
            metadata={"job_id": job_id, "attempts": str(attempts), "failure_reason": why},
        )
        self.job_id = job_id
        self.error = error
        self.attempts = attempts
        self.failure_reason = failure_reason

    def __str__(self) -> str:
        trace = self.error.traceback.strip()
        if not trace:
            return self.message
        return f"{self.message}\n\nIn its last attempt, on the worker:\n{trace}\n"


class JobCancelled(Rejected):
    """A job was cancelled, so it has no result.

    Attributes:
        job_id: The job.
        cancel_reason: What ``cancel`` was given for the record; empty: nothing.
    """

    def __init__(self, job_id: str, cancel_reason: str = "") -> None:
        why = f" ({cancel_reason})" if cancel_reason else ""
        super().__init__(
            f"expected job {job_id} to complete, but it was cancelled{why}; "
            "`tenure jobs requeue` runs it again",
            reason=Reason.JOB_CANCELLED,
            metadata={"job_id": job_id, "cancel_reason": cancel_reason},
        )
        self.job_id = job_id
        self.cancel_reason = cancel_reason


class WaitTimeout(Unavailable, TimeoutError):
    """A job had not ended when the caller's own timeout had passed; it goes on.

    Attributes:
        job_id: The job, or the first of several.
    """

    def __init__(self, job_id: str, timeout_s: float, others: int = 0) -> None:
        many = f" and {others} other{'s' if others > 1 else ''}" if others else ""
        super().__init__(
            f"expected job {job_id}{many} to end within {timeout_s:g} s, but "
            f"{'they have' if others else 'it has'} not; {'they go' if others else 'it goes'} on: "
            f"wait longer, or see `tenure jobs get {job_id}`",
            reason=Reason.DEADLINE_EXCEEDED,
            metadata={"job_id": job_id, "timeout_s": f"{timeout_s:g}", "others": str(others)},
        )
        self.job_id = job_id


class BatchFailed(TenureError):
    """Some jobs of a batch were not accepted; the others were.

    Attributes:
        handles: Of the accepted jobs, in order.
        errors: Why the others were not, by their index in the batch.
    """

    def __init__(self, handles: Sequence[Any], errors: Mapping[int, TenureError]) -> None:
        first = next(iter(errors.values()))
        super().__init__(
            f"expected to submit {len(handles) + len(errors)} jobs, but {len(errors)} were not "
            f"accepted, the first because: {first.message}",
            reason=first.reason,
            metadata={"accepted": str(len(handles)), "refused": str(len(errors))},
            retry_after_ms=first.retry_after_ms,
        )
        self.handles = handles
        self.errors = dict(errors)


class Cancelled(Rejected):
    """Raised inside a job at its next checkpoint after someone has cancelled it."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"expected to go on with job {job_id}, but it has been cancelled",
            reason=Reason.JOB_CANCELLED,
            metadata={"job_id": job_id},
        )


class LeaseLost(Fenced):
    """Raised inside a job at its next checkpoint after its lease was lost.

    Another worker may run the job already: stop, and change nothing more outside. The reason is
    SUPERSEDED if the master has taken the lease away, LEASE_EXPIRED if none has renewed it in time.
    """

    def __init__(self, job_id: str, *, superseded: bool = False) -> None:
        why = "the master has taken it away" if superseded else "no master has renewed it in time"
        super().__init__(
            f"expected to hold the lease of job {job_id}, but {why}; another worker may run the "
            "job: stop, and change nothing more outside",
            reason=Reason.SUPERSEDED if superseded else Reason.LEASE_EXPIRED,
            metadata={"job_id": job_id},
        )


class Permanent(Exception):
    """Raised by a job: a retry cannot mend this, so fail at once."""


class RetryLater(Exception):
    """Raised by a job: try again, but not before this time has passed.

    The wish wins over the backoff; the attempt is charged all the same.
    """

    def __init__(self, after: timedelta, message: str = "") -> None:
        if after < timedelta(0):
            raise invalid("after", f"a delay of 0 or more, got {after}")
        super().__init__(message or f"try again after {after}")
        self.after = after


def error_type_names(kind: type[BaseException]) -> list[str]:
    """The names by which ``non_retryable`` may mean an error: its class and its base classes.

    The first one is the error's own name, as ``JobError.type`` carries it.
    """
    return [
        base.__qualname__
        if base.__module__ == "builtins"
        else f"{base.__module__}.{base.__qualname__}"
        for base in kind.__mro__
        if base is not object
    ]


def invalid(field: str, expected: str, **metadata: str) -> Rejected:
    """The error for a wrong argument: ``expected <field> to be <expected>``."""
    return Rejected(
        f"expected {field} to be {expected}",
        reason=Reason.INVALID_ARGUMENT,
        metadata={"field": field, **metadata},
        field=field,
    )


def without_callback(job_id: str, error: TenureError) -> Unavailable:
    """Tells of a callback that was refused that its job was submitted all the same.

    It is OUTCOME_UNKNOWN, with the job's id, and the refusal as its cause.
    """
    told = Unavailable(
        f"expected to submit a job and its callback, but only job {job_id} was taken, as the "
        f"callback was refused ({error}); cancel the job, or submit what is to follow with "
        "after=[the job]",
        reason=Reason.OUTCOME_UNKNOWN,
        metadata={"job_id": job_id},
    )
    told.__cause__ = error
    return told
