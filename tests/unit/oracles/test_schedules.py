"""S13: a healthy timetable passes, and each tick lost, doubled or out of its time is found."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tenure.master.core.record import Policy
from tenure.master.core.ticks import Ticks, tick_job_id
from tenure.master.core.timetable import ScheduleCursor, ScheduleRecord, ScheduleSpec
from tenure.protocol.ids import home_partition
from tests.oracles.facts import (
    CancelAsked,
    Cursor,
    Fact,
    Granted,
    Message,
    Plan,
    ScheduleDeleted,
    SchedulePaused,
    SchedulePut,
    Sent,
    Settled,
    Submitted,
    Taken,
    TermBegan,
    Ticked,
)
from tests.oracles.history import SCHEDULE, TRIGGER, Row
from tests.oracles.schedules import GIVES_WAY, check_schedules, tick_job
from tests.unit.oracles.sample import TERM_1, at

S = 1_000
#: A tick each ten seconds.
PLAN = Plan(
    cron="*/10 * * * * *",
    zone="UTC",
    content="c",
    tenant="t",
    queue="q",
    misfire="FIRE_ALL",
    overlap="ALLOW",
    catch_up_ms=60 * S,
)
ROWS = [
    at(0.0, "invoke", SCHEDULE, 1, schedule="n", tenant="t", content="c"),
    at(1.0, "ok", SCHEDULE, 1, schedule="n", tenant="t", content="c"),
]


class Clerk:
    """Writes a journal, with each fact as it should be."""

    def __init__(self, plan: Plan = PLAN, partitions: int = 1) -> None:
        self.plan = plan
        self.partitions = partitions
        self.facts: list[Fact] = [
            TermBegan(1, TERM_1, at_ms=1),
            SchedulePut(2, 1, "t", "n", plan, Cursor(10 * S)),
        ]
        self.elsewhere: list[Fact] = []
        self.last = ""

    def job(self, tick_s: int, target: int = 0) -> str:
        """A tick's job, by the product's own reckoning."""
        return str(tick_job_id(target, ("t", "n"), tick_s * S, tick_s * S))

    def submit(self, job: str, at_s: float) -> None:
        """A job comes."""
        self.facts.append(Submitted(0, job, "c", 1, 0, int(at_s * S), "t", "q"))

    def tick(self, tick_s: int, at_s: float, *, fires: bool = True, **cursor: int | str) -> None:
        """A tick is decided on."""
        if fires:
            self.last = self.job(tick_s)
            self.submit(self.last, at_s)
        self.move((tick_s + 10) * S, at_s, **cursor)

    def move(self, next_ms: int, at_s: float, **cursor: int | str) -> None:
        """The cursor moves."""
        moved = Cursor(next_ms, last_job=self.last)._replace(**cursor)
        self.facts.append(Ticked(0, int(at_s * S), "t", "n", moved))

    def end(self, tick_s: int, at_s: float) -> None:
        """A tick's job ends."""
        job = self.job(tick_s)
        self.facts.append(Settled(0, job, 0, "", "COMPLETED", "", at_ms=int(at_s * S)))

    def wrong(self, rows: Sequence[Row] = ROWS, *, drained: bool = True) -> list[str]:
        """What is found."""
        seqs = [fact._replace(seq=seq) for seq, fact in enumerate(self.facts, 1)]
        facts = {0: seqs, 1: self.elsewhere}
        found = check_schedules(facts, rows, partitions=self.partitions, drained=drained)
        assert {violation.invariant for violation in found} <= {"S13"}
        return [violation.detail for violation in found]


def with_plan(**changes: str | int) -> Clerk:
    """A journal for another plan."""
    return Clerk(PLAN._replace(**changes))


def test_ids_are_those_of_the_product() -> None:
    """Derived twice, they are the same."""
    for partition, tick_ms, due_ms in ((0, 10 * S, 10 * S), (7, 20 * S, 23_456)):
        derived = tick_job(partition, "t", "n", tick_ms, due_ms)
        assert derived == tick_job_id(partition, ("t", "n"), tick_ms, due_ms)


def test_a_healthy_timetable_passes() -> None:
    """Three ticks, a pause, another plan, a trigger, and the end of it."""
    clerk = Clerk()
    for tick_s in (10, 20, 30):
        clerk.tick(tick_s, tick_s + 0.1)
    facts = clerk.facts
    facts.append(SchedulePaused(0, 35 * S, "t", "n", True, Cursor(40 * S, last_job=clerk.last)))
    facts.append(SchedulePaused(0, 62 * S, "t", "n", False, Cursor(70 * S, last_job=clerk.last)))
    clerk.tick(70, 70.5)
    plan = PLAN._replace(cron="*/15 * * * * *")
    facts.append(SchedulePut(0, 71 * S, "t", "n", plan, Cursor(75 * S, last_job=clerk.last)))
    clerk.tick(75, 75)
    facts[-1] = Ticked(0, 75 * S, "t", "n", Cursor(90 * S, last_job=clerk.last))
    clerk.submit("triggered", 76)
    facts.append(ScheduleDeleted(0, 89 * S, "t", "n"))
    facts.append(Granted(0, "other", "", 1, 200 * S))
    rows = [
        *ROWS,
        at(2.0, "invoke", TRIGGER, 2, schedule="n", tenant="t"),
        at(3.0, "ok", TRIGGER, 2, schedule="n", tenant="t", job="triggered"),
    ]

    assert clerk.wrong(rows) == []
    assert clerk.wrong(rows[:-2]) == ["no tick of ('t', 'n') and no trigger has it"]


def test_a_lost_tick_is_found() -> None:
    """The cursor passes over it, or it is not looked at for long."""
    clerk = Clerk()
    clerk.tick(10, 10)
    clerk.tick(20, 20, fires=False)

    assert clerk.wrong() == ["tick 20000 was left out, and no rule says so"]

    late = Clerk()
    late.tick(10, 10)
    late.facts.append(Granted(0, "other", "", 1, 60 * S))

    assert late.wrong() == [
        f"nobody has decided on tick {tick}" for tick in (20_000, 30_000, 40_000)
    ]
    assert late.wrong(drained=False) == []


def test_a_doubled_tick_is_found() -> None:
    """Its job comes twice; or another one does, under an id that is not the tick's."""
    clerk = Clerk()
    clerk.tick(10, 10)
    clerk.submit(clerk.last, 10.5)
    assert clerk.wrong() == ["it was submitted twice"]

    other = Clerk()
    other.tick(10, 10)
    other.submit(tick_job(0, "t", "n", 10 * S, 11 * S), 10.5)
    assert other.wrong() == ["no tick of ('t', 'n') and no trigger has it"]


def test_a_tick_out_of_its_time_is_found() -> None:
    """Too early, while the schedule is paused, or at a time that is no tick."""
    early = Clerk()
    early.tick(10, 9.9)
    assert early.wrong() == ["tick 10000 was decided on 100 ms before its time"]

    paused = Clerk()
    paused.facts.append(SchedulePaused(0, 5 * S, "t", "n", True, Cursor(10 * S)))
    paused.tick(10, 10)
    assert paused.wrong() == ["tick 10000 was decided on while it was paused"]

    astray = Clerk()
    astray.tick(10, 10)
    astray.move(25 * S, 20)
    assert any("waits for 25000" in wrong for wrong in astray.wrong())


def test_late_ticks_go_by_their_policies() -> None:
    """Those that were missed: none fires, or the newest; none that is later than the window."""
    for misfire, fired in (("SKIP", ()), ("FIRE_ONCE", (30,)), ("FIRE_ALL", (10, 20, 30))):
        for wrongly in ((), (10,), (30,), (10, 20, 30)):
            clerk = with_plan(misfire=misfire)
            for tick_s in (10, 20, 30):
                clerk.tick(tick_s, 36, fires=tick_s in wrongly)
            assert (clerk.wrong() == []) is (wrongly == fired), (misfire, wrongly)

    late = with_plan(catch_up_ms=3 * S)
    late.tick(10, 14)
    assert late.wrong() == ["tick 10000 fired, though it was 4000 ms late"]


def test_overlaps_go_by_their_policies() -> None:
    """While the tick before's job has not ended: left out, kept, fired, or fired at its expense."""
    for overlap in ("SKIP", "BUFFER_ONE", "CANCEL_OTHER", "ALLOW"):
        fired = with_plan(overlap=overlap)
        fired.tick(10, 10)
        fired.tick(20, 20)
        assert (fired.wrong() == []) is (overlap == "ALLOW"), overlap

        left_out = with_plan(overlap=overlap)
        left_out.tick(10, 10)
        left_out.tick(20, 20, fires=False)
        assert (left_out.wrong() == []) is (overlap == "SKIP"), overlap

        kept = with_plan(overlap=overlap)
        kept.tick(10, 10)
        kept.tick(20, 20, fires=False, buffered_ms=20 * S)
        kept.tick(30, 30, fires=False, buffered_ms=20 * S)
        kept.end(10, 31)
        kept.last = kept.job(20)
        kept.submit(kept.last, 31)
        kept.move(40 * S, 31)
        assert (kept.wrong() == []) is (overlap == "BUFFER_ONE"), (overlap, kept.wrong())

    ended = with_plan(overlap="SKIP")
    ended.tick(10, 10)
    ended.end(10, 15)
    ended.tick(20, 20, fires=False)
    assert ended.wrong() == ["tick 20000 was left out, and no rule says so"]


def test_cancel_other_fires_when_the_other_has_ended() -> None:
    """Which was asked to stop; of several ticks the newest. One that is queued is gone at once."""

    def journal(*, asked: bool = True, ended: bool = True, fires: int = 30) -> Clerk:
        clerk = with_plan(overlap="CANCEL_OTHER")
        clerk.tick(10, 10)
        if asked:
            clerk.facts.append(CancelAsked(0, clerk.last))
        for tick_s in (20, 30):
            clerk.tick(tick_s, tick_s, fires=False, buffered_ms=tick_s * S)
        if ended:
            clerk.end(10, 31)
        clerk.last = clerk.job(fires)
        clerk.submit(clerk.last, 31)
        clerk.move(40 * S, 31)
        return clerk

    assert journal().wrong() == []
    assert journal(asked=False).wrong() != []
    assert journal(ended=False).wrong() != []
    assert journal(fires=20).wrong() != []

    at_once = with_plan(overlap="CANCEL_OTHER")
    at_once.tick(10, 10)
    at_once.tick(20, 20)
    assert len(at_once.wrong()) == 1

    queued = with_plan(overlap="CANCEL_OTHER")
    queued.tick(10, 10)
    queued.facts.append(Settled(0, queued.last, 0, "", "CANCELLED", "", GIVES_WAY, 20 * S))
    queued.tick(20, 20, fires=False, buffered_ms=20 * S)
    queued.last = queued.job(20)
    queued.submit(queued.last, 20)
    queued.move(30 * S, 20)
    assert queued.wrong() == []


def test_a_tick_that_is_kept_for_nobody_is_found() -> None:
    """The job that it waited for has ended long ago, and nothing has come since."""
    clerk = with_plan(overlap="BUFFER_ONE", end_ms=20 * S)
    clerk.tick(10, 10)
    clerk.move(0, 20, buffered_ms=20 * S)
    clerk.end(10, 25)
    assert clerk.wrong() == []
    clerk.facts.append(Granted(0, "other", "", 1, 60 * S))
    assert clerk.wrong() == ["tick 20000 is kept for nobody"]


def test_a_kept_tick_that_never_fires_is_found() -> None:
    """The job before has ended, and the tick that waited for it is gone."""
    clerk = with_plan(overlap="BUFFER_ONE")
    clerk.tick(10, 10)
    clerk.tick(20, 20, fires=False, buffered_ms=20 * S)
    clerk.end(10, 25)
    clerk.tick(30, 30)

    assert clerk.wrong() == ["tick 20000 was kept, and left out at 30000"]


def test_jobs_elsewhere_are_as_far_as_they_were_told_of() -> None:
    """A tick's job of another partition has ended when this one has taken word of it."""

    def journal(*, told: bool, fires: bool) -> Clerk:
        # The queue's home is partition 1, of two: see check_schedules.
        plan = PLAN._replace(queue=_far_queue(), overlap="SKIP")
        clerk = Clerk(plan, partitions=2)
        for tick_s in (10, 20):
            if tick_s == 10 or fires:
                clerk.last = clerk.job(tick_s, 1)
                message = Message("submit", clerk.last, content="c")
                clerk.facts.append(Sent(0, tick_s * S, 1, tick_s // 10, message))
                there = Submitted(tick_s, clerk.last, "c", 1, 0, tick_s * S, "t", plan.queue)
                clerk.elsewhere.append(there)
            clerk.move((tick_s + 10) * S, tick_s)
            if told and tick_s == 10:
                word = Message("tell", clerk.last, "twin", 0, "COMPLETED")
                clerk.elsewhere.append(Sent(11, 11 * S, 0, 1, word))
                clerk.facts.append(Taken(0, 12 * S, 1, 1))
        return clerk

    assert journal(told=True, fires=True).wrong() == []
    assert journal(told=False, fires=False).wrong() == []
    assert len(journal(told=True, fires=False).wrong()) == 1
    assert len(journal(told=False, fires=True).wrong()) == 1


def _far_queue() -> str:
    return next(q for q in ("a", "b", "c", "d", "e", "f") if home_partition("t", q, 2) == 1)


@pytest.mark.parametrize("jitter_ms", [1, 900, 60_000])
def test_jitter_is_part_of_the_time(jitter_ms: int) -> None:
    """A tick fires at its time and its jitter, under an id that says so."""
    spec = ScheduleSpec(
        cron=PLAN.cron, time_zone="UTC", policy=Policy(name="j"), jitter_ms=jitter_ms
    )
    cursor = ScheduleCursor(next_ms=10 * S)
    record = ScheduleRecord(tenant="t", name="n", spec=spec, cursor=cursor, seq=1)
    clerk = with_plan(jitter_ms=jitter_ms)
    for (tick_ms, due_ms), _ in zip(Ticks(record), range(3), strict=False):
        clerk.last = str(tick_job_id(0, ("t", "n"), tick_ms, due_ms))
        clerk.submit(clerk.last, due_ms / S)
        clerk.move(tick_ms + 10 * S, due_ms / S)

    assert clerk.wrong() == []


def test_what_was_acknowledged_is_there() -> None:
    """A schedule, and a trigger's job."""
    other = [row for row in ROWS if row.type == "invoke"]
    other.append(at(1.0, "ok", SCHEDULE, 1, schedule="other", tenant="t", content="x"))
    assert Clerk().wrong(other) == ["it was acknowledged to be so, and never was"]

    gone = [
        *ROWS,
        at(2.0, "invoke", TRIGGER, 2, schedule="n", tenant="t"),
        at(3.0, "ok", TRIGGER, 2, schedule="n", tenant="t", job="gone"),
    ]
    assert Clerk().wrong(gone) == ["its trigger was acknowledged, and it is not there"]
