"""Batch handlers as their users define and submit them."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
import pytest

from tenure.client import AsyncBatchJob, BatchJob, Permanent, current_batch, job
from tenure.client.argument_schema import schema_of
from tenure.client.codec import decode_args, decode_result, encode_args, encode_result
from tenure.protocol.errors import Rejected


class Row(msgspec.Struct):
    """An item."""

    key: str
    number: int


@job(name="store", batch=100, linger_ms=20)
def store(rows: list[Row]) -> list[int | Exception]:
    """A batch handler."""
    return [row.number for row in rows]


@job(name="store_async", batch=2)
async def store_async(rows: Sequence[Row]) -> list[int]:
    """The same, of coroutines."""
    return [row.number for row in rows]


@job(name="loose", batch=2)
def loose(items):  # type: ignore[no-untyped-def]
    """Says nothing of its items."""
    return items


def test_definition_knows_its_calls_and_is_called_like_its_function() -> None:
    """``batching`` has size and linger, whatever options it is given; calling it calls."""
    assert isinstance(store, BatchJob)
    assert isinstance(store_async, AsyncBatchJob)
    assert store.batching == (100, 20)
    assert store_async.batching == (2, 50)
    tuned = store.options(priority=1, key="k")
    assert tuned.batching == store.batching
    assert tuned([Row("a", 3)]) == [3]
    assert current_batch() == ()


@pytest.mark.parametrize("definition", [store, store_async])
def test_one_item_travels(definition: Any) -> None:
    """A submit has one item, typed as the list's; a result is one outcome without its errors."""
    payload = encode_args(definition, (Row("a", 3),), {})
    assert decode_args(payload, "", definition) == ([Row("a", 3)], {})
    assert decode_args(encode_args(definition, (), {"item": Row("b", 1)}), "", definition) == (
        [],
        {"item": Row("b", 1)},
    )
    result = encode_result(7, definition, "")
    assert decode_result(result, "", definition) == 7


def test_wrong_items_and_results_are_refused_with_their_paths() -> None:
    """As a single job's arguments are."""
    with pytest.raises(Rejected) as wrong:
        encode_args(store, (Row("a", "b"),), {})  # type: ignore[arg-type]
    assert wrong.value.field == "item.number"
    with pytest.raises(Rejected, match="too many"):
        encode_args(store, (Row("a", 1), Row("b", 2)), {})
    with pytest.raises(Rejected) as result:
        encode_result("seven", store, "")
    assert result.value.field == "result"


def test_items_without_annotations_are_taken_as_they_come() -> None:
    """The same as for any job."""
    assert decode_args(encode_args(loose, ({"a": 1},), {}), "", loose) == ([{"a": 1}], {})


def test_schema_is_of_one_item() -> None:
    """Who submits by name is told what an item looks like."""
    schema = msgspec.json.decode(schema_of(store.signature))
    assert schema["x-positional"] == schema["required"] == ["item"]
    assert schema["properties"]["item"] == {"$ref": "#/$defs/Row"}


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"batch": 0}, "batch"),
        ({"batch": 1_001}, "batch"),
        ({"batch": True}, "batch"),
        ({"batch": 2, "linger_ms": -1}, "linger_ms"),
        ({"batch": 2, "linger_ms": 60_001}, "linger_ms"),
        ({"linger_ms": 5}, "linger_ms"),
        ({"batch": 2, "executor": "process"}, "executor"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], field: str) -> None:
    """Refused where the job is defined, naming the setting."""
    with pytest.raises(Rejected) as refused:
        job(name="bad", **settings)(lambda items: items)
    assert refused.value.field == field


def _two(items: list[int], more: int) -> list[int]:
    return items


def _none() -> list[int]:
    return []


def _named(*, items: list[int]) -> list[int]:
    return items


@pytest.mark.parametrize("function", [_two, _none, _named])
def test_function_takes_one_list(function: Callable[..., Any]) -> None:
    """Anything else is refused where it is defined."""
    with pytest.raises(Rejected) as refused:
        job(name="bad", batch=2)(function)
    assert refused.value.field == "fn"


def _no_list(items: int) -> list[int]:
    return []


def _no_outcomes(items: list[int]) -> int:
    return 0


@pytest.mark.parametrize("function", [_no_list, _no_outcomes])
def test_annotations_are_of_lists(function: Callable[..., Any]) -> None:
    """What one item would be cannot be guessed."""
    definition = job(name="bad", batch=2)(function)
    with pytest.raises(Rejected, match="annotated with a list of") as refused:
        encode_args(definition, (1,), {})
    assert refused.value.field == "annotations"


def _noted(items: Annotated[list[int], "many"]) -> Annotated[list[str | None], "one each"]:
    return []


def _failing(items: list[int]) -> list[Permanent | ValueError]:
    return []


def test_what_an_outcome_may_be_beside_errors() -> None:
    """Notes are passed over; a handler of errors only has no result."""
    noted = job(name="noted", batch=2)(_noted)
    assert noted.signature.hint_of("item") is int
    assert noted.signature.hint_of("return") == (str | None)
    failing = job(name="failing", batch=2)(_failing)
    assert failing.signature.hint_of("return") is type(None)
