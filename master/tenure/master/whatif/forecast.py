"""What a replay says: how long jobs waited, how busy the slots were, how much was waiting when."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Final, NamedTuple, TypeAlias

import msgspec

from tenure.master.core.settings import AnySettings, SettingsKey
from tenure.master.whatif.replay import Fate, Fleet, Replay
from tenure.master.whatif.trace import Arrival

#: Points in time at which what waits is counted.
_POINTS: Final = 40
#: A run's end is told apart from others at a twentieth of what runs take, at 50 ms at most.
_RUN_PARTS: Final = 20
_RESOLUTION_MS_MAX: Final = 50

_Jobs: TypeAlias = Sequence[tuple[Arrival, Fate]]


class Waits(NamedTuple):
    """Waiting times in milliseconds: each is the least that so many in a hundred did not exceed."""

    p50: int
    p90: int
    p95: int
    p99: int
    max: int


class ClassForecast(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one queue and priority.

    Attributes:
        jobs: How many there were.
        started: How many of them started.
        waits: Of those that started; None: none did.
        measured: What the trace says of all of them; None: it does not.
        refused: How many submits were refused, by reason.
    """

    tenant: str
    queue: str
    priority: int
    jobs: int
    started: int
    waits: Waits | None
    measured: Waits | None
    refused: dict[str, int]


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a trace.

    Attributes:
        span_ms: From the first arrival until all had ended.
        utilisation: The share of that time, of all slots, in which jobs ran.
        jobs: How many jobs the trace has.
        unstarted: How many never started: refused, cancelled, paused, or no worker fits.
        classes: By tenant, queue and priority.
        backlog: (when, how many jobs were due and had not started), evenly spread.
    """

    span_ms: int
    utilisation: float
    jobs: int
    unstarted: int
    classes: list[ClassForecast]
    backlog: list[tuple[int, int]]


def forecast(
    arrivals: Sequence[Arrival],
    fleet: Fleet,
    settings: Sequence[tuple[SettingsKey, AnySettings]] = (),
) -> Forecast:
    """Replays a trace.

    Raises:
        Rejected: A setting cannot be.
    """
    resolution_ms = 1
    if arrivals:
        typical_ms = int(median(each.run_ms for each in arrivals))
        resolution_ms = min(max(typical_ms // _RUN_PARTS, 1), _RESOLUTION_MS_MAX)
    replay = Replay(arrivals, fleet, settings, resolution_ms=resolution_ms)
    replay.run()
    return summary(replay.jobs, fleet)


def summary(jobs: _Jobs, fleet: Fleet) -> Forecast:
    """What jobs' fates come to, all together."""
    groups: dict[tuple[str, str, int], list[tuple[Arrival, Fate]]] = {}
    busy_ms = span_ms = started = 0
    for arrival, fate in jobs:
        key = (arrival.tenant, arrival.queue, arrival.priority)
        groups.setdefault(key, []).append((arrival, fate))
        if fate.started_ms is not None and fate.ended_ms is not None:
            started += 1
            busy_ms += fate.ended_ms - fate.started_ms
            span_ms = max(span_ms, fate.ended_ms)
    room_ms = span_ms * fleet.workers * fleet.slots
    return Forecast(
        span_ms=span_ms,
        utilisation=busy_ms / room_ms if room_ms else 0.0,
        jobs=len(jobs),
        unstarted=len(jobs) - started,
        classes=[_class(key, groups[key]) for key in sorted(groups)],
        backlog=_backlog(jobs, span_ms),
    )


def waits_of(times_ms: Sequence[int]) -> Waits | None:
    """Percentiles by nearest rank; None: of nothing."""
    if not times_ms:
        return None
    ordered = sorted(times_ms)
    ranks = [-(-len(ordered) * percent // 100) - 1 for percent in (50, 90, 95, 99, 100)]
    return Waits(*(ordered[rank] for rank in ranks))


def _class(key: tuple[str, str, int], jobs: _Jobs) -> ClassForecast:
    tenant, queue, priority = key
    waits = [fate.started_ms - fate.due_ms for _, fate in jobs if fate.started_ms is not None]
    known = [arrival.wait_ms for arrival, _ in jobs if arrival.wait_ms is not None]
    return ClassForecast(
        tenant=tenant,
        queue=queue,
        priority=priority,
        jobs=len(jobs),
        started=len(waits),
        waits=waits_of(waits),
        measured=waits_of(known) if len(known) == len(jobs) else None,
        refused=dict(Counter(fate.refused for _, fate in jobs if fate.refused)),
    )


def _backlog(jobs: _Jobs, span_ms: int) -> list[tuple[int, int]]:
    """How many were due and had not started; those that never do are left out."""
    begun = [fate for _, fate in jobs if fate.started_ms is not None]
    due = sorted(fate.due_ms for fate in begun)
    started = sorted(fate.started_ms for fate in begun if fate.started_ms is not None)
    points = [span_ms * point // _POINTS for point in range(_POINTS + 1)] if begun else []
    return [(at_ms, bisect_right(due, at_ms) - bisect_right(started, at_ms)) for at_ms in points]
