"""What operators do to workers in random runs: they drain them, and let them work again.

After the storm all of them work again (``restoring``): a run with drained ones only would not end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from tenure.client import Rejected, TenureError, Unavailable, Worker
from tenure.testing.cluster import SimCluster
from tenure.testing.nodes import SimWorker
from tenure.testing.process import elapse
from tests.simulation.load import Visit, script

#: How often it is looked at a drained worker.
_LOOK_S = 0.5


def _machine_of(cluster: SimCluster, worker: Worker) -> SimWorker | None:
    """The machine that a worker runs on, while it does."""
    for machine in cluster.workers.values():
        if machine.running and machine.process.incarnation == worker.incarnation:
            return machine
    return None


def _said(cluster: SimCluster, worker: Worker, event: str) -> int:
    """How often a worker has announced something."""
    incarnation = worker.incarnation
    return sum(
        said.event == event and said.incarnation == incarnation for said in cluster.announcements
    )


def _begun(machine: SimWorker) -> Collection[str]:
    """The jobs that run there."""
    return [] if machine.executor is None else machine.executor.running


@script(7, "workers")
async def drain_workers(visit: Visit) -> None:
    """A worker is drained for a while, and jobs come all the same: it begins none of them."""
    rng, client, cluster = visit.rng, visit.client, visit.cluster
    options = visit.options()

    async def rest() -> None:
        changed = visit.load.changed
        with changed.at_work():
            changed.drained = True
            try:
                workers = await client.workers.list()
                if not workers:
                    return
                worker = rng.choice(workers)
                undrained = _said(cluster, worker, "undrained")
                await client.workers.drain(worker.incarnation)
                await _watch(cluster, worker, undrained, rng.uniform(1, 25))
                await client.workers.undrain(worker.incarnation)
            except (Unavailable, Rejected):
                # Nobody leads, or the worker has died meanwhile.
                return

    calls = [(visit.text(), visit.hold_s() / 4, "", 0) for _ in range(rng.randint(1, 4))]
    handles = await visit.desk.submit_many(visit.works.act.options(**options), calls)
    await visit.see_all(handles, rest())


async def _watch(cluster: SimCluster, worker: Worker, undrained: int, for_s: float) -> None:
    """Looks at a drained worker for so long, or until somebody else has ended that."""
    machine = _machine_of(cluster, worker)
    if machine is None:
        return
    begun = set(_begun(machine))
    until_s = asyncio.get_running_loop().time() + for_s
    while asyncio.get_running_loop().time() < until_s:
        await elapse(_LOOK_S)
        if _machine_of(cluster, worker) is not machine:
            return
        if _said(cluster, worker, "undrained") != undrained:
            return
        fresh = [job_id for job_id in _begun(machine) if job_id not in begun]
        if fresh:
            raise RuntimeError(f"expected drained {worker.name} to begin nothing, got {fresh}")


@script(3, "workers")
async def survey_workers(visit: Visit) -> None:
    """What an operator sees of workers: one of each incarnation, and each by its own."""
    client = visit.client
    for _ in range(2):
        await elapse(visit.rng.uniform(0, 8))
        try:
            found = await client.workers.list()
            incarnations = [worker.incarnation for worker in found]
            if len(set(incarnations)) != len(incarnations):
                raise RuntimeError(f"expected each worker once, got {incarnations}")
            for incarnation in incarnations:
                worker = await client.workers.get(incarnation)
                if worker.leases < len(worker.running):
                    raise RuntimeError(f"expected {worker} to hold what it runs")
        except TenureError:
            # What was there a moment ago may be gone, and so may its leader.
            continue
