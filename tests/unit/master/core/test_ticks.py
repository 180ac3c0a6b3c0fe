"""Ticks by themselves: which come next, when each fires, and the ids of their jobs."""

from itertools import islice

import pytest

from tenure.master.core.ticks import Ticks, restarted, tick_bits, tick_job_id
from tenure.master.core.timetable import ScheduleCursor, ScheduleRecord
from tenure.protocol.ids import partition_of, time_ms_of
from tests.unit.master.core.planner import EVERY_MS, changed
from tests.unit.master.core.rig import START_MS

FIRST_MS = START_MS + EVERY_MS


def record(next_ms: int = FIRST_MS, **changes: object) -> ScheduleRecord:
    """A schedule with a tick every ten seconds."""
    cursor = ScheduleCursor(next_ms=next_ms, due_ms=next_ms)
    return ScheduleRecord(tenant="default", name="s", spec=changed(**changes), cursor=cursor, seq=1)


def test_ticks_go_on_from_the_cursor() -> None:
    """Each fires at its time; without a next one there is none."""
    expected = [(FIRST_MS + EVERY_MS * number,) * 2 for number in range(3)]
    assert list(islice(Ticks(record()), 3)) == expected
    assert list(Ticks(record(0))) == []


def test_ticks_behind_one_begin_with_the_next() -> None:
    """And those from a time on with the first one that is not over."""
    ticks = Ticks(record())
    assert ticks.behind(FIRST_MS).next_ms == FIRST_MS + EVERY_MS
    for now_ms in (FIRST_MS - 1, FIRST_MS):
        later = ticks.from_now(now_ms).next_ms
        assert later == FIRST_MS + (EVERY_MS if now_ms == FIRST_MS else 0)


@pytest.mark.parametrize(("start_ms", "first"), [(0, 1), (EVERY_MS, 1), (EVERY_MS + 1, 2)])
def test_no_tick_comes_before_the_start(start_ms: int, first: int) -> None:
    """The start may be one itself."""
    ticks = Ticks(record(start_ms=START_MS + start_ms)).from_now(START_MS)
    assert ticks.next_ms == START_MS + first * EVERY_MS


@pytest.mark.parametrize(("end_ms", "count"), [(0, 4), (-1, 0), (EVERY_MS - 1, 1), (EVERY_MS, 2)])
def test_no_tick_comes_after_the_end(end_ms: int, count: int) -> None:
    """The end may be one itself; without an end they go on."""
    ticks = Ticks(record(end_ms=FIRST_MS + end_ms if end_ms else 0)).from_now(START_MS)
    assert len(list(islice(ticks, 4))) == count


def test_a_tick_is_as_late_as_its_bits_say() -> None:
    """By less than the jitter, and than the time to the next one; the last one may use it all."""
    bits = tick_bits("default", "s", FIRST_MS)
    assert Ticks(record(jitter_ms=700)).fires_ms(FIRST_MS) == FIRST_MS + bits % 700
    wide = Ticks(record(jitter_ms=1_000_000))
    assert wide.fires_ms(FIRST_MS) == FIRST_MS + bits % EVERY_MS
    last = Ticks(record(jitter_ms=1_000_000, end_ms=FIRST_MS))
    assert last.fires_ms(FIRST_MS) == FIRST_MS + bits % 1_000_000
    assert Ticks(record(jitter_ms=1)).fires_ms(FIRST_MS) == FIRST_MS
    assert next(iter(wide)) == (FIRST_MS, wide.fires_ms(FIRST_MS))


def test_bits_of_a_tick_never_change() -> None:
    """Else a new release would submit a tick's job a second time: its id comes from them."""
    assert tick_bits("default", "s", 1_700_000_010_000) == 6_916_066_794_403_483_037
    keys = [("default", "s"), ("other", "s"), ("default", "t")]
    assert len({tick_bits(*key, FIRST_MS) for key in keys}) == 3


def test_the_id_of_a_ticks_job_says_where_and_when() -> None:
    """Its partition, and when the tick fires; another tick has another one."""
    job_id = tick_job_id(7, ("default", "s"), FIRST_MS, FIRST_MS + 300)
    assert (partition_of(job_id), time_ms_of(job_id)) == (7, FIRST_MS + 300)
    assert job_id != tick_job_id(7, ("default", "s"), FIRST_MS + 1, FIRST_MS + 300)
    assert job_id == tick_job_id(7, ("default", "s"), FIRST_MS, FIRST_MS + 300)


def test_a_cursor_stands_before_its_first_tick() -> None:
    """It keeps what else it knows; without a tick nothing is due."""
    before = ScheduleCursor(next_ms=1, due_ms=2, fired=3, skipped=4)
    ticks = Ticks(record(jitter_ms=700))
    assert ticks.cursor(before, skipped=9) == ScheduleCursor(
        next_ms=FIRST_MS, due_ms=ticks.fires_ms(FIRST_MS), fired=3, skipped=9
    )
    assert Ticks(record(0)).cursor(before) == ScheduleCursor(fired=3, skipped=4)


@pytest.mark.parametrize("buffered_ms", [0, FIRST_MS])
def test_a_schedule_that_begins_anew_waits_for_the_next_tick(buffered_ms: int) -> None:
    """One that waited for the job before it is left out, and counted."""
    before = ScheduleCursor(
        next_ms=FIRST_MS, due_ms=FIRST_MS, buffered_ms=buffered_ms, fired=2, skipped=5
    )
    now_ms = FIRST_MS + 3 * EVERY_MS
    next_ms = now_ms + EVERY_MS
    assert restarted("default", "s", changed(), before, now_ms) == ScheduleCursor(
        next_ms=next_ms, due_ms=next_ms, fired=2, skipped=5 + bool(buffered_ms)
    )
    jittered = restarted("default", "s", changed(jitter_ms=900), before, now_ms)
    assert jittered.due_ms == next_ms + tick_bits("default", "s", next_ms) % 900
