"""What is remembered of schedules, and when each next wants to be looked at.

A schedule is its *spec*, which people change, and its *cursor*, which ticks move on. Both are
values that are replaced as a whole, so events carry them as they are. What to do with them is in
``core.schedule``. Times in milliseconds of the term clock; 0 is none.
"""

from collections.abc import Callable
from heapq import nsmallest
from typing import Final, TypeAlias

import msgspec

from tenure.master.core.record import Policy
from tenure.master.core.timer import Timers
from tenure.protocol.ids import JobId
from tenure.protocol.limits import CATCH_UP_MS_DEFAULT, DEFAULT_TENANT, PRIORITY_DEFAULT
from tenure.protocol.vocabulary import Misfire, Overlap

#: (tenant, name)
ScheduleName: TypeAlias = tuple[str, str]

#: A schedule without its payload, about.
_ROW_BYTES: Final = 400


class ScheduleSpec(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """What a schedule is to do."""

    cron: str
    time_zone: str
    #: Of each job.
    policy: Policy
    priority: int = PRIORITY_DEFAULT
    payload: bytes = b""
    misfire: Misfire = Misfire.FIRE_ONCE
    #: Ticks that are later do not fire.
    catch_up_ms: int = CATCH_UP_MS_DEFAULT
    overlap: Overlap = Overlap.SKIP
    jitter_ms: int = 0
    #: No tick before and none after.
    start_ms: int = 0
    end_ms: int = 0
    #: Why it is there, for people.
    note: str = ""
    #: As in a submit.
    limit_key: str = ""
    sticky_key: str = ""


class ScheduleCursor(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """How far a schedule is. A tick is the time that the calendar says, jitter not included."""

    #: The next tick that was not decided on, and when it fires; 0: there is none.
    next_ms: int = 0
    due_ms: int = 0
    #: A tick that waits for the job of the one before; 0: none does.
    buffered_ms: int = 0
    #: The newest tick that fired, and its job.
    last_ms: int = 0
    last_job_id: str = ""
    fired: int = 0
    #: Ticks left out: late, overlapping or misfired.
    skipped: int = 0
    #: Whether that job is in another partition, which has not told yet that it has ended.
    open_elsewhere: bool = False


class ScheduleRecord(msgspec.Struct, array_like=True, gc=False, eq=False, kw_only=True):
    """All that is persistent about one schedule."""

    name: str
    spec: ScheduleSpec
    cursor: ScheduleCursor
    #: Seq of the event that last wrote this record.
    seq: int
    tenant: str = DEFAULT_TENANT
    paused: bool = False
    created_ms: int = 0
    updated_ms: int = 0

    @property
    def key(self) -> ScheduleName:
        """What tells it from others."""
        return self.tenant, self.name

    @property
    def footprint(self) -> int:
        """About how many bytes it keeps."""
        return _ROW_BYTES + len(self.spec.payload)


class Timetable:
    """All schedules of a partition.

    Args:
        is_open: Whether a job has not ended.
    """

    __slots__ = ("_is_open", "records", "timers", "waiting")

    def __init__(self, is_open: Callable[[str], bool]) -> None:
        self._is_open = is_open
        self.records: dict[ScheduleName, ScheduleRecord] = {}
        self.reset_derived()

    def reset_derived(self) -> None:
        """Empties what is derived: the timers, and which schedules wait for which jobs."""
        self.timers: Timers[ScheduleRecord] = Timers(
            self.due_ms, lambda record: f"{record.tenant}\0{record.name}", lambda: len(self.records)
        )
        #: Job → the schedule that waits for its end, or for word of it.
        self.waiting: dict[str, ScheduleRecord] = {}

    def due_ms(self, record: ScheduleRecord) -> int | None:
        """When a schedule next wants to be looked at; None: it waits for nothing."""
        if record.paused or self.records.get(record.key) is not record:
            return None
        cursor = record.cursor
        if cursor.buffered_ms and not self.is_busy(cursor):
            return cursor.buffered_ms
        return cursor.due_ms or None

    def is_busy(self, cursor: ScheduleCursor) -> bool:
        """Whether the newest tick's job has not ended."""
        return cursor.open_elsewhere or self._is_open(cursor.last_job_id)

    def follow(self, record: ScheduleRecord, before: ScheduleCursor | None) -> None:
        """Keeps up which job a schedule waits for; ``before`` is the cursor that it had."""
        if before is not None:
            self.waiting.pop(before.last_job_id, None)
        if record.cursor.buffered_ms or record.cursor.open_elsewhere:
            self.waiting[record.cursor.last_job_id] = record

    def page(self, tenant: str, after: ScheduleName, count: int) -> list[ScheduleRecord]:
        """Schedules in order of tenant and name, of one tenant or ("") of all, behind one."""
        keys = (key for key in self.records if key > after and tenant in ("", key[0]))
        return [self.records[key] for key in nsmallest(count, keys)]

    def forget(self, record: ScheduleRecord) -> None:
        """Drops what is derived from a schedule that is no more; its timer finds itself."""
        self.waiting.pop(record.cursor.last_job_id, None)

    def forget_elsewhere(self, seq: int) -> None:
        """The cluster was set back: whether a job elsewhere has ended may never be told."""
        for record in self.records.values():
            if record.seq < seq and record.cursor.open_elsewhere:
                before = record.cursor
                record.seq = seq
                record.cursor = msgspec.structs.replace(before, open_elsewhere=False)
                self.follow(record, before)
                self.timers.arm(record)

    def take(self, mark: tuple[int, int] | None) -> list[ScheduleRecord]:
        """Takes out all timers up to the mark; the schedules that they are of and that still stand.

        One that was deleted and put anew has timers of both; the old one must not hide the new one.
        """
        standing = [each for each in self.timers.take(mark) if self.records.get(each.key) is each]
        return list({each.key: each for each in standing}.values())

    def ended(self, job_id: JobId) -> None:
        """Sees to it that a tick which waited for the end of this job is looked at."""
        record = self.waiting.get(job_id)
        if record is not None:
            self.timers.arm(record)
