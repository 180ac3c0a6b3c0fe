"""What running jobs save: which counts, what it forgives, and how long it is kept."""

import pytest

from tenure.master.core import command as commands
from tenure.master.core.command import CheckpointRow, LeaseRow
from tenure.master.core.effect import SendCheckpointAcks
from tenure.master.core.event import CheckpointsSaved, SavedRow
from tenure.master.core.partition import PartitionConfig
from tenure.master.core.record import Policy, RetryPolicy
from tenure.protocol.fence import Lease, Token
from tenure.protocol.ids import JobId
from tenure.protocol.limits import CHECKPOINT_BYTES_MAX
from tenure.protocol.vocabulary import AttemptOutcome, FailureReason, JobState
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import Rig, held, of_type

#: A job that is granted again at once, and is poison with its second loss.
ONCE_LOST = Policy(name="job", retry=RetryPolicy(base_ms=0, max_lost=1))
SILENCE_MS = 20_000


def save(rig: Rig, row: LeaseRow, number: int, data: bytes, *, session_id: int = 1) -> list[int]:
    """A worker tells what a job has saved; the numbers that are acknowledged."""
    rows = [CheckpointRow(row.job_id, row.lease, number, data)]
    decision = rig.do(commands.SaveCheckpoints(session_id=session_id, rows=rows))
    acks = of_type(decision.effects, SendCheckpointAcks)
    assert all((job, lease) == row for effect in acks for job, lease, _ in effect.rows)
    return [number for effect in acks for _, _, number in effect.rows]


def data_of(rig: Rig, job_id: JobId) -> bytes:
    """What is kept for a job's next attempt; empty: nothing."""
    saved = rig.record(job_id).checkpoint
    return b"" if saved is None else saved.data


def running(rig: Rig, policy: Policy = ONCE_LOST) -> LeaseRow:
    """A job that runs on worker 1."""
    rig.submit_one(policy)
    row = rig.grant_one()
    rig.start(row)
    return row


@pytest.fixture
def rig() -> Rig:
    """A partition with one worker."""
    rig = Rig()
    rig.open_session(1)
    return rig


class TestWhichCounts:
    """Newest lease, then newest number."""

    def test_the_newest_is_kept_and_acknowledged(self, rig: Rig) -> None:
        """Each replaces the one before; when it was taken is known."""
        row = running(rig)
        assert save(rig, row, 1, b"one") == [1]
        rig.now_ms += 1_000
        assert save(rig, row, 2, b"two") == [2]
        saved = rig.record(row.job_id).checkpoint
        assert saved is not None
        assert (saved.data, saved.number, saved.lease) == (b"two", 2, row.lease)
        assert saved.saved_ms == rig.now_ms

    def test_what_comes_again_or_late_changes_nothing(self, rig: Rig) -> None:
        """It is acknowledged without an event: the newer one is safe already."""
        row = running(rig)
        save(rig, row, 3, b"three")
        events = len(rig.journal)
        assert save(rig, row, 3, b"three") == [3]
        assert save(rig, row, 2, b"two") == [2]
        assert len(rig.journal) == events
        assert data_of(rig, row.job_id) == b"three"

    def test_several_of_one_job_at_once_are_one(self, rig: Rig) -> None:
        """The newest of a command is journaled, and all are acknowledged."""
        row = running(rig)
        rows = [CheckpointRow(row.job_id, row.lease, n, b"%d" % n) for n in (1, 3, 2)]
        decision = rig.do(commands.SaveCheckpoints(session_id=1, rows=rows))
        (event,) = of_type(list(decision.events), CheckpointsSaved)  # type: ignore[arg-type]
        assert [saved.data for saved in event.rows] == [b"3"]
        (acks,) = of_type(decision.effects, SendCheckpointAcks)
        assert [number for _, _, number in acks.rows] == [1, 3, 2]

    def test_a_stale_lease_saves_nothing(self, rig: Rig) -> None:
        """Once its attempt is over, and under a newer lease, what it says is dropped: no ack."""
        row = running(rig)
        save(rig, row, 1, b"old")
        rig.give_back(row)
        assert save(rig, row, 2, b"late") == []
        newer = rig.grant_one()
        assert newer.lease > row.lease
        assert save(rig, row, 3, b"later") == []
        assert data_of(rig, row.job_id) == b"old"
        assert save(rig, newer, 1, b"new") == [1]
        assert data_of(rig, row.job_id) == b"new"

    def test_an_unknown_lease_or_job_saves_nothing(self, rig: Rig) -> None:
        """One that a lost grant gave out counts when its worker has proved it."""
        row = running(rig)
        unknown = LeaseRow(row.job_id, Lease(Token(1, 10), 99, 0))
        assert save(rig, unknown, 1, b"x") == []
        assert save(rig, LeaseRow(JobId("nobody"), row.lease), 1, b"x") == []
        rig.do(commands.DeclareLeases(session_id=1, rows=[held(unknown)]))
        assert save(rig, unknown, 1, b"x") == [1]

    def test_too_much_is_not_taken(self) -> None:
        """Neither more than a checkpoint may have, nor what the partition has no room for; what was
        saved before stays. A smaller one is taken all the same.
        """
        rig = Rig(PartitionConfig(partition=0, partitions=1, bytes_max=1_000))
        rig.open_session(1)
        row = running(rig)
        assert save(rig, row, 1, b"x" * 900) == [1]
        assert save(rig, row, 2, b"x" * 1_001) == []
        assert save(rig, row, 2, b"x" * (CHECKPOINT_BYTES_MAX + 1)) == []
        assert len(data_of(rig, row.job_id)) == 900
        assert save(rig, row, 3, b"x" * 800) == [3]

    def test_what_is_left_of_the_room_is_for_the_next(self) -> None:
        """To the byte; one that does not fit leaves room for a smaller one."""
        rig = Rig(PartitionConfig(partition=0, partitions=1, bytes_max=1_000))
        rig.open_session(1)
        rig.submit(4, payload=b"")
        leases = rig.grant(1, 4)
        rows = [
            CheckpointRow(row.job_id, row.lease, 1, b"x" * size)
            for row, size in zip(leases, (600, 401, 400, 1), strict=True)
        ]
        decision = rig.do(commands.SaveCheckpoints(session_id=1, rows=rows))
        (acks,) = of_type(decision.effects, SendCheckpointAcks)
        assert acks.session_id == 1
        assert [job_id for job_id, _, _ in acks.rows] == [leases[0].job_id, leases[2].job_id]
        assert save(rig, leases[0], 2, b"y" * 600) == [2]
        again = rig.do(commands.SaveCheckpoints(session_id=1, rows=[rows[3]]))
        assert again.effects == ()

    def test_one_takes_the_place_of_another_that_came_with_it(self) -> None:
        """It needs no more room than that one; and a number stands for what came first under it."""
        rig = Rig(PartitionConfig(partition=0, partitions=1, bytes_max=100))
        rig.open_session(1)
        rig.submit(payload=b"")
        row = rig.grant_one()
        rows = [
            CheckpointRow(row.job_id, row.lease, number, data * 100)
            for number, data in ((1, b"a"), (2, b"b"), (2, b"c"))
        ]
        rig.do(commands.SaveCheckpoints(session_id=1, rows=rows))
        assert data_of(rig, row.job_id) == b"b" * 100

    def test_a_master_short_of_memory_takes_less(self, rig: Rig) -> None:
        """It says with each command how much it may hold."""
        row = running(rig)
        room = state_of(rig.partition).stored_bytes + 10
        for size, acknowledged in ((11, 0), (10, 1)):
            rows = [CheckpointRow(row.job_id, row.lease, 1, b"x" * size)]
            command = commands.SaveCheckpoints(session_id=1, rows=rows, bytes_max=room)
            effects = of_type(rig.do(command).effects, SendCheckpointAcks)
            assert len(effects) == acknowledged

    def test_what_does_not_count_is_passed_over(self, rig: Rig) -> None:
        """In a command, in an event that is replayed over a newer snapshot, and in any replay."""
        stale, fresh, other = running(rig), running(rig), running(rig)
        rows = [CheckpointRow(stale.job_id, Lease(Token(1, 1), 1, 0), 1, b"stale")]
        rows += [CheckpointRow(row.job_id, row.lease, 1, b"fresh") for row in (fresh, other)]
        rig.do(commands.SaveCheckpoints(session_id=1, rows=rows))
        assert [data_of(rig, row.job_id) for row in (stale, fresh, other)] == [
            b"",
            b"fresh",
            b"fresh",
        ]
        assert rig.replayed().state_hash() == rig.partition.state_hash()
        gone = SavedRow(JobId("gone"), fresh.lease, 1, b"gone", 0)
        seen = SavedRow(fresh.job_id, fresh.lease, 1, b"older", 0)
        event = CheckpointsSaved(now_ms=rig.now_ms, rows=[gone, seen])
        rig.partition.replay(event, rig.record(fresh.job_id).seq)
        assert data_of(rig, fresh.job_id) == b"fresh"
        rig.partition.replay(event, rig.partition.next_seq)
        assert data_of(rig, fresh.job_id) == b"older"

    def test_many_large_ones_make_events_that_fit(self, rig: Rig) -> None:
        """A batch of the journal takes no event of any size."""
        rig.submit(5)
        rows = [
            CheckpointRow(row.job_id, row.lease, 1, bytes(CHECKPOINT_BYTES_MAX))
            for row in rig.grant(1, 5)
        ]
        decision = rig.do(commands.SaveCheckpoints(session_id=1, rows=rows))
        assert len(decision.events) == 3


class TestLosses:
    """A job that gets on is no poison."""

    def test_a_new_one_forgives_losses(self, rig: Rig) -> None:
        """However often its workers die, it may go on as long as each attempt saves more."""
        row = running(rig)
        for number in range(5):
            save(rig, row, 1, b"step %d" % number, session_id=number + 1)
            rig.pass_time(SILENCE_MS)
            assert rig.state(row.job_id) is JobState.PENDING
            assert rig.record(row.job_id).losses_charged == 1
            rig.open_session(number + 2)
            row = rig.grant_one(number + 2)
        save(rig, row, 1, b"step 5")
        assert rig.record(row.job_id).losses_charged == 0

    def test_one_that_was_new_forgives_though_it_came_again_at_once(self, rig: Rig) -> None:
        """What a job saves twice before it is heard was news the first time."""
        row = running(rig)
        rig.pass_time(SILENCE_MS)
        assert rig.record(row.job_id).losses_charged == 1
        rig.open_session(2)
        row = rig.grant_one(2)
        rows = [CheckpointRow(row.job_id, row.lease, number, b"new") for number in (1, 2)]
        rig.do(commands.SaveCheckpoints(session_id=2, rows=rows))
        assert rig.record(row.job_id).losses_charged == 0

    def test_the_same_again_forgives_nothing(self, rig: Rig) -> None:
        """A job that saves what it began with and then takes its worker along is poison."""
        row = running(rig)
        save(rig, row, 1, b"step 1")
        rig.pass_time(SILENCE_MS)
        rig.open_session(2)
        row = rig.grant_one(2)
        assert save(rig, row, 1, b"step 1", session_id=2) == [1]
        assert rig.record(row.job_id).losses_charged == 1
        rig.pass_time(SILENCE_MS)
        assert rig.record(row.job_id).failure_reason is FailureReason.POISON

    def test_it_counts_as_progress(self, rig: Rig) -> None:
        """A job that must not be silent for long is not, while it saves."""
        row = running(rig, Policy(name="job", heartbeat_timeout_ms=4_000))
        for number in range(4):
            rig.pass_time(3_000)
            save(rig, row, number + 1, b"%d" % number)
            rig.renew(1, 1, held(row))
        assert rig.state(row.job_id) is JobState.RUNNING
        rig.pass_time(12_000)
        assert rig.record(row.job_id).outcome is AttemptOutcome.TIMED_OUT


class TestLife:
    """From the first one to the job's end."""

    def test_it_outlives_attempts_and_masters(self, rig: Rig) -> None:
        """A failure, a loss and a failover leave it; so does a snapshot."""
        row = running(rig, Policy(name="job", retry=RetryPolicy(base_ms=0)))
        save(rig, row, 7, b"seven")
        rig.fail(row)
        rig.pass_time(1)
        assert rig.grant_one().job_id == row.job_id
        rig.crash()
        saved = rig.record(row.job_id).checkpoint
        assert saved is not None
        assert (saved.data, saved.number) == (b"seven", 7)

    def test_it_counts_while_the_window_is_open(self, rig: Rig) -> None:
        """A new leader takes what a worker has saved under a lease that the journal knows."""
        row = running(rig)
        rig.crash()
        rig.open_session(1, declare=[held(row)])
        assert save(rig, row, 1, b"in between") == [1]

    @pytest.mark.parametrize(
        "outcome",
        [AttemptOutcome.COMPLETED, AttemptOutcome.FAILED_PERMANENT],
    )
    def test_an_end_frees_its_bytes(self, rig: Rig, outcome: AttemptOutcome) -> None:
        """An ended job runs no more; the partition keeps what it kept without it."""
        row = running(rig)
        before = state_of(rig.partition).stored_bytes
        save(rig, row, 1, b"x" * 1_000)
        assert state_of(rig.partition).stored_bytes == before + 1_000
        rig.report(row, outcome, result=b"")
        assert rig.record(row.job_id).checkpoint is None
        assert state_of(rig.partition).stored_bytes == before

    def test_a_cancel_and_an_expiry_free_it(self, rig: Rig) -> None:
        """Also of jobs that wait for their next attempt."""
        policy = Policy(name="job", deadline_ms=60_000, retry=RetryPolicy(base_ms=50_000))
        for _ in range(2):
            row = running(rig, policy)
            save(rig, row, 1, b"saved")
            rig.fail(row)
        first, second = state_of(rig.partition).jobs.values()
        rig.do(commands.CancelJobs(job_ids=[first.job_id], reason=""))
        rig.pass_time(60_000)
        assert (first.state, second.state) == (JobState.CANCELLED, JobState.FAILED)
        assert (first.checkpoint, second.checkpoint) == (None, None)

    def test_a_late_success_frees_it(self, rig: Rig) -> None:
        """The result of a lease that had ended ends the job, too."""
        row = running(rig)
        save(rig, row, 1, b"saved")
        rig.pass_time(SILENCE_MS)
        rig.open_session(2, "w1")
        rig.report(row, session_id=2)
        assert rig.state(row.job_id) is JobState.COMPLETED
        assert rig.record(row.job_id).checkpoint is None

    def test_a_requeue_begins_anew(self, rig: Rig) -> None:
        """A new run is as if nothing had been saved, and numbers begin anew."""
        row = running(rig)
        save(rig, row, 9, b"old run")
        rig.report(row, AttemptOutcome.FAILED_PERMANENT)
        rig.do(commands.RequeueJobs(job_ids=[row.job_id]))
        again = rig.grant_one()
        assert data_of(rig, row.job_id) == b""
        assert save(rig, again, 1, b"new run") == [1]
