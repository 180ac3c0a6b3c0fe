"""When a calendar ticks, said in the plainest way: the core's own calendars unused.

Times that the fields name are tried one by one, and a zone's changes are found by looking at each
minute.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache
from typing import Final, NamedTuple

from tests.oracles.calendar import Fields, zone_of

FIRST: Final = datetime(2025, 1, 1, tzinfo=UTC)
LAST: Final = datetime(2027, 1, 1, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
#: Both hemispheres; changes at two, at midnight, by half an hour, and for Ramadan.
ZONES: Final = (
    "Europe/Berlin",
    "America/New_York",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
)


def ms_of(moment: datetime) -> int:
    """Milliseconds since the Unix epoch."""
    return round(moment.timestamp() * 1000)


class Stretch(NamedTuple):
    """A time in which the clocks of a zone are ahead of UTC by the same."""

    start: datetime
    end: datetime
    offset: timedelta


@cache
def stretches(zone: str) -> tuple[Stretch, ...]:
    """All of them, from a while before the two years to a while behind."""
    info = zone_of(zone)
    moment, end = FIRST - 400 * 24 * HOUR, LAST + 400 * 24 * HOUR
    found, start = [], moment
    while moment < end:
        after = moment + HOUR
        offset = offset_at(moment, info)
        if offset_at(after, info) != offset:
            while offset_at(moment, info) == offset:
                moment += timedelta(minutes=1)
            found.append(Stretch(start, moment, offset))
            start = after = moment
        moment = after
    return (*found, Stretch(start, end, offset_at(end, info)))


def offset_at(moment: datetime, zone: tzinfo) -> timedelta:
    """How far the clocks are ahead then."""
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


class Oracle:
    """The plainest reading of the rules in the module's docstring and in docs."""

    def __init__(self, cron: str, zone: str) -> None:
        self.fields = Fields(cron)
        self.stretches = stretches(zone)

    def ticks(self, after: datetime) -> Iterator[datetime]:
        """All ticks later than this, in order."""
        every_hour = self.fields.every_hour
        found = self._by_elapsed_time(after) if every_hour else self._by_wall_clock(after)
        newest = after
        for moment in found:
            if moment > newest:
                newest = moment
                yield moment

    def _walls(self, day: date) -> Iterator[datetime]:
        """The wall-clock times of a day that are named."""
        fields = self.fields
        if fields.name_day(day):
            midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001
            for hour in sorted(fields.hours):
                for minute in sorted(fields.minutes):
                    for second in sorted(fields.seconds):
                        yield midnight.replace(hour=hour, minute=minute, second=second)

    def _days(self, first: datetime, last: datetime) -> Iterator[date]:
        day = first.date()
        while day <= last.date():
            yield day
            day += timedelta(days=1)

    def _by_wall_clock(self, after: datetime) -> Iterator[datetime]:
        for day in self._days(after - 48 * HOUR, LAST + 300 * 24 * HOUR):
            for wall in self._walls(day):
                yield self._first_shown(wall)

    def _first_shown(self, wall: datetime) -> datetime:
        """When the clocks first show a time; when they have skipped it, where the gap ends."""
        for stretch in self.stretches:
            moment = (wall - stretch.offset).replace(tzinfo=UTC)
            if moment < stretch.start:
                return stretch.start
            if moment < stretch.end:
                return moment
        raise AssertionError("the oracle does not look so far")

    def _by_elapsed_time(self, after: datetime) -> Iterator[datetime]:
        for stretch in self.stretches:
            start = max(stretch.start, after - 48 * HOUR)
            shown = ((moment + stretch.offset) for moment in (start, stretch.end))
            for day in self._days(*shown):
                for wall in self._walls(day):
                    moment = (wall - stretch.offset).replace(tzinfo=UTC)
                    if start <= moment < stretch.end:
                        yield moment
