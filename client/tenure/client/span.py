"""Spans of time in what users set: checked where they are set."""

from datetime import timedelta

from tenure.client.errors import invalid
from tenure.protocol.limits import DAY_MS


def check_span(where: str, span: object, most_ms: int, *, least_ms: int = 1) -> None:
    """Refuses what is no span of time between two others.

    Args:
        where: What users call it.
        span: What they gave.
        most_ms: No longer than this.
        least_ms: No shorter.

    Raises:
        Rejected: It is none.
    """
    least, most = timedelta(milliseconds=least_ms), timedelta(milliseconds=most_ms)
    if not isinstance(span, timedelta) or not least <= span <= most:
        raise invalid(
            where, f"a timedelta from {_told(least_ms)} to {_told(most_ms)}, got {span!r}"
        )


def _told(span_ms: int) -> str:
    days = span_ms / DAY_MS
    if days < 1:
        return f"{span_ms / 1_000:g} s"
    return "1 day" if days == 1 else f"{days:g} days"
