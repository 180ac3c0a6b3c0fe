"""What is said to who wants something of a schedule that cannot be, word by word; and its room."""

import pytest

from tenure.master.core import schedule as schedules
from tenure.master.core.command import (
    DeleteSchedule,
    Intake,
    PauseSchedule,
    PutSchedule,
    TriggerSchedule,
)
from tenure.master.core.config import PartitionConfig
from tenure.master.core.effect import Deliver, SubmitReply
from tenure.master.core.event import (
    OutboxAppended,
    ScheduleDeleted,
    SchedulePaused,
    SchedulesTicked,
    TickedRow,
)
from tenure.master.core.message import ReleaseParent, SubmitFrom
from tenure.master.core.record import Policy
from tenure.master.core.ticks import restarted
from tenure.master.core.timetable import ScheduleRecord
from tenure.protocol.ids import home_partition
from tenure.protocol.refusal import Reason
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.planner import EVERY_MS, changed, jobs, pause, put, schedule
from tests.unit.master.core.rig import Rig, of_type

WHO = {"schedule": "s", "tenant": "default"}


@pytest.mark.parametrize(
    ("verb", "command"),
    [
        ("pause", PauseSchedule(tenant="default", name="s", paused=True)),
        ("resume", PauseSchedule(tenant="default", name="s", paused=False)),
        ("delete", DeleteSchedule(tenant="default", name="s")),
    ],
)
def test_a_schedule_that_nobody_knows(verb: str, command: PauseSchedule | DeleteSchedule) -> None:
    """Is refused by its name, and by its tenant: another one's is no matter."""
    rig = Rig()
    rig.do(PutSchedule(tenant="other", name="s", spec=changed()))
    refusal = rig.refused(command)
    assert (refusal.reason, refusal.metadata, refusal.field) == (Reason.NOT_FOUND, WHO, "name")
    said = f"expected to {verb} schedule s, but tenant default has none of this name; list"
    assert refusal.message.startswith(said)


def test_a_trigger_of_a_schedule_that_nobody_knows() -> None:
    """Is refused as all else is."""
    rig = Rig()
    refusal = rig.refused(TriggerSchedule(tenant="default", name="s", job_id=rig.mint()))
    assert (refusal.reason, refusal.metadata) == (Reason.NOT_FOUND, WHO)
    assert "expected to trigger schedule s" in refusal.message


def test_a_schedule_that_is_there() -> None:
    """Is not made a second time by who wants a new one."""
    rig = Rig()
    put(rig)
    again = PutSchedule(tenant="default", name="s", spec=changed(), create_only=True)
    refusal = rig.refused(again)
    assert (refusal.reason, refusal.field) == (Reason.SCHEDULE_EXISTS, "name")
    assert refusal.metadata == WHO
    assert "make schedule s, but tenant default has one of this name" in refusal.message


@pytest.mark.parametrize(
    ("changes", "where", "why"),
    [
        ({"cron": "61 * * * *"}, "spec.cron", "its minute field, '61', is none that cron knows"),
        ({"time_zone": "Europe/Berln"}, "spec.time_zone", "did you mean Europe/Berlin?"),
    ],
)
def test_a_calendar_that_means_nothing(changes: dict[str, object], where: str, why: str) -> None:
    """Is refused with its field, and what is wrong with it."""
    refusal = Rig().refused(PutSchedule(tenant="default", name="s", spec=changed(**changes)))
    assert (refusal.reason, refusal.field) == (Reason.INVALID_ARGUMENT, where)
    assert refusal.metadata == {"field": where}
    assert refusal.message.startswith(f"expected a valid {where}, but ")
    assert refusal.message.endswith(why)


def test_a_payload_that_is_too_large() -> None:
    """Is refused with both sizes; the largest that may be is taken."""
    rig = Rig(PartitionConfig(partition=0, partitions=1, payload_bytes_max=10))
    command = PutSchedule(tenant="default", name="s", spec=changed(payload=b"x" * 11))
    refusal = rig.refused(command)
    assert (refusal.reason, refusal.field) == (Reason.PAYLOAD_TOO_LARGE, "spec.payload")
    assert refusal.metadata == {**WHO, "bytes": "11", "limit": "10"}
    assert "its payload has 11 bytes (at most 10)" in refusal.message
    put(rig, changed(payload=b"x" * 10))


def test_a_partition_keeps_so_many_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused for now; those that are there may be changed."""
    monkeypatch.setattr(schedules, "SCHEDULES_MAX", 2)
    rig = Rig()
    put(rig)
    put(rig, name="t")
    refusal = rig.refused(PutSchedule(tenant="default", name="u", spec=changed()))
    assert (refusal.reason, refusal.retry_after_ms) == (
        Reason.MEMORY_FULL,
        rig.config.retry_after_ms,
    )
    assert refusal.metadata == {"schedule": "u", "tenant": "default", "limit": "2"}
    assert "keep schedule u, but the partition has 2 schedules: delete some" in refusal.message
    assert refusal.message.endswith(", or try again later")
    put(rig, changed(payload=b"more than before"))


def test_a_partition_keeps_so_many_bytes() -> None:
    """Of payloads that grow, by the limit that the command brings or its own; others are taken."""
    rig = Rig(PartitionConfig(partition=0, partitions=1, bytes_max=1_000))
    put(rig, changed(payload=b"x" * 100))
    kept = state_of(rig.partition).stored_bytes
    assert kept == schedule(rig).footprint

    def grown(by: int, bytes_max: int | None = None) -> PutSchedule:
        spec = changed(payload=b"x" * (100 + by))
        return PutSchedule(tenant="default", name="s", spec=spec, bytes_max=bytes_max)

    for command, limit in ((grown(1_001 - kept), 1_000), (grown(1, kept), kept)):
        refusal = rig.refused(command)
        assert (refusal.reason, refusal.metadata["limit"]) == (Reason.MEMORY_FULL, str(limit))
        assert f"the partition keeps {kept} bytes of at most {limit}: delete" in refusal.message
    byte = PutSchedule(tenant="default", name="new", spec=changed(payload=b"x"), bytes_max=kept)
    assert rig.refused(byte).reason is Reason.MEMORY_FULL
    rig.do(grown(0, 1))
    rig.do(grown(-1, 1))
    rig.do(grown(0, kept))
    rig.do(grown(1_000 - kept))
    assert state_of(rig.partition).stored_bytes == schedule(rig).footprint == 1_000
    rig.do(DeleteSchedule(tenant="default", name="s"))
    assert state_of(rig.partition).stored_bytes == 0


# Queues of another partition.


def away() -> tuple[Rig, str]:
    """A schedule's home, and a queue of the other partition."""
    names = (f"q{number}" for number in range(99))
    queue = next(name for name in names if home_partition("default", name, 2) == 1)
    return Rig(PartitionConfig(partition=0, partitions=2)), queue


def test_a_trigger_names_a_job_of_its_queues_partition() -> None:
    """Another one's id is refused, with where it should be of."""
    rig, queue = away()
    put(rig, changed(policy=Policy(name="job", queue=queue)), paused=True)
    job_id = rig.mint()
    refusal = rig.refused(TriggerSchedule(tenant="default", name="s", job_id=job_id))
    assert (refusal.reason, refusal.field) == (Reason.WRONG_PARTITION, "job_id")
    assert refusal.metadata == {"schedule": "s", "job_id": job_id, "partition": "1"}
    assert "schedule s with a job of partition 1" in refusal.message
    assert f"queue {queue}, but id {job_id} names partition 0" in refusal.message


@pytest.mark.parametrize(
    ("intake", "priority", "taken"),
    [
        (Intake.OPEN, 10, True),
        (Intake.NO_BULK, 5, True),
        (Intake.NO_BULK, 6, False),
        (Intake.CLOSED, 0, False),
    ],
)
def test_a_trigger_is_taken_by_the_rules_of_submits(
    intake: Intake, priority: int, taken: bool
) -> None:
    """By how full the store is; who may ask for the job is told when it has arrived."""
    rig, queue = away()
    put(rig, changed(policy=Policy(name="job", queue=queue), priority=priority), paused=True)
    other = Rig(PartitionConfig(partition=1, partitions=2))
    command = TriggerSchedule(tenant="default", name="s", job_id=other.mint(), intake=intake)
    if taken:
        reply = rig.do(command).reply
        assert (reply.job_ids, reply.existing, reply.unsettled) == (  # type: ignore[union-attr]
            [command.job_id],
            [],
            (0,),
        )
        assert reply.refusals == []  # type: ignore[union-attr]
        return
    refusal = rig.refused(command)
    assert (refusal.reason, refusal.retry_after_ms) == (
        Reason.OUTBOX_FULL,
        rig.config.retry_after_ms,
    )
    assert refusal.metadata == {"schedule": "s", "partition": "1"}
    assert "trigger schedule s, but its queue lives in partition 1" in refusal.message


# What is told.


def test_a_pause_is_told_as_it_is_from_now_on() -> None:
    """Twice is once; what is told does not change with the schedule."""
    rig = Rig()
    made = put(rig)
    rig.now_ms += 5
    command = PauseSchedule(tenant="default", name="s", paused=True)
    reply = rig.do(command).reply
    assert isinstance(reply, ScheduleRecord)
    assert (reply.paused, reply.updated_ms, reply.created_ms) == (True, rig.now_ms, made.created_ms)
    assert (reply.seq, reply.cursor) == (schedule(rig).seq, schedule(rig).cursor)
    again = rig.do(command)
    assert again.events == ()
    assert isinstance(again.reply, ScheduleRecord)
    assert again.reply is not schedule(rig)
    assert again.reply.cursor == schedule(rig).cursor
    pause(rig, paused=False)
    assert (again.reply.paused, schedule(rig).paused) == (True, False)
    assert schedule(rig).cursor.next_ms == made.cursor.next_ms


def test_a_schedule_that_is_put_again_goes_on_or_begins_anew() -> None:
    """Its next tick stays, though it is over, while its times do and it is paused neither before
    nor from now on; else what waits is left out.
    """
    rig = Rig()
    first = put(rig)
    rig.now_ms += 3 * EVERY_MS
    assert put(rig, changed(note="same times")).cursor == first.cursor
    for spec, paused in (
        (changed(start_ms=1), False),
        (changed(start_ms=1), True),
        (changed(start_ms=1), True),
        (changed(start_ms=1), False),
        (changed(end_ms=rig.now_ms + 1_000_000), False),
        (changed(jitter_ms=500), False),
        (changed(cron="*/5 * * * * *"), False),
        (changed(time_zone="Europe/Berlin"), False),
    ):
        before = schedule(rig).cursor
        rig.now_ms += 2 * EVERY_MS
        told = put(rig, spec, paused=paused)
        assert told.cursor == restarted("default", "s", spec, before, rig.now_ms)
        assert told.cursor.next_ms > rig.now_ms
        assert (told.spec, told.paused, told.updated_ms) == (spec, paused, rig.now_ms)
        assert told.seq == schedule(rig).seq
    assert not jobs(rig)


def test_a_deleted_schedule_is_told_as_it_was() -> None:
    """With all that it had come to."""
    rig = Rig()
    put(rig)
    rig.pass_time(EVERY_MS)
    record = schedule(rig)
    reply = rig.do(DeleteSchedule(tenant="default", name="s")).reply
    assert isinstance(reply, ScheduleRecord)
    assert reply is not record
    assert (reply.key, reply.cursor.fired) == (("default", "s"), 1)


def test_what_a_schedule_has_come_to_stays_when_its_times_change() -> None:
    """How often it has fired, and which job was the last."""
    rig = Rig()
    put(rig)
    rig.pass_time(EVERY_MS)
    before = schedule(rig).cursor
    after = put(rig, changed(cron="*/5 * * * * *")).cursor
    assert (after.fired, after.last_job_id) == (1, before.last_job_id)
    assert after.next_ms == rig.now_ms + EVERY_MS // 2


def test_a_schedule_that_was_paused_goes_on_with_its_own_jitter() -> None:
    """As if it had been put then: each schedule has its own."""
    rig = Rig()
    spec = changed(jitter_ms=9_000)
    for name in ("s", "t"):
        put(rig, spec, name=name)
    for paused in (True, False):
        pause(rig, paused=paused)
    expected = put(Rig(), spec).cursor.due_ms
    assert schedule(rig).cursor.due_ms == expected != schedule(rig, "t").cursor.due_ms


def test_a_trigger_that_is_sent_again_is_told_of_its_job() -> None:
    """It is there; nothing is refused, and nothing is written."""
    rig = Rig()
    put(rig, paused=True)
    command = TriggerSchedule(tenant="default", name="s", job_id=rig.mint())
    rig.do(command)
    decision = rig.do(command)
    assert decision.events == ()
    assert decision.reply == SubmitReply(job_ids=[command.job_id], existing=[0], refusals=[])


def test_a_trigger_keeps_to_the_bytes_that_its_command_lets_it() -> None:
    """As a submit does."""
    rig = Rig()
    put(rig, paused=True)
    job_id = rig.mint()
    full = TriggerSchedule(tenant="default", name="s", job_id=job_id, bytes_max=1)
    assert rig.refused(full).reason is Reason.MEMORY_FULL
    rig.do(TriggerSchedule(tenant="default", name="s", job_id=job_id, bytes_max=1 << 30))
    assert len(jobs(rig)) == 1


def test_messages_of_a_trigger_and_of_a_delete_are_brought_at_once() -> None:
    """The job to be submitted; and that nobody asks any more for the end of the last one."""
    rig, queue = away()
    other = Rig(PartitionConfig(partition=1, partitions=2))
    put(rig, changed(policy=Policy(name="job", queue=queue)))
    rig.pass_time(EVERY_MS)
    trigger = TriggerSchedule(tenant="default", name="s", job_id=other.mint())
    for command, kind in (
        (trigger, SubmitFrom),
        (DeleteSchedule(tenant="default", name="s"), ReleaseParent),
    ):
        decision = rig.do(command)
        (appended,) = of_type(decision.events, OutboxAppended)
        assert [type(message) for message in appended.messages] == [kind]
        assert (appended.now_ms, appended.target) == (rig.now_ms, 1)
        (deliver,) = of_type(decision.effects, Deliver)
        assert (deliver.target, deliver.upto) == (1, appended.first_number)


# What events write.


def test_what_is_newer_than_an_event_stays() -> None:
    """A snapshot may know more of one schedule than of another, and more than the event."""
    rig = Rig()
    for name in ("newer", "older"):
        put(rig, name=name)
    state = state_of(rig.partition)
    state.live = False
    records = state.timetable.records
    newer, older = (records["default", name] for name in ("newer", "older"))
    newer.seq, older.seq = 17, 13
    moved = restarted("default", "s", changed(), newer.cursor, rig.now_ms + EVERY_MS)
    rows = [TickedRow("default", name, moved) for name in ("newer", "nobody", "older")]
    schedules.apply_ticked(state, SchedulesTicked(now_ms=1, rows=rows), 14)
    assert [each.seq for each in (newer, older)] == [17, 14]
    assert [each.cursor == moved for each in (newer, older)] == [False, True]
    for name in ("newer", "nobody", "older"):
        event = SchedulePaused(now_ms=1, tenant="default", name=name, paused=True, cursor=moved)
        schedules.apply_paused(state, event, 15)
    assert [each.paused for each in (newer, older)] == [False, True]
    for name in ("newer", "nobody", "older"):
        schedules.apply_deleted(state, ScheduleDeleted(now_ms=1, tenant="default", name=name), 16)
    assert list(records) == [("default", "newer")]


def test_equal_policies_of_schedules_are_one_object() -> None:
    """With a hundred thousand schedules it makes the difference; after a replay, too."""
    rig = Rig()
    for name in "ab":
        put(rig, changed(policy=Policy(name="job", queue="q")), name=name)
    for partition in (rig.partition, rig.replayed()):
        first, second = state_of(partition).timetable.records.values()
        assert first.spec.policy is second.spec.policy
