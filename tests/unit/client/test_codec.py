"""Arguments and results go round as what they are; anything else is refused with its path."""

import dataclasses
import enum
import json
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.client import Reason, Rejected, job, named
from tenure.client.codec import (
    JSON,
    MSGPACK,
    decode_args,
    decode_result,
    encode_args,
    encode_result,
)
from tenure.protocol.limits import PAYLOAD_BYTES_DEFAULT


class Colour(enum.Enum):
    """An enum."""

    RED = "red"
    BLUE = "blue"


class Mixed(enum.Enum):
    """Values that no format has."""

    A = (1, 2)
    B = "b"


@dataclasses.dataclass
class Point:
    """A dataclass."""

    x: int
    y: float = 0.5
    colours: frozenset[Colour] = frozenset()


class Order(msgspec.Struct):
    """A Struct."""

    id: uuid.UUID
    total: Decimal
    when: datetime
    due: date | None = None


@job(name="t.everything")
def everything(
    point: Point,
    order: Order,
    raw: bytes,
    *more: int,
    pause: timedelta = timedelta(0),
    **rest: Colour,
) -> list[Point]:
    """Takes one of each."""
    return [point]


@job(name="t.untyped")
def untyped(value, other=None):  # type: ignore[no-untyped-def]
    """Has no annotations."""
    return value


@job(name="t.forward")
def forward(later: "Later") -> "Later":
    """Names a type that is defined below it."""
    return later


class Later(msgspec.Struct):
    """Defined after the job that takes it."""

    n: int


points = st.builds(
    Point,
    x=st.integers(-(2**63), 2**63),
    y=st.floats(allow_nan=False),
    colours=st.frozensets(st.sampled_from(Colour)),
)
orders = st.builds(
    Order,
    id=st.uuids(),
    total=st.decimals(allow_nan=False, allow_infinity=False),
    when=st.datetimes(timezones=st.just(UTC)),
    due=st.none() | st.dates(),
)


@given(
    point=points,
    order=orders,
    raw=st.binary(max_size=100),
    more=st.lists(st.integers(0, 100), max_size=3),
    pause=st.timedeltas(timedelta(0), timedelta(days=100)),
    rest=st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(Colour)),
)
def test_annotated_arguments_round_trip(
    point: Point,
    order: Order,
    raw: bytes,
    more: list[int],
    pause: timedelta,
    rest: dict[str, Colour],
) -> None:
    """What a function's annotations name comes back equal and of the same type."""
    args, kwargs = (point, order, raw, *more), {"pause": pause, **rest}
    payload = encode_args(everything, args, kwargs)
    assert decode_args(payload, "", everything) == (list(args), kwargs)
    assert decode_result(encode_result([point], everything), "", everything) == [point]


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(value=plain, other=plain)
def test_plain_values_round_trip_without_annotations(value: Any, other: Any) -> None:
    """Without annotations plain values come back as they were."""
    payload = encode_args(untyped, (value,), {"other": other})
    assert decode_args(payload, "", untyped) == ([value], {"other": other})
    assert decode_result(encode_result(value, untyped), "", None) == value


def test_json_payloads_are_read_too() -> None:
    """A client in another language may send JSON; annotations turn it into the same types."""
    when = datetime(2026, 1, 2, tzinfo=UTC)
    order = {"id": str(uuid.UUID(int=7)), "total": "1.50", "when": "2026-01-02T00:00:00Z"}
    payload = json.dumps([[{"x": 1}, order, "AAE=", 5], {"a": "blue"}]).encode()
    args, kwargs = decode_args(payload, JSON, everything)
    assert args == [Point(1), Order(uuid.UUID(int=7), Decimal("1.50"), when), b"\x00\x01", 5]
    assert kwargs == {"a": Colour.BLUE}


def test_types_defined_later_are_found() -> None:
    """Annotations are resolved at first use, not when the job is defined."""
    payload = encode_args(forward, (Later(3),), {})
    assert decode_args(payload, "", forward) == ([Later(3)], {})


def test_an_empty_payload_is_a_call_without_arguments() -> None:
    """No bytes at all mean no arguments."""

    @job(name="t.none")
    def none(x: int = 1) -> None:
        """Takes nothing."""

    assert decode_args(b"", "", none) == ([], {})
    assert decode_args(encode_args(none, (), {}), "", none) == ([], {})
    assert decode_result(b"", "", none) is None


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, 2, 3), {}), ((1,), {"nope": 1}), ((1,), {"value": 2})],
)
def test_a_call_the_function_cannot_take_is_refused_at_submit(
    args: tuple[int, ...], kwargs: dict[str, int]
) -> None:
    """Too few, too many, unknown and doubled arguments never leave the process."""
    with pytest.raises(Rejected) as caught:
        encode_args(untyped, args, kwargs)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert "t.untyped(value, other=None)" in caught.value.message


def test_a_keyword_only_argument_cannot_be_left_out() -> None:
    """The quick check of positional calls does not overlook required keywords."""

    @job(name="t.keyword")
    def keyword(a: int, *, b: int) -> None:
        """Needs both."""

    with pytest.raises(Rejected):
        encode_args(keyword, (1,), {})
    encode_args(keyword, (1,), {"b": 2})


@pytest.mark.parametrize(
    ("args", "kwargs", "path"),
    [((object(),), {}, "value"), ((1,), {"other": lambda: None}, "other")],
)
def test_what_cannot_be_encoded_is_named(
    args: tuple[object, ...], kwargs: dict[str, object], path: str
) -> None:
    """The error names the argument that no codec knows; nothing is pickled."""
    with pytest.raises(Rejected) as caught:
        encode_args(untyped, args, kwargs)
    assert caught.value.field == path
    with pytest.raises(Rejected) as caught:
        encode_result(object(), untyped)
    assert caught.value.field == "result"


def test_too_large_payloads_are_refused_with_the_limit() -> None:
    """Arguments and results beyond the limit are refused at once, and the error names it."""
    fits, too_long = "x" * (PAYLOAD_BYTES_DEFAULT - 100), "x" * PAYLOAD_BYTES_DEFAULT
    encode_args(untyped, (fits,), {})
    encode_result(fits, untyped)
    for encode in (
        lambda: encode_args(untyped, (too_long,), {}),
        lambda: encode_result(too_long, untyped),
    ):
        with pytest.raises(Rejected) as caught:
            encode()
        assert caught.value.reason is Reason.PAYLOAD_TOO_LARGE
        assert caught.value.metadata["limit"] == str(PAYLOAD_BYTES_DEFAULT)


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (msgspec.msgpack.encode([[{"x": "one"}], {}]), "point.x"),
        (msgspec.msgpack.encode([[{"x": 1}, {}], {}]), "order"),
        (msgspec.msgpack.encode({"not": "a call"}), "payload"),
        (b"\xc1garbage", "payload"),
        (b"\x92\x91", "payload"),
    ],
)
def test_a_payload_of_the_wrong_shape_names_the_argument(payload: bytes, field: str) -> None:
    """A worker refuses what is not of the annotated type, and says which argument it is."""
    with pytest.raises(Rejected) as caught:
        decode_args(payload, "", everything)
    assert caught.value.field == field


def test_unknown_content_types_are_refused() -> None:
    """A payload in an encoding that this release does not know is refused by name."""
    with pytest.raises(Rejected, match="application/x-pickle"):
        decode_args(b"x", "application/x-pickle", untyped)


def test_a_result_of_another_type_is_refused() -> None:
    """A result is checked against the annotation that types the handle."""
    with pytest.raises(Rejected) as caught:
        decode_result(encode_result("text", untyped), "", everything)
    assert caught.value.field == "result"


def test_unresolvable_annotations_are_explained() -> None:
    """A type that exists for the checker only is an error that says what to do."""

    @job(name="t.hidden")
    def hidden(x: "Hidden") -> None:  # type: ignore[name-defined]  # noqa: F821
        """Names nothing."""

    with pytest.raises(Rejected, match="TYPE_CHECKING"):
        decode_args(encode_args(hidden, (1,), {}), "", hidden)


def test_a_job_known_by_name_takes_any_arguments() -> None:
    """Without the function nothing can be checked, so anything encodable goes."""
    elsewhere = named("app.elsewhere", queue="q")
    payload = encode_args(elsewhere, (1, "a"), {"k": [1]})
    assert decode_args(payload, "", elsewhere) == ([1, "a"], {"k": [1]})
    with pytest.raises(Rejected) as caught:
        elsewhere(1)
    assert caught.value.reason is Reason.UNKNOWN_JOB


@pytest.mark.parametrize("codec", [MSGPACK, JSON])
@pytest.mark.parametrize(
    ("value", "path", "what_to_do"),
    [
        ((1, 2), "value", "pass that, or name tuple in the annotation"),
        ({1, 2}, "value", "pass that, or name set in the annotation"),
        ([{"a": (1,)}], "value[0]['a']", "name tuple"),
        (uuid.UUID(int=1), "value", "name UUID"),
        (Point(1), "value", "name Point"),
        (Colour.RED, "value", "name Colour"),
        ([datetime(2026, 1, 1)], "value[0]", "tzinfo=UTC"),  # noqa: DTZ001
        ({"a": [object()]}, "value['a'][0]", "pass plain data"),
        ([Point(1), object], "value[1]", "pass plain data"),
        ("\ud800", "value", "surrogates"),
    ],
)
def test_what_would_arrive_as_something_else_is_refused(
    value: Any, path: str, what_to_do: str, codec: str
) -> None:
    """Without annotations only plain data keeps its types; the rest is told where and what."""
    with pytest.raises(Rejected) as caught:
        encode_args(untyped.options(codec=codec), (value,), {})
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert caught.value.field == caught.value.metadata["path"] == path
    assert what_to_do in caught.value.message
    with pytest.raises(Rejected) as caught:
        encode_result(value, untyped, codec)
    assert caught.value.field == path.replace("value", "result", 1)


@pytest.mark.parametrize(
    ("value", "path"),
    [(b"x", "value"), ({1: 2}, "value[1]"), (float("nan"), "value"), ([float("inf")], "value[0]")],
)
def test_json_keeps_less(value: Any, path: str) -> None:
    """JSON has no bytes, no keys but texts, and no numbers that are none."""
    with pytest.raises(Rejected) as caught:
        encode_args(untyped.options(codec=JSON), (value,), {})
    assert caught.value.field == path
    assert decode_args(encode_args(untyped, (value,), {}), "", untyped)


class Base(msgspec.Struct):
    """What is annotated."""

    x: int


class Sub(Base):
    """Has a field more."""

    y: int = 0


@dataclasses.dataclass
class Holder:
    """Holds several."""

    bases: list[Base]
    when: datetime | None = None
    ratio: float = 0.0
    extra: Any = None


class Sized(TypedDict):
    """Has one key."""

    size: int


@job(name="t.checked")
def checked(
    holder: Holder | None = None,
    /,
    *sizes: Sized,
    few: Annotated[list[int], msgspec.Meta(max_length=2)] | None = None,
    **flags: bool,
) -> None:
    """Takes what has to be checked."""


@pytest.mark.parametrize(
    ("args", "kwargs", "path"),
    [
        ((Holder([Base(1), Sub(1)]),), {}, "holder.bases[1]"),
        ((Holder([Base("1")]),), {}, "holder.bases[0].x"),  # type: ignore[arg-type]
        ((Holder((Base(1),)),), {}, "holder.bases"),  # type: ignore[arg-type]
        ((Holder([], datetime(2026, 1, 1)),), {}, "holder.when"),  # noqa: DTZ001
        ((Holder([], ratio=2**53 + 1),), {}, "holder.ratio"),
        ((Holder([], extra={"a": {1}}),), {}, "holder.extra['a']"),
        (({"bases": []},), {}, "holder"),
        ((None, {"size": 1}, {"size": 1, "colour": 2}), {}, "args[2]['colour']"),
        ((None, {}), {}, "args[1]"),
        ((), {"few": [1, 2, 3]}, "few"),
        ((), {"few": [1, True]}, "few[1]"),
        ((), {"a": True, "b": 1}, "b"),
        ((1,), {}, "holder"),
    ],
)
def test_what_annotations_do_not_name_is_refused(
    args: tuple[Any, ...], kwargs: dict[str, Any], path: str
) -> None:
    """Subclasses, other containers, lost keys, broken constraints: refused at submit by path."""
    with pytest.raises(Rejected) as caught:
        encode_args(checked, args, kwargs)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert caught.value.field == path


def test_whole_numbers_have_64_bits_in_messagepack() -> None:
    """JSON has no such limit."""
    with pytest.raises(Rejected) as caught:
        encode_args(untyped, ([2**64],), {})
    assert caught.value.field == "value[0]"
    in_json = untyped.options(codec=JSON)
    assert decode_args(encode_args(in_json, (2**64,), {}), JSON, in_json) == ([2**64], {})


@pytest.mark.parametrize("annotation", [datetime | str, list[int] | set[int], Mixed])
def test_annotations_that_no_format_can_tell_apart_are_refused(annotation: Any) -> None:
    """At the first submit, by the parameter's name, whatever the value is."""

    def take(value: Any) -> None:
        """Takes it."""

    take.__annotations__ = {"value": annotation}
    with pytest.raises(Rejected) as caught:
        encode_args(job(name="t.take")(take), (1,), {})
    assert caught.value.field == "value"
    assert "docs/payloads.md" in caught.value.message


def test_a_value_that_holds_itself_is_refused() -> None:
    """No endless search for what is to blame."""
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(Rejected, match="holds itself"):
        encode_args(untyped, (loop,), {})


def test_a_job_known_by_name_leaves_the_check_to_the_worker() -> None:
    """Its worker's annotations decide what a UUID is to be there."""
    elsewhere = named("t.everything")
    payload = encode_args(elsewhere, ({"x": 1}, {"id": uuid.UUID(int=1)}), {})
    with pytest.raises(Rejected) as caught:
        decode_args(payload, "", everything)
    assert caught.value.field == "order"
