"""All lanes of a partition: those that are empty are dropped, and nothing is lost with them."""

from dataclasses import replace

import pytest

from tenure.master.core import command as commands
from tenure.master.core.command import SubmitRow
from tenure.master.core.record import Policy
from tenure.master.core.settings import BreakerSettings, QueueSettings, RateLimit
from tenure.protocol.vocabulary import LimitStrategy
from tests.unit.master.core.audit import audit, state_of
from tests.unit.master.core.rig import CONFIG, Rig

#: Leases that outlive every pause of these tests.
LASTING = replace(CONFIG, lease_ttl_ms=1 << 40)
#: So many empty lanes are kept.
EMPTY_MAX = 1_024
DAY_MS = 86_400_000
JOB = Policy(name="job", queue="q")


def come_and_go(rig: Rig, keys: int) -> None:
    """So many keys are used once, by more jobs than may run: those have lanes under them."""
    for index in range(keys):
        ids = rig.submit(2, JOB, limit_key=f"k{index}")
        rig.do(commands.CancelJobs(job_ids=ids))


def test_of_many_empty_lanes_the_oldest_are_dropped() -> None:
    """And no others: a lane that will be used again is not made anew each time."""
    rig = Rig(audited=False)
    rig.configure(("default", "q"), QueueSettings(key_concurrency=1))
    come_and_go(rig, EMPTY_MAX)
    queue = state_of(rig.partition).lanes.queues["default", "q"]
    assert len(queue.lanes) == len(queue.limit_keys) == EMPTY_MAX
    rig.submit(2, JOB, limit_key="one more")
    assert len(queue.lanes) == len(queue.limit_keys) == EMPTY_MAX
    assert next(iter(queue.limit_keys)) == "k1"
    audit(rig.partition)


def test_a_peak_of_limit_keys_is_forgotten_as_it_ends() -> None:
    """Though no other key comes after it."""
    rig = Rig(audited=False)
    rig.configure(("default", "q"), QueueSettings(key_concurrency=1))
    ids = [
        job_id
        for number in range(3 * EMPTY_MAX)
        for job_id in rig.submit(2, JOB, limit_key=f"k{number}")
    ]
    queue = state_of(rig.partition).lanes.queues["default", "q"]
    assert len(queue.limit_keys) == 3 * EMPTY_MAX
    rig.do(commands.CancelJobs(job_ids=ids))
    assert len(queue.lanes) == len(queue.limit_keys) <= EMPTY_MAX
    audit(rig.partition)


def test_a_key_that_is_to_be_looked_at_outlives_its_lane() -> None:
    """Crowded keys are looked at in their order, and counted: none may be gone meanwhile."""
    rig = Rig(audited=False)
    strategy = LimitStrategy.CANCEL_NEWEST
    rig.configure(("default", "q"), QueueSettings(key_concurrency=1, key_strategy=strategy))
    ids = [rig.submit(1, JOB, limit_key=f"k{number}")[0] for number in range(EMPTY_MAX + 10)]
    lanes = state_of(rig.partition).lanes
    rig.do(commands.CancelJobs(job_ids=ids))
    assert len(lanes.crowded) == len(ids)
    rig.fire(2 * EMPTY_MAX)
    assert not lanes.crowded


@pytest.mark.parametrize(
    "limits",
    [QueueSettings(key_concurrency=1), QueueSettings(key_rate=RateLimit(1, DAY_MS, 1))],
    ids=["concurrency", "rate"],
)
def test_a_key_that_remembers_something_outlives_its_lane(limits: QueueSettings) -> None:
    """What runs under it and what tokens it has used count on, however many come and go."""
    rig = Rig(LASTING, audited=False)
    rig.open_session(1, slots=100)
    rig.configure(("default", "q"), limits)
    rig.pass_time(DAY_MS)
    rig.submit(1, JOB, limit_key="kept")
    (kept,) = rig.grant(1, 10)
    come_and_go(rig, EMPTY_MAX + 10)
    queue = state_of(rig.partition).lanes.queues["default", "q"]
    assert "k0" not in queue.limit_keys
    rig.submit(1, JOB, limit_key="kept")
    assert rig.grant(1, 10) == []
    rig.accept(1, 1)
    rig.report(kept)
    assert len(rig.grant(1, 10)) == (limits.key_rate is None)
    audit(rig.partition)


def test_a_sticky_key_stays_bound_though_it_has_no_lane() -> None:
    """Its next job goes where the others went, after many lanes have come and gone."""
    rig = Rig(audited=False)
    rig.configure(("default", "q"), QueueSettings(key_concurrency=1))
    rig.open_session(1)
    rig.open_session(2)
    rig.submit(1, JOB, sticky_key="s")
    (row,) = rig.grant(2, 1)
    rig.accept(2, 1)
    rig.report(row, session_id=2)
    come_and_go(rig, EMPTY_MAX + 10)
    queue = state_of(rig.partition).lanes.queues["default", "q"]
    assert ("job", 5, "", "s") not in queue.lanes
    rig.submit(1, JOB, sticky_key="s")
    assert rig.grant(1, 10) == []
    assert len(rig.grant(2, 10)) == 1
    audit(rig.partition)


def test_nothing_stays_of_queues_that_are_gone() -> None:
    """Neither with the sessions that had their sticky keys, nor with their job types."""
    rig = Rig()
    rig.open_session(1)
    for number in range(3):
        ids = rig.submit(1, Policy(name="job", queue=f"q{number}"), sticky_key="s")
        rig.report(rig.grant_one())
        rig.do(commands.PurgeJobs(job_ids=ids))
    state = state_of(rig.partition)
    job_type = state.lanes.known_job_type("default", "job")
    assert job_type is not None
    assert (state.lanes.queues, state.sessions[1].bound, job_type.under) == ({}, {}, {})


def test_a_tenant_is_rid_of_shares_without_a_queue() -> None:
    """Though it lives on, by a queue that those with the share do not serve."""
    rig = Rig()
    rig.open_session(1, queues=("served",))
    rig.submit_one(Policy(name="job", queue="other"))
    for _ in range(3):
        ids = rig.submit(1, Policy(name="job", queue="served"))
        rig.do(commands.CancelJobs(job_ids=ids))
        rig.do(commands.PurgeJobs(job_ids=ids))
    (queue,) = state_of(rig.partition).lanes.queues.values()
    assert queue.tenant.under == {}


def test_one_event_makes_jobs_of_several_lanes_ready() -> None:
    """They differ by their keys only, and each goes to its own lane, in order."""
    rig = Rig()
    rig.configure(("default", "q"), QueueSettings(key_breaker=BreakerSettings()))
    rig.open_session(1)
    rows = [
        SubmitRow(rig.mint(), 0, b"", "", limit_key, sticky_key)
        for limit_key, sticky_key in [("", ""), ("a", ""), ("", "a"), ("a", ""), ("a", "a")]
    ]
    rig.submit_rows(rows, JOB)
    lanes = sorted(lane.ready for lane in state_of(rig.partition).lanes.lanes())
    assert lanes == [1, 1, 1, 2]
    assert [row.job_id for row in rig.grant(1, 10)] == [row.job_id for row in rows]
