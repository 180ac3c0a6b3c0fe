"""R1: memory, file descriptors, tasks, database size and backlog return to base.

The base of a process is the median of what it held before the first fault, and it is compared with
the median of its last samples. What is kept on purpose (finished jobs are, for a while) is for the
harness to allow for: it samples when the load is the same, and states what else it expects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

from tests.oracles.evidence import FaultWindow, Sample
from tests.oracles.verdict import Violation

#: How much more than its base each may be: a share of the base, and an amount.
ALLOWED: Final[Mapping[str, tuple[float, int]]] = {
    "memory_bytes": (0.5, 64 << 20),
    "descriptors": (0.25, 16),
    "tasks": (0.25, 16),
    "store_bytes": (1.0, 64 << 20),
    "backlog": (0.0, 16),
}
SAMPLES_MIN: Final = 3


class Held(NamedTuple):
    """What a process held of something before the first fault and at the end; its medians."""

    process: str
    measure: str
    base: float
    now: float


def compare(samples: Iterable[Sample], faults: Sequence[FaultWindow]) -> list[Held]:
    """By process and measure, wherever there are enough samples of both times."""
    if not faults:
        return []
    first_ms = min(fault.since_ms for fault in faults)
    by_process: dict[str, list[Sample]] = {}
    for sample in samples:
        by_process.setdefault(sample.process, []).append(sample)
    held = []
    for process, found in by_process.items():
        for measure in ALLOWED:
            before = _values(measure, [sample for sample in found if sample.at_ms < first_ms])
            after = _values(measure, [sample for sample in found if sample.at_ms >= first_ms])
            if min(len(before), len(after)) >= SAMPLES_MIN:
                last = after[-SAMPLES_MIN:]
                held.append(Held(process, measure, median(before), median(last)))
    return held


def check_resources(
    samples: Iterable[Sample],
    faults: Sequence[FaultWindow],
    *,
    kept: Mapping[tuple[str, str], int],
    allowed: Mapping[str, tuple[float, int]] = ALLOWED,
) -> list[Violation]:
    """Compare; too few samples claim nothing.

    Args:
        samples: In the order of time.
        faults: All that there were.
        kept: By process and measure: how much more than its base it may hold, for what it keeps on
            purpose.
        allowed: How much more besides.
    """
    violations = []
    for held in compare(samples, faults):
        share, amount = allowed[held.measure]
        own = kept.get((held.process, held.measure), 0)
        if held.now > held.base * (1 + share) + amount + own:
            detail = f"{held.measure} was {held.base:.0f} before the faults"
            detail += f" and is {held.now:.0f} at the end"
            violations.append(Violation("R1", held.process, detail))
    return violations


def _values(measure: str, samples: Iterable[Sample]) -> list[int]:
    """What was measured of it."""
    values = [getattr(sample, measure) for sample in samples]
    return [value for value in values if value >= 0]
