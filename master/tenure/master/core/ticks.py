"""Ticks: which a schedule has yet to decide on, when each fires, and the id of its job."""

from collections.abc import Iterator
from hashlib import blake2b

import msgspec

from tenure.master.core.calendar import BadCalendar, Calendar, calendar
from tenure.master.core.timetable import (
    ScheduleCursor,
    ScheduleName,
    ScheduleRecord,
    ScheduleSpec,
)
from tenure.protocol.ids import JobId, mint


class Ticks:
    """The ticks of a schedule that were not decided on, each with the time when it fires."""

    def __init__(self, record: ScheduleRecord) -> None:
        self._tenant, self._name, self._spec = record.tenant, record.name, record.spec
        self._calendar: Calendar | None
        try:
            self._calendar = calendar(record.spec.cron, record.spec.time_zone)
        except BadCalendar:
            self._calendar = None
        #: The first of them; 0: there is none.
        self.next_ms = record.cursor.next_ms

    def __iter__(self) -> Iterator[tuple[int, int]]:
        tick_ms = self.next_ms
        while tick_ms:
            yield tick_ms, self.fires_ms(tick_ms)
            tick_ms = self._after(tick_ms)

    @property
    def are_known(self) -> bool:
        """Whether this master knows the zone: it may have older ones than who took the schedule."""
        return self._calendar is not None

    def from_now(self, now_ms: int) -> "Ticks":
        """Begins anew, with the first tick that is not over; itself."""
        self.next_ms = self._after(max(now_ms, self._spec.start_ms - 1))
        return self

    def behind(self, tick_ms: int) -> "Ticks":
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
        found = None if self._calendar is None else self._calendar.after(ms)
        return 0 if found is None or 0 < self._spec.end_ms < found else found


def tick_bits(tenant: str, name: str, tick_ms: int) -> int:
    """64 bits that are always the same for the same tick."""
    text = f"{tenant}\0{name}\0{tick_ms}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def tick_job_id(partition: int, key: ScheduleName, tick_ms: int, due_ms: int) -> JobId:
    """The id of a tick's job: its time is when the tick fires, the rest says which tick it is."""
    return mint(partition, due_ms, tick_bits(*key, tick_ms))


def restarted(
    tenant: str, name: str, spec: ScheduleSpec, before: ScheduleCursor, now_ms: int
) -> ScheduleCursor:
    """A cursor that waits for the first tick from now on; a tick that waits is left out."""
    record = ScheduleRecord(tenant=tenant, name=name, spec=spec, cursor=before, seq=0)
    skipped = before.skipped + bool(before.buffered_ms)
    return Ticks(record).from_now(now_ms).cursor(before, buffered_ms=0, skipped=skipped)
