"""What workers' messages come to: declarations, heartbeats, starts, returns."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core import command as commands
from tenure.master.core.command import LeaseRow
from tenure.master.core.effect import (
    Announce,
    Decision,
    NotifySettled,
    SendAssignment,
    SendCancels,
    SendHeartbeatAck,
    SendRevokes,
)
from tenure.master.core.event import AttemptsEnded, EndedRow
from tenure.master.core.record import Policy
from tenure.master.core.volatile import TakeBacksAsked
from tenure.protocol.fence import Lease, Token
from tenure.protocol.vocabulary import AttemptOutcome, FailureReason, JobState
from tests.unit.master.core.rig import CONFIG, Rig, held, of_type

ONCE = Policy(name="job", at_most_once=True)
#: Of a term long ago.
FOREIGN = Lease(Token(1, 1), 1, 0)


@pytest.fixture
def rig() -> Rig:
    """A partition with one session."""
    rig = Rig()
    rig.open_session(1)
    return rig


def later(row: LeaseRow) -> LeaseRow:
    """A newer lease of the same job, which the journal has lost."""
    return LeaseRow(row.job_id, msgspec.structs.replace(row.lease, seq=row.lease.seq + 100))


def ended(events: tuple[object, ...]) -> list[EndedRow]:
    """What ended without a result."""
    return [row for event in events if isinstance(event, AttemptsEnded) for row in event.rows]


def test_adopted_leases_begin_when_their_jobs_did(rig: Rig) -> None:
    """A job that runs was granted by its start at the latest; one that does not, now."""
    rig.submit(2)
    first, second = rig.grant(1, 2)
    rig.crash(lose=1, window_ms=0)
    rig.now_ms += 1_000
    running, waiting = held(first, running_ms=500), held(second, started=False)
    rig.open_session(2, "w1", declare=[running, waiting])
    times = []
    for row in (first, second):
        holding = rig.partition.holding_of(row.job_id)
        assert holding is not None
        times.append((rig.record(row.job_id).granted_ms - rig.now_ms, holding.started_ms))
    assert times == [(-500, rig.now_ms - 500), (0, 0)]


def test_a_closed_lease_loses_nothing_to_a_later_one(rig: Rig) -> None:
    """Who gave a job back is not told that somebody else has it now."""
    rig.submit(1)
    row = rig.grant_one()
    rig.give_back(row)
    decision = rig.open_session(2, "w2", declare=[held(later(row))])
    assert rig.record(row.job_id).incarnation == "w2"
    assert not of_type(decision.effects, SendRevokes)


def test_the_loser_is_told_that_it_was_superseded(rig: Rig) -> None:
    """Who still runs a job that another worker proves a later lease of hears why it must stop."""
    rig.submit(1)
    row = rig.grant_one()
    decision = rig.open_session(2, "w2", declare=[held(later(row))])
    (revoke,) = of_type(decision.effects, SendRevokes)
    assert (revoke.session_id, revoke.rows, revoke.reason) == (1, [tuple(row)], "superseded")


def test_a_grant_that_never_arrived_is_closed_under_its_lease(rig: Rig) -> None:
    """The event names the lease that ended, and that the job had not started."""
    rig.submit(1)
    row = rig.grant_one()
    (end,) = ended(rig.renew(1, 1).events)
    assert (end.lease, end.started_ms) == (row.lease, 0)


def test_what_a_declaration_came_to_is_told_once(rig: Rig) -> None:
    """Upheld and adopted leases are counted together; none, and nothing is said."""
    rig.submit(2)
    first, second = rig.grant(1, 1)[0], rig.grant(1, 1)[0]
    rig.crash(lose=1, window_ms=0)
    decision = rig.open_session(2, "w1", declare=[held(first), held(second)])
    assert of_type(decision.effects, Announce) == [Announce(event="adopted", counts={"leases": 2})]
    decision = rig.open_session(3, "w1", declare=[held(first)])
    assert Announce(event="adopted", counts={"leases": 1}) in decision.effects
    assert not of_type(decision.effects, SendCancels)
    assert not rig.open_session(4, "w4").effects


def test_nobody_is_asked_on_a_stream_that_is_gone(rig: Rig) -> None:
    """A worker that claimed a cancelled job and hung up is asked on its next stream."""
    rig.submit(1)
    row = rig.grant_one()
    rig.do(commands.CancelJobs(job_ids=[row.job_id]))
    rig.crash()
    rig.open_session(2, "w1", declare=[held(row)])
    rig.do(commands.CloseSession(session_id=2))
    assert not of_type(rig.close_window().effects, SendCancels)
    assert of_type(rig.open_session(3, "w1", declare=[held(row)]).effects, SendCancels)


def test_streams_that_there_are_not_say_nothing(rig: Rig) -> None:
    """Messages of unknown streams, and of all when the term is over, change nothing."""
    row = LeaseRow(rig.submit_one(), FOREIGN)
    rig.do(commands.CloseSession(session_id=99))
    declare = commands.DeclareLeases(session_id=99, rows=[])
    assert not rig.do(declare).events
    rig.submit(1)
    own = rig.grant_one()
    rig.do(commands.CloseTerm())
    assert not rig.do(commands.DeclareLeases(session_id=1, rows=[])).events
    assert not rig.give_back(row, own).events


def test_heartbeats_are_answered_by_number(rig: Rig) -> None:
    """Each gets its own answer on its own stream, in the window as well."""
    (ack,) = of_type(rig.renew(1, 0).effects, SendHeartbeatAck)
    assert (ack.session_id, ack.number) == (1, 1)
    rig.crash()
    rig.open_session(2, "w1")
    (ack,) = of_type(rig.renew(2, 0).effects, SendHeartbeatAck)
    assert (ack.session_id, ack.number) == (2, 2)


def test_a_heartbeat_adopts_for_its_worker(rig: Rig) -> None:
    """A lease that the journal has lost is the worker's whose heartbeat lists it."""
    rig.submit(1)
    row = later(rig.grant_one())
    rig.open_session(2)
    rig.renew(2, 0, held(row))
    record = rig.record(row.job_id)
    assert (record.lease, record.incarnation, record.worker) == (row.lease, "w2", "worker-2")


def test_returns_pass_over_what_is_not_the_workers(rig: Rig) -> None:
    """A foreign lease among those that are handed back keeps none of them, and ends nothing."""
    rig.submit(2)
    first, second = rig.grant(1, 2)
    rig.now_ms += 5
    assert not rig.give_back(LeaseRow(first.job_id, FOREIGN)).events
    rig.give_back(LeaseRow(first.job_id, FOREIGN), second)
    assert rig.state(first.job_id) is JobState.RUNNING
    record = rig.record(second.job_id)
    assert (record.state, record.ended_ms) == (JobState.PENDING, rig.now_ms)


def test_waiters_hear_of_a_return_that_ends_a_job(rig: Rig) -> None:
    """An at_most_once job that had started and is handed back has ended, and that is told."""
    rig.submit(1, ONCE)
    row = rig.grant_one()
    rig.start(row)
    assert of_type(rig.give_back(row).effects, NotifySettled)


def test_returns_in_the_window_go_by_the_claim_of_that_job(rig: Rig) -> None:
    """What the worker declared of another job says nothing; what it declared of this one, when."""
    rig.submit(3, ONCE)
    running, waiting, known = rig.grant(1, 3)
    began = rig.now_ms
    rig.start(known)
    rig.do(commands.CloseTerm())
    rig.crash()
    rig.now_ms += 2_000
    claims = [held(running, running_ms=500), held(waiting, started=False), held(known)]
    rig.open_session(2, "w1", declare=claims)
    (end,) = ended(rig.give_back(waiting, session_id=2).events)
    assert (end.state, end.started_ms) == (JobState.PENDING, 0)
    (end,) = ended(rig.give_back(running, session_id=2).events)
    assert (end.state, end.started_ms) == (JobState.FAILED, rig.now_ms - 500)
    (end,) = ended(rig.give_back(known, session_id=2).events)
    assert end.started_ms == began


def test_starts_that_a_heartbeat_tells_are_timed(rig: Rig) -> None:
    """A job whose start message got lost has its timeouts from what the heartbeat says."""
    (by_time,) = rig.submit(1, Policy(name="job", timeout_ms=5_000))
    (by_progress,) = rig.submit(1, Policy(name="job", heartbeat_timeout_ms=8_000))
    first, second = rig.grant(1, 2)
    foreign = LeaseRow(first.job_id, FOREIGN)
    rig.renew(1, 1, held(foreign), held(first, running_ms=1_000), held(second, running_ms=1_000))
    rig.pass_time(4_000 + CONFIG.timeout_grace_ms - 1)
    assert rig.state(by_time) is JobState.RUNNING
    rig.pass_time(1)
    assert rig.record(by_time).outcome is AttemptOutcome.TIMED_OUT
    rig.pass_time(4_000 - CONFIG.timeout_grace_ms + CONFIG.progress_grace_ms - 1)
    assert rig.state(by_progress) is JobState.RUNNING
    rig.pass_time(1)
    assert rig.record(by_progress).outcome is AttemptOutcome.TIMED_OUT


def test_starts_pass_over_what_is_not_open(rig: Rig) -> None:
    """Unknown jobs and foreign leases among the starts hide none of the others."""
    rig.submit(2)
    first, second = rig.grant(1, 2)
    rig.start(LeaseRow(rig.mint(), FOREIGN), LeaseRow(first.job_id, FOREIGN), second)
    holdings = [rig.partition.holding_of(row.job_id) for row in (first, second)]
    assert [h.started_ms for h in holdings if h is not None] == [0, rig.now_ms]


def test_take_backs_pass_over_jobs_that_are_gone(rig: Rig) -> None:
    """What was asked back is marked, whatever else the event names."""
    rig.submit(1)
    row = rig.grant_one()
    rig.partition.apply(TakeBacksAsked(rows=[LeaseRow(rig.mint(), FOREIGN), row]))
    holding = rig.partition.holding_of(row.job_id)
    assert holding is not None
    assert holding.asked


def test_a_gap_moves_the_windows_end(rig: Rig) -> None:
    """Workers get their whole window, although the master slept in it."""
    rig.crash(window_ms=3_000)
    rig.do(commands.PushDeadlines(gap_ms=500))
    assert not rig.partition.window_due(rig.now_ms + 3_499)
    assert rig.partition.window_due(rig.now_ms + 3_500)


def test_a_thaw_begins_the_window_anew(rig: Rig) -> None:
    """Workers get their whole window, although the master could not judge them in it."""
    rig.crash(window_ms=3_000)
    rig.now_ms += 8_000
    rig.do(commands.RestartLeases())
    assert not rig.partition.window_due(rig.now_ms + 2_999)
    assert rig.partition.window_due(rig.now_ms + 3_000)
    rig.do(commands.CloseWindow(jitter=[]))
    rig.do(commands.RestartLeases())
    assert not rig.partition.window_open


# When a grant has arrived.


@given(
    accept_ms=st.none() | st.integers(0, 4_000),
    start_ms=st.none() | st.integers(0, 4_000),
    run_ms=st.integers(0, 4_000),
    outcome=st.sampled_from(AttemptOutcome),
    by_heartbeat=st.booleans(),
)
def test_what_is_accepted_has_its_place_in_the_timeline(
    accept_ms: int | None,
    start_ms: int | None,
    run_ms: int,
    outcome: AttemptOutcome,
    by_heartbeat: bool,
) -> None:
    """Between the grant and the start, whatever came of it; and none where nobody heard of it."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one()
    row = rig.grant_one()
    granted_ms = rig.now_ms
    if accept_ms is not None:
        rig.now_ms += accept_ms
        if by_heartbeat:
            rig.renew(1, 1, held(row, started=False))
        else:
            rig.accept(1, 1)
    accepted_ms = rig.now_ms
    if start_ms is not None:
        rig.now_ms += start_ms
        rig.start(row)
    rig.now_ms += run_ms
    rig.report(row, outcome)
    record = rig.record(job_id)
    found = record.accepted_ms
    if accept_ms is None:
        assert found == 0
    else:
        assert granted_ms <= found <= accepted_ms
        assert found <= (record.started_ms or record.ended_ms) <= record.ended_ms
        assert start_ms is None or found == accepted_ms
    if record.state is JobState.RETRYING:
        rig.pass_time(60_000)
        rig.renew(1, 1)
        rig.grant_one()
        assert [attempt.accepted_ms for attempt in record.history] == [found]
        assert record.accepted_ms == 0
    assert rig.replayed().state_hash() == rig.partition.state_hash()


def test_all_leases_of_an_assignment_arrive_together(rig: Rig) -> None:
    """And none of the next one; what comes on another stream later is of no account."""
    rig.submit(3)
    rows = [*rig.grant(1, 2), *rig.grant(1, 1)]
    rig.now_ms += 10
    rig.accept(1, 1)
    rig.open_session(2, "w1", declare=[held(row, started=False) for row in rows])
    rig.now_ms += 10
    rig.accept(1, 2)
    rig.now_ms += 10
    rig.start(*rows, session_id=2)
    times = []
    for row in rows:
        rig.report(row, session_id=2)
        times.append(rig.record(row.job_id).accepted_ms)
    accepted_ms = rig.now_ms - 20
    assert times == [accepted_ms, accepted_ms, 0]


def test_no_job_is_accepted_after_it_has_started(rig: Rig) -> None:
    """Though its start may be heard of before the acknowledgement of its grant."""
    rig.submit(1)
    row = rig.grant_one()
    rig.now_ms += 10
    rig.start(row)
    started_ms = rig.now_ms
    rig.now_ms += 10
    rig.accept(1, 1)
    rig.give_back(row)
    record = rig.record(row.job_id)
    assert (record.accepted_ms, record.started_ms) == (started_ms, started_ms)


def test_a_successor_knows_what_was_accepted_if_it_was_told(rig: Rig) -> None:
    """After a term that ended in order it does; after a crash nobody does, and nobody claims to."""
    rig.submit(2)
    first, second = rig.grant(1, 2)
    rig.now_ms += 10
    rig.accept(1, 1)
    accepted_ms = rig.now_ms
    rig.do(commands.CloseTerm())
    rig.crash(window_ms=0)
    rig.open_session(1, "w1", declare=[held(first), held(second)])
    rig.report(first)
    assert rig.record(first.job_id).accepted_ms == accepted_ms
    rig.crash(window_ms=0)
    rig.open_session(1, "w1", declare=[held(second)])
    rig.report(second)
    assert rig.record(second.job_id).accepted_ms == accepted_ms
    row = rig.submit_one()
    lease = rig.grant_one()
    rig.accept(1, 1)
    rig.crash(window_ms=0)
    rig.open_session(1, "w1", declare=[held(lease)])
    rig.report(lease)
    assert rig.record(row).accepted_ms == 0


# What waits for its commit.


def hold_one(rig: Rig) -> tuple[LeaseRow, commands.SendHeld]:
    """A grant of a job that runs at most once, decided on and not sent yet."""
    job_id = rig.submit_one(ONCE)
    committed = rig.partition.next_seq - 1
    command = commands.Dispatch(credits=[(1, 1)], committed_seq=committed, grants_max=1)
    (effect,) = of_type(rig.do(command).effects, SendAssignment)
    assert (effect.write_ahead, effect.number) == (True, 0)
    lease = rig.record(job_id).lease
    assert lease is not None
    return LeaseRow(job_id, lease), commands.SendHeld(session_id=1, rows=effect.rows)


def test_what_is_held_is_not_missed_by_a_heartbeat(rig: Rig) -> None:
    """A first grant passes it and is heard of: so it gets the number behind that one."""
    waiting, command = hold_one(rig)
    rig.submit(1)
    passing = rig.grant_one()
    rig.accept(1, 1)
    assert not ended(rig.renew(1, 1, held(passing)).events)
    (sent,) = of_type(rig.do(command).effects, SendAssignment)
    assert (sent.number, sent.rows, sent.write_ahead) == (2, command.rows, False)
    assert not ended(rig.renew(1, 1, held(passing)).events)
    assert [row.job_id for row in ended(rig.renew(1, 2, held(passing)).events)] == [waiting.job_id]
    assert rig.record(waiting.job_id).undelivered == 1


def test_what_is_held_is_not_accepted_with_what_passed_it(rig: Rig) -> None:
    """It arrives when its own number is accepted."""
    waiting, command = hold_one(rig)
    rig.submit(1)
    passing = rig.grant_one()
    rig.accept(1, 1)
    rig.do(command)
    rig.now_ms += 10
    rig.accept(1, 2)
    rig.start(waiting, passing)
    for row in (waiting, passing):
        rig.report(row)
    times = [rig.record(row.job_id).accepted_ms - rig.now_ms for row in (passing, waiting)]
    assert times == [-10, 0]


def test_a_worker_has_its_time_to_accept_from_when_a_grant_is_sent(rig: Rig) -> None:
    """However long the commit takes, nobody is called deaf, and nothing is closed for it."""
    waiting, command = hold_one(rig)
    for _ in range(5):
        rig.pass_time(CONFIG.accept_timeout_ms - 1)
        rig.renew(1, 0)
    assert rig.state(waiting.job_id) is JobState.RUNNING
    rig.submit(1)
    rig.start(rig.grant_one())
    rig.accept(1, 1)
    rig.do(command)
    asked = []
    for _ in range(2):
        asked += of_type(rig.pass_time(CONFIG.accept_timeout_ms - 1), SendRevokes)
    assert [row.rows for row in asked] == [[tuple(waiting)]]
    for _ in range(4):
        rig.pass_time(CONFIG.accept_timeout_ms - 1)
        rig.renew(1, 1)
    assert rig.record(waiting.job_id).failure_reason is FailureReason.LOST


def test_a_newer_stream_makes_void_what_an_older_one_was_to_get(rig: Rig) -> None:
    """It is gone when the worker declares itself; what commits later moves no number there."""
    waiting, command = hold_one(rig)
    decision = rig.open_session(2, "w1")
    assert [row.job_id for row in ended(decision.events)] == [waiting.job_id]
    (sent,) = of_type(rig.do(command).effects, SendAssignment)
    assert (sent.session_id, sent.number) == (1, 1)
    (row,) = rig.grant(2)
    assert not ended(rig.renew(2, 1, held(row)).events)
    rig.do(commands.CloseSession(session_id=1))
    assert rig.do(command) == Decision()
