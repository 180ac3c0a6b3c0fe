"""The outbox: at least once on the way, exactly once in effect, in order, through any crash."""

from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core import command as commands
from tenure.master.core.config import PartitionConfig
from tenure.master.core.dependents import outgoing
from tenure.master.core.effect import Taken
from tenure.master.core.event import InboxTaken, JobsSubmitted
from tenure.master.core.message import Message, RegisterChild, SubmitFrom
from tenure.master.core.outbox import (
    BYTES_MAX,
    MESSAGES_MAX,
    InboxMarks,
    Mark,
    Numbered,
    Outbox,
)
from tenure.master.core.partition import Partition
from tenure.master.journal.codec import decode_events
from tenure.master.maintenance import next_epoch
from tenure.protocol.fence import NO_TOKEN, Token
from tenure.protocol.ids import JobId, mint
from tenure.protocol.refusal import Reason, Refusal
from tenure.protocol.vocabulary import JobState
from tenure.v1 import partition_pb2
from tests.encoded import encode_events
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import START_MS, Rig
from tests.unit.master.core.town import Town

TOKEN = Token(1, 10)


def tick(town: Town, target: int, number: int, **options: object) -> SubmitFrom:
    """A job for another partition."""
    job_id = mint(target, START_MS, number * 0x9E3779B97F4A7C15)
    return SubmitFrom(
        policy=town.policy(target), priority=5, ready_ms=0, job_id=job_id, payload=b"x", **options
    )


def send(rig: Rig, target: int, *messages: Message) -> None:
    """Puts messages into a partition's outbox, as a decider's events do."""
    event, _ = outgoing(state_of(rig.partition), target, list(messages), rig.now_ms)
    rig.journal.append(msgspec.msgpack.encode([event]))
    rig.partition.apply(event)


def jobs_of(rig: Rig) -> list[JobId]:
    """All jobs of a partition, in order."""
    return list(state_of(rig.partition).jobs)


def test_a_message_takes_effect_with_its_mark() -> None:
    """The effect's events come first, the mark last; a duplicate does nothing and is answered."""
    town = Town()
    message = tick(town, 1, 1)
    send(town.rigs[0], 1, message)
    (row,) = town.waiting(0, 1)
    rig = town.rigs[1]
    command = commands.TakeMessage(
        source=0, token=TOKEN, number=row.number, after=0, message=message
    )
    decision = rig.do(command)
    assert [type(event) for event in decision.events] == [JobsSubmitted, InboxTaken]
    assert decision.reply == Taken(number=row.number)
    again = rig.do(command)
    assert (again.events, again.reply) == ((), Taken(number=row.number))
    assert jobs_of(rig) == [message.job_id]


def test_a_job_that_is_known_is_not_submitted_again() -> None:
    """Nor is one with a key that is taken; the message counts as taken all the same."""
    town = Town()
    rig = town.rigs[1]
    message = tick(town, 1, 1, key="k")
    for number, other in ((1, message), (2, message), (3, tick(town, 1, 2, key="k"))):
        assert town.take(0, 1, Numbered(number, other)) == Taken(number=number)
    assert jobs_of(rig) == [message.job_id]


def test_a_job_may_be_as_old_as_it_likes() -> None:
    """Its sender's outbox keeps it from coming twice, so no retry window holds."""
    town = Town()
    town.rigs[1].now_ms += 86_400_000
    message = tick(town, 1, 1)
    town.take(0, 1, Numbered(1, message))
    assert town.state(message.job_id) is JobState.PENDING
    later = tick(town, 1, 2)
    later = msgspec.structs.replace(later, ready_ms=town.rigs[1].now_ms + 5_000)
    town.take(0, 1, Numbered(2, later))
    assert town.state(later.job_id) is JobState.SCHEDULED


def test_a_term_that_is_over_is_refused() -> None:
    """A lower token than the highest seen is FENCED; the number decides about all else."""
    town = Town()
    town.take(0, 1, Numbered(1, tick(town, 1, 1)), token=Token(1, 20))
    refusal = town.take(0, 1, Numbered(2, tick(town, 1, 2)), token=TOKEN)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.FENCED


def test_nothing_is_taken_behind_what_was_turned_away() -> None:
    """A message names the one before it, which must have been taken."""
    town = Town()
    refusal = town.take(0, 1, Numbered(2, tick(town, 1, 2)), after=1)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.OUT_OF_ORDER
    assert jobs_of(town.rigs[1]) == []


def test_an_outbox_is_bounded() -> None:
    """By count and by bytes; what is trimmed makes room."""
    town = Town()
    small = tick(town, 1, 1)
    outbox = Outbox()
    outbox.extend(1, 1, [small] * MESSAGES_MAX)
    assert (outbox.room(1), outbox.room(2)) == (0, MESSAGES_MAX)
    outbox.trim(1, 3)
    assert outbox.room(1) == 3
    large = msgspec.structs.replace(small, payload=bytes(BYTES_MAX))
    outbox.extend(2, 1, [large])
    assert outbox.room(2) == 0
    outbox.trim(2, 1)
    assert outbox.room(2) == MESSAGES_MAX


def test_numbers_of_a_restored_cluster_are_new() -> None:
    """A restore raises the epoch, and with it the numbers: none is given a second time."""
    town = Town()
    outbox = Outbox()
    first = outbox.next_number(1, Token(1, 10))
    outbox.extend(1, first, [tick(town, 1, 1)])
    assert outbox.next_number(1, Token(1, 99)) == first + 1
    assert outbox.next_number(1, Token(2, 1)) > first + 2**30


def test_numbers_fit_into_what_carries_them() -> None:
    """Of every epoch that a restore gives, until epochs have no place in 32 bits any more."""
    outbox = Outbox()
    epochs = (1, next_epoch(1), 2**32 - 1)
    numbers = [outbox.next_number(1, Token(epoch, 1)) for epoch in epochs]
    assert numbers == sorted(numbers)
    for number in numbers:
        wire = partition_pb2.PartitionMessage(number=number + 2**31 - 2)
        event = InboxTaken(now_ms=1, source=1, number=wire.number, token=TOKEN)
        assert decode_events(encode_events([event])) == [event]
    assert numbers[1] > numbers[0] + 2**60


def test_a_line_whose_numbers_are_higher_goes_on() -> None:
    """Numbers of an epoch once began 2^9 times as high; a restore still gives higher ones."""
    town = Town()
    outbox = Outbox()
    outbox.extend(1, 2**40 + 1, [tick(town, 1, 1)])
    assert outbox.next_number(1, Token(1, 10)) == 2**40 + 2
    assert outbox.next_number(1, Token(next_epoch(1), 1)) > 2**60


def test_a_line_knows_what_waits_in_it() -> None:
    """From the oldest on, behind what was taken; what is added twice is there once."""
    town = Town()
    messages: list[Message] = [tick(town, 1, number) for number in range(5)]
    outbox = Outbox()
    assert (outbox.targets(), outbox.last_number(1), outbox.waiting(1, 0, 9)) == ([], 0, [])
    outbox.extend(1, 7, messages[:3])
    outbox.extend(1, 8, messages[1:])
    rows = [Numbered(number, message) for number, message in enumerate(messages, 7)]
    assert outbox.waiting(1, 0, 9) == outbox.waiting(1, 6, 5) == rows
    assert (outbox.waiting(1, 7, 2), outbox.waiting(1, 11, 2)) == (rows[1:3], [])
    assert (outbox.targets(), outbox.last_number(1)) == ([1], 11)
    assert outbox.next_number(1, Token(0, 1)) == 12
    outbox.trim(1, 9)
    assert outbox.waiting(1, 0, 9) == rows[3:]
    outbox.trim(1, 11)
    outbox.trim(2, 5)
    assert (outbox.targets(), outbox.last_number(1), outbox.last_number(2)) == ([], 11, 0)
    assert list(outbox.lines()) == [(1, 12, []), (2, 1, [])]


def test_lines_are_told_and_taken_over_in_order() -> None:
    """Part by part, as a snapshot has them: what waits, and the number that is next."""
    town = Town()
    rows = [Numbered(number, tick(town, 1, number)) for number in (4, 5, 9)]
    outbox = Outbox()
    outbox.extend(3, 1, [tick(town, 1, 1)])
    outbox.load(1, 4, rows[:2])
    outbox.load(1, 20, rows[2:])
    told = list(outbox.lines())
    assert [(target, number) for target, number, _ in told] == [(1, 20), (3, 2)]
    assert told[0][2] == rows


def test_what_waits_weighs_its_payloads() -> None:
    """Until it is taken: a line takes nothing more only while it is as heavy as it may be."""
    town = Town()
    light = msgspec.structs.replace(tick(town, 1, 1), payload=bytes(BYTES_MAX - 1))
    other = RegisterChild(parent=light.job_id, child=light.job_id, run=0)
    outbox = Outbox()
    outbox.extend(1, 1, [light, other])
    assert outbox.room(1) == MESSAGES_MAX - 2
    outbox.extend(1, 3, [tick(town, 1, 2)])
    assert outbox.room(1) == 0
    outbox.trim(1, 1)
    assert outbox.room(1) == MESSAGES_MAX - 2
    outbox.extend(1, 4, [tick(town, 1, 3)] * MESSAGES_MAX)
    assert outbox.room(1) == 0


def test_marks_never_fall() -> None:
    """Neither the number nor the token; who has sent nothing has the lowest of both."""
    marks = InboxMarks()
    assert marks.get(3) == Mark(0, NO_TOKEN)
    marks.raise_to(3, 5, Token(1, 2))
    marks.raise_to(3, 4, Token(1, 7))
    marks.raise_to(3, 6, Token(1, 6))
    marks.raise_to(2, 1, Token(1, 1))
    assert marks.rows() == [(2, Mark(1, Token(1, 1))), (3, Mark(6, Token(1, 7)))]
    assert marks.get(3) == marks.rows()[1][1]


def test_the_first_number_of_a_term_is_that_of_its_epoch() -> None:
    """Unless the line is higher already."""
    outbox = Outbox()
    assert [outbox.next_number(1, Token(epoch, 9)) for epoch in (0, 1, 2)] == [
        1,
        2**31 + 1,
        2**32 + 1,
    ]


@given(seed=st.integers(0, 2**32), count=st.integers(1, 12))
def test_exactly_once_in_order_through_anything(seed: int, count: int) -> None:
    """Lost, repeated, held up, either side dead at any moment: each job once, in order."""
    town, rng = Town(), Random(seed)
    sent = [tick(town, 1, number) for number in range(1, count + 1)]
    left = list(sent)
    while left:
        portion = rng.randint(1, 3)
        send(town.rigs[0], 1, *left[:portion])
        del left[:portion]
        for _ in range(rng.randint(0, 6)):
            town.stumble(rng)
    town.calm()
    assert jobs_of(town.rigs[1]) == [message.job_id for message in sent]
    assert town.waiting(0, 1) == []
    for rig in town.rigs:
        assert rig.replayed().state_hash() == rig.partition.state_hash()


@pytest.mark.parametrize("lost", range(3))
def test_an_uncommitted_tail_is_taken_again(lost: int) -> None:
    """The target dies before its batch is durable: the message comes again, and counts once."""
    town = Town()
    messages = [tick(town, 1, number) for number in range(3)]
    send(town.rigs[0], 1, *messages)
    rows = town.waiting(0, 1)
    for row in rows[:2]:
        town.take(0, 1, row)
    # Decisions are committed whole: effect and mark.
    town.rigs[1].crash(lose=2 * lost, window_ms=0)
    town.calm()
    assert jobs_of(town.rigs[1]) == [message.job_id for message in messages]


def test_snapshots_carry_it_in_slices() -> None:
    """Slices taken while messages come and go, and the events since, give the same outbox."""
    town = Town()
    rig = town.rigs[0]
    send(rig, 1, *[tick(town, 1, number) for number in range(6)])
    cursor = rig.partition.snapshot()
    begun = len(rig.journal)
    slices = []
    step = 0
    while (part := cursor.next_slice(2)) is not None:
        slices.append(msgspec.msgpack.decode(msgspec.msgpack.encode(part)))
        step += 1
        rows = town.waiting(0, 1)
        town.trim(0, 1, rows[0].number)
        send(rig, 1, tick(town, 1, 10 + step))
        if step > 30:
            raise AssertionError("expected the snapshot to end")
    other = Partition(PartitionConfig(partition=0, partitions=2))
    for part in slices:
        other.load_slice(part)
    whole = rig.replayed()
    for seq, event in enumerate(rig.events(), 1):
        if seq > begun:
            other.replay(event, seq)
    other.finish_replay()
    assert other.state_hash() == whole.state_hash() == rig.partition.state_hash()
