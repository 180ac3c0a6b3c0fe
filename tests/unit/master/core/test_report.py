"""The late-report table of the design, one test for each row."""

import msgspec
import pytest

from tenure.master.core import command as commands
from tenure.master.core.command import LeaseRow
from tenure.master.core.effect import NotifySettled, SendRevokes, SendVerdicts
from tenure.master.core.event import CompletedRow, JobsCompleted, LeasesAdopted
from tenure.master.core.record import JobFault, JobRecord, Policy, RetryPolicy
from tenure.protocol.fence import Lease, Token
from tenure.protocol.vocabulary import (
    AttemptOutcome,
    ErrorCategory,
    FailureReason,
    JobState,
    Verdict,
)
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import CONFIG, Rig, held, of_type, report_row, verdicts_of

FAULT = JobFault("app.Error", "it broke")


@pytest.fixture
def rig() -> Rig:
    """A partition with one session."""
    rig = Rig()
    rig.open_session(1)
    return rig


def expire(rig: Rig) -> None:
    """Lets every lease expire, then every backoff end."""
    rig.pass_time(CONFIG.lease_ttl_ms + CONFIG.lease_margin_ms + 5_000)
    rig.renew(1, 1_000)


def test_success_of_running_job_is_taken(rig: Rig) -> None:
    """Running under the report's lease: accept."""
    job_id = rig.submit_one()
    row = rig.grant_one()
    rig.start(row)
    rig.now_ms += 10
    assert rig.report(row, result=b"42") is Verdict.ACCEPTED
    record = rig.record(job_id)
    assert record.state is JobState.COMPLETED
    assert (record.result, record.result_content_type) == (b"42", "text/plain")
    assert (record.started_ms, record.ended_ms) == (rig.now_ms - 10, rig.now_ms)
    assert record.outcome is AttemptOutcome.COMPLETED


def test_failure_of_running_job_is_taken(rig: Rig) -> None:
    """Running under the report's lease: a failure is charged and retried."""
    job_id = rig.submit_one()
    assert rig.fail(rig.grant_one(), FAULT) is Verdict.ACCEPTED
    record = rig.record(job_id)
    assert record.state is JobState.RETRYING
    assert (record.attempts_charged, record.losses_charged) == (1, 0)
    assert record.fault == FAULT


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (AttemptOutcome.CANCELLED, JobState.CANCELLED),
        (AttemptOutcome.COMPLETED, JobState.COMPLETED),
        (AttemptOutcome.FAILED, JobState.CANCELLED),
        (AttemptOutcome.FAILED_PERMANENT, JobState.CANCELLED),
        (AttemptOutcome.TIMED_OUT, JobState.CANCELLED),
        (AttemptOutcome.LOST, JobState.CANCELLED),
        (AttemptOutcome.RELEASED, JobState.CANCELLED),
    ],
)
def test_running_with_cancel_requested(rig: Rig, outcome: AttemptOutcome, state: JobState) -> None:
    """CANCELLED → CANCELLED; success → COMPLETED; all else → CANCELLED, no retry."""
    job_id = rig.submit_one()
    row = rig.grant_one()
    rig.do(commands.CancelJobs(job_ids=[job_id], reason="enough"))
    assert rig.report(row, outcome) is Verdict.ACCEPTED
    assert rig.state(job_id) is state
    assert rig.record(job_id).outcome is outcome


def test_a_success_after_the_cancel_was_reported_is_a_duplicate(rig: Rig) -> None:
    """Whichever was acknowledged first stands: here the cancel."""
    job_id = rig.submit_one()
    row = rig.grant_one()
    rig.do(commands.CancelJobs(job_ids=[job_id]))
    assert rig.report(row, AttemptOutcome.CANCELLED) is Verdict.ACCEPTED
    assert rig.report(row, result=b"late") is Verdict.DUPLICATE
    assert (rig.state(job_id), rig.record(job_id).result) == (JobState.CANCELLED, b"")


def test_expiry_with_cancel_requested(rig: Rig) -> None:
    """An expiry after a cancel was asked for → CANCELLED, no retry."""
    job_id = rig.submit_one()
    rig.grant_one()
    rig.do(commands.CancelJobs(job_ids=[job_id]))
    expire(rig)
    assert rig.state(job_id) is JobState.CANCELLED


def test_timeout_with_cancel_requested(rig: Rig) -> None:
    """A timeout after a cancel was asked for → CANCELLED, no retry."""
    job_id = rig.submit_one(Policy(name="job", timeout_ms=1_000))
    row = rig.grant_one()
    rig.start(row)
    rig.do(commands.CancelJobs(job_ids=[job_id]))
    rig.pass_time(3_000)
    assert rig.state(job_id) is JobState.CANCELLED


@pytest.mark.parametrize("outcome", [AttemptOutcome.COMPLETED, AttemptOutcome.FAILED_PERMANENT])
def test_terminal_same_lease_same_content(rig: Rig, outcome: AttemptOutcome) -> None:
    """A replayed report is answered OK again and changes nothing."""
    rig.submit_one()
    row = rig.grant_one()
    assert rig.report(row, outcome) is Verdict.ACCEPTED
    before = rig.partition.state_hash()
    assert rig.report(row, outcome) is Verdict.ACCEPTED
    assert rig.partition.state_hash() == before


@pytest.mark.parametrize(
    ("outcome", "result"),
    [(AttemptOutcome.COMPLETED, b"other"), (AttemptOutcome.FAILED, b"")],
)
def test_terminal_same_lease_other_content(
    rig: Rig, outcome: AttemptOutcome, result: bytes
) -> None:
    """Another content under the lease of the accepted result: the first stays."""
    job_id = rig.submit_one()
    row = rig.grant_one()
    rig.report(row, result=b"first")
    assert rig.report(row, outcome, result=result) is Verdict.DUPLICATE
    assert rig.record(job_id).result == b"first"


def test_terminal_another_lease(rig: Rig) -> None:
    """A report under an earlier lease of a job that has ended: the first stays."""
    job_id = rig.submit_one()
    old = rig.grant_one()
    expire(rig)
    new = rig.grant_one()
    rig.report(new, result=b"first")
    assert rig.report(old, result=b"late") is Verdict.DUPLICATE
    assert rig.record(job_id).result == b"first"


def test_cancelled_while_queued_after_loss(rig: Rig) -> None:
    """A job cancelled after its lease was closed has ended: a late success is a duplicate."""
    job_id = rig.submit_one()
    row = rig.grant_one()
    expire(rig)
    rig.do(commands.CancelJobs(job_ids=[job_id]))
    assert rig.report(row) is Verdict.DUPLICATE
    assert rig.state(job_id) is JobState.CANCELLED


@pytest.mark.parametrize("again", [False, True])
def test_earlier_run(rig: Rig, again: bool) -> None:
    """A report of a run before a requeue is a duplicate, granted again or not."""
    job_id = rig.submit_one()
    row = rig.grant_one()
    rig.report(row, AttemptOutcome.FAILED_PERMANENT)
    rig.do(commands.RequeueJobs(job_ids=[job_id]))
    if again:
        rig.grant_one()
    state = rig.state(job_id)
    assert rig.report(row) is Verdict.DUPLICATE
    assert rig.state(job_id) is state


def test_closed_by_expiry_success_saves_the_work(rig: Rig) -> None:
    """Lease expired, job not granted again, success: accepted; the loss stays charged."""
    job_id = rig.submit_one()
    row = rig.grant_one()
    expire(rig)
    assert rig.state(job_id) is JobState.PENDING
    assert rig.report(row, result=b"late") is Verdict.ACCEPTED
    record = rig.record(job_id)
    assert (record.state, record.result, record.fault) == (JobState.COMPLETED, b"late", None)
    assert record.losses_charged == 1
    assert not rig.grant()


def test_closed_by_expiry_success_during_backoff(rig: Rig) -> None:
    """The same while the job waits for its backoff."""
    slow = Policy(name="job", retry=RetryPolicy(base_ms=60_000))
    job_id = rig.submit_one(slow)
    row = rig.grant_one()
    rig.pass_time(CONFIG.lease_ttl_ms + CONFIG.lease_margin_ms)
    assert rig.state(job_id) is JobState.RETRYING
    assert rig.report(row) is Verdict.ACCEPTED
    assert rig.state(job_id) is JobState.COMPLETED


def test_closed_by_timeout_success_saves_the_work(rig: Rig) -> None:
    """Attempt timed out by the master, job not granted again, success: accepted."""
    job_id = rig.submit_one(Policy(name="job", timeout_ms=1_000))
    row = rig.grant_one()
    rig.start(row)
    rig.pass_time(3_000)
    assert rig.record(job_id).outcome is AttemptOutcome.TIMED_OUT
    assert rig.report(row) is Verdict.ACCEPTED
    assert rig.state(job_id) is JobState.COMPLETED


def test_closed_by_take_back_success_saves_the_work(rig: Rig) -> None:
    """Lease returned, job not granted again, success: accepted."""
    job_id = rig.submit_one()
    row = rig.grant_one()
    rig.give_back(row)
    assert rig.state(job_id) is JobState.PENDING
    assert rig.report(row) is Verdict.ACCEPTED
    assert rig.state(job_id) is JobState.COMPLETED


def test_closed_failure_is_ignored(rig: Rig) -> None:
    """Lease expired, job not granted again, failure: ignored, the expiry was charged."""
    job_id = rig.submit_one()
    row = rig.grant_one()
    expire(rig)
    before = rig.partition.state_hash()
    assert rig.fail(row) is Verdict.IGNORED
    assert rig.partition.state_hash() == before
    assert rig.record(job_id).attempts_charged == 0


def test_closed_by_its_own_failure(rig: Rig) -> None:
    """A failure sent again while its job waits is a replayed ack; a success then is refused."""
    job_id = rig.submit_one()
    row = rig.grant_one()
    rig.fail(row, FAULT)
    before = rig.partition.state_hash()
    assert rig.fail(row, FAULT) is Verdict.ACCEPTED
    assert rig.fail(row, JobFault("app.Other", "otherwise")) is Verdict.IGNORED
    assert rig.report(row) is Verdict.DUPLICATE
    assert rig.partition.state_hash() == before
    assert rig.state(job_id) is JobState.RETRYING


@pytest.mark.parametrize("outcome", [AttemptOutcome.COMPLETED, AttemptOutcome.FAILED])
def test_granted_again_is_superseded(rig: Rig, outcome: AttemptOutcome) -> None:
    """A report under an older lease than the one that runs is refused."""
    job_id = rig.submit_one()
    old = rig.grant_one()
    expire(rig)
    new = rig.grant_one()
    assert rig.report(old, outcome) is Verdict.SUPERSEDED
    assert rig.state(job_id) is JobState.RUNNING
    assert rig.report(new, result=b"new") is Verdict.ACCEPTED
    assert rig.record(job_id).result == b"new"


@pytest.mark.parametrize("again", [False, True])
def test_lease_of_older_term_is_adopted(rig: Rig, again: bool) -> None:
    """A grant lost with its leader's last batch, job not granted since: its report is taken."""
    job_id = rig.submit_one()
    lost = rig.grant_one()
    rig.crash(lose=1, window_ms=0)
    rig.open_session(2, "w1")
    outcome = AttemptOutcome.FAILED if again else AttemptOutcome.COMPLETED
    assert rig.report(lost, outcome, session_id=2) is Verdict.ACCEPTED
    record = rig.record(job_id)
    assert record.lease == lost.lease
    assert (record.attempt, record.incarnation) == (1, "w1")
    assert record.state is (JobState.RETRYING if again else JobState.COMPLETED)


def test_lease_of_older_term_after_a_new_grant(rig: Rig) -> None:
    """The same, but the job was granted since: superseded."""
    rig.submit_one()
    lost = rig.grant_one()
    rig.crash(lose=1, window_ms=0)
    rig.open_session(2, "w2")
    new = rig.grant_one(2)
    assert rig.report(lost, session_id=2) is Verdict.SUPERSEDED
    assert rig.report(new, session_id=2) is Verdict.ACCEPTED


def test_higher_lease_wins_over_the_one_held(rig: Rig) -> None:
    """A report under a higher lease than the one held is adopted; the loser is told first."""
    job_id = rig.submit_one()
    low = rig.grant_one()
    rig.open_session(2)
    high = LeaseRow(job_id, Lease(Token(1, 10), low.lease.seq + 5, 0))
    decision = rig.do(commands.ReportAttempts(session_id=2, rows=[report_row(high)], jitter=[0.5]))
    assert verdicts_of(decision.effects)[0][2] is Verdict.ACCEPTED
    (revoke,) = of_type(decision.effects, SendRevokes)
    assert (revoke.session_id, revoke.rows, revoke.unless_started) == (1, [tuple(low)], False)
    assert revoke.reason == "superseded"
    assert rig.record(job_id).lease == high.lease
    assert rig.report(low) is Verdict.DUPLICATE


def test_unknown_job_is_gone(rig: Rig) -> None:
    """A job that nobody knows: GONE."""
    row = LeaseRow(rig.mint(), Lease(Token(1, 1), 1, 0))
    assert rig.report(row) is Verdict.GONE


def test_purged_job_answers_by_its_tombstone(rig: Rig) -> None:
    """Purged: the same report is a replayed ack, another a duplicate; later it is GONE."""
    job_id = rig.submit_one()
    row = rig.grant_one()
    rig.report(row, result=b"first")
    rig.do(commands.PurgeJobs(job_ids=[job_id]))
    assert rig.report(row, result=b"first") is Verdict.ACCEPTED
    assert rig.report(row, result=b"other") is Verdict.DUPLICATE
    assert rig.report(row, AttemptOutcome.FAILED) is Verdict.DUPLICATE
    rig.now_ms += 301_000
    assert rig.report(row, result=b"first") is Verdict.GONE


def test_same_job_twice_in_one_batch(rig: Rig) -> None:
    """Of two reports of one job in a batch the first is taken; the second is judged by it."""
    first_id, second_id = rig.submit(2)
    first, second = rig.grant(1, 2)
    rows = [
        report_row(first, result=b"1"),
        report_row(first, result=b"1"),
        report_row(second, result=b"2"),
        report_row(second, AttemptOutcome.FAILED),
    ]
    decision = rig.do(commands.ReportAttempts(session_id=1, rows=rows, jitter=[0.5]))
    verdicts = [verdict for *_, verdict in verdicts_of(decision.effects)]
    accepted, duplicate = Verdict.ACCEPTED, Verdict.DUPLICATE
    assert verdicts == [accepted, accepted, accepted, duplicate]
    assert rig.record(first_id).result == b"1"
    assert rig.record(second_id).result == b"2"


def test_too_large_result_fails_for_good(rig: Rig) -> None:
    """A result beyond the limit is not kept: FAILED/PERMANENT, and the error names the limit."""
    job_id = rig.submit_one()
    row = rig.grant_one()
    huge = b"x" * (CONFIG.payload_bytes_max + 1)
    assert rig.report(row, result=huge) is Verdict.ACCEPTED
    record = rig.record(job_id)
    assert (record.state, record.result) == (JobState.FAILED, b"")
    assert record.outcome is AttemptOutcome.FAILED_PERMANENT
    assert record.failure_reason is FailureReason.PERMANENT
    assert record.fault is not None
    assert record.fault.type == "tenure.ResultTooLarge"
    assert record.fault.category is ErrorCategory.PERMANENT
    assert str(CONFIG.payload_bytes_max) in record.fault.message
    assert rig.report(row, result=huge) is Verdict.ACCEPTED  # A replayed ack.


def test_a_result_of_just_the_limit_is_kept(rig: Rig) -> None:
    """The limit is inclusive."""
    job_id = rig.submit_one()
    assert rig.report(rig.grant_one(), result=b"x" * CONFIG.payload_bytes_max) is Verdict.ACCEPTED
    assert len(rig.record(job_id).result) == CONFIG.payload_bytes_max


def test_report_decides_whoever_sends_it(rig: Rig) -> None:
    """The lease decides, not the stream: a report on another stream is taken."""
    job_id = rig.submit_one()
    row = rig.grant_one()
    rig.open_session(9, "w1", declare=[held(row)])
    assert rig.report(row, session_id=9) is Verdict.ACCEPTED
    assert rig.state(job_id) is JobState.COMPLETED


def test_waiters_are_told_of_ended_jobs_only(rig: Rig) -> None:
    """NotifySettled names the jobs that ended for good, not those that will be retried."""
    done, retried, dead = rig.submit(3)
    rows = rig.grant(1, 3)
    outcomes = [AttemptOutcome.COMPLETED, AttemptOutcome.FAILED, AttemptOutcome.FAILED_PERMANENT]
    reports = [report_row(row, outcome) for row, outcome in zip(rows, outcomes, strict=True)]
    decision = rig.do(commands.ReportAttempts(session_id=1, rows=reports, jitter=[0.5]))
    (notify,) = of_type(decision.effects, NotifySettled)
    assert [record.job_id for record in notify.records] == [done, dead]
    assert rig.state(retried) is JobState.RETRYING


def _report(
    rig: Rig, row: LeaseRow, *, run_ms: int, session_id: int = 1
) -> commands.ReportAttempts:
    """The report of a success that took this long."""
    took = msgspec.structs.replace(report_row(row), run_ms=run_ms)
    return commands.ReportAttempts(session_id=session_id, rows=[took], jitter=[0.5])


@pytest.mark.parametrize(("run_ms", "started_ago_ms"), [(60, 60), (500, 100)])
def test_a_job_that_never_said_it_had_started_started_when_its_report_says(
    rig: Rig, run_ms: int, started_ago_ms: int
) -> None:
    """As long ago as it ran, but not before it was granted."""
    job_id = rig.submit_one()
    row = rig.grant_one()
    rig.now_ms += 100
    rig.do(_report(rig, row, run_ms=run_ms))
    assert rig.record(job_id).started_ms == rig.now_ms - started_ago_ms


def test_a_start_that_the_former_leader_knew_stands(rig: Rig) -> None:
    """A late success after a loss started when the lost attempt did."""
    job_id = rig.submit_one()
    row = rig.grant_one()
    rig.now_ms += 100
    rig.start(row)
    started_ms = rig.now_ms
    expire(rig)
    rig.do(_report(rig, row, run_ms=7))
    assert rig.record(job_id).started_ms == started_ms


@pytest.mark.parametrize("session_id", [2, 99])
def test_a_lost_grant_is_written_with_all_that_its_report_says(rig: Rig, session_id: int) -> None:
    """Whose it is by its stream, nobody's if that is gone; and since when it ran."""
    job_id = rig.submit_one()
    lost = rig.grant_one()
    rig.crash(lose=1, window_ms=0)
    rig.open_session(2, "inc")
    rig.now_ms += 1_000
    decision = rig.do(_report(rig, lost, run_ms=300, session_id=session_id))
    (verdicts,) = of_type(decision.effects, SendVerdicts)
    assert verdicts.session_id == session_id
    who = ("inc", "worker-inc") if session_id == 2 else ("", "")
    (adopted,) = of_type(decision.events, LeasesAdopted)
    assert (adopted.incarnation, adopted.worker) == who
    started_ms = rig.now_ms - 300
    assert [(row.granted_ms, row.started_ms) for row in adopted.rows] == [(started_ms, started_ms)]
    record = rig.record(job_id)
    assert (record.incarnation, record.worker, record.started_ms) == (*who, started_ms)


def test_nobody_is_told_of_a_lease_that_had_ended_before(rig: Rig) -> None:
    """Only a job that runs has a holder who loses against a newer lease."""
    job_id = rig.submit_one()
    row = rig.grant_one()
    rig.give_back(row)
    newer = LeaseRow(job_id, msgspec.structs.replace(row.lease, seq=row.lease.seq + 5))
    rig.open_session(2)
    decision = rig.do(commands.ReportAttempts(session_id=2, rows=[report_row(newer)], jitter=[0.5]))
    assert verdicts_of(decision.effects)[0][2] is Verdict.ACCEPTED
    assert not of_type(decision.effects, SendRevokes)


def _lost_second_attempt(rig: Rig, policy: Policy) -> LeaseRow:
    """A job failed once, and its next grant died with its leader."""
    rig.submit_one(policy)
    first = rig.grant_one()
    rig.start(first)
    rig.now_ms += 10
    rig.fail(first, draw=0.0)
    rig.pass_time(10)
    lost = rig.grant_one()
    rig.crash(lose=1, window_ms=0)
    return lost


def test_an_adopted_attempt_is_a_new_one(rig: Rig) -> None:
    """What the last attempt came to is history, as it is after a grant."""
    lost = _lost_second_attempt(rig, Policy(name="job"))
    rig.open_session(2, "w1", declare=[held(lost, running_ms=3)])
    record = rig.record(lost.job_id)
    assert (record.state, record.attempt, record.lease) == (JobState.RUNNING, 2, lost.lease)
    assert (record.incarnation, record.worker) == ("w1", "worker-w1")
    assert (record.granted_ms, record.started_ms, record.ended_ms) == (rig.now_ms - 3, 0, 0)
    assert record.outcome is None
    assert [attempt.number for attempt in record.history] == [1]


@pytest.mark.parametrize(
    ("policy", "limit_ms"),
    [
        (Policy(name="job", timeout_ms=5_000), 5_000 + CONFIG.timeout_grace_ms),
        (Policy(name="job", heartbeat_timeout_ms=4_000), 4_000 + CONFIG.progress_grace_ms),
    ],
)
def test_an_adopted_attempt_times_out_by_its_start(rig: Rig, policy: Policy, limit_ms: int) -> None:
    """Its worker said how long it had run: that counts, not when it was adopted."""
    lost = _lost_second_attempt(rig, policy)
    rig.open_session(2, "w1", declare=[held(lost, running_ms=1_000)])
    rig.pass_time(limit_ms - 1_001)
    assert rig.state(lost.job_id) is JobState.RUNNING
    rig.pass_time(1)
    assert rig.record(lost.job_id).outcome is AttemptOutcome.TIMED_OUT


def test_an_adopted_attempt_is_missed_at_once(rig: Rig) -> None:
    """It was never in flight on this stream: a heartbeat without it says that it is gone."""
    lost = _lost_second_attempt(rig, Policy(name="job"))
    rig.open_session(2, "w1", declare=[])
    rig.renew(2, 0, held(lost))
    assert rig.state(lost.job_id) is JobState.RUNNING
    rig.renew(2, 0)
    assert rig.state(lost.job_id) is not JobState.RUNNING


def test_a_worker_without_stream_and_lease_is_forgotten(rig: Rig) -> None:
    """Its last result ends what is known of it; with a stream it stays."""
    rig.submit(2)
    rows = rig.grant(1, 2)
    rig.report(rows[0])
    assert "w1" in state_of(rig.partition).holders
    rig.do(commands.CloseSession(session_id=1))
    rig.report(rows[1])
    assert not state_of(rig.partition).holders


def test_a_replayed_result_passes_over_jobs_that_are_gone() -> None:
    """What a snapshot lacks was purged since: the others of the event are completed."""
    rig = Rig()
    rig.open_session(1)
    rig.submit(1)
    row = rig.grant_one()
    partition = rig.replaying()
    gone = CompletedRow(rig.mint(), row.lease, 1, b"", "")
    done = CompletedRow(row.job_id, row.lease, 1, b"late", "")
    partition.replay(JobsCompleted(now_ms=2, rows=[gone, done]), partition.next_seq)
    record = partition.get(row.job_id)
    assert isinstance(record, JobRecord)
    assert (record.state, record.result) == (JobState.COMPLETED, b"late")
