"""Calendars: when a cron expression fires in a time zone. Pure: a look at rules, never at a clock.

Expressions are parsed and matched by cronsim, on wall-clock times without a zone; here those times
become moments. Where a zone's clocks change, that needs a rule, and there are two:

- An expression that names hours goes *by the wall clock*: what it names in a skipped hour fires
  once, when the gap is over; what it names in a doubled hour fires the first time only.
- An expression that fires in every hour goes *by elapsed time*: it fires whenever the wall clock
  shows what it names, so twice in a doubled hour, and it has missed nothing in a skipped one.

```
 02:30 daily, clocks go from 02:00 to 03:00       02:30 daily, clocks go from 03:00 back to 02:00
 ── 01:59 ┃ 03:00 ───                             ── 02:30 ── 02:59 ┃ 02:00 ── 02:30 ──
            ▲ fires                                  ▲ fires
```
cronsim alone fires several times at the end of a gap if several times were skipped, and leaves a
gap out if there is a field for seconds; so its own handling of zones is not used.

Zones come from the ``tzdata`` package and never from the machine: all masters of a release agree.
"""

import re
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources import files
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

EXPRESSION_CHARS_MAX: Final = 256

_MACROS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
#: A range of one with a step, in which cronsim sees a start without an end: 5-5/10 is 5.
_RANGE_OF_ONE: Final = re.compile(r"(?<![\w*#])(\w+)-\1/0*[1-9]\d*(?![\w/#-])", re.IGNORECASE)
_FIELDS: Final = ("second", "minute", "hour", "day-of-month", "month", "day-of-week")
_HOURS: Final = set(range(24))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Where the search begins for any moment at which an expression fires: 50 years from here.
_ORIGIN: Final = datetime(2000, 1, 1, tzinfo=UTC).replace(tzinfo=None)
_SECOND: Final = timedelta(seconds=1)
_DAY: Final = timedelta(days=1)
#: Calendars kept: their expressions need not be judged again.
_KEPT: Final = 4_096


class BadCalendar(ValueError):
    """An expression or a zone that means nothing.

    Attributes:
        field: ``cron`` or ``time_zone``.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Calendar:
    """When an expression fires in a zone. Immutable; times in milliseconds since the Unix epoch."""

    __slots__ = ("_by_elapsed_time", "_expression", "_zone")

    def __init__(self, expression: str, zone: ZoneInfo, *, by_elapsed_time: bool) -> None:
        """Used by ``calendar``, which has judged the expression."""
        self._expression = expression
        self._zone = zone
        self._by_elapsed_time = by_elapsed_time

    def after(self, ms: int) -> int | None:
        """The first tick later than this; None: it never fires again (in the next 50 years)."""
        moment = _EPOCH + timedelta(seconds=ms // 1000)
        try:
            found = self._elapsed(moment) if self._by_elapsed_time else self._wall(moment)
        except OverflowError:
            # Behind the year 9999.
            return None
        return None if found is None else (found - _EPOCH) // _SECOND * 1000

    def _next(self, wall: datetime) -> datetime | None:
        """The next wall-clock time that the expression names."""
        return next(CronSim(self._expression, wall), None)

    def _wall(self, moment: datetime) -> datetime | None:
        """By the wall clock: the moments of the times that are named never run back."""
        wall: datetime | None = _wall_of(moment.astimezone(self._zone))
        while wall is not None and (wall := self._next(wall)) is not None:
            found = self._moment_of(wall)
            # In the second pass of a doubled hour, times are named that fired in the first.
            if found > moment:
                return found
        return None

    def _elapsed(self, moment: datetime) -> datetime | None:
        """By elapsed time: as if the offset stayed; where it does not, anew from the change on."""
        local = moment.astimezone(self._zone)
        wall, offset = _wall_of(local), _offset(local)
        while (found := self._next(wall)) is not None:
            candidate = (found - offset).replace(tzinfo=UTC)
            if found - wall > 2 * _DAY:
                candidate = moment + _DAY
            unchanged = _offset(candidate.astimezone(self._zone)) == offset
            if unchanged and found - wall > 2 * _DAY:
                # On no day that was passed over does it fire, or it would in each of its hours; and
                # no change leads back to the last one on which it did.
                start = found.replace(hour=0, minute=0, second=0) - _DAY
                moment = start.replace(tzinfo=self._zone).astimezone(UTC)
                local = moment.astimezone(self._zone)
                wall, offset = _wall_of(local), _offset(local)
                continue
            if unchanged:
                return candidate
            moment = self._change(moment, candidate)
            local = moment.astimezone(self._zone)
            wall, offset = _wall_of(local) - _SECOND, _offset(local)
        return None

    def _moment_of(self, wall: datetime) -> datetime:
        """When the clocks first show a time; for one that they skip, when the gap is over."""
        aware = wall.replace(tzinfo=self._zone)
        moment = aware.astimezone(UTC)
        if _wall_of(moment.astimezone(self._zone)) == wall:
            return moment
        # The earlier of the two offsets puts a skipped time behind the gap, the later before it.
        return self._change(aware.replace(fold=1).astimezone(UTC), moment)

    def _change(self, before: datetime, after: datetime) -> datetime:
        """The second in which the offset becomes another one than it was before."""
        offset = _offset(before.astimezone(self._zone))
        while after - before > _SECOND:
            middle = before + (after - before) // _SECOND // 2 * _SECOND
            if _offset(middle.astimezone(self._zone)) == offset:
                before = middle
            else:
                after = middle
        return after


@lru_cache(_KEPT)
def calendar(cron: str, time_zone: str) -> Calendar:
    """The calendar of an expression in a zone.

    Args:
        cron: Five fields, six (seconds first), or ``@daily`` and the like.
        time_zone: IANA name.

    Raises:
        BadCalendar: There is no such zone, the expression is malformed, or it never fires.
    """
    zone = _zone(time_zone)
    expression = _expand(cron)
    try:
        sim = CronSim(expression, _ORIGIN)
    except CronSimError as error:
        raise _explained(cron, expression, str(error)) from None
    if next(CronSim(expression, _ORIGIN), None) is None:
        raise _never(cron)
    return Calendar(expression, zone, by_elapsed_time=set(sim.hours) >= _HOURS)


def _expand(cron: str) -> str:
    if len(cron) > EXPRESSION_CHARS_MAX:
        raise BadCalendar("cron", f"it has {len(cron)} characters (at most {EXPRESSION_CHARS_MAX})")
    text = cron.strip()
    if text.startswith("@"):
        if text.lower() not in _MACROS:
            raise BadCalendar("cron", f"{text} is none of {', '.join(_MACROS)}")
        return _MACROS[text.lower()]
    return _RANGE_OF_ONE.sub(r"\1", text)


def _explained(cron: str, expression: str, message: str) -> BadCalendar:
    """What is wrong with an expression that cronsim refuses with this message."""
    parts = expression.split()
    if len(parts) not in (5, 6):
        return BadCalendar(
            "cron",
            f"{cron!r} has {len(parts)} fields: give minute, hour, day-of-month, month and "
            "day-of-week, with seconds before them if you like",
        )
    name = message.removeprefix("Bad ")
    if name == "day-of-month" and _is_sound([*parts[:-2], "*", parts[-1]]):
        return _never(cron)
    part = parts[_FIELDS.index(name) - 6]
    return BadCalendar("cron", f"its {name} field, {part!r}, is none that cron knows")


def _is_sound(parts: list[str]) -> bool:
    try:
        CronSim(" ".join(parts), _ORIGIN)
    except CronSimError:
        return False
    return True


def _never(cron: str) -> BadCalendar:
    return BadCalendar("cron", f"{cron!r} never fires: no month it names has such a day")


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(files("tzdata").joinpath("zones").read_text().split())


@lru_cache(_KEPT)
def _zone(name: str) -> ZoneInfo:
    known = _zone_names()
    if name not in known:
        asked = name[:64]
        near = get_close_matches(asked, sorted(known), n=1)
        hint = f"did you mean {near[0]}?" if near else "give an IANA name, such as Europe/Berlin"
        raise BadCalendar("time_zone", f"there is no time zone {asked!r}: {hint}")
    with files("tzdata.zoneinfo").joinpath(name).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


def _wall_of(local: datetime) -> datetime:
    """What the clocks show."""
    return local.replace(tzinfo=None, fold=0)


def _offset(local: datetime) -> timedelta:
    """How far a zone's clocks are ahead of UTC."""
    offset = local.utcoffset()
    if offset is None:
        raise ValueError(f"expected a time with a zone, got {local}")
    return offset
