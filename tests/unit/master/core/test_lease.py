"""Leases between grant and end: heartbeats, expiry, take-back, lost grants."""

import pytest

from tenure.master.core import command as commands
from tenure.master.core import timer
from tenure.master.core.command import LeaseRow
from tenure.master.core.config import PartitionConfig
from tenure.master.core.effect import Announce, SendCancels, SendHeartbeatAck, SendRevokes
from tenure.master.core.record import Policy, RetryPolicy
from tenure.master.core.settings import QueueSettings
from tenure.protocol.fence import Lease, Token
from tenure.protocol.vocabulary import AttemptOutcome, FailureReason, JobState
from tests.unit.master.core.rig import CONFIG, Rig, held, of_type

LEASE_MS = CONFIG.lease_ttl_ms + CONFIG.lease_margin_ms


@pytest.fixture
def rig() -> Rig:
    """A partition with one session."""
    rig = Rig()
    rig.open_session(1)
    return rig


def test_silent_worker_loses_its_leases_once(rig: Rig) -> None:
    """At receipt + TTL + margin all leases of a silent worker expire, each charged once."""
    ids = rig.submit(3)
    rig.grant(1, 3)
    rig.pass_time(LEASE_MS - 1)
    assert all(rig.state(job_id) is JobState.RUNNING for job_id in ids)
    effects = rig.pass_time(1)
    for job_id in ids:
        record = rig.record(job_id)
        assert (record.state, record.losses_charged) == (JobState.RETRYING, 1)
        assert record.outcome is AttemptOutcome.LOST
        assert record.fault is not None
        assert "worker-1" in record.fault.message
        assert f"its lease of {CONFIG.lease_ttl_ms} ms" in record.fault.message
    (revokes,) = of_type(effects, SendRevokes)
    assert [job_id for job_id, _ in revokes.rows] == ids
    assert revokes.reason == "expired"
    (announce,) = of_type(effects, Announce)
    assert (announce.event, announce.counts) == ("expired", {"leases": 3})


def test_a_worker_that_comes_back_is_missed_when_it_dies(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timers of those that were forgotten do not stand for it, while a crowd comes and goes."""
    monkeypatch.setattr(timer, "_SLACK", 64)

    def visit(number: int) -> None:
        rig.open_session(number)
        rig.submit_one()
        rig.report(rig.grant_one(number), session_id=number)
        rig.do(commands.CloseSession(session_id=number))

    for number in range(2, 60):
        visit(number)
    rig.open_session(5_000, "w2")
    job_id = rig.submit_one()
    rig.start(rig.grant_one(5_000), session_id=5_000)
    for number in range(60, 120):
        visit(number)
    rig.do(commands.CloseSession(session_id=5_000))
    rig.pass_time(LEASE_MS)
    assert rig.state(job_id) is JobState.RETRYING


def test_heartbeat_renews_all_leases(rig: Rig) -> None:
    """One heartbeat acks its number and moves the deadline of every lease of the session."""
    ids = rig.submit(2)
    rows = rig.grant(1, 2)
    for _ in range(5):
        rig.pass_time(LEASE_MS - 1)
        decision = rig.renew(1, 1, *[held(row) for row in rows])
        assert len(of_type(decision.effects, SendHeartbeatAck)) == 1
        assert not of_type(decision.effects, SendRevokes)
    assert all(rig.state(job_id) is JobState.RUNNING for job_id in ids)


def test_closed_stream_shortens_no_lease(rig: Rig) -> None:
    """When a stream breaks the leases stay until their deadline; there is no shorter grace."""
    (job_id,) = rig.submit(1)
    rig.grant_one()
    rig.do(commands.CloseSession(session_id=1))
    rig.pass_time(LEASE_MS - 1)
    assert rig.state(job_id) is JobState.RUNNING
    rig.pass_time(1)
    assert rig.state(job_id) is JobState.RETRYING


def test_new_stream_of_the_incarnation_takes_over(rig: Rig) -> None:
    """The same incarnation goes on with its leases; they are renewed by its declaration."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    rig.do(commands.CloseSession(session_id=1))
    rig.now_ms += 10_000
    decision = rig.open_session(2, "w1", declare=[held(row)])
    assert not of_type(decision.effects, SendRevokes)
    rig.pass_time(LEASE_MS - 1)
    assert rig.state(job_id) is JobState.RUNNING


def test_another_incarnation_inherits_nothing(rig: Rig) -> None:
    """A restarted worker with the same lease in its list is told that it lost it."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    decision = rig.open_session(2, "other", declare=[held(row)])
    (revoke,) = of_type(decision.effects, SendRevokes)
    assert (revoke.session_id, revoke.rows) == (2, [tuple(row)])
    assert rig.record(job_id).incarnation == "w1"


def test_heartbeat_of_old_stream_is_ignored(rig: Rig) -> None:
    """A late message of a replaced stream neither renews nor closes anything."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    rig.open_session(2, "w1", declare=[held(row)])
    assert not rig.renew(1, 99).effects
    assert rig.state(job_id) is JobState.RUNNING


def test_lapsed_lease_is_not_revived(rig: Rig) -> None:
    """A heartbeat that lists an expired lease is told so, and the lease stays closed."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    rig.pass_time(LEASE_MS)
    decision = rig.renew(1, 1, held(row))
    (revoke,) = of_type(decision.effects, SendRevokes)
    assert revoke.rows == [tuple(row)]
    assert (revoke.unless_started, revoke.reason) == (False, "lost")
    assert rig.state(job_id) is JobState.RETRYING


def test_old_lease_in_heartbeat_does_not_renew_the_new_one(rig: Rig) -> None:
    """A worker that lists the job's former lease is revoked, and renews nothing."""
    (job_id,) = rig.submit(1)
    old = rig.grant_one()
    rig.pass_time(LEASE_MS)
    rig.pass_time(2_000)
    rig.open_session(2)
    new = rig.grant_one(2)
    (revoke,) = of_type(rig.renew(1, 9, held(old)).effects, SendRevokes)
    assert revoke.rows == [tuple(old)]
    assert rig.record(job_id).lease == new.lease


def test_old_lease_of_the_same_worker(rig: Rig) -> None:
    """A worker that still lists its expired lease loses that one, and proves nothing of the new."""
    (job_id,) = rig.submit(1)
    old = rig.grant_one()
    rig.pass_time(LEASE_MS)
    rig.pass_time(2_000)
    rig.renew(1, 1)
    new = rig.grant_one()
    (revoke,) = of_type(rig.renew(1, 1, held(old)).effects, SendRevokes)
    assert revoke.rows == [tuple(old)]
    assert rig.record(job_id).lease == new.lease
    holding = rig.partition.holding_of(job_id)
    assert holding is not None
    assert not holding.started_ms
    rig.renew(1, 2, held(old))
    assert rig.record(job_id).outcome is AttemptOutcome.RELEASED


def test_verdict_in_flight_is_no_revoke(rig: Rig) -> None:
    """A reported lease that is still in the set, because its verdict travels, is let alone."""
    rig.submit(2)
    first, second = rig.grant(1, 2)
    rig.report(first)
    rig.fail(second)
    assert not of_type(rig.renew(1, 1, held(first), held(second)).effects, SendRevokes)


def test_lost_grant_is_found_by_the_heartbeat(rig: Rig) -> None:
    """A lease that a heartbeat has passed and lacks never arrived: back at once, no charge."""
    (job_id,) = rig.submit(1)
    rig.grant_one()
    rig.renew(1, 0)
    assert rig.state(job_id) is JobState.RUNNING
    decision = rig.renew(1, 1)
    record = rig.record(job_id)
    assert (record.state, record.outcome) == (JobState.PENDING, AttemptOutcome.RELEASED)
    assert (record.losses_charged, record.undelivered) == (0, 1)
    assert of_type(decision.effects, Announce) == [
        Announce(event="taken_back", counts={"leases": 1})
    ]


def test_started_job_that_vanishes_is_lost(rig: Rig) -> None:
    """A started lease that its worker does not list any more is charged as a loss."""
    (job_id,) = rig.submit(1)
    rig.start(rig.grant_one())
    rig.renew(1, 1)
    record = rig.record(job_id)
    assert (record.outcome, record.losses_charged) == (AttemptOutcome.LOST, 1)


def test_declaration_without_a_lease_gives_it_back(rig: Rig) -> None:
    """What a new stream's declaration lacks was never received, whatever its assignment."""
    (job_id,) = rig.submit(1)
    rig.grant_one()
    rig.open_session(2, "w1")
    assert rig.state(job_id) is JobState.PENDING


def test_what_is_declared_and_then_handed_back_costs_nothing(rig: Rig) -> None:
    """A worker whose stream broke lists a started lease once more before it hands it back; said
    again it is lost, and is not taken for one that runs.
    """
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    rig.start(row)
    rig.open_session(2, "w1", declare=[held(row)])
    rig.give_back(row, session_id=2)
    rig.renew(2, 0)
    record = rig.record(job_id)
    assert (record.state, record.outcome) == (JobState.PENDING, AttemptOutcome.RELEASED)
    assert (record.losses_charged, record.attempts_charged, record.undelivered) == (0, 0, 0)
    (revoke,) = of_type(rig.open_session(3, "w1", declare=[held(row)]).effects, SendRevokes)
    assert revoke.rows == [tuple(row)]
    rig.give_back(row, session_id=3)
    assert rig.state(job_id) is JobState.PENDING
    assert rig.grant_one(3).lease > row.lease


def test_max_undelivered_is_poison() -> None:
    """Grants that get lost again and again end the job as POISON."""
    rig = Rig(PartitionConfig(partition=0, partitions=1, max_undelivered=3))
    rig.open_session(1)
    (job_id,) = rig.submit(1)
    for number in (1, 2, 3):
        rig.grant_one()
        decision = rig.renew(1, number)
    record = rig.record(job_id)
    assert (record.state, record.failure_reason) == (JobState.FAILED, FailureReason.POISON)
    assert record.losses_charged == 0
    told = {announce.event: announce.counts for announce in of_type(decision.effects, Announce)}
    assert told["poisoned"] == {"jobs": 1}


def test_requeue_forgets_lost_grants() -> None:
    """A job requeued after its grants got lost has all its tries again."""
    rig = Rig(PartitionConfig(partition=0, partitions=1, max_undelivered=2))
    rig.open_session(1)
    (job_id,) = rig.submit(1)
    for number in (1, 2):
        rig.grant_one()
        rig.renew(1, number)
    assert rig.state(job_id) is JobState.FAILED
    rig.do(commands.RequeueJobs(job_ids=[job_id]))
    rig.grant_one()
    rig.renew(1, 3)
    assert rig.state(job_id) is JobState.PENDING


def test_delivery_resets_undelivered(rig: Rig) -> None:
    """Only grants lost in a row count."""
    (job_id,) = rig.submit(1)
    rig.grant_one()
    rig.renew(1, 1)
    rig.give_back(rig.grant_one())
    assert rig.record(job_id).undelivered == 0


def test_unaccepted_assignment_is_asked_back_once(rig: Rig) -> None:
    """Without Accepted for 5 s the worker is asked, unless started; silence closes nothing."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    rig.pass_time(CONFIG.accept_timeout_ms - 1)
    (revoke,) = of_type(rig.pass_time(1_000), SendRevokes)
    assert revoke.unless_started
    assert revoke.rows == [tuple(row)]
    assert not of_type(rig.pass_time(5_000), SendRevokes)
    assert rig.state(job_id) is JobState.RUNNING


def test_deaf_worker_loses_unanswered_grants_at_their_deadline(rig: Rig) -> None:
    """Heartbeats that never pass a grant do not renew it: at its deadline it is taken back."""
    (job_id,) = rig.submit(1)
    rig.grant_one()
    revoked = []
    for _ in range(4):
        revoked += of_type(rig.pass_time(4_500), SendRevokes)
        rig.renew(1, 0)
    record = rig.record(job_id)
    assert (record.state, record.undelivered, record.losses_charged) == (JobState.PENDING, 1, 0)
    assert [r.unless_started for r in revoked] == [True, False]


def test_deaf_worker_and_at_most_once(rig: Rig) -> None:
    """Nobody knows that the deaf worker did not run it: an at_most_once job is lost."""
    (job_id,) = rig.submit(1, Policy(name="job", at_most_once=True))
    rig.grant_one()
    for _ in range(4):
        rig.pass_time(4_500)
        rig.renew(1, 0)
    assert rig.record(job_id).failure_reason is FailureReason.LOST


def test_unstarted_grants_are_taken_back_while_others_idle(rig: Rig) -> None:
    """Granted and not started for 1 s while another session idles: asked back, then moved."""
    first, second = rig.submit(2)
    rows = rig.grant(1, 2)
    rig.accept(1, 1)
    rig.start(rows[0])
    rig.open_session(2)
    effects = rig.pass_time(1_000)
    (revoke,) = of_type(effects, SendRevokes)
    assert (revoke.session_id, revoke.rows) == (1, [tuple(rows[1])])
    assert revoke.unless_started
    assert rig.state(second) is JobState.RUNNING
    rig.give_back(rows[1])
    moved = rig.grant_one(2)
    assert moved.job_id == second
    assert rig.record(first).lease == rows[0].lease
    assert rig.record(second).losses_charged == 0


def test_started_wins_over_take_back(rig: Rig) -> None:
    """A job that has started meanwhile is not given back, and is asked no more."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    rig.accept(1, 1)
    rig.open_session(2)
    assert of_type(rig.pass_time(1_000), SendRevokes)
    rig.start(row)
    assert not of_type(rig.pass_time(5_000), SendRevokes)
    assert rig.state(job_id) is JobState.RUNNING


def test_take_back_is_asked_again_on_a_new_stream(rig: Rig) -> None:
    """A take-back lost with its stream is asked anew: the job does not wait for that slot."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    rig.accept(1, 1)
    rig.open_session(2)
    assert of_type(rig.pass_time(1_000), SendRevokes)
    rig.do(commands.CloseSession(session_id=1))
    rig.pass_time(1_000)
    rig.open_session(3, "w1", declare=[held(row, started=False)])
    (revoke,) = of_type(rig.pass_time(1_000), SendRevokes)
    assert (revoke.session_id, revoke.rows, revoke.unless_started) == (3, [tuple(row)], True)
    assert not of_type(rig.pass_time(5_000), SendRevokes)
    assert rig.state(job_id) is JobState.RUNNING


@pytest.mark.parametrize(
    ("names", "slots", "waiting"), [(("other",), 4, 0), (("job",), 0, 0), (("job",), 4, 1)]
)
def test_no_take_back_without_an_idle_session(
    rig: Rig, names: tuple[str, ...], slots: int, waiting: int
) -> None:
    """Nothing is asked back for sessions that cannot run it, are full, or have work waiting."""
    rig.submit(1)
    rig.grant_one()
    rig.accept(1, 1)
    rig.open_session(2, names=names, slots=slots)
    rig.submit(waiting)
    assert not of_type(rig.pass_time(4_000), SendRevokes)


def test_who_waits_behind_a_gate_is_idle(rig: Rig) -> None:
    """Jobs of its own sticky key are no work while their queue is paused."""
    rig.open_session(2)
    rig.submit(1, sticky_key="s")
    (own,) = rig.grant(2)
    rig.accept(2, 1)
    rig.start(own, session_id=2)
    rig.submit(1)
    row = rig.grant_one()
    rig.accept(1, 1)
    rig.submit(1, sticky_key="s")
    rig.configure(("default", "default"), QueueSettings(paused=True))
    (revoke,) = of_type(rig.pass_time(1_000), SendRevokes)
    assert revoke.rows == [tuple(row)]


def test_idle_slots_limit_take_backs(rig: Rig) -> None:
    """No more is asked back than others have free slots for."""
    rig.submit(5)
    rig.grant(1, 5)
    rig.accept(1, 1)
    rig.open_session(2, slots=2)
    (revoke,) = of_type(rig.pass_time(1_000), SendRevokes)
    assert len(revoke.rows) == 2


def test_return_of_foreign_or_closed_lease_changes_nothing(rig: Rig) -> None:
    """Only the open lease can be handed back."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    rig.give_back(LeaseRow(job_id, Lease(Token(9, 9), 1, 0)), LeaseRow(rig.mint(), row.lease))
    assert rig.state(job_id) is JobState.RUNNING
    rig.give_back(row, row)
    assert rig.state(job_id) is JobState.PENDING
    again = rig.grant_one()
    rig.give_back(row)
    assert rig.record(job_id).lease == again.lease
    assert rig.state(job_id) is JobState.RUNNING


def test_started_is_noted_once(rig: Rig) -> None:
    """The first start counts; a start under another lease does not."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    began = rig.now_ms
    rig.start(LeaseRow(job_id, Lease(Token(9, 9), 1, 0)))
    rig.start(row)
    rig.now_ms += 500
    rig.start(row)
    holding = rig.partition.holding_of(job_id)
    assert holding is not None
    assert holding.started_ms == began


def test_heartbeat_tells_starts_and_progress(rig: Rig) -> None:
    """A start whose message got lost is learnt from the heartbeat, with its true time."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    rig.now_ms += 3_000
    rig.renew(1, 1, held(row, running_ms=2_000, progress=0.25))
    holding = rig.partition.holding_of(job_id)
    assert holding is not None
    assert (holding.started_ms, holding.progress) == (rig.now_ms - 2_000, 0.25)


def test_restart_leases_gives_everybody_a_new_ttl(rig: Rig) -> None:
    """After a thaw every lease's TTL starts anew."""
    (job_id,) = rig.submit(1)
    rig.grant_one()
    rig.now_ms += LEASE_MS + 60_000
    rig.do(commands.RestartLeases())
    rig.pass_time(LEASE_MS - 1)
    assert rig.state(job_id) is JobState.RUNNING
    rig.pass_time(1)
    assert rig.state(job_id) is JobState.RETRYING


def test_push_deadlines_moves_by_the_gap(rig: Rig) -> None:
    """After a gap every deadline moves by it: nobody expires for the master's sleep."""
    (job_id,) = rig.submit(1)
    rig.grant_one()
    rig.now_ms += 60_000
    rig.do(commands.PushDeadlines(gap_ms=60_000))
    rig.pass_time(LEASE_MS - 1)
    assert rig.state(job_id) is JobState.RUNNING
    rig.pass_time(1)
    assert rig.state(job_id) is JobState.RETRYING


def test_poison_job_is_bounded(rig: Rig) -> None:
    """A job that kills its worker each time is given up after max_lost losses."""
    policy = Policy(name="job", retry=RetryPolicy(max_lost=3, base_ms=1))
    (job_id,) = rig.submit(1, policy)
    runs = 0
    for session_id in range(10, 30):
        rig.open_session(session_id)
        if not rig.grant(session_id):
            break
        runs += 1
        rig.do(commands.CloseSession(session_id=session_id))
        rig.pass_time(LEASE_MS + 10)
    assert runs == 4
    assert rig.record(job_id).failure_reason is FailureReason.POISON


def test_cancel_reaches_the_worker(rig: Rig) -> None:
    """A cancel is pushed on the holder's stream, and again on its next one."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    decision = rig.do(commands.CancelJobs(job_ids=[job_id]))
    (cancel,) = of_type(decision.effects, SendCancels)
    assert (cancel.session_id, cancel.rows) == (1, [tuple(row)])
    decision = rig.open_session(2, "w1", declare=[held(row)])
    (cancel,) = of_type(decision.effects, SendCancels)
    assert (cancel.session_id, cancel.rows) == (2, [tuple(row)])


def test_idle_holders_are_forgotten(rig: Rig) -> None:
    """A worker without stream and leases takes no memory."""
    for session_id in range(2, 50):
        rig.open_session(session_id)
        rig.do(commands.CloseSession(session_id=session_id))
    assert [status.session_id for status in rig.partition.sessions()] == [1]
    assert list(rig.partition._state.holders) == ["w1"]


def test_no_lease_is_judged_while_the_window_is_open(rig: Rig) -> None:
    """However long the window, and whatever the clocks do, leases end after it at the earliest."""
    silent, back = rig.submit(2)
    rig.grant_one()
    row = rig.grant_one()
    rig.crash(window_ms=60_000)
    rig.open_session(2, "w1", declare=[held(row)])
    rig.do(commands.RestartLeases())
    rig.do(commands.PushDeadlines(gap_ms=10))
    rig.pass_time(50_000)
    assert rig.state(silent) is rig.state(back) is JobState.RUNNING


def test_who_does_not_come_back_is_named(rig: Rig) -> None:
    """The fault of a lease that was lost over a failover names the worker, from the journal."""
    job_id = rig.submit_one()
    rig.start(rig.grant_one())
    rig.do(commands.CloseTerm())
    rig.crash(window_ms=0)
    rig.pass_time(20_000)
    fault = rig.record(job_id).fault
    assert fault is not None
    assert "worker worker-1 " in fault.message


def test_who_is_not_heard_of_since_the_failover_has_no_heartbeat(rig: Rig) -> None:
    """A stream that has just been opened was not heard of yet."""
    rig.do(
        commands.OpenSession(
            session_id=7,
            incarnation="w7",
            worker="worker-7",
            job_names=frozenset({"job"}),
            queues=frozenset(),
            slots=1,
        )
    )
    status = rig.partition.sessions()[-1]
    assert (status.session_id, status.heartbeat_ms, status.draining) == (7, 0, False)
