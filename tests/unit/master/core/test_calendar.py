"""Calendars: cron in a time zone, held against an oracle that tries every second that could be."""

import contextlib
import re
import time
from datetime import datetime, timedelta
from itertools import islice, pairwise
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tenure.master.core.calendar import EXPRESSION_CHARS_MAX, BadCalendar, calendar
from tests.oracles.calendar import RANGES
from tests.unit.master.core.sundial import (
    FIRST,
    HOUR,
    LAST,
    ZONES,
    Oracle,
    ms_of,
    stretches,
    zone_of,
)


def at(zone: str, text: str, fold: int = 0) -> int:
    """A wall-clock time in a zone, in milliseconds."""
    return ms_of(datetime.fromisoformat(text).replace(tzinfo=zone_of(zone), fold=fold))


def ticks(cron: str, zone: str, after_ms: int, count: int) -> list[int]:
    """The first ticks after a time."""
    found: list[int] = []
    while len(found) < count:
        tick = calendar(cron, zone).after(found[-1] if found else after_ms)
        if tick is None:
            break
        found.append(tick)
    return found


def terms(low: int, high: int) -> st.SearchStrategy[str]:
    """Numbers, ranges and steps of one field."""
    number = st.integers(low, high)
    step = st.integers(1, max(2, (high - low) // 2)).map(lambda n: f"/{n}")
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    return st.one_of(
        number.map(str), number.map(str), st.tuples(span, step | st.just("")).map("".join)
    ) | step.map(lambda text: f"*{text}")


def fields(low: int, high: int, *, star: int = 1) -> st.SearchStrategy[str]:
    """One field; ``star`` says how often it names everything."""
    some = st.lists(terms(low, high), min_size=1, max_size=3).map(",".join)
    return st.one_of(*[st.just("*")] * star, some, some)


#: Hours near the changes are what matters.
HOURS: Final = st.sampled_from(
    ["*", "0", "1", "2", "3", "23", "0-3", "1,2", "*/2", "22-23", "0-23"]
)
CRONS: Final = st.tuples(
    st.sampled_from(["", "", "", "0", "30", "0,59", "*/20"]),
    fields(*RANGES[1]),
    HOURS | fields(*RANGES[2]),
    fields(*RANGES[3], star=4),
    fields(*RANGES[4], star=6),
    fields(*RANGES[5], star=4),
).map(lambda parts: " ".join(filter(None, parts)))


@given(
    cron=CRONS,
    zone=st.sampled_from(ZONES),
    edge=st.integers(0, 40),
    near_s=st.integers(-4 * 3_600, 3 * 3_600),
    anywhere_s=st.none() | st.integers(0, 2 * 366 * 86_400),
)
@example(cron="30 2 * * *", zone="Europe/Berlin", edge=0, near_s=-7_200, anywhere_s=None)
@example(cron="0,30 2,3 * * *", zone="Europe/Berlin", edge=0, near_s=-7_200, anywhere_s=None)
@example(cron="0 0 * * *", zone="America/Santiago", edge=1, near_s=-7_200, anywhere_s=None)
@example(cron="0 * */3 * *", zone="Europe/Berlin", edge=0, near_s=0, anywhere_s=77_400)
@example(cron="* * */3 * *", zone="Europe/Berlin", edge=0, near_s=0, anywhere_s=82_800)
@example(cron="* * */4 * *", zone="America/Santiago", edge=0, near_s=-1, anywhere_s=None)
@example(cron="20 * 6 9 *", zone="America/Santiago", edge=0, near_s=-9_000_000, anywhere_s=None)
def test_ticks_are_those_of_the_oracle(
    cron: str, zone: str, edge: int, near_s: int, anywhere_s: int | None
) -> None:
    """S13: from any time in two years on, mostly near a change, an expression fires as it should.

    Whatever was drawn, the oracle finds the same by trying all times that the fields can name.
    """
    changes = [s.end for s in stretches(zone) if FIRST <= s.end < LAST]
    after = changes[edge % len(changes)] + timedelta(seconds=near_s)
    if anywhere_s is not None:
        after = FIRST + timedelta(seconds=anywhere_s)
    horizon = LAST + 200 * 24 * HOUR
    expected = [m for m in islice(Oracle(cron, zone).ticks(after), 12) if m < horizon]
    if not expected:
        with contextlib.suppress(BadCalendar):
            tick = calendar(cron, zone).after(ms_of(after))
            assert tick is None or tick >= ms_of(horizon)
        return
    found = ticks(cron, zone, ms_of(after), 12)
    assert [tick for tick in found if tick < ms_of(horizon)] == [ms_of(m) for m in expected]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("cron", ["30 2 * * *", "0 0 * * *", "15 */6 * * *", "10 1-3 * * 0"])
def test_two_years_tick_by_tick(cron: str, zone: str) -> None:
    """Walked from tick to tick, two years have the ticks of the oracle and no others."""
    expected = []
    for moment in Oracle(cron, zone).ticks(FIRST):
        if moment >= LAST:
            break
        expected.append(ms_of(moment))
    assert ticks(cron, zone, ms_of(FIRST), len(expected)) == expected
    assert len(expected) >= 300


def test_a_skipped_hour_fires_once_after_the_gap() -> None:
    """All that is named in a skipped hour fires as one tick, where the gap ends."""
    zone, before = "Europe/Berlin", at("Europe/Berlin", "2026-03-29 01:59")
    for cron in ("30 2 * * *", "0,15,30 2 * * *", "0 30 2 * * *", "*/10 2,3 * * *"):
        assert ticks(cron, zone, before, 1) == [at(zone, "2026-03-29 03:00")]
    daily = ticks("30 2 * * *", zone, before, 2)
    assert daily[1] == at(zone, "2026-03-30 02:30")


def test_a_doubled_hour_fires_once() -> None:
    """What is named in a doubled hour fires when the clocks show it first."""
    zone, before = "Europe/Berlin", at("Europe/Berlin", "2026-10-25 01:59")
    for cron in ("30 2 * * *", "0 30 2 * * *"):
        first, second = ticks(cron, zone, before, 2)
        assert first == at(zone, "2026-10-25 02:30", fold=0)
        assert second == at(zone, "2026-10-26 02:30")
    assert len([t for t in ticks("*/30 2 * * *", zone, before, 4) if t < before + 86_400_000]) == 2


def test_every_hour_goes_by_elapsed_time() -> None:
    """What fires in each hour does so in both passes, and the skipped hour is not there."""
    zone = "Europe/Berlin"
    autumn = ticks("30 * * * *", zone, at(zone, "2026-10-25 01:00"), 4)
    assert [b - a for a, b in pairwise(autumn)] == [3_600_000] * 3
    assert autumn[1:3] == [at(zone, "2026-10-25 02:30", 0), at(zone, "2026-10-25 02:30", 1)]
    spring = ticks("30 * * * *", zone, at(zone, "2026-03-29 01:00"), 2)
    assert spring == [at(zone, "2026-03-29 01:30"), at(zone, "2026-03-29 03:30")]


@pytest.mark.parametrize(
    ("macro", "cron"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
    ],
)
def test_macros(macro: str, cron: str) -> None:
    """A macro is the expression that it stands for, in any case."""
    after = ms_of(FIRST)
    assert ticks(macro.upper(), "UTC", after, 3) == ticks(cron, "UTC", after, 3)


def test_a_range_of_one_with_a_step_is_one() -> None:
    """``5-5/10`` names the fifth minute only, in any field and term."""
    after = ms_of(FIRST)
    for cron, plain in [
        ("5-5/10 * * * *", "5 * * * *"),
        ("0 0-0/1,6-9/3 * * MON-mon/2", "0 0,6,9 * * MON"),
    ]:
        assert ticks(cron, "UTC", after, 30) == ticks(plain, "UTC", after, 30)


def test_times_between_seconds() -> None:
    """A tick is later than the time asked about, to the millisecond."""
    every_second = calendar("* * * * * *", "UTC")
    assert every_second.after(1_000) == 2_000
    assert every_second.after(999) == 1_000
    assert every_second.after(1_001) == 2_000


def test_last_days_and_leap_years() -> None:
    """The last day of a month, the last Friday, the 29th of February."""
    after = at("UTC", "2026-02-01 00:00")
    assert ticks("0 0 L * *", "UTC", after, 2) == [
        at("UTC", "2026-02-28"),
        at("UTC", "2026-03-31"),
    ]
    assert ticks("0 0 * * FRIL".replace("FRI", "5"), "UTC", after, 1) == [at("UTC", "2026-02-27")]
    assert ticks("0 0 29 2 *", "UTC", after, 1) == [at("UTC", "2028-02-29")]


def test_the_end_of_time() -> None:
    """Behind the year 9999 nothing fires, and nothing breaks."""
    assert calendar("0 0 * * *", "Europe/Berlin").after(253_402_300_799_000) is None


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("0 0 30 2 *", "'0 0 30 2 *' never fires"),
        ("0 20 30 2 *", "'0 20 30 2 *' never fires"),
        ("0 0 31 2,4,6,9,11 *", "'0 0 31 2,4,6,9,11 *' never fires"),
        ("0 0 */31 * 1#5", "'0 0 */31 * 1#5' never fires"),
        ("61 * * * *", "its minute field, '61', is"),
        ("* 24 * * *", "its hour field, '24', is"),
        ("99 * * * * *", "its second field, '99', is"),
        ("* * 0 * *", "its day-of-month field, '0', is"),
        ("* * 32 2 *", "its day-of-month field, '32', is"),
        ("* * * 13 *", "its month field, '13', is"),
        ("* * * * MOON", "its day-of-week field, 'MOON', is"),
        ("*/0 * * * *", "its minute field, '*/0', is"),
        ("* * * *", "'* * * *' has 4 fields"),
        ("", "'' has 0 fields"),
        ("@never", "@daily"),
        ("9" * 300 + " * * * *", "300 characters".replace("300", "308")),
    ],
)
def test_bad_expressions(cron: str, said: str) -> None:
    """An expression that means nothing, or that never fires, is refused and told what is wrong."""
    with pytest.raises(BadCalendar, match=re.escape(said)) as caught:
        calendar(cron, "UTC")
    assert caught.value.field == "cron"


def test_an_expression_may_be_long() -> None:
    """Up to a bound, which is in."""
    longest = ",".join(["10"] * 81) + ",5,6,6 * * * *"
    assert len(longest) == EXPRESSION_CHARS_MAX
    assert ticks(longest, "UTC", ms_of(FIRST), 9) == ticks("5,6,10 * * * *", "UTC", ms_of(FIRST), 9)
    with pytest.raises(BadCalendar, match="257 characters"):
        calendar(f"{longest} ", "UTC")


def test_the_machines_zone_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """All masters of a release agree, wherever they are."""
    after = ms_of(FIRST)
    found = []
    for machine in ("UTC0", "WST+12", "EST-14", "CET-1CEST,M3.5.0,M10.5.0/3"):
        monkeypatch.setenv("TZ", machine)
        time.tzset()
        try:
            found.append(
                [
                    ticks(cron, zone, after, 150)
                    for cron in ("30 2 * * *", "0 * */4 * *")
                    for zone in ("Europe/Berlin", "Pacific/Kiritimati", "Pacific/Pago_Pago")
                ]
            )
        finally:
            monkeypatch.undo()
            time.tzset()
    assert found == [found[0]] * 4


def test_a_zone_that_is_not_there_is_told_in_short() -> None:
    """However much text it is."""
    with pytest.raises(BadCalendar, match=f"no time zone '{'x' * 64}': give an IANA name"):
        calendar("@daily", "x" * 1_000)


@pytest.mark.parametrize(
    ("zone", "said"),
    [
        ("Europe/Berln", "did you mean Europe/Berlin"),
        ("", "IANA"),
        ("../etc/passwd", "no time zone"),
        ("Europe", "no time zone"),
        ("localtime", "no time zone"),
        ("right/Europe/Berlin", "no time zone"),
    ],
)
def test_unknown_zones(zone: str, said: str) -> None:
    """A zone is one of IANA's names; nothing else of the machine's is read."""
    with pytest.raises(BadCalendar, match=said) as caught:
        calendar("@daily", zone)
    assert caught.value.field == "time_zone"


@given(
    cron=st.text(max_size=40)
    | st.lists(st.text("0123456789*/-,#LW?MON ", max_size=8)).map(" ".join)
)
def test_any_text_is_judged(cron: str) -> None:
    """Whatever text comes, it is a calendar or it is refused."""
    try:
        found = calendar(cron, "UTC").after(0)
    except BadCalendar:
        return
    assert found is None or found > 0
