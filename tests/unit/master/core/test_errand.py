"""Errands: schedules whose queues live in another partition tick as all others do."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core.command import (
    DeleteSchedule,
    FireTimers,
    Intake,
    OpenTerm,
    ResolveDependents,
    TakeMessage,
    TriggerSchedule,
    TrimOutbox,
)
from tenure.master.core.config import PartitionConfig
from tenure.master.core.dependency import OPEN
from tenure.master.core.effect import Deliver
from tenure.master.core.event import InboxTaken, OutboxAppended, SchedulesTicked
from tenure.master.core.message import (
    CancelFrom,
    ParentState,
    RegisterChild,
    ReleaseParent,
    SubmitFrom,
)
from tenure.master.core.outbox import Outbox
from tenure.master.core.record import Policy
from tenure.master.core.ticks import tick_job_id
from tenure.protocol.fence import Token
from tenure.protocol.ids import JobId, home_partition
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import JobState, Misfire, Overlap
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.planner import (
    EVERY_MS,
    STEPS,
    Model,
    agree,
    changed,
    end,
    jobs,
    pause,
    put,
    schedule,
)
from tests.unit.master.core.rig import START_MS, Rig, of_type


class Pair:
    """A schedule's home and the partition of its queue, and what carries messages between them."""

    def __init__(self) -> None:
        self.queue = next(
            name for name in (f"q{n}" for n in range(99)) if home_partition("default", name, 2) == 1
        )
        self.home = Rig(PartitionConfig(partition=0, partitions=2))
        self.away = Rig(PartitionConfig(partition=1, partitions=2))

    def carry(self) -> None:
        """Takes everything over until nothing is left to be said; each message comes twice."""
        self.away.now_ms = max(self.away.now_ms, self.home.now_ms)
        said = True
        while said:
            said = False
            for source, target in ((self.home, self.away), (self.away, self.home)):
                while target.partition.has_dependents_due():
                    target.do(ResolveDependents(rows_max=100))
                number = source.config.partition
                for row in source.partition.outbox_after(target.config.partition, 0, 1_000):
                    take = TakeMessage(
                        source=number,
                        token=source.token,
                        number=row.number,
                        after=0,
                        message=row.message,
                    )
                    target.do(take)
                    target.do(take)
                    source.do(TrimOutbox(target=target.config.partition, upto=row.number))
                    said = True


@given(
    misfire=st.sampled_from(Misfire),
    overlap=st.sampled_from(Overlap),
    steps=st.lists(STEPS, max_size=10),
)
def test_policies_hold_across_partitions(
    misfire: Misfire, overlap: Overlap, steps: list[tuple[str, int]]
) -> None:
    """S13: a queue of another partition gets the same jobs, one a tick, whoever dies in between."""
    pair = Pair()
    home, away = pair.home, pair.away
    catch_up_ms = 200_000
    policy = Policy(name="job", queue=pair.queue)
    spec = changed(misfire=misfire, overlap=overlap, catch_up_ms=catch_up_ms, policy=policy)
    put(home, spec)
    model = Model(misfire, overlap, catch_up_ms, cursor_ms=home.now_ms, away=True)
    triggered = 0

    def carry() -> None:
        """All is said; whom that has asked to stop has done so, and what waited for it fires."""
        pair.carry()
        if overlap is Overlap.CANCEL_OTHER and model.buffered:
            model.ends()
            home.pass_time(0)
            pair.carry()

    for step, count in steps:
        match step:
            case "run":
                for _ in range(count):
                    home.pass_time(EVERY_MS // 2 - home.now_ms % (EVERY_MS // 2))
                    home.pass_time(200)
                    model.look(home.now_ms)
                    carry()
            case "down":
                home.now_ms += count * EVERY_MS - home.now_ms % EVERY_MS + 2_500
                home.crash(window_ms=0)
                away.crash(window_ms=0)
                home.pass_time(200)
                model.look(home.now_ms - 200)
                carry()
            case "end" if model.open:
                end(away, schedule(home).cursor.last_job_id)
                model.ends()
                pair.carry()
                home.pass_time(5)
                pair.carry()
            case "pause" | "resume":
                pause(home, paused=step == "pause")
                model.pauses(home.now_ms, paused=step == "pause")
            case "trigger":
                job_id = away.mint(at_ms=home.now_ms)
                home.do(TriggerSchedule(tenant="default", name="s", job_id=job_id))
                triggered += 1
    pair.carry()
    cursor = schedule(home).cursor
    assert (cursor.fired, cursor.skipped) == (len(model.fired), model.skipped)
    ids = {tick_job_id(1, ("default", "s"), tick, tick) for tick in model.fired}
    assert len(ids) == len(model.fired)
    known = {job.job_id: job for job in jobs(away)}
    assert ids <= known.keys()
    assert len(known) == len(ids) + triggered
    assert not jobs(home)
    if overlap is not Overlap.ALLOW:
        assert sum(known[job_id].state is JobState.PENDING for job_id in ids) <= 1
    home.do(DeleteSchedule(tenant="default", name="s"))
    pair.carry()
    # Nobody waits for a job of it any more.
    assert not state_of(away.partition).dependencies.registered
    agree(home)
    agree(away)


def test_an_outbox_without_room_holds_a_tick() -> None:
    """A tick for a partition that has had no leader for long waits until there is room."""
    pair = Pair()
    policy = Policy(name="job", queue=pair.queue)
    put(pair.home, changed(policy=policy, payload=b"x" * 200_000, overlap=Overlap.ALLOW))
    state_of(pair.home.partition).outbox._line(1).bytes = 1 << 30
    pair.home.pass_time(EVERY_MS + 100)
    assert schedule(pair.home).cursor.fired == 0
    trigger = TriggerSchedule(tenant="default", name="s", job_id=pair.away.mint())
    assert pair.home.refused(trigger).reason is Reason.OUTBOX_FULL
    state_of(pair.home.partition).outbox._line(1).bytes = 0
    pair.home.pass_time(1_000)
    assert schedule(pair.home).cursor.fired == 1


def test_a_trigger_that_is_sent_again_submits_nothing_new_elsewhere() -> None:
    """The queue's partition has the job already; an id of another partition is refused."""
    pair = Pair()
    put(pair.home, changed(policy=Policy(name="job", queue=pair.queue)), paused=True)
    trigger = TriggerSchedule(tenant="default", name="s", job_id=pair.away.mint())
    for _ in range(3):
        pair.home.do(trigger)
        pair.carry()
    assert [job.job_id for job in jobs(pair.away)] == [trigger.job_id]
    astray = TriggerSchedule(tenant="default", name="s", job_id=pair.home.mint())
    assert pair.home.refused(astray).reason is Reason.WRONG_PARTITION


def test_a_restored_cluster_waits_for_no_lost_job() -> None:
    """After a restore nobody may tell of a job elsewhere, so the next tick does not wait for it."""
    pair = Pair()
    put(pair.home, changed(policy=Policy(name="job", queue=pair.queue)))
    pair.home.pass_time(EVERY_MS)
    assert schedule(pair.home).cursor.open_elsewhere
    restored = OpenTerm(token=Token(1_795_000_000, 1), incarnation="m", window_ms=0)
    pair.home.do(restored)
    assert not schedule(pair.home).cursor.open_elsewhere
    pair.home.pass_time(EVERY_MS)
    assert schedule(pair.home).cursor.fired == 2


def twin(job_id: JobId) -> JobId:
    """A job's id as its schedule's home has it for a child."""
    return JobId(job_id[:15] + "000" + job_id[18:])


def test_a_tick_elsewhere_is_a_job_and_a_question() -> None:
    """All that the schedule says of its job goes with it; then it is asked to be told of its end,
    and once that has come nothing more is to be told of it.
    """
    pair = Pair()
    policy = Policy(name="job", queue=pair.queue)
    spec = changed(policy=policy, priority=2, limit_key="acme", sticky_key="model")
    put(pair.home, spec)
    effects = pair.home.pass_time(EVERY_MS)
    tick_ms = START_MS + EVERY_MS
    job_id = tick_job_id(1, ("default", "s"), tick_ms, tick_ms)
    rows = pair.home.partition.outbox_after(1, 0, 9)
    assert [row.message for row in rows] == [
        SubmitFrom(
            policy=policy,
            priority=2,
            ready_ms=tick_ms,
            job_id=job_id,
            payload=b"call",
            limit_key="acme",
            sticky_key="model",
        ),
        RegisterChild(parent=job_id, child=twin(job_id), run=0),
    ]
    assert [(each.target, each.upto) for each in of_type(effects, Deliver)] == [
        (1, rows[-1].number)
    ]
    pair.carry()
    cursor = schedule(pair.home).cursor
    assert (cursor.last_job_id, cursor.open_elsewhere) == (job_id, True)
    end(pair.away, job_id)
    while pair.away.partition.has_dependents_due():
        pair.away.do(ResolveDependents(rows_max=100))
    *_, word = pair.away.partition.outbox_after(0, 0, 9)
    done = int(JobState.CANCELLED)
    assert word.message == ParentState(parent=job_id, child=twin(job_id), run=0, state=done)
    take = TakeMessage(
        source=1, token=pair.away.token, number=word.number, after=0, message=word.message
    )
    decision = pair.home.do(take)
    assert [type(event) for event in decision.events] == [
        OutboxAppended,
        SchedulesTicked,
        InboxTaken,
    ]
    *_, last = pair.home.partition.outbox_after(1, 0, 9)
    assert last.message == ReleaseParent(parent=job_id, child=twin(job_id), run=0)
    assert [(each.target, each.upto) for each in of_type(decision.effects, Deliver)] == [
        (1, last.number)
    ]
    after = schedule(pair.home).cursor
    assert after == msgspec.structs.replace(cursor, open_elsewhere=False)


def test_word_of_a_job_that_goes_on_changes_nothing() -> None:
    """The next tick waits for its end."""
    pair = Pair()
    put(pair.home, changed(policy=Policy(name="job", queue=pair.queue)))
    pair.home.pass_time(EVERY_MS)
    job_id = JobId(schedule(pair.home).cursor.last_job_id)
    for number, state in ((1, OPEN), (2, int(JobState.RETRYING)), (3, int(JobState.COMPLETED))):
        word = ParentState(parent=job_id, child=twin(job_id), run=0, state=state)
        take = TakeMessage(source=1, token=Token(1, 1), number=number, after=0, message=word)
        pair.home.do(take)
        assert schedule(pair.home).cursor.open_elsewhere is (number < 3)


def test_ticks_of_all_schedules_share_the_room_of_an_outbox(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four messages for each, as many as a tick may need; one that has no place is tried again."""
    pair = Pair()
    policy = Policy(name="job", queue=pair.queue)
    for name in "abc":
        put(pair.home, changed(policy=policy, overlap=Overlap.ALLOW), name=name)
    for room, fired in ((3, 0), (4, 1), (7, 1), (8, 2), (12, 3)):
        with monkeypatch.context() as small:
            small.setattr(Outbox, "room", lambda outbox, target, room=room: room)
            pair.home.pass_time(EVERY_MS - pair.home.now_ms % EVERY_MS)
        before = sum(schedule(pair.home, name).cursor.fired for name in "abc")
        assert before == fired
        for name in "abc":
            rig = pair.home
            rig.do(DeleteSchedule(tenant="default", name=name))
            put(rig, changed(policy=policy, overlap=Overlap.ALLOW), name=name)


@pytest.mark.parametrize(
    ("intake", "fired"), [(Intake.OPEN, 2), (Intake.NO_BULK, 1), (Intake.CLOSED, 0)]
)
def test_a_full_store_takes_no_ticks_for_elsewhere(intake: Intake, fired: int) -> None:
    """By the rules of submits: bulk goes first."""
    pair = Pair()
    policy = Policy(name="job", queue=pair.queue)
    put(pair.home, changed(policy=policy, priority=5), name="a")
    put(pair.home, changed(policy=policy, priority=6), name="b")
    pair.home.now_ms += EVERY_MS
    pair.home.do(FireTimers(rows_max=9, jitter=[0.5], intake=intake))
    assert sum(schedule(pair.home, name).cursor.fired for name in "ab") == fired
    assert pair.home.partition.next_timer_ms() == pair.home.now_ms + (
        EVERY_MS if fired == 2 else 1_000
    )


def test_a_job_elsewhere_gives_way_to_the_next_tick() -> None:
    """It is cancelled for that reason, in its own partition; the newest tick waits for its end."""
    pair = Pair()
    policy = Policy(name="job", queue=pair.queue)
    put(pair.home, changed(policy=policy, overlap=Overlap.CANCEL_OTHER))
    pair.home.pass_time(EVERY_MS)
    job_id = JobId(schedule(pair.home).cursor.last_job_id)
    pair.carry()
    pair.home.pass_time(EVERY_MS)
    (row,) = pair.home.partition.outbox_after(1, 0, 9)
    assert row.message == CancelFrom(
        job_id=job_id, reason="the next tick of its schedule waits for its end"
    )
    pair.home.pass_time(EVERY_MS)
    cursor = schedule(pair.home).cursor
    assert (cursor.fired, cursor.skipped) == (1, 1)
    assert cursor.buffered_ms == START_MS + 3 * EVERY_MS
    pair.carry()
    assert pair.away.state(job_id) is JobState.CANCELLED
    pair.home.pass_time(0)
    assert schedule(pair.home).cursor.fired == 2
