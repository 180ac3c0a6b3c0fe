"""The SDK: define jobs, submit them, wait for their results.

Many programs only submit and wait, and pay for the import at every start. So what operates a
cluster, and what tells of it, is imported when one of its names is asked for (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING

from tenure.client.batch_handler import current_batch
from tenure.client.change import JobVerdict
from tenure.client.client import AsyncClient
from tenure.client.command import Command, CommandFailed, CommandNotFound
from tenure.client.confinement import Limits
from tenure.client.content_type import Codec, register_codec
from tenure.client.context import JobContext, current_job
from tenure.client.errors import (
    BatchFailed,
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
from tenure.client.flow import Chain, Chord, Group, chain, chord, group, result_of, results_of
from tenure.client.handle import AsyncJobHandle
from tenure.client.job import (
    AsyncBatchJob,
    AsyncJob,
    BatchJob,
    Flow,
    Job,
    JobDef,
    Retry,
    Step,
    job,
    named,
)
from tenure.client.middleware import Call, Execution, Finish, Layer, Middleware, Submission
from tenure.client.sync import Client, JobHandle
from tenure.protocol.tls import Tls
from tenure.protocol.vocabulary import (
    AttemptOutcome,
    BatchKind,
    BatchState,
    BlockerKind,
    BreakerState,
    FailureReason,
    JobState,
    WorkerState,
    WorkflowState,
)

if TYPE_CHECKING:
    from tenure.client.batches import AsyncBatches, Batch, BatchKindName
    from tenure.client.explain import Blocker, Explanation
    from tenure.client.frontier import Frontier
    from tenure.client.logs import LogLine
    from tenure.client.schedule import AsyncSchedules, Cron, cron
    from tenure.client.settings import (
        BreakerSettings,
        JobType,
        JobTypeSettings,
        KeyBreaker,
        Queue,
        QueueSettings,
        RateLimit,
        Tenant,
        TenantSettings,
    )
    from tenure.client.sync_batches import Batches
    from tenure.client.sync_schedules import Schedules
    from tenure.client.sync_workflows import StartedFlow, Workflow, Workflows
    from tenure.client.watch import JobEvent
    from tenure.client.workers import LoopBlocked, Quarantine, Worker, WorkerLease, WorkerVitals
    from tenure.client.workflow import AsyncStartedFlow, AsyncWorkflow, AsyncWorkflows

__all__ = [
    "AsyncClient",
    "AsyncJobHandle",
    "Client",
    "Codec",
    "Call",
    "Execution",
    "Finish",
    "Layer",
    "Middleware",
    "Submission",
    "BreakerSettings",
    "JobType",
    "JobTypeSettings",
    "KeyBreaker",
    "Queue",
    "QueueSettings",
    "RateLimit",
    "Tenant",
    "TenantSettings",
    "AsyncBatches",
    "Batch",
    "BatchKind",
    "BatchKindName",
    "BatchState",
    "Batches",
    "JobEvent",
    "JobHandle",
    "JobVerdict",
    "LogLine",
    "Blocker",
    "BlockerKind",
    "Explanation",
    "Tls",
    "AttemptOutcome",
    "BreakerState",
    "FailureReason",
    "JobState",
    "LoopBlocked",
    "Quarantine",
    "Worker",
    "WorkerLease",
    "WorkerState",
    "WorkerVitals",
    "AsyncStartedFlow",
    "AsyncWorkflow",
    "AsyncWorkflows",
    "Chain",
    "Chord",
    "Flow",
    "Frontier",
    "Group",
    "StartedFlow",
    "Step",
    "Workflow",
    "Workflows",
    "WorkflowState",
    "chain",
    "chord",
    "group",
    "result_of",
    "results_of",
    "Command",
    "CommandFailed",
    "CommandNotFound",
    "Limits",
    "AsyncBatchJob",
    "AsyncJob",
    "BatchJob",
    "Job",
    "JobDef",
    "Retry",
    "AsyncSchedules",
    "Cron",
    "Schedules",
    "cron",
    "job",
    "named",
    "register_codec",
    "JobContext",
    "current_batch",
    "current_job",
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
]

#: The modules of names that are imported when they are asked for.
_LATER = {
    "AsyncBatches": "tenure.client.batches",
    "Batch": "tenure.client.batches",
    "BatchKindName": "tenure.client.batches",
    "Blocker": "tenure.client.explain",
    "Explanation": "tenure.client.explain",
    "Frontier": "tenure.client.frontier",
    "LogLine": "tenure.client.logs",
    "AsyncSchedules": "tenure.client.schedule",
    "Cron": "tenure.client.schedule",
    "cron": "tenure.client.schedule",
    "BreakerSettings": "tenure.client.settings",
    "JobType": "tenure.client.settings",
    "JobTypeSettings": "tenure.client.settings",
    "KeyBreaker": "tenure.client.settings",
    "Queue": "tenure.client.settings",
    "QueueSettings": "tenure.client.settings",
    "RateLimit": "tenure.client.settings",
    "Tenant": "tenure.client.settings",
    "TenantSettings": "tenure.client.settings",
    "Batches": "tenure.client.sync_batches",
    "Schedules": "tenure.client.sync_schedules",
    "StartedFlow": "tenure.client.sync_workflows",
    "Workflow": "tenure.client.sync_workflows",
    "Workflows": "tenure.client.sync_workflows",
    "JobEvent": "tenure.client.watch",
    "LoopBlocked": "tenure.client.workers",
    "Quarantine": "tenure.client.workers",
    "Worker": "tenure.client.workers",
    "WorkerLease": "tenure.client.workers",
    "WorkerVitals": "tenure.client.workers",
    "AsyncStartedFlow": "tenure.client.workflow",
    "AsyncWorkflow": "tenure.client.workflow",
    "AsyncWorkflows": "tenure.client.workflow",
}


def __getattr__(name: str) -> object:
    """What is imported when it is asked for, once."""
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(module), name)
    return found


def __dir__() -> list[str]:
    """All names, those that were not asked for yet, too."""
    return sorted({*globals(), *_LATER})
