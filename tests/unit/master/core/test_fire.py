"""What is due: delays, timeouts, deadlines; no timer for jobs that need none."""

import pytest

from tenure.master.core import command as commands
from tenure.master.core.effect import NotifySettled, SendRevokes
from tenure.master.core.record import Policy, RetryPolicy
from tenure.protocol.vocabulary import AttemptOutcome, FailureReason, JobState
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import CONFIG, Rig, held, of_type

GRACE_MS = CONFIG.timeout_grace_ms


@pytest.fixture
def rig() -> Rig:
    """A partition with one session."""
    rig = Rig()
    rig.open_session(1)
    return rig


def beat(rig: Rig, ms: int, *rows: commands.HeldRow) -> None:
    """Lets time pass with heartbeats."""
    until = rig.now_ms + ms
    while rig.now_ms < until:
        rig.pass_time(min(5_000, until - rig.now_ms))
        rig.renew(1, 1_000, *rows)


def test_delay(rig: Rig) -> None:
    """A delayed job becomes PENDING at its time, not before."""
    job_id = rig.submit_one(delay_ms=1_000)
    assert rig.partition.next_timer_ms() == rig.now_ms + 1_000
    rig.pass_time(999)
    assert rig.state(job_id) is JobState.SCHEDULED
    rig.pass_time(1)
    assert rig.state(job_id) is JobState.PENDING


def test_rows_max_bounds_a_decision(rig: Rig) -> None:
    """A crowd of due jobs is done in parts; the next timer is due at once until all are done."""
    rig.submit(50, delay_ms=1_000)
    rig.now_ms += 1_000
    for left in (40, 30, 20, 10, 0):
        due = rig.partition.next_timer_ms()
        assert due is not None
        assert due <= rig.now_ms
        rig.fire(rows_max=10)
        assert rig.partition.counts().get(JobState.SCHEDULED, 0) == left
    assert rig.partition.next_timer_ms() is None


def test_plain_jobs_have_no_timer(rig: Rig) -> None:
    """A job without delay, timeouts or TTL costs no timer entry in all its life."""
    rig.submit(100)
    for row in rig.grant(1, 100):
        rig.start(row)
        rig.report(row)
    assert len(state_of(rig.partition).timers) == 0


def test_attempt_timeout_counts_from_started(rig: Rig) -> None:
    """The timeout runs from Started; the master waits a little longer than the worker."""
    job_id = rig.submit_one(Policy(name="job", timeout_ms=2_000))
    row = rig.grant_one()
    beat(rig, 5_000, held(row, started=False))
    assert rig.state(job_id) is JobState.RUNNING
    rig.start(row)
    rig.pass_time(2_000 + GRACE_MS - 1)
    assert rig.state(job_id) is JobState.RUNNING
    (revoke,) = of_type(rig.pass_time(1), SendRevokes)
    assert (revoke.reason, revoke.rows) == ("timeout", [tuple(row)])
    record = rig.record(job_id)
    assert (record.state, record.attempts_charged) == (JobState.RETRYING, 1)
    assert record.outcome is AttemptOutcome.TIMED_OUT


def test_schedule_timeout(rig: Rig) -> None:
    """Not started in time → FAILED/EXPIRED; it counts from when the job was due."""
    job_id = rig.submit_one(Policy(name="job", schedule_timeout_ms=5_000), delay_ms=1_000)
    rig.pass_time(5_999)
    assert rig.state(job_id) is JobState.PENDING
    (notify,) = of_type(rig.pass_time(1), NotifySettled)
    assert [record.job_id for record in notify.records] == [job_id]
    assert rig.record(job_id).failure_reason is FailureReason.EXPIRED


def test_schedule_timeout_of_started_jobs(rig: Rig) -> None:
    """A job that has started does not expire by its schedule timeout, not even in a retry."""
    slow = RetryPolicy(base_ms=30_000)
    job_id = rig.submit_one(Policy(name="job", schedule_timeout_ms=5_000, retry=slow))
    row = rig.grant_one()
    rig.start(row)
    rig.fail(row)
    rig.pass_time(60_000)
    assert rig.state(job_id) is JobState.PENDING


def test_schedule_timeout_of_granted_jobs(rig: Rig) -> None:
    """A granted job that comes back unstarted after its schedule timeout expires then."""
    job_id = rig.submit_one(Policy(name="job", schedule_timeout_ms=5_000))
    row = rig.grant_one()
    beat(rig, 6_000, held(row, started=False))
    assert rig.state(job_id) is JobState.RUNNING
    rig.give_back(row)
    rig.pass_time(0)
    assert rig.record(job_id).failure_reason is FailureReason.EXPIRED


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.SCHEDULED, JobState.RETRYING])
def test_deadline_of_queued_jobs(rig: Rig, state: JobState) -> None:
    """The whole job's limit ends it while it waits: FAILED/TIMED_OUT."""
    slow = RetryPolicy(base_ms=50_000)
    policy = Policy(name="job", deadline_ms=10_000, retry=slow)
    delay_ms = 3_000 if state is JobState.SCHEDULED else 0
    job_id = rig.submit_one(policy, delay_ms=delay_ms)
    if state is JobState.RETRYING:
        rig.fail(rig.grant_one())
    assert rig.state(job_id) is state
    rig.pass_time(delay_ms + 9_999)
    assert rig.state(job_id) in (state, JobState.PENDING)
    rig.pass_time(1)
    assert rig.record(job_id).failure_reason is FailureReason.TIMED_OUT


def test_deadline_of_running_jobs(rig: Rig) -> None:
    """The whole job's limit ends a running attempt for good, and the worker is told."""
    job_id = rig.submit_one(Policy(name="job", deadline_ms=10_000))
    row = rig.grant_one()
    rig.start(row)
    (revoke,) = of_type(rig.pass_time(10_000), SendRevokes)
    assert (revoke.reason, revoke.rows) == ("deadline", [tuple(row)])
    record = rig.record(job_id)
    assert (record.state, record.failure_reason) == (JobState.FAILED, FailureReason.TIMED_OUT)


def test_requeue_starts_the_deadline_anew(rig: Rig) -> None:
    """A new run has a fresh deadline and schedule timeout."""
    policy = Policy(name="job", deadline_ms=10_000, schedule_timeout_ms=5_000)
    job_id = rig.submit_one(policy)
    rig.pass_time(5_000)
    rig.do(commands.RequeueJobs(job_ids=[job_id]))
    rig.pass_time(4_999)
    assert rig.state(job_id) is JobState.PENDING
    rig.start(rig.grant_one())
    rig.pass_time(5_001)
    assert rig.record(job_id).failure_reason is FailureReason.TIMED_OUT


def test_heartbeat_timeout(rig: Rig) -> None:
    """A running job that reports no progress for its limit is timed out; progress resets it."""
    job_id = rig.submit_one(Policy(name="job", heartbeat_timeout_ms=8_000))
    row = rig.grant_one()
    rig.start(row)
    for progress in (0.1, 0.2, 0.3):
        rig.pass_time(7_000)
        rig.renew(1, 1, held(row, progress=progress))
    rig.pass_time(7_000)
    rig.renew(1, 1, held(row, progress=0.3))
    assert rig.state(job_id) is JobState.RUNNING
    rig.pass_time(1_000 + GRACE_MS)
    assert rig.record(job_id).outcome is AttemptOutcome.TIMED_OUT


def test_many_entries_of_one_job_are_thinned_out(rig: Rig) -> None:
    """A job that is retried for ever under a long deadline does not pile up timer entries."""
    retry = RetryPolicy(base_ms=1, max_attempts=10_000)
    rig.submit(20, Policy(name="job", deadline_ms=10**9, retry=retry))
    for _ in range(150):
        for row in rig.grant(1, 20):
            rig.fail(row, draw=0.0)
        rig.pass_time(1)
    assert len(state_of(rig.partition).timers) < 3_000


def test_timer_and_expiry_of_one_job_at_once(rig: Rig) -> None:
    """A job whose deadline and lease end together is ended once."""
    lease_ms = CONFIG.lease_ttl_ms + CONFIG.lease_margin_ms
    job_id = rig.submit_one(Policy(name="job", deadline_ms=lease_ms))
    rig.grant_one()
    rig.now_ms += lease_ms
    rig.fire()
    record = rig.record(job_id)
    assert (record.state, record.failure_reason) == (JobState.FAILED, FailureReason.TIMED_OUT)
    assert (record.attempts_charged, record.losses_charged) == (1, 0)
