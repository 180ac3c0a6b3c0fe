"""Batches: one thing done to all jobs that match a filter, in slices, through any failover.

```
 CreateBatch ─► BatchCreated: RUNNING, cursor = the next job's ordinal
 AdvanceBatch ─► what a slice's jobs come to + BatchAdvanced, in one batch of the journal
                                │ newest first; the cursor falls: no job is looked at twice
                                ▼
                   DONE: none is left     CANCELLED: by CancelBatch
```
What a filter means is the node's business: it hands in the scan, and the core keeps the text.

So a batch that requeues comes to children before their parents. What is decided on a child that was
requeued waits while a parent may come back, too: until no such batch is under way (``dependency``).
"""

from typing import Final

import msgspec

from tenure.master.core.boost import decide_boost
from tenure.master.core.bulk import BatchAdvanced, BatchCreated, BatchRecord, BatchSpec
from tenure.master.core.command import (
    AdvanceBatch,
    BoostJobs,
    CancelBatch,
    CancelJobs,
    CreateBatch,
    PurgeJobs,
    RequeueJobs,
)
from tenure.master.core.control import decide_cancel, decide_purge, decide_requeue
from tenure.master.core.effect import Decision
from tenure.master.core.state import State
from tenure.protocol.ids import JobId
from tenure.protocol.refusal import Reason, Refusal
from tenure.protocol.vocabulary import BatchKind, BatchState

#: Batches under way, and batches remembered, those under way included.
RUNNING_MAX: Final = 20
KEPT_MAX: Final = 100


def decide_batch(
    state: State, command: CreateBatch | AdvanceBatch | CancelBatch, now_ms: int
) -> Decision | Refusal:
    """What a command about a batch comes to."""
    match command:
        case CreateBatch():
            return decide_create(state, command, now_ms)
        case AdvanceBatch():
            return decide_advance(state, command, now_ms)
        case CancelBatch():
            return decide_cancel_batch(state, command, now_ms)


def decide_create(state: State, command: CreateBatch, now_ms: int) -> Decision | Refusal:
    """Makes a batch; one of this id that is there already is the answer to a repeated call."""
    known = state.batches.get(command.batch_id)
    if known is not None:
        return Decision(reply=copy_of(known))
    running = sum(each.state is BatchState.RUNNING for each in state.batches.values())
    if running >= RUNNING_MAX:
        return Refusal(
            reason=Reason.WRONG_STATE,
            message=f"expected to make a batch, but {running} are under way in this partition (at "
            f"most {RUNNING_MAX}); wait for one to end, or cancel one",
            metadata={"limit": str(RUNNING_MAX)},
        )
    ended = [each for each in state.batches.values() if each.state is not BatchState.RUNNING]
    ended.sort(key=lambda each: each.seq)
    event = BatchCreated(
        now_ms=now_ms,
        batch_id=command.batch_id,
        spec=command.spec,
        matched=command.matched,
        cursor=state.next_ordinal,
        dropped=tuple(each.batch_id for each in ended[: len(state.batches) + 1 - KEPT_MAX])
        if len(state.batches) >= KEPT_MAX
        else (),
    )
    return Decision(events=(event,), reply=_created(event, state.next_seq))


def decide_advance(state: State, command: AdvanceBatch, now_ms: int) -> Decision:
    """Does the next jobs of a batch. Reply: the batch, or None if it is no more under way."""
    record = state.batches.get(command.batch_id)
    if record is None or record.state is not BatchState.RUNNING:
        return Decision()
    found = command.scan.take(command.rows_max, command.looks_max)
    done = command.scan.done
    if not found and not done:
        return Decision(reply=copy_of(record))
    decided = _decide(state, record.spec, [each.job_id for each in found], now_ms)
    verdicts = decided.reply if isinstance(decided.reply, list) else []
    refused = sum(verdict.refusal is not None for verdict in verdicts)
    event = BatchAdvanced(
        now_ms=now_ms,
        batch_id=record.batch_id,
        cursor=0 if done else found[-1].ordinal,
        changed=record.changed + len(verdicts) - refused,
        refused=record.refused + refused,
        state=BatchState.DONE if done else BatchState.RUNNING,
    )
    seq = state.next_seq + len(decided.events)
    return Decision(
        events=(*decided.events, event),
        effects=decided.effects,
        reply=_advanced(copy_of(record), event, seq),
    )


def decide_cancel_batch(state: State, command: CancelBatch, now_ms: int) -> Decision | Refusal:
    """Stops a batch where it is; one that has ended stays as it is."""
    record = state.batches.get(command.batch_id)
    if record is None:
        return unknown(command.batch_id, "cancel")
    if record.state is not BatchState.RUNNING:
        return Decision(reply=copy_of(record))
    event = BatchAdvanced(
        now_ms=now_ms,
        batch_id=record.batch_id,
        cursor=record.cursor,
        changed=record.changed,
        refused=record.refused,
        state=BatchState.CANCELLED,
    )
    return Decision(events=(event,), reply=_advanced(copy_of(record), event, state.next_seq))


def _decide(state: State, spec: BatchSpec, job_ids: list[JobId], now_ms: int) -> Decision:
    """What the call for single jobs would do to these."""
    match spec.kind:
        case BatchKind.CANCEL:
            return decide_cancel(state, CancelJobs(job_ids=job_ids, reason=spec.reason), now_ms)
        case BatchKind.REQUEUE:
            return decide_requeue(state, RequeueJobs(job_ids=job_ids), now_ms)
        case BatchKind.PURGE:
            return decide_purge(state, PurgeJobs(job_ids=job_ids), now_ms)
        case BatchKind.BOOST:
            boost = BoostJobs(job_ids=job_ids, priority=spec.priority, delay_ms=spec.delay_ms)
            return decide_boost(state, boost, now_ms)


def unknown(batch_id: str, verb: str) -> Refusal:
    """Refuses a batch that is not there."""
    return Refusal(
        reason=Reason.NOT_FOUND,
        message=f"expected to {verb} batch {batch_id}, but no such batch is known; the newest "
        f"{KEPT_MAX} of each partition are remembered",
        metadata={"batch_id": batch_id},
        field="batch_id",
    )


def copy_of(record: BatchRecord) -> BatchRecord:
    """A batch as it is now; records are live."""
    return msgspec.structs.replace(record)


def _created(event: BatchCreated, seq: int) -> BatchRecord:
    return BatchRecord(
        batch_id=event.batch_id,
        seq=seq,
        spec=event.spec,
        matched=event.matched,
        cursor=event.cursor,
        created_ms=event.now_ms,
    )


def _advanced(record: BatchRecord, event: BatchAdvanced, seq: int) -> BatchRecord:
    record.seq = seq
    record.cursor = event.cursor
    record.changed, record.refused = event.changed, event.refused
    record.state = event.state
    if event.state is not BatchState.RUNNING:
        record.ended_ms = event.now_ms
    return record


def apply_created(state: State, event: BatchCreated, seq: int) -> None:
    """Remembers a batch, and forgets the oldest that have ended."""
    known = state.batches.get(event.batch_id)
    if known is None or known.seq < seq:
        record = state.batches[event.batch_id] = _created(event, seq)
        if state.live:
            state.dependencies.batch_moved(state.jobs, record)
    for batch_id in event.dropped:
        dropped = state.batches.get(batch_id)
        if dropped is not None and dropped.seq < seq:
            del state.batches[batch_id]


def apply_advanced(state: State, event: BatchAdvanced, seq: int) -> None:
    """Remembers how far a batch is."""
    record = state.batches.get(event.batch_id)
    if record is not None and record.seq < seq:
        _advanced(record, event, seq)
        if state.live and record.state is not BatchState.RUNNING:
            state.dependencies.batch_moved(state.jobs, record)
