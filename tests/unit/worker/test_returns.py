"""Leases that are handed back, until their master is known to have heard of it."""

from collections.abc import Iterable

from tenure.protocol.fence import Token
from tenure.protocol.limits import CHECKPOINT_BYTES_MAX
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.v1 import worker_pb2
from tenure.worker.executor.outbox import Outbox
from tenure.worker.held import AttemptResult
from tenure.worker.session import Session
from tests.unit.worker.masters import job_id
from tests.unit.worker.rig import HEARTBEAT_MS, Rig, Said

NEWER = Token(1, 101)
RELEASED = AttemptResult(AttemptOutcome.RELEASED)


def handing_back(rig: Rig, session: Session, *numbers: int, saved: bytes = b"") -> None:
    """Jobs begin, say so, save something, and are interrupted to be handed back."""
    rig.grant(session, *numbers)
    jobs = rig.begin(len(numbers))
    rig.hear(session)
    outbox = Outbox(lambda: None)
    for job in jobs if saved else ():
        outbox.save(job, saved)
    rig.arbiter.happened(outbox.take())
    for job in jobs:
        rig.end(job, RELEASED)


def reopened(rig: Rig, session: Session, name: str = "m1", token: Token | None = None) -> Session:
    """The stream breaks, and another one is opened; it has not been heard yet."""
    rig.arbiter.stream_closed(session)
    other = rig.connect(name)
    if token is None:
        rig.open(other)
    else:
        rig.open(other, token=token)
    return other


def charged(said: Said, started: Iterable[str]) -> list[str]:
    """Jobs that a master which reads this charges with a loss, in the order of the protocol.

    It knows which ones have started, and compares each full set with those that it has a lease of.
    """
    known, lost = set(started), []
    for update in said.updates:
        if update.HasField("declare"):
            listed = {row.lease.job_id for row in update.declare.leases}
            lost += sorted(known - listed)
            known &= listed
        known -= {ref.job_id for ref in update.returned}
        if update.HasField("heartbeat"):
            listed = {row.lease.job_id for row in update.heartbeat.held.leases}
            lost += sorted(known - listed)
            known &= listed
    assert not known, "all are handed back"
    return lost


def test_what_waits_when_its_stream_breaks_is_declared_and_then_handed_back() -> None:
    """Whoever misses a started lease in the declaration takes it for lost; what it has saved goes
    before the end.
    """
    for token in (None, NEWER):
        rig = Rig()
        session = rig.leading()
        handing_back(rig, session, 1, saved=b"far")
        said = rig.hear(reopened(rig, session, token=token))
        assert charged(said, [job_id(1)]) == []
        (update,) = [update for update in said.updates if update.returned]
        (row,) = update.declare.leases
        assert (row.lease.job_id, row.started) == (job_id(1), True)
        assert [saved.data for saved in update.checkpoints] == [b"far"]
        assert not update.heartbeat.held.leases


def test_what_was_lost_with_its_stream_is_said_again() -> None:
    """It had been sent, and nobody knows whether it arrived; so had what was saved."""
    rig = Rig()
    session = rig.leading()
    handing_back(rig, session, 1, saved=b"far")
    assert rig.hear(session).returned == [job_id(1)]
    again = reopened(rig, session)
    said = rig.hear(again)
    assert charged(said, [job_id(1)]) == []
    assert said.returned == [job_id(1)]
    assert [row.data for update in said.updates for row in update.checkpoints] == [b"far"]
    # And again, for as long as nobody answers.
    assert rig.hear(reopened(rig, again, "m2", NEWER)).returned == [job_id(1)]


def test_an_answered_heartbeat_proves_that_it_has_arrived() -> None:
    """One that went along or later; one that was sent before proves nothing, nor does a Hold."""
    rig = Rig()
    session = rig.leading()
    rig.wait(HEARTBEAT_MS * 2)
    (before,) = rig.hear(session).heartbeats
    handing_back(rig, session, 1)
    rig.hear(session)
    rig.ack(session, before)
    assert rig.arbiter.unheard == 1
    rig.wait(HEARTBEAT_MS * 2)
    (held,) = rig.hear(session).heartbeats
    rig.instruct(session, hold=worker_pb2.Hold(number=held.number))
    assert rig.arbiter.unheard == 1
    rig.wait(HEARTBEAT_MS * 2)
    (after,) = rig.hear(session).heartbeats
    assert not after.held.leases
    rig.ack(session, after)
    assert rig.arbiter.unheard == 0
    said = rig.hear(reopened(rig, session))
    assert (said.declared, said.returned) == ([[]], [])


def test_an_answer_proves_nothing_of_what_came_later() -> None:
    """Each lease waits for an answer of its own."""
    rig = Rig()
    session = rig.leading()
    handing_back(rig, session, 1)
    rig.wait(HEARTBEAT_MS * 2)
    said = rig.hear(session)
    handing_back(rig, session, 2)
    rig.hear(session)
    rig.ack(session, said.heartbeats[0])
    said = rig.hear(reopened(rig, session))
    assert (said.declared, said.returned) == ([[job_id(2)]], [job_id(2)])


def test_a_repeated_opening_takes_no_old_answer_for_a_new_one() -> None:
    """The master opens the partition again on the same stream: what is said again is unproven."""
    rig = Rig()
    session = rig.leading()
    handing_back(rig, session, 1)
    rig.wait(HEARTBEAT_MS * 2)
    (beat,) = rig.hear(session).heartbeats
    rig.open(session)
    assert rig.hear(session).returned == [job_id(1)]
    rig.ack(session, beat)
    assert rig.arbiter.unheard == 1


def test_large_checkpoints_do_not_part_a_lease_from_its_return() -> None:
    """What does not fit keeps the ends for a later message: a heartbeat or a declaration that goes
    before lists those leases still.
    """
    for reopens in (False, True):
        rig = Rig(slots=8)
        session = rig.leading()
        handing_back(rig, session, *range(1, 7), saved=bytes(CHECKPOINT_BYTES_MAX))
        if reopens:
            session = reopened(rig, session)
        else:
            rig.wait(HEARTBEAT_MS * 2)
        said = rig.hear(session)
        assert len([update for update in said.updates if update.checkpoints]) > 1
        assert charged(said, [job_id(number) for number in range(1, 7)]) == []


def test_a_worker_that_is_to_end_asks_whether_it_has_arrived() -> None:
    """A heartbeat goes along; one that was handed back before is asked for, too."""
    rig = Rig()
    session = rig.leading()
    handing_back(rig, session, 1)
    assert rig.hear(session).heartbeats == []
    rig.arbiter.drain()
    (beat,) = rig.hear(session).heartbeats
    rig.ack(session, beat)
    assert rig.arbiter.unheard == 0

    rig = Rig()
    session = rig.leading()
    rig.grant(session, 1)
    rig.arbiter.drain()
    (update,) = [update for update in rig.hear(session).updates if update.returned]
    assert update.HasField("heartbeat")
    rig.ack(session, update.heartbeat)
    assert rig.arbiter.unheard == 0
