"""Credit: how many grants each master may send, so that all together never overfill the worker.

A stream's limit is cumulative and numbered: "you may have sent ``limit`` grants in all". Raising it
takes effect at once for our books; lowering it only when the master has acked its number, because
grants under the old limit may be on their way.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple


class SentLimit(NamedTuple):
    """A limit on its way: number, limit, and when it was sent."""

    number: int
    limit: int
    sent_ms: int


class CreditLine:
    """One stream's credit.

    Attributes:
        granted: Grants received on the stream, dropped ones included.
        limit: What the master should have; sent with the next envelope if it is news.
    """

    def __init__(self) -> None:
        self.granted = 0
        self.limit = 0
        self._number = 0
        self._sent = SentLimit(0, 0, 0)
        self._acked_limit = 0
        self._unacked: deque[SentLimit] = deque()

    @property
    def unspent(self) -> int:
        """The most grants that may still come: by any limit the master may go by."""
        limit = max(self.limit, self._acked_limit)
        for sent in self._unacked:
            limit = max(limit, sent.limit)
        return max(0, limit - self.granted)

    @property
    def oldest_unacked_ms(self) -> int | None:
        """When the oldest limit that the master has not acked was sent."""
        return self._unacked[0].sent_ms if self._unacked else None

    @property
    def wanted(self) -> int:
        """What will be unspent once the master has acked everything."""
        return max(0, self.limit - self.granted)

    def offer(self, unspent: int) -> None:
        """Sets how many grants may come from now on."""
        self.limit = self.granted + unspent

    @property
    def silent(self) -> bool:
        """Whether the master was sent the limit that it should have."""
        return self.limit == self._sent.limit

    def news(self, now_ms: int) -> SentLimit | None:
        """The limit to send, if the master does not have it."""
        if self.silent:
            return None
        self._number += 1
        self._sent = SentLimit(self._number, self.limit, now_ms)
        self._unacked.append(self._sent)
        return self._sent

    def ack(self, number: int) -> SentLimit | None:
        """The master goes by limit ``number`` now. Returns the newest limit acked by this."""
        newest = None
        while self._unacked and self._unacked[0].number <= number:
            newest = self._unacked.popleft()
            self._acked_limit = newest.limit
        return newest


class Claim(NamedTuple):
    """A stream that wants credit.

    Attributes:
        line: Its credit.
        backlog: The ready jobs behind it, as far as its master has said.
        turn: Rises with each grant on it: the lowest has waited longest.
    """

    line: CreditLine
    backlog: int
    turn: int = 0


def split(pool: int, claims: Sequence[Claim]) -> list[int]:
    """Shares of the pool: one each, the rest by backlog (evenly if nobody has any).

    A pool smaller than the number of streams goes to those with a backlog in turn, then to others.
    """
    count = len(claims)
    if not count:
        return []
    if pool < count:
        order = sorted(range(count), key=lambda i: (not claims[i].backlog, claims[i].turn, i))
        lucky = set(order[:pool])
        return [1 if index in lucky else 0 for index in range(count)]
    weights = [claim.backlog for claim in claims]
    if not any(weights):
        weights = [1] * count
    rest, total = pool - count, sum(weights)
    shares = [1 + rest * weight // total for weight in weights]
    shares[max(range(count), key=weights.__getitem__)] += pool - sum(shares)
    return shares


def distribute(pool: int, claims: Sequence[Claim]) -> None:
    """Moves every line toward its share without ever exceeding the pool.

    Lines are lowered when the pool has shrunk below what they have, or when another one goes short
    for it: then by a quarter at least, so that small changes of backlogs do not send limits to and
    fro.
    """
    shares = split(pool, claims)
    overdrawn = sum(claim.line.wanted for claim in claims) > pool
    short = _raise(pool, claims, shares)
    lowered = False
    for claim, share in zip(claims, shares, strict=True):
        excess = claim.line.wanted - share
        if excess > 0 and (overdrawn or (short and excess * 4 >= claim.line.wanted)):
            claim.line.offer(share)
            lowered = True
    if lowered:
        # A limit that was never sent is free at once.
        _raise(pool, claims, shares)


def _raise(pool: int, claims: Sequence[Claim], shares: Sequence[int]) -> bool:
    """Raises lines as far as the pool goes. Returns whether one went short."""
    free = pool - sum(claim.line.unspent for claim in claims)
    short = False
    for claim, share in zip(claims, shares, strict=True):
        line = claim.line
        missing = share - line.wanted
        if missing <= 0:
            continue
        # Taking a lowered limit back costs nothing: the master may still go by the higher one.
        within = min(missing, line.unspent - line.wanted)
        extra = max(0, min(missing - within, free))
        free -= extra
        line.offer(line.wanted + within + extra)
        short = short or within + extra < missing
    return short
