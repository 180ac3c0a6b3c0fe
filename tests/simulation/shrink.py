"""The smallest part of a plan that still fails: fewer faults first, then fewer users.

Each try plays the plan with some parts left out, from start to end, on a clock of its own: the
same plan gives the same run. This is Zeller's ddmin, with a limit on tries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from tests.simulation.swarm import Outcome, Plan, simulate

T = TypeVar("T")

#: A run takes a good part of a second; nobody waits longer than some minutes.
TRIES_MAX: Final = 150


def shrink(
    outcome: Outcome, play: Callable[[Plan], Outcome] | None = None, tries: int = TRIES_MAX
) -> Outcome:
    """A smaller run that breaks the same invariant as a run that failed.

    Args:
        outcome: What failed.
        play: Runs a plan; None: ``simulate``.
        tries: How many runs it may take.
    """
    return _Shrinking(outcome, play or _play, tries).run()


def _play(plan: Plan) -> Outcome:
    return simulate(plan.seed, plan=plan)


class _Shrinking:
    def __init__(self, outcome: Outcome, play: Callable[[Plan], Outcome], tries: int) -> None:
        self._play = play
        self._tries = tries
        self._best = outcome
        self._invariant = outcome.violations[0].invariant

    def run(self) -> Outcome:
        plan = self._best.plan
        if plan.lasting is not None:
            self._fails(replace(plan, lasting=None))
        self._reduce(self._best.plan.strokes, lambda plan, kept: replace(plan, strokes=kept))
        self._reduce(self._best.plan.users, lambda plan, kept: replace(plan, users=kept))
        return self._best

    def _fails(self, plan: Plan) -> bool:
        """Whether a plan still breaks the invariant; if so, it is the best one from now on."""
        if not self._tries:
            return False
        self._tries -= 1
        outcome = self._play(plan)
        if any(found.invariant == self._invariant for found in outcome.violations):
            self._best = outcome
            return True
        return False

    def _reduce(self, parts: tuple[T, ...], keep: Callable[[Plan, tuple[T, ...]], Plan]) -> None:
        """Leaves out ever smaller chunks of the parts, as long as one can go."""
        if parts and self._fails(keep(self._best.plan, ())):
            return
        size = max(1, len(parts) // 2)
        while True:
            for kept in _without_a_chunk(parts, size):
                if self._fails(keep(self._best.plan, kept)):
                    parts = kept
                    break
            else:
                if size == 1:
                    return
                size //= 2


def _without_a_chunk(parts: Sequence[T], size: int) -> list[tuple[T, ...]]:
    if len(parts) <= 1:
        return []
    return [
        (*parts[:start], *parts[start + size :])
        for start in range(0, len(parts), size)
        if len(parts) > min(size, len(parts) - start)
    ]
