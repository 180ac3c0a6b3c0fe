"""Faults of simulated clusters: each strikes at random, lasts for a while, and ends by itself.

A fault is a coroutine function of the cluster and a source of randomness; ``storm`` draws some and
lets them loose at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Final

from tenure.testing.cluster import SimCluster, SimMaster, SimNode
from tenure.testing.process import elapse
from tenure.testing.store import Fate

Fault = Callable[[SimCluster, Random], Awaitable[None]]

#: The load runs for so long; faults strike within it.
STORM_S: Final = 8.0


async def storm(cluster: SimCluster, rng: Random, kinds: Sequence[Fault]) -> None:
    """Draws one to three faults, lets each strike at its time, and returns when all are over."""
    async with asyncio.TaskGroup() as group:
        for _ in range(rng.randint(1, 3)):
            group.create_task(_strike(cluster, rng, rng.choice(kinds), rng.uniform(0, STORM_S)))


async def _strike(cluster: SimCluster, rng: Random, fault: Fault, after_s: float) -> None:
    await elapse(after_s)
    await fault(cluster, rng)


async def kill_leader(cluster: SimCluster, rng: Random) -> None:
    """Faults 1, 2: kill -9; the node comes back later."""
    await _kill(cluster, _leader(cluster, rng), rng.uniform(0, 10))


async def kill_masters(cluster: SimCluster, rng: Random) -> None:
    """Fault 4: all masters at once."""
    async with asyncio.TaskGroup() as group:
        for master in cluster.masters.values():
            group.create_task(_kill(cluster, master, rng.uniform(0, 3)))


async def kill_worker(cluster: SimCluster, rng: Random) -> None:
    """Fault 11: kill -9; the node comes back later, as another incarnation."""
    await _kill(cluster, _worker(cluster, rng), rng.uniform(0, 10))


async def stop_leader(cluster: SimCluster, rng: Random) -> None:
    """Fault 5: SIGTERM, then a start."""
    await _stop(cluster, _leader(cluster, rng))


async def stop_worker(cluster: SimCluster, rng: Random) -> None:
    """SIGTERM, then a start: its jobs are finished or handed back."""
    await _stop(cluster, _worker(cluster, rng))


async def freeze_leader(cluster: SimCluster, rng: Random) -> None:
    """Faults 6, 7: SIGSTOP, for less or for more than the office's TTL; then SIGCONT."""
    await _freeze(_leader(cluster, rng), rng.uniform(0.5, 12))


async def freeze_worker(cluster: SimCluster, rng: Random) -> None:
    """Fault 12: SIGSTOP, for less or for more than the leases' TTL; then SIGCONT."""
    await _freeze(_worker(cluster, rng), rng.uniform(0.5, 30))


async def cut_store(cluster: SimCluster, rng: Random) -> None:
    """Faults 25, 27, 28: the leader is cut from the store, one way or both."""
    store = _leader(cluster, rng).store
    if store is not None:
        ways = rng.choice(((True, False), (False, True), (True, True)))
        store.link.requests_cut, store.link.replies_cut = ways
        await elapse(rng.uniform(0.5, 12))
        store.link.heal()


async def lose_answers(cluster: SimCluster, rng: Random) -> None:
    """Fault 28: some answers of the store are lost, before or after it has done what was asked."""
    store = _leader(cluster, rng).store
    if store is not None:
        store.link.lose(*rng.choices((Fate.APPLIED, Fate.NOT_APPLIED), k=rng.randint(1, 4)))


async def fill_store(cluster: SimCluster, rng: Random) -> None:
    """Faults 43, 45: the store has no space for a while, for nobody."""
    cluster.store.full = True
    await elapse(rng.uniform(0.5, 15))
    cluster.store.full = False


async def cut_worker(cluster: SimCluster, rng: Random) -> None:
    """Faults 29, 30: a worker is cut from the leader, one way or both."""
    master, worker = _leader(cluster, rng).host, _worker(cluster, rng).host
    ways = rng.choice(
        ([(master, worker)], [(worker, master)], [(master, worker), (worker, master)])
    )
    for source, target in ways:
        cluster.network.cut(source, target)
    await elapse(rng.uniform(0.5, 30))
    for source, target in ways:
        cluster.network.heal(source, target)


async def reset_storm(cluster: SimCluster, rng: Random) -> None:
    """Fault 32: connections to a master break again and again."""
    master = _leader(cluster, rng)
    others = [node.host for node in cluster.workers.values()] + ["c1"]
    for _ in range(rng.randint(1, 10)):
        cluster.network.break_calls(master.host, rng.choice(others))
        await elapse(rng.uniform(0, 1))


async def lossy_links(cluster: SimCluster, rng: Random) -> None:
    """Each message to and from a master may take its connection along."""
    master, loss = _leader(cluster, rng).host, rng.uniform(0.005, 0.1)
    for other in [*cluster.workers, "c1"]:
        cluster.network.link(master, other).loss = loss
        cluster.network.link(other, master).loss = loss
    await elapse(rng.uniform(1, 8))
    for other in [*cluster.workers, "c1"]:
        cluster.network.link(master, other).loss = 0.0
        cluster.network.link(other, master).loss = 0.0


FAULTS: Final[tuple[Fault, ...]] = (
    kill_leader,
    kill_masters,
    kill_worker,
    stop_leader,
    stop_worker,
    freeze_leader,
    freeze_worker,
    cut_store,
    lose_answers,
    fill_store,
    cut_worker,
    reset_storm,
    lossy_links,
)


def lose_master(cluster: SimCluster, rng: Random) -> None:
    """The leader dies and stays dead."""
    _leader(cluster, rng).kill()


def wedge_master(cluster: SimCluster, rng: Random) -> None:
    """The leader stands still for good: it takes connections and answers nothing."""
    _leader(cluster, rng).freeze()


def cut_store_for_good(cluster: SimCluster, rng: Random) -> None:
    """The leader stays cut from the store, one way or both."""
    store = _leader(cluster, rng).store
    if store is not None:
        ways = rng.choice(((True, False), (False, True), (True, True)))
        store.link.requests_cut, store.link.replies_cut = ways


def lose_worker(cluster: SimCluster, rng: Random) -> None:
    """A worker dies and stays dead."""
    _worker(cluster, rng).kill()


def cut_worker_for_good(cluster: SimCluster, rng: Random) -> None:
    """A worker stays cut from the leader, one way or both; another one still reaches it."""
    master, worker = _leader(cluster, rng).host, _worker(cluster, rng).host
    for source, target in rng.choice(_ways(master, worker)):
        cluster.network.cut(source, target)


#: Faults of a minority that do not end.
LASTING: Final = (lose_master, wedge_master, cut_store_for_good, lose_worker, cut_worker_for_good)


def _ways(one: str, other: str) -> list[list[tuple[str, str]]]:
    """Which links to cut between two nodes: one, the other, or both."""
    return [[(one, other)], [(other, one)], [(one, other), (other, one)]]


def _leader(cluster: SimCluster, rng: Random) -> SimMaster:
    """The leader of some partition; while there is none, some master."""
    leader = cluster.leader(rng.randrange(cluster.partitions))
    return leader or rng.choice(list(cluster.masters.values()))


def _worker(cluster: SimCluster, rng: Random) -> SimNode:
    return rng.choice(list(cluster.workers.values()))


async def _kill(cluster: SimCluster, node: SimNode, down_s: float) -> None:
    node.kill()
    await node.process.join()
    await elapse(down_s)
    _start(cluster, node)


async def _stop(cluster: SimCluster, node: SimNode) -> None:
    node.stop()
    await node.process.join()
    _start(cluster, node)


async def _freeze(node: SimNode, pause_s: float) -> None:
    node.freeze()
    await elapse(pause_s)
    node.thaw()


def _start(cluster: SimCluster, node: SimNode) -> None:
    # Another fault may have hit the same node, and have started it again.
    if not node.running:
        cluster.start(node)
