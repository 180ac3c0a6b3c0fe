"""Faults of etcd in simulated clusters, and of the way to it; see ``stage``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

from tenure.etcdapi import etcd_pb2
from tenure.testing.call import Link
from tenure.testing.cluster import StoreKind
from tenure.testing.nodes import SimMaster
from tenure.testing.process import elapse
from tenure.testing.simetcd.member import SimEtcdMember
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

_ETCD: tuple[StoreKind, ...] = ("etcd",)
#: What healthy disks take.
_FSYNC_MS = (0.2, 1.0)
#: How long a fault waits for the request at which it strikes.
_PATIENCE_S: Final = 6.0
#: Which ways between a master and etcd are cut: requests, replies.
_WAYS = {25: (True, True), 27: (True, False), 28: (False, True)}


# ---- members ------------------------------------------------------------------------------------


@fault(18, stores=_ETCD)
async def kill_follower_of_etcd(stage: Stage) -> None:
    """Kill -9 a member that does not lead."""
    leader = stage.cluster.etcd.leader()
    followers = [member for member in _members(stage) if member is not leader]
    member = stage.rng.choice(followers)
    if leader is not None and member.running:
        stage.strike(member)
        await _kill(stage, member, stage.rng.uniform(1, 12))


@fault(19, stores=_ETCD)
async def kill_leader_of_etcd(stage: Stage) -> None:
    """Kill -9 the member that leads."""
    leader = stage.cluster.etcd.leader()
    if leader is not None:
        stage.strike(leader)
        await _kill(stage, leader, stage.rng.uniform(1, 12))


@fault(20, stores=_ETCD)
async def kill_majority_of_etcd(stage: Stage) -> None:
    """Two of the three members are dead for a while, shorter or longer than an office lives."""
    members = stage.rng.sample(_members(stage), 2)
    stage.strike(*members)
    async with asyncio.TaskGroup() as group:
        for member in members:
            group.create_task(_kill(stage, member, stage.rng.uniform(2, 15)))


@fault(21, stores=_ETCD)
async def pause_etcd(stage: Stage) -> None:
    """All members stand still for a while."""
    stage.strike(*_members(stage))
    with frozen(*_members(stage)):
        await stage.last(1, 30)


@fault(22, stores=_ETCD)
async def pause_leader_of_etcd(stage: Stage) -> None:
    """The member that leads is half-dead: it takes connections, and answers nothing."""
    leader = stage.cluster.etcd.leader()
    if leader is not None:
        stage.strike(leader)
        with frozen(leader):
            await stage.last(2, 15)


@fault(23, stores=_ETCD)
async def lose_data_of_member(stage: Stage) -> None:
    """A member's data is lost; it is replaced by an empty one, which learns from the others."""
    member = stage.rng.choice(_members(stage))
    if all(other.running for other in _members(stage)):
        stage.strike(member)
        member.kill()
        member.lose_data()
        await stage.last(1, 5)
        member.start()


@fault(44, stores=_ETCD)
async def fill_disk_of_member(stage: Stage) -> None:
    """A member's disk is full: it dies, and dies again whenever it is started, for a while."""
    member = stage.rng.choice(_members(stage))
    stage.strike(member)
    for _ in range(stage.rng.randint(1, 3)):
        member.kill()
        await stage.last(1, 4)
        member.start()
        await stage.last(0.1, 0.5)


@fault(46, stores=_ETCD)
async def slow_disks_of_etcd(stage: Stage) -> None:
    """Each fsync takes some tenths of a second, or up to two."""
    etcd = stage.cluster.etcd
    stage.strike(*_members(stage))
    etcd.fsync_ms = (200.0, stage.rng.choice((500.0, 2_000.0)))
    await stage.last(2, 10)
    # Not what was found: two of these at once would leave it slow for good.
    etcd.fsync_ms = _FSYNC_MS


@fault(51, stores=_ETCD)
async def defragment(stage: Stage) -> None:
    """An operator defragments each member in turn: it stands still for a moment."""
    stage.strike(*_members(stage))
    for member in _members(stage):
        with frozen(member):
            await stage.last(0.2, 2)
        await stage.last(0.5, 2)


# ---- space and history --------------------------------------------------------------------------


@fault(45, stores=_ETCD)
async def fill_etcd(stage: Stage) -> None:
    """The quota is reached, now or after a few more writes; later the operator's runbook is run."""
    etcd = stage.cluster.etcd
    stage.aim(*_members(stage))
    if stage.rng.random() < 0.5:
        etcd.fill()
    else:
        etcd.quota_bytes = etcd.state.in_use_bytes + stage.rng.randrange(10_000)
    await stage.last(1, 15)
    if etcd.alarmed:
        stage.hit()
    etcd.free()


@fault(50, stores=_ETCD)
async def compact_etcd(stage: Stage) -> None:
    """All superseded revisions are compacted away, again and again, while a leader is replaced."""
    stage.aim(*_members(stage))
    stage.touch()
    partition = stage.rng.randrange(stage.cluster.partitions)
    leader = await stage.next_leader(partition)
    process = None if leader is None else leader.process
    if leader is not None:
        leader.kill()
    for _ in range(stage.rng.randint(50, 100)):
        stage.cluster.etcd.compact()
        await elapse(0.1)
    if stage.cluster.leader(partition) is not None and leader is not None:
        # Somebody has recovered meanwhile.
        stage.hit()
    if leader is not None and process is not None:
        await stage.restart(leader, process)


# ---- the way to it ------------------------------------------------------------------------------


@fault(25, 27, 28, stores=_ETCD)
async def cut_store(stage: Stage) -> None:
    """The leader is cut from etcd, one way or both."""
    master = stage.master()
    row = stage.rng.choice(list(_WAYS))
    stage.aim(master)
    requests, replies = _WAYS[row]
    cut_now = partial(stage.cluster.cut_store, master, requests=requests, replies=replies)
    if stage.rng.random() < 0.5:
        cut_now()
    else:
        links = [stage.cluster.network.link(master.host, host) for host in _hosts(stage)]
        await _at_a_request(stage, links, cut_now)
    stage.touch()
    if stage.led_by(master):
        stage.hit(row)
    await stage.last(0.5, 12)
    stage.cluster.heal_store(master)


@fault(28, stores=_ETCD)
async def lose_answers(stage: Stage) -> None:
    """Some requests to etcd and some answers take their connections along."""
    master = stage.master()
    stage.aim(master)
    links = stage.links(master.host, _hosts(stage))
    answers = [stage.cluster.network.link(host, master.host) for host in _hosts(stage)]
    all_before, answers_before = broken(links), broken(answers)
    with changed(links, "loss", stage.rng.uniform(0.02, 0.4)):
        await stage.last(0.5, 4)
    if broken(answers) > answers_before:
        stage.hit()
    elif broken(links) > all_before:
        stage.touch()


@fault(5, 28, stores=_ETCD)
@of_leader
async def stop_leader_on_lossy_links(stage: Stage, leader: SimMaster) -> None:
    """A hand-over while masters lose requests to etcd and its answers, and a member is cut off.

    So each of them asks all members in turn, also the one that is behind the others.
    """
    stage.aim(leader)
    process = leader.process
    hosts = [master.host for master in stage.cluster.masters.values()]
    links = [link for host in hosts for link in stage.links(host, _hosts(stage))]
    answers = [stage.cluster.network.link(one, host) for one in _hosts(stage) for host in hosts]
    member = stage.rng.choice(_members(stage))
    with _apart(stage, member):
        await stage.last(0.5, 3)
        before = broken(answers)
        with changed(links, "loss", stage.rng.uniform(0.05, 0.35)):
            if leader.running:
                stage.hit(5)
            leader.stop()
            await stage.last(1, 5)
        if broken(answers) > before:
            stage.hit(28)
    await stage.restart(leader, process)


@fault(31, stores=_ETCD)
async def cut_transactions(stage: Stage) -> None:
    """A leader's connections to etcd break after some number of bytes, within a transaction."""
    master = stage.master()
    stage.aim(master)
    await cut_by_fuses(stage, stage.links(master.host, _hosts(stage)), 6)


@fault(33, stores=_ETCD)
async def slow_way_to_etcd(stage: Stage) -> None:
    """All that goes between the leader and etcd takes 100 ms longer."""
    master = stage.master()
    stage.strike(master)
    with changed(stage.links(master.host, _hosts(stage)), "delay_ms", (100.0, 110.0)):
        await stage.last(3, 15)


@fault(8, stores=_ETCD)
@of_leader
async def delay_requests(stage: Stage, leader: SimMaster) -> None:
    """The leader is held up as it sends to etcd: that arrives when its office may be another's.

    Its calls run into their deadlines meanwhile, and it sends them again, which is held up as well.
    """
    stage.aim(leader)
    links = [stage.cluster.network.link(leader.host, host) for host in _hosts(stage)]
    before = [link.delay_ms for link in links]
    delay_ms = stage.rng.uniform(5_000, 12_000)

    def hold_up() -> None:
        for link in links:
            link.delay_ms = (delay_ms, delay_ms + 100)

    await _at_a_request(stage, links, hold_up)
    sent = sum(link.sent for link in links)
    await stage.last(0.5, 6)
    if sum(link.sent for link in links) > sent:
        stage.hit()
    for link, delays in zip(links, before, strict=True):
        link.delay_ms = delays
    await elapse(delay_ms / 1000)


@fault(20, 22, stores=_ETCD)
async def split_etcd(stage: Stage) -> None:
    """The members do not reach each other, or one does not reach the others; masters reach all."""
    members, leader = _members(stage), stage.cluster.etcd.leader()
    if stage.rng.random() < 0.3:
        stage.aim(*members)
        stage.hit(20)
    else:
        members = [leader or stage.rng.choice(members)]
        stage.aim(*members)
        stage.touch()
        if leader is not None:
            stage.hit(22)
    with _apart(stage, *members):
        await stage.last(1, 12)


# ---- faults of a minority that do not end -------------------------------------------------------


@fault(25, 27, 28, stores=_ETCD, lasting=True)
async def cut_store_for_good(stage: Stage) -> None:
    """The leader stays cut from etcd, one way or both."""
    master = stage.master()
    row = stage.rng.choice(list(_WAYS))
    stage.aim(master)
    stage.touch()
    if stage.led_by(master):
        stage.hit(row)
    requests, replies = _WAYS[row]
    stage.cluster.cut_store(master, requests=requests, replies=replies)


@fault(18, 19, stores=_ETCD, lasting=True)
async def lose_member_of_etcd(stage: Stage) -> None:
    """A member dies and stays dead."""
    member = stage.rng.choice(_members(stage))
    stage.aim(member)
    stage.hit(19 if member is stage.cluster.etcd.leader() else 18)
    member.kill()


@fault(22, stores=_ETCD, lasting=True)
async def wedge_member_of_etcd(stage: Stage) -> None:
    """A member stands still for good: it takes connections and answers nothing."""
    member = stage.cluster.etcd.leader() or stage.rng.choice(_members(stage))
    stage.strike(member)
    member.freeze()


# ---- how members are struck ---------------------------------------------------------------------


def _members(stage: Stage) -> list[SimEtcdMember]:
    return list(stage.cluster.etcd.members.values())


def _hosts(stage: Stage) -> list[str]:
    return [member.host for member in _members(stage)]


async def _at_a_request(stage: Stage, links: list[Link], strike: Callable[[], None]) -> None:
    """Strikes at the next write or delete, before it leaves; without one, after a while.

    The one as likely as the other: most of what a leader sends are keepalives, reads and appends,
    and its other requests would be interrupted too seldom.
    """
    kind = stage.rng.choice(("write", "delete"))
    sent = asyncio.Event()

    def look(request: object) -> None:
        if not sent.is_set() and kind == _kind_of(request):
            sent.set()
            strike()

    for link in links:
        link.on_send = look
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await sent.wait()
    except TimeoutError:
        strike()
    finally:
        for link in links:
            link.on_send = None


def _kind_of(request: object) -> str:
    """What a transaction does if its compares hold; empty: something else is asked for."""
    if not isinstance(request, etcd_pb2.TxnRequest):
        return ""
    deletes = {one.HasField("request_delete_range") for one in request.success}
    if len(deletes) != 1:
        return ""
    return "delete" if True in deletes else "write"


async def _kill(stage: Stage, member: SimEtcdMember, down_s: float) -> None:
    member.kill()
    await elapse(down_s)
    member.start()


def _apart(stage: Stage, *members: SimEtcdMember) -> AbstractContextManager[None]:
    """Members that do not reach any other one, though masters reach them."""
    hosts = [(one.host, other) for one in members for other in _hosts(stage) if one.host != other]
    return cut(stage.cluster, [way for one, other in hosts for way in both(one, other)])
