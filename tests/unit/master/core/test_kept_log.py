"""What attempts have said is kept with their job, within bounds, through replays."""

import dataclasses

import msgspec
import pytest

from tenure.master.core.command import LeaseRow, PurgeJobs, ReportAttempts, RequeueJobs
from tenure.master.core.effect import SendVerdicts
from tenure.master.core.event import LogsKept
from tenure.master.core.kept_log import LOGS_MAX
from tenure.master.core.record import JobFault, JobRecord, Policy, RetryPolicy
from tenure.protocol.ids import JobId
from tenure.protocol.limits import ATTEMPT_LOG_BYTES_MAX, JOB_LOGS_BYTES_MAX
from tenure.protocol.vocabulary import AttemptOutcome, Backoff, JobState, Verdict
from tests.unit.master.core.rig import CONFIG, Rig, report_row, verdicts_of

STUBBORN = Policy(name="job", retry=RetryPolicy(backoff=Backoff.NONE, max_attempts=100))
COMPLETED, FAILED = AttemptOutcome.COMPLETED, AttemptOutcome.FAILED
RELEASED = AttemptOutcome.RELEASED


@pytest.fixture
def rig() -> Rig:
    """A partition with one session."""
    rig = Rig()
    rig.open_session(1)
    return rig


def end(
    rig: Rig, row: LeaseRow, log: bytes, outcome: AttemptOutcome = COMPLETED, session_id: int = 1
) -> Verdict:
    """Reports an attempt that has said something."""
    fault = None if outcome in (COMPLETED, RELEASED) else JobFault("app.Error", "it broke")
    report = msgspec.structs.replace(report_row(row, outcome, fault=fault), log=log)
    decision = rig.do(ReportAttempts(session_id=session_id, rows=[report], jitter=[0.5]))
    assert any(isinstance(effect, SendVerdicts) for effect in decision.effects)
    return verdicts_of(decision.effects)[0][2]


def kept(record: JobRecord) -> list[tuple[int, int, bytes]]:
    """What is kept: run, attempt, lines."""
    return [(log.run, log.attempt, log.lines) for log in record.logs]


def fail_again(rig: Rig, job_id: JobId, log: bytes) -> None:
    """The job's next attempt fails, having said something."""
    rig.pass_time(1)
    assert end(rig, rig.grant_one(), log, FAILED) is Verdict.ACCEPTED
    assert rig.state(job_id) is JobState.RETRYING


def test_each_attempts_log_is_kept(rig: Rig) -> None:
    """Of failures and of the success, with their numbers; a replay has the same."""
    job_id = rig.submit_one(STUBBORN)
    fail_again(rig, job_id, b"one")
    rig.pass_time(1)
    end(rig, rig.grant_one(), b"two")
    assert kept(rig.record(job_id)) == [(0, 1, b"one"), (0, 2, b"two")]
    replayed = rig.replayed().get(job_id)
    assert isinstance(replayed, JobRecord)
    assert replayed.logs == rig.record(job_id).logs
    assert rig.replayed().state_hash() == rig.partition.state_hash()


def test_silence_is_not_journaled(rig: Rig) -> None:
    """A job that says nothing adds no event."""
    rig.submit_one()
    rig.report(rig.grant_one())
    assert not [event for event in rig.events() if isinstance(event, LogsKept)]


def test_logs_count_as_stored_bytes(rig: Rig) -> None:
    """They are part of what the partition keeps, until their job is purged."""
    before = rig.partition.stats().payload_bytes
    job_id = rig.submit_one()
    end(rig, rig.grant_one(), b"x" * 1_000)
    size = rig.partition.stats().payload_bytes - before
    assert size == len(b"payload") + len(b"result") + 1_000
    rig.do(PurgeJobs(job_ids=[job_id]))
    assert rig.partition.stats().payload_bytes == before


def test_a_full_partition_keeps_no_logs() -> None:
    """What is optional gives way first: the result is taken, the log is not."""
    rig = Rig(dataclasses.replace(CONFIG, bytes_max=10))
    rig.open_session(1)
    (job_id,) = rig.submit(payload=b"1234567890")
    assert end(rig, rig.grant_one(), b"one") is Verdict.ACCEPTED
    assert rig.state(job_id) is JobState.COMPLETED
    assert kept(rig.record(job_id)) == []


def test_the_oldest_make_room(rig: Rig) -> None:
    """A job keeps so many bytes of logs, and so many logs: the newest."""
    job_id = rig.submit_one(STUBBORN)
    for attempt in range(1, 7):
        fail_again(rig, job_id, bytes([attempt]) * ATTEMPT_LOG_BYTES_MAX)
    sizes = [len(log.lines) for log in rig.record(job_id).logs]
    assert sum(sizes) == JOB_LOGS_BYTES_MAX
    assert [log.attempt for log in rig.record(job_id).logs] == [3, 4, 5, 6]
    for _ in range(LOGS_MAX + 2):
        fail_again(rig, job_id, b"short")
    assert len(rig.record(job_id).logs) == LOGS_MAX
    assert rig.replayed().state_hash() == rig.partition.state_hash()


def test_runs_are_told_apart(rig: Rig) -> None:
    """A requeued job's attempts count from 1 again, and the earlier run's log stays."""
    job_id = rig.submit_one(Policy(name="job", retry=RetryPolicy(max_attempts=1)))
    end(rig, rig.grant_one(), b"first run", FAILED)
    rig.do(RequeueJobs(job_ids=[job_id]))
    end(rig, rig.grant_one(), b"second run")
    assert kept(rig.record(job_id)) == [(0, 1, b"first run"), (1, 1, b"second run")]


def test_the_late_word_of_a_lost_attempt_is_kept(rig: Rig) -> None:
    """A worker that was not heard of comes back: its failure was judged, what it says is news,
    once, and the job keeps its place.
    """
    job_id = rig.submit_one()
    row = rig.grant_one()
    rig.start(row)
    rig.pass_time(CONFIG.lease_ttl_ms + CONFIG.lease_margin_ms + 1)
    assert rig.state(job_id) is JobState.RETRYING
    seq = rig.record(job_id).seq
    assert end(rig, row, b"late", FAILED) is Verdict.IGNORED
    assert end(rig, row, b"late", FAILED) is Verdict.IGNORED
    assert kept(rig.record(job_id)) == [(0, 1, b"late")]
    assert rig.record(job_id).seq == seq
    assert len([event for event in rig.events() if isinstance(event, LogsKept)]) == 1


def test_what_was_said_before_a_hand_back_is_kept(rig: Rig) -> None:
    """An attempt that was interrupted charges nothing, its job is next again, and what it has said
    stays, also if its worker says so twice.
    """
    job_id = rig.submit_one()
    row = rig.grant_one()
    rig.start(row)
    for _ in range(2):
        assert end(rig, row, b"on my way", RELEASED) is Verdict.ACCEPTED
    record = rig.record(job_id)
    assert (record.state, record.outcome) == (JobState.PENDING, RELEASED)
    assert (record.attempts_charged, record.losses_charged, record.undelivered) == (0, 0, 0)
    assert record.fault is None
    assert kept(record) == [(0, 1, b"on my way")]
    end(rig, rig.grant_one(), b"again")
    assert kept(rig.record(job_id)) == [(0, 1, b"on my way"), (0, 2, b"again")]
    assert rig.replayed().state_hash() == rig.partition.state_hash()


def test_an_adopted_leases_log_is_kept() -> None:
    """Its grant was lost with its leader: the attempt is counted, and what it said is its own."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one()
    row = rig.grant_one()
    rig.crash(lose=1, window_ms=0)
    rig.open_session(1)
    assert end(rig, row, b"adopted") is Verdict.ACCEPTED
    assert kept(rig.record(job_id)) == [(0, 1, b"adopted")]


def test_a_repeated_event_changes_nothing(rig: Rig) -> None:
    """A replay over a snapshot that has seen a log already keeps it once."""
    job_id = rig.submit_one(STUBBORN)
    fail_again(rig, job_id, b"one")
    fail_again(rig, job_id, b"two")
    (first, second) = [event for event in rig.events() if isinstance(event, LogsKept)]
    for event in (first, second, first):
        rig.partition.replay(event, rig.partition.next_seq)
    assert kept(rig.record(job_id)) == [(0, 1, b"one"), (0, 2, b"two")]
