"""Workflows: what people do to them, and what becomes of those that nobody seals.

```
 open ──SealWorkflow──► sealed: its members may run ──CancelWorkflow──► sealed and cancelled
   │                                     ◄──RetryWorkflow──
   └──CancelWorkflow, or not sealed in time──► cancelled: members are CANCELLED, too
```
"""

from msgspec import structs

from tenure.master.core.command import (
    CancelWorkflow,
    OpenWorkflow,
    RetryWorkflow,
    SealWorkflow,
)
from tenure.master.core.effect import Decision
from tenure.master.core.event import WorkflowsForgotten, WorkflowsWritten
from tenure.master.core.state import State
from tenure.master.core.workflows import WorkflowRecord
from tenure.protocol.limits import DAY_MS, WORKFLOW_KEPT_MS, WORKFLOWS_MAX
from tenure.protocol.refusal import Reason, Refusal

#: Why members are cancelled.
NOT_SEALED = "its workflow was not sealed in time"


def decide(
    state: State,
    command: OpenWorkflow | SealWorkflow | CancelWorkflow | RetryWorkflow,
    now_ms: int,
) -> Decision | Refusal:
    """What people want of a workflow."""
    match command:
        case OpenWorkflow():
            return decide_open(state, command, now_ms)
        case SealWorkflow():
            return decide_seal(state, command, now_ms)
        case CancelWorkflow():
            return decide_cancel(state, command, now_ms)
        case RetryWorkflow():
            return decide_retry(state, command, now_ms)


def decide_open(state: State, command: OpenWorkflow, now_ms: int) -> Decision | Refusal:
    """Begins a workflow, unless it is there already."""
    records = state.workflows.records
    known = records.get(command.workflow_id)
    if known is not None:
        return Decision(reply=known)
    if len(records) >= WORKFLOWS_MAX:
        return Refusal(
            reason=Reason.MEMORY_FULL,
            message=f"expected to open workflow {command.name}, but the partition has "
            f"{len(records)} workflows (at most {WORKFLOWS_MAX}): try again later",
            metadata={"workflow": command.name, "limit": str(WORKFLOWS_MAX)},
            retry_after_ms=state.config.retry_after_ms,
        )
    seal_by_ms = now_ms + command.seal_within_ms
    record = WorkflowRecord(
        workflow_id=command.workflow_id,
        name=command.name,
        tenant=command.tenant,
        created_ms=now_ms,
        seal_by_ms=seal_by_ms,
        look_ms=seal_by_ms,
        seq=state.next_seq,
    )
    return _written(record, now_ms)


def decide_seal(state: State, command: SealWorkflow, now_ms: int) -> Decision | Refusal:
    """Lets the members run; no more may come."""
    record = state.workflows.records.get(command.workflow_id)
    if record is None:
        return unknown(command.workflow_id, "seal")
    if record.sealed_ms:
        return Decision(reply=record)
    if record.cancelled_ms:
        why = record.cancel_reason or "it was cancelled"
        return _wrong(record, "seal", f"it is CANCELLED ({why}): build it anew")
    sealed = structs.replace(
        record,
        seq=state.next_seq,
        sealed_ms=now_ms,
        members=command.members,
        look_ms=now_ms + WORKFLOW_KEPT_MS,
    )
    return _written(sealed, now_ms)


def decide_cancel(state: State, command: CancelWorkflow, now_ms: int) -> Decision | Refusal:
    """Notes that it is cancelled; if it was not sealed, its members end with it."""
    record = state.workflows.records.get(command.workflow_id)
    if record is None:
        return unknown(command.workflow_id, "cancel")
    if record.cancelled_ms:
        return Decision(reply=record)
    return _written(_cancelled(state, record, command.reason, now_ms), now_ms)


def decide_retry(state: State, command: RetryWorkflow, now_ms: int) -> Decision | Refusal:
    """Takes a cancel back; the caller requeues the members."""
    record = state.workflows.records.get(command.workflow_id)
    if record is None:
        return unknown(command.workflow_id, "retry")
    if not record.sealed_ms:
        return _wrong(record, "retry", "it was never sealed, so it may not be whole: build it anew")
    if not record.cancelled_ms:
        return Decision(reply=record)
    changed = structs.replace(
        record,
        seq=state.next_seq,
        cancelled_ms=0,
        cancel_reason="",
        look_ms=now_ms + WORKFLOW_KEPT_MS,
    )
    return _written(changed, now_ms)


def decide_due(state: State, rows_max: int, now_ms: int) -> Decision:
    """Cancels those that were not sealed in time, and forgets those that ended long ago."""
    workflows = state.workflows
    written: list[WorkflowRecord] = []
    forgotten = []
    due, mark = workflows.timers.due(now_ms, rows_max)
    for record in {each.workflow_id: each for each in due}.values():
        if workflows.records.get(record.workflow_id) is not record or record.look_ms > now_ms:
            continue
        if not record.sealed_ms and not record.cancelled_ms:
            written.append(_cancelled(state, record, NOT_SEALED, now_ms))
        elif state.dependencies.pins(record.workflow_id):
            written.append(structs.replace(record, look_ms=now_ms + DAY_MS))
        else:
            forgotten.append(record.workflow_id)
    if mark is None:
        return Decision()
    return Decision(
        events=(
            WorkflowsWritten(now_ms=now_ms, rows=written),
            WorkflowsForgotten(now_ms=now_ms, workflow_ids=forgotten),
        )
    )


def _cancelled(state: State, record: WorkflowRecord, reason: str, now_ms: int) -> WorkflowRecord:
    return structs.replace(
        record,
        seq=state.next_seq,
        cancelled_ms=now_ms,
        cancel_reason=reason,
        look_ms=now_ms + WORKFLOW_KEPT_MS,
    )


def _written(record: WorkflowRecord, now_ms: int) -> Decision:
    return Decision(events=(WorkflowsWritten(now_ms=now_ms, rows=[record]),), reply=record)


def unknown(workflow_id: str, verb: str) -> Refusal:
    """Refuses a workflow that is not there."""
    return Refusal(
        reason=Reason.NOT_FOUND,
        message=f"expected to {verb} workflow {workflow_id}, but no such workflow is known; check "
        "the id and the cluster",
        metadata={"workflow_id": workflow_id},
        field="workflow_id",
    )


def _wrong(record: WorkflowRecord, verb: str, why: str) -> Refusal:
    return Refusal(
        reason=Reason.WRONG_STATE,
        message=f"expected to {verb} workflow {record.workflow_id}, but {why}",
        metadata={"workflow_id": record.workflow_id, "name": record.name},
        field="workflow_id",
    )


# What events write.


def apply_written(state: State, event: WorkflowsWritten, seq: int) -> None:
    """Makes workflows, or changes them; members are let run, or ended, in decisions to come."""
    workflows = state.workflows
    for row in event.rows:
        known = workflows.records.get(row.workflow_id)
        if known is not None and known.seq >= seq:
            continue
        workflows.records[row.workflow_id] = record = structs.replace(row, seq=seq)
        if state.live:
            before = record.gate if known is None else known.gate
            if record.gate != before:
                state.dependencies.gate_moved(state.jobs, record.workflow_id)
            workflows.timers.arm(record)


def apply_forgotten(state: State, event: WorkflowsForgotten, seq: int) -> None:
    """Forgets workflows, and what was looked at by timers is armed again."""
    workflows = state.workflows
    for workflow_id in event.workflow_ids:
        record = workflows.records.get(workflow_id)
        if record is not None and record.seq < seq:
            del workflows.records[workflow_id]
    if state.live:
        for looked_at in workflows.timers.take((event.now_ms + 1, 0)):
            workflows.timers.arm(looked_at)
