"""What masters tell workers: sound words pass, and each unsound one is refused."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from tenure.v1.common_pb2 import Token
from tenure.v1.journal_pb2 import JournalBatch
from tests.oracles.facts import Closed, Fact, Granted, TermBegan
from tests.oracles.journal import Change, OfficeTaken, OfficeVacated
from tests.oracles.journal_facts import Extents
from tests.oracles.word import Word
from tests.oracles.words import Commits, check_words
from tests.unit.oracles.sample import TERM_1, lease

OLD, NEW = lease(TERM_1, 1), lease(TERM_1, 2)
#: Term time is this much ahead of the boot clock.
AHEAD_MS = 1_000_000
TTL_MS = 15_000.0
CHANGES: list[Change] = [OfficeTaken(7, 0, 1, "a", 0.0), OfficeVacated(20, 0, 60_000.0)]


def commits(*sent_ms: float) -> Commits:
    """Batches of one event each, that were sent at these times and committed 10 ms later."""
    batches = [
        JournalBatch(
            token=Token(epoch=1, revision=7),
            number=number,
            first_seq=number + 1,
            event_count=1,
            stamp_ms=AHEAD_MS + int(ms),
            events=msgspec.msgpack.encode([["event"]]),
        ).SerializeToString()
        for number, ms in enumerate(sent_ms)
    ]
    trace = [
        {"event": "append_sent", "number": number, "boot_ms": ms}
        for number, ms in enumerate(sent_ms)
    ]
    committed_ms = {number: ms + 10 for number, ms in enumerate(sent_ms)}
    return Commits(batches, Extents.of_batches(batches), trace, committed_ms)


def word(at_ms: float, kind: str = "ack", *leases: str, call: int = 1) -> Word:
    """Said under the first token."""
    listed = tuple(("j", one) for one in leases)
    return Word(at_ms, "m1", call, 0, TERM_1, kind, listed, at_ms)


def judged(words: list[Word], facts: list[Fact], sent: Commits) -> list[str]:
    """What is wrong, and under which invariant."""
    found = check_words(words, CHANGES, facts, sent, lease_ttl_ms=TTL_MS)
    return [f"{one.invariant} {one.detail}" for one in found]


class TestSilence:
    """S6: nothing but the office stands behind an acknowledged heartbeat."""

    def test_an_office_that_lives_may_speak(self) -> None:
        """And one that has ended may say that it cannot judge."""
        assert judged([word(59_999.0), word(60_001.0, "hold")], [], commits(0)) == []

    def test_one_that_has_ended_may_not(self) -> None:
        """One acknowledgement behind the end of the office is one too many."""
        (wrong,) = judged([word(60_001.0)], [], commits(0))
        assert wrong.startswith("S6 m1 acknowledged a heartbeat")


class TestHeard:
    """S5: who is heard is not expired."""

    def expired(self, at_ms: float) -> list[Fact]:
        return [Closed(2, "j", NEW, "loss", expired=True, at_ms=AHEAD_MS + int(at_ms))]

    def test_silence_expires(self) -> None:
        """A lease that was last acknowledged longer ago than its time to live."""
        said = [word(5_000.0, "ack", NEW), word(9_000.0, "ack", OLD)]
        assert judged(said, self.expired(21_000), commits(0, 22_000)) == []

    def test_an_acknowledged_heartbeat_keeps_a_lease(self) -> None:
        """The decision counts, not its commit."""
        said = [word(5_000.0, "ack", NEW)]
        (wrong,) = judged(said, self.expired(19_000), commits(0, 22_000))
        assert "19000" not in wrong
        assert "expired 14000 ms after" in wrong

    def test_whoever_is_told_to_hold_is_heard(self) -> None:
        """A leader that could not judge expires nobody whom it has put off all along."""
        said = [word(ms, "hold", NEW) for ms in (6_000.0, 11_000.0, 16_000.0)]
        (wrong,) = judged(said, self.expired(19_000), commits(0, 22_000))
        assert "answered all along" in wrong
        assert judged(said[:1], self.expired(19_000), commits(0, 22_000)) == []


class TestTold:
    """S5: who has lost a lease is told."""

    FACTS: ClassVar[list[Fact]] = [
        TermBegan(1, TERM_1),
        Granted(2, "j", OLD, 1),
        Closed(3, "j", OLD, "loss"),
        Granted(4, "j", NEW, 2),
    ]
    SENT = (0, 10, 20, 30)

    def test_a_lost_lease_is_revoked(self) -> None:
        """With the acknowledgement or a little later."""
        said = [
            word(10_000.0, "ack", OLD),
            word(10_001.0, "revoke", OLD),
            word(15_000.0, "ack"),
        ]
        assert judged(said, self.FACTS, commits(*self.SENT)) == []

    def test_who_is_not_told_believes_to_hold_it(self) -> None:
        """The stream lives on, and not a word of the lost lease."""
        said = [
            word(10_000.0, "ack", OLD),
            word(10_001.0, "revoke", NEW),
            word(10_001.0, "revoke", OLD, call=2),
            word(15_000.0, "ack"),
        ]
        (wrong,) = judged(said, self.FACTS, commits(*self.SENT))
        assert f"let its worker keep {OLD}" in wrong

    def test_nothing_is_claimed_of_a_stream_that_ends(self) -> None:
        """The word may have been lost with it; or it waits for a commit."""
        said = [word(10_000.0, "ack", OLD)]
        assert judged(said, self.FACTS, commits(*self.SENT)) == []
        waiting = commits(*self.SENT, 14_995)
        assert judged([*said, word(15_000.0)], self.FACTS, waiting) == []

    def test_the_newest_lease_is_kept(self) -> None:
        """Of that there is nothing to tell."""
        said = [word(10_000.0, "ack", NEW), word(15_000.0, "ack", NEW)]
        assert judged(said, self.FACTS, commits(*self.SENT)) == []
