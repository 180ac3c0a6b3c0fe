"""Cancel, requeue and purge: the dead letter queue."""

from dataclasses import replace

import pytest

from tenure.master.core import command as commands
from tenure.master.core.command import SubmitRow
from tenure.master.core.effect import JobVerdict, NotifySettled, SendAssignment
from tenure.master.core.record import JobFault, Policy, RetryPolicy
from tenure.master.core.tombstone import Tombstone
from tenure.protocol.ids import JobId
from tenure.protocol.limits import RETRY_WINDOW_MS
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import AttemptOutcome, FailureReason, JobState
from tests.unit.master.core.rig import CONFIG, Rig, of_type


@pytest.fixture
def rig() -> Rig:
    """A partition with one session."""
    rig = Rig()
    rig.open_session(1)
    return rig


def verdict_of(rig: Rig, command: commands.Command) -> JobVerdict:
    """The verdict on a command's only job."""
    reply = rig.do(command).reply
    assert isinstance(reply, list)
    (verdict,) = reply
    return verdict


def dead(rig: Rig) -> JobId:
    """A job in the dead letter queue."""
    job_id = rig.submit_one()
    rig.report(rig.grant_one(), AttemptOutcome.FAILED_PERMANENT, fault=JobFault("E", "m"))
    return job_id


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.SCHEDULED, JobState.RETRYING])
def test_cancel_queued(rig: Rig, state: JobState) -> None:
    """A queued job is cancelled at once, its waiters are told, and it is never granted."""
    retry = RetryPolicy(base_ms=50_000)
    delay_ms = 3_000 if state is JobState.SCHEDULED else 0
    job_id = rig.submit_one(Policy(name="job", retry=retry), delay_ms=delay_ms)
    if state is JobState.RETRYING:
        rig.fail(rig.grant_one())
    decision = rig.do(commands.CancelJobs(job_ids=[job_id], reason="why"))
    assert decision.reply == [JobVerdict(job_id, JobState.CANCELLED, None)]
    assert [r.job_id for r in of_type(decision.effects, NotifySettled)[0].records] == [job_id]
    record = rig.record(job_id)
    assert (record.state, record.cancel_reason) == (JobState.CANCELLED, "why")
    assert record.ended_ms == rig.now_ms
    rig.pass_time(60_000)
    assert not rig.grant()


def test_cancel_running_is_journaled_once(rig: Rig) -> None:
    """The first cancel of a running job is journaled; the second only asks the worker again."""
    job_id = rig.submit_one()
    rig.grant_one()
    first = rig.do(commands.CancelJobs(job_ids=[job_id], reason="why"))
    second = rig.do(commands.CancelJobs(job_ids=[job_id], reason="again"))
    assert len(first.events) == 1
    assert not second.events
    assert len(second.effects) == 1
    record = rig.record(job_id)
    assert (record.state, record.cancel_requested) == (JobState.RUNNING, True)
    assert record.cancel_reason == "why"


def test_cancel_twice_is_the_same(rig: Rig) -> None:
    """Cancelling a cancelled job is no error."""
    job_id = rig.submit_one()
    rig.do(commands.CancelJobs(job_ids=[job_id]))
    verdict = verdict_of(rig, commands.CancelJobs(job_ids=[job_id]))
    assert verdict == JobVerdict(job_id, JobState.CANCELLED, None)


def test_cancel_ended_is_refused(rig: Rig) -> None:
    """A job that has ended cannot be cancelled; the refusal names its state."""
    job_id = dead(rig)
    refusal = verdict_of(rig, commands.CancelJobs(job_ids=[job_id])).refusal
    assert refusal is not None
    assert refusal.reason is Reason.WRONG_STATE
    assert refusal.metadata["state"] == "FAILED"


@pytest.mark.parametrize("kind", [commands.CancelJobs, commands.RequeueJobs, commands.PurgeJobs])
def test_unknown_and_purged_jobs(rig: Rig, kind: type[commands.PurgeJobs]) -> None:
    """Never known → NOT_FOUND; purged → RESULT_EXPIRED, until the tombstone is gone."""
    refusal = verdict_of(rig, kind(job_ids=[rig.mint()])).refusal
    assert refusal is not None
    assert refusal.reason is Reason.NOT_FOUND
    job_id = dead(rig)
    rig.do(commands.PurgeJobs(job_ids=[job_id]))
    refusal = verdict_of(rig, kind(job_ids=[job_id])).refusal
    assert refusal is not None
    assert refusal.reason is Reason.RESULT_EXPIRED
    rig.now_ms += RETRY_WINDOW_MS + 1_000
    refusal = verdict_of(rig, kind(job_ids=[job_id])).refusal
    assert refusal is not None
    assert refusal.reason is Reason.NOT_FOUND


VERBS = {
    commands.CancelJobs: "cancel",
    commands.RequeueJobs: "requeue",
    commands.PurgeJobs: "purge",
}


@pytest.mark.parametrize("kind", VERBS)
@pytest.mark.parametrize("purged", [False, True])
def test_a_refusal_says_what_was_wanted_of_which_job(
    rig: Rig, kind: type[commands.PurgeJobs], purged: bool
) -> None:
    """A job that is not there: the verdict names it, what was wanted, and nothing is journaled."""
    job_id = dead(rig) if purged else rig.mint()
    rig.do(commands.PurgeJobs(job_ids=[job_id]))
    decision = rig.do(kind(job_ids=[job_id]))
    assert not decision.events
    assert isinstance(decision.reply, list)
    (verdict,) = decision.reply
    assert (verdict.job_id, verdict.state) == (job_id, None)
    why = "it was purged" if purged else "no such job is known; check the id and the cluster"
    assert verdict.refusal is not None
    assert verdict.refusal.message.startswith(f"expected to {VERBS[kind]} job {job_id}, but {why}")
    assert verdict.refusal.metadata == {"job_id": job_id}


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        (commands.CancelJobs, "it has ended"),
        (commands.RequeueJobs, "only FAILED and CANCELLED jobs can be requeued"),
        (commands.PurgeJobs, "only ended jobs can be purged; cancel it first"),
    ],
)
def test_a_job_in_the_wrong_state_is_named_with_advice(
    rig: Rig, kind: type[commands.PurgeJobs], advice: str
) -> None:
    """A job that cannot take the step: the verdict names it, its state, and what can be done."""
    if kind is commands.CancelJobs:
        job_id, state = dead(rig), "FAILED"
    else:
        job_id, state = rig.submit_one(), "PENDING"
    decision = rig.do(kind(job_ids=[job_id]))
    assert not decision.events
    assert isinstance(decision.reply, list)
    (verdict,) = decision.reply
    assert (verdict.job_id, verdict.state) == (job_id, None)
    assert verdict.refusal is not None
    assert verdict.refusal.message == (
        f"expected to {VERBS[kind]} job {job_id}, but it is {state}: {advice}"
    )
    assert verdict.refusal.metadata == {"job_id": job_id, "state": state}


def test_cancel_of_a_job_whose_worker_has_no_stream(rig: Rig) -> None:
    """Nobody can be asked now, so nobody is; the cancel stands, and the caller is told so."""
    job_id = rig.submit_one()
    rig.grant_one()
    rig.do(commands.CloseSession(session_id=1))
    decision = rig.do(commands.CancelJobs(job_ids=[job_id]))
    assert decision.reply == [JobVerdict(job_id, JobState.RUNNING, None)]
    assert not decision.effects
    assert rig.record(job_id).cancel_requested


def test_purge_of_several_kinds(rig: Rig) -> None:
    """Jobs of several names and tenants are forgotten in one go, each in its own counts."""
    policies = [Policy(name="job"), Policy(name="other"), Policy(name="job", tenant="t")]
    ids = [rig.submit_one(policy) for policy in (*policies, *policies)]
    rig.do(commands.CancelJobs(job_ids=ids))
    rig.do(commands.PurgeJobs(job_ids=ids[:4]))
    assert [r.job_id for r in rig.partition.scan().take(9, 99)] == [ids[5], ids[4]]
    rig.do(commands.PurgeJobs(job_ids=ids[4:]))
    assert rig.partition.counts() == {}


def test_requeue_gives_a_fresh_run(rig: Rig) -> None:
    """A dead letter gets a new run with fresh budgets, its history kept."""
    job_id = dead(rig)
    rig.now_ms += 1_000
    verdict = verdict_of(rig, commands.RequeueJobs(job_ids=[job_id]))
    assert verdict == JobVerdict(job_id, JobState.PENDING, None)
    record = rig.record(job_id)
    assert (record.run, record.attempt, record.attempts_charged) == (1, 0, 0)
    assert (record.ready_ms, record.run_due_ms) == (rig.now_ms, rig.now_ms)
    assert (record.fault, record.failure_reason, record.outcome) == (None, None, None)
    assert (record.granted_ms, record.started_ms, record.ended_ms) == (0, 0, 0)
    assert record.cancel_requested is False
    assert [attempt.fault for attempt in record.history] == [JobFault("E", "m")]
    assert rig.grant_one().lease.run == 1


def test_requeue_with_another_payload(rig: Rig) -> None:
    """A dead letter is edited: it has the new payload from then on, in a replay, too."""
    job_id, other = dead(rig), dead(rig)
    stored = rig.partition.stats().payload_bytes
    rig.do(commands.RequeueJobs(job_ids=[job_id], payload=b"mended payload"))
    rig.do(commands.RequeueJobs(job_ids=[other]))
    assert rig.partition.stats().payload_bytes == stored + len(b"mended payload") - len(b"payload")
    granted = of_type(rig.dispatch((1, 1)).effects, SendAssignment)
    assert granted[0].rows[0].record.payload == b"mended payload"
    rig.crash()
    record = rig.record(job_id)
    assert (record.payload, record.run, len(record.history)) == (b"mended payload", 1, 1)
    assert rig.record(other).payload == b"payload"


def test_a_submit_that_is_sent_again_after_an_edit_is_the_same_job(rig: Rig) -> None:
    """Its sender cannot know of the edit; the edit stands."""
    row = SubmitRow(rig.mint(), 0, b"payload", "")
    rig.submit_rows([row])
    rig.report(rig.grant_one(), AttemptOutcome.FAILED_PERMANENT)
    rig.do(commands.RequeueJobs(job_ids=[row.job_id], payload=b"mended"))
    assert rig.submit_rows([row]).existing == [0]
    assert rig.record(row.job_id).payload == b"mended"


@pytest.mark.parametrize(
    ("payload", "reason"), [(b"x" * 101, "PAYLOAD_TOO_LARGE"), (b"x" * 100, "MEMORY_FULL")]
)
def test_another_payload_needs_room(payload: bytes, reason: str) -> None:
    """As that of a submit; the job stays as it was."""
    rig = Rig(replace(CONFIG, payload_bytes_max=100, bytes_max=50))
    rig.open_session(1)
    job_id = dead(rig)
    refusal = verdict_of(rig, commands.RequeueJobs(job_ids=[job_id], payload=payload)).refusal
    assert refusal is not None
    assert refusal.reason == reason
    assert (rig.state(job_id), rig.record(job_id).payload) == (JobState.FAILED, b"payload")
    assert verdict_of(rig, commands.RequeueJobs(job_ids=[job_id], payload=b"x")).refusal is None


def test_requeue_cancelled(rig: Rig) -> None:
    """A cancelled job can be run after all; the cancel is forgotten."""
    job_id = rig.submit_one()
    rig.do(commands.CancelJobs(job_ids=[job_id], reason="oops"))
    rig.do(commands.RequeueJobs(job_ids=[job_id]))
    rig.fail(rig.grant_one())
    record = rig.record(job_id)
    assert (record.state, record.cancel_reason) == (JobState.RETRYING, "")


@pytest.mark.parametrize("kind", [commands.RequeueJobs, commands.PurgeJobs])
def test_open_jobs_are_refused(rig: Rig, kind: type[commands.PurgeJobs]) -> None:
    """Only ended jobs can be requeued or purged."""
    job_id = rig.submit_one()
    refusal = verdict_of(rig, kind(job_ids=[job_id])).refusal
    assert refusal is not None
    assert refusal.reason is Reason.WRONG_STATE


def test_completed_job_cannot_be_requeued(rig: Rig) -> None:
    """A result stays: COMPLETED jobs have no further run."""
    job_id = rig.submit_one()
    rig.report(rig.grant_one())
    assert verdict_of(rig, commands.RequeueJobs(job_ids=[job_id])).refusal is not None
    assert rig.state(job_id) is JobState.COMPLETED


def test_purge_leaves_a_tombstone(rig: Rig) -> None:
    """A purged job is gone from every list and count; its tombstone says how it ended."""
    job_id = dead(rig)
    lease = rig.record(job_id).lease
    verdict = verdict_of(rig, commands.PurgeJobs(job_ids=[job_id]))
    assert verdict == JobVerdict(job_id, None, None)
    tombstone = rig.partition.get(job_id)
    assert isinstance(tombstone, Tombstone)
    assert (tombstone.state, tombstone.lease) == (JobState.FAILED, lease)
    assert tombstone.outcome is AttemptOutcome.FAILED_PERMANENT
    assert rig.partition.counts() == {}
    assert rig.partition.scan().take(10, 1_000) == []


def test_one_verdict_a_job(rig: Rig) -> None:
    """A job named twice in one command is done once."""
    job_id = dead(rig)
    decision = rig.do(commands.RequeueJobs(job_ids=[job_id, job_id]))
    assert decision.reply == [JobVerdict(job_id, JobState.PENDING, None)]
    assert rig.record(job_id).run == 1


def test_requeue_loop_keeps_no_garbage(rig: Rig) -> None:
    """Requeued again and again a job leaves nothing behind on the shelf of finished jobs."""
    anchor = dead(rig)
    job_id = dead(rig)
    for _ in range(2_000):
        rig.partition._state.changes = None
        for command in (
            commands.RequeueJobs(job_ids=[job_id]),
            commands.CancelJobs(job_ids=[job_id]),
        ):
            for event in rig.decide(command).events:
                rig.partition.apply(event)
    state = rig.partition._state
    assert state.finished._done._entries + state.finished._dead._entries < 1_100
    assert rig.record(anchor).failure_reason is FailureReason.PERMANENT
