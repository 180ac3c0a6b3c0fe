"""Intake: what is said to who sends a message that is not taken, and what one that is comes to."""

import msgspec
import pytest

from tenure.master.core import command as commands
from tenure.master.core.command import TakeMessage, TrimOutbox
from tenure.master.core.dependents import outgoing
from tenure.master.core.effect import NotifySettled, SendCancels, Taken
from tenure.master.core.event import InboxTaken, JobsCancelled, JobsSubmitted, OutboxTrimmed
from tenure.master.core.message import CancelFrom, Message, SubmitFrom
from tenure.master.core.record import Policy
from tenure.protocol.fence import Token
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import JobState
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import START_MS, Rig, of_type
from tests.unit.master.core.town import Town

TOKEN = Token(1, 10)


def arriving(message: Message, number: int, after: int = 0, token: Token = TOKEN) -> TakeMessage:
    """A message of partition 3."""
    return TakeMessage(source=3, token=token, number=number, after=after, message=message)


def job(rig: Rig, **options: object) -> SubmitFrom:
    """A job of a schedule elsewhere."""
    message = SubmitFrom(
        policy=Policy(name="job"), priority=2, ready_ms=0, job_id=rig.mint(), payload=b"call"
    )
    return msgspec.structs.replace(message, **options)


def test_a_deposed_leader_is_told_that_it_is() -> None:
    """By the newest term that was heard of; the same term goes on."""
    rig = Rig()
    rig.do(arriving(job(rig), 1, token=Token(1, 20)))
    refusal = rig.refused(arriving(job(rig), 2, token=Token(1, 19)))
    assert refusal.reason is Reason.FENCED
    assert refusal.metadata == {"partition": "3", "token": "1.19"}
    assert "partition 3's newest term 1.20, but it is of term 1.19" in refusal.message
    assert rig.do(arriving(job(rig), 2, token=Token(1, 20))).reply == Taken(number=2)


def test_who_sends_too_early_is_told_from_where_to_send() -> None:
    """What comes after the newest that was taken is taken, and so is what leaves numbers out."""
    rig = Rig()
    rig.do(arriving(job(rig), 5))
    refusal = rig.refused(arriving(job(rig), 8, after=6))
    assert (refusal.reason, refusal.retry_after_ms) == (Reason.OUT_OF_ORDER, 50)
    assert refusal.metadata == {"partition": "3", "taken": "5"}
    assert "message 8 of partition 3 after 6, but only those up to 5" in refusal.message
    assert rig.do(arriving(job(rig), 8, after=5)).reply == Taken(number=8)


def test_what_was_taken_is_answered_by_what_was_taken_last() -> None:
    """Whatever its number: the sender may forget all up to there."""
    rig = Rig()
    for number in (4, 9):
        rig.do(arriving(job(rig), number))
    for number in (1, 4, 9):
        decision = rig.do(arriving(job(rig), number, after=number))
        assert (decision.events, decision.effects, decision.reply) == ((), (), Taken(number=9))


@pytest.mark.parametrize(
    ("late_ms", "state"), [(-1, JobState.PENDING), (0, JobState.PENDING), (1, JobState.SCHEDULED)]
)
def test_a_job_from_elsewhere_is_what_its_sender_says(late_ms: int, state: JobState) -> None:
    """With its priority, keys and payload; one whose time has passed is due now."""
    rig = Rig()
    message = job(rig, ready_ms=START_MS + late_ms, key="k", limit_key="acme", sticky_key="model")
    decision = rig.do(arriving(message, 1))
    submitted, taken = decision.events
    assert isinstance(submitted, JobsSubmitted)
    assert taken == InboxTaken(now_ms=START_MS, source=3, number=1, token=TOKEN)
    assert submitted.now_ms == START_MS
    record = rig.record(message.job_id)
    assert (record.priority, record.payload, record.key) == (2, b"call", "k")
    assert (record.limit_key, record.sticky_key) == ("acme", "model")
    assert (record.state, record.ready_ms) == (state, START_MS + max(late_ms, 0))


def test_a_job_from_elsewhere_comes_once() -> None:
    """Not while it is known, nor when it was purged, nor beside one of its key; others do."""
    rig = Rig()
    first = job(rig, key="k")
    rig.do(arriving(first, 1))
    known = len(state_of(rig.partition).jobs)
    rig.do(arriving(first, 2))
    rig.do(arriving(job(rig, key="k"), 3))
    assert len(state_of(rig.partition).jobs) == known
    rig.do(commands.CancelJobs(job_ids=[first.job_id]))
    rig.do(commands.PurgeJobs(job_ids=[first.job_id]))
    rig.do(arriving(first, 4))
    assert not state_of(rig.partition).jobs
    for number in (5, 6):
        rig.do(arriving(job(rig), number))
    assert len(state_of(rig.partition).jobs) == 2
    ordinals = [record.ordinal for record in state_of(rig.partition).jobs.values()]
    assert ordinals == sorted(set(ordinals))


def test_a_job_is_cancelled_for_a_reason_from_elsewhere() -> None:
    """One that waits at once, one that runs by its worker; one that is not known is nobody's."""
    rig = Rig()
    rig.open_session(1)
    (running,) = rig.submit(1)
    row = rig.grant_one()
    (waiting,) = rig.submit(1)
    decision = rig.do(arriving(CancelFrom(job_id=waiting, reason="enough"), 1))
    (event,) = of_type(decision.events, JobsCancelled)
    assert (event.now_ms, event.job_ids, event.reason) == (rig.now_ms, [waiting], "enough")
    assert len(of_type(decision.effects, NotifySettled)) == 1
    decision = rig.do(arriving(CancelFrom(job_id=running, reason="enough"), 2))
    assert rig.record(running).cancel_reason == "enough"
    (asked,) = of_type(decision.effects, SendCancels)
    assert asked.rows == [(row.job_id, row.lease)]
    decision = rig.do(arriving(CancelFrom(job_id=rig.mint(), reason="enough"), 3))
    assert [type(each) for each in decision.events] == [InboxTaken]


def test_what_was_taken_elsewhere_is_forgotten_once() -> None:
    """As far as it waits; who waits for a job that a message brought is answered."""
    town = Town()
    here = town.rigs[0]
    (parent, _), (other, _) = town.submit(1), town.submit(1)
    town.submit(0, [parent])
    town.submit(0, [other])
    town.resolve(0)
    rows = town.waiting(0, 1)
    assert len(rows) == 2
    for upto, left in ((rows[0].number - 1, 2), (rows[0].number, 1)):
        decision = here.do(TrimOutbox(target=1, upto=upto))
        trimmed = OutboxTrimmed(now_ms=here.now_ms, target=1, upto=upto)
        assert decision.events == (() if left == 2 else (trimmed,))
        assert len(town.waiting(0, 1)) == left
    assert here.do(TrimOutbox(target=1, upto=rows[0].number)).events == ()
    assert here.partition.drain_answers() == []


def test_who_waits_for_a_job_elsewhere_hears_when_it_has_arrived() -> None:
    """Its target has taken the message that brought it; each hears once."""
    town = Town()
    here, there = town.rigs
    policy = town.policy(1)
    messages: list[Message] = [
        SubmitFrom(policy=policy, priority=5, ready_ms=0, job_id=there.mint(), payload=b"")
        for _ in range(3)
    ]
    event, _ = outgoing(state_of(here.partition), 1, messages, here.now_ms)
    here.journal.append(msgspec.msgpack.encode([event]))
    here.partition.apply(event)
    first, second, third = town.waiting(0, 1)
    for row, heard in ((first, [first]), (third, [second, third])):
        here.do(TrimOutbox(target=1, upto=row.number))
        answers = [(each.message.job_id, None) for each in heard]  # type: ignore[union-attr]
        assert here.partition.drain_answers() == answers
    assert town.waiting(0, 1) == []
