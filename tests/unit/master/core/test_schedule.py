"""Schedules: one job for each tick, by the policies, whatever happens in between."""

import gc
import time
from dataclasses import replace
from datetime import UTC, datetime
from itertools import takewhile
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core.calendar import BadCalendar, Calendar
from tenure.master.core.command import (
    DeleteSchedule,
    FireTimers,
    Intake,
    LeaseRow,
    PauseSchedule,
    PurgeJobs,
    PutSchedule,
    SubmitRow,
    TriggerSchedule,
)
from tenure.master.core.config import PartitionConfig, Retention
from tenure.master.core.effect import SendCancels, SubmitReply
from tenure.master.core.record import Policy
from tenure.master.core.schedule import upcoming
from tenure.protocol.ids import partition_of, time_ms_of
from tenure.protocol.limits import DAY_MS
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import AttemptOutcome, JobState, Misfire, Overlap
from tests.unit.master.core.audit import audit
from tests.unit.master.core.planner import (
    EVERY_MS,
    HOUR_MS,
    SPEC,
    STEPS,
    Model,
    agree,
    changed,
    end,
    job_id_of,
    jobs,
    pause,
    put,
    schedule,
)
from tests.unit.master.core.rig import CONFIG, START_MS, Rig, of_type
from tests.unit.master.core.sundial import FIRST, LAST, ZONES, Oracle, ms_of, stretches


@given(
    misfire=st.sampled_from(Misfire),
    overlap=st.sampled_from(Overlap),
    catch_up_ms=st.sampled_from([5_000, 25_000, 200_000]),
    steps=st.lists(STEPS, min_size=4, max_size=14),
)
def test_policies_are_those_of_the_model(
    misfire: Misfire, overlap: Overlap, catch_up_ms: int, steps: list[tuple[str, int]]
) -> None:
    """S13: whatever runs, dies, ends, pauses: the ticks that fire are those of the model.

    Each has one job; a replay of the journal comes to the same, and a snapshot too.
    """
    rig = Rig(replace(CONFIG, lease_ttl_ms=1 << 40))
    spec = changed(misfire=misfire, overlap=overlap, catch_up_ms=catch_up_ms)
    put(rig, spec)
    model = Model(misfire, overlap, catch_up_ms, cursor_ms=rig.now_ms)
    triggered = sessions = 0
    runs: dict[str, LeaseRow] = {}
    for step, count in steps:
        match step:
            case "start" if model.open and not model.runs:
                sessions += 1
                rig.open_session(sessions, slots=1_000)
                runs |= {row.job_id: row for row in rig.grant(sessions, 1_000)}
                rig.accept(sessions, 1_000_000)
                model.runs = schedule(rig).cursor.last_job_id in runs
            case "run":
                for _ in range(count):
                    rig.pass_time(EVERY_MS // 2 - rig.now_ms % (EVERY_MS // 2))
                    rig.pass_time(200)
                    model.look(rig.now_ms)
            case "down":
                rig.now_ms += count * EVERY_MS - rig.now_ms % EVERY_MS + 2_500
                rig.crash(window_ms=0)
                rig.pass_time(200)
                model.look(rig.now_ms - 200)
            case "end" if model.open:
                if model.runs:
                    sessions += 1
                    rig.open_session(sessions)
                    rig.report(runs[schedule(rig).cursor.last_job_id], session_id=sessions)
                else:
                    end(rig, schedule(rig).cursor.last_job_id)
                model.ends()
                rig.pass_time(5)
            case "pause" | "resume":
                pause(rig, paused=step == "pause")
                model.pauses(rig.now_ms, paused=step == "pause")
            case "trigger":
                rig.do(TriggerSchedule(tenant="default", name="s", job_id=rig.mint()))
                triggered += 1
            case "put":
                put(rig, spec, paused=model.paused)
    record = schedule(rig)
    assert (record.cursor.fired, record.cursor.skipped) == (len(model.fired), model.skipped)
    assert record.cursor.buffered_ms == model.buffered
    ids = [job_id_of(tick) for tick in model.fired]
    assert len(set(ids)) == len(ids)
    known = {job.job_id: job for job in jobs(rig)}
    assert len(known) == len(ids) + triggered
    assert [job_id for job_id in known if job_id in set(ids)] == ids
    if overlap is not Overlap.ALLOW:
        assert sum(known[job_id].state is JobState.PENDING for job_id in ids) <= 1
    agree(rig)


CHANGES_MS: Final = {
    zone: [ms_of(stretch.end) for stretch in stretches(zone) if FIRST <= stretch.end < LAST]
    for zone in ZONES
}


@given(
    zone=st.sampled_from(ZONES),
    cron=st.sampled_from(
        ["30 2 * * *", "0,30 1-3 * * *", "*/20 * * * *", "0 0 * * *", "15 */2 * * *"]
    ),
    change=st.integers(0, 40),
    misfire=st.sampled_from(Misfire),
    overlap=st.sampled_from(Overlap),
    catch_up_ms=st.sampled_from([HOUR_MS, 5 * HOUR_MS, 3 * DAY_MS]),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["run", "down", "down", "end"]),
            st.integers(1, 14),
            st.sampled_from([2_500, 30_000]),
        ),
        min_size=3,
        max_size=6,
    ),
)
def test_policies_hold_when_clocks_change(
    zone: str,
    cron: str,
    change: int,
    misfire: Misfire,
    overlap: Overlap,
    catch_up_ms: int,
    steps: list[tuple[str, int, int]],
) -> None:
    """S13: also when hours are skipped or doubled while somebody leads, or while nobody does.

    What the policies are held against are the ticks that the calendar's oracle finds.
    """
    keep = Retention(completed_ms=1 << 40)
    rig = Rig(PartitionConfig(partition=0, partitions=1, retention=keep), audited=False)
    changes_ms = CHANGES_MS[zone]
    rig.now_ms = changes_ms[change % len(changes_ms)] - 10 * HOUR_MS + 7_000
    begin, end_ms = datetime.fromtimestamp(rig.now_ms / 1_000, UTC), rig.now_ms + 5 * DAY_MS
    every = list(takewhile(lambda ms: ms < end_ms, map(ms_of, Oracle(cron, zone).ticks(begin))))
    model = Model(
        misfire,
        overlap,
        catch_up_ms,
        cursor_ms=rig.now_ms,
        ticks=lambda after_ms, until_ms: [ms for ms in every if after_ms < ms <= until_ms],
    )
    put(
        rig,
        changed(
            cron=cron, time_zone=zone, misfire=misfire, overlap=overlap, catch_up_ms=catch_up_ms
        ),
    )
    for step, hours, late_ms in steps:
        if step == "end" and model.open:
            end(rig, schedule(rig).cursor.last_job_id)
            model.ends()
            rig.pass_time(5)
        elif step == "run":
            for tick_ms in model.ticks(rig.now_ms, rig.now_ms + hours * HOUR_MS):
                model.look(tick_ms)
            rig.pass_time(hours * HOUR_MS)
        elif step == "down":
            rig.now_ms += hours * HOUR_MS - rig.now_ms % 60_000 + late_ms
            rig.crash(window_ms=0)
            model.look(rig.now_ms)
            rig.pass_time(1_500)
    cursor = schedule(rig).cursor
    assert (cursor.fired, cursor.skipped) == (len(model.fired), model.skipped)
    assert cursor.buffered_ms == model.buffered
    assert [job.job_id for job in jobs(rig)] == [job_id_of(tick_ms) for tick_ms in model.fired]


# One thing each.


def test_a_tick_is_a_job() -> None:
    """A tick submits the schedule's job: its options, its payload, and an id that is the tick's."""
    rig = Rig()
    policy = Policy(name="report", queue="night", timeout_ms=5_000)
    put(rig, changed(policy=policy, priority=2))
    rig.pass_time(EVERY_MS - 1)
    assert not jobs(rig)
    rig.pass_time(1)
    (job,) = jobs(rig)
    assert (job.policy, job.priority, job.payload) == (policy, 2, b"call")
    assert job.job_id == job_id_of(START_MS + EVERY_MS)
    assert (time_ms_of(job.job_id), partition_of(job.job_id)) == (START_MS + EVERY_MS, 0)
    assert (job.state, job.submitted_ms) == (JobState.PENDING, START_MS + EVERY_MS)
    cursor = schedule(rig).cursor
    assert (cursor.last_ms, cursor.last_job_id) == (START_MS + EVERY_MS, job.job_id)
    assert cursor.next_ms == START_MS + 2 * EVERY_MS


def test_a_lost_cursor_does_not_fire_twice() -> None:
    """If a master dies between a tick's job and its cursor, the job is found, not submitted anew.

    Even when the misfire policy would leave the tick out by then: it has fired, and that counts.
    """
    rig = Rig()
    put(rig, changed(misfire=Misfire.SKIP))
    rig.pass_time(EVERY_MS)
    assert len(jobs(rig)) == 1
    rig.crash(lose=1, window_ms=0)
    assert schedule(rig).cursor.fired == 0
    rig.now_ms += EVERY_MS - 1
    rig.pass_time(0)
    assert len(jobs(rig)) == 1
    cursor = schedule(rig).cursor
    assert (cursor.fired, cursor.skipped, cursor.last_ms) == (1, 0, START_MS + EVERY_MS)
    agree(rig)


def test_old_ticks_are_not_too_old() -> None:
    """A tick that fires late has an id older than any submit may bring, and is taken."""
    rig = Rig()
    put(rig, changed(misfire=Misfire.FIRE_ONCE))
    rig.now_ms += 50 * 60_000
    rig.crash(window_ms=0)
    rig.pass_time(50)
    (job,) = jobs(rig)
    assert rig.now_ms - time_ms_of(job.job_id) < 2 * EVERY_MS
    other = Rig()
    put(other, changed(cron="0 0 * * * *"))
    other.now_ms = START_MS - START_MS % HOUR_MS + HOUR_MS + 40 * 60_000
    other.crash(window_ms=0)
    other.pass_time(1)
    (job,) = jobs(other)
    assert time_ms_of(job.job_id) == other.now_ms - 40 * 60_000 - 1
    too_old = SubmitRow(other.mint(at_ms=other.now_ms - 40 * 60_000), 0, b"", "")
    reply = other.submit_rows([too_old])
    assert reply.refusals[0][1].reason is Reason.REQUEST_TOO_OLD


def test_nothing_fires_in_the_window() -> None:
    """While leases are re-declared no tick fires; then they do, and are not missed."""
    rig = Rig()
    put(rig, changed(misfire=Misfire.SKIP))
    rig.now_ms += EVERY_MS - 1_000
    rig.crash(window_ms=3_000)
    rig.now_ms += 3_000
    assert rig.partition.next_timer_ms() is None
    rig.close_window()
    rig.pass_time(0)
    assert schedule(rig).cursor.fired == 1


@pytest.mark.parametrize("misfire", Misfire)
def test_a_long_downtime_is_caught_up_with_in_slices(misfire: Misfire) -> None:
    """Minutes of missed seconds is decided on in many short decisions, each journaled."""
    rig = Rig()
    put(rig, changed(cron="* * * * * *", misfire=misfire, overlap=Overlap.ALLOW))
    rig.now_ms += 300_000
    rig.crash(window_ms=0)
    looks = 0
    while (rig.partition.next_timer_ms() or rig.now_ms + 1) <= rig.now_ms + 1:
        rig.now_ms += 1
        events = len(rig.fire().events)
        looks += 1
        assert events <= 3
    late = {Misfire.SKIP: 5, Misfire.FIRE_ONCE: 6, Misfire.FIRE_ALL: 300}[misfire]
    cursor = schedule(rig).cursor
    assert cursor.fired + cursor.skipped == rig.now_ms // 1_000 - START_MS // 1_000
    assert late <= cursor.fired <= late + 1
    assert looks >= 300 // 64


def test_ten_thousand_schedules_at_once_are_sliced() -> None:
    """Ten thousand schedules due at one moment never hold the loop: a decision takes a few."""
    rig = Rig()
    for index in range(10_000):
        command = PutSchedule(tenant="default", name=f"s{index}", spec=SPEC)
        for event in rig.decide(command).events:
            rig.partition.apply(event)
    rig.now_ms += EVERY_MS
    longest_s, looks = 0.0, 0
    # Else the collector looks at all that other tests have left behind.
    gc.collect()
    gc.freeze()
    while (rig.partition.next_timer_ms() or rig.now_ms + 1) <= rig.now_ms:
        began = time.thread_time()
        decision = rig.decide(FireTimers(rows_max=512, jitter=[0.5]))
        for event in decision.events:
            rig.partition.apply(event)
        longest_s = max(longest_s, time.thread_time() - began)
        looks += 1
    gc.unfreeze()
    assert len(jobs(rig)) == 10_000
    assert all(job.submitted_ms == rig.now_ms for job in jobs(rig))
    assert looks >= 10_000 // 32
    # Ten milliseconds is what is asked for; a busy machine's caches must not fail a build.
    assert longest_s < 0.1
    audit(rig.partition)


def test_jitter_is_the_same_each_time_and_keeps_the_order() -> None:
    """A tick fires up to the jitter later, but before the next one, and always by the same."""
    rig = Rig()
    put(rig, changed(jitter_ms=HOUR_MS, overlap=Overlap.ALLOW))
    told = upcoming(schedule(rig), 20)
    rig.pass_time(20 * EVERY_MS - 1)
    rig.crash(window_ms=0)
    rig.pass_time(EVERY_MS)
    fired = [job.submitted_ms for job in jobs(rig)][:20]
    assert fired == told
    late = [due - START_MS - EVERY_MS * index for index, due in enumerate(told, 1)]
    assert all(0 <= each < EVERY_MS for each in late)
    assert len(set(late)) > 15
    other = Rig()
    put(other, changed(jitter_ms=HOUR_MS), name="t")
    assert upcoming(schedule(other, "t"), 20) != told
    small = Rig()
    put(small, changed(jitter_ms=500))
    assert all(0 <= due % EVERY_MS < 500 for due in upcoming(schedule(small), 50))


def test_cancel_other_cancels_a_queued_job_and_fires() -> None:
    """At once: nothing runs that would have to end first."""
    rig = Rig()
    put(rig, changed(overlap=Overlap.CANCEL_OTHER))
    rig.pass_time(2 * EVERY_MS + 1)
    assert [job.state for job in jobs(rig)] == [JobState.CANCELLED, JobState.PENDING]
    cursor = schedule(rig).cursor
    assert (cursor.fired, cursor.skipped, cursor.buffered_ms) == (2, 0, 0)


def test_cancel_other_asks_a_running_job_to_stop() -> None:
    """The newest tick fires when that has happened, whoever leads by then."""
    rig = Rig(replace(CONFIG, lease_ttl_ms=1 << 40))
    put(rig, changed(overlap=Overlap.CANCEL_OTHER))
    rig.pass_time(EVERY_MS)
    rig.open_session(1)
    row = rig.grant_one()
    rig.accept(1, 1)
    rig.start(row)
    effects = rig.pass_time(EVERY_MS)
    (asked,) = of_type(effects, SendCancels)
    assert asked.rows == [(row.job_id, row.lease)]
    assert [job.state for job in jobs(rig)] == [JobState.RUNNING]
    rig.pass_time(EVERY_MS)
    cursor = schedule(rig).cursor
    assert (cursor.fired, cursor.skipped) == (1, 1)
    assert cursor.buffered_ms == START_MS + 3 * EVERY_MS
    rig.crash(window_ms=0)
    rig.open_session(2)
    rig.report(row, AttemptOutcome.CANCELLED, session_id=2)
    rig.pass_time(1)
    assert [job.state for job in jobs(rig)] == [JobState.CANCELLED, JobState.PENDING]
    assert jobs(rig)[1].job_id == job_id_of(START_MS + 3 * EVERY_MS)


def test_start_and_end() -> None:
    """No tick comes before the start or after the end; both may be ticks themselves."""
    rig = Rig()
    put(rig, changed(start_ms=START_MS + 30_000, end_ms=START_MS + 50_000, overlap=Overlap.ALLOW))
    assert upcoming(schedule(rig), 10) == [START_MS + each for each in (30_000, 40_000, 50_000)]
    rig.pass_time(HOUR_MS // 2)
    assert len(jobs(rig)) == 3
    assert schedule(rig).cursor.next_ms == 0
    assert rig.partition.next_timer_ms() is None or schedule(rig).cursor.due_ms == 0


def test_pause_makes_up_for_nothing() -> None:
    """While it is paused nothing fires, and nothing of it is made up for; twice is once."""
    rig = Rig()
    put(rig)
    pause(rig)
    assert not rig.decide(PauseSchedule(tenant="default", name="s", paused=True)).events
    assert upcoming(schedule(rig), 5) == []
    rig.pass_time(95_000)
    pause(rig, paused=False)
    rig.pass_time(1)
    assert not jobs(rig)
    rig.pass_time(EVERY_MS)
    cursor = schedule(rig).cursor
    assert (cursor.fired, cursor.skipped) == (1, 0)


def test_trigger_is_beside_the_ticks() -> None:
    """A trigger submits the job at once, paused or not, and changes no tick."""
    rig = Rig()
    put(rig, paused=True)
    before = schedule(rig).cursor
    job_id = rig.mint()
    reply = rig.do(TriggerSchedule(tenant="default", name="s", job_id=job_id)).reply
    assert isinstance(reply, SubmitReply)
    assert reply.job_ids == [job_id]
    assert rig.record(job_id).payload == b"call"
    assert schedule(rig).cursor == before
    closed = TriggerSchedule(tenant="default", name="s", job_id=rig.mint(), intake=Intake.CLOSED)
    assert rig.refused(closed).reason is Reason.STORE_FULL


def test_a_trigger_that_is_sent_again_submits_nothing_new() -> None:
    """Whatever became of the job, and of the schedule since; another trigger is another job."""
    rig = Rig()
    put(rig, paused=True)
    trigger = TriggerSchedule(tenant="default", name="s", job_id=rig.mint())
    for again in range(4):
        decision = rig.do(trigger)
        assert isinstance(decision.reply, SubmitReply)
        assert decision.reply.job_ids == [trigger.job_id]
        assert bool(decision.events) is (again == 0)
        if again == 1:
            put(rig, changed(payload=b"other"), paused=True)
        elif again == 2:
            end(rig, trigger.job_id)
            rig.do(PurgeJobs(job_ids=[trigger.job_id]))
    assert not jobs(rig)
    rig.do(TriggerSchedule(tenant="default", name="s", job_id=rig.mint()))
    assert len(jobs(rig)) == 1


def test_a_change_is_in_force_from_the_next_tick() -> None:
    """A changed calendar counts from now; a changed job keeps the tick that is due."""
    rig = Rig()
    first = put(rig)
    rig.now_ms += 4_000
    told = put(rig, changed(payload=b"other"))
    assert told.cursor.next_ms == first.cursor.next_ms
    assert (told.created_ms, told.updated_ms) == (START_MS, START_MS + 4_000)
    told = put(rig, changed(cron="*/15 * * * * *"))
    assert told.cursor.next_ms == START_MS + 15_000 - START_MS % 15_000
    rig.pass_time(15_000)
    assert jobs(rig)[0].payload == b"call"
    agree(rig)


def test_delete_and_put_again() -> None:
    """A deleted schedule fires no more, its jobs go on; one of its name begins anew."""
    rig = Rig()
    put(rig)
    rig.pass_time(EVERY_MS)
    rig.do(DeleteSchedule(tenant="default", name="s"))
    assert rig.partition.schedule("default", "s") is None
    rig.pass_time(EVERY_MS)
    assert len(jobs(rig)) == 1
    assert rig.refused(DeleteSchedule(tenant="default", name="s")).reason is Reason.NOT_FOUND
    put(rig)
    assert schedule(rig).cursor.fired == 0
    rig.pass_time(EVERY_MS)
    assert len(jobs(rig)) == 2
    agree(rig)


def test_a_former_self_hides_nothing() -> None:
    """A schedule that was deleted and put anew fires on, whenever its former self was due."""
    rig = Rig()
    put(rig, changed(cron="*/20 * * * * *"))
    rig.do(DeleteSchedule(tenant="default", name="s"))
    put(rig)
    rig.now_ms += 3 * EVERY_MS
    rig.fire()
    rig.pass_time(2 * EVERY_MS)
    assert len(jobs(rig)) == 1
    assert schedule(rig).cursor.next_ms > rig.now_ms


def test_a_full_queue_holds_a_tick() -> None:
    """A tick that finds no room is tried again each second, and is late if that takes long."""
    config = PartitionConfig(partition=0, partitions=1, queue_depth_max=1)
    rig = Rig(config)
    (blocker,) = rig.submit(1)
    put(rig)
    rig.pass_time(EVERY_MS + 2_500)
    assert schedule(rig).cursor.next_ms == START_MS + EVERY_MS
    assert rig.partition.next_timer_ms() == START_MS + EVERY_MS + 3_000
    end(rig, blocker)
    rig.pass_time(500)
    assert schedule(rig).cursor.fired == 1
    assert rig.state(job_id_of(START_MS + EVERY_MS)) is JobState.PENDING


def test_a_master_that_does_not_know_a_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader with older zones keeps the schedule and its tick; the next one that knows fires."""
    rig = Rig()
    put(rig)

    def unknown(cron: str, time_zone: str) -> Calendar:
        raise BadCalendar("time_zone", f"there is no time zone {time_zone}")

    with monkeypatch.context() as older:
        older.setattr("tenure.master.core.ticks.calendar", unknown)
        rig.pass_time(EVERY_MS + 2_000)
        assert (schedule(rig).cursor.fired, len(upcoming(schedule(rig), 5))) == (0, 1)
    rig.pass_time(1_000)
    assert schedule(rig).cursor.fired == 1


def test_many_large_jobs_are_spread_over_decisions() -> None:
    """Ticks with large payloads come in several events: no store takes one of any size."""
    rig = Rig()
    for index in range(8):
        put(rig, changed(payload=b"x" * 60_000), name=f"s{index}")
    rig.now_ms += EVERY_MS
    rig.fire()
    assert len(jobs(rig)) == 3
    rig.pass_time(10)
    assert len(jobs(rig)) == 8


@pytest.mark.parametrize(
    ("changes", "reason", "where"),
    [
        ({"cron": "61 * * * *"}, Reason.INVALID_ARGUMENT, "spec.cron"),
        ({"cron": "0 0 30 2 *"}, Reason.INVALID_ARGUMENT, "spec.cron"),
        ({"time_zone": "Europe/Nowhere"}, Reason.INVALID_ARGUMENT, "spec.time_zone"),
        ({"payload": b"x" * 300_000}, Reason.PAYLOAD_TOO_LARGE, "spec.payload"),
    ],
)
def test_refusals(changes: dict[str, object], reason: Reason, where: str) -> None:
    """What cannot be kept is refused, and told which field it is."""
    rig = Rig()
    refusal = rig.refused(PutSchedule(tenant="default", name="s", spec=changed(**changes)))
    assert (refusal.reason, refusal.field) == (reason, where)


def test_two_schedules_of_one_name() -> None:
    """Made again, a schedule is changed, unless the caller wants a new one."""
    rig = Rig()
    put(rig)
    again = PutSchedule(tenant="default", name="s", spec=SPEC, create_only=True)
    assert rig.refused(again).reason is Reason.SCHEDULE_EXISTS
    assert put(rig, changed(note="twice")).spec.note == "twice"
    other = PutSchedule(tenant="other", name="s", spec=SPEC, create_only=True)
    rig.do(other)
    assert [each.tenant for each in rig.partition.schedules("", ("", ""), 10)] == [
        "default",
        "other",
    ]


def test_schedules_take_room() -> None:
    """Payloads of schedules count as what is kept, and a full partition takes no more."""
    rig = Rig(PartitionConfig(partition=0, partitions=1, bytes_max=3_000))
    put(rig, changed(payload=b"x" * 1_500))
    more = PutSchedule(tenant="default", name="t", spec=changed(payload=b"x" * 1_500))
    assert rig.refused(more).reason is Reason.MEMORY_FULL
    rig.do(DeleteSchedule(tenant="default", name="s"))
    rig.do(more)


def test_days_are_those_of_the_zone() -> None:
    """03:00 in Berlin is one hour earlier in summer, by the world's clock."""
    rig = Rig()
    put(rig, changed(cron="0 3 * * *", time_zone="Europe/Berlin"))
    times = upcoming(schedule(rig), 100)
    hours = {each % DAY_MS // HOUR_MS for each in upcoming(schedule(rig), 200)}
    assert len(times) == 100
    assert hours == {1, 2}
