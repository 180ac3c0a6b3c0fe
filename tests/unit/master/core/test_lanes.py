"""All lanes of a partition: those that are empty are dropped, and nothing is lost with them."""

from dataclasses import replace

import pytest

from tenure.master.core import command as commands
from tenure.master.core import lanes as lanes_module
from tenure.master.core.command import SubmitRow
from tenure.master.core.gate import Queue
from tenure.master.core.lanes import Lanes
from tenure.master.core.record import LabelSelector, Policy
from tenure.master.core.settings import (
    BreakerSettings,
    JobTypeSettings,
    QueueSettings,
    RateLimit,
    SettingsKey,
    TenantSettings,
)
from tenure.protocol.vocabulary import FairBy, LimitStrategy
from tests.unit.master.core.audit import audit, state_of
from tests.unit.master.core.rig import CONFIG, Rig

#: Leases that outlive every pause of these tests.
LASTING = replace(CONFIG, lease_ttl_ms=1 << 40)
#: So many empty lanes are kept.
EMPTY_MAX = 1_024
DAY_MS = 86_400_000
JOB = Policy(name="job", queue="q")
REGION = LabelSelector("region")


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


# Who is there.


def test_a_kind_of_worker_that_goes_leaves_lanes_to_the_others() -> None:
    """What comes into a lane that was there before finds those that are there yet."""
    rig = Rig()
    rig.open_session(1)
    rig.open_session(2, names=("job", "other"))
    rig.submit(1)
    rig.do(commands.CloseSession(session_id=1))
    rig.submit(1)
    assert len(rig.grant(2, 9)) == 2


def test_a_kind_of_worker_that_is_told_apart_stands_where_it_stood() -> None:
    """Who has had more of its worker waits for its turn, though a job asks for a label now."""
    rig = Rig()
    rig.open_session(1, slots=100, labels={"region": "eu"})
    for tenant in ("first", "second"):
        rig.submit(50, Policy(name="job", tenant=tenant))
    (row,) = rig.grant(1, 1)
    assert rig.record(row.job_id).policy.tenant == "first"
    rig.submit(1, Policy(name="job", tenant="third", requires=(REGION,)), delay_ms=60_000)
    rig.pass_time(60_000)
    rows = rig.grant(1, 1)
    assert [rig.record(row.job_id).policy.tenant for row in rows] != ["first"]


def test_jobs_of_bound_keys_stay_with_a_worker_that_is_told_apart() -> None:
    """Those that wait, and those that come."""
    rig = Rig(LASTING)
    rig.open_session(1, slots=100, labels={"region": "eu"})
    rig.open_session(2, slots=100)
    rig.submit(1, sticky_key="s")
    rig.grant(1, 1)
    rig.submit(1, sticky_key="s")
    rig.submit(1, Policy(name="other", requires=(REGION,)))
    assert rig.grant(2, 9) == []
    rig.submit(1, sticky_key="s")
    assert len(rig.grant(1, 9)) == 2


@pytest.mark.parametrize("key", [("default", "default"), ("default",)], ids=["queue", "tenant"])
def test_jobs_of_bound_keys_are_work_while_they_may_be_granted(key: SettingsKey) -> None:
    """Not while their queue or their tenant is paused, nor when there are none."""
    rig = Rig(LASTING)
    rig.open_session(1, slots=100)
    rig.submit(1, sticky_key="s")
    rig.grant(1, 1)
    assert not rig.partition.has_ready()
    rig.submit(1, sticky_key="s")
    assert rig.partition.has_ready()
    for paused in (True, False):
        is_queue = len(key) == 2
        rig.configure(
            key, QueueSettings(paused=paused) if is_queue else TenantSettings(paused=paused)
        )
        assert rig.partition.has_ready() is not paused


def _default(rig: Rig) -> tuple[Lanes, Queue]:
    """All lanes, and the queue that most jobs are in."""
    lanes = state_of(rig.partition).lanes
    return lanes, lanes.queues["default", "default"]


# What there is.


def test_jobs_that_ask_for_the_same_have_lanes_by_their_names() -> None:
    """Who cannot run one of them gets none of it."""
    rig = Rig()
    rig.open_session(1, names=("a",), labels={"region": "eu"})
    ids = [rig.submit_one(Policy(name=name, requires=(REGION,))) for name in "ab"]
    assert [row.job_id for row in rig.grant(1, 9)] == ids[:1]


def test_sticky_keys_are_bound_one_by_one() -> None:
    """What goes to one worker keeps no other key's jobs from another."""
    rig = Rig()
    for session_id in (1, 2):
        rig.open_session(session_id)
    rig.submit(1, sticky_key="a")
    rig.grant(1, 1)
    rig.submit(1, sticky_key="b")
    assert len(rig.grant(2, 9)) == 1


def test_a_bucket_of_a_queue_that_is_made_later_fills_from_then_on() -> None:
    """However long the term has been: what nobody counted is not there to be used."""
    rig = Rig(LASTING)
    rig.open_session(1)
    rig.pass_time(DAY_MS)
    rig.configure(("default", "q"), QueueSettings(rate=RateLimit(1, DAY_MS, 1)))
    rig.submit(1, JOB)
    assert rig.grant(1, 9) == []
    rig.pass_time(DAY_MS)
    assert len(rig.grant(1, 9)) == 1


def test_a_rate_that_is_set_while_jobs_wait_counts_from_then_on() -> None:
    """Its bucket was empty as it was set."""
    rig = Rig(LASTING)
    rig.open_session(1)
    rig.submit(2, JOB)
    rig.pass_time(DAY_MS)
    rig.configure(("default", "q"), QueueSettings(rate=RateLimit(1, DAY_MS, 1)))
    assert rig.grant(1, 9) == []
    rig.pass_time(DAY_MS)
    assert len(rig.grant(1, 9)) == 1


def test_buckets_of_keys_are_emptied_by_a_new_rate_only() -> None:
    """What else of a queue is changed leaves them as full as they are."""
    rig = Rig(LASTING)
    rig.open_session(1)
    rate = RateLimit(1, DAY_MS, 1)
    rig.configure(("default", "q"), QueueSettings(key_rate=rate))
    rig.pass_time(DAY_MS)
    rig.configure(("default", "q"), QueueSettings(key_rate=rate, weight=2.0))
    rig.submit(1, JOB, limit_key="a")
    assert len(rig.grant(1, 9)) == 1
    rig.configure(("default", "q"), QueueSettings(key_rate=RateLimit(2, DAY_MS, 2)))
    rig.submit(1, JOB, limit_key="b")
    assert rig.grant(1, 9) == []


def test_buckets_of_keys_are_empty_as_a_term_begins() -> None:
    """Those of keys whose jobs wait, and those of keys that come."""
    rig = Rig(LASTING)
    rig.configure(("default", "q"), QueueSettings(key_rate=RateLimit(1, DAY_MS, 1)))
    rig.pass_time(2 * DAY_MS)
    rig.submit(1, JOB, limit_key="waits")
    rig.crash(window_ms=0)
    rig.open_session(1)
    rig.submit(1, JOB, limit_key="comes")
    assert rig.grant(1, 9) == []
    rig.pass_time(DAY_MS)
    assert len(rig.grant(1, 9)) == 2


def test_settings_that_count_nothing_keep_no_queue_and_no_job_type() -> None:
    """A term makes those only that count something: a thousand others would be for nothing."""
    rig = Rig()
    rig.configure(("default", "light"), QueueSettings(weight=2.0))
    rig.configure(("default", "counts"), QueueSettings(rate=RateLimit(1, 1_000, 1)))
    rig.configure(("default", "plain"), JobTypeSettings(adaptive_retry=True))
    rig.configure(("default", "budget"), JobTypeSettings(retry_budget=0.5))
    for crashed in (False, True):
        if crashed:
            rig.crash(window_ms=0)
        lanes = state_of(rig.partition).lanes
        assert list(lanes.queues) == [("default", "counts")]
        known = [lanes.known_job_type("default", name) for name in ("plain", "budget")]
        assert [job_type is not None for job_type in known] == [False, True]
        assert not lanes.configure_job_type("default", "nobody")


# What goes.


def test_what_a_queue_was_known_for_goes_with_its_settings_and_its_jobs() -> None:
    """That it has a reserve, and that it is counted in time."""
    rig = Rig()
    rig.configure(("default", "q"), QueueSettings(reserved=0.5, fair_by=FairBy.TIME))
    lanes = state_of(rig.partition).lanes
    assert (len(lanes.reserving), len(lanes.timed)) == (1, 1)
    (job_id,) = rig.submit(1, JOB)
    rig.configure(("default", "q"), QueueSettings())
    assert (lanes.reserving, lanes.timed) == ({}, {})
    rig.configure(("default", "q"), QueueSettings(fair_by=FairBy.TIME))
    assert len(lanes.timed) == 1
    rig.do(commands.CancelJobs(job_ids=[job_id]))
    rig.do(commands.PurgeJobs(job_ids=[job_id]))
    assert (lanes.queues, lanes.timed) == ({}, {})


def test_a_queue_forgets_names_of_which_it_has_no_job() -> None:
    """And no others."""
    rig = Rig()
    first, second = (rig.submit_one(Policy(name=name)) for name in "ab")
    rig.do(commands.CancelJobs(job_ids=[first, second]))
    _, queue = _default(rig)
    assert list(queue.tallies) == ["a", "b"]
    rig.do(commands.PurgeJobs(job_ids=[first]))
    assert list(queue.tallies) == ["b"]


def test_a_tenant_lives_as_long_as_a_queue_of_it() -> None:
    """Its settings hold for those that are left when one has gone."""
    rig = Rig()
    rig.open_session(1)
    gone, left = (rig.submit_one(Policy(name="job", tenant="t", queue=name)) for name in "ab")
    rig.do(commands.CancelJobs(job_ids=[gone]))
    rig.do(commands.PurgeJobs(job_ids=[gone]))
    rig.configure(("t",), TenantSettings(paused=True))
    assert rig.grant(1, 9) == []
    rig.configure(("t",), TenantSettings())
    assert [row.job_id for row in rig.grant(1, 9)] == [left]


def test_a_lane_that_is_dropped_is_not_its_keys_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sticky key it is bound, of a limit key that is in use: the keys stay."""
    monkeypatch.setattr(lanes_module, "_EMPTY_MAX", 1)
    rig = Rig(LASTING)
    rig.configure(("default", "default"), QueueSettings(key_concurrency=1))
    rig.open_session(1)
    rig.submit(1, sticky_key="s")
    rig.grant(1, 1)
    lanes, queue = _default(rig)
    sticky = lanes.bindings.get(queue, "s")
    ids = [rig.submit(2, limit_key="k", priority=priority) for priority in (3, 4, 5)]
    key = queue.limit_keys["k"]
    assert len(rig.grant(1, 9)) == 1
    assert len(key.under) >= 2
    rig.do(commands.CancelJobs(job_ids=[job_id for pair in ids for job_id in pair[1:]]))
    rig.do(commands.CancelJobs(job_ids=[pair[0] for pair in ids[1:]]))
    assert (sticky.lanes, sticky.incarnation) == ({}, "w1")
    assert len(key.under) == 1
    assert queue.limit_keys["k"] is key
