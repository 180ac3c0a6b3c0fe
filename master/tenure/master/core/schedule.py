"""Schedules: what people do to them, and what is remembered of it.

What becomes of their ticks is in ``core.due_ticks``, and what a tick is in ``core.ticks``.
"""

from itertools import islice

import msgspec

from tenure.master.core.calendar import BadCalendar, calendar
from tenure.master.core.command import (
    DeleteSchedule,
    PauseSchedule,
    PutSchedule,
    SubmitJobs,
    TriggerSchedule,
)
from tenure.master.core.due_ticks import row_of, setting_of
from tenure.master.core.effect import Decision, SubmitReply
from tenure.master.core.errand import Post, is_admitted, target_of
from tenure.master.core.event import (
    ScheduleDeleted,
    SchedulePaused,
    SchedulePut,
    SchedulesTicked,
)
from tenure.master.core.state import State
from tenure.master.core.submit import decide_submit
from tenure.master.core.ticks import Ticks, restarted
from tenure.master.core.timetable import (
    ScheduleCursor,
    ScheduleRecord,
    ScheduleSpec,
)
from tenure.protocol.ids import JobId, partition_of
from tenure.protocol.limits import SCHEDULES_MAX
from tenure.protocol.refusal import Reason, Refusal


def decide(
    state: State,
    command: PutSchedule | PauseSchedule | TriggerSchedule | DeleteSchedule,
    now_ms: int,
) -> Decision | Refusal:
    """What people want of a schedule."""
    match command:
        case PutSchedule():
            return decide_put(state, command, now_ms)
        case PauseSchedule():
            return decide_pause(state, command, now_ms)
        case TriggerSchedule():
            return decide_trigger(state, command, now_ms)
        case DeleteSchedule():
            return decide_delete(state, command, now_ms)


def decide_put(state: State, command: PutSchedule, now_ms: int) -> Decision | Refusal:
    """Makes a schedule or changes it; ticks that were not decided on fire by the new spec."""
    spec, known = command.spec, state.timetable.records.get((command.tenant, command.name))
    refusal = _refuse(state, command, known)
    if refusal is not None:
        return refusal
    if known is None or known.paused or command.paused or _timing(known.spec) != _timing(spec):
        before = ScheduleCursor() if known is None else known.cursor
        cursor = restarted(command.tenant, command.name, spec, before, now_ms)
    else:
        cursor = known.cursor
    record = ScheduleRecord(
        tenant=command.tenant,
        name=command.name,
        spec=spec,
        cursor=cursor,
        seq=state.next_seq,
        paused=command.paused,
        created_ms=now_ms if known is None else known.created_ms,
        updated_ms=now_ms,
    )
    event = SchedulePut(
        now_ms=now_ms,
        tenant=record.tenant,
        name=record.name,
        spec=spec,
        cursor=cursor,
        paused=record.paused,
        created_ms=record.created_ms,
    )
    return Decision(events=(event,), reply=record)


def decide_pause(state: State, command: PauseSchedule, now_ms: int) -> Decision | Refusal:
    """Stops a schedule's ticks, or lets them go on from now: none is made up for."""
    record = state.timetable.records.get((command.tenant, command.name))
    if record is None:
        return unknown(command.tenant, command.name, "pause" if command.paused else "resume")
    if record.paused is command.paused:
        return Decision(reply=snapshot_of(record))
    cursor = restarted(record.tenant, record.name, record.spec, record.cursor, now_ms)
    event = SchedulePaused(
        now_ms=now_ms,
        tenant=record.tenant,
        name=record.name,
        paused=command.paused,
        cursor=cursor,
    )
    changed = msgspec.structs.replace(
        record, paused=command.paused, cursor=cursor, updated_ms=now_ms, seq=state.next_seq
    )
    return Decision(events=(event,), reply=changed)


def decide_delete(state: State, command: DeleteSchedule, now_ms: int) -> Decision | Refusal:
    """Forgets a schedule; its jobs go on."""
    record = state.timetable.records.get((command.tenant, command.name))
    if record is None:
        return unknown(command.tenant, command.name, "delete")
    post = Post(state)
    post.forget(record.cursor)
    events, effects = post.sent(now_ms)
    deleted = ScheduleDeleted(now_ms=now_ms, tenant=record.tenant, name=record.name)
    return Decision(events=(*events, deleted), effects=tuple(effects), reply=snapshot_of(record))


def decide_trigger(state: State, command: TriggerSchedule, now_ms: int) -> Decision | Refusal:
    """Submits a schedule's job now, beside its ticks; once, however often it is asked to."""
    record = state.timetable.records.get((command.tenant, command.name))
    if record is None:
        return unknown(command.tenant, command.name, "trigger")
    target, job_id = target_of(state, record.spec), command.job_id
    if partition_of(job_id) != target:
        return _misplaced(record, job_id, target)
    if target != state.config.partition:
        post = Post(state)
        if not post.has_room(target) or not is_admitted(command.intake, record.spec):
            return _no_room(state, record, target)
        # Sent again, it is sent again: the queue's partition knows the job by its id.
        post.submit(record.spec, job_id, now_ms)
        events, effects = post.sent(now_ms)
        # Who is told of a job may ask for it at once: it has to be there.
        reply = SubmitReply(job_ids=[job_id], existing=[], refusals=[], unsettled=(0,))
        return Decision(events=tuple(events), effects=tuple(effects), reply=reply)
    if job_id in state.jobs:
        # Sent again, perhaps since the schedule was changed.
        return Decision(reply=SubmitReply(job_ids=[job_id], existing=[0], refusals=[]))
    submit = SubmitJobs(
        settings=[setting_of(record.spec)],
        rows=[row_of(job_id, 0, record.spec)],
        all_or_nothing=True,
        intake=command.intake,
        bytes_max=command.bytes_max,
    )
    return decide_submit(state, submit, now_ms)


def unknown(tenant: str, name: str, verb: str) -> Refusal:
    """Refuses a schedule that is not there."""
    return Refusal(
        reason=Reason.NOT_FOUND,
        message=f"expected to {verb} schedule {name}, but tenant {tenant} has none of this name; "
        "list the schedules to see which there are",
        metadata={"schedule": name, "tenant": tenant},
        field="name",
    )


def snapshot_of(record: ScheduleRecord) -> ScheduleRecord:
    """A schedule as it is now; records are live."""
    return msgspec.structs.replace(record)


def upcoming(record: ScheduleRecord, count: int) -> list[int]:
    """When the next ticks fire as things stand, jitter included; none while it is paused."""
    if record.paused:
        return []
    return [due_ms for _, due_ms in islice(Ticks(record), count)]


def _refuse(state: State, command: PutSchedule, known: ScheduleRecord | None) -> Refusal | None:
    spec, config = command.spec, state.config
    who = {"schedule": command.name, "tenant": command.tenant}
    if known is not None and command.create_only:
        return Refusal(
            reason=Reason.SCHEDULE_EXISTS,
            message=f"expected to make schedule {command.name}, but tenant {command.tenant} has "
            "one of this name: change it with put, or choose another name",
            metadata=who,
            field="name",
        )
    try:
        calendar(spec.cron, spec.time_zone)
    except BadCalendar as error:
        return Refusal(
            reason=Reason.INVALID_ARGUMENT,
            message=f"expected a valid spec.{error.field}, but {error}",
            metadata={"field": f"spec.{error.field}"},
            field=f"spec.{error.field}",
        )
    if len(spec.payload) > config.payload_bytes_max:
        return Refusal(
            reason=Reason.PAYLOAD_TOO_LARGE,
            message=f"expected to keep schedule {command.name}, but its payload has "
            f"{len(spec.payload)} bytes (at most {config.payload_bytes_max}): store it elsewhere "
            "and submit a reference",
            metadata={
                **who,
                "bytes": str(len(spec.payload)),
                "limit": str(config.payload_bytes_max),
            },
            field="spec.payload",
        )
    return _full(state, command, known)


def _full(state: State, command: PutSchedule, known: ScheduleRecord | None) -> Refusal | None:
    grows = len(command.spec.payload) - (0 if known is None else len(known.spec.payload))
    bytes_max = state.config.bytes_max if command.bytes_max is None else command.bytes_max
    count = len(state.timetable.records)
    if known is None and count >= SCHEDULES_MAX:
        what, limit = f"the partition has {count} schedules", SCHEDULES_MAX
    elif grows > 0 and state.stored_bytes + grows > bytes_max:
        what = f"the partition keeps {state.stored_bytes} bytes of at most {bytes_max}"
        limit = bytes_max
    else:
        return None
    return Refusal(
        reason=Reason.MEMORY_FULL,
        message=f"expected to keep schedule {command.name}, but {what}: delete some, or try again "
        "later",
        metadata={"schedule": command.name, "tenant": command.tenant, "limit": str(limit)},
        retry_after_ms=state.config.retry_after_ms,
    )


def _no_room(state: State, record: ScheduleRecord, target: int) -> Refusal:
    return Refusal(
        reason=Reason.OUTBOX_FULL,
        message=f"expected to trigger schedule {record.name}, but its queue lives in partition "
        f"{target}, and there is no room for more messages to it: try again later",
        metadata={"schedule": record.name, "partition": str(target)},
        retry_after_ms=state.config.retry_after_ms,
    )


def _misplaced(record: ScheduleRecord, job_id: JobId, target: int) -> Refusal:
    return Refusal(
        reason=Reason.WRONG_PARTITION,
        message=f"expected to trigger schedule {record.name} with a job of partition {target}, the "
        f"home of queue {record.spec.policy.queue}, but id {job_id} names partition "
        f"{partition_of(job_id)}: mint another one",
        metadata={"schedule": record.name, "job_id": job_id, "partition": str(target)},
        field="job_id",
    )


def _timing(spec: ScheduleSpec) -> tuple[object, ...]:
    """What says when a schedule's ticks fire."""
    return spec.cron, spec.time_zone, spec.jitter_ms, spec.start_ms, spec.end_ms


# What events write.


def apply_put(state: State, event: SchedulePut, seq: int) -> None:
    """Makes or changes a schedule."""
    records, key = state.timetable.records, (event.tenant, event.name)
    spec = msgspec.structs.replace(event.spec, policy=state.intern(event.spec.policy))
    record = records.get(key)
    if record is not None and record.seq >= seq:
        return
    before, size = None, 0
    if record is None:
        record = records[key] = ScheduleRecord(
            tenant=event.tenant, name=event.name, spec=spec, cursor=event.cursor, seq=seq
        )
    else:
        before, size = record.cursor, record.footprint
    record.spec = spec
    record.cursor = event.cursor
    record.seq = seq
    record.paused = event.paused
    record.created_ms = event.created_ms
    record.updated_ms = event.now_ms
    if state.live:
        state.stored_bytes += record.footprint - size
        state.timetable.follow(record, before)
        state.timetable.timers.arm(record)


def apply_paused(state: State, event: SchedulePaused, seq: int) -> None:
    """Stops a schedule, or lets it go on."""
    record = state.timetable.records.get((event.tenant, event.name))
    if record is None or record.seq >= seq:
        return
    before = record.cursor
    record.seq = seq
    record.paused = event.paused
    record.cursor = event.cursor
    record.updated_ms = event.now_ms
    if state.live:
        state.timetable.follow(record, before)
        state.timetable.timers.arm(record)


def apply_deleted(state: State, event: ScheduleDeleted, seq: int) -> None:
    """Forgets a schedule."""
    timetable, key = state.timetable, (event.tenant, event.name)
    record = timetable.records.get(key)
    if record is None or record.seq >= seq:
        return
    del timetable.records[key]
    if state.live:
        state.stored_bytes -= record.footprint
        timetable.forget(record)


def apply_ticked(state: State, event: SchedulesTicked, seq: int) -> None:
    """Moves cursors on. Timers follow with ``TimersFired``, which comes with each such event."""
    for row in event.rows:
        record = state.timetable.records.get((row.tenant, row.name))
        if record is None or record.seq >= seq:
            continue
        before = record.cursor
        record.seq = seq
        record.cursor = row.cursor
        if state.live:
            state.timetable.follow(record, before)
            if before.open_elsewhere and record.cursor.buffered_ms:
                # Word came that the job has ended for which a tick waits: no timer says so.
                state.timetable.timers.arm(record)
