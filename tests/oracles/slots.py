"""S22: no more jobs run at once on a worker than it has slots, but for those that it has given up.

Code that was asked to stop and goes on says so (``DEFY``). Its attempt is given up when its grace
is over: the slot is another job's from then on, and the code counts no more, whenever it ends. By
the shortest grace and the fastest clock that is two thirds of a second later; until then it counts.

A worker that has given up more than it puts up with takes nothing more: it ends, to be started
again. That is claimed of code that was asked so long ago that it was given up for certain, by the
longest grace; time in which something was wrong with the worker does not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Final

from tests.oracles.evidence import Capacity, FaultWindow
from tests.oracles.history import DEFY, END, QUIT, START, Row
from tests.oracles.overlaps import hit_ms
from tests.oracles.verdict import Violation

#: How long a worker waits for code that it has asked to stop: when it is about to end itself, by a
#: clock that is half as fast again (and read in whole milliseconds), and else.
GRACE_MIN_MS: Final = 1_000 / 1.5 - 50
GRACE_MAX_MS: Final = 5_000
#: How long it may take from one thing to the next inside a worker.
_REACTION_MS: Final = 1_000


def check_slots(
    rows: Iterable[Row],
    faults: Sequence[FaultWindow],
    capacity: Capacity | None,
    by_worker: Mapping[str, Capacity],
) -> list[Violation]:
    """Each start, with what else runs in its process.

    Args:
        rows: The history, in order.
        faults: All that there were.
        capacity: Of workers that have none of their own; None: nothing is claimed of them.
        by_worker: Of workers by name.
    """
    violations: list[Violation] = []
    #: By process and lease: since when its code defies; infinity: it does not.
    running: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        here = running[row.incarnation]
        if row.f == START:
            here[row.lease] = inf
            own = by_worker.get(row.process, capacity)
            if own is not None:
                violations += _begun(row, here, faults, own)
        elif row.f == DEFY and here.get(row.lease) == inf:
            here[row.lease] = row.boottime
        elif row.f in (END, QUIT):
            here.pop(row.lease, None)
    return violations


def _begun(
    row: Row, here: Mapping[str, float], faults: Sequence[FaultWindow], own: Capacity
) -> Iterator[Violation]:
    """What is wrong with a start, with what runs in its process from then on."""
    slots, lost_max = own
    counted = sum(row.boottime < since_ms + GRACE_MIN_MS for since_ms in here.values())
    if counted > slots:
        detail = f"{row.process} ran {counted} jobs at once, and has {slots} slots"
        yield Violation("S22", row.job, detail)
    enough_ms = GRACE_MAX_MS + _REACTION_MS
    lost = sum(_past_ms(faults, row, since_ms) > enough_ms for since_ms in here.values())
    if lost > lost_max:
        yield Violation("S22", row.job, f"{row.process} began it, with {lost} slots lost by then")


def _past_ms(faults: Iterable[FaultWindow], row: Row, since_ms: float) -> float:
    """How much time a process has had since then in which nothing was wrong with it."""
    if since_ms == inf:
        return 0.0
    return row.boottime - since_ms - hit_ms(faults, row.process, since_ms, row.boottime)


def given_up(rows: Iterable[Row]) -> int:
    """How many attempts went on for longer than any grace, as far as their processes tell."""
    since: dict[tuple[str, str], Row] = {}
    last_ms: dict[str, float] = {}
    count = 0
    for row in rows:
        attempt = row.job, row.lease
        last_ms[row.incarnation] = row.boottime
        if row.f == DEFY:
            since.setdefault(attempt, row)
        elif row.f in (END, QUIT) and attempt in since:
            count += row.boottime - since.pop(attempt).boottime > GRACE_MAX_MS
    return count + sum(
        last_ms[asked.incarnation] - asked.boottime > GRACE_MAX_MS for asked in since.values()
    )
