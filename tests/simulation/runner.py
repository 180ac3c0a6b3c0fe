"""Many seeds over all cores: what they came to, and whether that is enough to mean something."""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Final, NamedTuple

from tests.oracles.history import hash_of
from tests.revision import commit
from tests.simulation.load import BY_USERS
from tests.simulation.stage import KINDS
from tests.simulation.swarm import simulate

#: Seeds that a worker process plays before it says how they went.
CHUNK: Final = 10
#: By what part of its cores a run may stay below them, to be judged by its time: it begins with
#: imports, and ends with one core at work.
_CORES_SLACK: Final = 0.05


class Bar(NamedTuple):
    """What a whole run must come to for its silence to count: one of so many seeds."""

    seeds: int = 1_000
    delivered: int = 2_000_000
    faults: int = 10_000
    failovers: int = 2_000
    hits: int = 20
    restarts: int = 50
    #: How long it may take, by the clock on the wall, on so many cores of its own.
    cores: int = 2
    seconds: float = 240.0

    def of(self, seeds: int) -> Bar:
        """The same for more seeds."""
        more = seeds / self.seeds
        return Bar(
            seeds,
            *(int(count * more) for count in self[1:6]),
            cores=self.cores,
            seconds=self.seconds * more,
        )


@dataclass(slots=True, kw_only=True)
class Totals:
    """What some runs came to, all together.

    Attributes:
        seeds: How many runs.
        delivered: Messages that arrived.
        struck: Faults that struck and had their effect, by name.
        rows: The same by row of the fault table.
        modes: Runs by mode and store.
        failovers: Terms that followed on one whose leader was lost, among several masters.
        handed_over: Terms that followed on one whose leader had given it to the next.
        restarted: Terms that followed on one of the only master (on SQLite).
        acked: Jobs that were accepted.
        given_up: Attempts that were given up while their code went on.
        restarts: Workers that were started again because they had lost too many slots.
        virtual_s: Time on the clusters' clocks.
        cpu_s: Time on real processors.
        failed: By seed: the first violation.
        digests: By seed: what tells its run from any other.
    """

    seeds: int = 0
    delivered: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    rows: Counter[int] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    failovers: int = 0
    handed_over: int = 0
    restarted: int = 0
    acked: int = 0
    given_up: int = 0
    restarts: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    failed: dict[int, str] = field(default_factory=dict)
    digests: dict[int, str] = field(default_factory=dict)

    def add(self, other: Totals) -> None:
        """Counts other runs in."""
        self.seeds += other.seeds
        self.delivered += other.delivered
        self.struck += other.struck
        self.rows += other.rows
        self.modes += other.modes
        self.failovers += other.failovers
        self.handed_over += other.handed_over
        self.restarted += other.restarted
        self.acked += other.acked
        self.given_up += other.given_up
        self.restarts += other.restarts
        self.virtual_s += other.virtual_s
        self.cpu_s += other.cpu_s
        self.failed |= other.failed
        self.digests |= other.digests

    def digest(self) -> str:
        """The same if each of the same seeds was the same run again."""
        return hash_of(sorted(self.digests.items()))

    def missed(self, bar: Bar) -> list[str]:
        """Where the runs stay below the bar in what they came to; their time: ``timing``."""
        reached = {
            "seeds": (self.seeds, bar.seeds),
            "delivered messages": (self.delivered, bar.delivered),
            "faults": (self.struck.total(), bar.faults),
            "failovers": (self.failovers, bar.failovers),
            "workers that started anew": (self.restarts, bar.restarts),
        }
        missed = [
            f"{name}: {found:,} of {wanted:,}"
            for name, (found, wanted) in reached.items()
            if found < wanted
        ]
        missed += [
            f"row {row}: hit {self.rows[row]} times, not {bar.hits}"
            for row in injectable()
            if self.rows[row] < bar.hits
        ]
        return missed

    def timing(self, bar: Bar, wall_s: float) -> str:
        """The time that the runs took, against the bar.

        It fails no run: of the same seeds it tells how quick the machine is at that hour.
        """
        took = f"{wall_s:.0f} s, with {self.cpu_s / wall_s:.2f} cores on average; the bar is"
        took += f" {bar.seconds:.0f} s with {bar.cores}"
        if not self._had_its_cores(bar, wall_s):
            return f"{took}: not judged"
        return f"{took}: {'met' if wall_s <= bar.seconds else 'missed'}"

    def _had_its_cores(self, bar: Bar, wall_s: float) -> bool:
        """Whether all the bar's cores were at work on it, and no more."""
        return abs(self.cpu_s / wall_s - bar.cores) <= _CORES_SLACK * bar.cores

    def report(self, wall_s: float) -> dict[str, object]:
        """The counts, for what quotes them.

        Args:
            wall_s: How long it took.
        """
        return {
            "commit": commit(),
            "seeds": self.seeds,
            "failed": {str(seed): self.failed[seed] for seed in sorted(self.failed)},
            "delivered": self.delivered,
            "faults": self.struck.total(),
            "failovers": self.failovers,
            "handed_over": self.handed_over,
            "restarted_on_sqlite": self.restarted,
            "jobs_accepted": self.acked,
            "attempts_given_up": self.given_up,
            "workers_restarted": self.restarts,
            "virtual_s": round(self.virtual_s),
            "processor_s": round(self.cpu_s),
            "seconds": round(wall_s),
            "digest": self.digest(),
            "rows": {str(row): self.rows[row] for row in injectable()},
            "modes": dict(sorted(self.modes.items())),
        }

    def __str__(self) -> str:
        rows = ", ".join(f"{row}: {self.rows[row]}" for row in injectable())
        kinds = ", ".join(f"{name} {times}" for name, times in self.struck.most_common())
        terms = f"{self.handed_over:,} handed over, {self.restarted:,} restarted on SQLite"
        modes = ", ".join(f"{name} {times}" for name, times in sorted(self.modes.items()))
        return (
            f"seeds {self.seeds:,} ({modes}), failed {len(self.failed):,}\n"
            f"delivered messages {self.delivered:,}\n"
            f"leaders lost and replaced {self.failovers:,} ({terms}),"
            f" jobs accepted {self.acked:,}\n"
            f"attempts given up {self.given_up:,}, workers that started anew {self.restarts:,}\n"
            f"virtual time {self.virtual_s / 3600:,.1f} h, processor time {self.cpu_s:,.0f} s"
            f" ({self.cpu_s / max(1, self.seeds):.2f} s a seed)\n"
            f"faults {self.struck.total():,}: {kinds}\n"
            f"by row of the fault table: {rows}\n"
            f"digest of all runs {self.digest()}"
        )


def injectable() -> list[int]:
    """The rows of the fault table that some fault injects, or some user."""
    return sorted({row for kind in KINDS.values() for row in kind.rows} | BY_USERS)


def play(seeds: list[int]) -> Totals:
    """Runs some seeds in this process."""
    # A run ends with all its objects unreachable at once: collecting amid it finds little.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    totals = Totals()
    for seed in seeds:
        started_s = time.process_time()
        outcome = simulate(seed)
        digest = outcome.digest()
        totals.add(
            Totals(
                seeds=1,
                delivered=outcome.delivered,
                struck=Counter(struck.kind for struck in outcome.struck if struck.hit),
                rows=outcome.rows_hit,
                modes=Counter({f"{outcome.plan.store} {outcome.plan.mode}": 1}),
                failovers=outcome.failovers,
                handed_over=outcome.handed_over,
                restarted=outcome.restarted,
                acked=outcome.acked,
                given_up=outcome.given_up,
                restarts=outcome.restarts,
                virtual_s=outcome.virtual_s,
                cpu_s=time.process_time() - started_s,
                failed={seed: str(outcome.violations[0])} if outcome.violations else {},
                digests={seed: digest},
            )
        )
    return totals


def run(
    first: int, seeds: int | None, *, minutes: float | None = None, cores: int | None = None
) -> Iterator[Totals]:
    """Runs seeds over all cores; yields what came of them, chunk by chunk, as they end.

    Args:
        first: The first seed; the others follow it.
        seeds: How many; None: until the time is over.
        minutes: No new chunk begins after so long.
        cores: Worker processes; None: one a core; 1: all runs in this one.
    """
    cores = cores or os.cpu_count() or 1
    deadline_s = math.inf if minutes is None else time.monotonic() + minutes * 60
    chunks = _chunks(count(first) if seeds is None else range(first, first + seeds))
    if cores == 1:
        while time.monotonic() < deadline_s and (chunk := next(chunks, None)):
            yield play(chunk)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores, mp_context=context) as pool:
        # Few at a time: nothing is handed out that nobody will want any more.
        open_ = {pool.submit(play, chunk) for chunk in islice(chunks, 2 * cores)}
        while open_:
            done = next(as_completed(open_))
            open_.remove(done)
            if time.monotonic() < deadline_s:
                open_ |= {pool.submit(play, chunk) for chunk in islice(chunks, 1)}
            yield done.result()


def _chunks(seeds: Iterable[int]) -> Iterator[list[int]]:
    numbers = iter(seeds)
    while chunk := list(islice(numbers, CHUNK)):
        yield chunk
