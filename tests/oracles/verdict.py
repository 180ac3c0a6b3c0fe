"""What a checker answers: nothing, or every way in which an invariant does not hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Violation(NamedTuple):
    """One way in which an invariant does not hold.

    Attributes:
        invariant: Its id in the list of invariants, for example ``S1``.
        subject: The job, batch or key it is about.
        detail: What was found.
    """

    invariant: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.subject}: {self.detail}"


class InvariantBroken(AssertionError):
    """A run broke an invariant; the message lists the first violations of each kind."""


def require(violations: Iterable[Violation]) -> None:
    """Raise if there is any violation."""
    found = list(violations)
    if not found:
        return
    shown = "\n".join(str(violation) for violation in found[:20])
    raise InvariantBroken(f"{len(found)} violations, the first of them:\n{shown}")
