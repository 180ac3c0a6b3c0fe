"""Cron by brute force: it reads what it should, and as another reading does."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import takewhile

import pytest

from tests.oracles.calendar import Fields, ticks_between, zone_of
from tests.unit.master.core.sundial import FIRST, LAST, ZONES, Oracle, ms_of, stretches

DAY_MS = 86_400_000


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("cron", ["30 2 * * *", "*/20 * * * *", "0 0,3 * * *", "15 1-3 * * 0,6"])
def test_both_readings_agree_where_clocks_change(cron: str, zone: str) -> None:
    """Moment by moment, or time by time: the same ticks around each change of two years."""
    for stretch in stretches(zone):
        if not FIRST <= stretch.end < LAST:
            continue
        since, until = stretch.end - timedelta(hours=30), stretch.end + timedelta(hours=30)
        ticks = takewhile(
            lambda moment, until=until: moment <= until, Oracle(cron, zone).ticks(since)
        )
        assert ticks_between(cron, zone, ms_of(since), ms_of(until)) == [*map(ms_of, ticks)]


def test_seconds_and_bounds() -> None:
    """A tick is later than the one bound, and not later than the other; to the second."""
    assert ticks_between("*/2 * * * * *", "UTC", 2_000, 6_000) == [4_000, 6_000]
    assert ticks_between("*/2 * * * * *", "UTC", 1_999, 5_999) == [2_000, 4_000]
    assert ticks_between("* * * * *", "UTC", 1, 120_000) == [60_000, 120_000]
    assert ticks_between("* * * * *", "UTC", 120_000, 120_000) == []


@pytest.mark.parametrize(
    ("macro", "cron"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@weekly", "0 0 * * SUN"),
        ("@monthly", "0 0 1 jan-dec *"),
        ("@yearly", "0 0 1 JAN *"),
    ],
)
def test_names_and_macros(macro: str, cron: str) -> None:
    """What a macro stands for, and what names mean."""
    for days in (0, 3, 31, 59):
        wall = datetime(2026, 1, 1, tzinfo=zone_of("UTC")) + timedelta(days=days)
        for shown in (wall, wall.replace(hour=7), wall.replace(minute=1)):
            assert Fields(macro).name(shown) is Fields(cron).name(shown)
    assert ticks_between(macro, "UTC", 0, 8 * DAY_MS) == ticks_between(cron, "UTC", 0, 8 * DAY_MS)
