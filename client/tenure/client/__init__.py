"""The SDK: define jobs, submit them, wait for their results."""

from tenure.client.context import JobContext, current_job
from tenure.client.errors import (
    Cancelled,
    Fenced,
    JobCancelled,
    JobFailed,
    LeaseLost,
    Permanent,
    Reason,
    Rejected,
    RemoteError,
    RetryLater,
    TenureError,
    Unavailable,
    WaitTimeout,
)
from tenure.client.job import AsyncJob, Job, JobDef, Retry, job, named

__all__ = [
    "AsyncJob",
    "Job",
    "JobDef",
    "Retry",
    "job",
    "named",
    "JobContext",
    "current_job",
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
]
