"""What a partition knows: what it begins with, what a job takes, who is remembered."""

import msgspec
import pytest

from tenure.master.core import command as commands
from tenure.master.core.command import LeaseRow
from tenure.master.core.event import JobsReadied
from tenure.master.core.partition import Partition
from tenure.master.core.record import Attempt, JobFault, JobRecord, Policy
from tenure.master.core.session import Holder
from tenure.master.core.state import State, footprint, has_started, lease_of
from tenure.protocol.fence import NO_TOKEN, Lease, Token
from tenure.protocol.vocabulary import AttemptOutcome, JobState
from tests.unit.master.core.rig import CONFIG, Rig

LEASE = Lease(Token(1, 1), 1, 2)


def job(**fields: object) -> JobRecord:
    """A job that was granted in its run 2."""
    record = JobRecord(
        job_id="job",
        seq=1,
        ordinal=1,
        state=JobState.SCHEDULED,
        policy=Policy(name="job"),
        priority=5,
        payload=b"",
        key="",
        submitted_ms=0,
        ready_ms=1_000,
        run=2,
    )
    return msgspec.structs.replace(record, **fields)


def attempt(*, run: int = 2, started_ms: int = 0, fault: JobFault | None = None) -> Attempt:
    """One that has ended."""
    return Attempt(
        number=1,
        worker="w",
        lease=msgspec.structs.replace(LEASE, run=run),
        granted_ms=1,
        started_ms=started_ms,
        ended_ms=9,
        outcome=AttemptOutcome.FAILED,
        fault=fault,
    )


def test_a_new_partition_has_seen_nothing() -> None:
    """No event, no time, no term, no job; and it knows which it is."""
    partition = Partition(CONFIG)
    assert partition.config is CONFIG
    assert (partition.next_seq, partition.stamp_ms, partition.token) == (1, 0, NO_TOKEN)
    partition.finish_replay()
    assert not partition.has_ready()


def test_one_ready_job_is_enough() -> None:
    """And one that was granted is ready no more."""
    rig = Rig()
    rig.open_session(1)
    assert not rig.partition.has_ready()
    rig.submit_one()
    assert rig.partition.has_ready()
    rig.grant_one()
    assert not rig.partition.has_ready()


def test_nothing_is_known_of_who_runs_a_job_before_a_replay_is_over() -> None:
    """Nor of a job that nobody knows."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one()
    rig.grant_one()
    assert rig.partition.holding_of(rig.mint()) is None
    assert rig.replaying().holding_of(job_id) is None
    assert rig.replayed().holding_of(job_id) is not None


def test_an_event_writes_all_jobs_that_are_there() -> None:
    """One that was purged since the snapshot stands in no other's way."""
    rig = Rig()
    job_id = rig.submit_one(delay_ms=5)
    partition = rig.replaying()
    partition.replay(JobsReadied(now_ms=9, job_ids=[rig.mint(), job_id]), partition.next_seq)
    record = partition.get(job_id)
    assert isinstance(record, JobRecord)
    assert record.state is JobState.PENDING


def test_watches_are_told_of_new_states_only() -> None:
    """With the journal's time; a job that stays what it was is no news."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one()
    rig.grant_one()
    rig.partition.watch_changes(True)
    rig.do(commands.CancelJobs(job_ids=[job_id]))
    assert rig.record(job_id).cancel_requested
    assert rig.partition.drain_changes() == []
    rig.open_session(2)
    newer = LeaseRow(job_id, msgspec.structs.replace(lease_of(rig.record(job_id)), seq=9))
    rig.report(newer, session_id=2)
    assert [change.state for change in rig.partition.drain_changes()] == [JobState.COMPLETED]
    rig.now_ms += 7
    other = rig.submit_one()
    (change,) = rig.partition.drain_changes()
    assert (change.job_id, change.state, change.changed_ms) == (other, JobState.PENDING, rig.now_ms)
    assert change.seq == rig.record(other).seq


@pytest.mark.parametrize(
    ("record", "started"),
    [
        (job(), False),
        (job(attempts_charged=1), True),
        (job(losses_charged=1), True),
        (job(attempt=1), False),
        (job(attempt=1, started_ms=5), True),
        (job(started_ms=5), False),
        (job(history=(attempt(),)), False),
        (job(history=(attempt(started_ms=5),)), True),
        (job(history=(attempt(), attempt(started_ms=5))), True),
        (job(history=(attempt(run=1, started_ms=5),)), False),
    ],
)
def test_whether_a_run_has_started(record: JobRecord, started: bool) -> None:
    """By its charges, its last attempt or one before; what a former run did does not count."""
    assert has_started(record) is started


def test_what_a_job_takes() -> None:
    """Payload, result, and all that its errors say."""
    fault = JobFault("type", "message", "traceback")
    assert footprint(job(payload=b"12345", result=b"123")) == 8
    assert footprint(job(fault=fault)) == 4 + 7 + 9
    assert footprint(job(history=(attempt(fault=fault), attempt()))) == 20


def test_a_job_that_was_never_granted_has_no_lease() -> None:
    """Whoever asks for it has made a mistake, and is told of which job."""
    assert lease_of(job(lease=LEASE)) is LEASE
    with pytest.raises(ValueError, match="a lease of job job, but it was never granted"):
        lease_of(job())


def test_many_timers_of_one_thing_become_one() -> None:
    """The earliest; of a thing that waits for nothing none is left."""
    state = State(CONFIG)
    record, holder, idle = job(), Holder("w1", "worker"), Holder("w2", "worker")
    holder.check_ms = 500
    for late_ms in range(3_000):
        state.timers.arm_at(record, 1_000 + late_ms)
        state.holder_timers.arm_at(holder, 500 + late_ms)
        state.holder_timers.arm_at(idle, 400)
    assert len(state.timers) < 2_000
    assert len(state.holder_timers) < 2_000
    assert (1_000, record) in state.timers.things()
    assert (500, holder) in state.holder_timers.things()
    assert len([thing for _, thing in state.holder_timers.things() if thing is idle]) < 2_000
