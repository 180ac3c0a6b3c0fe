"""Timers: due things in order, nothing changed by looking."""

from dataclasses import dataclass
from operator import itemgetter

from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core.timer import Timers


@dataclass
class Thing:
    """Something with a next time."""

    name: str
    due_ms: int | None


def timers_of(times: list[int]) -> Timers[Thing]:
    """Timers with one thing for each time."""
    timers: Timers[Thing] = Timers(lambda thing: thing.due_ms, lambda thing: thing.name, lambda: 2)
    for index, due_ms in enumerate(times):
        timers.arm(Thing(str(index), due_ms))
    return timers


@given(times=st.lists(st.integers(0, 20)), now_ms=st.integers(0, 20), limit=st.integers(1, 30))
def test_due_is_sorted_limited_and_pure(times: list[int], now_ms: int, limit: int) -> None:
    """Due things come earliest first, ties in the order of arming; looking changes nothing."""
    timers = timers_of(times)
    due = sorted((at, index) for index, at in enumerate(times) if at <= now_ms)[:limit]
    for _ in range(2):
        found, mark = timers.due(now_ms, limit)
        assert [int(thing.name) for thing in found] == [index for _, index in due]
    assert [thing.name for thing in timers.take(mark)] == [thing.name for thing in found]
    assert len(timers) == len(times) - len(due)


def test_things_that_want_nothing_are_not_armed() -> None:
    """A thing without a next time has no entry."""
    timers = timers_of([])
    timers.arm(Thing("never", None))
    assert timers.next_ms() is None
    assert timers.take(None) == []


def test_thinning_keeps_the_earliest_entry_of_what_still_waits() -> None:
    """Entries of things that want nothing, and later ones of the same thing, are dropped."""
    timers = timers_of([])
    waiting = Thing("waiting", 5)
    for index in range(3_000):
        gone = Thing(str(index), 1)
        timers.arm(gone)
        gone.due_ms = None
        timers.arm_at(waiting, 5 + index)
    assert len(timers) < 1_200
    assert min(due for due, thing in timers.things() if thing is waiting) == 5


def test_entries_are_thinned_out_once_they_are_too_many() -> None:
    """Twice as many entries as things are usual, and some more do not matter; then they go.

    A few go whenever something is armed: however many there are, nobody is held up.
    """
    things = 500
    timers: Timers[Thing] = Timers(
        lambda thing: thing.due_ms, lambda thing: thing.name, lambda: things
    )
    gone, most = Thing("gone", None), 2 * things + 1_024
    for _ in range(most):
        timers.arm_at(gone, 1)
    assert len(timers) == most
    timers.arm_at(gone, 1)
    for arms in range(1, 11):
        timers.arm_at(gone, 1)
        assert most + 1 - 4 * arms <= len(timers) <= most + 1 - arms
    for _ in range(most):
        timers.arm_at(gone, 1)
    assert len(timers) <= most


STEPS = st.lists(
    st.tuples(st.integers(0, 5), st.none() | st.integers(0, 30), st.booleans()), max_size=150
)


@given(steps=STEPS)
def test_what_waits_is_looked_at_in_time_while_entries_are_thinned_out(
    steps: list[tuple[int, int | None, bool]],
) -> None:
    """Whatever is armed, taken or given up: whoever wants to be looked at has an entry by then.

    What is due is found in order, whether its entry was looked through yet or not.
    """
    # So few things that there are always too many entries.
    timers: Timers[Thing] = Timers(
        lambda thing: thing.due_ms, lambda thing: thing.name, lambda: -505
    )
    things = [Thing(str(index), None) for index in range(6)]
    now_ms = 0
    for index, due_ms, fires in steps:
        thing = things[index]
        thing.due_ms = due_ms
        timers.arm(thing)
        if fires:
            now_ms += 3
            found, mark = timers.due(now_ms, 3)
            armed = sorted(timers.things(), key=itemgetter(0))
            assert len(found) == len([due for due, _ in armed if due <= now_ms][:3])
            assert timers.take(mark) == found
            for each in found:
                timers.arm(each)
        for each in things:
            due = [at for at, armed in timers.things() if armed is each]
            assert each.due_ms is None or min(due) <= each.due_ms
    first = min([due for due, _ in timers.things()], default=None)
    assert timers.next_ms() == first
