"""Boosts: what waits gets another place, and what does not is left alone."""

import pytest

from tenure.master.core.command import BoostJobs, CancelJobs, PurgeJobs, SubmitRow
from tenure.master.core.effect import JobVerdict
from tenure.master.core.event import JobsBoosted
from tenure.master.core.record import Policy, RetryPolicy
from tenure.master.core.settings import JobTypeSettings
from tenure.protocol.ids import JobId
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import Jitter, JobState
from tests.unit.master.core.rig import Rig, of_type


@pytest.fixture
def rig() -> Rig:
    """A partition with one session."""
    rig = Rig()
    rig.open_session(1)
    return rig


def boost(rig: Rig, *job_ids: JobId, **to: int) -> JobVerdict:
    """Boosts jobs; gives the first one's verdict. The replay must come to the same."""
    reply = rig.do(BoostJobs(job_ids=[*job_ids], **to)).reply
    assert isinstance(reply, list)
    assert rig.replayed().state_hash() == rig.partition.state_hash()
    return reply[0]


def granted(rig: Rig, count: int) -> list[JobId]:
    """The next jobs, in the order in which they are granted."""
    return [lease.job_id for lease in rig.grant(credit=count)]


def test_priority_changes_the_order(rig: Rig) -> None:
    """A job with a higher priority goes before its contemporaries, one with a lower one after."""
    jobs = rig.submit(3)
    assert boost(rig, jobs[2], priority=0) == JobVerdict(jobs[2], JobState.PENDING, None)
    boost(rig, jobs[0], priority=10)
    assert granted(rig, 3) == [jobs[2], jobs[1], jobs[0]]


@pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.RETRYING])
def test_at_once(rig: Rig, state: JobState) -> None:
    """What waits for a time is due at once, and granted."""
    retry = RetryPolicy(base_ms=50_000)
    delay_ms = 60_000 if state is JobState.SCHEDULED else 0
    job_id = rig.submit_one(Policy(name="job", retry=retry), delay_ms=delay_ms)
    if state is JobState.RETRYING:
        rig.fail(rig.grant_one())
    assert rig.record(job_id).state is state
    rig.pass_time(1_000)
    assert boost(rig, job_id, delay_ms=0).state is JobState.PENDING
    assert rig.record(job_id).ready_ms == rig.now_ms
    assert granted(rig, 1) == [job_id]


def test_what_is_due_keeps_its_age(rig: Rig) -> None:
    """A job that is due already is not made younger, and nothing is journaled."""
    job_id = rig.submit_one()
    ready_ms = rig.record(job_id).ready_ms
    rig.pass_time(5_000)
    assert not rig.do(BoostJobs(job_ids=[job_id], delay_ms=0, priority=5)).events
    assert rig.record(job_id).ready_ms == ready_ms


def test_postponed(rig: Rig) -> None:
    """A job is not granted before its new time, and then with the age that it has from there."""
    job_id = rig.submit_one()
    assert boost(rig, job_id, delay_ms=10_000).state is JobState.SCHEDULED
    assert not granted(rig, 1)
    rig.pass_time(9_999)
    rig.fire()
    assert not granted(rig, 1)
    rig.pass_time(1)
    rig.fire()
    assert granted(rig, 1) == [job_id]
    assert rig.record(job_id).ready_ms == rig.now_ms


def test_deadlines_follow_a_run_that_has_not_begun(rig: Rig) -> None:
    """A schedule timeout counts from when the job is due now."""
    job_id = rig.submit_one(Policy(name="job", schedule_timeout_ms=5_000))
    boost(rig, job_id, delay_ms=10_000)
    rig.pass_time(14_999)
    rig.fire()
    assert rig.record(job_id).state is JobState.PENDING
    rig.pass_time(1)
    rig.fire()
    assert rig.record(job_id).state is JobState.FAILED


def test_a_boost_outlives_its_leader(rig: Rig) -> None:
    """Its priority and its time are journaled, and its place is the same after a replay."""
    first, second, later = rig.submit(3)
    boost(rig, second, priority=1)
    boost(rig, later, delay_ms=20_000)
    at_ms = rig.now_ms
    rig.crash(window_ms=0)
    rig.open_session(2)
    assert (rig.record(second).priority, rig.record(later).ready_ms) == (1, at_ms + 20_000)
    assert [lease.job_id for lease in rig.grant(2, credit=3)] == [second, first]


def test_watches_are_told(rig: Rig) -> None:
    """Of a new state, and of a new place without one."""
    jobs = rig.submit(2)
    rig.partition.watch_changes(True)
    boost(rig, jobs[0], priority=1)
    boost(rig, jobs[1], delay_ms=1_000)
    changes = [(change.job_id, change.state) for change in rig.partition.drain_changes()]
    assert changes == [(jobs[0], JobState.PENDING), (jobs[1], JobState.SCHEDULED)]


def test_refused(rig: Rig) -> None:
    """Jobs that run, have ended, or are not known; others of the same call are boosted."""
    running, waits = rig.submit(2)
    rig.grant_one()
    unknown = rig.mint()
    decision = rig.do(BoostJobs(job_ids=[running, unknown, waits, waits], priority=1))
    assert isinstance(decision.reply, list)
    reasons = [row.refusal.reason if row.refusal else None for row in decision.reply]
    assert reasons == [Reason.WRONG_STATE, Reason.NOT_FOUND, None]
    assert [len(event.rows) for event in of_type(decision.events, JobsBoosted)] == [1]
    rig.do(CancelJobs(job_ids=[waits]))
    verdict = boost(rig, waits, priority=2)
    assert verdict.refusal is not None
    assert verdict.refusal.metadata["state"] == "CANCELLED"


def test_who_cannot_be_boosted_is_told_why(rig: Rig) -> None:
    """One that runs, and one that is not known."""
    (running,) = rig.submit(1)
    rig.grant_one()
    nobody = rig.mint()
    reply = rig.do(BoostJobs(job_ids=[running, nobody], priority=1)).reply
    assert isinstance(reply, list)
    refusals = [verdict.refusal for verdict in reply]
    assert [verdict.job_id for verdict in reply] == [running, nobody]
    assert all(verdict.state is None for verdict in reply)
    first, second = refusals
    assert first is not None
    assert second is not None
    assert f"expected to boost job {running}, but it is RUNNING" in first.message
    assert "only jobs that wait can be boosted" in first.message
    assert f"expected to boost job {nobody}" in second.message


def test_who_boosts_a_purged_job_is_told_so(rig: Rig) -> None:
    """As long as its tombstone is there."""
    (gone,) = rig.submit(1)
    rig.do(CancelJobs(job_ids=[gone]))
    rig.do(PurgeJobs(job_ids=[gone]))
    refusal = boost(rig, gone, priority=1).refusal
    assert refusal is not None
    assert refusal.reason is Reason.RESULT_EXPIRED


@pytest.mark.parametrize("delay_ms", [0, 9_000])
def test_a_blocked_job_keeps_waiting_for_its_parents(rig: Rig, delay_ms: int) -> None:
    """Whatever it is boosted to: it has its time when they let it run."""
    (parent,) = rig.submit(1)
    child = rig.mint()
    rig.submit_rows([SubmitRow(child, 0, b"", "", parents=(parent,))])
    rig.now_ms += 500
    assert boost(rig, child, delay_ms=delay_ms, priority=2).state is JobState.BLOCKED
    record = rig.record(child)
    assert (record.state, record.priority) == (JobState.BLOCKED, 2)
    assert record.ready_ms == record.run_due_ms == rig.now_ms + delay_ms


def test_a_retry_that_is_put_off_counts_its_deadlines_from_before(rig: Rig) -> None:
    """Its run has begun: that it is tried later is no new begin."""
    retry = RetryPolicy(base_ms=50_000)
    job_id = rig.submit_one(Policy(name="job", retry=retry))
    begun_ms = rig.record(job_id).run_due_ms
    rig.now_ms += 1_000
    rig.fail(rig.grant_one())
    assert boost(rig, job_id, delay_ms=7_000).state is JobState.RETRYING
    record = rig.record(job_id)
    assert (record.ready_ms, record.run_due_ms) == (rig.now_ms + 7_000, begun_ms)


def test_what_would_stay_as_it_is_is_not_journaled(rig: Rig) -> None:
    """The same priority, or the same time."""
    (ready,) = rig.submit(1)
    (later,) = rig.submit(1, delay_ms=4_000)
    for job_id, to in ((ready, {"priority": 5}), (ready, {"delay_ms": 0}), (later, {})):
        assert rig.do(BoostJobs(job_ids=[job_id], **to)).events == ()
    assert rig.do(BoostJobs(job_ids=[later], delay_ms=4_000)).events == ()
    (event,) = rig.do(BoostJobs(job_ids=[later], delay_ms=4_001)).events
    assert isinstance(event, JobsBoosted)
    assert event.now_ms == rig.now_ms


def test_a_retry_over_budget_is_so_until_it_gets_another_time(rig: Rig) -> None:
    """Another priority leaves it where its budget has put it; who was not put off is not, then."""
    rig.configure(("default", "job"), JobTypeSettings(retry_budget=0.01))
    retry = RetryPolicy(base_ms=1_000, jitter=Jitter.NONE)
    first, late = rig.submit(2, Policy(name="job", retry=retry))
    for row in rig.grant(credit=2):
        rig.fail(row)
    boost(rig, first, late, priority=4)
    assert (rig.record(first).over_budget, rig.record(late).over_budget) == (False, False)
    rig.pass_time(1_000)
    assert rig.state(first) is JobState.PENDING
    assert (rig.state(late), rig.record(late).over_budget) == (JobState.RETRYING, True)
    boost(rig, late, priority=1)
    assert (rig.state(late), rig.record(late).over_budget) == (JobState.RETRYING, True)
    boost(rig, late, delay_ms=7_000)
    assert (rig.state(late), rig.record(late).over_budget) == (JobState.RETRYING, False)
