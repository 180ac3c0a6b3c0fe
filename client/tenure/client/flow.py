"""What is started as a whole: steps, chains, groups and chords; and results as arguments.

```
 chain(a, b, c)      a ─► b ─► c              each gets the result of the one before
 group([a, b])       a    b                   side by side
 chord([a, b], c)    a ─┬─► c                 c gets the results of all, in order
                     b ─┘
```
"""

# Flows of any type are taken apart here.
# pyright: reportUnknownArgumentType=none, reportUnknownMemberType=none
# pyright: reportUnknownVariableType=none

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Final, Protocol, TypeVar, cast, overload

from tenure.client.errors import invalid
from tenure.client.handle import AsyncJobHandle
from tenure.client.job import Flow, JobDef, Step
from tenure.client.parent_result import placeholder
from tenure.protocol.limits import PARENTS_MAX

if TYPE_CHECKING:
    from tenure.client.sync import JobHandle

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
R = TypeVar("R")
S = TypeVar("S")
R_co = TypeVar("R_co", covariant=True)


class Adds(Protocol):
    """Where the jobs of a flow go."""

    def add(self, job: JobDef[..., R], /, *args: Any, **kwargs: Any) -> AsyncJobHandle[R]:
        """Adds a job; its parents are those whose results its arguments stand for."""
        ...


def result_of(handle: AsyncJobHandle[R] | JobHandle[R]) -> R:
    """Stands for a job's result where another job's arguments are given.

    That other job runs after it, and gets the result as its own annotation says. Type checkers
    take it for the result itself, so a wrong argument is found where it is written. It must be a
    whole argument, not a part of one.
    """
    return cast("R", placeholder(handle.id))


def results_of(handles: Iterable[AsyncJobHandle[R] | JobHandle[R]]) -> list[R]:
    """Stands for several jobs' results, in order.

    A parameter that is an ``Iterable`` or an ``Iterator`` gets them piece by piece, as they are
    asked for; any other one gets a list.
    """
    return cast("list[R]", placeholder([handle.id for handle in handles]))


class Chain(Flow[R_co]):
    """Jobs one after the other; made by ``chain``."""

    def __init__(self, first: Flow[Any], then: Sequence[JobDef[..., Any]]) -> None:
        self.first: Final = first
        self.then: Final = then


class Group(Flow[list[R]]):
    """Jobs side by side; made by ``group``."""

    def __init__(self, members: Iterable[Flow[R]]) -> None:
        self.members: Final = [*members]
        if not self.members:
            raise invalid("group", "one member at least, got none")
        for index, member in enumerate(self.members):
            if isinstance(member, Group):
                raise invalid(f"group[{index}]", "a step, a chain or a chord, got a group")


class Chord(Flow[R_co]):
    """A group, and a job for its results; made by ``chord``."""

    def __init__(self, members: Group[Any], callback: JobDef[..., R_co]) -> None:
        self.members: Final = members
        self.callback: Final = callback
        if len(members.members) > PARENTS_MAX:
            raise invalid(
                "group",
                f"at most {PARENTS_MAX} members (make chords of parts, and one of their results), "
                f"got {len(members.members)}",
            )


# A step is what ``bind`` makes; what follows it takes the result as its one argument.
@overload
def chain(a: Flow[A], b: JobDef[Concatenate[A, ...], B], /) -> Chain[B]: ...
@overload
def chain(
    a: Flow[A], b: JobDef[Concatenate[A, ...], B], c: JobDef[Concatenate[B, ...], C], /
) -> Chain[C]: ...
@overload
def chain(
    a: Flow[A],
    b: JobDef[Concatenate[A, ...], B],
    c: JobDef[Concatenate[B, ...], C],
    d: JobDef[Concatenate[C, ...], D],
    /,
) -> Chain[D]: ...
@overload
def chain(
    a: Flow[A],
    b: JobDef[Concatenate[A, ...], B],
    c: JobDef[Concatenate[B, ...], C],
    d: JobDef[Concatenate[C, ...], D],
    e: JobDef[Concatenate[D, ...], E],
    /,
) -> Chain[E]: ...
@overload
def chain(first: Flow[Any], /, *then: JobDef[..., Any]) -> Chain[Any]: ...
def chain(first: Flow[Any], /, *then: JobDef[..., Any]) -> Chain[Any]:
    """Jobs one after the other, each with the result of the one before as its argument.

    Args:
        first: A step (``job.bind(…)``), or another flow.
        *then: Jobs; the first parameter takes the result, others have their defaults.
    """
    for index, job in enumerate(then, 1):
        if not isinstance(job, JobDef):
            raise invalid(f"chain[{index}]", f"a job (only the first one is bound), got {job!r}")
    return Chain(_flow("chain[0]", first), then)


def group(members: Iterable[Flow[R]]) -> Group[R]:
    """Jobs side by side: what they come to is the list of their results, in order.

    Args:
        members: Steps (``job.bind(…)``), chains or chords.
    """
    return Group([_flow(f"group[{index}]", each) for index, each in enumerate(members)])


@overload
def chord(
    members: Group[R] | Iterable[Flow[R]], callback: JobDef[Concatenate[list[R], ...], S]
) -> Chord[S]: ...
@overload
def chord(
    members: Group[R] | Iterable[Flow[R]], callback: JobDef[Concatenate[Iterator[R], ...], S]
) -> Chord[S]: ...
@overload
def chord(
    members: Group[R] | Iterable[Flow[R]], callback: JobDef[Concatenate[AsyncIterator[R], ...], S]
) -> Chord[S]: ...
def chord(members: Group[Any] | Iterable[Flow[Any]], callback: JobDef[..., Any]) -> Chord[Any]:
    """A group, and a job that runs when all of it has completed.

    Args:
        members: A group, or what is to be one (at most 1,000 members).
        callback: Its first parameter gets all results, in order: a list, or, if it is annotated
            as an iterator, piece by piece as it asks for them.
    """
    if not isinstance(callback, JobDef):
        raise invalid("callback", f"a job, got {callback!r}")
    return Chord(members if isinstance(members, Group) else group(members), callback)


def lay(flow: Flow[Any], into: Adds) -> AsyncJobHandle[Any] | list[AsyncJobHandle[Any]]:
    """Adds all jobs of a flow, parents first; gives the one whose result is the flow's, or all."""
    if isinstance(flow, Step):
        return into.add(flow.job, *flow.args, **flow.kwargs)
    if isinstance(flow, Chain):
        last = lay(flow.first, into)
        for job in flow.then:
            last = into.add(job, _stand_in(last))
        return last
    if isinstance(flow, Group):
        laid = [lay(member, into) for member in flow.members]
        return [handle for handle in laid if isinstance(handle, AsyncJobHandle)]
    if isinstance(flow, Chord):
        return into.add(flow.callback, _stand_in(lay(flow.members, into)))
    raise invalid("flow", f"a step, chain, group or chord, got {flow!r}")


def _stand_in(laid: AsyncJobHandle[Any] | list[AsyncJobHandle[Any]]) -> Any:
    if isinstance(laid, AsyncJobHandle):
        return result_of(laid)
    return results_of(laid)


def _flow(where: str, flow: Flow[R]) -> Flow[R]:
    if not isinstance(flow, Flow):
        raise invalid(where, f"a call such as job.bind(1, 2), or another flow, got {flow!r}")
    return flow
