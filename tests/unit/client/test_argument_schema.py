"""What a job takes, as its workers publish it, and who is refused by it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.client import AsyncClient, Reason, Rejected, job, named
from tenure.client.argument_schema import check_call, schema_of
from tenure.client.codec import decode_args, encode_args
from tenure.protocol.limits import ARGUMENT_SCHEMA_BYTES_MAX
from tests.unit.client.fake_master import FakeCluster
from tests.unit.client.test_client import play


@dataclass
class Line:
    """A part of an argument."""

    sku: str
    amount: int = 1


@job
def order(id: UUID, lines: list[Line], due: datetime | None = None, *, kind: Kind = "new") -> None:
    """A job with arguments of several types."""


@job
def add_up(first: float, *more: int, **named_ones: bool) -> None:
    """A job that takes more than it names."""


@job
def anything(value, other: Iterable[int] = ()) -> None:  # type: ignore[no-untyped-def]
    """A job without annotations that a schema knows."""


Kind = Literal["new", "old"]
SCHEMA = json.loads(schema_of(order.signature))
ID = "12345678-1234-5678-1234-567812345678"


def flaw_of(*args: Any, **kwargs: Any) -> tuple[str, str] | None:
    """Where a call of ``order`` is refused, and why."""
    try:
        check_call(SCHEMA, "order", args, kwargs)
    except Rejected as error:
        refused = error
    else:
        return None
    assert refused.reason is Reason.INVALID_ARGUMENT
    assert refused.metadata == {"job": "order", "path": refused.field}
    return refused.field or "", refused.message.partition(f"{refused.field}: ")[2]


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((ID, []), {}),
        ((ID, [{"sku": "a"}, {"sku": "b", "amount": 2, "new": 1}], None), {"kind": "old"}),
        ((), {"lines": [], "id": ID, "due": "2026-01-31T00:00:00Z"}),
        # What is no plain data is the worker's to judge, and so are forms of dates and ids.
        ((UUID(ID), [Line("a")], datetime(2026, 1, 31, tzinfo=UTC)), {}),
        (("no id at all", [{"sku": "a", "amount": 3.0}]), {}),
    ],
)
def test_what_may_fit_passes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Given by position or by name, with defaults left out."""
    assert flaw_of(*args, **kwargs) is None


@pytest.mark.parametrize(
    ("args", "kwargs", "path", "why"),
    [
        ((ID,), {}, "lines", "it is missing"),
        ((ID, [], None, "new"), {}, "args[3]", "there are 3 by position at most"),
        ((ID, []), {"id": ID}, "id", "it is given twice, by position and by name"),
        ((ID, []), {"color": 1}, "color", "there is no such argument; there are id, lines, due"),
        ((ID, {}), {}, "lines", "expected array, got object"),
        ((ID, [{"sku": "a", "amount": "two"}]), {}, "lines[0].amount", "expected integer, got str"),
        ((ID, [{"sku": "a"}, {}]), {}, "lines[1].sku", "it is missing"),
        ((ID, [], True), {}, "due", "expected"),
        ((ID, []), {"kind": "odd"}, "kind", "expected one of"),
        ((ID, [{"sku": "a", "amount": True}]), {}, "lines[0].amount", "expected integer, got bool"),
        ((None, []), {}, "id", "expected string, got null"),
    ],
)
def test_what_cannot_fit_is_refused_by_its_path(
    args: tuple[Any, ...], kwargs: dict[str, Any], path: str, why: str
) -> None:
    """With what was expected there."""
    flaw = flaw_of(*args, **kwargs)
    assert flaw is not None
    assert flaw[0] == path
    assert flaw[1].startswith(why)


def test_more_arguments_than_have_names() -> None:
    """``*args`` and ``**kwargs`` have types of their own; an int is a float, a float no int."""
    schema = json.loads(schema_of(add_up.signature))
    check_call(schema, "add_up", (1, 2, 3), {"x": True})
    for args, kwargs, path in [
        ((1, 2, "3"), {}, "args[2]"),
        ((1,), {"x": 1}, "x"),
        ((1, 2.5), {}, "args[1]"),
    ]:
        with pytest.raises(Rejected) as refused:
            check_call(schema, "add_up", args, kwargs)  # type: ignore[arg-type]
        assert refused.value.field == path


def test_what_cannot_be_told_is_left_out() -> None:
    """A parameter of any type or of one that no schema knows; a job that is too much to tell."""
    schema = json.loads(schema_of(anything.signature))
    check_call(schema, "anything", ({"a": [object()]}, "whatever"), {})
    wide = msgspec.defstruct("Wide", [(f"field_{n}", int) for n in range(2_000)])

    @job(name="wide")
    def take(value: object) -> None: ...

    take.fn.__annotations__["value"] = wide
    assert schema_of(take.signature) == ""
    assert len(schema_of(order.signature)) <= ARGUMENT_SCHEMA_BYTES_MAX


#: Types, and values that are of them or of others.
HINTS: Sequence[Any] = (
    *(int, float, str, bool, None, bytes, datetime, UUID, Decimal, Line, Kind, Any),
    *(list[int], tuple[int, str], dict[str, int], set[str], int | None, list[Line] | None),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.sampled_from([ID, "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["sku", "amount", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(hint=st.sampled_from(HINTS), value=VALUES, codec=st.sampled_from(["msgpack", "json"]))
def test_nothing_is_refused_that_a_worker_takes(hint: Any, value: Any, codec: str) -> None:
    """Whatever the annotation and the value are: what decodes at the worker passes the check."""

    def take(value: object) -> None: ...

    take.__annotations__["value"] = hint
    taker = job(name="take", codec=f"application/{codec}")(take)
    asker = named("take", codec=f"application/{codec}")
    payload = encode_args(asker, (value,), {})
    try:
        decode_args(payload, taker.settings.content_type, taker)
    except Rejected:
        return
    check_call(json.loads(schema_of(taker.signature)), "take", (value,), {})


def test_a_client_asks_once_in_a_while() -> None:
    """For jobs that it knows by their names only, however many are submitted; for others never."""
    cluster = FakeCluster()
    cluster.schemas["order"] = schema_of(order.signature)

    async def work(client: AsyncClient) -> None:
        for _ in range(5):
            await client.submit(named("order"), ID, [])
            await client.submit(order, UUID(ID), [])
        with pytest.raises(Rejected):
            await client.submit(named("order"), ID, 7)
        with pytest.raises(Rejected):
            await client.submit_many(named("order"), [(ID, []), (ID,)])
        assert len(cluster.jobs) == 10
        assert asked(cluster) == 1
        await cluster.pass_time(31)
        await client.submit(named("order"), ID, [])
        assert asked(cluster) == 2

    play(cluster, work)


def asked(cluster: FakeCluster) -> int:
    """How often a master was asked for a schema."""
    return sum(method == "GetArgumentSchema" for _, method in cluster.calls)


@pytest.mark.parametrize("schema", ["", "no JSON", "[]", "{}", '{"properties": {"a": true}}', "7"])
def test_what_is_no_schema_of_ours_refuses_nothing(schema: str) -> None:
    """A worker in another language may say what it likes, and one of before says nothing."""
    cluster = FakeCluster()
    cluster.schemas["order"] = schema

    async def work(client: AsyncClient) -> None:
        await client.submit(named("order"), 1, a=2)

    play(cluster, work)


def test_a_master_that_cannot_say_refuses_nothing() -> None:
    """One of an earlier release does not know the call."""
    cluster = FakeCluster()
    cluster.schemas = Unknowing()

    async def work(client: AsyncClient) -> None:
        await client.submit(named("order"), 1)

    play(cluster, work)


class Unknowing(dict[str, str]):
    """What a master of an earlier release has of schemas."""

    def get(self, *_: object) -> str:  # type: ignore[override]
        """As gRPC does."""
        raise Rejected("expected a known method", reason=Reason.INVALID_ARGUMENT)
