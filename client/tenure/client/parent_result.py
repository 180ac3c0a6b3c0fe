"""Results of other jobs as arguments: ``result_of(handle)`` stands for one until the child starts.

A payload with such arguments has a third part beside ``[args, kwargs]``: which argument stands for
the results of which jobs. Their own places hold None, so that every codec can carry them. The
worker fetches the results when the child starts, and they arrive as its annotations say.
"""

# Values of any type are looked at here, so that the type of their parts is not known.
# pyright: reportUnknownArgumentType=none, reportUnknownMemberType=none
# pyright: reportUnknownVariableType=none

from __future__ import annotations

import collections.abc
import typing
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import msgspec

from tenure.client.content_type import format_of
from tenure.client.errors import Permanent, invalid
from tenure.client.signature import Slot
from tenure.protocol.errors import Rejected, error_of, refusal_from_wire
from tenure.protocol.ids import is_job_id
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import JobState
from tenure.v1 import jobs_pb2

if TYPE_CHECKING:
    from tenure.client.job import JobDef

#: Results that an iterator fetches at once.
PIECE: Final = 100

_LAZY: Final = (collections.abc.Iterator, collections.abc.Iterable)
_ASYNC: Final = (collections.abc.AsyncIterator, collections.abc.AsyncIterable)


class Placeholder:
    """What ``result_of`` and ``results_of`` return, whatever type checkers are told.

    Of a class that no format can pack: as a part of an argument it is refused.
    """

    __slots__ = ("job_ids",)

    def __init__(self, job_ids: str | list[str]) -> None:
        self.job_ids: Final = job_ids

    def __repr__(self) -> str:
        return f"result_of({self.job_ids!r})"


class Results(Protocol):
    """Where the results of parents come from."""

    def fetch(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        """The final states of jobs, in order; waits for them in this thread."""
        ...

    async def fetch_async(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        """The same, in a loop."""
        ...


class _Nowhere:
    """For a trial: each argument is None."""

    def fetch(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        raise NotImplementedError

    async def fetch_async(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        raise NotImplementedError


NOWHERE: Final = _Nowhere()


class ResultsNeeded(Exception):
    """Arguments cannot be decoded before these results are there."""

    def __init__(self, job_ids: list[str]) -> None:
        super().__init__(f"{len(job_ids)} results")
        self.job_ids: Final = job_ids


class Fetched:
    """Results that have been fetched; the others come from where these came from."""

    def __init__(
        self, job_ids: Iterable[str], results: Iterable[jobs_pb2.JobResult], others: Results
    ) -> None:
        self._results: Mapping[str, jobs_pb2.JobResult] = dict(zip(job_ids, results, strict=True))
        self._others = others

    def fetch(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        return [self._results[job_id] for job_id in job_ids]

    async def fetch_async(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        return await self._others.fetch_async(job_ids)


def placeholder(job_ids: str | list[str]) -> Any:
    """Stands for one job's result, or for a list of several jobs' results."""
    for index, job_id in enumerate([job_ids] if isinstance(job_ids, str) else job_ids):
        if not is_job_id(job_id):
            raise invalid(f"result_of[{index}]", f"a handle or a job's id, got {job_id!r}")
    return Placeholder(job_ids)


def slots_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Slot]:
    """Which arguments of a call stand for results."""
    slots: list[Slot] = [
        (index, arg.job_ids) for index, arg in enumerate(args) if type(arg) is Placeholder
    ]
    slots += [(name, arg.job_ids) for name, arg in kwargs.items() if type(arg) is Placeholder]
    return slots


def parents_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[str]:
    """The jobs whose results a call's arguments stand for."""
    if not kwargs and Placeholder not in map(type, args):
        return ()
    return [
        job_id
        for _, named in slots_of(args, kwargs)
        for job_id in ([named] if isinstance(named, str) else named)
    ]


def vacated(arg: Any) -> Any:
    """What an argument's own place holds."""
    return None if type(arg) is Placeholder else arg


class Filling:
    """Puts results where they were stood in for.

    Args:
        job: Whose arguments they are.
        slots: Which ones.
        results: Where they come from; None: nowhere.
    """

    def __init__(
        self, job: JobDef[..., Any], slots: Iterable[Slot], results: Results | None
    ) -> None:
        self._job = job
        self._slots = dict(slots)
        self._results = results
        if self._slots and results is None:
            raise ResultsNeeded(self._needed())

    def __contains__(self, where: int | str) -> bool:
        return where in self._slots

    def value(self, where: int | str) -> Any:
        """The value of an argument."""
        if self._results is NOWHERE:
            return None
        results = cast("Results", self._results)
        named, hint = self._slots[where], self._job.signature.hint(where)
        path = self._job.signature.path(where)
        if isinstance(named, str):
            (result,) = results.fetch([named])
            return decode(result, hint, path)
        kind, element = _container(hint)
        if kind in _ASYNC:
            return _pieces_async(results, named, element, path)
        if kind in _LAZY:
            return _pieces(results, named, element, path)
        values = [decode(result, element, path) for result in results.fetch(named)]
        return values if kind is list else kind(values)

    def _needed(self) -> list[str]:
        """Jobs whose results must be there before a function is called that awaits."""
        needed: dict[str, None] = {}
        for where, named in self._slots.items():
            if isinstance(named, str):
                needed[named] = None
            elif _container(self._job.signature.hint(where))[0] not in _ASYNC:
                needed.update(dict.fromkeys(named))
        return list(needed)


def decode(result: jobs_pb2.JobResult, hint: Any, path: str) -> Any:
    """A parent's result as a value of a type.

    Raises:
        Rejected: There is none, or it is of another type.
    """
    if result.HasField("refusal"):
        gone = error_of(refusal_from_wire(result.refusal))
        raise _missing(result, path, gone.message, gone.reason)
    if int(result.state) != JobState.COMPLETED:
        state = JobState(result.state).name
        raise _missing(result, path, f"it is {state}, so it has none", Reason.WRONG_STATE)
    form = format_of(result.content_type)
    packed = form.open(result.result) if result.result else form.pack(None)
    try:
        return form.unpacker(hint)(packed)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _missing(result, path, str(error), Reason.INVALID_ARGUMENT) from None


def _pieces(results: Results, job_ids: Sequence[str], element: Any, path: str) -> Iterator[Any]:
    for start in range(0, len(job_ids), PIECE):
        for result in results.fetch(job_ids[start : start + PIECE]):
            yield _decode_late(result, element, path)


async def _pieces_async(
    results: Results, job_ids: Sequence[str], element: Any, path: str
) -> AsyncIterator[Any]:
    for start in range(0, len(job_ids), PIECE):
        for result in await results.fetch_async(job_ids[start : start + PIECE]):
            yield _decode_late(result, element, path)


def _decode_late(result: jobs_pb2.JobResult, element: Any, path: str) -> Any:
    """In the job's own code, where a refusal would be one of its errors like others."""
    try:
        return decode(result, element, path)
    except Rejected as error:
        raise Permanent(str(error)) from error


def _container(hint: Any) -> tuple[Any, Any]:
    """How several results are passed, and the type of one of them."""
    origin = typing.get_origin(hint) or hint
    parts = typing.get_args(hint)
    kind = origin if origin in (*_LAZY, *_ASYNC, tuple, set, frozenset) else list
    return kind, parts[0] if parts else Any


def _missing(result: jobs_pb2.JobResult, path: str, why: str, reason: Reason) -> Rejected:
    return Rejected(
        f"expected the result of job {result.job_id} for argument {path}, but {why}",
        reason=reason,
        metadata={"job_id": result.job_id, "path": path},
        field=path,
    )
