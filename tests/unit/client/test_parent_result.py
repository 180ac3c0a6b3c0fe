"""Results of other jobs as arguments: they travel in every codec and arrive as annotated."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest

from tenure.client import Reason, Rejected, job
from tenure.client.codec import JSON, MSGPACK, decode_args, encode_args, encode_result
from tenure.client.content_type import register_codec
from tenure.client.flow import result_of, results_of
from tenure.client.job import JobDef
from tenure.client.parent_result import Results, ResultsNeeded, parents_of
from tenure.protocol.ids import mint
from tenure.protocol.vocabulary import JobState
from tenure.v1 import common_pb2, jobs_pb2

A, B = mint(0, 1, 1), mint(0, 1, 2)


class _Turned:
    """A codec of a user's: JSON, backwards."""

    content_type = "application/vnd.t.turned"
    version = 1

    def encode(self, data: Any, /) -> bytes:
        return json.dumps(data).encode()[::-1]

    def decode(self, payload: bytes, /) -> Any:
        return json.loads(payload[::-1])


TURNED = register_codec(_Turned())


@job(name="t.source")
def source() -> tuple[int, ...]:
    """Gives what only an annotation tells from a list."""
    return (1, 2)


@job(name="t.one")
def one(pair: tuple[int, ...], other: str = "x") -> None:
    """Takes one result."""


@job(name="t.all")
def every(pairs: list[tuple[int, ...]]) -> None:
    """Takes several."""


@job(name="t.lazy")
def lazily(pairs: Iterable[tuple[int, ...]], **rest: int) -> None:
    """Takes several one by one."""


class _Handle:
    def __init__(self, id: str) -> None:
        self.id = id


class _Store(Results):
    """Results at hand."""

    def __init__(self, content_type: str) -> None:
        self.asked: list[list[str]] = []
        self.found: dict[str, jobs_pb2.JobResult] = {
            each: jobs_pb2.JobResult(
                job_id=each,
                state=int(JobState.COMPLETED),  # type: ignore[arg-type]
                result=encode_result((1, 2), source, content_type),
                content_type=content_type,
            )
            for each in (A, B)
        }

    def fetch(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        self.asked.append([*job_ids])
        return [self.found[job_id] for job_id in job_ids]

    async def fetch_async(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        return self.fetch(job_ids)


def _handle(id: str) -> Any:
    return _Handle(id)


def _travel(defined: JobDef[..., Any], store: _Store, *args: Any, **kwargs: Any) -> Any:
    payload = encode_args(defined, args, kwargs)
    return decode_args(payload, defined.settings.content_type, defined, store)


@pytest.mark.parametrize("codec", [MSGPACK, JSON, TURNED])
@pytest.mark.parametrize("parents", [MSGPACK, JSON, TURNED])
def test_results_arrive_as_annotated_in_every_codec(codec: str, parents: str) -> None:
    """A tuple stays a tuple, whatever codec the parent and the child have."""
    store = _Store(parents)
    child = one.options(codec=codec)
    got = _travel(child, store, result_of(_handle(A)), other="y")
    assert got == ([(1, 2)], {"other": "y"})
    got = _travel(child, store, pair=result_of(_handle(A)))
    assert got == ([], {"pair": (1, 2)})
    got = _travel(every.options(codec=codec), store, results_of([_handle(A), _handle(B)]))
    assert got == ([[(1, 2), (1, 2)]], {})


def test_an_iterator_fetches_as_it_is_asked() -> None:
    """A parameter that is iterated over costs nothing before its first item is asked for."""
    store = _Store(MSGPACK)
    (pairs,), _ = _travel(lazily, store, results_of([_handle(A), _handle(B)]))
    assert isinstance(pairs, Iterator)
    assert store.asked == []
    assert [*pairs] == [(1, 2), (1, 2)]


def test_a_result_that_is_gone_is_refused_with_its_argument() -> None:
    """Who has lost a result, failed, or came to something else is named, with the argument."""
    store = _Store(MSGPACK)
    store.found[A].refusal.CopyFrom(common_pb2.Refusal(reason="RESULT_EXPIRED", message="purged"))
    with pytest.raises(Rejected) as gone:
        _travel(one, store, result_of(_handle(A)))
    assert (gone.value.reason, gone.value.field) == (Reason.RESULT_EXPIRED, "pair")
    assert A in gone.value.message
    store.found[B].state = int(JobState.FAILED)  # type: ignore[assignment]
    with pytest.raises(Rejected, match="it is FAILED, so it has none"):
        _travel(one, store, result_of(_handle(B)))
    store.found[B].state = int(JobState.COMPLETED)  # type: ignore[assignment]
    store.found[B].result = b"\xa1a"
    with pytest.raises(Rejected, match="Expected `array`"):
        _travel(one, store, result_of(_handle(B)))


def test_nothing_is_taken_for_a_placeholder() -> None:
    """Without results at hand they are asked for by name; a part of an argument is none."""
    payload = encode_args(one, (result_of(_handle(A)),), {})
    with pytest.raises(ResultsNeeded) as needed:
        decode_args(payload, MSGPACK, one)
    assert needed.value.job_ids == [A]
    assert [*parents_of((1, result_of(_handle(A))), {"k": results_of([_handle(B)])})] == [A, B]
    with pytest.raises(Rejected) as nested:
        encode_args(every, ([result_of(_handle(A))],), {})
    assert nested.value.field.startswith("pairs[0]")
    with pytest.raises(Rejected, match="a handle or a job's id"):
        result_of(_handle("nonsense"))
