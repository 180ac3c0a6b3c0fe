"""Flows: which jobs a chain, a group and a chord come to, and what they wait for."""

from typing import Any, cast

import pytest

from tenure.client import Reason, Rejected, chain, chord, group, job
from tenure.client.flow import lay
from tenure.client.handle import AsyncJobHandle
from tenure.client.job import Flow, JobDef
from tenure.client.parent_result import parents_of
from tenure.protocol.ids import mint
from tenure.protocol.limits import PARENTS_MAX


@job(name="t.step")
def step(number: int) -> int:
    """One of many."""
    return number


@job(name="t.total")
def total(numbers: list[int]) -> int:
    """What comes behind a group."""
    return sum(numbers)


class Laid:
    """Takes the jobs of a flow, and notes which of them each waits for."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, list[int]]] = []
        self._places: dict[str, int] = {}

    def add(self, job: JobDef[..., Any], /, *args: Any, **kwargs: Any) -> AsyncJobHandle[Any]:
        """Takes a job."""
        parents = [self._places[parent] for parent in parents_of(args, kwargs)]
        job_id = mint(0, 1, len(self.jobs))
        self._places[job_id] = len(self.jobs)
        self.jobs.append((job.name, parents))
        return AsyncJobHandle(cast("Any", None), job_id, job.name, job)


def laid(flow: Flow[Any]) -> list[tuple[str, list[int]]]:
    """The jobs of a flow in the order in which they are added: (name, places of its parents)."""
    into = Laid()
    lay(flow, into)
    return into.jobs


def test_a_chain_hands_each_result_on() -> None:
    """Each job waits for the one before it, whose result is its argument."""
    assert laid(chain(step.bind(1), step, step)) == [
        ("t.step", []),
        ("t.step", [0]),
        ("t.step", [1]),
    ]


def test_a_group_is_side_by_side() -> None:
    """None waits for another; a member that is a chain is one within itself."""
    flow = group([step.bind(1), chain(step.bind(2), step)])
    assert laid(flow) == [("t.step", []), ("t.step", []), ("t.step", [1])]


def test_a_chord_waits_for_all() -> None:
    """Its callback gets the results of the ends of all its members, in order."""
    flow = chord([chain(step.bind(1), step), step.bind(2)], total)
    assert laid(chain(flow, step)) == [
        ("t.step", []),
        ("t.step", [0]),
        ("t.step", []),
        ("t.total", [1, 2]),
        ("t.step", [3]),
    ]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: group([]), "group"),
        (lambda: group([step]), "group[0]"),
        (lambda: group([step.bind(1), group([step.bind(2)])]), "group[1]"),
        (lambda: chain(step), "chain[0]"),
        (lambda: chain(step.bind(1), step.bind(2)), "chain[1]"),
        (lambda: chord([step.bind(1)], total.bind([1])), "callback"),
        (lambda: chord([step.bind(n) for n in range(PARENTS_MAX + 1)], total), "group"),
    ],
)
def test_what_is_no_flow_is_refused_where_it_is_written(make: Any, field: str) -> None:
    """Before anything is sent, and it says which part is wrong; a chord has its limit, too."""
    with pytest.raises(Rejected) as refused:
        make()
    assert (refused.value.reason, refused.value.field) == (Reason.INVALID_ARGUMENT, field)
