"""Spans as the command line says them."""

from datetime import timedelta

import pytest

from tenure.cli.queue_view import rough_text, span_text


@pytest.mark.parametrize(
    ("seconds", "exact", "rough"),
    [
        (0.25, "0.25s", "0.25s"),
        (59.997, "59.997s", "60s"),
        (90, "90s", "90s"),
        (3_600, "1h", "60m"),
        (9_000, "150m", "2.5h"),
        (172_800, "2d", "2d"),
        (1_234_567, "1234567s", "14.3d"),
    ],
)
def test_spans(seconds: float, exact: str, rough: str) -> None:
    """A setting is said as it is, an estimate in three figures."""
    span = timedelta(seconds=seconds)
    assert (span_text(span), rough_text(span)) == (exact, rough)
