"""WorkflowService: each workflow answered by its home's term, its members by their own terms'."""

from typing import Final

from tenure.master.core.command import (
    CancelWorkflow,
    Command,
    OpenWorkflow,
    RetryWorkflow,
    SealWorkflow,
)
from tenure.master.core.record import JobRecord
from tenure.master.core.workflow import unknown
from tenure.master.core.workflows import WorkflowRecord
from tenure.master.node.paging import number_of, page_size, page_token, place_of
from tenure.master.node.roster import Roster
from tenure.master.node.term import Term
from tenure.master.node.translate import (
    checked_name,
    checked_span,
    invalid,
    parents_of,
    stamp,
    wire_enum,
)
from tenure.protocol import limits
from tenure.protocol.errors import error_of
from tenure.protocol.ids import JobId, is_job_id, partition_of
from tenure.protocol.vocabulary import JobState
from tenure.v1 import workflows_pb2

_REASON_CHARS_MAX: Final = 1_024


class WorkflowApi:
    """The service, without gRPC: messages in, messages out, errors raised.

    Args:
        roster: Finds the term of a partition, or says who leads it.
    """

    def __init__(self, *, roster: Roster) -> None:
        self._roster = roster

    async def open_workflow(
        self, request: workflows_pb2.OpenWorkflowRequest
    ) -> workflows_pb2.OpenWorkflowResponse:
        """Begins a workflow; returns when that is durable."""
        within_ms = limits.SEAL_WITHIN_MS_DEFAULT
        if request.HasField("seal_within"):
            most_ms = limits.SEAL_WITHIN_MS_MAX
            within_ms = checked_span(request.seal_within, "seal_within", most_ms)
            if not within_ms:
                raise invalid("seal_within", "it is 0: nothing could be sealed in time")
        command = OpenWorkflow(
            workflow_id=_checked_id(request.workflow_id),
            name=checked_name(request.name, "name"),
            tenant=checked_name(request.tenant or limits.DEFAULT_TENANT, "tenant"),
            seal_within_ms=within_ms,
        )
        workflow = await self._change(request.workflow_id, command)
        return workflows_pb2.OpenWorkflowResponse(workflow=workflow)

    async def seal_workflow(
        self, request: workflows_pb2.SealWorkflowRequest
    ) -> workflows_pb2.SealWorkflowResponse:
        """Lets the members run."""
        workflow_id = _checked_id(request.workflow_id)
        command = SealWorkflow(workflow_id=workflow_id, members=request.members)
        workflow = await self._change(workflow_id, command)
        return workflows_pb2.SealWorkflowResponse(workflow=workflow)

    async def cancel_workflow(
        self, request: workflows_pb2.CancelWorkflowRequest
    ) -> workflows_pb2.CancelWorkflowResponse:
        """Takes no more members, and ends those of one that was not sealed."""
        workflow_id = _checked_id(request.workflow_id)
        if len(request.reason) > _REASON_CHARS_MAX:
            count = len(request.reason)
            raise invalid("reason", f"it has {count} characters (at most {_REASON_CHARS_MAX})")
        command = CancelWorkflow(workflow_id=workflow_id, reason=request.reason)
        workflow = await self._change(workflow_id, command)
        return workflows_pb2.CancelWorkflowResponse(workflow=workflow)

    async def retry_workflow(
        self, request: workflows_pb2.RetryWorkflowRequest
    ) -> workflows_pb2.RetryWorkflowResponse:
        """Takes a cancel back."""
        workflow_id = _checked_id(request.workflow_id)
        workflow = await self._change(workflow_id, RetryWorkflow(workflow_id=workflow_id))
        return workflows_pb2.RetryWorkflowResponse(workflow=workflow)

    async def get_workflow(
        self, request: workflows_pb2.GetWorkflowRequest
    ) -> workflows_pb2.GetWorkflowResponse:
        """One workflow."""
        workflow_id = _checked_id(request.workflow_id)
        term = self._term(workflow_id)
        record = term.partition.workflows.records.get(workflow_id)
        if record is None:
            await term.readable(term.partition.next_seq - 1)
            raise error_of(unknown(workflow_id, "read"))
        await term.readable(record.seq)
        return workflows_pb2.GetWorkflowResponse(workflow=_to_wire(record))

    async def list_workflows(
        self, request: workflows_pb2.ListWorkflowsRequest
    ) -> workflows_pb2.ListWorkflowsResponse:
        """A page of one partition's workflows, newest first."""
        size = page_size(request.page_size)
        listed = f"{request.partition}/{request.tenant}"
        (before,) = place_of(request.page_token, listed) or ("",)
        term = self._roster.term(request.partition)
        found = term.partition.workflows.page(request.tenant, before, size + 1)
        response = workflows_pb2.ListWorkflowsResponse(
            workflows=[_to_wire(record) for record in found[:size]]
        )
        if len(found) > size:
            response.next_page_token = page_token(listed, found[size - 1].workflow_id)
        await term.readable(term.partition.next_seq - 1)
        return response

    async def list_workflow_members(
        self, request: workflows_pb2.ListWorkflowMembersRequest
    ) -> workflows_pb2.ListWorkflowMembersResponse:
        """A page of a workflow's members that live in one partition, in their order."""
        workflow_id = _checked_id(request.workflow_id)
        size = page_size(request.page_size)
        listed = f"{request.partition}/{workflow_id}"
        start = number_of(request.page_token, listed) or 0
        term = self._roster.term(request.partition)
        found = term.partition.workflows.members_from(workflow_id, start, size + 1)
        response = workflows_pb2.ListWorkflowMembersResponse()
        room = limits.BATCH_BYTES_MAX
        for index, job_id in enumerate(found):
            if index == size or room <= 0:
                response.next_page_token = page_token(listed, str(start + index))
                break
            record = term.partition.get(job_id)
            if isinstance(record, JobRecord):
                member = _member(record)
                room -= member.ByteSize()
                response.members.append(member)
        await term.readable(term.partition.next_seq - 1)
        return response

    async def count_workflow_members(
        self, request: workflows_pb2.CountWorkflowMembersRequest
    ) -> workflows_pb2.CountWorkflowMembersResponse:
        """Members that live in one partition, by state."""
        count = len(request.workflow_ids)
        if count > limits.PAGE_SIZE_MAX:
            raise invalid("workflow_ids", f"there are {count} (at most {limits.PAGE_SIZE_MAX})")
        term = self._roster.term(request.partition)
        response = workflows_pb2.CountWorkflowMembersResponse()
        for workflow_id in request.workflow_ids:
            counts: dict[JobState, int] = {}
            for job_id in term.partition.workflows.members.get(workflow_id, ()):
                record = term.partition.get(job_id)
                if isinstance(record, JobRecord):
                    counts[record.state] = counts.get(record.state, 0) + 1
            found = response.workflows.add(workflow_id=workflow_id)
            for state, number in sorted(counts.items()):
                found.counts.add(state=wire_enum(state), count=number)
        await term.readable(term.partition.next_seq - 1)
        return response

    async def _change(self, workflow_id: str, command: Command) -> workflows_pb2.Workflow:
        reply = await self._term(workflow_id).ask(command)
        if not isinstance(reply, WorkflowRecord):
            raise TypeError(f"expected a workflow, got {type(reply).__name__}")
        return _to_wire(reply)

    def _term(self, workflow_id: str) -> Term:
        partition = partition_of(workflow_id)
        if partition >= self._roster.partitions:
            raise invalid(
                "workflow_id",
                f"it names partition {partition} and there are {self._roster.partitions}",
            )
        return self._roster.term(partition)


def _to_wire(record: WorkflowRecord) -> workflows_pb2.Workflow:
    wire = workflows_pb2.Workflow(
        workflow_id=record.workflow_id,
        name=record.name,
        tenant=record.tenant,
        members=record.members,
        cancel_reason=record.cancel_reason,
    )
    stamp(wire.created_at, record.created_ms)
    stamp(wire.sealed_at, record.sealed_ms)
    stamp(wire.seal_by, record.seal_by_ms)
    stamp(wire.cancelled_at, record.cancelled_ms)
    return wire


def _member(record: JobRecord) -> workflows_pb2.WorkflowMember:
    return workflows_pb2.WorkflowMember(
        job_id=record.job_id,
        name=record.policy.name,
        queue=record.policy.queue,
        state=wire_enum(record.state),
        parents=parents_of(record),
    )


def _checked_id(workflow_id: str) -> JobId:
    if not is_job_id(workflow_id):
        raise invalid("workflow_id", f"{workflow_id[:60]!r} is no lower-case UUIDv7")
    return JobId(workflow_id)
