"""Due ticks: what becomes of schedules' ticks when their time has come.

```
            fires at tick + jitter
 cursor ─────────────┬───────────────► late by more than the catch-up window: left out
 (next tick)         ├──────────────► missed (late by MISFIRE_MS): SKIP, FIRE_ONCE or FIRE_ALL
                     └─► overlaps: SKIP, BUFFER_ONE, ALLOW or CANCEL_OTHER ──► the job is submitted
```
With BUFFER_ONE the first tick that overlaps is kept until the job before it has ended, with
CANCEL_OTHER the newest one, and that job is asked to stop.

A tick's job and the cursor behind it are journaled together, the job first. If only the job got
there, the tick is looked at again, its job found by its id, and the cursor moved on: once each.

A look at a schedule fires one tick or leaves some out; it is looked at again while more are due,
so that a long downtime is caught up with in slices.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, assert_never

import msgspec

from tenure.master.core.chunk import BYTES_MAX
from tenure.master.core.command import (
    CancelJobs,
    FireTimers,
    SubmitJobs,
    SubmitRow,
    SubmitSetting,
)
from tenure.master.core.control import decide_cancel
from tenure.master.core.effect import Decision, Effect, SubmitReply
from tenure.master.core.errand import Post, is_admitted, target_of
from tenure.master.core.event import Event, SchedulesTicked, TickedRow
from tenure.master.core.state import State
from tenure.master.core.submit import decide_submit
from tenure.master.core.ticks import Ticks, tick_job_id
from tenure.master.core.timetable import (
    ScheduleCursor,
    ScheduleName,
    ScheduleRecord,
    ScheduleSpec,
)
from tenure.protocol.ids import JobId, partition_of
from tenure.protocol.limits import MISFIRE_MS
from tenure.protocol.refusal import Refusal
from tenure.protocol.vocabulary import Misfire, Overlap

_GIVES_WAY: Final = "the next tick of its schedule waits for its end"
#: Schedules looked at in one decision, and ticks that it leaves out at most: some milliseconds.
_SCHEDULES_MAX: Final = 32
_LOOKS_MAX: Final = 64


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
    looks = _Looks(state, command, now_ms)
    # A schedule that was armed twice comes twice.
    for record in {record.key: record for record in records}.values():
        if record.cursor.last_job_id not in decided:
            looks.at(record)
    return Ticked(looks.decided(), mark, looks.held)


@dataclass(slots=True)
class _Firing:
    """A tick that fires: its job, and what becomes of its schedule then."""

    record: ScheduleRecord
    job_id: JobId
    cursor: ScheduleCursor


class _Looks:
    """Looks at schedules, in one decision."""

    def __init__(self, state: State, command: FireTimers, now_ms: int) -> None:
        self._state = state
        self._command = command
        self._now_ms = now_ms
        self._post = Post(state)
        #: By partition: ticks that fire there.
        self._bound: Counter[int] = Counter()
        self._firings: list[_Firing] = []
        self._moved: list[TickedRow] = []
        #: Jobs of this partition that are asked to stop.
        self._stopped: list[JobId] = []
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
        ticks, cursor = Ticks(record), record.cursor
        if not ticks.are_known:
            self.held.append(record.key)
            return
        if cursor.buffered_ms and not self._state.timetable.is_busy(cursor):
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

    def decided(self) -> Decision:
        """What it comes to: jobs first, then the cursors behind them."""
        here = self._state.config.partition
        fired = [each for each in self._firings if partition_of(each.job_id) != here]
        for firing in fired:
            spec = firing.record.spec
            self._post.submit(spec, firing.job_id, self._now_ms)
            if firing.cursor.open_elsewhere:
                self._post.ask(firing.job_id)
        events: list[Event] = []
        effects: list[Effect] = []
        local = [each for each in self._firings if partition_of(each.job_id) == here]
        if local:
            decision, accepted = self._submit(local)
            events += decision.events
            effects += decision.effects
            fired += accepted
        for firing in fired:
            self._post.forget(firing.record.cursor)
        if self._stopped:
            cancel = CancelJobs(job_ids=self._stopped, reason=_GIVES_WAY)
            cancelled = decide_cancel(self._state, cancel, self._now_ms)
            events += cancelled.events
            effects += cancelled.effects
        messages, delivers = self._post.sent(self._now_ms)
        rows = self._moved + [TickedRow(*each.record.key, each.cursor) for each in fired]
        if rows:
            messages.append(SchedulesTicked(now_ms=self._now_ms, rows=rows))
        return Decision(events=(*events, *messages), effects=(*effects, *delivers))

    def _submit(self, firings: list[_Firing]) -> tuple[Decision, list[_Firing]]:
        """Submits jobs to queues of this partition; those that were taken."""
        submit = SubmitJobs(
            settings=[setting_of(firing.record.spec) for firing in firings],
            rows=[
                row_of(firing.job_id, index, firing.record.spec)
                for index, firing in enumerate(firings)
            ],
            intake=self._command.intake,
            bytes_max=self._command.bytes_max,
            any_age=True,
        )
        decision = decide_submit(self._state, submit, self._now_ms)
        if isinstance(decision, Refusal) or not isinstance(decision.reply, SubmitReply):
            raise TypeError(f"expected a verdict for each tick, got {decision}")
        refused = {index for index, _ in decision.reply.refusals}
        self.held += [firings[index].record.key for index in refused]
        return decision, [each for index, each in enumerate(firings) if index not in refused]

    def _judge(self, record: ScheduleRecord, ticks: Ticks) -> None:
        """The next tick fires, or waits, or is left out, by whether the job before has ended."""
        before = record.cursor
        tick_ms, due_ms = before.next_ms, before.due_ms
        behind = ticks.behind(tick_ms).cursor(before)
        self._looks_left -= 1
        if self._is_submitted(record) or not self._state.timetable.is_busy(before):
            self._fire(record, tick_ms, due_ms, behind)
            return
        match record.spec.overlap:
            case Overlap.ALLOW:
                self._fire(record, tick_ms, due_ms, behind)
            case Overlap.CANCEL_OTHER:
                self._keep(record, tick_ms, behind)
            case Overlap.BUFFER_ONE if not before.buffered_ms:
                self._move(record, msgspec.structs.replace(behind, buffered_ms=tick_ms))
            case Overlap.BUFFER_ONE | Overlap.SKIP:
                self._move(record, msgspec.structs.replace(behind, skipped=before.skipped + 1))
            case _:
                assert_never(record.spec.overlap)

    def _keep(self, record: ScheduleRecord, tick_ms: int, behind: ScheduleCursor) -> None:
        """A tick waits for the job of the one before, which is asked to stop; none waits beside it.

        That job may have ended by the end of this decision: then the tick fires in the next one.
        """
        before = record.cursor
        job_id = JobId(before.last_job_id)
        if before.open_elsewhere:
            target = partition_of(job_id)
            if not self._post.has_room(target, self._bound[target]):
                self.held.append(record.key)
                return
            self._bound[target] += 1
            self._post.cancel(job_id, _GIVES_WAY)
        else:
            self._stopped.append(job_id)
        skipped = before.skipped + bool(before.buffered_ms)
        self._move(record, msgspec.structs.replace(behind, buffered_ms=tick_ms, skipped=skipped))

    def _leave_out(self, record: ScheduleRecord, ticks: Ticks, late_ms: int, *, keep: int) -> bool:
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
    ) -> None:
        spec, target = record.spec, target_of(self._state, record.spec)
        elsewhere = target != self._state.config.partition
        if elsewhere and not (
            self._post.has_room(target, self._bound[target])
            and is_admitted(self._command.intake, spec)
        ):
            self.held.append(record.key)
            return
        self._bound[target] += 1
        job_id = tick_job_id(target, record.key, tick_ms, due_ms)
        behind = msgspec.structs.replace(
            cursor,
            last_ms=tick_ms,
            last_job_id=job_id,
            fired=cursor.fired + 1,
            open_elsewhere=elsewhere and spec.overlap is not Overlap.ALLOW,
        )
        self._firings.append(_Firing(record, job_id, behind))
        self._bytes += record.footprint

    def _move(self, record: ScheduleRecord, cursor: ScheduleCursor) -> None:
        self._moved.append(TickedRow(*record.key, cursor))


def row_of(job_id: JobId, setting: int, spec: ScheduleSpec) -> SubmitRow:
    """One job of a schedule, for a submit."""
    return SubmitRow(job_id, setting, spec.payload, "", spec.limit_key, spec.sticky_key)


def setting_of(spec: ScheduleSpec) -> SubmitSetting:
    """How a schedule's jobs are submitted: due at once."""
    return SubmitSetting(spec.policy, spec.priority, 0, 0)
