"""The codec: events come out of a batch as they went in, and nothing else comes out at all."""

import msgspec
import pytest

from tenure.master.backend.errors import CorruptJournal, FormatTooNew
from tenure.master.core.command import SubmitRow
from tenure.master.core.event import (
    DurableEvent,
    JobsReadied,
    JobsSubmitted,
    SubmittedSetting,
    TermClosed,
    TermOpened,
)
from tenure.master.core.record import Policy, RetryPolicy
from tenure.master.journal.codec import decode_events, encode_event, join_events
from tenure.protocol.fence import Token
from tenure.protocol.ids import JobId
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import JobState
from tests.encoded import encode_events

TOKEN = Token(1, 7)
JOB = JobId("01932f6e-0000-7000-8000-000000000001")


def _events() -> list[DurableEvent]:
    policy = Policy(name="mail.send", retry=RetryPolicy(max_attempts=9), labels=(("a", "b"),))
    setting = SubmittedSetting(policy, 5, 1_000, JobState.PENDING)
    return [
        TermOpened(now_ms=1, token=TOKEN, incarnation="me", window_ms=3_000),
        JobsSubmitted(
            now_ms=2,
            first_ordinal=0,
            settings=[setting],
            rows=[SubmitRow(JOB, 0, b"\x00payload\xff", "key")],
        ),
        JobsReadied(now_ms=3, job_ids=[JOB]),
        TermClosed(now_ms=4, token=TOKEN, holders=[]),
    ]


def test_events_come_back() -> None:
    """Every field and type survives, tokens and policies included."""
    decoded = decode_events(encode_events(_events()))
    assert decoded == _events()
    opened = decoded[0]
    assert isinstance(opened, TermOpened)
    assert isinstance(opened.token, Token)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536])
def test_joined_events_are_one_array(count: int) -> None:
    """Events encoded one by one and joined are what msgpack makes of the list, at every size."""
    event = TermClosed(now_ms=4, token=TOKEN, holders=[])
    joined = join_events([encode_event(event)] * count)
    assert joined == msgspec.msgpack.encode([event] * count)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x91",
        b"\xc0",
        b"\x91\x91\xa1\xff",
        msgspec.msgpack.encode([["jobs_readied", "x", 1]]),
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    """What is no list of known events is an error that says so, never a wrong event."""
    with pytest.raises(CorruptJournal, match="expected to decode a batch's events") as caught:
        decode_events(data)
    assert caught.value.reason is Reason.STORE_CORRUPT
    assert caught.value.metadata == {"detail": str(caught.value.__cause__)}


def test_events_of_a_newer_release_are_no_damage() -> None:
    """Kinds that are not known, among others that are: somebody wrote them, so they are named."""
    known = msgspec.msgpack.decode(encode_events(_events()))
    data = msgspec.msgpack.encode([*known, ["unheard_of", 1], ["later", [2]], ["unheard_of"]])
    with pytest.raises(FormatTooNew, match="later, unheard_of; upgrade this master") as caught:
        decode_events(data)
    assert caught.value.reason is Reason.FORMAT_TOO_NEW
    assert caught.value.metadata == {"events": "later,unheard_of"}
