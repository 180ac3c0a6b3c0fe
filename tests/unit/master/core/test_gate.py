"""Gates: pauses of tenants, queues and job types, and what it costs to be held up."""

import sys
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core.command import CancelJobs
from tenure.master.core.gate import MANY, Gate, JobType, LimitKey, Queue, Tenant, judge
from tenure.master.core.record import JobRecord, Policy
from tenure.master.core.settings import (
    AnySettings,
    BreakerSettings,
    JobTypeSettings,
    KeyOverride,
    QueueSettings,
    RateLimit,
    SettingsKey,
    TenantSettings,
)
from tenure.protocol.vocabulary import (
    AttemptOutcome,
    BreakerOverride,
    FairBy,
    JobState,
    LimitStrategy,
)
from tests.unit.master.core.audit import audit, state_of
from tests.unit.master.core.rig import Rig

PAUSES: list[tuple[SettingsKey, AnySettings]] = [
    (("t",), TenantSettings(paused=True)),
    (("t", "q"), QueueSettings(paused=True)),
    (("t", "job"), JobTypeSettings(paused=True)),
]
JOB = Policy(name="job", tenant="t", queue="q")


@pytest.mark.parametrize(("key", "paused"), PAUSES)
def test_pause_holds_what_waits_and_lets_what_runs(key: SettingsKey, paused: AnySettings) -> None:
    """A pause stops grants, not what runs; a resume goes on where it stopped."""
    rig = Rig()
    ids = rig.submit(3, JOB)
    other = rig.submit_one(Policy(name="other", tenant="u"))
    rig.open_session(1, names=("job", "other"))
    row = rig.grant_one()
    rig.configure(key, paused)
    left = {job_id for job_id in (*ids, other) if job_id != row.job_id}
    assert {granted.job_id for granted in rig.grant(1, 9)} == left - set(ids)
    assert not rig.partition.has_ready()
    assert rig.partition.backlog_for(1) == 0
    rig.report(row)
    assert rig.state(row.job_id) is JobState.COMPLETED
    rig.configure(key, type(paused)())
    assert {granted.job_id for granted in rig.grant(1, 9)} == left & set(ids)


@pytest.mark.parametrize(("key", "paused"), PAUSES)
def test_what_was_held_up_keeps_its_place(key: SettingsKey, paused: AnySettings) -> None:
    """A job that was parked for hours is as old as it is: it comes before those that came later."""
    rig = Rig()
    first = rig.submit(2, JOB)
    rig.configure(key, paused)
    rig.pass_time(3_600_000)
    later = rig.submit(2, JOB)
    urgent = rig.submit(1, JOB, priority=4)
    rig.pass_time(1_000)
    rig.configure(key, type(paused)())
    rig.open_session(1)
    assert [row.job_id for row in rig.grant(1, 9)] == [*first, *urgent, *later]


@pytest.mark.parametrize(("key", "paused"), PAUSES)
def test_pause_holds_through_a_failover(key: SettingsKey, paused: AnySettings) -> None:
    """A pause is journaled."""
    rig = Rig()
    rig.submit(3, JOB)
    rig.configure(key, paused)
    rig.crash(window_ms=0)
    rig.open_session(1)
    assert not rig.grant(1, 9)


def test_a_pause_of_one_job_type_holds_up_nothing_else_of_its_queue() -> None:
    """What comes behind a job that may not run goes ahead, in its own order."""
    rig = Rig()
    held = rig.submit_one(JOB)
    free = rig.submit(2, Policy(name="other", tenant="t", queue="q"))
    rig.configure(("t", "job"), JobTypeSettings(paused=True))
    rig.open_session(1, names=("job", "other"))
    assert [row.job_id for row in rig.grant(1, 9)] == free
    assert rig.state(held) is JobState.PENDING


def test_a_paused_tenants_reserve_is_not_used() -> None:
    """What is kept free for a queue is not for it either while its tenant is paused."""
    rig = Rig()
    rig.open_session(1, slots=2)
    rig.configure(("t", "q"), QueueSettings(reserved=0.9))
    rig.submit(1, JOB)
    rig.configure(("t",), TenantSettings(paused=True))
    assert not rig.grant(1, 1)
    rig.configure(("t",), TenantSettings())
    assert rig.grant(1, 1)


@given(
    changes=st.lists(
        st.tuples(st.sampled_from(PAUSES), st.booleans(), st.integers(0, 3)), max_size=15
    )
)
def test_pauses_add_up(changes: list[tuple[tuple[SettingsKey, AnySettings], bool, int]]) -> None:
    """A job is held up as long as anything that it is of is paused."""
    rig = Rig()
    rig.open_session(1, slots=1_000)
    paused: set[SettingsKey] = set()
    for (key, pause), on, jobs in changes:
        if jobs:
            rig.submit(jobs, JOB)
        rig.configure(key, pause if on else type(pause)())
        (paused.add if on else paused.discard)(key)
        assert bool(rig.grant(1, 1_000)) is False or not paused
        if not paused:
            assert rig.partition.counts().get(JobState.PENDING, 0) == 0


def _calls(rig: Rig, jobs: int) -> int:
    """How many functions a dispatch calls that grants so many jobs."""
    calls = 0

    def count(frame: FrameType, event: str, arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        granted = rig.grant(1, jobs)
    finally:
        sys.setprofile(None)
    assert len(granted) == jobs
    return calls


@pytest.mark.parametrize("held_up", ["queues", "keys", "labels", "tenants", "rate", "sticky"])
def test_what_is_held_up_costs_nothing(held_up: str) -> None:
    """A dispatch takes as many steps with ten times as many jobs held up, whatever holds them."""
    steps = []
    for scale in (20, 200):
        rig = Rig(audited=False)
        rig.open_session(1, slots=10_000)
        for index in range(scale):
            _hold_up(rig, held_up, index)
        rig.submit(100, Policy(name="job", queue="free"))
        rig.grant(1, 10)
        steps.append(_calls(rig, 10))
        audit(rig.partition)
    assert steps[1] <= steps[0] + 10


def _hold_up(rig: Rig, held_up: str, index: int) -> None:
    queue = f"q{index}" if held_up in ("queues", "rate") else "held"
    tenant = f"t{index}" if held_up == "tenants" else "default"
    policy = Policy(name="job", tenant=tenant, queue=queue)
    match held_up:
        case "queues":
            rig.configure((tenant, queue), QueueSettings(paused=True))
        case "rate":
            rig.configure((tenant, queue), QueueSettings(rate=RateLimit(1, 86_400_000, 1)))
        case "tenants":
            rig.configure((tenant,), TenantSettings(paused=True))
        case "keys":
            rig.configure((tenant, queue), QueueSettings(key_concurrency=1))
            rig.submit(1, policy, limit_key=f"k{index}")
            rig.grant(1, 1)
            rig.submit(3, policy, limit_key=f"k{index}")
            return
        case "sticky":
            _bind_elsewhere(rig, policy, f"s{index}")
            return
        case "labels":
            needs = Policy(name=f"elsewhere{index}", queue=queue)
            rig.submit(3, needs)
            return
    rig.submit(3, policy)


def _bind_elsewhere(rig: Rig, policy: Policy, key: str) -> None:
    """Binds a sticky key to another worker, which then has no credit."""
    if 2 not in state_of(rig.partition).sessions:
        rig.open_session(2, slots=10_000)
    rig.submit(1, policy, sticky_key=key)
    rig.grant(2, 1)
    rig.submit(3, policy, sticky_key=key)


def test_many_empty_lanes_are_forgotten() -> None:
    """Keys that were used once leave nothing behind."""
    rig = Rig(audited=False)
    rig.configure(("default", "q"), QueueSettings(key_concurrency=1))
    for index in range(5_000):
        ids = rig.submit(1, Policy(name="job", queue="q"), limit_key=f"k{index}")
        rig.do(CancelJobs(job_ids=ids))
    queue = state_of(rig.partition).lanes.queues["default", "q"]
    assert len(queue.limit_keys) < 4_000
    audit(rig.partition)


# By themselves.


class Listener:
    """What is under a gate: it counts how often it is told."""

    def __init__(self) -> None:
        self.told = 0

    def refresh(self) -> None:
        """The gate has changed."""
        self.told += 1


class Still:
    """A clock that stands."""

    now_ms = 1_000


def queue_of(now_ms: int = 0, **settings: object) -> Queue:
    """A queue with these settings; its buckets were empty at a time."""
    tenant = Tenant("t", TenantSettings())
    return Queue(tenant, "q", QueueSettings(**settings), now_ms, Still())  # type: ignore[arg-type]


def records(rig: Rig, count: int) -> list[JobRecord]:
    """So many jobs."""
    return [rig.record(job_id) for job_id in rig.submit(count)]


def test_a_gate_tells_what_is_under_it_once() -> None:
    """When it opens or closes, and not when it stays as it is; it is open at first."""
    gate, under = Gate(), Listener()
    gate.under[under] = None
    for is_open, told in ((True, 0), (False, 1), (False, 1), (True, 2)):
        gate.turn(is_open)
        assert (gate.is_open, under.told) == (is_open, told)
    assert gate.next_ms() is None


@pytest.mark.parametrize(
    ("settings", "room"),
    [
        ({}, MANY),
        ({"concurrency": 5}, 3),
        ({"concurrency": 2}, 0),
        ({"concurrency": 1}, 0),
        ({"rate": RateLimit(1, 100, 9)}, 4),
        ({"concurrency": 5, "rate": RateLimit(1, 100, 9)}, 3),
        ({"concurrency": 9, "rate": RateLimit(1, 100, 9)}, 4),
    ],
)
def test_a_queue_has_room_for_what_both_limits_let_through(
    settings: dict[str, object], room: int
) -> None:
    """What runs takes of the one; the other one has filled since the queue was made."""
    queue = queue_of(**settings)
    queue.counts[JobState.RUNNING] = 2
    assert queue.room(400) == room
    assert queue.limited is bool(settings)
    assert queue.has_room() is (settings.get("concurrency", 9) not in (1, 2))


def test_a_rate_that_changes_begins_with_an_empty_bucket() -> None:
    """One that stays goes on, unless all are to begin anew; without one there is no bucket."""
    rate, other = RateLimit(1, 100, 9), RateLimit(2, 100, 9)
    queue = queue_of(rate=rate)
    queue.is_dry = True
    for next_rate, anew, fresh, room in (
        (rate, False, False, 4),
        (other, False, True, 6),
        (other, True, True, 2),
        (None, False, False, MANY),
        (None, True, False, MANY),
        (rate, False, True, 3),
    ):
        empty_ms = 300 if anew else 100
        assert queue.limit(0, next_rate, empty_ms, anew=anew) is fresh
        assert queue.room(400) == room
        assert queue.limited is (next_rate is not None)
        assert queue.is_dry is (room == 4)
    assert not queue.limit(7, rate, 100)
    assert (queue.concurrency, queue.limited) == (7, True)


def test_what_a_job_costs_follows_the_runs_of_its_queue() -> None:
    """About as long as they were lately, where time counts; a second before any is known."""
    queue = queue_of(fair_by=FairBy.TIME)
    assert (queue.cost, queue.cost_ms) == (1.0, 1_000)
    for run_ms, mean_ms in ((0, 1), (8_001, 1_001), (2_500, 1_188), (1_181, 1_187)):
        queue.note_run(run_ms)
        assert (queue.mean_run_ms, queue.cost_ms) == (mean_ms, mean_ms)
    assert queue.cost == 1.187
    counted = queue_of()
    counted.note_run(5_000)
    assert (counted.cost, counted.cost_ms) == (1.0, 0)


@pytest.mark.parametrize(
    ("before", "after", "more"),
    [
        (0.0, 0.5, False),
        (0.5, 0.6, True),
        (0.5, 0.4, False),
        (0.5, 0.5, False),
        (0.5, 0.0, True),
        (0.0, 0.0, False),
    ],
)
def test_a_budget_that_lets_more_through_is_told(before: float, after: float, more: bool) -> None:
    """Without any, all may come; a budget that changes goes on."""
    gate = JobType("t", "job", JobTypeSettings(retry_budget=before))
    budget = gate.budget
    assert (budget is not None) is bool(before)
    assert gate.configure(JobTypeSettings(retry_budget=after)) is more
    assert (gate.budget is not None) is bool(after)
    if before and after:
        assert gate.budget is budget
    if gate.budget is not None:
        gate.budget.granted(100, 0)
        found = gate.budget.begin(0, waits=False)
        assert [found.place_ms() for _ in range(100)].count(None) == round(100 * after)


def test_a_breaker_that_stays_goes_on() -> None:
    """Another one begins anew, and so do all with a term."""
    tuned = BreakerSettings(volume_min=1)
    gate = JobType("t", "job", JobTypeSettings(breaker=tuned))
    (record,) = records(Rig(), 1)
    record.outcome = AttemptOutcome.FAILED
    assert judge(gate, [record], 1_000, done=False)
    assert (gate.is_open, gate.next_ms()) == (False, 31_000)
    gate.configure(JobTypeSettings(breaker=tuned, retry_budget=0.5))
    assert (gate.is_open, gate.next_ms()) == (False, 31_000)
    gate.configure(JobTypeSettings(breaker=BreakerSettings(volume_min=2)))
    assert (gate.is_open, gate.next_ms()) == (True, None)
    gate.configure(JobTypeSettings(breaker=tuned))
    judge(gate, [record], 1_000, done=False)
    gate.begin_term()
    assert (gate.is_open, gate.next_ms()) == (True, None)
    assert gate.label == "t::job"


def test_probes_open_and_close_the_gate() -> None:
    """It opens when its time has come, closes with the last probe, and opens with a success."""
    gate = JobType("t", "job", JobTypeSettings(breaker=BreakerSettings(volume_min=1, probes=2)))
    first, second = records(Rig(), 2)
    first.outcome = AttemptOutcome.FAILED
    judge(gate, [first], 1_000, done=False)
    gate.wake(30_999)
    assert not gate.is_open
    gate.wake(31_000)
    assert gate.is_open
    assert not gate.granted([first], 31_000)
    assert gate.is_open
    gate.granted([second], 31_000)
    assert not gate.is_open
    assert not judge(gate, [first, second], 31_000, done=True)
    assert gate.is_open


def limit_key(**settings: object) -> LimitKey:
    """A key of a queue with these settings."""
    return LimitKey(queue_of(**settings), "k")


def test_a_key_counts_those_that_run() -> None:
    """Each once, whatever it is told of twice; it closes when it is full."""
    key = limit_key(key_concurrency=2)
    first, second, third = records(Rig(), 3)
    for jobs, by, running, is_open in (
        ([first], 1, 1, True),
        ([first, second], 1, 2, False),
        ([third], 0, 2, False),
        ([third], -1, 2, False),
        ([first], -1, 1, True),
    ):
        key.count(jobs, by)
        assert (key.running(), key.is_open) == (running, is_open)
    assert list(key.jobs.values()) == [second]
    assert key.label == "t:q:k"


@pytest.mark.parametrize(
    ("dry", "open_for_ms", "next_ms"),
    [
        (False, 0, None),
        (True, 0, 1_500),
        (False, 700, 1_700),
        (True, 700, 1_500),
        (True, 200, 1_200),
    ],
)
def test_a_key_opens_when_the_first_of_its_times_has_come(
    dry: bool, open_for_ms: int, next_ms: int | None
) -> None:
    """That of its bucket or of its breaker; who waits for neither has none."""
    tuned = BreakerSettings(volume_min=1, open_for_ms=open_for_ms or 1)
    key = LimitKey(queue_of(1_000, key_rate=RateLimit(1, 500, 1), key_breaker=tuned), "k")
    key.is_dry = dry
    if open_for_ms:
        (record,) = records(Rig(), 1)
        record.outcome = AttemptOutcome.FAILED
        assert judge(key, [record], 1_000, done=False)
    key.refresh()
    assert key.next_ms() == next_ms
    assert key.is_open is (not dry and not open_for_ms)
    assert list(key.queue.tripped) == ([key] if open_for_ms else [])
    assert key.room(1_500) == (0 if open_for_ms else 1)
    key.wake(1_499)
    assert key.is_dry is dry
    key.wake(1_700)
    assert (key.is_dry, key.is_open) == (False, True)


def test_a_key_without_a_breaker_has_none() -> None:
    """Unless an operator holds it; and it has the one of its queue's settings."""
    held = KeyOverride("k", BreakerOverride.OPEN)
    queue = queue_of(key_breaker_overrides=(held,))
    key, other = LimitKey(queue, "k"), LimitKey(queue, "other")
    assert (key.is_open, key.limited, other.is_open, other.limited) == (False, True, True, False)
    assert (key.breaker is None, other.breaker is None) == (False, True)
    assert list(queue.tripped) == [key]
    queue.settings = QueueSettings()
    assert not key.configure()
    key.refresh()
    assert (key.breaker, key.is_open, key.limited, queue.tripped) == (None, True, False, {})
    queue.settings = QueueSettings(key_breaker=BreakerSettings())
    key.configure()
    breaker = key.breaker
    assert breaker is not None
    assert key.limited
    key.configure()
    assert key.breaker is breaker
    key.configure(anew=True)
    assert key.breaker is not breaker


def test_what_is_known_of_a_key_keeps_it() -> None:
    """What runs or waits of it, tokens that it lacks, and failures that it remembers."""
    tuned = BreakerSettings(volume_min=5, window_ms=1_200)
    key = limit_key(key_rate=RateLimit(1, 1_000, 2), key_breaker=tuned)
    assert [key.is_idle(ms) for ms in (1_999, 2_000)] == [False, True]
    (record,) = records(Rig(), 1)
    key.waiting[record] = 1
    assert not key.is_idle(2_000)
    del key.waiting[record]
    key.jobs[record.job_id] = record
    assert not key.is_idle(2_000)
    del key.jobs[record.job_id]
    record.outcome = AttemptOutcome.FAILED
    assert not judge(key, [record], 2_000, done=False)
    assert [key.is_idle(ms) for ms in (2_000, 3_100, 3_200)] == [False, False, True]
    assert limit_key().is_idle(0)


def test_a_key_cancels_only_what_its_queue_says() -> None:
    """And only if it has a limit."""
    newest = LimitStrategy.CANCEL_NEWEST
    assert not limit_key(key_strategy=newest).cancels
    assert not limit_key(key_concurrency=1).cancels
    assert limit_key(key_concurrency=1, key_strategy=newest).cancels
    assert not judge(limit_key(), records(Rig(), 1), 1_000, done=False)
