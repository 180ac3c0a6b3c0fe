"""Walks by themselves: what they give of a lane, whichever way it is kept."""

import random

from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core.record import JobRecord
from tenure.master.core.walk import MergeWalk, RowWalk, SoleWalk, walk_of
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
