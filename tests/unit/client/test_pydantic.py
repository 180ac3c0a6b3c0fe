"""Pydantic's models travel beside everything else, and pydantic is not needed for the rest."""

import subprocess
import sys
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    PrivateAttr,
    RootModel,
    SecretStr,
    computed_field,
)

from tenure.client import Reason, Rejected, job
from tenure.client.codec import (
    JSON,
    MSGPACK,
    decode_args,
    decode_result,
    encode_args,
    encode_result,
)

T = TypeVar("T")


@dataclass
class Plain:
    """A dataclass inside a model."""

    n: int


class Item(BaseModel):
    """Of many types."""

    id: uuid.UUID
    tags: set[str] = set()
    price: Decimal = Decimal("1.10")
    size: tuple[int, float] = (1, 0.5)
    at: datetime | None = None
    wait: timedelta = timedelta(0)
    text: str = Field(default="", alias="words")
    file: Path | None = None
    host: IPv4Address | None = None
    url: HttpUrl | None = None
    plain: Plain | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> Decimal:
        """Computed anew on arrival."""
        return self.price * 2


class Strict(BaseModel):
    """Takes no text for a UUID, but what arrives is text."""

    model_config = ConfigDict(strict=True, frozen=True)

    id: uuid.UUID
    numbers: frozenset[int]


class Cat(BaseModel):
    """One side of a union."""

    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    """The other."""

    kind: Literal["dog"] = "dog"
    name: str


class Pet(RootModel[Cat | Dog]):
    """A union of models needs a root."""


class Page(BaseModel, Generic[T]):
    """A generic model."""

    rows: list[T]


class Order(msgspec.Struct):
    """A Struct that holds models."""

    items: list[Item]
    strict: Strict | None = None


@job(name="t.mixed")
def mixed(item: Item, order: Order, plain: Plain, pet: Pet, page: Page[Strict]) -> Order:
    """Takes one of each."""
    return order


items = st.builds(
    Item,
    id=st.uuids(),
    tags=st.sets(st.text(max_size=5), max_size=3),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    size=st.tuples(st.integers(-(2**63), 2**63), st.floats(allow_nan=False, allow_infinity=False)),
    at=st.none() | st.datetimes(timezones=st.just(UTC)),
    wait=st.timedeltas(timedelta(days=-1000), timedelta(days=1000)),
    words=st.text(max_size=5),
    file=st.none() | st.just(Path("a/b")),
    host=st.none() | st.ip_addresses(v=4),
    url=st.none() | st.just(HttpUrl("https://example.org/a?b=c")),
    plain=st.none() | st.builds(Plain, st.integers(0, 9)),
)
stricts = st.builds(Strict, id=st.uuids(), numbers=st.frozensets(st.integers(0, 9)))


@pytest.mark.parametrize("codec", [MSGPACK, JSON])
def test_models_round_trip_beside_structs_and_dataclasses(codec: str) -> None:
    """Models, models in Structs, dataclasses in models, roots and generics come back equal."""
    mixed_in = mixed.options(codec=codec)

    @given(item=items, strict=stricts, pet=st.sampled_from([Cat(), Dog(name="rex")]))
    def round_trip(item: Item, strict: Strict, pet: Cat | Dog) -> None:
        order = Order([item], strict)
        args = (item, order, Plain(1), Pet(pet), Page[Strict](rows=[strict]))
        got, _ = decode_args(encode_args(mixed_in, args, {}), codec, mixed_in)
        assert got == [*args]
        assert [type(value) for value in got] == [type(value) for value in args]
        result = decode_result(encode_result(order, mixed_in, codec), codec, mixed_in)
        assert result == order

    round_trip()


class Renamed(BaseModel):
    """Reads another name than it writes."""

    x: int = Field(validation_alias="read", serialization_alias="written")


class Secret(BaseModel):
    """Dumps stars."""

    password: SecretStr


class Hidden(BaseModel):
    """Has state that is no field."""

    x: int = 0
    _y: int = PrivateAttr(0)


class Loose(BaseModel):
    """Takes anything."""

    value: Any = None
    at: datetime | None = None


class Sub(Cat):
    """Has more fields than what is annotated."""

    lives: int = 9


def hidden() -> Hidden:
    """A model whose private attribute has been changed."""
    model = Hidden()
    model._y = 7
    return model


@pytest.mark.parametrize("codec", [MSGPACK, JSON])
@pytest.mark.parametrize(
    ("value", "annotation", "path"),
    [
        (Renamed(read=1), Renamed, "value"),
        (Secret(password=SecretStr("x")), Secret, "value.password"),
        (hidden(), Hidden, "value._y"),
        (Loose(value=(1, 2)), Loose, "value.value"),
        (Loose(at=datetime(2026, 1, 1)), Loose, "value.at"),  # noqa: DTZ001
        (Sub(), Cat, "value"),
        ({"kind": "cat"}, Cat, "value"),
        (Cat(), Cat | Dog, "value"),
        ([Cat()], list[Dog], "value[0]"),
    ],
)
def test_a_model_that_would_change_is_refused(
    value: Any, annotation: Any, path: str, codec: str
) -> None:
    """Nothing arrives as another model than it was; the path says where it would."""

    def take(value: Any) -> None:
        """Takes it."""

    take.__annotations__ = {"value": annotation}
    with pytest.raises(Rejected) as caught:
        encode_args(job(name="t.take", codec=codec)(take), (value,), {})
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert caught.value.field == path


def test_bytes_in_a_model_need_no_setting() -> None:
    """MessagePack has bytes, so a model's need not be text."""

    class Raw(BaseModel):
        """Holds bytes."""

        data: bytes

    def take(value: Any) -> None:
        """Takes it."""

    take.__annotations__ = {"value": Raw}
    taking = job(name="t.raw")(take)
    payload = encode_args(taking, (Raw(data=b"\xff\x00"),), {})
    assert decode_args(payload, MSGPACK, taking) == ([Raw(data=b"\xff\x00")], {})


def test_a_payload_that_a_model_refuses_names_the_argument() -> None:
    """Another client's payload is validated, and the error has the model's own path."""
    payload = msgspec.msgpack.encode([[{"id": "no uuid"}], {}])

    @job(name="t.item")
    def take(item: Item) -> None:
        """Takes it."""

    with pytest.raises(Rejected, match="id: Input should be a valid UUID") as caught:
        decode_args(payload, MSGPACK, take)
    assert caught.value.field == "item"


def test_pydantic_is_imported_by_its_users_only() -> None:
    """Jobs without models are submitted without it."""
    program = """
import sys
from tenure.client import job
from tenure.client.codec import encode_args
from tenure.worker import app
@job(name="t")
def take(x: list[int]) -> None: ...
encode_args(take, ([1],), {})
sys.exit("pydantic" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
