"""Batch handlers: ``@job(batch=100, linger_ms=50)``, one call of a function for many jobs.

Each job is an *item* of its own: submitted alone, retried alone, with a result of its own. The
function takes the list of the items that a worker has collected, and returns a list of what came
of each, in the same order: a value, or an exception that the item alone is to fail with.
"""

# Values of any type are looked at here, so that the type of their parts is not known.
# pyright: reportUnknownArgumentType=none, reportUnknownMemberType=none
# pyright: reportUnknownVariableType=none

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Iterable, Sequence
from contextvars import ContextVar
from types import NoneType, UnionType
from typing import Annotated, Any, Final, NamedTuple

from tenure.client.context import JobContext
from tenure.client.errors import invalid
from tenure.client.signature import Signature
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason

__all__ = ["BATCH_MAX", "LINGER_MS_MAX", "Batching", "ItemSignature", "current_batch"]

#: Most items of one call.
BATCH_MAX: Final = 1_000
#: How long a job may be made to wait for company.
LINGER_MS_MAX: Final = 60_000
LINGER_MS_DEFAULT: Final = 50
#: What a call of one job has as its only argument, for those who name it.
ITEM: Final = "item"
#: What the parameter of a batch handler may be annotated with.
_LISTS: Final = (list, Sequence, Collection, Iterable)
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Batching(NamedTuple):
    """How jobs are put together.

    Attributes:
        size: Most items of one call.
        linger_ms: How long the first item waits for others.
    """

    size: int
    linger_ms: int

    @classmethod
    def checked(cls, size: int, linger_ms: int | None) -> Batching:
        """From what ``@job`` was given.

        Raises:
            Rejected: One is out of range; ``field`` names it.
        """
        linger_ms = LINGER_MS_DEFAULT if linger_ms is None else linger_ms
        if not _is_whole(size) or not 1 <= size <= BATCH_MAX:
            raise invalid("batch", f"from 1 to {BATCH_MAX:,} jobs a call, got {size!r}")
        if not _is_whole(linger_ms) or not 0 <= linger_ms <= LINGER_MS_MAX:
            raise invalid("linger_ms", f"from 0 to {LINGER_MS_MAX:,} ms, got {linger_ms!r}")
        return cls(size, linger_ms)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _one_job(item: Any) -> Any:
    """What a call of one job looks like."""


class ItemSignature(Signature):
    """What one job of a batch handler takes and returns: an item and its own outcome."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        """Looks at the parameters only.

        Raises:
            Rejected: The function does not take one list.
        """
        parameters = [*inspect.signature(function).parameters.values()]
        if len(parameters) != 1 or parameters[0].kind not in _POSITIONAL:
            raise invalid("fn", f"a function of one list of items, got {name}, which takes others")
        super().__init__(name, _one_job)
        self._function = function
        self._parameter_name = parameters[0].name
        self._of_one: dict[str, Any] | None = None

    def _types(self) -> dict[str, Any]:
        if self._of_one is None:
            told = super()._types()
            self._of_one = {
                ITEM: self._part(told.get(self._parameter_name, Any), "items"),
                "return": _value(self._part(told.get("return", Any), "outcomes")),
            }
        return self._of_one

    def _part(self, hint: Any, what: str) -> Any:
        if typing.get_origin(hint) is Annotated:
            hint = typing.get_args(hint)[0]
        if hint in (Any, object) or hint in _LISTS:
            return Any
        if typing.get_origin(hint) in _LISTS:
            return typing.get_args(hint)[0]
        raise Rejected(
            f"expected batch handler {self.name} to be annotated with a list of {what}, as in "
            f"list[…], got {hint!r}",
            reason=Reason.INVALID_ARGUMENT,
            metadata={"job": self.name},
            field="annotations",
        )


def _value(hint: Any) -> Any:
    """Of what may come of an item the part that is a result."""
    members = typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else (hint,)
    values = [member for member in members if not _is_error(member)]
    return typing.Union[tuple(values)] if values else NoneType  # noqa: UP007  (made at run time)


def _is_error(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseException)


_UNIONS: Final = (typing.Union, UnionType)

#: The contexts, or what makes them.
_current: Final[ContextVar[Sequence[JobContext] | Callable[[], Sequence[JobContext]]]] = ContextVar(
    "tenure_current_batch", default=()
)


def current_batch() -> Sequence[JobContext]:
    """Inside a batch handler the contexts of its items, in their order; elsewhere none.

    Each has its own id, attempt, fence, deadline, ``cancelled`` and ``checkpoint()``.
    """
    current = _current.get()
    if callable(current):
        current = current()
        _current.set(current)
    return current


def enter_batch(make: Callable[[], Sequence[JobContext]]) -> None:
    """Gives the running ``contextvars.Context``, which must be the call's own, to a batch."""
    _current.set(make)
