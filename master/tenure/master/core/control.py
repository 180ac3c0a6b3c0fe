"""What people do to jobs: cancel, requeue, purge."""

from tenure.master.core import dependents
from tenure.master.core.attempt import remember_attempt
from tenure.master.core.command import CancelJobs, PurgeJobs, RequeueJobs
from tenure.master.core.effect import Decision, Effect, JobVerdict, NotifySettled, SendCancels
from tenure.master.core.event import (
    CancelsRequested,
    Event,
    JobsCancelled,
    JobsPurged,
    JobsRequeued,
    RequeuedRow,
)
from tenure.master.core.format import NEWEST
from tenure.master.core.record import NO_TIES, JobRecord
from tenure.master.core.state import State, footprint, lease_of
from tenure.master.core.transition import QUEUED, Move, sources
from tenure.protocol.fence import Lease
from tenure.protocol.ids import JobId
from tenure.protocol.refusal import Reason, Refusal
from tenure.protocol.vocabulary import JobState

_REQUEUABLE = sources(Move.REQUEUE)
_PURGEABLE = sources(Move.PURGE)


def decide(
    state: State, command: CancelJobs | RequeueJobs | PurgeJobs, now_ms: int
) -> Decision | Refusal:
    """What people want of jobs."""
    match command:
        case CancelJobs():
            return decide_cancel(state, command, now_ms)
        case RequeueJobs():
            return decide_requeue(state, command, now_ms)
        case PurgeJobs():
            return decide_purge(state, command, now_ms)


def decide_cancel(state: State, command: CancelJobs, now_ms: int) -> Decision:
    """Cancels queued jobs and asks running ones to stop."""
    verdicts: list[JobVerdict] = []
    cancelled: list[JobRecord] = []
    requested: list[JobId] = []
    asked: dict[int, list[tuple[JobId, Lease]]] = {}
    for job_id in dict.fromkeys(command.job_ids):
        record = state.jobs.get(job_id)
        if record is None:
            verdicts.append(JobVerdict(job_id, None, unknown(state, job_id, "cancel", now_ms)))
        elif record.state in QUEUED:
            cancelled.append(record)
            verdicts.append(JobVerdict(job_id, JobState.CANCELLED, None))
        elif record.state is JobState.RUNNING:
            if not record.cancel_requested:
                requested.append(job_id)
            holder = state.holders.get(record.incarnation)
            if holder is not None and holder.session is not None:
                rows = asked.setdefault(holder.session.session_id, [])
                rows.append((job_id, lease_of(record)))
            verdicts.append(JobVerdict(job_id, JobState.RUNNING, None))
        elif record.state is JobState.CANCELLED:
            verdicts.append(JobVerdict(job_id, JobState.CANCELLED, None))
        else:
            advice = "it has ended"
            verdicts.append(JobVerdict(job_id, None, wrong_state(record, "cancel", advice)))
    events: list[Event] = []
    effects: list[Effect] = []
    if cancelled:
        ids = [record.job_id for record in cancelled]
        events.append(JobsCancelled(now_ms=now_ms, job_ids=ids, reason=command.reason))
        effects.append(NotifySettled(records=cancelled))
    if requested:
        events.append(CancelsRequested(now_ms=now_ms, job_ids=requested, reason=command.reason))
    effects += [SendCancels(session_id=sid, rows=rows) for sid, rows in asked.items()]
    return Decision(events=tuple(events), effects=tuple(effects), reply=verdicts)


def decide_requeue(state: State, command: RequeueJobs, now_ms: int) -> Decision:
    """Gives dead letters a new run with fresh budgets."""
    rows: list[RequeuedRow] = []
    verdicts: list[JobVerdict] = []
    for job_id in dict.fromkeys(command.job_ids):
        record = state.jobs.get(job_id)
        if record is None:
            verdicts.append(JobVerdict(job_id, None, unknown(state, job_id, "requeue", now_ms)))
        elif record.state in _REQUEUABLE:
            # What its parents let run once they let run again.
            blocked = bool(record.parents) and not record.freed
            to = JobState.BLOCKED if blocked else JobState.PENDING
            refusal = _refused_payload(state, command, record)
            if refusal is None:
                rows.append(RequeuedRow(job_id, record.run + 1, to, command.payload))
            verdicts.append(JobVerdict(job_id, None if refusal else to, refusal))
        else:
            advice = "only FAILED and CANCELLED jobs can be requeued"
            verdicts.append(JobVerdict(job_id, None, wrong_state(record, "requeue", advice)))
    events = (JobsRequeued(now_ms=now_ms, rows=rows),) if rows else ()
    return Decision(events=events, reply=verdicts)


def _refused_payload(state: State, command: RequeueJobs, record: JobRecord) -> Refusal | None:
    """Refuses to keep other arguments for a job than it has, for want of room."""
    payload, job_id = command.payload, record.job_id
    if payload is None:
        return None
    size, limit = len(payload), state.config.payload_bytes_max
    if size > limit:
        return Refusal(
            reason=Reason.PAYLOAD_TOO_LARGE,
            message=f"expected to requeue job {job_id} with another payload, but it has {size} "
            f"bytes (at most {limit}): store it elsewhere and give a reference",
            metadata={"job_id": job_id, "bytes": str(size), "limit": str(limit)},
            field="payload",
        )
    bytes_max, grows = state.config.bytes_max, size - len(record.payload)
    if grows <= 0 or state.stored_bytes + grows <= bytes_max:
        return None
    return Refusal(
        reason=Reason.MEMORY_FULL,
        message=f"expected to requeue job {job_id} with another payload, but the partition keeps "
        f"{state.stored_bytes} bytes of at most {bytes_max}: try again later",
        metadata={"job_id": job_id, "limit": str(bytes_max)},
        retry_after_ms=state.config.retry_after_ms,
    )


def decide_purge(state: State, command: PurgeJobs, now_ms: int) -> Decision:
    """Forgets terminal jobs."""
    job_ids: list[JobId] = []
    verdicts: list[JobVerdict] = []
    for job_id in dict.fromkeys(command.job_ids):
        record = state.jobs.get(job_id)
        if record is None:
            verdicts.append(JobVerdict(job_id, None, unknown(state, job_id, "purge", now_ms)))
        elif state.dependencies.pins(job_id):
            advice = "a job that waits for it has not ended; cancel that one first"
            verdicts.append(JobVerdict(job_id, None, wrong_state(record, "purge", advice)))
        elif record.state in _PURGEABLE:
            job_ids.append(job_id)
            verdicts.append(JobVerdict(job_id, None, None))
        else:
            advice = "only ended jobs can be purged; cancel it first"
            verdicts.append(JobVerdict(job_id, None, wrong_state(record, "purge", advice)))
    events = (JobsPurged(now_ms=now_ms, job_ids=job_ids),) if job_ids else ()
    return Decision(events=events, reply=verdicts)


def unknown(state: State, job_id: JobId, verb: str, now_ms: int) -> Refusal:
    """Refuses a job that is not there: never known, or purged."""
    if state.tombstones.get(job_id, now_ms) is not None:
        return Refusal(
            reason=Reason.RESULT_EXPIRED,
            message=f"expected to {verb} job {job_id}, but it was purged and only its tombstone is "
            "left; there is nothing left to do, its id is remembered so that it cannot run twice",
            metadata={"job_id": job_id},
        )
    return Refusal(
        reason=Reason.NOT_FOUND,
        message=f"expected to {verb} job {job_id}, but no such job is known; check the id and the "
        "cluster",
        metadata={"job_id": job_id},
    )


def wrong_state(record: JobRecord, verb: str, advice: str) -> Refusal:
    """Refuses what a job's state does not allow."""
    name = record.state.name
    return Refusal(
        reason=Reason.WRONG_STATE,
        message=f"expected to {verb} job {record.job_id}, but it is {name}: {advice}",
        metadata={"job_id": record.job_id, "state": name},
    )


def apply_cancelled(state: State, event: JobsCancelled, seq: int) -> None:
    """Ends queued jobs."""
    for record in state.written(event.job_ids, seq):
        record.state = JobState.CANCELLED
        record.ended_ms = event.now_ms
        record.cancel_reason = event.reason
        record.checkpoint = None


def apply_cancels_requested(state: State, event: CancelsRequested, seq: int) -> None:
    """Marks running jobs that should stop."""
    for job_id in event.job_ids:
        record = state.jobs.get(job_id)
        if record is None or record.seq >= seq:
            continue
        record.seq = seq
        record.cancel_requested = True
        record.cancel_reason = event.reason


def apply_requeued(state: State, event: JobsRequeued, seq: int) -> None:
    """Begins new runs; the attempts so far are history."""
    if any(row.payload is not None or row.state is JobState.BLOCKED for row in event.rows):
        state.format = NEWEST
    for record, row in state.written_rows(((row.job_id, row) for row in event.rows), seq):
        remember_attempt(record)
        record.state = row.state
        record.run = row.run
        record.ready_ms = record.run_due_ms = event.now_ms
        record.attempt = record.attempts_charged = record.losses_charged = 0
        record.undelivered = 0
        record.granted_ms = record.accepted_ms = record.started_ms = record.ended_ms = 0
        record.outcome = record.failure_reason = record.fault = None
        record.cancel_requested = False
        record.cancel_reason = ""
        if row.payload is not None:
            record.payload = row.payload
        if row.state is JobState.BLOCKED:
            dependents.apply_blocked(state, record, seq, settled=True)


def apply_purged(state: State, event: JobsPurged, seq: int) -> None:
    """Forgets jobs and puts up their tombstones.

    The tombstone is made from the record, which a replay has as well: a snapshot writes tombstones
    after jobs, so that a job purged in between is in it as one or as the other.
    """
    jobs, tombstones, now_ms, live = state.jobs, state.tombstones, event.now_ms, state.live
    gone: list[JobRecord] = []
    for job_id in event.job_ids:
        record = jobs.get(job_id)
        if record is None or record.seq >= seq:
            continue
        del jobs[job_id]
        record.seq = seq
        tombstones.bury(record, now_ms, replayed=not live)
        gone.append(record)
    if live and gone:
        _unindex(state, gone)


def _unindex(state: State, gone: list[JobRecord]) -> None:
    """Keeps up what was derived from jobs that are no more."""
    lanes = state.lanes
    lanes.count(gone, -1)
    state.stored_bytes -= sum([footprint(record) for record in gone])
    policy = None
    for record in gone:
        if record.ties is not NO_TIES and record.workflow_id:
            state.workflows.leave(record)
        if record.policy is not policy:
            policy = record.policy
            lanes.forget_if_empty(policy)
    state.finished.settle(lanes.counts)
