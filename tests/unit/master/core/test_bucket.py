"""Token buckets: exact to the millisecond, against a reference in fractions."""

from fractions import Fraction
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core.bucket import Bucket
from tenure.master.core.settings import RateLimit
from tests.unit.master.core.rates import Tokens

RATES: Final = st.builds(RateLimit, st.integers(1, 50), st.integers(1, 10_000), st.integers(1, 60))


@given(rate=RATES, steps=st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 70))))
def test_bucket_is_exact(rate: RateLimit, steps: list[tuple[int, int]]) -> None:
    """However time passes and whatever is taken, a bucket holds exactly what its rate says."""
    bucket, reference = Bucket(rate, 0), Tokens(rate, 0)
    now_ms = 0
    for pause_ms, wanted in steps:
        now_ms += pause_ms
        reference.pass_to(now_ms)
        assert bucket.room(now_ms) == int(reference.tokens)
        assert bucket.is_full(now_ms) is (reference.tokens == rate.burst)
        grants = min(wanted, bucket.room(now_ms))
        bucket.charge(grants, now_ms)
        reference.tokens -= grants
        if not bucket.room(now_ms):
            due_ms = bucket.next_ms()
            assert bucket.room(due_ms) >= 1
            assert not bucket.room(due_ms - 1)


@given(rate=RATES, pauses=st.lists(st.integers(0, 5_000), max_size=60))
def test_no_window_gets_more_than_burst_and_rate(rate: RateLimit, pauses: list[int]) -> None:
    """In any stretch of t ms at most burst + t × count / per grants are made."""
    bucket, now_ms = Bucket(rate, 0), 0
    grants: list[int] = []
    for pause_ms in pauses:
        now_ms += pause_ms
        room = bucket.room(now_ms)
        bucket.charge(room, now_ms)
        grants += [now_ms] * room
    for start in range(0, len(grants), 7):
        for end in range(start, len(grants), 5):
            spent_ms = grants[end] - grants[start]
            assert end - start + 1 <= rate.burst + Fraction(spent_ms * rate.count, rate.per_ms)


def test_a_bucket_is_empty_when_it_is_made() -> None:
    """Its first token is there after the time that one takes, and not a millisecond before."""
    bucket = Bucket(RateLimit(1, 1_000, 2), 500)
    assert bucket.next_ms() == 1_500
    times = (500, 1_499, 1_500, 2_499, 2_500, 9_000)
    assert [bucket.room(ms) for ms in times] == [0, 0, 1, 1, 2, 2]
    assert [bucket.is_full(ms) for ms in times] == [False] * 4 + [True] * 2


def test_tokens_that_are_there_need_no_wait() -> None:
    """What is left after a charge was there at its time, however much it is."""
    bucket = Bucket(RateLimit(1, 1_000, 2), 0)
    for charged, left in ((0, 2), (1, 1)):
        bucket.charge(charged, 2_000)
        assert (bucket.room(2_000), bucket.next_ms()) == (left, 2_000)


def test_a_bucket_may_owe_tokens() -> None:
    """More may be charged than it holds: it has room again when all that has come in."""
    bucket = Bucket(RateLimit(2, 1_000, 5), 0)
    bucket.charge(3, 1_000)
    assert (bucket.room(1_000), bucket.next_ms()) == (0, 2_000)
    assert [bucket.room(ms) for ms in (1_999, 2_000)] == [0, 1]


def test_time_that_runs_back_brings_nothing() -> None:
    """Of a time before the last charge a bucket knows what it knew then."""
    bucket = Bucket(RateLimit(1, 1, 3), 500)
    assert [bucket.room(ms) for ms in (400, 500)] == [0, 0]
    bucket.charge(1, 502)
    bucket.charge(1, 400)
    assert [bucket.room(ms) for ms in (400, 502, 503)] == [0, 0, 1]
    assert bucket.next_ms() == 503
