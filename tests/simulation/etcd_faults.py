"""Faults of the store of simulated clusters, and of the way to it; see ``faults``."""

from __future__ import annotations

from tests.simulation.faults import Stage, fault

_WAYS = {25: (True, True), 27: (True, False), 28: (False, True)}


@fault(25, 27, 28)
async def cut_store(stage: Stage) -> None:
    """The leader is cut from the store, one way or both."""
    master = stage.master()
    row = stage.rng.choice(list(_WAYS))
    stage.strike(master.name, row)
    requests, replies = _WAYS[row]
    stage.cluster.cut_store(master, requests=requests, replies=replies)
    await stage.last(0.5, 12)
    stage.cluster.heal_store(master)


@fault(28)
async def lose_answers(stage: Stage) -> None:
    """Some answers of the store are lost, before or after it has done what was asked."""
    master = stage.master()
    stage.strike(master.name)
    network = stage.cluster.network
    for member in stage.cluster.etcd.members.values():
        network.link(master.host, member.host).loss = 0.3
        network.link(member.host, master.host).loss = 0.3
    await stage.last(0.5, 3)
    for member in stage.cluster.etcd.members.values():
        network.link(master.host, member.host).loss = 0.0
        network.link(member.host, master.host).loss = 0.0


@fault(45)
async def fill_store(stage: Stage) -> None:
    """The store has no space for a while, for nobody."""
    stage.strike("store")
    stage.cluster.etcd.fill()
    await stage.last(0.5, 15)
    stage.cluster.etcd.free()


@fault(25, 27, 28, lasting=True)
async def cut_store_for_good(stage: Stage) -> None:
    """The leader stays cut from the store, one way or both."""
    master = stage.master()
    row = stage.rng.choice(list(_WAYS))
    stage.strike(master.name, row)
    requests, replies = _WAYS[row]
    stage.cluster.cut_store(master, requests=requests, replies=replies)
