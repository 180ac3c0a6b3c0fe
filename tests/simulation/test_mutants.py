"""The planted bugs strike: what each of them replaces is what a random run calls."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from tenure.master.node.sizes import LogSizes
from tests.mutants.catalogue import MUTANTS
from tests.simulation.swarm import Plan, draw_plan, simulate

#: On etcd: leaders change and a full store frees itself; on SQLite: the disk is slow.
SEEDS = range(40)


def plans() -> list[Plan]:
    """The first plans that are drawn for each store, with a log that is cut early."""
    drawn = [draw_plan(seed) for seed in SEEDS]
    etcd = [plan for plan in drawn if plan.store == "etcd"][:2]
    sqlite = [plan for plan in drawn if plan.store == "sqlite"][:1]
    sizes = LogSizes(batch_bytes=200, log_bytes_min=1_000, slice_rows=8)
    return [replace(plan, log_sizes=sizes) for plan in etcd] + sqlite


def test_each_bug_replaces_what_runs_call() -> None:
    """No bug is planted where nobody comes by: that would prove nothing."""
    with ExitStack() as stack:
        spies = {
            name: stack.enter_context(mutant.planted(spying=True))
            for name, mutant in MUTANTS.items()
        }
        for plan in plans():
            assert simulate(plan.seed, plan=plan).violations == []
    unused = {
        name: [place for place, calls in spy.calls.items() if not calls]
        for name, spy in spies.items()
    }
    assert {name: places for name, places in unused.items() if places} == {}


def test_a_bug_is_gone_after_its_block() -> None:
    """What was replaced is what it was."""
    plan = plans()[0]
    whole = simulate(plan.seed, plan=plan).digest()
    for mutant in MUTANTS.values():
        with mutant.planted():
            pass
    assert simulate(plan.seed, plan=plan).digest() == whole


def test_there_are_nineteen() -> None:
    """All of the list that exist so far, each with its story."""
    assert len(MUTANTS) == 19
    assert all(mutant.story.endswith(".") for mutant in MUTANTS.values())
