"""Credit: shares, limits that are lowered only when acked, and never more than the pool."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.worker.credit import Claim, CreditLine, distribute, split


def claims(backlogs: list[int]) -> list[Claim]:
    """Streams with these backlogs, in turn."""
    return [Claim(CreditLine(), backlog, turn) for turn, backlog in enumerate(backlogs)]


@pytest.mark.parametrize(
    ("pool", "backlogs", "shares"),
    [
        pytest.param(10, [], [], id="nobody"),
        pytest.param(10, [0], [10], id="one master gets all"),
        pytest.param(10, [0, 0], [5, 5], id="no backlog: evenly"),
        pytest.param(12, [90, 10], [10, 2], id="by backlog, one each first"),
        pytest.param(10, [0, 7, 0], [1, 8, 1], id="the only one with work gets the rest"),
        pytest.param(2, [0, 0, 5], [1, 0, 1], id="a small pool goes to those with work first"),
        pytest.param(0, [3, 3], [0, 0], id="nothing to share"),
    ],
)
def test_split(pool: int, backlogs: list[int], shares: list[int]) -> None:
    """Shares follow the backlogs, with one each as far as the pool goes."""
    assert split(pool, claims(backlogs)) == shares


@given(st.integers(0, 1_000), st.lists(st.integers(0, 10**6), max_size=6))
def test_split_shares_the_whole_pool(pool: int, backlogs: list[int]) -> None:
    """Shares are whole, add up to the pool, and leave nobody out while there is enough."""
    shares = split(pool, claims(backlogs))
    assert len(shares) == len(backlogs)
    if backlogs:
        assert sum(shares) == pool
        assert min(shares) >= (1 if pool >= len(backlogs) else 0)


def test_lowered_limit_is_free_only_once_acked() -> None:
    """Grants under the old limit may be on their way until the master has taken the new one."""
    line = CreditLine()
    line.offer(8)
    first = line.news(0)
    assert first is not None
    line.ack(first.number)
    line.offer(2)
    assert line.unspent == 8
    second = line.news(0)
    assert second is not None
    assert (second.number, second.limit) == (first.number + 1, 2)
    assert line.unspent == 8
    line.ack(second.number)
    assert line.unspent == 2


def test_limits_on_their_way_all_count() -> None:
    """The master may go by any limit that it has not acked a later one of."""
    line = CreditLine()
    for limit in (8, 2, 5):
        line.offer(limit)
        line.news(0)
    assert line.unspent == 8
    line.ack(1)
    assert line.unspent == 8
    line.ack(2)
    assert line.unspent == 5


def test_limit_counts_grants_in_all() -> None:
    """A limit is cumulative: what was granted is no longer unspent, and is never given twice."""
    line = CreditLine()
    line.offer(3)
    line.granted += 3
    assert line.unspent == 0
    line.offer(2)
    assert line.limit == 5
    assert line.news(0) is not None
    assert line.news(0) is None


def test_credit_moves_to_the_busy_master_after_the_ack() -> None:
    """One master's idle credit goes to another one with work, in two steps."""
    idle, busy = CreditLine(), CreditLine()
    distribute(10, [Claim(idle, 0), Claim(busy, 0)])
    assert (idle.unspent, busy.unspent) == (5, 5)
    for line in (idle, busy):
        sent = line.news(0)
        assert sent is not None
        line.ack(sent.number)
    both = [Claim(idle, 0), Claim(busy, 100)]
    distribute(10, both)
    assert (idle.wanted, idle.unspent, busy.unspent) == (1, 5, 5)
    lowered = idle.news(0)
    assert lowered is not None
    idle.ack(lowered.number)
    distribute(10, both)
    assert (idle.unspent, busy.unspent) == (1, 9)


def test_last_slots_go_round() -> None:
    """With fewer slots than busy masters each one has its turn, however large its backlog."""
    lines = [CreditLine(), CreditLine(), CreditLine()]
    turns = [0, 0, 0]
    served = []
    for turn in range(1, 7):
        distribute(1, [Claim(lines[i], (9, 1_000, 0)[i], turns[i]) for i in range(3)])
        (lucky,) = [i for i in range(3) if lines[i].unspent]
        sent = lines[lucky].news(0)
        assert sent is not None
        lines[lucky].ack(sent.number)
        lines[lucky].granted += 1
        turns[lucky] = turn
        served.append(lucky)
    assert served == [0, 1, 0, 1, 0, 1]


def test_small_changes_move_nothing() -> None:
    """Backlogs that waver do not send limits to and fro."""
    one, two = CreditLine(), CreditLine()
    distribute(100, [Claim(one, 50), Claim(two, 50)])
    before = (one.limit, two.limit)
    distribute(100, [Claim(one, 45), Claim(two, 55)])
    assert (one.limit, two.limit) == before
