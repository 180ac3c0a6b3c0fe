"""What a pace is judged by."""

from __future__ import annotations

from tests.oracles.pace import most_within, ramp_allows


def test_the_ramp_grows_from_a_few_grants_to_any_number() -> None:
    """64 come at once; after 5 s at a rate that has doubled meanwhile there is no bound."""
    assert ramp_allows(0.0) == 64
    assert ramp_allows(1.0) == 64 + 2_400
    assert ramp_allows(4.999) > 19_000
    assert ramp_allows(5.0) == float("inf")


def test_the_fullest_window_is_counted() -> None:
    """Its ends belong to it, and the order of the moments does not matter."""
    assert most_within([], 1.0) == 0
    assert most_within([5.0, 1.0, 2.0, 1.5, 9.0], 1.0) == 3
    assert most_within([0.0, 2.0, 4.0], 1.0) == 1
