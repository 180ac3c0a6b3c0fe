"""Traces through the real core on virtual time: what is predicted can be computed by hand."""

import random
from itertools import pairwise

import pytest

from tenure.master.core.settings import QueueSettings, RateLimit
from tenure.master.whatif.forecast import forecast, waits_of
from tenure.master.whatif.replay import Fate, Fleet, Replay
from tenure.master.whatif.trace import Arrival, read, write
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import LimitStrategy

ONE = Fleet(workers=1, slots=1)
QUEUE = ("default", "default")


def replayed(
    arrivals: list[Arrival],
    fleet: Fleet = ONE,
    *,
    queue: QueueSettings | None = None,
    resolution_ms: int = 1,
) -> list[Fate]:
    """Jobs' fates, in order of arrival."""
    settings = [] if queue is None else [(QUEUE, queue)]
    replay = Replay(arrivals, fleet, settings, resolution_ms=resolution_ms)
    replay.run()
    return [fate for _, fate in replay.jobs]


def starts(fates: list[Fate]) -> list[int | None]:
    """When they started."""
    return [fate.started_ms for fate in fates]


def test_one_slot_runs_one_after_another() -> None:
    """Jobs of one priority start in order of arrival, each when the one before has ended."""
    arrivals = [Arrival(at_ms=1_000 + 10 * place, run_ms=100) for place in range(4)]
    assert starts(replayed(arrivals)) == [0, 100, 200, 300]


@pytest.mark.parametrize(("workers", "slots"), [(1, 2), (3, 1), (4, 2)])
@pytest.mark.parametrize("resolution_ms", [1, 7, 50])
def test_many_slots_are_a_queue_with_many_servers(
    workers: int, slots: int, resolution_ms: int
) -> None:
    """First come, first served by any number of slots: as Kiefer and Wolfowitz's recursion says.

    Runs are too long for workers to hold more jobs than they run. With a coarser clock a start is
    off by less than the resolution for each job in its way.
    """
    draw = random.Random(5)
    at_ms, arrivals, free = 0, [], [0] * (workers * slots)
    expected = []
    for _ in range(300):
        at_ms += draw.randrange(500 // (workers * slots))
        run_ms = draw.randrange(101, 400)
        arrivals.append(Arrival(at_ms=at_ms, run_ms=run_ms))
        free.sort()
        begin_ms = max(at_ms - arrivals[0].at_ms, free[0])
        expected.append(begin_ms)
        free[0] = begin_ms + run_ms
    found = replayed(arrivals, Fleet(workers=workers, slots=slots), resolution_ms=resolution_ms)
    if resolution_ms == 1:
        assert starts(found) == expected
    waits = sum(fate.started_ms - fate.due_ms for fate in found if fate.started_ms is not None)
    first_ms = arrivals[0].at_ms
    right = sum(
        begin_ms - (each.at_ms - first_ms)
        for begin_ms, each in zip(expected, arrivals, strict=True)
    )
    assert abs(waits - right) <= resolution_ms * len(arrivals)


@pytest.mark.parametrize("spread_ms", [40, 100, 400, 5_000])
def test_jobs_far_apart_go_in_strides_and_start_as_if_one_by_one(spread_ms: int) -> None:
    """Quiet hours and rushes in turn: each start is that of the recursion to the millisecond."""
    draw = random.Random(spread_ms)
    at_ms, arrivals, free, expected = 0, [], [0] * 8, []
    for place in range(400):
        at_ms += draw.randrange(spread_ms if place % 100 < 80 else 5)
        run_ms = draw.randrange(101, 400)
        arrivals.append(Arrival(at_ms=at_ms, run_ms=run_ms))
        free.sort()
        begin_ms = max(at_ms - arrivals[0].at_ms, free[0])
        expected.append(begin_ms)
        free[0] = begin_ms + run_ms
    found = replayed(arrivals, Fleet(workers=4, slots=2))
    assert starts(found) == expected
    assert all(fate.ended_ms is not None for fate in found)


def test_a_higher_priority_goes_first_and_delays_count_from_when_they_end() -> None:
    """The critical job overtakes those that wait; a delayed one waits from when it was due."""
    arrivals = [
        Arrival(at_ms=0, run_ms=100),
        Arrival(at_ms=1, run_ms=100),
        Arrival(at_ms=2, run_ms=100, priority=0),
        Arrival(at_ms=3, run_ms=100, priority=0, delay_ms=150),
    ]
    found = replayed(arrivals)
    assert starts(found) == [0, 300, 100, 200]
    assert found[3].due_ms == 153


def test_workers_of_short_jobs_hold_some_more() -> None:
    """As real ones do: 50 ms of work in advance, which others overtake no more."""
    short = [Arrival(at_ms=0, run_ms=10) for _ in range(8)]
    found = replayed([*short, Arrival(at_ms=15, run_ms=10, priority=0)])
    assert starts(found) == [0, 10, 20, 30, 40, 50, 60, 80, 70]


def test_limits_of_queues_hold() -> None:
    """At most so many at once, and at most so many in a time, whatever is free."""
    arrivals = [Arrival(at_ms=0, run_ms=100) for _ in range(4)]
    room = Fleet(workers=1, slots=10)
    limited = QueueSettings(concurrency=2)
    assert starts(replayed(arrivals, room, queue=limited)) == [0, 0, 100, 100]
    rated = QueueSettings(rate=RateLimit(1, 1_000, 1))
    begun = [at_ms for at_ms in starts(replayed(arrivals, room, queue=rated)) if at_ms is not None]
    gaps = [later - earlier for earlier, later in pairwise(begun)]
    assert gaps == [1_000] * 3


def test_a_full_keys_strategy_is_the_cores() -> None:
    """CANCEL_IN_PROGRESS: a newer job of the key takes the place at once; the older one stops."""
    arrivals = [Arrival(at_ms=at_ms, run_ms=100, limit_key="k") for at_ms in (0, 30)]
    strategy = LimitStrategy.CANCEL_IN_PROGRESS
    found = replayed(arrivals, queue=QueueSettings(key_concurrency=1, key_strategy=strategy))
    assert starts(found) == [0, 30]
    assert found[0].ended_ms == 30


def test_what_nobody_may_run_never_starts() -> None:
    """A label that no worker has, and a paused queue: the replay ends all the same."""
    arrivals = [
        Arrival(at_ms=0, run_ms=10, requires={"gpu": ["true"]}),
        Arrival(at_ms=0, run_ms=10, requires={"gpu": []}),
    ]
    assert starts(replayed(arrivals)) == [None, None]
    fitting = Fleet(workers=1, slots=2, labels=(("gpu", "true"),))
    assert starts(replayed(arrivals, fitting)) == [0, 0]
    assert starts(replayed([Arrival(at_ms=0, run_ms=1)], queue=QueueSettings(paused=True))) == [
        None
    ]


def test_a_full_queue_refuses() -> None:
    """A depth limit refuses by its reason, and the forecast counts it."""
    arrivals = [Arrival(at_ms=0, run_ms=100), *(Arrival(at_ms=1, run_ms=100) for _ in range(3))]
    found = forecast(arrivals, ONE, [(QUEUE, QueueSettings(depth_max=2))])
    (only,) = found.classes
    assert only.refused == {Reason.QUEUE_FULL: 1}
    assert (only.jobs, only.started, found.unstarted) == (4, 3, 1)


def test_a_setting_that_cannot_be_is_refused_with_its_path() -> None:
    """By the core's own rules."""
    with pytest.raises(Rejected) as caught:
        Replay([], ONE, [(QUEUE, QueueSettings(weight=0.0))])
    assert caught.value.field == "settings.weight"


def test_forecast_adds_up() -> None:
    """Waits by queue and priority, the share of time in which slots were busy, and the backlog."""
    arrivals = [Arrival(at_ms=0, run_ms=100, wait_ms=place) for place in range(4)]
    arrivals.append(Arrival(at_ms=0, run_ms=0, queue="b", priority=9))
    found = forecast(arrivals, Fleet(workers=1, slots=2))
    first, second = sorted(found.classes, key=lambda each: each.queue, reverse=True)
    assert first.waits is not None
    assert first.waits.max == 100
    assert first.measured == (1, 3, 3, 3, 3)
    assert (second.queue, second.priority, second.measured) == ("b", 9, None)
    assert found.utilisation == pytest.approx(1.0, abs=0.02)
    assert found.span_ms == 200
    assert found.backlog[0] == (0, 3)
    assert found.backlog[-1] == (200, 0)


def test_of_nothing_nothing_is_said() -> None:
    """An empty trace has a forecast, too."""
    found = forecast([], ONE)
    assert (found.jobs, found.classes, found.backlog, found.utilisation) == (0, [], [], 0.0)


def test_percentiles_are_by_nearest_rank() -> None:
    """The least value that so many in a hundred do not exceed."""
    assert waits_of([]) is None
    assert waits_of([7]) == (7, 7, 7, 7, 7)
    assert waits_of(list(range(1, 201))) == (100, 180, 190, 198, 200)


def test_traces_are_read_as_they_were_written() -> None:
    """Lines in order of arrival, defaults left out, unknown fields and bad values refused."""
    arrivals = [
        Arrival(at_ms=5, run_ms=1, requires={"zone": ["eu", "us"]}, wait_ms=0),
        Arrival(at_ms=2, run_ms=1),
    ]
    lines = list(write(arrivals))
    assert lines[0] == b'{"at_ms":2,"run_ms":1}\n'
    assert read([b"", *lines], "t") == [arrivals[1], arrivals[0]]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "truncated"),
        (b'{"run_ms":1}', "at_ms"),
        (b'{"at_ms":1,"run_ms":-1}', "run_ms"),
        (b'{"at_ms":1,"run_ms":1,"priority":11}', "priority"),
        (b'{"at_ms":1,"run_ms":1,"queue":""}', "queue"),
        (b'{"at_ms":1,"run_ms":1,"quue":"a"}', "quue"),
        (b"\xff", ""),
    ],
)
def test_a_line_that_is_no_job_is_named(line: bytes, why: str) -> None:
    """The file, the line's number from 1, and what is wrong."""
    with pytest.raises(Rejected, match=r"t\.jsonl:2") as caught:
        read([b'{"at_ms":1,"run_ms":1}', line], "t.jsonl")
    assert why in caught.value.message
    assert caught.value.field == "trace[2]"
