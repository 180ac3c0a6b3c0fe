"""The worker over all its streams: one pool of credit, averages, and the way out."""

from tenure.protocol.fence import Token
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.v1 import common_pb2, worker_pb2
from tenure.worker.arbiter import DRAIN_TIMEOUT_MS
from tenure.worker.held import AttemptResult, HeldJob
from tenure.worker.port import FactKind
from tenure.worker.session import Session
from tests.unit.worker.masters import job_id
from tests.unit.worker.rig import TTL_MS, Rig

NEWER = Token(1, 101)
DRAIN = worker_pb2.SessionResponse(drain=worker_pb2.Drain())
UNDRAIN = worker_pb2.SessionResponse(undrain=worker_pb2.Undrain())


def ack_credit(rig: Rig, session: Session) -> None:
    """The master takes the last limit that the worker sent."""
    limits = rig.hear(session).limits
    if limits:
        acked = worker_pb2.SessionResponse(credit_acked=limits[-1].number)
        rig.tell(session, acked)


def run_for(rig: Rig, job: HeldJob, ms: int) -> None:
    """A running job ends, having begun this long ago."""
    job.started_ms = rig.now_ms - ms
    rig.end(job)


class TestCredit:
    """One pool, split over the streams."""

    def test_no_partition_no_credit(self) -> None:
        """A master that leads nothing could only hoard it."""
        rig = Rig(slots=4)
        rig.connect("m1")
        leader = rig.leading("m2")
        assert leader.credit.unspent == 4

    def test_running_jobs_occupy_the_pool(self) -> None:
        """Credit comes back when a job ends, not when its report is judged."""
        rig = Rig(slots=2)
        session = rig.leading()
        rig.grant(session, 1, 2)
        job, _ = rig.begin(2)
        assert session.credit.unspent == 0
        run_for(rig, job, 60_000)
        assert session.credit.unspent == 1
        assert rig.arbiter.held == 2

    def test_credit_of_a_broken_stream_goes_to_the_others(self) -> None:
        """A dead master cannot spend anything."""
        rig = Rig(slots=4)
        first = rig.leading("m1", partition=0)
        second = rig.leading("m2", partition=1)
        ack_credit(rig, first)
        ack_credit(rig, second)
        rig.arbiter.stream_closed(first)
        assert second.credit.unspent == 4

    def test_a_followers_unspent_credit_is_counted_until_it_has_acked(self) -> None:
        """A master that has just lost its office may still have grants on their way."""
        rig = Rig(slots=4)
        first = rig.leading("m1", partition=0)
        ack_credit(rig, first)
        rig.close(first)
        second = rig.leading("m2", partition=0, token=NEWER)
        assert (first.credit.unspent, second.credit.unspent) == (4, 0)
        ack_credit(rig, first)
        assert (first.credit.unspent, second.credit.unspent) == (0, 4)

    def test_a_zombie_does_not_keep_the_pool(self) -> None:
        """A deposed leader that never acks is dialled anew, and what it had goes to the others."""
        rig = Rig(slots=4)
        zombie = rig.leading("m1", partition=0)
        ack_credit(rig, zombie)
        leader = rig.leading("m2", partition=0, token=NEWER)
        rig.hear(zombie)
        assert rig.wait(TTL_MS - 1) == []
        assert (zombie.credit.unspent, leader.credit.unspent) == (4, 0)
        assert zombie in rig.wait(1)
        rig.arbiter.stream_closed(zombie)
        assert leader.credit.unspent == 4

    def test_two_leaders_share_by_backlog(self) -> None:
        """The master with work gets the slots of the one without, once that one has acked."""
        rig = Rig(slots=10)
        idle = rig.leading("m1", partition=0)
        busy = rig.leading("m2", partition=1)
        for session in (idle, busy, idle, busy):
            ack_credit(rig, session)
        assert (idle.credit.unspent, busy.credit.unspent) == (5, 5)
        rig.instruct(busy, partition=1, backlog=1_000)
        assert (idle.credit.unspent, busy.credit.unspent) == (5, 5)
        ack_credit(rig, idle)
        assert (idle.credit.unspent, busy.credit.unspent) == (1, 9)

    def test_short_jobs_are_fetched_ahead(self) -> None:
        """Jobs of 10 ms on 4 slots: 20 more than the slots; jobs of a minute: none."""
        rig = Rig(slots=4)
        session = rig.leading()
        rig.grant(session, 1)
        (job,) = rig.begin()
        run_for(rig, job, 10)
        assert session.credit.unspent == 4 + 20
        for number in range(2, 200):
            rig.grant(session, number)
            (job,) = rig.begin()
            run_for(rig, job, 60_000)
        assert session.credit.unspent == 4

    def test_large_payloads_are_not_fetched_ahead(self) -> None:
        """What waits here is bounded in bytes too."""
        rig = Rig(slots=4)
        session = rig.leading()
        said = worker_pb2.Assignment(number=1, options=[{"name": "double"}])
        said.grants.add(job_id=job_id(1), seq=1, payload=b"x" * 256 * 1024)
        rig.instruct(session, assignment=said)
        (job,) = rig.begin()
        rig.end(job)
        assert session.credit.unspent == 4 + 32

    def test_lost_slot_is_replaced(self) -> None:
        """A job that does not stop is reported, and its slot is free at once; not once more."""
        rig = Rig(slots=1)
        session = rig.leading()
        rig.grant(session, 1)
        (job,) = rig.begin()
        job.finish(AttemptResult(AttemptOutcome.TIMED_OUT), rig.now_ms)
        rig.arbiter.happened([(FactKind.ABANDONED, job)])
        assert len(rig.hear(session).reports) == 1
        assert session.credit.unspent == 1
        rig.arbiter.happened([(FactKind.FREED, job)])
        assert session.credit.unspent == 1


class TestDrain:
    """Ending in order."""

    def test_a_pause_returns_what_waits_and_ends(self) -> None:
        """No credit and nothing new for a while; what runs goes on; then all is as before."""
        rig = Rig(slots=2)
        session = rig.leading()
        rig.grant(session, 1, 2)
        rig.begin(1)
        rig.arbiter.pause(paused=True)
        assert rig.hear(session).returned == [job_id(2)]
        assert session.credit.wanted == 0
        rig.grant(session, 3)
        assert rig.hear(session).returned == [job_id(3)]
        assert rig.arbiter.running == 1
        rig.arbiter.pause(paused=False)
        assert session.credit.wanted == 1

    def test_drain_returns_what_waits_and_keeps_what_runs(self) -> None:
        """No credit, no unstarted job; running ones go on under their leases."""
        rig = Rig(slots=4)
        session = rig.leading()
        rig.grant(session, 1, 2)
        (job,) = rig.begin()
        rig.hear(session)
        rig.arbiter.drain()
        said = rig.hear(session)
        assert said.returned == [job_id(2)]
        assert said.limits[-1].limit == session.credit.granted
        assert rig.begin() == []
        rig.end(job)
        assert len(rig.hear(session).reports) == 1
        assert session.credit.wanted == 0

    def test_grants_on_their_way_into_a_drain_are_returned(self) -> None:
        """The master had not heard yet: its grants come straight back."""
        rig = Rig()
        session = rig.leading()
        rig.arbiter.drain()
        rig.grant(session, 1)
        assert rig.queued == []
        assert rig.hear(session).returned == [job_id(1)]

    def test_a_masters_drain_is_about_all_streams(self) -> None:
        """Unstarted jobs of every master go back, none gets credit; each is told why."""
        rig = Rig(slots=4)
        asked = rig.leading("m1", partition=0)
        other = rig.leading("m2", partition=1)
        rig.grant(asked, 1)
        rig.grant(other, 2, 3, partition=1)
        (running, _) = rig.begin(2)
        for session in (asked, other):
            rig.hear(session)
        rig.tell(asked, DRAIN)
        assert running.job_id == job_id(1)
        for session, returned in ((asked, []), (other, [job_id(3, 1)])):
            said = rig.hear(session)
            assert said.vitals[-1].drained
            assert said.vitals[-1].slots_used == 2
            assert said.returned == returned
            assert session.credit.wanted == 0

    def test_who_comes_later_hears_of_a_drain_at_once(self) -> None:
        """A new leader, and a master that was restarted, learn it with the Hello."""
        rig = Rig(slots=4)
        rig.tell(rig.leading("m1"), DRAIN)
        late = rig.arbiter.stream_opened("m2", rig.now_ms)
        (first, *_) = rig.hear(late).requests
        assert first.HasField("hello")
        assert first.vitals.drained

    def test_undrain_lets_it_work_again(self) -> None:
        """Credit flows and grants run as before; the masters are told."""
        rig = Rig(slots=4)
        session = rig.leading("m1")
        rig.tell(session, DRAIN)
        rig.hear(session)
        rig.tell(session, UNDRAIN)
        said = rig.hear(session)
        assert not said.vitals[-1].drained
        assert session.credit.wanted == 4
        rig.grant(session, 1)
        assert [job.job_id for job in rig.begin()] == [job_id(1)]

    def test_undrain_does_not_stop_a_worker_that_ends(self) -> None:
        """SIGTERM stands, whatever an operator wants."""
        rig = Rig(slots=4)
        session = rig.leading("m1")
        rig.arbiter.drain()
        rig.tell(session, UNDRAIN)
        assert rig.hear(session).vitals[-1].stopping
        assert session.credit.wanted == 0

    def test_each_drain_is_answered(self) -> None:
        """Who asks a second time, over another master, hears of it too."""
        rig = Rig(slots=4)
        first, second = rig.leading("m1", partition=0), rig.leading("m2", partition=1)
        rig.tell(first, DRAIN)
        rig.hear(first)
        rig.hear(second)
        rig.tell(second, DRAIN)
        assert rig.hear(second).vitals[-1].drained

    def test_drain_hands_back_what_has_not_ended_in_time(self) -> None:
        """At the drain timeout what runs is told to stop, as released; undrain calls that off."""
        rig = Rig(slots=4)
        session = rig.leading("m1")
        rig.grant(session, 1)
        (job,) = rig.begin()
        rig.tell(session, DRAIN)
        assert rig.arbiter.next_wake_ms() is not None
        rig.wait(DRAIN_TIMEOUT_MS - 1)
        assert rig.stops == []
        rig.tell(session, UNDRAIN)
        rig.wait(1)
        assert rig.stops == []
        rig.tell(session, DRAIN)
        rig.wait(DRAIN_TIMEOUT_MS)
        assert rig.stops == [(job, AttemptOutcome.RELEASED)]

    def test_a_quarantine_is_remembered_for_all_masters(self) -> None:
        """Each hears of it and for how long, those who come later with the Hello."""
        rig = Rig(slots=4)
        first, second = rig.leading("m1", partition=0), rig.leading("m2", partition=1)
        found = worker_pb2.Quarantine(reason="its disk")
        rig.tell(first, worker_pb2.SessionResponse(quarantine=found))
        for session in (first, second):
            assert rig.hear(session).vitals[-1].quarantine == found
        rig.wait(700)
        late = rig.arbiter.stream_opened("m3", rig.now_ms)
        assert rig.hear(late).vitals[0].quarantine.for_ms == 700
        assert first.credit.wanted
        lifted = worker_pb2.Quarantine(lifted=True)
        rig.tell(second, worker_pb2.SessionResponse(quarantine=lifted))
        assert not rig.hear(first).vitals[-1].HasField("quarantine")

    def test_an_operators_quarantine_wins(self) -> None:
        """Over what masters find, whichever came first."""
        rig = Rig(slots=4)
        session = rig.leading("m1")
        found = worker_pb2.Quarantine(reason="its disk")
        wanted = worker_pb2.Quarantine(reason="mine", by_hand=True)
        for said in (found, wanted, found):
            rig.tell(session, worker_pb2.SessionResponse(quarantine=said))
        assert rig.hear(session).vitals[-1].quarantine == wanted

    def test_the_end_of_the_last_job_is_told_at_once(self) -> None:
        """Who waits for a drained worker need not wait for its next heartbeat."""
        rig = Rig(slots=4)
        session = rig.leading("m1")
        rig.grant(session, 1)
        (job,) = rig.begin()
        rig.tell(session, DRAIN)
        rig.hear(session)
        rig.end(job)
        assert rig.hear(session).vitals[-1].slots_used == 0

    def test_interrupt_stops_what_runs_as_released(self) -> None:
        """Handed back uncharged, not cancelled."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        (job,) = rig.begin()
        rig.arbiter.interrupt()
        orders = rig.arbiter.take_orders()
        assert orders is not None
        assert orders.stops == [(job, AttemptOutcome.RELEASED)]

    def test_forsaken_job_is_returned(self) -> None:
        """What cannot be stopped is handed back; its late end is nobody's business.

        Its slot is taken until then, and freed once.
        """
        rig = Rig(slots=2)
        session = rig.leading()
        rig.grant(session, 1)
        (job,) = rig.begin()
        rig.arbiter.drain()
        rig.hear(session)
        rig.arbiter.forsake()
        assert rig.hear(session).returned == [job_id(1)]
        assert rig.arbiter.busy == 1
        rig.end(job)
        assert rig.hear(session).reports == []
        assert rig.arbiter.busy == 0


class TestOrders:
    """What executors get to do."""

    def test_orders_are_taken_once(self) -> None:
        """Nothing runs twice."""
        rig = Rig()
        rig.grant(rig.leading(), 1)
        assert rig.arbiter.take_orders() is None

    def test_job_whose_lease_lapsed_in_the_queue_is_returned(self) -> None:
        """An executor that finds the lease over hands the job back."""
        rig = Rig(slots=2)
        session = rig.leading()
        rig.grant(session, 1)
        (job,) = rig.queued
        job.begin(rig.now_ms)
        rig.arbiter.happened([(FactKind.UNSTARTED, job)])
        assert rig.hear(session).returned == [job_id(1)]
        assert session.credit.unspent == 2


def test_grants_of_a_broken_master_end_no_worker() -> None:
    """One without options goes back, a lease that is granted twice is held once; others run."""
    rig = Rig()
    session = rig.leading()
    assignment = worker_pb2.Assignment(number=1, options=[common_pb2.JobOptions(name="double")])
    for seq, options in ((1, 0), (1, 0), (2, 7), (3, 0)):
        assignment.grants.add(job_id=job_id(seq), seq=seq, options=options, attempt=1)
    rig.instruct(session, assignment=assignment)
    assert [job.job_id for job in rig.run_all()] == [job_id(1), job_id(3)]
    assert rig.hear(session).returned == [job_id(2)]
