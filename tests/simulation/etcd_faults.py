"""Faults of the store of simulated clusters, and of the way to it; see ``faults``."""

from __future__ import annotations

from tenure.testing.store import Fate
from tests.simulation.faults import Stage, fault

_WAYS = {25: (True, True), 27: (True, False), 28: (False, True)}


@fault(25, 27, 28)
async def cut_store(stage: Stage) -> None:
    """The leader is cut from the store, one way or both."""
    master = stage.master()
    if master.store is not None:
        row = stage.rng.choice(list(_WAYS))
        stage.strike(master.name, row)
        master.store.link.requests_cut, master.store.link.replies_cut = _WAYS[row]
        await stage.last(0.5, 12)
        master.store.link.heal()


@fault(28)
async def lose_answers(stage: Stage) -> None:
    """Some answers of the store are lost, before or after it has done what was asked."""
    master = stage.master()
    if master.store is not None:
        stage.strike(master.name)
        fates = stage.rng.choices((Fate.APPLIED, Fate.NOT_APPLIED), k=stage.rng.randint(1, 4))
        master.store.link.lose(*fates)


@fault(45)
async def fill_store(stage: Stage) -> None:
    """The store has no space for a while, for nobody."""
    stage.strike("store")
    stage.cluster.store.full = True
    await stage.last(0.5, 15)
    stage.cluster.store.full = False


@fault(25, 27, 28, lasting=True)
async def cut_store_for_good(stage: Stage) -> None:
    """The leader stays cut from the store, one way or both."""
    master = stage.master()
    if master.store is not None:
        row = stage.rng.choice(list(_WAYS))
        stage.strike(master.name, row)
        master.store.link.requests_cut, master.store.link.replies_cut = _WAYS[row]
