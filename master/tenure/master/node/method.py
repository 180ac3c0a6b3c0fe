"""The methods that a master offers: one table, read by gRPC and by the simulated network alike."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import Message

from tenure.master.node.logs import LogApi
from tenure.protocol.errors import TenureError, first_of
from tenure.v1 import (
    batches_pb2,
    cluster_pb2,
    jobs_pb2,
    partition_pb2,
    queues_pb2,
    schedules_pb2,
    worker_pb2,
    workers_pb2,
    workflows_pb2,
)

if TYPE_CHECKING:
    from tenure.master.node.batches import BatchApi
    from tenure.master.node.master import Master
    from tenure.master.node.partitions import PartitionApi
    from tenure.master.node.queues import SettingsApi
    from tenure.master.node.workers import FleetApi

_log = logging.getLogger(__name__)

PACKAGE: Final = "tenure.v1"

#: Sends one message to the caller.
Send = Callable[[Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Unary:
    """One message in, one out."""

    serve: Callable[[Any], Awaitable[Message]]
    request_type: type[Message]


@dataclass(frozen=True, slots=True)
class ServerStream:
    """One message in, many out."""

    serve: Callable[[Any, Send], Awaitable[None]]
    request_type: type[Message]


@dataclass(frozen=True, slots=True)
class Bidi:
    """Messages both ways until either side ends the call."""

    serve: Callable[[AsyncIterator[Any], Send], Awaitable[None]]
    request_type: type[Message]


Method = Unary | ServerStream | Bidi


def services(master: Master) -> dict[str, dict[str, Method]]:
    """All methods, by service and name."""
    jobs, workers, cluster = master.jobs, master.workers, master.cluster
    logs = LogApi(jobs=jobs, taps=workers.taps)
    settings, schedules, flows = master.settings, master.schedules, master.workflows
    return {
        "JobService": {
            "SubmitJobs": Unary(jobs.submit_jobs, jobs_pb2.SubmitJobsRequest),
            "StreamSubmits": Bidi(jobs.stream_submits, jobs_pb2.StreamSubmitsRequest),
            "GetJob": Unary(jobs.get_job, jobs_pb2.GetJobRequest),
            "ListJobs": Unary(jobs.list_jobs, jobs_pb2.ListJobsRequest),
            "CountJobs": Unary(jobs.count_jobs, jobs_pb2.CountJobsRequest),
            "WaitJob": Unary(jobs.wait_job, jobs_pb2.WaitJobRequest),
            "StreamResults": Bidi(jobs.stream_results, jobs_pb2.StreamResultsRequest),
            "WatchJobs": ServerStream(jobs.watch_jobs, jobs_pb2.WatchJobsRequest),
            "CancelJobs": Unary(jobs.cancel_jobs, jobs_pb2.CancelJobsRequest),
            "RequeueJobs": Unary(jobs.requeue_jobs, jobs_pb2.RequeueJobsRequest),
            "PurgeJobs": Unary(jobs.purge_jobs, jobs_pb2.PurgeJobsRequest),
            "BoostJobs": Unary(jobs.boost_jobs, jobs_pb2.BoostJobsRequest),
            "ExplainJob": Unary(jobs.explain_job, jobs_pb2.ExplainJobRequest),
            "StreamLogs": ServerStream(logs.stream_logs, jobs_pb2.StreamLogsRequest),
        },
        "QueueService": {
            "GetQueue": Unary(settings.get_queue, queues_pb2.GetQueueRequest),
            "ListQueues": Unary(settings.list_queues, queues_pb2.ListQueuesRequest),
            "UpdateQueue": Unary(settings.update_queue, queues_pb2.UpdateQueueRequest),
        },
        "TenantService": {
            "ListTenants": Unary(settings.list_tenants, queues_pb2.ListTenantsRequest),
            "UpdateTenant": Unary(settings.update_tenant, queues_pb2.UpdateTenantRequest),
        },
        "JobTypeService": _job_type_methods(settings),
        "ScheduleService": {
            "PutSchedule": Unary(schedules.put_schedule, schedules_pb2.PutScheduleRequest),
            "GetSchedule": Unary(schedules.get_schedule, schedules_pb2.GetScheduleRequest),
            "ListSchedules": Unary(schedules.list_schedules, schedules_pb2.ListSchedulesRequest),
            "PauseSchedule": Unary(schedules.pause_schedule, schedules_pb2.PauseScheduleRequest),
            "ResumeSchedule": Unary(schedules.resume_schedule, schedules_pb2.ResumeScheduleRequest),
            "TriggerSchedule": Unary(
                schedules.trigger_schedule, schedules_pb2.TriggerScheduleRequest
            ),
            "DeleteSchedule": Unary(schedules.delete_schedule, schedules_pb2.DeleteScheduleRequest),
        },
        "WorkflowService": {
            "OpenWorkflow": Unary(flows.open_workflow, workflows_pb2.OpenWorkflowRequest),
            "SealWorkflow": Unary(flows.seal_workflow, workflows_pb2.SealWorkflowRequest),
            "GetWorkflow": Unary(flows.get_workflow, workflows_pb2.GetWorkflowRequest),
            "ListWorkflows": Unary(flows.list_workflows, workflows_pb2.ListWorkflowsRequest),
            "ListWorkflowMembers": Unary(
                flows.list_workflow_members, workflows_pb2.ListWorkflowMembersRequest
            ),
            "CountWorkflowMembers": Unary(
                flows.count_workflow_members, workflows_pb2.CountWorkflowMembersRequest
            ),
            "CancelWorkflow": Unary(flows.cancel_workflow, workflows_pb2.CancelWorkflowRequest),
            "RetryWorkflow": Unary(flows.retry_workflow, workflows_pb2.RetryWorkflowRequest),
        },
        "BatchService": _batch_methods(master.batches),
        "WorkerService": {"Session": Bidi(workers.session, worker_pb2.SessionRequest)},
        "WorkersService": _worker_methods(master.fleet),
        "ClusterService": {
            "GetTopology": Unary(cluster.get_topology, cluster_pb2.GetTopologyRequest),
            "ListMembers": Unary(cluster.list_members, cluster_pb2.ListMembersRequest),
            "GetStatus": Unary(cluster.get_status, cluster_pb2.GetStatusRequest),
            "TransferLeader": Unary(cluster.transfer_leader, cluster_pb2.TransferLeaderRequest),
            "Backup": ServerStream(cluster.backup, cluster_pb2.BackupRequest),
        },
        "PartitionService": _partition_methods(master.partitions),
    }


def _partition_methods(partitions: PartitionApi) -> dict[str, Method]:
    return {"Deliver": Unary(partitions.deliver, partition_pb2.DeliverRequest)}


def _job_type_methods(settings: SettingsApi) -> dict[str, Method]:
    return {
        "ListJobTypes": Unary(settings.list_job_types, queues_pb2.ListJobTypesRequest),
        "UpdateJobType": Unary(settings.update_job_type, queues_pb2.UpdateJobTypeRequest),
        "GetArgumentSchema": Unary(
            settings.get_argument_schema, queues_pb2.GetArgumentSchemaRequest
        ),
    }


def _worker_methods(fleet: FleetApi) -> dict[str, Method]:
    return {
        "ListWorkers": Unary(fleet.list_workers, workers_pb2.ListWorkersRequest),
        "GetWorker": Unary(fleet.get_worker, workers_pb2.GetWorkerRequest),
        "DrainWorker": Unary(fleet.drain_worker, workers_pb2.DrainWorkerRequest),
        "UndrainWorker": Unary(fleet.undrain_worker, workers_pb2.UndrainWorkerRequest),
        "QuarantineWorker": Unary(fleet.quarantine_worker, workers_pb2.QuarantineWorkerRequest),
        "ReleaseWorker": Unary(fleet.release_worker, workers_pb2.ReleaseWorkerRequest),
    }


def _batch_methods(batches: BatchApi) -> dict[str, Method]:
    return {
        "CreateBatch": Unary(batches.create_batch, batches_pb2.CreateBatchRequest),
        "GetBatch": Unary(batches.get_batch, batches_pb2.GetBatchRequest),
        "ListBatches": Unary(batches.list_batches, batches_pb2.ListBatchesRequest),
        "CancelBatch": Unary(batches.cancel_batch, batches_pb2.CancelBatchRequest),
    }


def answer_of(error: BaseException) -> TenureError:
    """What the caller of a method that failed is told."""
    found = first_of(error)
    if isinstance(found, TenureError):
        return found
    _log.error("A handler failed", exc_info=error, extra={"action": "handler_failed"})
    return TenureError("expected to answer, but the master failed inside; see its log")
