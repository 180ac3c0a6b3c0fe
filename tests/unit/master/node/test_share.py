"""Who should lead what: everybody has the same answer, it is fair, and little moves."""

from hypothesis import given
from hypothesis import strategies as st

from tenure.master.node.share import share_out

NAMES = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=7, unique=True)


@given(NAMES, st.integers(1, 40))
def test_all_lead_the_same_but_for_one(names: list[str], partitions: int) -> None:
    """Each partition has one leader, whatever order the masters were named in."""
    shares = share_out(partitions, names)

    assert len(shares) == partitions
    assert max(map(shares.count, names)) <= -(-partitions // len(names))
    assert min(map(shares.count, names)) >= partitions // len(names)
    assert share_out(partitions, sorted(names)) == shares


def test_no_master_is_left_without_a_part() -> None:
    """Four partitions on three masters: two, one and one, whatever they are called."""
    names = ["tenure-0", "tenure-1", "tenure-2"]

    assert sorted(map(share_out(4, names).count, names)) == [1, 1, 2]


def test_few_partitions_move() -> None:
    """Of 60 partitions on four masters, one that leaves moves its own and few others."""
    names = ["m1", "m2", "m3", "m4"]
    before, after = share_out(60, names), share_out(60, names[:3])

    moved = [old for old, new in zip(before, after, strict=True) if old != new]
    assert moved.count("m4") == 15
    assert len(moved) <= 15 + 10
