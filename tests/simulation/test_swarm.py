"""Random runs of the whole cluster: whatever strikes, the invariants hold; and a seed is a run."""

from __future__ import annotations

import pytest

from tests.simulation.swarm import draw_plan, simulate


@pytest.mark.parametrize("seed", range(12))
def test_random_faults(seed: int) -> None:
    """Whatever strikes: after it, every accepted job ends, once, and all invariants hold."""
    assert simulate(seed).violations == []


def test_a_seed_gives_one_run() -> None:
    """The same seed gives the same history, to the last row and its time."""
    first, second = simulate(4), simulate(4)
    assert first.plan == second.plan == draw_plan(4)
    assert first.rows == second.rows
    assert first.announcements == second.announcements
