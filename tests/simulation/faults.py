"""Faults of simulated clusters: each strikes somewhere at random, lasts a while, ends by itself.

A fault is a coroutine function of a ``Stage``, registered with the rows of the fault table that it
injects. One that finds nothing to strike does not strike, and is not counted. Faults of the store
and of disks stand in modules of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from random import Random
from typing import Final, NamedTuple, Protocol

from tenure.testing.call import Link
from tenure.testing.cluster import SimCluster, StoreKind
from tenure.testing.nodes import SimMaster, SimNode
from tenure.testing.process import Process, elapse

BOTH: Final[tuple[StoreKind, ...]] = ("etcd", "sqlite")

_HOUR_MS: Final = 3_600_000


@dataclass(slots=True, kw_only=True)
class Struck:
    """One stroke of a fault, for counts and stories.

    Attributes:
        at_s: When it came.
        until_s: When it was over; None: it never was.
        kind: The fault's name.
        target: What it struck; empty: it found nothing to strike.
        rows: Which rows of the fault table it injected.
    """

    at_s: float
    until_s: float | None = None
    kind: str
    target: str = ""
    rows: tuple[int, ...] = ()


@dataclass(slots=True, kw_only=True)
class Stage:
    """What a fault gets: the cluster, randomness of its own, and where it says what it does."""

    cluster: SimCluster
    rng: Random
    clients: tuple[str, ...]
    struck: Struck

    def strike(self, target: str, *rows: int) -> None:
        """Says that the fault strikes now, and what.

        Args:
            target: For people.
            rows: Those of the fault table; none: all that the fault stands for.
        """
        self.struck.target = target
        self.struck.rows = rows or KINDS[self.struck.kind].rows

    def leader(self) -> SimMaster | None:
        """The leader of some partition, if that has one."""
        return self.cluster.leader(self.rng.randrange(self.cluster.partitions))

    def master(self) -> SimMaster:
        """The leader of some partition; while there is none, some master."""
        return self.leader() or self.rng.choice(list(self.cluster.masters.values()))

    def worker(self) -> SimNode:
        """Some worker."""
        return self.rng.choice(list(self.cluster.workers.values()))

    def callers(self) -> list[str]:
        """Who calls masters: workers and clients, by their names on the network."""
        return [*self.cluster.workers, *self.clients]

    def links(self, node: str, others: list[str]) -> list[Link]:
        """Both ways between one node and some others."""
        network = self.cluster.network
        return [link for o in others for link in (network.link(node, o), network.link(o, node))]

    async def restart(self, node: SimNode, process: Process) -> None:
        """Starts a node again when the process that was struck has ended."""
        await process.join()
        # Another fault, or who looks after processes, may have started it again.
        if node.process is process:
            self.cluster.start(node)

    async def last(self, least_s: float, most_s: float) -> None:
        """Lets the fault last for some time between two."""
        await elapse(self.rng.uniform(least_s, most_s))


Fault = Callable[[Stage], Awaitable[None]]


class Kind(NamedTuple):
    """A registered fault."""

    strike: Fault
    rows: tuple[int, ...]
    stores: tuple[StoreKind, ...]
    lasting: bool


#: All faults by name, in the order of their definition.
KINDS: Final[dict[str, Kind]] = {}


def fault(
    *rows: int, stores: tuple[StoreKind, ...] = BOTH, lasting: bool = False
) -> Callable[[Fault], Fault]:
    """Registers a fault under its function's name.

    Args:
        rows: Of the fault table.
        stores: Which stores can have it.
        lasting: It strikes a minority and never ends: only what is left has to go on.
    """

    def register(strike: Fault) -> Fault:
        KINDS[strike.__name__] = Kind(strike, rows, stores, lasting)
        return strike

    return register


def of_leader(strike: Callable[[Stage, SimMaster], Awaitable[None]]) -> Fault:
    """A fault of the leader of some partition: while that has none, nothing is struck.

    The fault may say again what it strikes, where there is more to say than the leader's name.
    """

    @wraps(strike)
    async def strike_leader(stage: Stage) -> None:
        leader = stage.leader()
        if leader is not None:
            stage.strike(leader.name)
            await strike(stage, leader)

    return strike_leader


# ---- masters ------------------------------------------------------------------------------------


@fault(1, 2)
@of_leader
async def kill_leader(stage: Stage, leader: SimMaster) -> None:
    """Kill -9, idle or under load; the node comes back later."""
    terms = leader.node.roster.terms.values() if leader.node is not None else ()
    running = sum(term.partition.stats().running for term in terms)
    stage.strike(leader.name, 2 if running else 1)
    await _kill(stage, leader, stage.rng.uniform(0, 10))


@fault(3, stores=("etcd",))
async def kill_successors(stage: Stage) -> None:
    """Kill -9 the leader, and then whoever wins the office before it serves, a few times."""
    partition = stage.rng.randrange(stage.cluster.partitions)
    leader = stage.cluster.leader(partition)
    if leader is None:
        return
    stage.strike(leader.name)
    killed = [(leader, leader.process)]
    leader.kill()
    for _ in range(stage.rng.randint(1, 2)):
        heir = await _recovering(stage.cluster, partition)
        if heir is not None:
            stage.struck.target += f" {heir.name}"
            killed.append((heir, heir.process))
            heir.kill()
    for master, process in killed:
        await stage.restart(master, process)


@fault(4)
async def kill_masters(stage: Stage) -> None:
    """Kill -9 all masters at once."""
    masters = list(stage.cluster.masters.values())
    stage.strike(" ".join(master.name for master in masters))
    async with asyncio.TaskGroup() as group:
        for master in masters:
            group.create_task(_kill(stage, master, stage.rng.uniform(0, 3)))


@fault(5)
async def roll_masters(stage: Stage) -> None:
    """SIGTERM to each master in turn, the next when the one before is back."""
    masters = list(stage.cluster.masters.values())
    stage.rng.shuffle(masters)
    stage.strike(" ".join(master.name for master in masters))
    for master in masters:
        await _stop(stage, master)
        await stage.last(0.5, 3)


@fault(5)
@of_leader
async def stop_leader(stage: Stage, leader: SimMaster) -> None:
    """SIGTERM, then a start."""
    await _stop(stage, leader)


@fault(6)
@of_leader
async def pause_leader(stage: Stage, leader: SimMaster) -> None:
    """SIGSTOP for less than its office lives, then SIGCONT."""
    with frozen(leader):
        await stage.last(0.5, 4)


@fault(7)
@of_leader
async def make_zombie(stage: Stage, leader: SimMaster) -> None:
    """SIGSTOP for longer than its office lives, then SIGCONT."""
    with frozen(leader):
        await stage.last(6, 14)


@fault(8)
@of_leader
async def delay_grants(stage: Stage, leader: SimMaster) -> None:
    """What a leader sends to workers is slow to leave, and it is paused amid that: a stale word.

    The leader's check of its office is long over when what it sent arrives.
    """
    delay_ms = stage.rng.uniform(3_000, 12_000)
    links = [stage.cluster.network.link(leader.host, name) for name in stage.cluster.workers]
    with changed(links, "delay_ms", (delay_ms, delay_ms + 100)):
        await stage.last(0.5, 2)
        with frozen(leader):
            await stage.last(5, 9)


@fault(9)
@of_leader
async def flap_leader(stage: Stage, leader: SimMaster) -> None:
    """SIGSTOP and SIGCONT, once a second."""
    for _ in range(stage.rng.randint(3, 8)):
        with frozen(leader):
            await elapse(0.5)
        await elapse(0.5)


@fault(10)
@of_leader
async def block_leader(stage: Stage, leader: SimMaster) -> None:
    """The event loop is blocked; other threads answer pings, so no connection breaks."""
    leader.process.freeze()
    await stage.last(1, 12)
    leader.process.thaw()


# ---- workers ------------------------------------------------------------------------------------


@fault(11)
async def kill_worker(stage: Stage) -> None:
    """Kill -9; the node comes back later, as another incarnation."""
    worker = stage.worker()
    stage.strike(worker.name)
    await _kill(stage, worker, stage.rng.uniform(1, 10))


@fault(12)
async def pause_worker(stage: Stage) -> None:
    """SIGSTOP, for less or for more than its leases live; then SIGCONT."""
    worker = stage.worker()
    pause_s = stage.rng.uniform(0.5, 25)
    stage.strike(worker.name)
    with frozen(worker):
        await elapse(pause_s)


@fault(13)
async def restart_worker(stage: Stage) -> None:
    """Kill -9 and a start with the same name at once."""
    worker = stage.worker()
    stage.strike(worker.name)
    await _kill(stage, worker, 0)


@fault(13)
async def drain_worker(stage: Stage) -> None:
    """SIGTERM, then a start: its jobs are finished or handed back."""
    worker = stage.worker()
    stage.strike(worker.name)
    await _stop(stage, worker)


@fault(14)
async def kill_workers(stage: Stage) -> None:
    """All workers die; they come back after a while without any."""
    workers = list(stage.cluster.workers.values())
    stage.strike(" ".join(worker.name for worker in workers))
    down_s = stage.rng.uniform(1, 12)
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(_kill(stage, worker, down_s))


# ---- the network between them -------------------------------------------------------------------


@fault(26)
@of_leader
async def cut_leader_from_workers(stage: Stage, leader: SimMaster) -> None:
    """The leader reaches the store and the clients, but no worker."""
    ways = [way for name in stage.cluster.workers for way in both(leader.host, name)]
    with cut(stage.cluster, ways):
        await stage.last(3, 20)


@fault(29)
async def cut_worker_off(stage: Stage) -> None:
    """What a worker says does not arrive at the leader, though it hears the leader; or neither."""
    master, worker = stage.master().host, stage.worker().host
    stage.strike(f"{worker} to {master}")
    ways = stage.rng.choice(([(worker, master)], [(worker, master)], both(master, worker)))
    with cut(stage.cluster, ways):
        await stage.last(0.5, 25)


@fault(29)
async def deafen_worker(stage: Stage) -> None:
    """A worker does not hear the leader, but is heard."""
    master, worker = stage.master().host, stage.worker().host
    stage.strike(f"{master} to {worker}")
    with cut(stage.cluster, [(master, worker)]):
        await stage.last(0.5, 25)


@fault(30, stores=("etcd",))
@of_leader
async def leave_zombie_only(stage: Stage, leader: SimMaster) -> None:
    """A worker reaches the leader alone, and that one loses its office: nobody else hears it."""
    worker = stage.worker().host
    stage.strike(f"{worker} with {leader.name}")
    others = [master.host for master in stage.cluster.masters.values() if master is not leader]
    with cut(stage.cluster, [way for other in others for way in both(worker, other)]):
        stage.cluster.cut_store(leader)
        await stage.last(6, 20)
        stage.cluster.heal_store(leader)


@fault(31)
async def cut_after_bytes(stage: Stage) -> None:
    """Connections to a master break after some number of bytes, wherever in a message that is."""
    master = stage.master().host
    stage.strike(master)
    links = stage.links(master, stage.callers())
    for _ in range(stage.rng.randint(1, 6)):
        stage.rng.choice(links).fuse_bytes = stage.rng.randrange(600)
        await stage.last(0.1, 1)
    for link in links:
        link.fuse_bytes = None


@fault(32)
async def reset_storm(stage: Stage) -> None:
    """Connections to a master break again and again."""
    master = stage.master().host
    stage.strike(master)
    for _ in range(stage.rng.randint(2, 10)):
        stage.cluster.network.break_calls(master, stage.rng.choice(stage.callers()))
        await stage.last(0, 1)


@fault(31, 32)
async def lossy_links(stage: Stage) -> None:
    """Each message to and from a master may take its connection along."""
    master = stage.master().host
    stage.strike(master)
    links = stage.links(master, stage.callers())
    with changed(links, "loss", stage.rng.uniform(0.005, 0.1)):
        await stage.last(1, 8)


@fault(34)
async def narrow_links(stage: Stage) -> None:
    """All goes over a master's links at 256 kbit/s."""
    master = stage.master().host
    stage.strike(master)
    with changed(stage.links(master, stage.callers()), "bytes_per_s", 32_000.0):
        await stage.last(3, 15)


@fault(35)
async def repeat_calls(stage: Stage) -> None:
    """Some calls are served twice, the second time up to ten seconds later."""
    stage.strike("clients")
    network, addresses = stage.cluster.network, stage.cluster.addresses
    links = [network.link(client, address) for client in stage.clients for address in addresses]
    with changed(links, "repeat", stage.rng.uniform(0.1, 0.6)):
        await stage.last(3, 15)


@fault(36)
async def slow_worker(stage: Stage) -> None:
    """A worker's words arrive late, some of them after its leases have expired."""
    worker = stage.worker().host
    stage.strike(worker)
    network, delay_ms = stage.cluster.network, stage.rng.uniform(2_000, 20_000)
    links = [network.link(worker, address) for address in stage.cluster.addresses]
    with changed(links, "delay_ms", (delay_ms, delay_ms + 200)):
        await stage.last(3, 20)
    await elapse(delay_ms / 1000)


@fault(37)
async def delay_reports(stage: Stage) -> None:
    """What a worker says now arrives a minute later: ten minutes, scaled to a short run."""
    worker = stage.worker().host
    stage.strike(worker)
    network = stage.cluster.network
    links = [network.link(worker, address) for address in stage.cluster.addresses]
    with changed(links, "delay_ms", (45_000.0, 60_000.0)):
        await stage.last(0.5, 3)
    await elapse(60)


@fault(38)
@of_leader
async def lose_grants(stage: Stage, leader: SimMaster) -> None:
    """What a leader sends to a worker is lost on its way, with the connection."""
    worker = stage.worker().host
    stage.strike(f"{leader.name} to {worker}")
    for _ in range(stage.rng.randint(2, 6)):
        stage.cluster.network.link(leader.host, worker).fuse_bytes = 0
        await stage.last(0.2, 2)
    stage.cluster.network.link(leader.host, worker).fuse_bytes = None


# ---- clocks -------------------------------------------------------------------------------------


@fault(39)
@of_leader
async def jump_wall(stage: Stage, leader: SimMaster) -> None:
    """A leader's wall clock jumps by an hour, and back after a while."""
    jump_ms = stage.rng.choice((-_HOUR_MS, _HOUR_MS))
    stage.strike(f"{leader.name} by {jump_ms} ms")
    leader.clock.wall_skew_ms += jump_ms
    await stage.last(2, 15)
    leader.clock.wall_skew_ms -= jump_ms


@fault(40)
@of_leader
async def skew_and_fail_over(stage: Stage, leader: SimMaster) -> None:
    """Masters' wall clocks are up to 5 s off, and the leader is killed."""
    for master in stage.cluster.masters.values():
        master.clock.wall_skew_ms = stage.rng.randint(-5_000, 5_000)
    await _kill(stage, leader, stage.rng.uniform(0, 5))


@fault(41)
async def speed_worker_up(stage: Stage) -> None:
    """A worker's clock runs half as fast again."""
    worker = stage.worker()
    stage.strike(worker.name)
    worker.clock.drift(1.5)
    await stage.last(5, 20)
    worker.clock.drift(1.0)


@fault(42)
async def suspend(stage: Stage) -> None:
    """A machine sleeps: its timers stand still, its boot clock goes on."""
    node: SimNode = stage.master() if stage.rng.random() < 0.5 else stage.worker()
    stage.strike(node.name)
    stage.cluster.network.stall(node.host)
    node.process.suspend()
    await stage.last(1, 20)
    node.thaw()


# ---- faults of a minority that do not end -------------------------------------------------------


@fault(2, stores=("etcd",), lasting=True)
async def lose_master(stage: Stage) -> None:
    """The leader dies and stays dead."""
    master = stage.master()
    stage.strike(master.name)
    master.kill()


@fault(7, stores=("etcd",), lasting=True)
async def wedge_master(stage: Stage) -> None:
    """The leader stands still for good: it takes connections and answers nothing."""
    master = stage.master()
    stage.strike(master.name)
    master.freeze()


@fault(11, lasting=True)
async def lose_worker(stage: Stage) -> None:
    """A worker dies and stays dead."""
    worker = stage.worker()
    stage.strike(worker.name)
    worker.kill()


@fault(29, 30, lasting=True)
async def cut_worker_for_good(stage: Stage) -> None:
    """A worker stays cut from the leader, one way or both; another one still reaches it."""
    master, worker = stage.master().host, stage.worker().host
    stage.strike(f"{worker} and {master}")
    ways = both(master, worker)
    for source, target in stage.rng.choice((ways, ways[:1], ways[1:])):
        stage.cluster.network.cut(source, target)


# ---- how nodes are struck -----------------------------------------------------------------------


async def _kill(stage: Stage, node: SimNode, down_s: float) -> None:
    process = node.process
    node.kill()
    await elapse(down_s)
    await stage.restart(node, process)


async def _stop(stage: Stage, node: SimNode) -> None:
    process = node.process
    node.stop()
    await stage.restart(node, process)


async def _recovering(cluster: SimCluster, partition: int) -> SimMaster | None:
    """The next to win an office, before it serves; None: it was too quick, or there is none."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + 12
    while loop.time() < deadline_s:
        holder = cluster.holder(partition)
        if holder is not None and holder.running:
            return holder
        await elapse(0.02)
    return None


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
