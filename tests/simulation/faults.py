"""Faults of masters, workers, clocks and the network between them; see ``stage``.

Each strikes somewhere at random, lasts a while, and ends by itself. Faults of the store and of
disks stand in modules of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from google.protobuf.message import Message

from tenure.testing.call import Link
from tenure.testing.cluster import SimCluster
from tenure.testing.nodes import SimMaster, SimNode
from tenure.testing.process import elapse
from tenure.v1.worker_pb2 import SessionRequest, SessionResponse
from tests.simulation.stage import (
    Stage,
    both,
    broken,
    changed,
    cut,
    cut_by_fuses,
    fault,
    frozen,
    of_leader,
)

_HOUR_MS: Final = 3_600_000
#: For so long a fault waits for a batch to be on its way.
_PATIENCE_S: Final = 2.0


# ---- masters ------------------------------------------------------------------------------------


@fault(1, 2, weight=3)
@of_leader
async def kill_leader(stage: Stage, leader: SimMaster) -> None:
    """Kill -9, idle, or under load with a batch on its way; the node comes back later."""
    stage.aim(leader)
    if stage.rng.random() < 0.7:
        await _amid_a_batch(leader)
    if not leader.running:
        return
    if _writes(leader):
        stage.hit(2)
    elif _idle(leader):
        stage.hit(1)
    stage.touch()
    await stage.kill(leader, stage.rng.uniform(0, 10))


@fault(3, stores=("etcd",), weight=4)
async def kill_successors(stage: Stage) -> None:
    """Kill -9 the leader, and then whoever wins the office before it serves, a few times."""
    partition = stage.rng.randrange(stage.cluster.partitions)
    leader = await stage.next_leader(partition)
    if leader is None:
        return
    stage.aim(leader)
    stage.touch()
    killed = [(leader, leader.process)]
    leader.kill()
    for _ in range(stage.rng.randint(1, 2)):
        heir = await _recovering(stage.cluster, partition)
        if heir is not None:
            stage.struck.target += f" {heir.name}"
            stage.struck.nodes += (heir.name,)
            if not heir.leads(partition):
                stage.hit()
            killed.append((heir, heir.process))
            heir.kill()
    for master, process in killed:
        await stage.restart(master, process)


@fault(4, weight=2)
async def kill_masters(stage: Stage) -> None:
    """Kill -9 all masters at once."""
    masters = list(stage.cluster.masters.values())
    stage.strike(*masters)
    async with asyncio.TaskGroup() as group:
        for master in masters:
            group.create_task(stage.kill(master, stage.rng.uniform(0, 3)))


@fault(5)
async def roll_masters(stage: Stage) -> None:
    """SIGTERM to each master in turn, the next when the one before is back."""
    masters = list(stage.cluster.masters.values())
    stage.rng.shuffle(masters)
    stage.strike(*masters)
    for master in masters:
        await stage.stop(master)
        await stage.last(0.5, 3)


@fault(5)
@of_leader
async def stop_leader(stage: Stage, leader: SimMaster) -> None:
    """SIGTERM, then a start."""
    await stage.stop(leader)


@fault(6)
@of_leader
async def pause_leader(stage: Stage, leader: SimMaster) -> None:
    """SIGSTOP for less than its office lives, then SIGCONT."""
    with frozen(leader):
        await stage.last(0.5, 4)


@fault(7, weight=2)
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
    stage.aim(leader)
    delay_ms = stage.rng.uniform(3_000, 12_000)
    links = [stage.cluster.network.link(leader.host, name) for name in stage.cluster.workers]
    before = sum(link.sent for link in links)
    with changed(links, "delay_ms", (delay_ms, delay_ms + 100)):
        await stage.last(0.5, 2)
        if sum(link.sent for link in links) > before:
            stage.hit()
        with frozen(leader):
            stage.touch()
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
    stage.strike(worker)
    await stage.kill(worker, stage.rng.uniform(1, 10))


@fault(12)
async def pause_worker(stage: Stage) -> None:
    """SIGSTOP, for less or for more than its leases live; then SIGCONT."""
    worker = stage.worker()
    pause_s = stage.rng.uniform(0.5, 25)
    stage.strike(worker)
    with frozen(worker):
        await elapse(pause_s)


@fault(13)
async def restart_worker(stage: Stage) -> None:
    """Kill -9 and a start with the same name at once."""
    worker = stage.worker()
    stage.strike(worker)
    await stage.kill(worker, 0)


@fault(13)
async def drain_worker(stage: Stage) -> None:
    """SIGTERM, then a start: its jobs are finished or handed back."""
    worker = stage.worker()
    stage.strike(worker)
    await stage.stop(worker)


@fault(14)
async def kill_workers(stage: Stage) -> None:
    """All workers die; they come back after a while without any."""
    workers = list(stage.cluster.workers.values())
    stage.strike(*workers)
    down_s = stage.rng.uniform(1, 12)
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(stage.kill(worker, down_s))


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
    master, worker = stage.master(), stage.worker()
    stage.aim(worker, how=f"to {master.name}")
    if one_way := stage.rng.random() < 2 / 3:
        stage.hit()
    stage.touch()
    ways = both(worker.host, master.host)
    with cut(stage.cluster, ways[:1] if one_way else ways):
        await stage.last(0.5, 25)


@fault()
async def deafen_worker(stage: Stage) -> None:
    """A worker does not hear the leader, but is heard."""
    master, worker = stage.master(), stage.worker()
    stage.strike(worker, how=f"from {master.name}")
    with cut(stage.cluster, [(master.host, worker.host)]):
        await stage.last(0.5, 25)


@fault(30, stores=("etcd",))
@of_leader
async def leave_zombie_only(stage: Stage, leader: SimMaster) -> None:
    """A worker reaches the leader alone, and that one loses its office: nobody else hears it."""
    worker, led = stage.worker(), stage.led_by(leader)
    stage.aim(leader, worker)
    stage.touch()
    others = [master.host for master in stage.cluster.masters.values() if master is not leader]
    with cut(stage.cluster, [way for other in others for way in both(worker.host, other)]):
        stage.cluster.cut_store(leader)
        await stage.last(6, 20)
        if any(stage.cluster.holder(partition) is not leader for partition in led):
            stage.hit()
        stage.cluster.heal_store(leader)


@fault(31)
async def cut_after_bytes(stage: Stage) -> None:
    """Connections to a master break after some number of bytes, wherever in a message that is."""
    master = stage.master()
    stage.aim(master)
    await cut_by_fuses(stage, stage.links(master.host, stage.callers()), 6)


@fault(32)
async def reset_storm(stage: Stage) -> None:
    """Connections to a master break again and again."""
    master = stage.master()
    stage.aim(master)
    storms = 0
    for _ in range(stage.rng.randint(2, 10)):
        caller = stage.rng.choice(stage.callers())
        storms += stage.cluster.network.break_calls(master.host, caller) > 0
        await stage.last(0, 1)
    if storms > 1:
        stage.hit()


@fault(32)
async def lossy_links(stage: Stage) -> None:
    """Each message to and from a master may take its connection along."""
    master = stage.master()
    stage.aim(master)
    links = stage.links(master.host, stage.callers())
    before = broken(links)
    with changed(links, "loss", stage.rng.uniform(0.005, 0.1)):
        await stage.last(1, 8)
    lost = broken(links) - before
    if lost > 1:
        stage.hit()
    elif lost:
        stage.touch()


@fault(34)
async def narrow_links(stage: Stage) -> None:
    """All goes over a master's links at 256 kbit/s."""
    master = stage.master()
    stage.strike(master)
    with changed(stage.links(master.host, stage.callers()), "bytes_per_s", 32_000.0):
        await stage.last(3, 15)


@fault(35)
async def repeat_calls(stage: Stage) -> None:
    """Some calls are served twice, the second time up to ten seconds later."""
    network, addresses = stage.cluster.network, stage.cluster.addresses
    stage.aim(how=" ".join(stage.clients))
    stage.struck.nodes = stage.clients
    links = [network.link(client, address) for client in stage.clients for address in addresses]
    before = sum(link.repeated for link in links)
    with changed(links, "repeat", stage.rng.uniform(0.1, 0.6)):
        await stage.last(3, 15)
    if sum(link.repeated for link in links) > before:
        stage.hit()


@fault(36)
async def slow_worker(stage: Stage) -> None:
    """A worker's words arrive late, some of them after its leases have expired."""
    worker = stage.worker()
    stage.aim(worker)
    network, delay_ms = stage.cluster.network, stage.rng.uniform(2_000, 20_000)
    links = [network.link(worker.host, address) for address in stage.cluster.addresses]
    before = sum(link.sent for link in links)
    with changed(links, "delay_ms", (delay_ms, delay_ms + 200)):
        await stage.last(3, 20)
    if sum(link.sent for link in links) > before:
        stage.hit()
    await elapse(delay_ms / 1000)


@fault(37)
async def delay_reports(stage: Stage) -> None:
    """What a worker says now arrives a minute later: ten minutes, scaled to a short run."""
    worker = stage.busy_worker()
    stage.aim(worker)
    network = stage.cluster.network
    links = [network.link(worker.host, address) for address in stage.cluster.addresses]
    told = asyncio.Event()

    def look(message: Message) -> bool:
        if _reports(message):
            told.set()
        return False

    with changed(links, "dooms", look), changed(links, "delay_ms", (45_000.0, 60_000.0)):
        await _wait(told, stage.rng.uniform(2, 10))
        await stage.last(0.2, 1)
    if told.is_set():
        stage.hit()
    await elapse(60)


@fault(38)
@of_leader
async def lose_grants(stage: Stage, leader: SimMaster) -> None:
    """Grants are lost on their way to workers, with the connections."""
    stage.aim(leader)
    links = [stage.cluster.network.link(leader.host, name) for name in stage.cluster.workers]
    before = broken(links)
    for _ in range(stage.rng.randint(1, 4)):
        await _lose_next(links, _grants, stage.rng.uniform(0.5, 4))
    # What was doomed last is on its way.
    await stage.last(0.1, 0.5)
    if broken(links) > before:
        stage.hit()


# ---- clocks -------------------------------------------------------------------------------------


@fault(39)
@of_leader
async def jump_wall(stage: Stage, leader: SimMaster) -> None:
    """A leader's wall clock jumps by an hour, and back after a while."""
    jump_ms = stage.rng.choice((-_HOUR_MS, _HOUR_MS))
    stage.strike(leader, how=f"by {jump_ms} ms")
    leader.clock.wall_skew_ms += jump_ms
    await stage.last(2, 15)
    leader.clock.wall_skew_ms -= jump_ms


@fault(40, weight=2)
@of_leader
async def skew_and_fail_over(stage: Stage, leader: SimMaster) -> None:
    """Masters' wall clocks are up to 5 s off, and the leader is killed."""
    masters = list(stage.cluster.masters.values())
    stage.strike(*masters, how=f"without {leader.name}")
    for master in masters:
        master.clock.wall_skew_ms = stage.rng.randint(-5_000, 5_000)
    await stage.kill(leader, stage.rng.uniform(0, 5))


@fault(41)
async def speed_worker_up(stage: Stage) -> None:
    """A worker's clock runs half as fast again."""
    worker = stage.worker()
    stage.strike(worker)
    worker.clock.drift(1.5)
    await stage.last(5, 20)
    worker.clock.drift(1.0)


@fault(42)
async def suspend(stage: Stage) -> None:
    """A machine sleeps: its timers stand still, its boot clock goes on."""
    node: SimNode = stage.master() if stage.rng.random() < 0.5 else stage.worker()
    stage.strike(node)
    stage.cluster.network.stall(node.host)
    node.process.suspend()
    await stage.last(1, 20)
    node.thaw()


# ---- faults of a minority that do not end -------------------------------------------------------


@fault(1, 2, stores=("etcd",), lasting=True)
async def lose_master(stage: Stage) -> None:
    """The leader dies and stays dead."""
    master = stage.master()
    stage.aim(master)
    if _writes(master):
        stage.hit(2)
    elif stage.led_by(master) and _idle(master):
        stage.hit(1)
    stage.touch()
    master.kill()


@fault(stores=("etcd",), lasting=True)
async def wedge_master(stage: Stage) -> None:
    """The leader stands still for good: it takes connections and answers nothing."""
    master = stage.master()
    stage.strike(master)
    master.freeze()


@fault(11, lasting=True)
async def lose_worker(stage: Stage) -> None:
    """A worker dies and stays dead."""
    worker = stage.worker()
    stage.strike(worker)
    worker.kill()


@fault(29, lasting=True)
async def cut_worker_for_good(stage: Stage) -> None:
    """A worker stays cut from the leader, one way or both; another one still reaches it."""
    master, worker = stage.master(), stage.worker()
    # The master leads on: only the worker is kept from anything.
    stage.aim(worker, how=f"and {master.name}")
    stage.touch()
    ways = both(worker.host, master.host)
    chosen = stage.rng.choice((ways, ways[:1], ways[1:]))
    if chosen == ways[:1]:
        stage.hit()
    for source, target in chosen:
        stage.cluster.network.cut(source, target)


# ---- what they wait for -------------------------------------------------------------------------


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


async def _amid_a_batch(leader: SimMaster) -> None:
    """Returns when a batch of a leader is on its way; or when none is for a while, or it ends."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + _PATIENCE_S
    while leader.running and not _writes(leader) and loop.time() < deadline_s:
        await elapse(0.01)


def _writes(master: SimMaster) -> bool:
    """Whether a master has decided on something that has not committed yet."""
    terms = master.node.roster.terms.values() if master.node is not None else ()
    return any(term.partition.next_seq - 1 > term.gate.committed_seq for term in terms)


def _idle(master: SimMaster) -> bool:
    """Whether no job runs in the partitions that a master leads."""
    terms = master.node.roster.terms.values() if master.node is not None else ()
    return not any(term.partition.stats().running for term in terms)


def _grants(message: Message) -> bool:
    """Whether a message brings a worker something to do."""
    return isinstance(message, SessionResponse) and any(
        part.assignment.grants for part in message.instructions
    )


def _reports(message: Message) -> bool:
    """Whether a message brings a master the end of an attempt."""
    return isinstance(message, SessionRequest) and any(part.reports for part in message.updates)


async def _lose_next(links: list[Link], doomed: Callable[[Message], bool], within_s: float) -> None:
    """The next such message that somebody sends takes its connection along where it arrives."""
    found = asyncio.Event()

    def doom(message: Message) -> bool:
        if found.is_set() or not doomed(message):
            return False
        found.set()
        return True

    with changed(links, "dooms", doom):
        await _wait(found, within_s)


async def _wait(event: asyncio.Event, within_s: float) -> None:
    """Until it is set, or so long."""
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return
