"""Whatever annotations can name comes back equal and of the same types, in every format."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    TypedDict,
    TypeVar,
)

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.client import Job, job
from tenure.client.codec import (
    JSON,
    MSGPACK,
    decode_args,
    decode_result,
    encode_args,
    encode_result,
)
from tenure.client.fidelity import flaw_of

T = TypeVar("T")


class Colour(enum.Enum):
    """Texts."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    """Numbers."""

    LOW = 1
    HIGH = 2


class Right(enum.Flag):
    """Bits."""

    READ = 1
    WRITE = 2


class Point(NamedTuple):
    """A named tuple."""

    x: int
    y: float = 0.5


class Address(TypedDict):
    """A typed dict."""

    street: str
    number: NotRequired[int]


@dataclass
class Box(Generic[T]):
    """A generic dataclass."""

    held: T


@dataclass(frozen=True)
class Tree:
    """A recursive dataclass."""

    value: int
    children: list[Tree] = field(default_factory=list)


class Cat(msgspec.Struct, tag=True):
    """One side of a tagged union."""

    lives: int


class Dog(msgspec.Struct, tag=True):
    """The other."""

    name: str


ORIGIN = Point(0)
UserId = NewType("UserId", int)

zones = st.just(UTC) | st.builds(
    timezone,
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(
        lambda offset: timedelta(minutes=offset // timedelta(minutes=1))
    ),
)
moments = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=zones)  # noqa: DTZ001
ints = st.integers(-(2**63), 2**64 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
trees = st.recursive(
    st.builds(Tree, ints),
    lambda inner: st.builds(Tree, ints, st.lists(inner, max_size=3)),
    max_leaves=6,
)
#: What is annotated, and values of it.
CASES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "none": (None, st.none()),
    "bool": (bool, st.booleans()),
    "int": (int, ints),
    "float": (float, floats),
    "str": (str, st.text()),
    "bytes": (bytes, st.binary()),
    "bytearray": (bytearray, st.binary().map(bytearray)),
    "uuid": (uuid.UUID, st.uuids()),
    "decimal": (Decimal, st.decimals()),
    "date": (date, st.dates()),
    "time": (time, st.times() | st.times(timezones=st.just(UTC))),
    "timedelta": (timedelta, st.timedeltas()),
    "datetime": (datetime, moments),
    "enum": (Colour, st.sampled_from(Colour)),
    "int_enum": (Level, st.sampled_from(Level)),
    "flag": (Right, st.sampled_from([Right.READ, Right.READ | Right.WRITE])),
    "named_tuple": (Point, st.builds(Point, ints, floats)),
    "typed_dict": (
        Address,
        st.fixed_dictionaries({"street": st.text()}, optional={"number": ints}),
    ),
    "generic": (Box[list[uuid.UUID]], st.builds(Box, st.lists(st.uuids(), max_size=3))),
    "tree": (Tree, trees),
    "tagged": (Cat | Dog | None, st.builds(Cat, ints) | st.builds(Dog, st.text()) | st.none()),
    "optional": (datetime | None, moments | st.none()),
    "union": (int | str | list[int], ints | st.text() | st.lists(ints)),
    "literal": (Literal["a", 1], st.sampled_from(["a", 1])),
    "new_type": (UserId, ints),
    "constrained": (Annotated[int, msgspec.Meta(ge=0)], st.integers(0, 2**63)),
    "tuple": (tuple[int, str], st.tuples(ints, st.text())),
    "tuples": (tuple[Colour, ...], st.lists(st.sampled_from(Colour)).map(tuple)),
    "set": (set[date], st.sets(st.dates(), max_size=5)),
    "frozenset": (frozenset[int | None], st.frozensets(ints | st.none(), max_size=5)),
    "int_keys": (dict[int, bytes], st.dictionaries(ints, st.binary(), max_size=5)),
    "uuid_keys": (dict[uuid.UUID, Tree], st.dictionaries(st.uuids(), trees, max_size=2)),
    "nested": (
        dict[str, list[tuple[Level, set[str]]]],
        st.dictionaries(
            st.text(),
            st.lists(st.tuples(st.sampled_from(Level), st.sets(st.text(), max_size=3)), max_size=3),
            max_size=3,
        ),
    ),
}


def taking(annotation: Any, codec: str) -> Job[..., Any]:
    """A job with one parameter, and a result of the same type."""

    def take(value: Any) -> Any:
        return value

    take.__annotations__ = {"value": annotation, "return": annotation}
    return job(name="t.take", codec=codec)(take)


@pytest.mark.parametrize("codec", [MSGPACK, JSON])
@pytest.mark.parametrize("case", CASES)
def test_values_round_trip(case: str, codec: str) -> None:
    """Argument and result come back as what they were: equal, and of the same types inside."""
    annotation, values = CASES[case]
    taken = taking(annotation, codec)

    @given(value=values)
    def round_trip(value: Any) -> None:
        (got,), _ = decode_args(encode_args(taken, (value,), {}), codec, taken)
        assert flaw_of(value, got) is None
        # NaN equals nothing; for it the comparison above has to do.
        if case != "decimal" or not value.is_nan():
            assert got == value
        assert type(got) is type(value)
        result = decode_result(encode_result(value, taken, codec), codec, taken)
        assert flaw_of(value, result) is None

    round_trip()


@pytest.mark.parametrize("codec", [MSGPACK, JSON])
def test_every_kind_of_parameter_round_trips(codec: str) -> None:
    """Positional-only, usual, variadic, keyword-only and ``**kwargs``, with defaults."""

    @job(name="t.kinds", codec=codec)
    def kinds(
        a: date,
        /,
        b: Point = ORIGIN,
        *more: uuid.UUID,
        c: set[int],
        d: Colour | None = None,
        **rest: Tree,
    ) -> None:
        """Has one of each. A name that is taken by ``a`` is free for ``rest``."""

    one = uuid.UUID(int=1)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((date(2026, 1, 1),), {"c": {1}}),
        ((date(2026, 1, 1), Point(2, 0.25), one, one), {"c": set(), "d": Colour.RED}),
        ((date(2026, 1, 1),), {"b": Point(3), "c": {1}, "a": Tree(1), "more": Tree(2, [Tree(3)])}),
    ]
    for args, kwargs in calls:
        got_args, got_kwargs = decode_args(encode_args(kinds, args, kwargs), codec, kinds)
        assert flaw_of((args, kwargs), (tuple(got_args), got_kwargs)) is None


def test_a_whole_number_may_stand_for_a_float() -> None:
    """As type checkers have it; it arrives as the float that equals it."""
    taken = taking(float, MSGPACK)
    (got,), _ = decode_args(encode_args(taken, (3,), {}), MSGPACK, taken)
    assert (got, type(got)) == (3.0, float)


def test_a_moment_keeps_its_instant_in_a_doubled_hour() -> None:
    """The second of two equal times on the clock is not the first: offset and fold count."""
    zone = timezone(timedelta(hours=2))
    moment = datetime(2026, 10, 25, 2, 30, tzinfo=zone, fold=1)
    taken = taking(datetime, MSGPACK)
    (got,), _ = decode_args(encode_args(taken, (moment,), {}), MSGPACK, taken)
    assert got == moment
    assert got.utcoffset() == timedelta(0)


def same(value: Any) -> Any:
    """Leaves a value as it is."""
    return value


@pytest.mark.parametrize(
    ("value", "change"),
    [
        (1, lambda v: True),
        (1.0, lambda v: -1.0),
        (0.0, lambda v: -0.0),
        ("a", lambda v: b"a"),
        ([1, 2], lambda v: (1, 2)),
        ([1, 2], lambda v: [1]),
        ([1, 2], lambda v: [1, b""]),
        ({1: 2}, lambda v: {"1": 2}),
        ({"a": 1}, lambda v: {"a": 1, "b": 2}),
        ({1}, lambda v: {True}),
        ({1}, lambda v: {1, 2}),
        (Decimal("1.0"), lambda v: Decimal("1.00")),
        (time(1, tzinfo=UTC), lambda v: time(2, tzinfo=timezone(timedelta(hours=1)))),
        (Point(1), lambda v: (1, 0.5)),
        (Tree(1, [Tree(2)]), lambda v: Tree(1, [Tree(3)])),
        (Cat(1), lambda v: Cat(2)),
        (Right.READ, lambda v: Right.READ | Right.WRITE),
        (datetime(2026, 1, 1, tzinfo=UTC), lambda v: v + timedelta(microseconds=1)),
        (datetime(2026, 1, 1), same),  # noqa: DTZ001
    ],
)
def test_a_difference_is_found(value: Any, change: Callable[[Any], Any]) -> None:
    """The comparison that all of this rests on sees types as well as values."""
    assert flaw_of(value, change(value)) is not None
    if change is not same:
        assert flaw_of(value, value) is None
