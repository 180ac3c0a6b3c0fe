"""What masters tell workers of their leases, held against the journal and against each other.

- S6: no heartbeat is acknowledged under a token whose office had ended. Nothing but the office
  stands behind an acknowledgement: no commit guards it.
- S5: who is heard is not expired. A lease whose heartbeat was acknowledged within its time to live
  has time left; and one whose holder was answered all along, be it with HOLD because the leader
  could not judge, was never silent.
- S5: who has lost a lease is told. A heartbeat that lists a lease of a job that is known to have a
  newer one is not just acknowledged: the worker hears that the listed one is lost, as soon as what
  was decided by then has committed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Final, NamedTuple

from tenure.v1.journal_pb2 import JournalBatch
from tests.oracles.facts import Adopted, Closed, Fact, Granted, TermBegan, token_of
from tests.oracles.journal import Change, OfficeTaken, OfficeVacated
from tests.oracles.journal_facts import Extents
from tests.oracles.verdict import Violation
from tests.oracles.word import Word

#: A worker sends a heartbeat each 5 s.
_SILENCE_MS: Final = 8_000.0
#: Clocks run up to so much too fast or too slow, and are read in whole milliseconds.
_DRIFT: Final = 5e-4
_ROUNDING_MS: Final = 50.0
#: A new leader compares nothing before its workers had the time to declare what they hold.
_WINDOW_MS: Final = 6_000.0
#: The next answer that shows that a session goes on is at least so much later.
_LATER_MS: Final = 1_000.0


class Commits:
    """When a partition's batches were sent, and when they had committed.

    Args:
        batches: All of them, in order.
        extents: Which of them holds which seq.
        trace: The masters' traces; what counts are ``append_sent``.
        committed_ms: By number.
    """

    def __init__(
        self,
        batches: Iterable[bytes],
        extents: Extents,
        trace: Iterable[Mapping[str, object]],
        committed_ms: Mapping[int, float],
    ) -> None:
        self._extents = extents
        self._committed_ms = committed_ms
        self._sent_ms: defaultdict[int, list[float]] = defaultdict(list)
        for row in trace:
            if row["event"] == "append_sent":
                self._sent_ms[int(str(row["number"]))].append(float(str(row["boot_ms"])))
        self._sealed: dict[int, tuple[str, int]] = {}
        for data in batches:
            batch = JournalBatch.FromString(data)
            token = f"{batch.token.epoch:08x}{batch.token.revision:016x}"
            self._sealed[batch.number] = token, batch.stamp_ms

    def committed(self, seq: int) -> float:
        """When a seq had committed; infinity if nobody knows."""
        return self._committed_ms.get(self._extents.number(seq), inf)

    def decided(self, seq: int, term_ms: int) -> tuple[str, float]:
        """Who decided on an event, and when: its term time, on the boot clock."""
        number = self._extents.number(seq)
        token, stamp_ms = self._sealed[number]
        until_ms = self._committed_ms.get(number, inf)
        sent_ms = max((ms for ms in self._sent_ms[number] if ms <= until_ms), default=inf)
        return token, sent_ms - (stamp_ms - term_ms)

    def any_under_way(self, at_ms: float) -> bool:
        """Whether some batch that was sent before a moment had not committed by then."""
        return any(
            min(sent_ms) <= at_ms < self._committed_ms.get(number, inf)
            for number, sent_ms in self._sent_ms.items()
        )


def check_words(
    words: Sequence[Word],
    changes: Iterable[Change],
    facts: Sequence[Fact],
    commits: Commits,
    *,
    lease_ttl_ms: float,
) -> list[Violation]:
    """All that was said of one partition; ``changes`` are empty where the store shows none."""
    return [
        *_check_silence(words, changes),
        *_check_heard(words, facts, commits, lease_ttl_ms),
        *_check_told(words, facts, commits),
    ]


def _check_silence(words: Iterable[Word], changes: Iterable[Change]) -> list[Violation]:
    ended_ms: dict[str, float] = {}
    held = ""
    for change in changes:
        if isinstance(change, OfficeTaken):
            held = f"{change.epoch:08x}{change.revision:016x}"
        elif isinstance(change, OfficeVacated) and change.at_ms is not None:
            ended_ms[held] = change.at_ms
    return [
        Violation(
            "S6",
            f"partition {word.partition}",
            f"{word.master} acknowledged a heartbeat under {word.token},"
            f" {word.at_ms - ended_ms[word.token]:.1f} ms after that office had ended",
        )
        for word in words
        if word.kind == "ack" and word.at_ms > ended_ms.get(word.token, inf)
    ]


def _check_heard(
    words: Iterable[Word], facts: Iterable[Fact], commits: Commits, lease_ttl_ms: float
) -> list[Violation]:
    expired = [fact for fact in facts if isinstance(fact, Closed) and fact.expired]
    if not expired:
        return []
    answered: defaultdict[tuple[str, str], list[Word]] = defaultdict(list)
    for word in words:
        if word.kind in ("ack", "hold"):
            for _, lease in word.leases:
                answered[word.token, lease].append(word)
    violations = []
    for fact in expired:
        token, at_ms = commits.decided(fact.seq, fact.at_ms)
        answers = [word for word in answered[token, fact.lease] if word.at_ms <= at_ms]
        ttl_ms = lease_ttl_ms * (1 - _DRIFT) - _ROUNDING_MS
        acked_ms = max((word.at_ms for word in answers if word.kind == "ack"), default=-inf)
        if at_ms - acked_ms < ttl_ms:
            wrong = f"expired {at_ms - acked_ms:.0f} ms after its heartbeat was acknowledged"
        elif _longest_silence(answers, at_ms - ttl_ms, at_ms) <= _SILENCE_MS:
            wrong = "expired, though its worker was answered all along"
        else:
            continue
        violations.append(Violation("S5", fact.job, f"lease {fact.lease} {wrong}"))
    return violations


def _longest_silence(answers: Iterable[Word], since_ms: float, until_ms: float) -> float:
    """The longest time without an answer, within two moments."""
    longest_ms, last_ms = 0.0, since_ms
    for word in answers:
        if word.at_ms > since_ms:
            longest_ms, last_ms = max(longest_ms, word.at_ms - last_ms), word.at_ms
    return max(longest_ms, until_ms - last_ms)


class _Given(NamedTuple):
    """When a lease was known to all leaders from then on."""

    at_ms: float
    lease: str


def _check_told(words: Sequence[Word], facts: Iterable[Fact], commits: Commits) -> list[Violation]:
    given: defaultdict[str, list[_Given]] = defaultdict(list)
    began_ms: dict[str, float] = {}
    for fact in facts:
        if isinstance(fact, Granted | Adopted):
            given[fact.job].append(_Given(commits.committed(fact.seq), fact.lease))
        elif isinstance(fact, TermBegan):
            began_ms[fact.token] = commits.committed(fact.seq)
    acks: defaultdict[tuple[int, str], list[Word]] = defaultdict(list)
    revoked: defaultdict[tuple[int, str], list[float]] = defaultdict(list)
    for word in words:
        if word.kind == "ack":
            acks[word.call, word.token].append(word)
        elif word.kind == "revoke":
            for _, lease in word.leases:
                revoked[word.call, lease].append(word.at_ms)
    violations = []
    for (call, token), answers in acks.items():
        for word in answers:
            if word.heard_ms < began_ms.get(token, inf) + _WINDOW_MS:
                continue
            for job, lease in word.leases:
                newer = _newer(given[job], lease, token, word.heard_ms)
                if not newer:
                    continue
                later_ms = _next_ms(answers, word.at_ms + _LATER_MS)
                told = any(word.heard_ms <= ms <= later_ms for ms in revoked[call, lease])
                if later_ms < inf and not told and not commits.any_under_way(later_ms):
                    detail = f"{word.master} let its worker keep {lease}, though it knew {newer}"
                    violations.append(Violation("S5", job, detail))
    return violations


def _newer(given: Sequence[_Given], lease: str, token: str, at_ms: float) -> str:
    """A newer lease of the same job that a term knew at a moment; empty: there was none."""
    known = [one.lease for one in given if one.at_ms < at_ms and token_of(one.lease) <= token]
    newest = max(known, default="")
    return newest if newest > lease else ""


def _next_ms(answers: Sequence[Word], from_ms: float) -> float:
    """When the next answer came on the same stream; infinity: none did."""
    index = bisect_left(answers, from_ms, key=lambda word: word.at_ms)
    return answers[index].at_ms if index < len(answers) else inf
