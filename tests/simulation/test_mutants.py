"""The planted bugs strike: what each of them replaces is what a random run calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace

from tenure.master.node.sizes import LogSizes
from tests.mutants.catalogue import MUTANTS
from tests.mutants.patching import Patch
from tests.simulation.swarm import Plan, draw_plan, simulate

#: Random runs that are enough to come by everywhere; most of it is come by in the first few.
SEEDS = range(40)


def plans() -> Iterator[Plan]:
    """Plans as they are drawn, on either store, but with a log that is cut early."""
    sizes = LogSizes(batch_bytes=200, log_bytes_min=1_000, slice_rows=8)
    for seed in SEEDS:
        plan = draw_plan(seed)
        yield replace(plan, log_sizes=sizes) if plan.store == "etcd" else plan


def test_each_bug_replaces_what_runs_call() -> None:
    """No bug is planted where nobody comes by: that would prove nothing."""
    with ExitStack() as stack:
        spies = {
            name: stack.enter_context(mutant.planted(spying=True))
            for name, mutant in MUTANTS.items()
        }
        for plan in plans():
            assert simulate(plan.seed, plan=plan).violations == []
            if not unused(spies):
                break
    assert unused(spies) == {}


def unused(spies: Mapping[str, Patch]) -> dict[str, list[str]]:
    """What of each bug no run has called."""
    found = {
        name: [place for place, calls in spy.calls.items() if not calls]
        for name, spy in spies.items()
    }
    return {name: places for name, places in found.items() if places}


def test_a_bug_is_gone_after_its_block() -> None:
    """What was replaced is what it was."""
    plan = next(plans())
    whole = simulate(plan.seed, plan=plan).digest()
    for mutant in MUTANTS.values():
        with mutant.planted():
            pass
    assert simulate(plan.seed, plan=plan).digest() == whole


def test_there_are_twenty_seven() -> None:
    """All of the list that there is, each with its story."""
    assert len(MUTANTS) == 27
    assert all(mutant.story.endswith(".") for mutant in MUTANTS.values())
