"""Cron by brute force: the fields read by hand, and each moment looked at by a zone's clock.

The rules are those of docs/explanation/schedules.md, in their plainest reading. What the fields may
hold here: stars, numbers, names of months and weekdays, ranges, lists and steps; and the macros.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Final
from zoneinfo import ZoneInfo

#: What each field may name: second, minute, hour, day of the month, month, day of the week.
RANGES: Final = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_MACROS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTHS: Final = "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC"
_WEEKDAYS: Final = "SUNMONTUEWEDTHUFRISAT"


@cache
def zone_of(name: str) -> ZoneInfo:
    """A zone as the product has it: a machine's own files may be of another year."""
    with files("tzdata.zoneinfo").joinpath(name).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


class Fields:
    """What an expression names."""

    def __init__(self, cron: str) -> None:
        fields = _MACROS.get(cron.lower(), cron).upper().split()
        fields = fields if len(fields) == 6 else ["0", *fields]
        names = [_numbers(f, *span) for f, span in zip(fields, RANGES, strict=True)]
        self.seconds, self.minutes, self.hours, self.days, self.months, self.weekdays = names
        #: As in Debian's cron: both must match if either begins with a star, else one suffices.
        self._both = fields[3].startswith("*") or fields[5].startswith("*")

    @property
    def every_hour(self) -> bool:
        """Whether it goes by elapsed time; else by the wall clock."""
        return len(self.hours) == 24

    def name_day(self, day: date) -> bool:
        """Whether there are ticks on a day."""
        of_month = day.day in self.days
        of_week = bool({day.isoweekday(), day.isoweekday() % 7} & self.weekdays)
        fits = of_month and of_week if self._both else of_month or of_week
        return fits and day.month in self.months

    def name(self, wall: datetime) -> bool:
        """Whether they name what the clocks show."""
        return (
            wall.second in self.seconds
            and wall.minute in self.minutes
            and wall.hour in self.hours
            and self.name_day(wall)
        )


def _numbers(field: str, low: int, high: int) -> set[int]:
    """What a field of stars, numbers, names, ranges, lists and steps names."""
    found: set[int] = set()
    for term in field.split(","):
        span, _, step = term.partition("/")
        if span == "*":
            first, last = low, high
        elif "-" in span:
            first, last = (_number(text, high) for text in span.split("-"))
        else:
            first = _number(span, high)
            last = high if step else first
        found |= set(range(first, last + 1, int(step or 1)))
    return found


def _number(text: str, high: int) -> int:
    if text.isdigit():
        return int(text)
    if high == 12:
        return _MONTHS.index(text) // 3 + 1
    return _WEEKDAYS.index(text) // 3


def ticks_between(cron: str, zone: str, after_ms: int, until_ms: int) -> list[int]:
    """All ticks later than one time and not later than another, by looking at all moments."""
    fields, info = Fields(cron), zone_of(zone)
    step_s = 60 if fields.seconds == {0} else 1
    first_s = (after_ms // 1000 // step_s + 1) * step_s
    moments = range(first_s, until_ms // 1000 + 1, step_s)
    named = _elapsed(fields, info, moments) if fields.every_hour else _wall(fields, info, moments)
    return [moment_s * 1000 for moment_s in named]


def _elapsed(fields: Fields, zone: ZoneInfo, moments: range) -> Iterator[int]:
    """Whenever the clocks show what is named."""
    return (s for s in moments if fields.name(datetime.fromtimestamp(s, zone)))


def _wall(fields: Fields, zone: ZoneInfo, moments: range) -> Iterator[int]:
    """When the clocks first show what is named; behind a gap, for all that they have skipped."""
    step = timedelta(seconds=moments.step)
    before = _shown(moments.start - moments.step, zone)
    for moment_s in moments:
        local = datetime.fromtimestamp(moment_s, zone)
        wall = local.replace(tzinfo=None, fold=0)
        skipped = before + step
        before = wall
        if local.fold:
            continue
        while skipped <= wall:
            if fields.name(skipped):
                yield moment_s
                break
            skipped += step


def _shown(moment_s: int, zone: ZoneInfo) -> datetime:
    local = datetime.fromtimestamp(moment_s, UTC).astimezone(zone)
    return local.replace(tzinfo=None, fold=0)
