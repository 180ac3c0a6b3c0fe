"""What a rate lets through, said with fractions of tokens; the core's own bucket unused."""

from fractions import Fraction

from tenure.master.core.settings import RateLimit


class Tokens:
    """A bucket of tokens that was empty at a time.

    Args:
        rate: What fills it; None: it never wants for one.
        at_ms: That time.
    """

    def __init__(self, rate: RateLimit | None, at_ms: int) -> None:
        self.rate = rate
        self.tokens = Fraction(0)
        self._at_ms = at_ms

    def pass_to(self, now_ms: int) -> None:
        """Time passes."""
        if self.rate is not None:
            gained = Fraction(self.rate.count * (now_ms - self._at_ms), self.rate.per_ms)
            self.tokens = min(self.tokens + gained, Fraction(self.rate.burst))
        self._at_ms = now_ms

    def has_one(self) -> bool:
        """Whether something may be granted."""
        return self.rate is None or self.tokens >= 1

    def take(self) -> None:
        """Something is granted."""
        self.tokens -= 1
