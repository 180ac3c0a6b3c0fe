"""R1: memory, file descriptors, tasks, database size and backlog return to base.

The base of a process is the median of what it held before the first fault, and it is compared with
the median of its last samples. What is kept on purpose (finished jobs are, for a while) is for the
harness to allow for: it samples when the load is the same, and states what else it expects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Final

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


def check_resources(
    samples: Iterable[Sample],
    faults: Sequence[FaultWindow],
    *,
    allowed: Mapping[str, tuple[float, int]] = ALLOWED,
) -> list[Violation]:
    """Compare, by process name and measure; too few samples claim nothing."""
    if not faults:
        return []
    first_ms = min(fault.since_ms for fault in faults)
    by_process: dict[str, list[Sample]] = {}
    for sample in samples:
        by_process.setdefault(sample.process, []).append(sample)
    violations = []
    for process, found in by_process.items():
        for measure, (share, amount) in allowed.items():
            before = _values(measure, [sample for sample in found if sample.at_ms < first_ms])
            after = _values(measure, [sample for sample in found if sample.at_ms >= first_ms])
            if min(len(before), len(after)) < SAMPLES_MIN:
                continue
            base, now = median(before), median(after[-SAMPLES_MIN:])
            if now > base * (1 + share) + amount:
                detail = f"{measure} was {base:.0f} before the faults and is {now:.0f} at the end"
                violations.append(Violation("R1", process, detail))
    return violations


def _values(measure: str, samples: Iterable[Sample]) -> list[int]:
    """What was measured of it."""
    values = [getattr(sample, measure) for sample in samples]
    return [value for value in values if value >= 0]
