"""What jobs save on its way to the master: how often, in what order, and until when."""

import pytest

from tenure.protocol.fence import Token
from tenure.protocol.limits import CHECKPOINT_BYTES_MAX, CHECKPOINT_MS_MIN
from tenure.protocol.vocabulary import AttemptOutcome, ErrorCategory
from tenure.v1 import worker_pb2
from tenure.worker.executor.outbox import Outbox
from tenure.worker.held import AttemptResult, Fault, HeldJob
from tenure.worker.session import Session
from tests.unit.worker.masters import job_id
from tests.unit.worker.rig import HEARTBEAT_MS, Rig, Said

NEWER = Token(1, 101)
FAILED = AttemptResult(
    AttemptOutcome.FAILED, fault=Fault("app.Error", "no", "", ErrorCategory.TRANSIENT)
)
RELEASED = AttemptResult(AttemptOutcome.RELEASED)


class Desk:
    """A worker with one running job that saves things."""

    def __init__(self, jobs: int = 1) -> None:
        self.rig = Rig()
        self.session = self.rig.leading()
        self.refs = self.rig.grant(self.session, *range(1, jobs + 1))
        self.jobs = self.rig.begin(jobs)
        self.rig.hear(self.session)
        self._outbox = Outbox(lambda: None)

    def save(self, data: bytes, job: HeldJob | None = None) -> None:
        """The job saves something."""
        self._outbox.save(job or self.jobs[0], data)
        self.rig.arbiter.happened(self._outbox.take())

    def sent(self, session: Session | None = None) -> list[tuple[int, bytes]]:
        """What is sent now of what was saved: numbers and data."""
        return saved_of(self.rig.hear(session or self.session))

    def ack(self, number: int) -> None:
        """The master says that it is safe."""
        ack = worker_pb2.CheckpointAck(lease=self.refs[0], number=number)
        self.rig.instruct(self.session, checkpoint_acks=[ack])


def saved_of(said: Said) -> list[tuple[int, bytes]]:
    """What a worker has sent of what its jobs have saved."""
    return [(row.number, row.data) for update in said.updates for row in update.checkpoints]


class TestThrottle:
    """Only the newest, and not too often."""

    def test_the_first_goes_at_once_and_then_the_newest_after_a_while(self) -> None:
        """A job may save as often as it likes."""
        desk = Desk()
        desk.save(b"1")
        assert desk.sent() == [(1, b"1")]
        for number in range(2, 50):
            desk.save(b"%d" % number)
        assert desk.sent() == []
        desk.rig.wait(CHECKPOINT_MS_MIN - 1)
        assert desk.sent() == []
        desk.rig.wait(1)
        assert desk.sent() == [(49, b"49")]
        desk.rig.wait(CHECKPOINT_MS_MIN)
        assert desk.sent() == []

    def test_large_ones_go_less_often(self) -> None:
        """Sixty-four KiB a second and job are what a journal can bear."""
        desk = Desk()
        size = CHECKPOINT_BYTES_MAX
        desk.save(b"1" * size)
        assert desk.sent() == [(1, b"1" * size)]
        desk.save(b"2" * size)
        desk.rig.wait(1_000)
        assert desk.sent() == []
        desk.rig.wait(CHECKPOINT_MS_MIN + 24)
        assert desk.sent() == [(2, b"2" * size)]

    def test_one_fact_stands_for_all_until_it_is_sent(self) -> None:
        """A job that saves a million times does not fill the session's queue."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        (job,) = rig.begin()
        outbox = Outbox(lambda: None)
        for _ in range(100):
            outbox.save(job, b"x")
        facts = outbox.take()
        assert len(facts) == 1
        rig.arbiter.happened(facts)
        assert saved_of(rig.hear(session)) == [(100, b"x")]
        outbox.save(job, b"y")
        assert len(outbox.take()) == 1

    def test_jobs_do_not_wait_for_each_other(self) -> None:
        """The pause is each job's own."""
        desk = Desk(2)
        desk.save(b"one", desk.jobs[0])
        assert desk.sent() == [(1, b"one")]
        desk.save(b"two", desk.jobs[1])
        assert desk.sent() == [(1, b"two")]


class TestOrder:
    """Before the end of its lease."""

    def test_it_goes_before_the_report(self) -> None:
        """In the same message, whatever the pause: the next attempt is to begin with it."""
        desk = Desk()
        desk.save(b"1")
        desk.sent()
        desk.save(b"2")
        desk.rig.end(desk.jobs[0], FAILED)
        (update,) = desk.rig.hear(desk.session).updates
        assert [row.data for row in update.checkpoints] == [b"2"]
        assert len(update.reports) == 1

    def test_it_goes_before_the_lease_is_handed_back(self) -> None:
        """Nothing that was finished is done again after a drain."""
        desk = Desk()
        desk.save(b"1")
        desk.sent()
        desk.save(b"2")
        desk.rig.end(desk.jobs[0], RELEASED)
        (update,) = desk.rig.hear(desk.session).updates
        assert [row.data for row in update.checkpoints] == [b"2"]
        assert [ref.job_id for ref in update.returned] == [job_id(1)]

    def test_it_goes_before_a_forsaken_job_is_handed_back(self) -> None:
        """The same where the job's code has not ended."""
        desk = Desk()
        desk.save(b"1")
        desk.sent()
        desk.save(b"2")
        desk.rig.arbiter.forsake()
        (update,) = desk.rig.hear(desk.session).updates
        assert [row.data for row in update.checkpoints] == [b"2"]
        assert [ref.job_id for ref in update.returned] == [job_id(1)]

    @pytest.mark.parametrize("result", [FAILED, RELEASED])
    def test_large_ones_never_come_after_the_end(self, result: AttemptResult) -> None:
        """What does not fit into one message keeps the ends of all waiting for the next one."""
        desk = Desk(8)
        for job in desk.jobs:
            desk.save(bytes(CHECKPOINT_BYTES_MAX), job)
        for job in list(desk.jobs):
            desk.rig.end(job, result)
        ended: set[str] = set()
        saved: set[str] = set()
        requests = desk.rig.hear(desk.session).requests
        assert len(requests) > 1
        for request in requests:
            assert request.ByteSize() < 512 * 1024
            for update in request.updates:
                saved |= {row.lease.job_id for row in update.checkpoints}
                ended |= {ref.job_id for ref in update.returned}
                ended |= {report.lease.job_id for report in update.reports}
                assert ended <= saved
        assert len(ended) == 8

    @pytest.mark.parametrize("saves", [1, 2])
    def test_what_nobody_needs_is_not_sent(self, saves: int) -> None:
        """A job that has succeeded begins no more; and then there is nothing to say of it."""
        desk = Desk()
        for number in range(1, saves):
            desk.save(b"%d" % number)
            desk.sent()
        desk.save(b"last")
        desk.rig.end(desk.jobs[0])
        said = desk.rig.hear(desk.session)
        assert saved_of(said) == []
        assert len(said.requests) == 1


class TestDelivery:
    """Until it is known to be safe."""

    def test_what_is_not_acknowledged_is_sent_with_the_next_stream(self) -> None:
        """The newest, after the declaration, to whoever leads then."""
        desk = Desk()
        desk.save(b"1")
        desk.sent()
        desk.rig.arbiter.stream_closed(desk.session)
        desk.save(b"2")
        other = desk.rig.connect("m2")
        desk.rig.open(other, token=NEWER)
        said = desk.rig.hear(other)
        assert saved_of(said) == [(2, b"2")]
        assert said.declared == [[job_id(1)]]

    def test_what_is_safe_is_not_sent_again(self) -> None:
        """Neither over another stream nor as time passes."""
        desk = Desk()
        desk.save(b"1")
        desk.sent()
        desk.ack(1)
        desk.rig.wait(HEARTBEAT_MS * 2)
        assert desk.sent() == []
        other = desk.rig.leading("m2", token=NEWER)
        assert desk.sent(other) == []

    def test_an_acknowledgement_of_an_older_one_is_not_enough(self) -> None:
        """What was saved since is still to be sent."""
        desk = Desk()
        desk.save(b"1")
        desk.sent()
        desk.save(b"2")
        desk.ack(1)
        desk.rig.wait(CHECKPOINT_MS_MIN)
        assert desk.sent() == [(2, b"2")]

    def test_a_silent_master_is_told_again_with_a_heartbeat(self) -> None:
        """It may have had no room, or have been too busy to take it."""
        desk = Desk()
        desk.save(b"1")
        desk.sent()
        desk.rig.wait(HEARTBEAT_MS * 2)
        said = desk.rig.hear(desk.session)
        desk.rig.ack(desk.session, said.heartbeats[0])
        desk.rig.wait(CHECKPOINT_MS_MIN)
        assert saved_of(said) + desk.sent() == [(1, b"1")]

    def test_a_judged_attempt_is_forgotten(self) -> None:
        """Its lease is off the books, and so is what it has saved."""
        desk = Desk()
        desk.save(b"1")
        desk.rig.end(desk.jobs[0], FAILED)
        desk.sent()
        desk.rig.judge(desk.session, desk.refs[0])
        desk.rig.wait(HEARTBEAT_MS * 2)
        assert desk.sent() == []
        desk.save(b"2", desk.jobs[0])
        assert desk.sent() == []


class TestHandingBack:
    """What a drain means for jobs that can go on elsewhere."""

    def test_a_drain_asks_for_them_back(self) -> None:
        """They learn it, wherever they run; what has not begun is returned as ever."""
        desk = Desk()
        desk.rig.grant(desk.session, 2)
        desk.rig.arbiter.drain()
        assert desk.jobs[0].wanted_back
        assert desk.rig.hear(desk.session).returned == [job_id(2)]
        orders = desk.rig.arbiter.take_orders()
        assert orders is not None
        assert orders.leases == [desk.jobs[0]]

    def test_a_masters_drain_does_the_same(self) -> None:
        """Of its own jobs."""
        desk = Desk()
        said = worker_pb2.SessionResponse(drain=worker_pb2.Drain())
        desk.rig.tell(desk.session, said)
        assert desk.jobs[0].wanted_back

    def test_a_job_that_must_not_run_twice_stays(self) -> None:
        """Handed back it would have failed."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1, at_most_once=True)
        (job,) = rig.begin()
        rig.arbiter.drain()
        assert not job.wanted_back


def test_a_grant_carries_what_was_saved() -> None:
    """The next attempt begins with it."""
    rig = Rig()
    session = rig.leading()
    said = worker_pb2.Assignment(number=1)
    said.options.add(name="double")
    said.grants.add(job_id=job_id(1), seq=1, attempt=2, checkpoint=b"saved")
    rig.instruct(session, assignment=said)
    (job,) = rig.begin()
    assert job.resume == b"saved"
