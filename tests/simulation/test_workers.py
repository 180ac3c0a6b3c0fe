"""Workers through the SDK, in a cluster of several partitions: lists, drains, failovers."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from tenure.client import AsyncClient, BlockerKind, Reason, Rejected, Retry, WorkerState, job
from tenure.testing.cluster import SimCluster, simulated_cluster
from tenure.testing.process import current_process, elapse, run_processes

PARTITIONS = 3


#: Workers that fail whatever they get.
BROKEN: set[str] = set()


@job(name="app.read", retry=Retry(max_attempts=20, backoff="none"))
async def read(name: str) -> str:
    """Fails where something is broken."""
    process = current_process()
    if process is not None and process.name in BROKEN:
        raise OSError("its disk is gone")
    return name


@job(name="app.write", retry=Retry(max_attempts=20, backoff="none"))
async def write(name: str) -> str:
    """The same."""
    process = current_process()
    if process is not None and process.name in BROKEN:
        raise OSError("its disk is gone")
    return name


@job(name="app.nap", timeout=timedelta(hours=1))
async def nap(seconds: float) -> float:
    """Sleeps."""
    await elapse(seconds)
    return seconds


def play(work: Callable[[SimCluster, AsyncClient], Awaitable[None]], *, workers: int = 2) -> None:
    """Runs a piece of work with a client of a cluster."""

    async def main() -> None:
        async with simulated_cluster(
            seed=7, jobs=[nap, read, write], masters=3, workers=workers, partitions=PARTITIONS
        ) as cluster:
            client = cluster.client()
            await client.submit(nap, 0.0)
            while len(await client.workers.list()) < workers:
                await elapse(0.1)
            await work(cluster, client)

    run_processes(main, limit_s=3_600)


async def holding(client: AsyncClient, name: str, jobs: int) -> None:
    """Waits until a worker holds so many jobs."""
    while (await client.workers.get(name)).leases != jobs:
        await elapse(0.1)


async def runner_of(client: AsyncClient, job_id: str) -> str:
    """The worker that has, or had, a job last; empty: none yet."""
    job = await client.describe(job_id)
    return job.attempts[-1].worker if job.attempts else ""


def test_jobs_of_all_partitions_are_shown_together() -> None:
    """Each leader knows its own leases of a worker; a list adds them up, and one worker has all."""

    async def work(cluster: SimCluster, client: AsyncClient) -> None:
        queues = [f"q{number}" for number in range(8)]
        homes = [await client.submit(nap.options(queue=queue), 60.0) for queue in queues]
        while sum(worker.leases for worker in await client.workers.list()) < len(homes):
            await elapse(0.1)
        found = await client.workers.list()
        assert [worker.name for worker in found] == ["w1", "w2"]
        shown = [await client.workers.get(worker.incarnation) for worker in found]
        assert sorted(row.job_id for worker in shown for row in worker.running) == sorted(
            handle.id for handle in homes
        )
        assert {row.queue for worker in shown for row in worker.running} == set(queues)
        assert [worker.leases for worker in found] == [len(worker.running) for worker in shown]
        assert {worker.job_names[0] for worker in shown} == {"app.nap"}
        with pytest.raises(Rejected, match="did you mean w1") as refused:
            await client.workers.get("w11")
        assert refused.value.reason is Reason.NOT_FOUND

    play(work)


def test_a_drained_worker_gets_nothing_from_any_leader() -> None:
    """What it runs ends, what waits goes to the other one; nobody's attempt is charged."""

    async def work(cluster: SimCluster, client: AsyncClient) -> None:
        queues = [f"q{number}" for number in range(8)]
        handles = [await client.submit(nap.options(queue=queue), 5.0) for queue in queues]
        await holding(client, "w1", 4)
        kept = {row.job_id for row in (await client.workers.get("w1")).running}
        found = await client.workers.drain("w1")
        assert found.state is WorkerState.DRAINING
        more = [await client.submit(nap.options(queue=queue), 5.0) for queue in queues]
        found = await client.workers.drain("w1", wait=True)
        assert (found.state, found.leases) == (WorkerState.DRAINED, 0)
        for handle in [*handles, *more]:
            await handle.result()
            job = await client.describe(handle.id)
            assert job.attempts_charged == job.losses_charged == 0
            assert (job.attempts[-1].worker == "w1") == (handle.id in kept)
        assert (await client.workers.undrain("w1")).state is WorkerState.ACTIVE
        again = [await client.submit(nap.options(queue=queue), 5.0) for queue in queues]
        await holding(client, "w1", 4)
        for handle in again:
            await handle.result()

    play(work)


def test_a_drain_outlives_leaders_and_masters() -> None:
    """The worker tells each new leader, and each master that was restarted."""

    async def work(cluster: SimCluster, client: AsyncClient) -> None:
        await client.workers.drain("w1", wait=True)
        for _ in range(2):
            for master in list(cluster.masters.values()):
                master.kill()
                await master.process.join()
                await elapse(20.0)
                cluster.start(master)
                await elapse(20.0)
        handles = [await client.submit(nap.options(queue=f"q{n}"), 5.0) for n in range(8)]
        for handle in handles:
            await handle.result()
            assert await runner_of(client, handle.id) == "w2"
        assert (await client.workers.get("w1")).state is WorkerState.DRAINED

    play(work)


def test_a_drain_hands_back_what_takes_too_long() -> None:
    """At its drain timeout a job that would go on for an hour runs elsewhere, uncharged."""

    async def work(cluster: SimCluster, client: AsyncClient) -> None:
        handle = await client.submit(nap, 3_000.0)
        while not (name := await runner_of(client, handle.id)):
            await elapse(0.1)
        await client.workers.drain(name, wait=True)
        while await runner_of(client, handle.id) == name:
            await elapse(0.5)
        job = await client.describe(handle.id)
        assert job.attempts_charged == job.losses_charged == 0
        assert (await client.workers.get(name)).state is WorkerState.DRAINED

    play(work)


def test_workers_of_one_name_are_told_apart() -> None:
    """A name of two is refused with both incarnations, whichever master is asked."""

    async def work(cluster: SimCluster, client: AsyncClient) -> None:
        incarnations = [worker.incarnation for worker in await client.workers.list()]
        for worker in cluster.workers.values():
            assert worker.node is not None
            worker.node._hello.name = "twin"
        for master in list(cluster.masters.values()):
            master.kill()
            await master.process.join()
            cluster.start(master)
        while {worker.name for worker in await client.workers.list()} != {"twin"}:
            await elapse(1.0)
        with pytest.raises(Rejected) as refused:
            await client.workers.drain("twin")
        assert refused.value.reason is Reason.WORKER_AMBIGUOUS
        assert all(each in refused.value.message for each in incarnations)
        assert (await client.workers.drain(incarnations[0])).state is WorkerState.DRAINED

    play(work)


def test_a_broken_worker_empties_no_queue() -> None:
    """It fails some jobs at once, gets nothing more from any leader through failovers, is tried
    when it is whole again, and works on.
    """

    async def work(cluster: SimCluster, client: AsyncClient) -> None:
        BROKEN.add("w1")
        try:
            handles = []
            while (await client.workers.get("w1")).state is not WorkerState.QUARANTINED:
                for _ in range(4):
                    handles.append(await client.submit(read.options(queue="q1"), "a"))
                    handles.append(await client.submit(write.options(queue="q1"), "b"))
                await elapse(0.2)
            for handle in handles:
                await handle.result()
            vitals = (await client.workers.get("w1")).vitals
            assert vitals is not None
            assert vitals.quarantine is not None
            assert not vitals.quarantine.by_hand
            assert "other workers complete" in vitals.quarantine.reason
            for master in list(cluster.masters.values()):
                master.kill()
                await master.process.join()
                cluster.start(master)
                await elapse(10.0)
            handles = [await client.submit(read.options(queue=f"q{n}"), "a") for n in range(8)]
            for handle in handles:
                await handle.result()
                assert await runner_of(client, handle.id) == "w2"
        finally:
            BROKEN.clear()
        while (await client.workers.get("w1")).state is WorkerState.QUARANTINED:
            # More than the other worker has slots for.
            for handle in await client.submit_many(read.options(queue="q1"), [("a",)] * 20):
                await handle.result()
            await elapse(5.0)
        assert (await client.workers.get("w1")).state is WorkerState.ACTIVE

    play(work)


def test_an_operator_quarantines_and_releases() -> None:
    """Nothing comes to it, through a failover; explain says what keeps the job."""

    async def work(cluster: SimCluster, client: AsyncClient) -> None:
        found = await client.workers.quarantine("w1", "its disk")
        assert found.state is WorkerState.QUARANTINED
        await client.workers.quarantine("w2", "its disk")
        (await cluster.elected()).kill()
        await elapse(30.0)
        handle = await client.submit(nap, 0.0)
        await elapse(5.0)
        explanation = await client.explain(handle.id)
        assert [blocker.kind for blocker in explanation.blockers] == [BlockerKind.QUARANTINE]
        await client.workers.release("w1")
        await handle.result()
        assert await runner_of(client, handle.id) == "w1"

    play(work)
