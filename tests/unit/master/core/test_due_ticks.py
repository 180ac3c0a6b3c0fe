"""Due ticks: how late one may be, how much one decision looks at, and what it says of it."""

from dataclasses import replace

import pytest

from tenure.master.core import due_ticks
from tenure.master.core.command import FireTimers, Intake
from tenure.master.core.event import CancelsRequested, JobsCancelled, JobsSubmitted, SchedulesTicked
from tenure.master.core.record import Policy
from tenure.protocol.limits import MISFIRE_MS
from tenure.protocol.vocabulary import FailureReason, JobState, Misfire, Overlap
from tests.unit.master.core.planner import (
    EVERY_MS,
    changed,
    job_id_of,
    jobs,
    put,
    schedule,
)
from tests.unit.master.core.rig import CONFIG, START_MS, Rig, of_type

FIRST_MS = START_MS + EVERY_MS


def settle(rig: Rig) -> None:
    """Does all that is due now; a schedule is looked at again a millisecond later."""
    rig.pass_time(50)


def fired(rig: Rig) -> list[int]:
    """The ticks whose jobs are there."""
    ids = {job_id_of(FIRST_MS + EVERY_MS * number): number + 1 for number in range(99)}
    return [ids[job.job_id] for job in jobs(rig)]


@pytest.mark.parametrize("misfire", Misfire)
@pytest.mark.parametrize(
    ("late_ms", "in_time"), [(0, True), (MISFIRE_MS - 1, True), (MISFIRE_MS, False)]
)
def test_a_tick_that_is_late_is_missed(misfire: Misfire, late_ms: int, in_time: bool) -> None:
    """From five seconds on; what becomes of it then is its schedule's business."""
    rig = Rig()
    put(rig, changed(misfire=misfire))
    rig.now_ms = FIRST_MS + late_ms
    settle(rig)
    fires = in_time or misfire is not Misfire.SKIP
    assert fired(rig) == ([1] if fires else [])
    cursor = schedule(rig).cursor
    assert (cursor.fired, cursor.skipped) == (int(fires), int(not fires))
    assert cursor.next_ms == cursor.due_ms == FIRST_MS + EVERY_MS


@pytest.mark.parametrize("misfire", Misfire)
@pytest.mark.parametrize("late_ms", [20_000, 20_001])
def test_a_tick_that_is_too_late_is_left_out(misfire: Misfire, late_ms: int) -> None:
    """It is not when it is as late as may be; of those behind it each is judged for itself."""
    rig = Rig()
    put(rig, changed(misfire=misfire, catch_up_ms=20_000, overlap=Overlap.ALLOW))
    rig.now_ms = FIRST_MS + late_ms
    settle(rig)
    caught_up = [1, 2, 3] if late_ms == 20_000 else [2, 3]
    expected = {Misfire.FIRE_ALL: caught_up, Misfire.FIRE_ONCE: [2, 3], Misfire.SKIP: [3]}[misfire]
    assert fired(rig) == expected
    cursor = schedule(rig).cursor
    assert (cursor.fired, cursor.skipped) == (len(expected), 3 - len(expected))


@pytest.mark.parametrize("looks_max", [3, 4, 7])
@pytest.mark.parametrize("misfire", Misfire)
def test_ticks_are_left_out_some_at_a_time(
    monkeypatch: pytest.MonkeyPatch, misfire: Misfire, looks_max: int
) -> None:
    """However many one decision looks at, it comes to the same; and it looks at no more."""
    monkeypatch.setattr(due_ticks, "_LOOKS_MAX", looks_max)
    rig = Rig()
    put(rig, changed(misfire=misfire, catch_up_ms=100_000, overlap=Overlap.ALLOW))
    rig.now_ms = FIRST_MS + 195_000
    while (due_ms := rig.partition.next_timer_ms()) is not None and due_ms <= rig.now_ms + 1:
        rig.now_ms = max(rig.now_ms, due_ms)
        before = schedule(rig).cursor
        rig.fire()
        after = schedule(rig).cursor
        assert (after.next_ms - before.next_ms) // EVERY_MS <= looks_max
    newest = list(range(11, 21))
    expected = {Misfire.FIRE_ALL: newest, Misfire.FIRE_ONCE: [20], Misfire.SKIP: []}[misfire]
    assert fired(rig) == expected
    cursor = schedule(rig).cursor
    assert (cursor.fired, cursor.skipped) == (len(expected), 20 - len(expected))


def test_a_schedule_that_ends_is_looked_at_to_its_last_tick() -> None:
    """All that are too late are left out, the last one too; then nothing is due."""
    rig = Rig()
    put(rig, changed(misfire=Misfire.SKIP, end_ms=FIRST_MS + 2 * EVERY_MS))
    rig.now_ms = FIRST_MS + 60_000
    settle(rig)
    cursor = schedule(rig).cursor
    assert (cursor.next_ms, cursor.due_ms, cursor.fired, cursor.skipped) == (0, 0, 0, 3)


@pytest.mark.parametrize(("rows_max", "at_once"), [(1, 1), (2, 2), (9, 3)])
def test_so_many_schedules_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, rows_max: int, at_once: int
) -> None:
    """As many as the command says, or as take some milliseconds; in the order of their times."""
    monkeypatch.setattr(due_ticks, "_SCHEDULES_MAX", 3)
    rig = Rig()
    for name in "edcba":
        put(rig, name=name)
    rig.now_ms = FIRST_MS
    decision = rig.fire(rows_max=rows_max)
    (ticked,) = of_type(decision.events, SchedulesTicked)
    assert [row.name for row in ticked.rows] == list("edcba")[:at_once]
    assert ticked.now_ms == rig.now_ms
    (submitted,) = of_type(decision.events, JobsSubmitted)
    assert len(submitted.rows) == at_once
    settle(rig)
    assert len(jobs(rig)) == 5


def test_a_schedule_that_was_armed_twice_fires_once() -> None:
    """Changed before its tick, it waits for the same one twice."""
    rig = Rig()
    put(rig)
    put(rig, changed(note="changed", overlap=Overlap.ALLOW))
    rig.now_ms = FIRST_MS + EVERY_MS - 100
    rig.fire()
    assert fired(rig) == [1]
    settle(rig)
    assert fired(rig) == [1]


def test_a_tick_that_waits_for_a_job_of_the_same_decision_is_looked_at_later() -> None:
    """The job expires now: what that means for the tick is known in the next decision."""
    rig = Rig(replace(CONFIG, lease_ttl_ms=1 << 40))
    policy = Policy(name="job", schedule_timeout_ms=EVERY_MS)
    put(rig, changed(policy=policy, overlap=Overlap.SKIP))
    rig.pass_time(EVERY_MS)
    rig.now_ms += EVERY_MS
    decision = rig.fire()
    assert not of_type(decision.events, SchedulesTicked)
    assert jobs(rig)[0].failure_reason is FailureReason.EXPIRED
    settle(rig)
    cursor = schedule(rig).cursor
    assert (cursor.fired, cursor.skipped) == (2, 0)


def test_a_buffered_tick_fires_by_its_own_time() -> None:
    """When the job before it has ended, with the id that it would have had at its time."""
    rig = Rig(replace(CONFIG, lease_ttl_ms=1 << 40))
    put(rig, changed(overlap=Overlap.BUFFER_ONE, jitter_ms=3_000))
    rig.pass_time(2 * EVERY_MS + 3_000)
    before = schedule(rig).cursor
    assert (before.fired, before.buffered_ms) == (1, FIRST_MS + EVERY_MS)
    rig.open_session(1)
    row = rig.grant_one()
    rig.report(row)
    assert rig.partition.next_timer_ms() == rig.now_ms
    rig.fire()
    cursor = schedule(rig).cursor
    assert (cursor.fired, cursor.skipped, cursor.buffered_ms) == (2, 0, 0)
    assert (cursor.next_ms, cursor.due_ms) == (before.next_ms, before.due_ms)
    assert cursor.last_ms == FIRST_MS + EVERY_MS
    due_ms = put(Rig(), changed(jitter_ms=3_000, start_ms=FIRST_MS + EVERY_MS)).cursor.due_ms
    assert cursor.last_job_id == job_id_of(FIRST_MS + EVERY_MS, due_ms=due_ms)


def test_a_running_job_gives_way_once_and_is_told_why() -> None:
    """Its worker is asked when the next tick comes; one that is queued is cancelled at once."""
    rig = Rig(replace(CONFIG, lease_ttl_ms=1 << 40))
    put(rig, changed(overlap=Overlap.CANCEL_OTHER))
    reason = "the next tick of its schedule waits for its end"
    rig.pass_time(EVERY_MS)
    rig.open_session(1)
    row = rig.grant_one()
    rig.now_ms += EVERY_MS
    (asked,) = of_type(rig.fire().events, CancelsRequested)
    assert (asked.now_ms, asked.job_ids, asked.reason) == (rig.now_ms, [row.job_id], reason)
    rig.report(row)
    settle(rig)
    assert [job.state for job in jobs(rig)] == [JobState.COMPLETED, JobState.PENDING]
    rig.now_ms += EVERY_MS
    (gone,) = of_type(rig.fire().events, JobsCancelled)
    assert (gone.now_ms, gone.job_ids, gone.reason) == (rig.now_ms, [jobs(rig)[1].job_id], reason)


@pytest.mark.parametrize(
    ("intake", "fires"), [(Intake.OPEN, "ab"), (Intake.NO_BULK, "a"), (Intake.CLOSED, "")]
)
def test_a_full_store_takes_no_ticks(intake: Intake, fires: str) -> None:
    """By the rules of submits; who has no place is tried again in a second."""
    rig = Rig()
    put(rig, changed(priority=5), name="a")
    put(rig, changed(priority=6), name="b")
    rig.now_ms = FIRST_MS
    rig.do(FireTimers(rows_max=9, jitter=[0.5], intake=intake))
    assert "".join(name for name in "ab" if schedule(rig, name).cursor.fired) == fires
    again_ms = FIRST_MS + (EVERY_MS if fires == "ab" else 1_000)
    assert rig.partition.next_timer_ms() == again_ms


def test_a_full_partition_takes_no_ticks() -> None:
    """By the bytes that the command lets it keep."""
    rig = Rig()
    put(rig)
    rig.now_ms = FIRST_MS
    rig.do(FireTimers(rows_max=9, jitter=[0.5], bytes_max=1))
    assert schedule(rig).cursor.fired == 0
    rig.now_ms += 1_000
    rig.do(FireTimers(rows_max=9, jitter=[0.5], bytes_max=1 << 30))
    assert schedule(rig).cursor.fired == 1
