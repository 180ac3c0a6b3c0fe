"""A lightly loaded arena that many tests share, each striking one fault; one court for all."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tenure.protocol.ids import home_partition
from tenure.protocol.limits import DEFAULT_TENANT
from tenure.v1 import cluster_pb2
from tenure.v1.journal_pb2 import JournalBatch
from tests.chaos.arena import Arena
from tests.chaos.faults import FAULTS, Deposes, Fault
from tests.chaos.measure import Measured, measure
from tests.chaos.process import Event, Process, until
from tests.chaos.rounds import Log, Strike, play_round, settle, watch_calm
from tests.chaos.scenarios import role_is
from tests.oracles.history import START, boottime_ms, read_history
from tests.oracles.journal import BatchWritten
from tests.oracles.resources import ALLOWED
from tests.oracles.verdict import require

_OPEN, _HOLD_S, _SLOTS, _SAY_EVERY = 120, 0.4, 200, 20
#: For how long it is looked at what processes hold, before the first fault and after the last one.
_WATCH_S = 2.0
#: How often a fault is tried that finds whom it wants to hurt hurt already, or away.
_TRIES = 3
#: For how long what was broken may keep its files and connections.
_LEAVE_S = 20.0


class Site:
    """The arena, what was done to it, and what tests ask of it.

    Args:
        arena: Started here.

    Attributes:
        log: What was done so far.
        checks: What tests will know only from the journal, at the end; each raises if it is not so.
    """

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.log = Log()
        self.checks: list[Callable[[Measured], None]] = []
        self._seeds = itertools.count(1)

    def needs(self, means: str) -> None:
        """Skip the test if this machine lacks what its fault takes."""
        if reason := self.arena.missing.get(means):
            pytest.skip(reason)

    def strike(self, name: str) -> None:
        """Inject a fault of the random runs, alone, and wait until all clients go on.

        Raises:
            AssertionError: It was not injected, not at the third try either: nothing was tried.
            InvariantBroken: Somebody does not go on.
        """
        fault = FAULTS[name]
        self.needs(fault.needs)
        before = len(self.log.violations)
        for _ in range(_TRIES):
            (done,) = play_round(self.arena, self.log, [fault])
            require(self.log.violations[before:])
            if not done.error:
                return
        raise AssertionError(f"expected {name} to strike, but {done.error}")

    @contextmanager
    def struck(
        self, name: str, *, deposes: Deposes = "nobody", costs_leases: bool = False
    ) -> Iterator[None]:
        """What the body does is one fault, for the court; then all clients must go on.

        Args:
            name: For messages.
            deposes: Whose office it may cost.
            costs_leases: Whether workers that live may lose leases by it.
        """
        before = len(self.log.violations)
        fault = Fault(
            name=name,
            rows=(),
            inject=_nothing,
            weight=0,
            deposes=deposes,
            costs_leases=costs_leases,
            needs="",
        )
        since_ms = boottime_ms()
        with self.arena.witness() as hurt:
            yield
        self.log.strikes.append(
            Strike(fault=fault, since_ms=since_ms, until_ms=boottime_ms(), hurt=tuple(hurt))
        )
        settle(self.arena, self.log, [name])
        require(self.log.violations[before:])

    def goes_on(self) -> None:
        """All clients read new results."""
        before = len(self.log.violations)
        settle(self.arena, self.log, ["nothing"])
        require(self.log.violations[before:])

    def lost(self) -> int:
        """How many offices have been lost so far by who did not want to give them up."""
        return sum(
            event.name == "follower" and event.fields.get("why") != "handed over"
            for event in self.arena.cluster.timeline.events()
        )

    def now_ms(self) -> float:
        """The boot clock."""
        return boottime_ms()

    def busy_share(self, seconds: float) -> float:
        """Which part of one processor the busiest master uses for a while."""
        watched = [psutil.Process(master.pid) for master in self.arena.cluster.masters]
        before = [sum(process.cpu_times()[:2]) for process in watched]
        self.arena.pause(seconds)
        after = [sum(process.cpu_times()[:2]) for process in watched]
        return max(b - a for a, b in zip(before, after, strict=True)) / seconds

    def completed(self, client: str) -> int:
        """How many results a client has read so far; it says so every few."""
        said = self.arena.cluster.processes[client].events("completed")
        return int(said[-1].fields["completed"]) if said else 0

    def rate(self, client: str, seconds: float) -> float:
        """How many results a client reads in a second, over some time from now on."""
        before = self.completed(client)
        self.arena.pause(seconds)
        return (self.completed(client) - before) / seconds

    def batch_size(self, partition: int, seconds: float) -> float:
        """How many events a batch of a partition has on average, over some time from now on."""
        changes = self.arena.watch.changes
        before = len(changes)
        self.arena.pause(seconds)
        counts = [
            JournalBatch.FromString(change.data).event_count
            for change in changes[before:]
            if isinstance(change, BatchWritten) and change.partition == partition
        ]
        return sum(counts) / len(counts)

    def frozen(self) -> list[int]:
        """The partitions whose leaders say that they are frozen."""
        cluster, role = self.arena.cluster, cluster_pb2.PARTITION_ROLE_FROZEN
        return [
            partition
            for partition in range(self.arena.partitions)
            if role_is(cluster.address_of(self.arena.leader_of(partition)), role, partition)
        ]

    def terms(self) -> list[str]:
        """By partition the term of whoever said last that it leads it."""
        terms = {
            event.fields["partition"]: str(event.fields["term"])
            for event in self.arena.cluster.timeline.events()
            if event.name == "leader"
        }
        return [terms[partition] for partition in range(self.arena.partitions)]

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Soon after the body those processes that are still there hold as much as before (R1).

        Raises:
            AssertionError: Memory, or the files and connections that are open, have grown.
        """
        before = self._held()
        yield

        def grown() -> dict[tuple[str, str], tuple[int, int]]:
            after = self._held()
            return {
                (process, measure): (base, after[process, measure])
                for (process, measure), base in before.items()
                if after.get((process, measure), 0) > _allowed(measure, base)
            }

        until(lambda: not grown(), _LEAVE_S)
        assert grown() == {}

    def _held(self) -> dict[tuple[str, str], int]:
        """What each process that has to run holds, by its log and the measure."""
        held: dict[tuple[str, str], int] = {}
        for name in self.arena.lasting:
            process = self.arena.cluster.processes[name]
            with suppress(psutil.Error):
                found = psutil.Process(process.pid)
                held[process.log.name, "descriptors"] = found.num_fds()
                held[process.log.name, "memory_bytes"] = found.memory_info().rss
        return held

    def poison(self, *, kill_leaders: bool) -> int:
        """Submit a job that kills its worker; how often it was started before it was given up."""
        arena, cluster = self.arena, self.arena.cluster
        name = f"doomed-{next(self._seeds)}"
        client = cluster.start_load(
            f"extra-{next(self._seeds)}", "--jobs", "1", "--job", "kill_the_worker"
        )
        with self.struck("poison", deposes="anybody" if kill_leaders else "nobody"):
            while not client.events("drained"):
                worker = cluster.start_worker(name, slots=1, queues="poison")
                worker.let_end()
                cluster.until(
                    lambda worker=worker: not worker.running or bool(client.events("drained")),
                    90,
                    "the end of a worker, or of the job",
                )
                if kill_leaders and not worker.running:
                    leader = arena.leader_of(home_partition(DEFAULT_TENANT, "poison", 4))
                    with arena.claim(leader.name):
                        arena.kill(leader)
                        cluster.start_master(leader.name)
                worker.terminate()
                worker.wait_exit(30)
        rows = read_history(cluster.history)
        return sum(row.f == START and row.process == name for row in rows)

    def run_jobs(self, *flags: str, timeout_s: float = 60.0) -> tuple[Process, Event]:
        """A client of its own with some jobs; returns when all have ended."""
        name = f"extra-{next(self._seeds)}"
        client = self.arena.cluster.start_load(name, *flags)
        drained = self.arena.cluster.wait_said(client, "drained", timeout_s)
        client.wait_exit(10)
        return client, drained


def _allowed(measure: str, base: int) -> float:
    """What a process may hold that held so much before."""
    share, amount = ALLOWED[measure]
    return base * (1 + share) + amount


def _nothing(arena: Arena, rng: random.Random) -> None:
    """The test itself does it."""


@contextmanager
def site(directory: Path) -> Iterator[Site]:
    """A site where everybody works; when the body has ended, all that happened is judged."""
    with Arena(directory, seed=1, slots=_SLOTS) as arena:
        arena.start(_OPEN, _HOLD_S, say_every=_SAY_EVERY)
        found = Site(arena)
        for name in arena.worker_names:
            arena.cluster.wait_said(arena.cluster.processes[name], "registered")
        found.goes_on()
        watch_calm(arena, found.log, _WATCH_S)
        yield found
        close(found)


def close(found: Site) -> Measured:
    """End all processes, and judge.

    Raises:
        InvariantBroken: the run broke one.
    """
    arena = found.arena
    watch_calm(arena, found.log, _WATCH_S)
    arena.cluster.drain(*(arena.cluster.processes[name] for name in arena.client_names))
    arena.cluster.end()
    measured = measure(arena, found.log)
    require(measured.verdict.violations)
    if measured.false_failovers:
        raise AssertionError(f"offices were lost for no reason: {measured.false_failovers}")
    for check in found.checks:
        check(measured)
    return measured
