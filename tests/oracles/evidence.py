"""What a run leaves to be judged: its history, its journals, and what was done to it and when.

All times are boot clock milliseconds, the one clock of a machine (in a simulation the loop's time),
so that they can be compared with those of the history's rows. Whatever a harness cannot tell it
leaves out: the checkers then claim less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

from tests.oracles.history import Row
from tests.oracles.journal import BatchWritten, Change
from tests.oracles.word import Word


class FaultWindow(NamedTuple):
    """Something was wrong for a while; a kill lasts until the node is started again.

    Attributes:
        row: Its row in the table of faults.
        name: What it is called.
        node: The process it hits, as ``Row.process`` has it; empty: several, or none of them.
        since_ms: When it began.
        until_ms: When it had ended; infinity if it never did.
    """

    row: int
    name: str
    node: str
    since_ms: float
    until_ms: float


class Said(NamedTuple):
    """What a master announced of its office, or the harness of a master's end.

    Attributes:
        at_ms: When.
        process: Who; a restarted process may have the same name.
        incarnation: UUID of the process, or whatever tells it from its successor on the node.
        event: ``leader``, ``follower``, or ``ended`` (of the process, by whatever means).
        partition: Which office.
        token: The first 24 digits of the term's fences.
    """

    at_ms: float
    process: str
    incarnation: str
    event: str
    partition: int = 0
    token: str = ""


class Sample(NamedTuple):
    """What a process held at a moment, for R1; -1: not measured."""

    at_ms: float
    process: str
    memory_bytes: int = -1
    descriptors: int = -1
    tasks: int = -1
    store_bytes: int = -1
    backlog: int = -1


class Capacity(NamedTuple):
    """How many jobs a worker runs at once, and how many more it may have given up meanwhile."""

    slots: int
    lost_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLog:
    """One partition's journal.

    Attributes:
        partition: Its number.
        changes: What its store did since revision 1, where one can see that (etcd).
        batches: All batches, in order; from ``changes`` if they are given.
        hashes: By seq: the hash of a live leader's state right after that event.
        trace: What masters traced of it, all processes' rows together: when they sent which batch
            and heard of its commit. For S8; changes that carry times do as well.
    """

    partition: int
    changes: Sequence[Change] | None = None
    batches: Sequence[bytes] = ()
    hashes: Mapping[int, str] = field(default_factory=dict)
    trace: Sequence[Mapping[str, Any]] = ()

    def all_batches(self) -> Sequence[bytes]:
        """The journal, wherever it was read from."""
        if self.changes is None:
            return self.batches
        return [change.data for change in self.changes if isinstance(change, BatchWritten)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known of a run.

    Attributes:
        rows: Its history, in the order of the boot clock.
        logs: The journal of each partition.
        partitions: How many there are.
        failovers: How many may have caught a first grant's event uncommitted; None: each term but
            a partition's first may.
        announcements: What masters said of their offices, in the order of time.
        faults: What was wrong and when. Empty: nothing was, all the time. None: nobody knows; then
            nothing is claimed that depends on it.
        words: What masters and workers told each other of leases, in the order of time; empty
            where nobody listened.
        samples: What processes held, for R1.
        kept: By process and what samples measure: how much more than its base it may hold in the
            end, for what it keeps on purpose.
        steady_ms: From when on the load was as it was at the end, for the p99 of L1.
        skew_ms: How far apart masters' clocks were at most, by skew, jumps and sleep; None: nobody
            knows.
        drained: Whether everything was healed at the end and given the time to end.
        lease_ttl_ms: The time to live of a job's lease.
        office_ttl_ms: The time to live of an office.
        reaction_ms: How long a job takes to notice that its lease is lost.
        aging_step_ms: What one step of priority is worth.
        slots: How many jobs each worker runs at once; 0: they differ, or nobody knows.
        lost_slots_max: How many a worker may have given up whose code still runs, before it ends.
        capacities: Both of these by worker's name, where they differ.
        echo: Whether jobs return what was submitted.
    """

    rows: Sequence[Row]
    logs: Sequence[PartitionLog]
    partitions: int = 1
    failovers: int | None = None
    announcements: Sequence[Said] = ()
    faults: Sequence[FaultWindow] | None = None
    words: Sequence[Word] = ()
    samples: Sequence[Sample] = ()
    kept: Mapping[tuple[str, str], int] = field(default_factory=dict)
    steady_ms: float = -inf
    skew_ms: float | None = None
    drained: bool = True
    lease_ttl_ms: float = 15_000.0
    office_ttl_ms: float = 6_000.0
    reaction_ms: float = 2_000.0
    aging_step_ms: int = 300_000
    slots: int = 0
    lost_slots_max: int = 0
    capacities: Mapping[str, Capacity] = field(default_factory=dict)
    echo: bool = True

    @property
    def capacity(self) -> Capacity | None:
        """Of all workers that have none of their own; None: nobody knows it."""
        return Capacity(self.slots, self.lost_slots_max) if self.slots else None
