"""The SDK: define jobs, submit them, wait for their results."""

from tenure.client.batch_handler import current_batch
from tenure.client.batches import AsyncBatches, Batch, BatchKindName
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
from tenure.client.explain import Blocker, Explanation
from tenure.client.flow import Chain, Chord, Group, chain, chord, group, result_of, results_of
from tenure.client.frontier import Frontier
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
from tenure.client.logs import LogLine
from tenure.client.middleware import Call, Execution, Finish, Layer, Middleware, Submission
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
from tenure.client.sync import Client, JobHandle
from tenure.client.sync_batches import Batches
from tenure.client.sync_schedules import Schedules
from tenure.client.sync_workflows import StartedFlow, Workflow, Workflows
from tenure.client.watch import JobEvent
from tenure.client.workers import LoopBlocked, Quarantine, Worker, WorkerLease, WorkerVitals
from tenure.client.workflow import AsyncStartedFlow, AsyncWorkflow, AsyncWorkflows
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
