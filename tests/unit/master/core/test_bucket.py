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
