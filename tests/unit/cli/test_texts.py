"""Texts that settings are given as."""

import pytest

from tenure.cli.settings import Kind, Role, Setting, Value
from tenure.cli.texts import parse, parse_duration, parse_rate, parse_selector


def setting(kind: Kind, **bounds: float) -> Setting:
    """A setting of a kind."""
    return Setting(
        table="client",
        key="x",
        kind=kind,
        help="",
        roles=(Role.CLIENT,),
        **bounds,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("90s", 90), ("1.5h", 5_400), ("1h30m", 5_400), ("2d", 172_800), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    """Numbers with units add up."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "5x", "-5s", "s", "5 s", "1h 30m"])
def test_what_is_no_duration(text: str) -> None:
    """A number without a unit is no duration: nobody should guess it."""
    with pytest.raises(ValueError, match="90s, 5m"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/s", (10, 1)),
        ("100/m", (100, 60)),
        ("5/30s", (5, 30)),
        ("0/s", (0, 1)),
        ("1/d", (1, 86_400)),
    ],
)
def test_rates(text: str, rate: tuple[int, float]) -> None:
    """So many in a unit, or in a duration."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "10", "10/", "/s", "10/x", "1.5/s", "-1/s", "10/30"])
def test_what_is_no_rate(text: str) -> None:
    """A number without a time is no rate."""
    with pytest.raises(ValueError, match="10/s"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("text", "selector"),
    [("gpu", ("gpu", [])), ("zone=eu", ("zone", ["eu"])), ("zone=eu,us", ("zone", ["eu", "us"]))],
)
def test_selectors(text: str, selector: tuple[str, list[str]]) -> None:
    """A label of any value, of one, or of one of several."""
    assert parse_selector(text) == selector


@pytest.mark.parametrize("text", ["", "=eu", "zone=", "zone=,"])
def test_what_is_no_selector(text: str) -> None:
    """A label without the values that its sign announces is most often a slip."""
    with pytest.raises(ValueError, match="zone=eu"):
        parse_selector(text)


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        (Kind.TEXT, "x", "x"),
        (Kind.INTEGER, "12", 12),
        (Kind.INTEGER, 12, 12),
        (Kind.SECONDS, "2.5", 2.5),
        (Kind.SECONDS, "5m", 300.0),
        (Kind.SECONDS, 3, 3.0),
        (Kind.SWITCH, "Yes", True),
        (Kind.SWITCH, "0", False),
        (Kind.SWITCH, True, True),
        (Kind.LIST, " a, b,,", ["a", "b"]),
        (Kind.LIST, ["a", "b"], ["a", "b"]),
        (Kind.PAIRS, "zone=eu=west,disk=ssd", {"zone": "eu=west", "disk": "ssd"}),
        (Kind.PAIRS, ["zone=eu"], {"zone": "eu"}),
        (Kind.PAIRS, {"zone": "eu"}, {"zone": "eu"}),
        (Kind.COUNTS, "cpu=2,io=50", {"cpu": 2, "io": 50}),
        (Kind.COUNTS, ["gpu=0"], {"gpu": 0}),
        (Kind.COUNTS, {"cpu": 2}, {"cpu": 2}),
        (Kind.ADDRESSES, "a:1, [::1]:2", "a:1,[::1]:2"),
        (Kind.ADDRESSES, ["a:1", "b:2"], "a:1,b:2"),
        (Kind.RANGE, "2:8", "2:8"),
        (Kind.RANGE, "4", "4:4"),
        (Kind.RANGE, 4, "4:4"),
    ],
)
def test_values(kind: Kind, given: object, value: Value) -> None:
    """A flag's text, a variable's text and what TOML holds mean the same."""
    assert parse(setting(kind), given) == value


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (Kind.TEXT, 5),
        (Kind.INTEGER, "1.5"),
        (Kind.INTEGER, True),
        (Kind.SECONDS, "soon"),
        (Kind.SECONDS, True),
        (Kind.SWITCH, "perhaps"),
        (Kind.SWITCH, 1),
        (Kind.LIST, 5),
        (Kind.LIST, [5]),
        (Kind.PAIRS, "zone"),
        (Kind.PAIRS, "=eu"),
        (Kind.PAIRS, "zone="),
        (Kind.PAIRS, {"zone": 1}),
        (Kind.COUNTS, "cpu"),
        (Kind.COUNTS, "cpu=two"),
        (Kind.COUNTS, "cpu=-1"),
        (Kind.COUNTS, "c pu=1"),
        (Kind.COUNTS, {"cpu": "2.5"}),
        (Kind.COUNTS, {"cpu": True}),
        (Kind.COUNTS, {"": 1}),
        (Kind.ADDRESSES, "nowhere"),
        (Kind.ADDRESSES, "a:0"),
        (Kind.ADDRESSES, "a:65536"),
        (Kind.ADDRESSES, ""),
        (Kind.RANGE, "8:2"),
        (Kind.RANGE, "2:"),
        (Kind.RANGE, "many"),
        (Kind.RANGE, True),
    ],
)
def test_what_is_no_value(kind: Kind, given: object) -> None:
    """What does not fit is refused, never bent."""
    with pytest.raises(ValueError, match=r"\w"):
        parse(setting(kind), given)


def test_bounds() -> None:
    """Numbers keep to their bounds, and the refusal names the one that was crossed."""
    bounded = setting(Kind.INTEGER, minimum=1, maximum=4)
    assert [parse(bounded, number) for number in (1, 4)] == [1, 4]
    with pytest.raises(ValueError, match="at least 1"):
        parse(bounded, 0)
    with pytest.raises(ValueError, match="at most 4"):
        parse(bounded, "5")
