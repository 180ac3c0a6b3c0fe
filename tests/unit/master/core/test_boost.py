"""Boosts: what waits gets another place, and what does not is left alone."""

import pytest

from tenure.master.core.command import BoostJobs, CancelJobs
from tenure.master.core.effect import JobVerdict
from tenure.master.core.event import JobsBoosted
from tenure.master.core.record import Policy, RetryPolicy
from tenure.protocol.ids import JobId
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import JobState
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
