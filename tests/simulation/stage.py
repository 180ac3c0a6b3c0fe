"""What faults of simulated clusters are made of: whom they strike, what they say of it, and how.

A fault is a coroutine function of a ``Stage``, registered with the rows of the fault table that it
injects. One that finds nothing to strike does not strike. What is counted is what came of it: a
fault that only waits for something (for a grant to lose, for an fsync to fail) says so when that
came, and else is not counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from random import Random
from typing import Final, NamedTuple, Protocol, TypeVar

from tenure.testing.call import Link
from tenure.testing.cluster import SimCluster, StoreKind
from tenure.testing.nodes import SimMaster, SimNode, SimWorker
from tenure.testing.process import Process, elapse

BOTH: Final[tuple[StoreKind, ...]] = ("etcd", "sqlite")

#: How often, and how far apart, a fault of a leader looks for one.
_LOOKS: Final = 40
_LOOK_S: Final = 0.1

N = TypeVar("N", bound=SimNode)


class Named(Protocol):
    """A node, or a member of etcd."""

    name: str


@dataclass(slots=True, kw_only=True)
class Struck:
    """One stroke of a fault, for counts, oracles and stories.

    Attributes:
        at_s: When it came.
        until_s: When it was over; None: it never was.
        kind: The fault's name.
        target: What it struck, or was after, for people; empty: it found nothing to strike.
        nodes: The processes and members of etcd that it may keep from what they do.
        hit: Whether it had its effect.
        rows: Which rows of the fault table it injected by that.
    """

    at_s: float
    until_s: float | None = None
    kind: str
    target: str = ""
    nodes: tuple[str, ...] = ()
    hit: bool = False
    rows: set[int] = field(default_factory=set)


@dataclass(slots=True, kw_only=True)
class Stage:
    """What a fault gets: the cluster, randomness of its own, and where it says what it does."""

    cluster: SimCluster
    rng: Random
    clients: tuple[str, ...]
    struck: Struck

    # What it says.

    def aim(self, *those: Named, how: str = "") -> None:
        """Says what the fault is after, from now on; what comes of it ``hit`` tells.

        Args:
            those: Whom it may keep from what they do.
            how: What else there is to say to people.
        """
        struck = self.struck
        struck.nodes = tuple(one.name for one in those)
        struck.target = " ".join((*struck.nodes, how)).strip()
        struck.hit, struck.rows = False, set()

    def hit(self, *rows: int) -> None:
        """Says that it has its effect.

        Args:
            rows: Of the fault table, that it injects by it; none: all that it stands for.
        """
        self.struck.hit = True
        self.struck.rows.update(rows or KINDS[self.struck.kind].rows)

    def touch(self) -> None:
        """Says that it has an effect, though no row of the fault table is like it."""
        self.struck.hit = True

    def strike(self, *those: Named, how: str = "") -> None:
        """Says that the fault strikes now, with its effect at once."""
        self.aim(*those, how=how)
        self.hit()

    # Whom it strikes.

    def leader(self) -> SimMaster | None:
        """The leader of some partition, if that has one."""
        return self.cluster.leader(self.rng.randrange(self.cluster.partitions))

    async def next_leader(self, partition: int) -> SimMaster | None:
        """Who leads a partition, or is the next to do so within a few seconds."""
        for _ in range(_LOOKS):
            leader = self.cluster.leader(partition)
            if leader is not None:
                return leader
            await elapse(_LOOK_S)
        return None

    def master(self) -> SimMaster:
        """The leader of some partition; while there is none, some master, one that runs if any."""
        return self.leader() or self._one_of(list(self.cluster.masters.values()))

    def worker(self) -> SimWorker:
        """Some worker, one that runs if any does."""
        return self._one_of(list(self.cluster.workers.values()))

    def busy_worker(self) -> SimWorker:
        """Some worker, one that runs jobs if any does."""
        workers = list(self.cluster.workers.values())
        busy = [one for one in workers if one.executor is not None and one.executor.running]
        return self._one_of(busy or workers)

    def _one_of(self, nodes: list[N]) -> N:
        return self.rng.choice([node for node in nodes if node.running] or nodes)

    def led_by(self, master: SimMaster) -> list[int]:
        """The partitions that a master leads now."""
        return [number for number in range(self.cluster.partitions) if master.leads(number)]

    def callers(self) -> list[str]:
        """Who calls masters: workers and clients, by their names on the network."""
        return [*self.cluster.workers, *self.clients]

    def links(self, node: str, others: list[str]) -> list[Link]:
        """Both ways between one node and some others."""
        network = self.cluster.network
        return [link for o in others for link in (network.link(node, o), network.link(o, node))]

    # How.

    async def kill(self, node: SimNode, down_s: float) -> None:
        """Kill -9, and a start after a while."""
        process = node.process
        node.kill()
        await elapse(down_s)
        await self.restart(node, process)

    async def stop(self, node: SimNode) -> None:
        """SIGTERM, and a start when it has ended."""
        process = node.process
        node.stop()
        await self.restart(node, process)

    async def restart(self, node: SimNode, process: Process) -> None:
        """Starts a node again when the process that was struck has ended."""
        await process.join()
        # Another fault, or who looks after processes, may have started it again.
        if node.process is process:
            self.cluster.start(node)

    async def last(self, least_s: float, most_s: float) -> None:
        """Lets the fault last for some time between two."""
        await elapse(self.rng.uniform(least_s, most_s))


# ---- which there are ----------------------------------------------------------------------------

Fault = Callable[[Stage], Awaitable[None]]


class Kind(NamedTuple):
    """A registered fault."""

    strike: Fault
    rows: tuple[int, ...]
    stores: tuple[StoreKind, ...]
    lasting: bool
    weight: int


#: All faults by name, in the order of their definition.
KINDS: Final[dict[str, Kind]] = {}


def fault(
    *rows: int, stores: tuple[StoreKind, ...] = BOTH, lasting: bool = False, weight: int = 1
) -> Callable[[Fault], Fault]:
    """Registers a fault under its function's name.

    Args:
        rows: Of the fault table; none: it is like none of them.
        stores: Which stores can have it.
        lasting: It strikes a minority and never ends: only what is left has to go on.
        weight: How often it is drawn, beside others.
    """

    def register(strike: Fault) -> Fault:
        KINDS[strike.__name__] = Kind(strike, rows, stores, lasting, weight)
        return strike

    return register


def of_leader(strike: Callable[[Stage, SimMaster], Awaitable[None]]) -> Fault:
    """A fault of the leader of some partition: if that has none for a while, nothing is struck.

    The fault may say anew what it strikes, or that it only aims at it.
    """

    @wraps(strike)
    async def strike_leader(stage: Stage) -> None:
        leader = await stage.next_leader(stage.rng.randrange(stage.cluster.partitions))
        if leader is not None:
            stage.strike(leader)
            await strike(stage, leader)

    return strike_leader


# ---- what many of them do -----------------------------------------------------------------------


class Freezable(Protocol):
    """A node, or a member of etcd."""

    def freeze(self) -> None:
        """As SIGSTOP does."""

    def thaw(self) -> None:
        """As SIGCONT does."""


@contextmanager
def frozen(*those: Freezable) -> Iterator[None]:
    """Stands still for a while, one or several of them."""
    for one in those:
        one.freeze()
    try:
        yield
    finally:
        for one in those:
            one.thaw()


def both(one: str, other: str) -> list[tuple[str, str]]:
    """The ways between two nodes, from the one and from the other."""
    return [(one, other), (other, one)]


@contextmanager
def cut(cluster: SimCluster, ways: list[tuple[str, str]]) -> Iterator[None]:
    """Nothing arrives on these ways for a while."""
    for source, target in ways:
        cluster.network.cut(source, target)
    try:
        yield
    finally:
        for source, target in ways:
            cluster.network.heal(source, target)


@contextmanager
def changed(links: list[Link], name: str, value: object) -> Iterator[None]:
    """Links with another attribute for a while. What two at once leave is healed with the rest."""
    before = [getattr(link, name) for link in links]
    for link in links:
        setattr(link, name, value)
    try:
        yield
    finally:
        for link, old in zip(links, before, strict=True):
            setattr(link, name, old)


def broken(links: list[Link]) -> int:
    """How many messages have taken their connections along on these links."""
    return sum(link.broken for link in links)


async def cut_by_fuses(stage: Stage, links: list[Link], most: int) -> None:
    """Some of these links break after some number of bytes, wherever in a message that is."""
    before = broken(links)
    for _ in range(stage.rng.randint(2, most)):
        sent = [link.sent for link in links]
        await stage.last(0.1, 1)
        # Of those that are in use.
        used = [link for link, count in zip(links, sent, strict=True) if link.sent > count]
        stage.rng.choice(used or links).fuse_bytes = stage.rng.randrange(600)
    await stage.last(0.1, 1)
    for link in links:
        link.fuse_bytes = None
    if broken(links) > before:
        stage.hit()
