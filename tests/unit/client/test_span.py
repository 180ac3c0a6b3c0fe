"""Spans of time: whoever sets one beyond its limits is told before it is sent."""

from datetime import timedelta

import pytest

from tenure.client import BreakerSettings, RateLimit, Retry, cron
from tenure.client.options import Options
from tenure.client.span import check_span
from tenure.protocol import limits
from tenure.protocol.errors import Rejected

MS = timedelta(milliseconds=1)


@pytest.mark.parametrize("least_ms", [0, 1, 5_000])
def test_both_ends_are_within(least_ms: int) -> None:
    """A limit is the last value that is taken; one millisecond beyond is refused, by its name."""
    least, most = timedelta(milliseconds=least_ms), timedelta(days=1)
    check_span("delay", least, limits.DAY_MS, least_ms=least_ms)
    check_span("delay", most, limits.DAY_MS, least_ms=least_ms)
    for beyond in (least - MS, most + MS):
        with pytest.raises(Rejected, match=r"expected delay to be a timedelta from .* to 1 day,"):
            check_span("delay", beyond, limits.DAY_MS, least_ms=least_ms)


@pytest.mark.parametrize("span", [1_000, 1.5, "1s", None])
def test_numbers_are_no_spans(span: object) -> None:
    """Nobody has to guess whether they are seconds."""
    with pytest.raises(Rejected, match=r"a timedelta from 0\.001 s to 3600 s, got"):
        check_span("rate.per", span, 3_600_000)


@pytest.mark.parametrize(
    ("field", "most_ms", "make"),
    [
        ("rate.per", limits.RATE_PER_MS_MAX, lambda span: RateLimit(count=1, per=span)),
        ("breaker.window", limits.BREAKER_WINDOW_MS_MAX, lambda s: BreakerSettings(window=s)),
        ("breaker.open_for", limits.TIMEOUT_MS_MAX, lambda s: BreakerSettings(open_for=s)),
        ("retry.cap", limits.DELAY_MS_MAX, lambda span: Retry(cap=span)),
        ("timeout", limits.TIMEOUT_MS_MAX, lambda span: Options(timeout=span)),
        ("catch_up", limits.DELAY_MS_MAX, lambda span: cron("* * * * *", catch_up=span)),
        ("jitter", limits.JITTER_MS_MAX, lambda span: cron("* * * * *", jitter=span)),
    ],
)
def test_limits_are_those_of_masters(field: str, most_ms: int, make: object) -> None:
    """What a master would refuse is refused where it is made."""
    assert callable(make)
    make(timedelta(milliseconds=most_ms))
    with pytest.raises(Rejected) as caught:
        make(timedelta(milliseconds=most_ms + 1))
    assert caught.value.field == field
