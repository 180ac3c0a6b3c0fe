"""Between the wire and the core: schedules. What a client sends of them is validated here, once."""

from google.protobuf.timestamp_pb2 import Timestamp

from tenure.master.core.schedule import upcoming
from tenure.master.core.timetable import ScheduleRecord, ScheduleSpec
from tenure.master.node.translate import (
    checked_member,
    checked_span,
    invalid,
    options_of,
    setting_of,
    stamp,
    wire_enum,
)
from tenure.protocol import limits
from tenure.protocol.vocabulary import Misfire, Overlap
from tenure.v1 import common_pb2, schedules_pb2

#: The end of the year 9999, the last moment that a Timestamp can show.
_TIME_S_MAX = 253_402_300_799


def spec_from_wire(wire: schedules_pb2.ScheduleSpec, tenant: str) -> ScheduleSpec:
    """A spec in the core's terms; its cron and zone are judged there.

    Raises:
        Rejected: A field is wrong; the error has its path.
    """
    setting = setting_of(_of_tenant(wire.options, tenant), "spec.options")
    if setting.delay_ms:
        raise invalid("spec.options.delay", "each job of a schedule is due when its tick fires")
    if setting.at_ms:
        raise invalid("spec.options.at_ms", "each job of a schedule is due when its tick fires")
    catch_up_ms = limits.CATCH_UP_MS_DEFAULT
    if wire.HasField("catch_up_window"):
        path = "spec.catch_up_window"
        catch_up_ms = checked_span(wire.catch_up_window, path, limits.DELAY_MS_MAX)
        if catch_up_ms < limits.MISFIRE_MS:
            raise invalid(path, f"{catch_up_ms} ms is below {limits.MISFIRE_MS} ms")
    note_bytes = len(wire.note.encode())
    if note_bytes > limits.NOTE_BYTES_MAX:
        raise invalid("spec.note", f"it has {note_bytes} bytes (at most {limits.NOTE_BYTES_MAX})")
    for field in ("limit_key", "sticky_key"):
        count = len(getattr(wire, field))
        if count > limits.KEY_CHARS_MAX:
            message = f"it has {count} characters (at most {limits.KEY_CHARS_MAX})"
            raise invalid(f"spec.{field}", message)
    start_ms = _time(wire.start_at, "spec.start_at") if wire.HasField("start_at") else 0
    end_ms = _time(wire.end_at, "spec.end_at") if wire.HasField("end_at") else 0
    if start_ms and end_ms and end_ms < start_ms:
        raise invalid("spec.end_at", "it lies before start_at")
    return ScheduleSpec(
        cron=wire.cron,
        time_zone=wire.time_zone or "UTC",
        policy=setting.policy,
        priority=setting.priority,
        payload=wire.payload,
        misfire=checked_member(Misfire, wire.misfire or Misfire.FIRE_ONCE, "spec.misfire"),
        catch_up_ms=catch_up_ms,
        overlap=checked_member(Overlap, wire.overlap or Overlap.SKIP, "spec.overlap"),
        jitter_ms=checked_span(wire.jitter, "spec.jitter", limits.JITTER_MS_MAX),
        start_ms=start_ms,
        end_ms=end_ms,
        note=wire.note,
        limit_key=wire.limit_key,
        sticky_key=wire.sticky_key,
    )


def schedule_to_wire(
    record: ScheduleRecord, partition: int, count: int | None = None
) -> schedules_pb2.Schedule:
    """A schedule as its users see it, with its next ticks; ``count`` None: the one that is next."""
    cursor = record.cursor
    wire = schedules_pb2.Schedule(
        tenant=record.tenant,
        name=record.name,
        partition=partition,
        spec=_spec_to_wire(record.spec, paused=record.paused),
        last_job_id=cursor.last_job_id,
        fired=cursor.fired,
        skipped=cursor.skipped,
    )
    stamp(wire.created_at, record.created_ms)
    stamp(wire.updated_at, record.updated_ms)
    stamp(wire.last_tick_at, cursor.last_ms)
    if count is not None:
        times = upcoming(record, count)
    else:
        times = [] if record.paused or not cursor.due_ms else [cursor.due_ms]
    for time_ms in times:
        wire.upcoming.add().FromMilliseconds(time_ms)
    return wire


def _spec_to_wire(spec: ScheduleSpec, *, paused: bool) -> schedules_pb2.ScheduleSpec:
    wire = schedules_pb2.ScheduleSpec(
        cron=spec.cron,
        time_zone=spec.time_zone,
        misfire=wire_enum(spec.misfire),
        overlap=wire_enum(spec.overlap),
        paused=paused,
        options=options_of(spec.policy),
        payload=spec.payload,
        note=spec.note,
        limit_key=spec.limit_key,
        sticky_key=spec.sticky_key,
    )
    wire.options.priority = spec.priority
    wire.catch_up_window.FromMilliseconds(spec.catch_up_ms)
    if spec.jitter_ms:
        wire.jitter.FromMilliseconds(spec.jitter_ms)
    stamp(wire.start_at, spec.start_ms)
    stamp(wire.end_at, spec.end_ms)
    return wire


def _of_tenant(options: common_pb2.JobOptions, tenant: str) -> common_pb2.JobOptions:
    """The options; they say no other tenant than the schedule's."""
    if options.tenant not in ("", tenant):
        raise invalid("spec.options.tenant", f"it is {options.tenant[:140]!r}, not the schedule's")
    copy = common_pb2.JobOptions()
    copy.CopyFrom(options)
    copy.tenant = tenant
    return copy


def _time(at: Timestamp, path: str) -> int:
    if not 0 < at.seconds <= _TIME_S_MAX:
        raise invalid(path, "it lies before 1970 or behind the year 9999")
    return at.ToMilliseconds()
