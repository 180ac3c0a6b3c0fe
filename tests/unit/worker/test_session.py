"""One stream: the greeting, heartbeats, credit, and which words count."""

from itertools import pairwise

import pytest

from tenure.protocol.fence import Token
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.v1 import worker_pb2
from tenure.worker.held import AttemptResult
from tenure.worker.session import WELCOME_MS_MAX
from tests.unit.worker.masters import TOKEN, job_id, wire
from tests.unit.worker.rig import HEARTBEAT_MS, TTL_MS, Rig

OLDER, NEWER = Token(1, 99), Token(1, 101)


def test_hello_comes_first_and_once() -> None:
    """The first envelope introduces the worker; nothing else is said before there is a leader."""
    rig = Rig(slots=3)
    session = rig.arbiter.stream_opened("m1", rig.now_ms)
    (request,) = rig.hear(session).requests
    assert (request.hello.incarnation, request.hello.slots) == ("inc", 3)
    rig.tell(session, worker_pb2.SessionResponse(welcome=worker_pb2.Welcome(master="m1")))
    assert rig.hear(session).requests == []


def test_welcome_names_other_masters() -> None:
    """Addresses in a Welcome and hints of closed partitions are passed on to be dialled."""
    rig = Rig()
    session = rig.leading()
    said = worker_pb2.SessionResponse(welcome=worker_pb2.Welcome(masters=["a:1", "b:2"]))
    assert rig.tell(session, said) == ["a:1", "b:2"]
    closed = worker_pb2.PartitionClosed(partition=0, token=wire(TOKEN), hint="c:3")
    assert rig.tell(session, worker_pb2.SessionResponse(closed=[closed])) == ["c:3"]


def test_opening_is_answered_with_all_leases() -> None:
    """A declaration lists every held lease, ended ones included, with a heartbeat and credit."""
    rig = Rig()
    session = rig.leading()
    rig.grant(session, 1, 2, 3)
    rig.hear(session)
    job, _ = rig.begin(2)
    rig.end(job)
    other = rig.connect("m2")
    rig.open(other, token=NEWER)
    said = rig.hear(other)
    assert said.declared == [[job_id(1), job_id(2), job_id(3)]]
    assert [row.started for row in said.updates[0].declare.leases] == [True, True, False]
    assert len(said.heartbeats) == 1
    assert [report.lease.job_id for report in said.reports] == [job_id(1)]
    assert said.reports[0].lease.token == wire(TOKEN)
    assert said.limits


@pytest.mark.parametrize("token", [OLDER, NEWER])
def test_instruction_under_another_token_does_nothing(token: Token) -> None:
    """Only the open office's words count: not a deposed leader's, nor one's not yet opened."""
    rig = Rig()
    session = rig.leading()
    (ref,) = rig.grant(session, 1)
    (job,) = rig.begin()
    rig.instruct(session, token=token, cancels=[ref])
    rig.revoke(session, ref, unless_started=False, token=token)
    rig.grant(session, 2, token=token, assignment=2)
    assert rig.queued == []
    assert rig.stops == []
    assert not job.revoked


def test_grants_of_an_old_office_are_spent_credit() -> None:
    """The master has sent them, so they count against its limit although nothing runs."""
    rig = Rig(slots=4)
    session = rig.leading()
    assert session.credit.unspent == 4
    rig.grant(session, 1, 2, token=OLDER)
    assert session.credit.granted == 2
    assert session.credit.unspent == 4, "the slots are still free, so the limit rises"
    assert rig.hear(session).limits[-1].limit == 6


def test_opening_under_a_lower_token_is_ignored() -> None:
    """A deposed leader that still believes in itself gets no declaration and no credit."""
    rig = Rig()
    leader = rig.leading("m1", token=NEWER)
    zombie = rig.connect("m2")
    rig.open(zombie, token=OLDER)
    assert rig.hear(zombie).requests == []
    rig.grant(leader, 1, token=NEWER)
    assert len(rig.queued) == 1


def test_newer_office_takes_the_partition_over() -> None:
    """After an opening under a higher token the former leader's words are void."""
    rig = Rig()
    old = rig.leading("m1")
    new = rig.leading("m2", token=NEWER)
    rig.grant(old, 1)
    assert rig.queued == []
    assert old.partitions == {}
    rig.grant(new, 1, token=NEWER)
    assert len(rig.queued) == 1


def test_closing_under_another_token_is_ignored() -> None:
    """Only the office that is open can be closed."""
    rig = Rig()
    session = rig.leading(token=TOKEN)
    rig.close(session, token=OLDER)
    assert 0 in session.partitions
    rig.close(session, token=TOKEN)
    assert session.partitions == {}


def test_heartbeats_are_numbered_and_complete() -> None:
    """Each beat has the next number, the last assignment, and the full set with its progress."""
    rig = Rig()
    session = rig.leading()
    rig.grant(session, 1, 2)
    (job,) = rig.begin()
    job.report_progress(40)
    rig.hear(session)
    rig.wait(int(HEARTBEAT_MS * 1.1))
    (beat,) = rig.hear(session).heartbeats
    assert (beat.number, beat.last_assignment) == (2, 1)
    rows = beat.held.leases
    assert [row.lease.job_id for row in rows] == [job_id(1), job_id(2)]
    assert [(row.started, row.progress) for row in rows] == [(True, 40), (False, 0)]
    assert rows[0].running_ms == int(HEARTBEAT_MS * 1.1)


def test_heartbeats_keep_their_interval() -> None:
    """Beats are 5 s apart, give or take a tenth, and not all the same."""
    rig = Rig()
    session = rig.leading()
    rig.wait(1)
    times = []
    while len(times) < 40:
        rig.hear(session)
        wake_ms = session.next_wake_ms()
        assert wake_ms is not None
        rig.wait(wake_ms - rig.now_ms)
        if beats := rig.hear(session).heartbeats:
            times.append(rig.now_ms)
            rig.ack(session, beats[0])
    gaps = {after - before for before, after in pairwise(times)}
    assert all(HEARTBEAT_MS * 0.9 <= gap <= HEARTBEAT_MS * 1.1 for gap in gaps)
    assert len(gaps) > 10


def test_master_without_answers_is_dropped() -> None:
    """A leader that leaves heartbeats unanswered for a lease TTL is dialled again."""
    rig = Rig()
    session = rig.leading()
    assert rig.wait(TTL_MS - 1) == []
    assert rig.wait(1) == [session]


@pytest.mark.fault(30)
def test_hold_is_an_answer() -> None:
    """A frozen leader answers with HOLD: its stream is kept."""
    rig = Rig()
    session = rig.leading()
    rig.instruct(session, hold=worker_pb2.Hold(number=1))
    assert rig.wait(TTL_MS) == []


def test_stream_without_welcome_is_dropped() -> None:
    """Whoever takes our Hello and says nothing is dialled again."""
    rig = Rig()
    session = rig.arbiter.stream_opened("m1", rig.now_ms)
    rig.hear(session)
    assert rig.wait(WELCOME_MS_MAX - 1) == []
    assert rig.wait(1) == [session]


def test_follower_is_left_alone() -> None:
    """A master that leads nothing gets no heartbeats, and none are missed."""
    rig = Rig()
    session = rig.connect()
    assert rig.wait(10 * TTL_MS) == []
    assert rig.hear(session).requests == []


def test_goodbye_comes_last() -> None:
    """The end is said after all else, in an envelope of its own."""
    rig = Rig()
    session = rig.leading()
    rig.grant(session, 1)
    rig.run_all()
    rig.arbiter.say_goodbye("drained")
    said = rig.hear(session)
    assert len(said.reports) == 1
    assert said.requests[-1].goodbye.reason == "drained"
    assert not said.requests[-1].updates


def test_reports_travel_in_bounded_envelopes() -> None:
    """A thousand outcomes are split by rows, and large ones by bytes."""
    rig = Rig(slots=2_000)
    session = rig.leading()
    rig.grant(session, *range(1, 1_101))
    rig.run_all()
    sizes = [
        sum(len(update.reports) for update in request.updates)
        for request in rig.hear(session).requests
    ]
    assert [size for size in sizes if size] == [512, 512, 76]


def test_envelopes_are_small_however_many_partitions_have_large_results() -> None:
    """A master takes no more than 16 MiB at once; what it does not take is said again for ever."""
    rig = Rig(slots=200)
    session = rig.connect()
    for partition in range(100):
        rig.open(session, partition)
        rig.grant(session, partition + 1, partition=partition)
    rig.hear(session)
    result = AttemptResult(AttemptOutcome.COMPLETED, bytes(256 * 1024))
    for job in rig.begin(100):
        rig.end(job, result)
    said = rig.hear(session)
    assert len(said.reports) == 100
    assert max(request.ByteSize() for request in said.requests) < 1024 * 1024
