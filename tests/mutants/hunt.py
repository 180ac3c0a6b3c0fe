"""Hunts planted bugs with ordinary random runs: seeds 0, 1, 2, … until one fails.

Runs go to processes of their own, one for each core. A seed counts only if its run is clean without
the bug: what fails anyway proves nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Final, NamedTuple

from tests.mutants.catalogue import MUTANTS
from tests.simulation.swarm import simulate

#: How many seeds a bug may take.
SEEDS_MAX: Final = 2_000


class Catch(NamedTuple):
    """How a hunt ended.

    Attributes:
        name: The bug's.
        seed: The first seed that failed; None: none did.
        invariant: What it broke first.
        detail: The violation in full.
        unclean: Seeds that fail without the bug, too.
        took_s: How long it took.
    """

    name: str
    seed: int | None
    invariant: str
    detail: str
    unclean: tuple[int, ...]
    took_s: float

    @property
    def seeds(self) -> int:
        """How many seeds were needed."""
        return 0 if self.seed is None else self.seed + 1


def run_planted(name: str, seed: int) -> tuple[str, str] | None:
    """One ordinary run with a bug in the code: the first violation, its invariant first."""
    with MUTANTS[name].planted():
        violations = simulate(seed).violations
    return (violations[0].invariant, str(violations[0])) if violations else None


def is_clean(seed: int) -> bool:
    """Whether the run holds every invariant without any bug."""
    return not simulate(seed).violations


class Hunter:
    """Runs seeds on all cores.

    Args:
        seeds_max: How many a bug may take.
    """

    def __init__(self, seeds_max: int = SEEDS_MAX) -> None:
        self._seeds_max = seeds_max
        self._width = os.cpu_count() or 1
        self._pool = ProcessPoolExecutor(
            self._width, mp_context=multiprocessing.get_context("spawn")
        )

    def close(self) -> None:
        """Ends the processes."""
        self._pool.shutdown(cancel_futures=True)

    def hunt(self, name: str) -> Catch:
        """Tries seeds until one finds the bug."""
        began_s = time.monotonic()
        unclean: list[int] = []
        for seed, found in self._results(name):
            if found is None:
                continue
            if not self._pool.submit(is_clean, seed).result():
                unclean.append(seed)
                continue
            took_s = time.monotonic() - began_s
            return Catch(name, seed, *found, tuple(unclean), took_s)
        return Catch(name, None, "", "", tuple(unclean), time.monotonic() - began_s)

    def _results(self, name: str) -> Iterator[tuple[int, tuple[str, str] | None]]:
        """What each seed finds, in the order of the seeds."""
        ahead: deque[tuple[int, Future[tuple[str, str] | None]]] = deque()
        seeds = iter(range(self._seeds_max))
        try:
            while True:
                while len(ahead) < 2 * self._width and (seed := next(seeds, None)) is not None:
                    ahead.append((seed, self._pool.submit(run_planted, name, seed)))
                if not ahead:
                    return
                seed, result = ahead.popleft()
                yield seed, result.result()
        finally:
            for _, result in ahead:
                result.cancel()
