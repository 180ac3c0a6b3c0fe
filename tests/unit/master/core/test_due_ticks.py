"""Due ticks: how late one may be, how much one decision looks at, and what it says of it."""

from dataclasses import replace

import pytest

from tenure.master.core import due_ticks
from tenure.master.core.calendar import BadCalendar, Calendar, calendar
from tenure.master.core.command import FireTimers, Intake, PurgeJobs
from tenure.master.core.effect import Deliver, NotifySettled
from tenure.master.core.errand import target_of
from tenure.master.core.event import (
    CancelsRequested,
    JobsCancelled,
    JobsSubmitted,
    OutboxAppended,
    SchedulesTicked,
)
from tenure.master.core.outbox import Outbox
from tenure.master.core.record import Policy
from tenure.protocol.limits import MISFIRE_MS
from tenure.protocol.vocabulary import FailureReason, JobState, Misfire, Overlap
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.planner import (
    EVERY_MS,
    changed,
    end,
    job_id_of,
    jobs,
    put,
    schedule,
)
from tests.unit.master.core.rig import CONFIG, START_MS, Rig, of_type
from tests.unit.master.core.test_errand import Pair

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


def test_one_look_leaves_out_no_tick_that_is_just_in_time() -> None:
    """One that is as late as may be is judged for itself."""
    rig = Rig()
    put(rig, changed(misfire=Misfire.FIRE_ALL, catch_up_ms=20_000))
    rig.now_ms = FIRST_MS + 30_000
    rig.fire()
    cursor = schedule(rig).cursor
    assert (cursor.fired, cursor.skipped, cursor.next_ms) == (0, 1, FIRST_MS + EVERY_MS)


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
        # Of the last one that it looks at it does not know whether that is the newest.
        assert (after.next_ms - before.next_ms) // EVERY_MS < looks_max
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


@pytest.mark.parametrize("late_ms", [5_999, 6_000])
@pytest.mark.parametrize("misfire", [Misfire.SKIP, Misfire.FIRE_ONCE])
def test_one_look_leaves_out_all_that_were_missed(misfire: Misfire, late_ms: int) -> None:
    """And none that is late by less; of those that are to fire once the newest one is kept."""
    rig = Rig()
    put(rig, changed(cron="* * * * * *", misfire=misfire, overlap=Overlap.ALLOW))
    rig.now_ms = START_MS + 1_000 + late_ms
    rig.fire()
    missed = 1 + (late_ms - MISFIRE_MS) // 1_000
    left_out = missed - (misfire is Misfire.FIRE_ONCE)
    cursor = schedule(rig).cursor
    assert cursor.skipped == left_out
    fires_at_once = int(misfire is Misfire.FIRE_ONCE and not left_out)
    assert (cursor.fired, cursor.next_ms) == (
        fires_at_once,
        START_MS + 1_000 + 1_000 * (left_out + fires_at_once),
    )


def test_a_decision_fires_so_many_bytes_of_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that begins below the bound is done; the others are looked at in the next one."""
    rig = Rig()
    for name in "abcd":
        put(rig, name=name)
    monkeypatch.setattr(due_ticks, "BYTES_MAX", schedule(rig, "a").footprint)
    rig.now_ms = FIRST_MS
    for fired_by_now in (2, 4):
        rig.fire()
        assert len(jobs(rig)) == fired_by_now
        rig.now_ms += 1


def test_a_decision_looks_at_so_many_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all schedules together; one that cannot be looked at to its end has its turn later."""
    monkeypatch.setattr(due_ticks, "_LOOKS_MAX", 3)
    rig = Rig()
    for name in "abcde":
        put(rig, name=name)
    rig.now_ms = FIRST_MS
    for fired_by_now in (3, 5):
        rig.fire()
        assert len(jobs(rig)) == fired_by_now
        rig.now_ms += 1
    rig = Rig()
    put(rig, name="first")
    put(rig, changed(misfire=Misfire.FIRE_ONCE), name="second")
    rig.now_ms = FIRST_MS
    rig.fire()
    put(rig, changed(misfire=Misfire.FIRE_ALL, overlap=Overlap.ALLOW), name="first")
    rig.now_ms = FIRST_MS + 10 * EVERY_MS
    before = schedule(rig, "second").cursor
    rig.fire()
    # One look for the first, and two are not enough to find the newest that was missed.
    assert schedule(rig, "first").cursor.fired == 2
    assert schedule(rig, "second").cursor == before
    settle(rig)
    cursor = schedule(rig, "second").cursor
    assert cursor.last_ms in (before.last_ms, FIRST_MS + 9 * EVERY_MS, FIRST_MS + 10 * EVERY_MS)


def test_who_cannot_fire_is_tried_again_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever held it up: a zone that is not known, or a store that is full."""

    def known(cron: str, time_zone: str) -> Calendar:
        if time_zone != "UTC":
            raise BadCalendar("time_zone", f"there is no time zone {time_zone}")
        return calendar(cron, time_zone)

    for kinds in (("UTC",), ("Europe/Berlin",), ("Europe/Berlin", "UTC")):
        rig = Rig()
        for zone in kinds:
            put(rig, changed(time_zone=zone), name=zone)
        rig.now_ms = FIRST_MS
        with monkeypatch.context() as older:
            older.setattr("tenure.master.core.ticks.calendar", known)
            rig.do(FireTimers(rows_max=9, jitter=[0.5], intake=Intake.CLOSED))
        assert not jobs(rig)
        assert rig.partition.next_timer_ms() == rig.now_ms + 1_000


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.BUFFER_ONE])
def test_ticks_that_find_the_job_before_open_are_counted(overlap: Overlap) -> None:
    """Each of them but one that waits for its end."""
    rig = Rig()
    put(rig, changed(overlap=overlap))
    rig.pass_time(4 * EVERY_MS)
    waits = overlap is Overlap.BUFFER_ONE
    cursor = schedule(rig).cursor
    assert (cursor.fired, cursor.skipped, bool(cursor.buffered_ms)) == (1, 3 - waits, waits)
    end(rig, cursor.last_job_id)
    settle(rig)
    rig.pass_time(EVERY_MS)
    assert schedule(rig).cursor.fired == 2


def test_a_tick_whose_job_was_purged_has_fired() -> None:
    """Its cursor was lost with a master, and only the tombstone tells."""
    rig = Rig()
    put(rig)
    rig.pass_time(EVERY_MS)
    job_id = jobs(rig)[0].job_id
    before = rig.journal.pop()
    rig.crash(window_ms=0)
    assert schedule(rig).cursor.fired == 0
    assert before
    end(rig, job_id)
    rig.do(PurgeJobs(job_ids=[job_id]))
    rig.fire()
    assert not jobs(rig)
    assert schedule(rig).cursor.fired == 1


def test_a_ticks_job_is_as_its_schedule_says() -> None:
    """With its keys, its priority and its payload, due at once; it has no key of its own."""
    rig = Rig()
    put(rig, changed(limit_key="acme", sticky_key="model", priority=2))
    rig.pass_time(EVERY_MS)
    (job,) = jobs(rig)
    assert (job.limit_key, job.sticky_key, job.key) == ("acme", "model", "")
    assert (job.priority, job.payload, job.ready_ms) == (2, b"call", rig.now_ms)


# Several schedules in one decision.


def test_what_one_schedule_does_leaves_what_another_has_done() -> None:
    """One fires here, one elsewhere, and one stops a job that waits."""
    pair = Pair()
    rig = pair.home
    policies = (Policy(name="job", queue=f"h{number}") for number in range(99))
    here = next(p for p in policies if target_of(state_of(rig.partition), changed(policy=p)) == 0)
    away = Policy(name="job", queue=pair.queue)
    put(rig, changed(policy=away, overlap=Overlap.ALLOW), name="away")
    put(rig, changed(policy=here, overlap=Overlap.ALLOW), name="here")
    put(rig, changed(policy=here, overlap=Overlap.CANCEL_OTHER), name="stops")
    rig.now_ms = FIRST_MS
    rig.fire()
    stopped = schedule(rig, "stops").cursor.last_job_id
    rig.now_ms = FIRST_MS + EVERY_MS
    decision = rig.fire()
    (submitted,) = of_type(decision.events, JobsSubmitted)
    (cancelled,) = of_type(decision.events, JobsCancelled)
    (appended,) = of_type(decision.events, OutboxAppended)
    assert (len(submitted.rows), cancelled.job_ids, len(appended.messages)) == (1, [stopped], 1)
    (told,) = of_type(decision.effects, NotifySettled)
    assert [record.job_id for record in told.records] == [stopped]
    assert len(of_type(decision.effects, Deliver)) == 1
    (ticked,) = of_type(decision.events, SchedulesTicked)
    assert {row.name for row in ticked.rows} == {"away", "here", "stops"}


@pytest.mark.parametrize(("room", "asked"), [(3, 0), (4, 1), (7, 1), (8, 2), (11, 2), (12, 3)])
def test_who_asks_jobs_elsewhere_to_stop_needs_room(
    monkeypatch: pytest.MonkeyPatch, room: int, asked: int
) -> None:
    """As much as a tick that fires; who has none asks in a second."""
    pair = Pair()
    rig = pair.home
    spec = changed(
        policy=Policy(name="job", queue=pair.queue), overlap=Overlap.CANCEL_OTHER, catch_up_ms=5_000
    )
    for name in "abc":
        put(rig, spec, name=name)
    rig.pass_time(EVERY_MS)
    rig.now_ms += EVERY_MS
    rooms = {0: 0, 1: room}
    with monkeypatch.context() as small:
        small.setattr(Outbox, "room", lambda outbox, target: rooms[target])
        decision = rig.fire()
    messages = [
        each for event in of_type(decision.events, OutboxAppended) for each in event.messages
    ]
    assert len(messages) == asked
    assert sum(bool(schedule(rig, name).cursor.buffered_ms) for name in "abc") == asked
    assert rig.partition.next_timer_ms() == rig.now_ms + (EVERY_MS if asked == 3 else 1_000)
