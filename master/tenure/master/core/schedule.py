"""Schedules: jobs by the calendar, each tick of a schedule one job, with an id of its own.

```
            fires at tick + jitter
 cursor ─────────────┬───────────────► late by more than the catch-up window: left out
 (next tick)         ├──────────────► missed (late by MISFIRE_MS): SKIP, FIRE_ONCE or FIRE_ALL
                     └─► overlaps: SKIP, BUFFER_ONE, ALLOW or CANCEL_OTHER ──► the job is submitted
```
A tick's job and the cursor behind it are journaled together, the job first. If only the job got
there, the tick is looked at again, its job found by its id, and the cursor moved on: once each.

A look at a schedule fires one tick or leaves some out; it is looked at again while more are due,
so that a long downtime is caught up with in slices.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Final, assert_never

import msgspec

from tenure.master.core.calendar import BadCalendar, calendar
from tenure.master.core.chunk import BYTES_MAX
from tenure.master.core.command import (
    CancelJobs,
    DeleteSchedule,
    FireTimers,
    PauseSchedule,
    PutSchedule,
    SubmitJobs,
    SubmitRow,
    SubmitSetting,
    TriggerSchedule,
)
from tenure.master.core.control import decide_cancel
from tenure.master.core.effect import Decision, Effect, SubmitReply
from tenure.master.core.event import (
    Event,
    ScheduleDeleted,
    SchedulePaused,
    SchedulePut,
    SchedulesTicked,
    TickedRow,
)
from tenure.master.core.state import State
from tenure.master.core.submit import decide_submit
from tenure.master.core.timetable import (
    ScheduleCursor,
    ScheduleName,
    ScheduleRecord,
    ScheduleSpec,
)
from tenure.protocol.ids import JobId, home_partition, mint
from tenure.protocol.limits import MISFIRE_MS, SCHEDULES_MAX
from tenure.protocol.refusal import Reason, Refusal
from tenure.protocol.vocabulary import Misfire, Overlap

#: Schedules looked at in one decision, and ticks that it leaves out at most: some milliseconds.
_SCHEDULES_MAX: Final = 32
_LOOKS_MAX: Final = 64


# What people do to schedules.


def decide_put(state: State, command: PutSchedule, now_ms: int) -> Decision | Refusal:
    """Makes a schedule or changes it; ticks that were not decided on fire by the new spec."""
    spec, known = command.spec, state.timetable.records.get((command.tenant, command.name))
    refusal = _refuse(state, command, known)
    if refusal is not None:
        return refusal
    if known is None or known.paused or command.paused or _timing(known.spec) != _timing(spec):
        before = ScheduleCursor() if known is None else known.cursor
        cursor = _restarted(command.tenant, command.name, spec, before, now_ms)
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
    cursor = _restarted(record.tenant, record.name, record.spec, record.cursor, now_ms)
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
    event = ScheduleDeleted(now_ms=now_ms, tenant=record.tenant, name=record.name)
    return Decision(events=(event,), reply=snapshot_of(record))


def decide_trigger(state: State, command: TriggerSchedule, now_ms: int) -> Decision | Refusal:
    """Submits a schedule's job now, beside its ticks."""
    record = state.timetable.records.get((command.tenant, command.name))
    if record is None:
        return unknown(command.tenant, command.name, "trigger")
    submit = SubmitJobs(
        settings=[_setting(record.spec)],
        rows=[_row(command.job_id, 0, record.spec)],
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
    return [due_ms for _, due_ms in islice(_Ticks(record), count)]


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
    home = home_partition(spec.policy.tenant, spec.policy.queue, config.partitions)
    if home != config.partition:
        return _elsewhere(command, home, config.partition)
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


def _elsewhere(command: PutSchedule, home: int, partition: int) -> Refusal:
    queue = command.spec.policy.queue
    return Refusal(
        reason=Reason.WRONG_PARTITION,
        message=f"expected the queue of schedule {command.name} in partition {partition}, where "
        f"its name puts it, but {queue} lives in partition {home}: choose another name or queue",
        metadata={
            "schedule": command.name,
            "tenant": command.tenant,
            "queue": queue,
            "partition": str(home),
        },
        field="spec.options.queue",
    )


def _timing(spec: ScheduleSpec) -> tuple[object, ...]:
    """What says when a schedule's ticks fire."""
    return spec.cron, spec.time_zone, spec.jitter_ms, spec.start_ms, spec.end_ms


# Ticks.


class _Ticks:
    """The ticks of a schedule that were not decided on, each with the time when it fires."""

    def __init__(self, record: ScheduleRecord) -> None:
        self._tenant, self._name, self._spec = record.tenant, record.name, record.spec
        self._calendar = calendar(record.spec.cron, record.spec.time_zone)
        #: The first of them; 0: there is none.
        self.next_ms = record.cursor.next_ms

    def __iter__(self) -> Iterator[tuple[int, int]]:
        tick_ms = self.next_ms
        while tick_ms:
            yield tick_ms, self.fires_ms(tick_ms)
            tick_ms = self._after(tick_ms)

    def from_now(self, now_ms: int) -> "_Ticks":
        """Begins anew, with the first tick that is not over; itself."""
        self.next_ms = self._after(max(now_ms, self._spec.start_ms - 1))
        return self

    def behind(self, tick_ms: int) -> "_Ticks":
        """Begins anew, with the first tick later than this one; itself."""
        self.next_ms = self._after(tick_ms)
        return self

    def cursor(self, before: ScheduleCursor, **changes: int | str) -> ScheduleCursor:
        """A cursor that stands before the first of the ticks."""
        due_ms = self.fires_ms(self.next_ms) if self.next_ms else 0
        return msgspec.structs.replace(before, next_ms=self.next_ms, due_ms=due_ms, **changes)

    def fires_ms(self, tick_ms: int) -> int:
        """When a tick fires: at its time and its jitter, which never takes it past the next one."""
        jitter_ms = self._spec.jitter_ms
        if jitter_ms:
            following_ms = self._after(tick_ms)
            if following_ms:
                jitter_ms = min(jitter_ms, following_ms - tick_ms)
            tick_ms += tick_bits(self._tenant, self._name, tick_ms) % jitter_ms
        return tick_ms

    def _after(self, ms: int) -> int:
        found = self._calendar.after(ms)
        return 0 if found is None or 0 < self._spec.end_ms < found else found


def tick_bits(tenant: str, name: str, tick_ms: int) -> int:
    """64 bits that are always the same for the same tick."""
    text = f"{tenant}\0{name}\0{tick_ms}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def tick_job_id(partition: int, key: ScheduleName, tick_ms: int, due_ms: int) -> JobId:
    """The id of a tick's job: its time is when the tick fires, the rest says which tick it is."""
    return mint(partition, due_ms, tick_bits(*key, tick_ms))


def _restarted(
    tenant: str, name: str, spec: ScheduleSpec, before: ScheduleCursor, now_ms: int
) -> ScheduleCursor:
    """A cursor that waits for the first tick from now on; a tick that waits is left out."""
    record = ScheduleRecord(tenant=tenant, name=name, spec=spec, cursor=before, seq=0)
    skipped = before.skipped + bool(before.buffered_ms)
    return _Ticks(record).from_now(now_ms).cursor(before, buffered_ms=0, skipped=skipped)


@dataclass(slots=True)
class Ticked:
    """What the schedules that are due come to.

    Attributes:
        decision: Its events and effects.
        mark: Of the last timer looked at; None: none was due.
        held: Schedules whose tick could not be submitted; it is tried again a little later.
    """

    decision: Decision = field(default_factory=Decision)
    mark: tuple[int, int] | None = None
    held: list[ScheduleName] = field(default_factory=list)


def decide_ticks(
    state: State, command: FireTimers, now_ms: int, decided: Collection[JobId]
) -> Ticked:
    """Looks at schedules that are due: some of them, if there are many.

    Args:
        state: The partition's.
        command: What is due is to be done.
        now_ms: When.
        decided: Jobs that the same decision has decided on: who waits for one is looked at later.
    """
    limit = min(command.rows_max, _SCHEDULES_MAX)
    records, mark = state.timetable.timers.due(now_ms, limit)
    if mark is None:
        return Ticked()
    looks = _Looks(state, now_ms)
    # A schedule that was armed twice comes twice.
    for record in {record.key: record for record in records}.values():
        if record.cursor.last_job_id not in decided:
            looks.at(record)
    return Ticked(looks.decided(command), mark, looks.held)


@dataclass(slots=True)
class _Firing:
    """A tick that fires: its job, and what becomes of its schedule then."""

    record: ScheduleRecord
    job_id: JobId
    cursor: ScheduleCursor
    #: A job that must give way.
    cancels: str


class _Looks:
    """Looks at schedules, in one decision."""

    def __init__(self, state: State, now_ms: int) -> None:
        self._state = state
        self._now_ms = now_ms
        self._firings: list[_Firing] = []
        self._moved: list[TickedRow] = []
        self._bytes = 0
        self._looks_left = _LOOKS_MAX
        self.held: list[ScheduleName] = []

    def at(self, record: ScheduleRecord) -> None:
        """Decides on one schedule: on one tick that fires, or on some that are left out."""
        due_ms = self._state.timetable.due_ms(record)
        if due_ms is None or due_ms > self._now_ms:
            return
        if self._bytes > BYTES_MAX or self._looks_left <= 0:
            # Its turn comes with the next decision.
            return
        ticks, cursor = _Ticks(record), record.cursor
        if cursor.buffered_ms and not self._state.is_open(cursor.last_job_id):
            tick_ms = cursor.buffered_ms
            kept = msgspec.structs.replace(cursor, buffered_ms=0)
            self._fire(record, tick_ms, ticks.fires_ms(tick_ms), kept)
            return
        if self._is_submitted(record):
            self._judge(record, ticks)
            return
        spec, late_ms = record.spec, self._now_ms - cursor.due_ms
        if late_ms > spec.catch_up_ms:
            self._leave_out(record, ticks, spec.catch_up_ms, keep=0)
        elif late_ms < MISFIRE_MS or spec.misfire is Misfire.FIRE_ALL:
            self._judge(record, ticks)
        elif spec.misfire is Misfire.SKIP:
            self._leave_out(record, ticks, MISFIRE_MS - 1, keep=0)
        elif not self._leave_out(record, ticks, MISFIRE_MS - 1, keep=1):
            # It is the newest that was missed.
            self._judge(record, ticks)

    def decided(self, command: FireTimers) -> Decision:
        """What it comes to: jobs first, then the cursors behind them."""
        now_ms, firings = self._now_ms, self._firings
        events: list[Event] = []
        effects: list[Effect] = []
        if firings:
            submit = SubmitJobs(
                settings=[_setting(firing.record.spec) for firing in firings],
                rows=[
                    _row(firing.job_id, index, firing.record.spec)
                    for index, firing in enumerate(firings)
                ],
                intake=command.intake,
                bytes_max=command.bytes_max,
                any_age=True,
            )
            decision = decide_submit(self._state, submit, now_ms)
            if isinstance(decision, Refusal) or not isinstance(decision.reply, SubmitReply):
                raise TypeError(f"expected a verdict for each tick, got {decision}")
            refused = {index for index, _ in decision.reply.refusals}
            self.held += [firings[index].record.key for index in refused]
            firings = [each for index, each in enumerate(firings) if index not in refused]
            events += decision.events
            effects += decision.effects
            given_way = [JobId(firing.cancels) for firing in firings if firing.cancels]
            if given_way:
                cancel = CancelJobs(job_ids=given_way, reason="the next tick of its schedule fired")
                cancelled = decide_cancel(self._state, cancel, now_ms)
                events += cancelled.events
                effects += cancelled.effects
        rows = self._moved + [TickedRow(*each.record.key, each.cursor) for each in firings]
        if rows:
            events.append(SchedulesTicked(now_ms=now_ms, rows=rows))
        return Decision(events=tuple(events), effects=tuple(effects))

    def _judge(self, record: ScheduleRecord, ticks: _Ticks) -> None:
        """The next tick fires, or waits, or is left out, by whether the job before has ended."""
        before = record.cursor
        tick_ms, due_ms = before.next_ms, before.due_ms
        behind = ticks.behind(tick_ms).cursor(before)
        self._looks_left -= 1
        if self._is_submitted(record) or not self._state.is_open(before.last_job_id):
            self._fire(record, tick_ms, due_ms, behind)
            return
        match record.spec.overlap:
            case Overlap.ALLOW:
                self._fire(record, tick_ms, due_ms, behind)
            case Overlap.CANCEL_OTHER:
                self._fire(record, tick_ms, due_ms, behind, cancels=before.last_job_id)
            case Overlap.BUFFER_ONE if not before.buffered_ms:
                self._move(record, msgspec.structs.replace(behind, buffered_ms=tick_ms))
            case Overlap.BUFFER_ONE | Overlap.SKIP:
                self._move(record, msgspec.structs.replace(behind, skipped=before.skipped + 1))
            case _:
                assert_never(record.spec.overlap)

    def _leave_out(self, record: ScheduleRecord, ticks: _Ticks, late_ms: int, *, keep: int) -> bool:
        """Moves on over ticks that are late by more, but for the last ``keep``.

        Returns:
            Whether that is all for now: False if nothing is to be left out.
        """
        found: list[int] = []
        for tick_ms, due_ms in ticks:
            found.append(tick_ms)
            self._looks_left -= 1
            if self._now_ms - due_ms <= late_ms or self._looks_left <= 0:
                break
        else:
            found.append(0)
        # All but the last of what was found are late; of the last it is not known if looks ran out.
        skipped = len(found) - 1 - keep
        if skipped <= 0:
            return self._looks_left <= 0
        ticks.next_ms = found[skipped]
        self._move(record, ticks.cursor(record.cursor, skipped=record.cursor.skipped + skipped))
        return True

    def _is_submitted(self, record: ScheduleRecord) -> bool:
        """Whether the next tick's job is there: the cursor behind it was lost with a master."""
        state, cursor = self._state, record.cursor
        partition = state.config.partition
        job_id = tick_job_id(partition, record.key, cursor.next_ms, cursor.due_ms)
        return job_id in state.jobs or state.tombstones.get(job_id, self._now_ms) is not None

    def _fire(
        self,
        record: ScheduleRecord,
        tick_ms: int,
        due_ms: int,
        cursor: ScheduleCursor,
        *,
        cancels: str = "",
    ) -> None:
        job_id = tick_job_id(self._state.config.partition, record.key, tick_ms, due_ms)
        behind = msgspec.structs.replace(
            cursor, last_ms=tick_ms, last_job_id=job_id, fired=cursor.fired + 1
        )
        self._firings.append(_Firing(record, job_id, behind, cancels))
        self._bytes += record.footprint

    def _move(self, record: ScheduleRecord, cursor: ScheduleCursor) -> None:
        self._moved.append(TickedRow(*record.key, cursor))


def _row(job_id: JobId, setting: int, spec: ScheduleSpec) -> SubmitRow:
    return SubmitRow(job_id, setting, spec.payload, "", spec.limit_key, spec.sticky_key)


def _setting(spec: ScheduleSpec) -> SubmitSetting:
    return SubmitSetting(spec.policy, spec.priority, 0, 0)


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
