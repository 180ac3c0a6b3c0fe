"""The lines that a benchmark prints: what was measured, the target, and whether it was met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One measured figure.

    Attributes:
        what: In words.
        value: With its unit.
        target: With its unit; empty if there is none.
        met: None if there is no target.
        breaks: It is about correctness: a miss fails the whole benchmark.
    """

    what: str
    value: str
    target: str = ""
    met: bool | None = None
    breaks: bool = False

    @property
    def verdict(self) -> str:
        """`ok`, `MISS` or nothing."""
        return "" if self.met is None else "ok" if self.met else "MISS"


def at_most(what: str, value: float, limit: float, unit: str, *, digits: int = 1) -> Line:
    """A figure that should be no higher than a limit."""
    return Line(
        what=what,
        value=f"{value:,.{digits}f} {unit}",
        target=f"≤ {limit:g} {unit}",
        met=value <= limit,
    )


def at_least(what: str, value: float, limit: float, unit: str, *, digits: int = 0) -> Line:
    """A figure that should be no lower than a limit."""
    return Line(
        what=what,
        value=f"{value:,.{digits}f} {unit}".rstrip(),
        target=f"≥ {limit:,g} {unit}".rstrip(),
        met=value >= limit,
    )


def print_lines(title: str, lines: Sequence[Line]) -> None:
    """Prints one measurement's block."""
    print(f"\n{title}")
    for line in lines:
        print(f"  {line.what:44}{line.value:>34}  {line.target:14}{line.verdict}".rstrip())
    print(end="", flush=True)
