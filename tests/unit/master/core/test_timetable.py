"""The timetable by itself: what is due, which schedule waits for which job, and what is told."""

import msgspec
import pytest

from tenure.master.core.timetable import ScheduleCursor, ScheduleRecord, Timetable
from tenure.protocol.ids import JobId
from tests.unit.master.core.planner import changed


def schedule(
    name: str = "s", tenant: str = "default", seq: int = 1, **cursor: int | str
) -> ScheduleRecord:
    """A schedule whose cursor knows this."""
    known = msgspec.structs.replace(ScheduleCursor(), **cursor)
    return ScheduleRecord(tenant=tenant, name=name, spec=changed(), cursor=known, seq=seq)


def timetable(*records: ScheduleRecord, busy: tuple[str, ...] = ()) -> Timetable:
    """All of these; those jobs have not ended."""
    found = Timetable(busy.__contains__)
    for record in records:
        found.records[record.key] = record
        found.follow(record, None)
        found.timers.arm(record)
    return found


@pytest.mark.parametrize(
    ("cursor", "due_ms"),
    [
        ({}, None),
        ({"due_ms": 7}, 7),
        ({"due_ms": 7, "buffered_ms": 3, "last_job_id": "done"}, 3),
        ({"due_ms": 7, "buffered_ms": 3, "last_job_id": "busy"}, 7),
        ({"buffered_ms": 3, "last_job_id": "busy"}, None),
        ({"due_ms": 7, "buffered_ms": 3, "last_job_id": "done", "open_elsewhere": True}, 7),
    ],
)
def test_what_a_schedule_waits_for(cursor: dict[str, int | str], due_ms: int | None) -> None:
    """Its next tick; or one that waited for a job, at once when that has ended."""
    record = schedule(**cursor)
    found = timetable(record, busy=("busy",))
    assert found.due_ms(record) == due_ms
    record.paused = True
    assert found.due_ms(record) is None
    record.paused = False
    found.records[record.key] = schedule(**cursor)
    assert found.due_ms(record) is None


def test_a_schedule_follows_the_job_that_its_tick_waits_for() -> None:
    """From when one waits, or word of it is awaited, until none does."""
    record = schedule(last_job_id="a")
    found = timetable(record)
    assert found.waiting == {}
    for changes, waits in (
        ({"buffered_ms": 3}, {"a": record}),
        ({"last_job_id": "b"}, {"b": record}),
        ({"buffered_ms": 0}, {}),
        ({"open_elsewhere": True}, {"b": record}),
    ):
        before = record.cursor
        record.cursor = msgspec.structs.replace(before, **changes)
        found.follow(record, before)
        assert found.waiting == waits
    found.forget(record)
    assert found.waiting == {}
    found.forget(record)


def test_the_end_of_a_job_is_for_who_waits_for_it() -> None:
    """Its schedule is looked at; of other jobs nobody hears."""
    record = schedule(due_ms=50, buffered_ms=3, last_job_id="job")
    busy = {"job": None}
    found = Timetable(busy.__contains__)
    found.records[record.key] = record
    found.follow(record, None)
    busy.clear()
    found.ended(JobId("another"))
    assert found.timers.next_ms() is None
    found.ended(JobId("job"))
    assert found.timers.next_ms() == 3


def test_schedules_are_told_in_the_order_of_their_names() -> None:
    """Of one tenant or of all, behind one, so many at most."""
    keys = [("a", "x"), ("a", "y"), ("b", "x"), ("c", "w")]
    found = timetable(*[schedule(name, tenant) for tenant, name in reversed(keys)])

    def page(tenant: str, after: tuple[str, str], count: int = 9) -> list[tuple[str, str]]:
        return [record.key for record in found.page(tenant, after, count)]

    assert page("", ("", "")) == keys
    assert page("", ("", ""), 2) == keys[:2]
    assert page("", ("a", "y")) == keys[2:]
    assert page("a", ("a", "x")) == [("a", "y")]
    assert page("b", ("", "")) == [("b", "x")]
    assert page("d", ("", "")) == []


def test_after_a_restore_nobody_waits_for_word_of_a_job_elsewhere() -> None:
    """Whoever was written before it; the tick that waited may fire."""
    old = schedule("old", seq=4, last_job_id="a", buffered_ms=3, open_elsewhere=True)
    late = schedule("late", seq=5, last_job_id="b", open_elsewhere=True)
    here = schedule("here", seq=1, last_job_id="c", buffered_ms=8)
    found = timetable(old, late, here, busy=("a", "b", "c"))
    found.timers.take((9, 9))
    found.forget_elsewhere(5)
    assert [record.cursor.open_elsewhere for record in (old, late, here)] == [False, True, False]
    assert [record.seq for record in (old, late, here)] == [5, 5, 1]
    assert found.waiting == {"a": old, "b": late, "c": here}
    free = schedule("free", seq=4, last_job_id="d", open_elsewhere=True, due_ms=6)
    found = timetable(free)
    found.timers.take((9, 9))
    found.forget_elsewhere(5)
    assert found.waiting == {}
    assert found.timers.next_ms() == 6


def test_each_schedule_that_still_stands_is_taken_once() -> None:
    """However often it was armed; what was deleted, or put anew, is not there any more."""
    record, other = schedule("s", due_ms=5), schedule("t", due_ms=5)
    found = timetable(record, record, other)
    former = schedule("t", due_ms=4)
    found.timers.arm_at(former, 4)
    assert found.take((4, 99)) == []
    assert found.take((5, 99)) == [record, other]
    assert found.take(None) == []
    gone = schedule("gone", due_ms=1)
    found.timers.arm_at(gone, 1)
    assert found.take((1, 99)) == []


def test_a_schedule_keeps_its_payload_and_some_more() -> None:
    """That counts as what is kept."""
    small, large = schedule(), schedule()
    large.spec = changed(payload=b"x" * 1_000)
    assert large.footprint - small.footprint == 1_000 - len(small.spec.payload)
    assert small.footprint == 400 + len(small.spec.payload)
