"""S14, between partitions: what is said is taken once and in order, with its effect."""

from __future__ import annotations

from collections.abc import Sequence

from tests.oracles.facts import (
    CancelAsked,
    Fact,
    Granted,
    Message,
    Registered,
    Released,
    Sent,
    Settled,
    Submitted,
    Taken,
    TermBegan,
    Told,
    Trimmed,
)
from tests.oracles.post import check_post
from tests.unit.oracles.sample import TERM_1, TERM_2, lease

BASE = 1 << 31
SAID = [
    Message("submit", "J", content="c"),
    Message("register", "J", "far", 1),
    Message("cancel", "J"),
    Message("tell", "P", "child", 0, "COMPLETED"),
    Message("release", "J", "far", 1),
]


def outbox() -> list[Fact]:
    """What partition 0 says to partition 1, in two terms."""
    sent = [Sent(2 + i, i, 1, BASE + 1 + i, message) for i, message in enumerate(SAID)]
    later = TermBegan(9, TERM_2, at_ms=9)
    return [TermBegan(1, TERM_1), *sent[:2], later, *sent[2:], Trimmed(20, 20, 1, BASE + 5)]


def inbox() -> list[Fact]:
    """What becomes of it there; a leader dies in between."""
    return [
        TermBegan(1, TERM_1),
        Submitted(2, "J", "c", 1, 0),
        Taken(3, 3, 0, BASE + 1),
        Registered(4, 4, "J", "far", 1),
        Taken(5, 5, 0, BASE + 2),
        Submitted(6, "child", "child", 1, 0, parents=("P",)),
        TermBegan(7, TERM_2, at_ms=7),
        CancelAsked(8, "J"),
        Taken(9, 9, 0, BASE + 3),
        Told(10, 10, "P", "child", "COMPLETED"),
        Taken(11, 11, 0, BASE + 4),
        Released(12, 12, "J", "far"),
        Taken(13, 13, 0, BASE + 5),
    ]


def wrong(source: Sequence[Fact], target: Sequence[Fact], *, drained: bool = True) -> list[str]:
    """What is found."""
    found = check_post({0: source, 1: target}, drained=drained)
    assert {violation.invariant for violation in found} <= {"S14"}
    return [violation.detail for violation in found]


def test_healthy_post_passes() -> None:
    """All that was said has come, once."""
    assert wrong(outbox(), inbox()) == []
    assert wrong([], [TermBegan(1, TERM_1)]) == []


def test_each_lost_fact_is_found() -> None:
    """A message, its taking or its effect."""
    for lost in range(1, len(outbox()) - 1):
        facts = outbox()
        if isinstance(facts.pop(lost), Sent):
            assert wrong(facts, inbox()), lost
    for lost, fact in enumerate(inbox()):
        facts = inbox()
        del facts[lost]
        harmless = isinstance(fact, TermBegan) or getattr(fact, "job", "") == "child"
        assert bool(wrong(outbox(), facts)) is not harmless, lost


def test_each_doubled_fact_is_found() -> None:
    """A message is said twice, or taken twice, or has its effect twice."""
    for place, fact in enumerate(outbox()):
        facts = outbox()
        facts.insert(place, fact)
        assert bool(wrong(facts, inbox())) is isinstance(fact, Sent), place
    for place, fact in enumerate(inbox()):
        facts = inbox()
        facts.insert(place, fact)
        expected = isinstance(fact, Taken | Registered | Told | Released)
        assert bool(wrong(outbox(), facts)) is expected, place


def test_messages_out_of_order_are_found() -> None:
    """The second comes before the first."""
    facts = inbox()
    facts[3:5], facts[1:3] = facts[1:3], facts[3:5]
    assert wrong(outbox(), facts)
    sent = outbox()
    sent[1], sent[2] = sent[2], sent[1]
    assert wrong(sent, inbox())


def test_an_effect_that_was_not_called_for_is_found() -> None:
    """A parent's state that nobody told, or another one than was told."""
    other = inbox()
    other[9] = Told(10, 10, "P", "child", "FAILED")
    assert len(wrong(outbox(), other)) == 2
    unasked = [Told(14, 14, "P", "x", "FAILED"), TermBegan(15, TERM_2)]
    assert len(wrong(outbox(), [*inbox(), *unasked])) == 1


def test_a_job_that_has_ended_need_not_be_cancelled() -> None:
    """A cancel that comes too late has no effect."""
    facts = inbox()
    facts[7] = Settled(8, "J", 0, "", "COMPLETED", "", at_ms=8)
    assert wrong(outbox(), facts) == []


def test_a_message_that_is_never_taken_is_found() -> None:
    """Once all is well; while something is wrong it may wait."""
    later = Granted(99, "x", lease(TERM_2, 9), 1, 60_000)
    sent = [*outbox()[:-1], later]
    assert wrong(sent, [*inbox()[:-2], later]) == [f"message {BASE + 5} to 1 was never taken"]
    assert wrong(sent, [*inbox()[:-2], later], drained=False) == []


def test_what_is_forgotten_before_it_was_taken_is_found() -> None:
    """An outbox is trimmed up to what was taken, at most."""
    assert wrong(outbox(), inbox()[:-2]) == [f"{BASE + 5} to 1 is forgotten, and 4 were taken"]


def test_numbers_go_on_above_those_of_a_former_epoch() -> None:
    """In a cluster that was set back."""
    message = SAID[2]
    first = [TermBegan(1, TERM_1), Sent(2, 2, 1, BASE + 1, message)]
    anew = TermBegan(3, f"{2:08x}{1:016x}")
    taken: list[Fact] = [Taken(1, 1, 0, BASE + 1), Taken(2, 2, 0, 2 * BASE + 1)]

    assert wrong([*first, anew, Sent(4, 4, 1, 2 * BASE + 1, message)], taken) == []
    assert wrong([*first, anew, Sent(4, 4, 1, BASE + 2, message)], taken)
