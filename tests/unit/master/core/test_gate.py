"""Gates: pauses of tenants, queues and job types, and what it costs to be held up."""

import sys
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core.command import CancelJobs
from tenure.master.core.record import Policy
from tenure.master.core.settings import (
    AnySettings,
    JobTypeSettings,
    QueueSettings,
    RateLimit,
    SettingsKey,
    TenantSettings,
)
from tenure.protocol.vocabulary import JobState
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
