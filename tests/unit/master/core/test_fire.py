"""What is due: delays, timeouts, deadlines; no timer for jobs that need none."""

import msgspec
import pytest

from tenure.master.core import command as commands
from tenure.master.core.effect import Announce, Decision, NotifySettled, SendRevokes
from tenure.master.core.event import AttemptsEnded, DurableEvent
from tenure.master.core.partition import Partition
from tenure.master.core.record import JobRecord, Policy, RetryPolicy
from tenure.protocol.vocabulary import AttemptOutcome, FailureReason, JobState
from tests.unit.master.core.audit import audit, state_of
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
    assert record.outcome is AttemptOutcome.TIMED_OUT


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
    rig.pass_time(1_000 + CONFIG.progress_grace_ms - 1)
    assert rig.state(job_id) is JobState.RUNNING
    rig.pass_time(1)
    assert rig.record(job_id).outcome is AttemptOutcome.TIMED_OUT


def test_many_entries_of_one_job_are_thinned_out() -> None:
    """A job that is retried for ever under a long deadline does not pile up timer entries."""
    rig = Rig(audited=False)
    rig.open_session(1)
    retry = RetryPolicy(base_ms=1, max_attempts=10_000)
    rig.submit(20, Policy(name="job", deadline_ms=10**9, retry=retry))
    for _ in range(150):
        for row in rig.grant(1, 20):
            rig.fail(row, draw=0.0)
        rig.pass_time(1)
    assert len(state_of(rig.partition).timers) < 3_000
    audit(rig.partition)


def test_timer_and_expiry_of_one_job_at_once(rig: Rig) -> None:
    """A job whose deadline and lease end together is ended once."""
    lease_ms = CONFIG.lease_ttl_ms + CONFIG.lease_margin_ms
    job_id = rig.submit_one(Policy(name="job", deadline_ms=lease_ms))
    row = rig.grant_one()
    rig.now_ms += lease_ms
    decision = rig.fire()
    (ended,) = of_type(decision.events, AttemptsEnded)
    assert [(end.job_id, end.lease) for end in ended.rows] == [(job_id, row.lease)]
    (revoke,) = of_type(decision.effects, SendRevokes)
    assert (revoke.reason, revoke.rows) == ("deadline", [tuple(row)])
    record = rig.record(job_id)
    assert (record.state, record.failure_reason) == (JobState.FAILED, FailureReason.TIMED_OUT)
    assert (record.attempts_charged, record.losses_charged) == (1, 0)


def test_what_timed_out_is_told_to_people(rig: Rig) -> None:
    """Each limit by its name and its length."""
    policies = [
        (Policy(name="job", timeout_ms=2_000), "did not end within its timeout of 2000 ms"),
        (
            Policy(name="job", heartbeat_timeout_ms=3_000),
            "reported no progress within its heartbeat timeout of 3000 ms",
        ),
        (Policy(name="job", deadline_ms=4_000), "did not end before its deadline of 4000 ms"),
    ]
    ids = [rig.submit_one(policy) for policy, _ in policies]
    rows = rig.grant(1, 3)
    rig.start(*rows)
    beat(rig, 10_000, *map(held, rows))
    for job_id, (_, says) in zip(ids, policies, strict=True):
        fault = rig.record(job_id).fault
        assert fault is not None
        assert fault.type == "tenure.TimedOut"
        assert says in fault.message


def test_several_limits_of_one_job(rig: Rig) -> None:
    """The one that is over first ends it, at its very time."""
    policy = Policy(name="job", timeout_ms=9_000, heartbeat_timeout_ms=5_000, deadline_ms=60_000)
    job_id = rig.submit_one(policy)
    row = rig.grant_one()
    rig.start(row)
    rig.pass_time(4_000)
    rig.renew(1, 1, held(row, progress=0.5))
    rig.pass_time(4_000 + GRACE_MS)
    rig.renew(1, 1, held(row, progress=0.6))
    rig.pass_time(999)
    assert rig.state(job_id) is JobState.RUNNING
    rig.pass_time(1)
    assert rig.record(job_id).outcome is AttemptOutcome.TIMED_OUT


def test_how_many_leases_expired_is_announced_once(rig: Rig) -> None:
    """Those of all workers that fell silent at one time."""
    rig.open_session(2)
    rig.submit(3)
    rig.dispatch((1, 2), (2, 1))
    rig.now_ms += CONFIG.lease_ttl_ms + CONFIG.lease_margin_ms
    told = of_type(rig.fire().effects, Announce)
    assert [(announce.event, announce.counts) for announce in told] == [("expired", {"leases": 3})]


def test_a_grant_that_is_not_answered_is_told_and_counted(rig: Rig) -> None:
    """Its worker is asked first; at its deadline it hears that it is too late, and so do we."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    effects = []
    for _ in range(4):
        effects += rig.pass_time(4_500)
        rig.renew(1, 0)
    asked, revoked = of_type(effects, SendRevokes)
    assert (asked.session_id, asked.reason, asked.unless_started) == (1, "take_back", True)
    assert (revoked.session_id, revoked.reason, revoked.unless_started) == (
        1,
        "never_arrived",
        False,
    )
    assert revoked.rows == [tuple(row)]
    told = of_type(effects, Announce)
    assert [(a.event, a.counts) for a in told] == [("taken_back", {"leases": 1})]
    assert rig.record(job_id).outcome is AttemptOutcome.RELEASED


def test_a_job_that_expires_while_it_is_due_is_decided_on_once(rig: Rig) -> None:
    """Its deadline, its schedule timeout and its delay end together: the deadline wins."""
    policy = Policy(name="job", deadline_ms=1_000, schedule_timeout_ms=1_000)
    job_id = rig.submit_one(policy)
    later = rig.submit_one(Policy(name="job", schedule_timeout_ms=1_000))
    rig.now_ms += 1_000
    decision = rig.fire()
    assert [type(event).__name__ for event in decision.events] == [
        "JobsExpired",
        "JobsExpired",
        "TimersFired",
    ]
    assert rig.record(job_id).failure_reason is FailureReason.TIMED_OUT
    assert rig.record(later).failure_reason is FailureReason.EXPIRED
    assert rig.record(later).ended_ms == rig.now_ms


def test_a_timer_is_never_due_before_now(rig: Rig) -> None:
    """What should have been done long ago is due by the journal's time."""
    rig.submit_one(delay_ms=10)
    rig.now_ms += 5_000
    rig.submit_one()
    assert rig.partition.next_timer_ms() == rig.now_ms


def test_a_closed_term_fires_nothing(rig: Rig) -> None:
    """Nor does one whose window is open: workers may still come with what is missing."""
    rig.submit_one(delay_ms=10)
    rig.crash(window_ms=3_000)
    rig.now_ms += 20
    assert rig.partition.next_timer_ms() is None
    assert rig.partition.next_job_timer_ms() == rig.now_ms - 10
    assert rig.fire() == Decision()
    rig.close_window()
    rig.do(commands.CloseTerm())
    assert rig.partition.next_timer_ms() is None
    assert rig.fire() == Decision()


def _follow(rig: Rig, standby: Partition, first: int) -> None:
    """The standby reads the journal from its n-th event on."""
    events = msgspec.msgpack.Decoder(list[DurableEvent])
    for seq, data in enumerate(rig.journal[first:], first + 1):
        standby.replay(events.decode(data)[0], seq)
    standby.pass_time()


def test_a_standby_keeps_no_timers_that_are_over(rig: Rig) -> None:
    """But those of jobs that still wait, though their time is over: it may have to do them."""
    rig.submit(50, delay_ms=1_000)
    standby, read = rig.replayed(), len(rig.journal)
    begin_ms = rig.now_ms
    rig.pass_time(1_000)
    waiting = rig.submit_one(delay_ms=5)
    rig.now_ms += 5
    rig.submit_one()
    _follow(rig, standby, read)
    timers = state_of(standby).timers
    assert [(due, record.job_id) for due, record in timers.things()] == [
        (begin_ms + 1_005, waiting)
    ]
    assert standby.next_job_timer_ms() == begin_ms + 1_005
    rig.pass_time(0)
    _follow(rig, standby, read)
    assert len(timers) == 0
    assert standby.next_job_timer_ms() is None


def test_a_standby_that_leads_looks_at_who_holds_what(rig: Rig) -> None:
    """Holders are found anew, with their leases; timeouts count from what the journal says."""
    job_id = rig.submit_one(Policy(name="job", deadline_ms=60_000))
    standby, read = rig.replayed(), len(rig.journal)
    rig.grant_one()
    _follow(rig, standby, read)
    standby.finish_replay()
    rig.partition = standby
    rig.open_term()
    assert rig.state(job_id) is JobState.RUNNING
    assert rig.partition.next_job_timer_ms() == rig.now_ms + 60_000
    rig.pass_time(CONFIG.lease_ttl_ms + CONFIG.lease_margin_ms)
    assert rig.record(job_id).outcome is AttemptOutcome.LOST


def test_retries_after_losses_are_spread_by_what_the_command_brings(rig: Rig) -> None:
    """One draw for each, in order, and over again."""
    rig.submit(3)
    rig.grant(1, 3)
    rig.now_ms += CONFIG.lease_ttl_ms + CONFIG.lease_margin_ms
    decision = rig.do(commands.FireTimers(rows_max=10, jitter=[0.0, 0.5]))
    (ended,) = of_type(decision.events, AttemptsEnded)
    first, second, third = (row.ready_ms - rig.now_ms for row in ended.rows)
    assert (first, third) == (0, 0)
    assert second > 0


@pytest.mark.parametrize("ttl_ms", [0, 60_000])
def test_a_timer_of_a_finished_job_purges_nothing_before_its_time(rig: Rig, ttl_ms: int) -> None:
    """The deadline that it had in its life is nothing to its result."""
    job_id = rig.submit_one(Policy(name="job", deadline_ms=10_000, result_ttl_ms=ttl_ms))
    rig.report(rig.grant_one())
    rig.pass_time(10_000)
    assert rig.state(job_id) is JobState.COMPLETED
    rig.pass_time(50_000)
    assert isinstance(rig.partition.get(job_id), JobRecord) is (ttl_ms == 0)


def test_a_grant_is_taken_back_at_its_deadline_exactly(rig: Rig) -> None:
    """Its session is alive, and has not answered it for a whole lease."""
    job_id = rig.submit_one()
    rig.grant_one()
    rig.pass_time(CONFIG.lease_ttl_ms + CONFIG.lease_margin_ms - 1)
    rig.renew(1, 0)
    assert rig.state(job_id) is JobState.RUNNING
    rig.pass_time(1)
    assert rig.state(job_id) is JobState.PENDING


def test_every_grant_is_asked_back_once_it_is_old_enough(rig: Rig) -> None:
    """One that came later has time; one that was asked for before stands in no other's way."""
    rig.submit(2)
    first = rig.grant_one()
    rig.now_ms += 500
    second = rig.grant_one()
    rig.accept(1, 2)
    rig.open_session(2)
    (revoke,) = of_type(rig.pass_time(CONFIG.take_back_ms - 500), SendRevokes)
    assert revoke.rows == [tuple(first)]
    (revoke,) = of_type(rig.pass_time(CONFIG.take_back_ms), SendRevokes)
    assert revoke.rows == [tuple(second)]


def test_leases_lost_for_several_reasons_are_all_told(rig: Rig) -> None:
    """Each with its own."""
    timed = rig.submit_one(Policy(name="job", timeout_ms=2_000))
    late = rig.submit_one(Policy(name="job", deadline_ms=2_000 + GRACE_MS))
    rows = {row.job_id: row for row in rig.grant(1, 2)}
    rig.start(*rows.values())
    rig.now_ms += 2_000 + GRACE_MS
    told = [(r.reason, r.rows) for r in of_type(rig.fire().effects, SendRevokes)]
    assert sorted(told) == [("deadline", [tuple(rows[late])]), ("timeout", [tuple(rows[timed])])]


def test_a_job_that_waits_for_its_backoff_is_not_readied_before(rig: Rig) -> None:
    """Not by the timer that its last attempt has left."""
    slow = RetryPolicy(base_ms=60_000)
    job_id = rig.submit_one(Policy(name="job", timeout_ms=2_000, retry=slow))
    row = rig.grant_one()
    rig.start(row)
    rig.fail(row, draw=0.9)
    rig.pass_time(2_000 + GRACE_MS)
    assert rig.state(job_id) is JobState.RETRYING


@pytest.mark.parametrize(
    ("policy", "at_ms"),
    [
        (Policy(name="job", timeout_ms=5_000, heartbeat_timeout_ms=4_900), 5_000 + GRACE_MS),
        (Policy(name="job", heartbeat_timeout_ms=5_000), 5_100 + CONFIG.progress_grace_ms),
    ],
)
def test_a_look_that_comes_early_ends_nothing(rig: Rig, policy: Policy, at_ms: int) -> None:
    """The timer of a limit that was put off leaves the job to what is over later."""
    job_id = rig.submit_one(policy)
    row = rig.grant_one()
    rig.start(row)
    rig.pass_time(100)
    rig.renew(1, 1, held(row, running_ms=100, progress=0.1))
    rig.pass_time(at_ms - 101)
    assert rig.state(job_id) is JobState.RUNNING
    rig.pass_time(1)
    assert rig.record(job_id).outcome is AttemptOutcome.TIMED_OUT


def test_a_queue_is_taken_back_for_who_serves_it(rig: Rig) -> None:
    """By its name, if the idle session has named its queues; one free slot is enough."""
    rig.submit_one(Policy(name="job", queue="bulk"))
    row = rig.grant_one()
    rig.accept(1, 1)
    rig.open_session(2, queues=("bulk",), slots=1)
    (revoke,) = of_type(rig.pass_time(CONFIG.take_back_ms), SendRevokes)
    assert revoke.rows == [tuple(row)]


@pytest.mark.parametrize("busy", ["full", "draining"])
@pytest.mark.parametrize("idle", [False, True])
def test_sessions_that_take_nothing_are_passed_over(rig: Rig, busy: str, idle: bool) -> None:
    """Nothing is taken back for them, and they hide nobody who is idle."""
    rig.open_session(2, slots=1)
    if busy == "full":
        rig.submit_one()
        full = rig.grant_one(2)
        rig.accept(2, 1)
        rig.start(full, session_id=2)
    else:
        rig.do(commands.DrainSession(session_id=2))
    rig.submit_one()
    rig.grant_one()
    rig.accept(1, 1)
    if idle:
        rig.open_session(3)
    assert bool(of_type(rig.pass_time(CONFIG.take_back_ms), SendRevokes)) is idle
