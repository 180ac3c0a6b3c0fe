"""Ranges of keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.backend.etcd.keyspace import ClusterKeys
from tenure.master.backend.etcd.operation import prefix_end


@given(st.binary(min_size=1), st.binary(min_size=1))
def test_a_prefix_range_holds_exactly_what_starts_with_it(prefix: bytes, key: bytes) -> None:
    """``key`` lies in the range if and only if it starts with ``prefix``."""
    end = prefix_end(prefix)
    inside = prefix <= key and (end == b"\x00" or key < end)
    assert inside is key.startswith(prefix)


@given(st.binary(min_size=1), st.binary())
def test_a_prefix_range_holds_its_own(prefix: bytes, rest: bytes) -> None:
    """Everything below the prefix lies in its range."""
    end = prefix_end(prefix)
    assert end == b"\x00" or prefix <= prefix + rest < end


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_batches_lie_in_the_order_of_their_numbers(one: int, other: int) -> None:
    """The order of keys is the order of numbers, and a key gives its number back."""
    keys = ClusterKeys("/t").partition(7)
    assert (keys.batch(one) < keys.batch(other)) is (one < other)
    assert keys.batch_number(keys.batch(one)) == one


@pytest.mark.parametrize("prefix", ["/a", "/a/"])
def test_clusters_with_similar_prefixes_do_not_mix(prefix: str) -> None:
    """A prefix is a whole path: ``/a`` does not reach into ``/ab``."""
    mine, other = ClusterKeys(prefix), ClusterKeys("/ab")
    assert not other.members.startswith(mine.members)
    assert mine.partition(1).batches == b"/a/partitions/0001/batch/"
