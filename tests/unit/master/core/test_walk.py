"""Walks by themselves: what they give of a lane, whichever way it is kept."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core.record import JobRecord
from tenure.master.core.walk import MergeWalk, RowWalk, SoleWalk, Walk, walk_of
from tests.unit.master.core.test_ready import lane_of, leave, push

#: Behind every (key, ordinal).
END = (1 << 62, 0)


@given(st.integers(0, 1 << 32), st.integers(1, 40))
def test_a_walk_gives_what_has_committed_in_order(seed: int, turns: int) -> None:
    """Whatever came in which order, and whoever left from wherever; and never beyond its bound."""
    rng = random.Random(seed)
    lane = lane_of()
    there: list[tuple[int, int, JobRecord]] = []
    ordinals = rng.sample(range(1_000), 4 * turns)
    in_order = rng.random() < 0.5
    for seq in range(1, turns + 1):
        key = seq if in_order else rng.randrange(6)
        own = sorted(ordinals.pop() for _ in range(rng.randint(1, 4)))
        there += [(key, record.ordinal, record) for record in push(lane, key, seq, *own)]
        gone = rng.sample(there, rng.randrange(len(there)))
        if gone:
            leave(lane, *[record for *_, record in gone])
        there = sorted(at for at in there if at not in gone)
    committed_seq = rng.randint(0, turns)
    walk = walk_of(lane, committed_seq)
    expected = [at for at in there if at[2].seq <= committed_seq]
    while expected:
        assert walk.front == expected[0][:2]
        limit = rng.randint(1, 3)
        bound = rng.choice([END, *[at[:2] for at in expected[1:]]])
        taken = walk.take(limit, bound)
        assert 1 <= len(taken) <= limit
        assert taken == [record for *_, record in expected[: len(taken)]]
        assert all(at[:2] < bound for at in expected[: len(taken)])
        expected = expected[len(taken) :]
    assert walk.front is None


def test_how_a_lane_is_kept_decides_how_it_is_walked() -> None:
    """One job needs the least; and only what came out of order needs a merge."""
    lane = lane_of()
    (first,) = push(lane, 5, 1, 1)
    assert isinstance(walk_of(lane, 1), SoleWalk)
    push(lane, 5, 2, 2)
    assert isinstance(walk_of(lane, 2), RowWalk)
    push(lane, 1, 3, 3)
    assert isinstance(walk_of(lane, 3), MergeWalk)
    leave(lane, first)
    assert isinstance(walk_of(lane, 3), MergeWalk)


def taken(walk: Walk, limit: int, bound: tuple[int, int] = END) -> list[int]:
    """The ordinals of the jobs that a walk gives at once."""
    return [record.ordinal for record in walk.take(limit, bound)]


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        ((1, 2), [2]),
        ((1, 3), [2]),
        ((1, 5), [2, 3]),
        ((1, 6), [2, 3, 5]),
        ((2, 0), [2, 3, 5]),
        ((2, 3), [2, 3, 5]),
        ((3, 1), [2, 3, 5]),
    ],
)
def test_a_bound_is_a_place_behind_what_is_taken(
    bound: tuple[int, int], expected: list[int]
) -> None:
    """Before it come smaller ordinals of its key and all of smaller keys; the first job always."""
    whole, holed, merged = lane_of(), lane_of(), lane_of()
    push(whole, 1, 1, 2, 3, 5)
    records = push(holed, 1, 1, 2, 3, 4, 5)
    leave(holed, records[2])
    push(merged, 9, 1, 1)
    push(merged, 1, 2, 2, 3, 5)
    push(merged, 5, 2, 9)
    for lane, kind in ((whole, RowWalk), (holed, RowWalk), (merged, MergeWalk)):
        walk = walk_of(lane, 2)
        assert isinstance(walk, kind)
        assert taken(walk, 3, bound) == expected


def test_what_has_not_committed_hides_nothing_behind_it() -> None:
    """Neither in the row, where jobs that come late may be old, nor from what is out of order."""
    lane = lane_of()
    push(lane, 1, 3, 1)
    push(lane, 2, 1, 2)
    assert walk_of(lane, 2).front == (2, 2)
    mixed = lane_of()
    push(mixed, 2, 3, 2)
    push(mixed, 1, 1, 1)
    walk = walk_of(mixed, 2)
    assert (walk.front, taken(walk, 9), walk.front) == ((1, 1), [1], None)


def test_a_run_ends_where_another_has_the_next_job() -> None:
    """What came out of order may lie within one another, and within the row."""
    lane = lane_of()
    push(lane, 2, 1, 5, 9)
    push(lane, 1, 2, 1, 3)
    push(lane, 1, 3, 2, 4)
    push(lane, 2, 4, 4, 6)
    walk = walk_of(lane, 4)
    runs = []
    while walk.front is not None:
        runs.append(taken(walk, 9))
    assert runs == [[1], [2], [3], [4], [4], [5], [6], [9]]


def test_all_that_came_out_of_order_is_found() -> None:
    """However many: the more of them, the deeper they lie."""
    lane = lane_of()
    push(lane, 99, 1, 99)
    for ordinal in reversed(range(1, 32)):
        push(lane, ordinal, 2, ordinal)
    walk = walk_of(lane, 2)
    assert [taken(walk, 1) for _ in range(32)] == [[n] for n in (*range(1, 32), 99)]
