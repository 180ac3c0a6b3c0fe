"""Crowds that are due at one moment: how much one decision does, and that all of it gets done."""

from collections.abc import Callable
from random import Random
from typing import Final

import pytest

from tenure.master.core.effect import Decision
from tenure.master.core.event import (
    AttemptsEnded,
    JobsCancelled,
    JobsReadied,
    JobsSubmitted,
    SchedulesTicked,
)
from tenure.master.core.record import Policy
from tenure.master.core.settings import QueueSettings, RateLimit
from tenure.master.core.volatile import TimersFired
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import JobState, LimitStrategy, Misfire, Overlap
from tests.unit.master.core.audit import audit, state_of
from tests.unit.master.core.planner import EVERY_MS, changed, put
from tests.unit.master.core.rig import CONFIG, JOB, Rig

MAIL: Final = ("default", "mail")
ROWS: Final = 20


def crowd() -> Rig:
    """A partition with one worker; what is derived is checked in the end."""
    rig = Rig(audited=False)
    rig.open_session(1, slots=1_000)
    return rig


def is_due(rig: Rig) -> bool:
    """Whether more is to be done now; a schedule that has more ticks is looked at a ms later."""
    due_ms = rig.partition.next_timer_ms()
    if due_ms is None or due_ms > rig.now_ms + 1:
        return False
    rig.now_ms = max(rig.now_ms, due_ms)
    return True


def all_fired(rig: Rig, size: Callable[[Decision], int]) -> list[int]:
    """Does all that is due in portions; the size of each decision."""
    sizes = []
    while is_due(rig):
        sizes.append(size(rig.fire(ROWS)))
        assert len(sizes) < 1_000
    audit(rig.partition)
    return sizes


def rows_of(decision: Decision, kind: type, field: str = "job_ids") -> int:
    """How many rows the events of one type have."""
    return sum(len(getattr(event, field)) for event in decision.events if isinstance(event, kind))


def test_delayed_jobs() -> None:
    """A decision makes no more jobs ready than it was asked for."""
    rig = crowd()
    rig.submit(500, delay_ms=1_000)
    rig.now_ms += 1_000
    assert all_fired(rig, lambda found: rows_of(found, JobsReadied)) == [ROWS] * 25


def test_what_becomes_ready_together_is_granted_as_if_one_by_one() -> None:
    """Delays, retries, priorities and keys in one event: the order is that of single ones."""
    orders = []
    for rows_max in (1_000, 1):
        rig, draw = crowd(), Random(3)
        rig.submit(40, Policy(name="job", queue="a"))
        for row in rig.grant(1, 40):
            rig.fail(row, draw=draw.random())
        for _ in range(40):
            rig.now_ms += draw.randrange(2)
            policy = JOB if draw.randrange(2) else Policy(name="job", deadline_ms=90_000)
            rig.submit(
                draw.randrange(1, 4),
                policy,
                priority=draw.randrange(3),
                delay_ms=draw.randrange(5_000),
                limit_key=draw.choice(["", "", "k", "l"]),
            )
        rig.now_ms += 60_000
        while is_due(rig):
            rig.fire(rows_max)
        audit(rig.partition)
        rig.renew(1, 1_000)
        rows = [row.job_id for row in rig.grant(1, 1_000)]
        assert not rig.partition.has_ready()
        orders.append(rows)
    assert orders[0] == orders[1]


def test_leases_of_workers_that_are_lost_together() -> None:
    """A decision ends the leases of some workers: one worker's at once, as they have one end."""
    rig = Rig(audited=False)
    for session_id in range(1, 31):
        rig.open_session(session_id, slots=6)
    rig.submit(180)
    for session_id in range(1, 31):
        rig.grant(session_id, 6)
    rig.now_ms += CONFIG.lease_ttl_ms + CONFIG.lease_margin_ms
    sizes = all_fired(rig, lambda found: rows_of(found, AttemptsEnded, "rows"))
    assert sum(sizes) == 180
    assert max(sizes) <= ROWS + 6


def test_ticks_after_a_downtime() -> None:
    """A decision submits the jobs of some ticks, and moves no more cursors than that."""
    rig = crowd()
    spec = changed(misfire=Misfire.FIRE_ALL, overlap=Overlap.ALLOW)
    for number in range(30):
        put(rig, spec, f"s{number}")
    rig.now_ms += 10 * EVERY_MS
    sizes = all_fired(
        rig,
        lambda found: max(
            rows_of(found, JobsSubmitted, "rows"), rows_of(found, SchedulesTicked, "rows")
        ),
    )
    assert sum(sizes) == 300
    assert max(sizes) <= ROWS


def test_ticks_that_are_left_out_after_a_downtime() -> None:
    """However many ticks each of many schedules has missed: a decision looks at some dozens."""
    rig = crowd()
    for number in range(30):
        put(rig, changed(misfire=Misfire.SKIP), f"s{number}")
    rig.now_ms += 100 * EVERY_MS

    def left_out() -> int:
        return sum(
            record.cursor.skipped for record in state_of(rig.partition).timetable.records.values()
        )

    before = 0
    while is_due(rig):
        rig.fire(ROWS)
        assert left_out() - before <= 100
        before = left_out()
    audit(rig.partition)
    assert before >= 30 * 99


def test_gates_of_keys_whose_buckets_fill_together() -> None:
    """A decision opens some of them."""
    rig = crowd()
    rig.configure(MAIL, QueueSettings(key_rate=RateLimit(1, 1_000, 1)))
    rig.now_ms += 1_000
    policy = Policy(name="job", queue="mail")
    for number in range(200):
        rig.submit(2, policy, limit_key=f"k{number}")
    all_fired(rig, lambda found: 0)
    assert len(rig.grant(1, 1_000)) == 200
    assert not rig.partition.has_ready()
    rig.now_ms += 1_000

    before = 0

    def opened(_: Decision) -> int:
        nonlocal before
        grown, before = rig.partition.backlog_for(1) - before, rig.partition.backlog_for(1)
        return grown

    assert all_fired(rig, opened) == [ROWS] * 10


@pytest.mark.parametrize(
    "strategy", [LimitStrategy.CANCEL_NEWEST, LimitStrategy.CANCEL_IN_PROGRESS]
)
def test_a_backlog_whose_key_is_limited_late(strategy: LimitStrategy) -> None:
    """What is too much of a long backlog is cancelled in portions, the same as at once."""
    rig = crowd()
    policy = Policy(name="job", queue="mail")
    ids: list[JobId] = []
    for _ in range(50):
        ids += rig.submit(6, policy, limit_key="k")
    rig.configure(MAIL, QueueSettings(key_concurrency=7, key_strategy=strategy))
    sizes = all_fired(rig, lambda found: rows_of(found, JobsCancelled))
    assert sum(sizes) == 293
    assert max(sizes) <= ROWS
    left = [job_id for job_id in ids if rig.state(job_id) is JobState.PENDING]
    stay = slice(0, 7) if strategy is LimitStrategy.CANCEL_NEWEST else slice(-7, None)
    assert left == ids[stay]


def test_all_kinds_together() -> None:
    """Timers of one kind do not wait for those of others."""
    rig = crowd()
    put(rig, changed(misfire=Misfire.FIRE_ALL, overlap=Overlap.ALLOW))
    rig.submit(100, delay_ms=EVERY_MS)
    rig.submit(5)
    rig.grant(1, 5)
    rig.now_ms += CONFIG.lease_ttl_ms + CONFIG.lease_margin_ms + EVERY_MS
    decision = rig.fire(ROWS)
    assert rows_of(decision, JobsReadied) == ROWS
    assert rows_of(decision, AttemptsEnded, "rows") == 5
    assert rows_of(decision, JobsSubmitted, "rows") == 1
    assert any(isinstance(event, TimersFired) for event in decision.events)
