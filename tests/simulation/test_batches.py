"""Batches through the SDK, in a cluster of several partitions whose leaders die."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from tenure.client import (
    AsyncClient,
    BatchKind,
    BatchState,
    JobState,
    Reason,
    Rejected,
    job,
)
from tenure.testing.cluster import SimCluster, simulated_cluster
from tenure.testing.process import run_processes
from tenure.v1 import batches_pb2

PARTITIONS = 2
QUEUES = ("a", "b", "c", "d")
LATER = timedelta(hours=1)


@job(name="noop")
def noop(number: int) -> None:
    """Does nothing."""


def play(work: Callable[[SimCluster, AsyncClient], Awaitable[None]], seed: int = 5) -> None:
    """Runs a piece of work with a client of a cluster without workers."""

    async def main() -> None:
        async with simulated_cluster(
            seed=seed, jobs=[noop], masters=3, workers=0, partitions=PARTITIONS
        ) as cluster:
            await work(cluster, cluster.client())

    run_processes(main, limit_s=600)


async def submitted(client: AsyncClient, count: int) -> None:
    """Jobs that wait in queues of all partitions."""
    for queue in QUEUES:
        await client.map(noop.options(queue=queue, delay=LATER), range(count))


def slices(cluster: SimCluster, partition: int) -> int:
    """How many slices of batches have committed in a partition."""
    return b"".join(cluster.journal(partition)).count(b"batch_advanced")


def test_jobs_are_counted_first_and_then_done() -> None:
    """A dry run only counts; then each matching job of every partition is done, no other one."""

    async def work(cluster: SimCluster, client: AsyncClient) -> None:
        await submitted(client, 20)
        found = await client.batches.create("cancel", "queue != d", dry_run=True)
        assert (found.state, found.matched, found.counts) == (None, 60, {JobState.SCHEDULED: 60})
        assert await client.batches.list() == []
        made = await client.batches.create("cancel", "queue != d", reason="enough")
        done = await client.batches.wait(made.id, timeout=60)
        assert (done.kind, done.state) == (BatchKind.CANCEL, BatchState.DONE)
        assert (done.matched, done.changed, done.refused) == (60, 60, 0)
        assert await client.count() == {JobState.SCHEDULED: 20, JobState.CANCELLED: 60}
        again = await client.batches.create("requeue", "state = CANCELLED AND queue = a")
        assert (await client.batches.wait(again.id)).changed == 20
        purge = await client.batches.create("purge", "state = CANCELLED")
        assert (await client.batches.wait(purge.id)).changed == 40
        boost = await client.batches.create("boost", "queue = d", priority=1)
        assert (await client.batches.wait(boost.id)).changed == 20
        assert sum((await client.count(filter="priority = 1")).values()) == 20
        ids = [batch.id for batch in await client.batches.list()]
        assert ids == [boost.id, purge.id, again.id, made.id]

    play(work)


@pytest.mark.parametrize("seed", range(3))
def test_a_batch_goes_on_after_its_leaders_death(seed: int) -> None:
    """Leaders are killed while it is under way: each job is done once, and none is left out."""

    async def work(cluster: SimCluster, client: AsyncClient) -> None:
        await submitted(client, 500)
        everything = await client.batches.create("cancel", "name = noop")
        await client.batches.wait(everything.id)
        before = [slices(cluster, partition) for partition in range(PARTITIONS)]
        made = await client.batches.create("requeue", "state = CANCELLED")
        at_death = []
        for partition in range(PARTITIONS):
            # It may have led both, and be gone already.
            leader = await cluster.elected(partition)
            leader.kill()
            at_death.append(slices(cluster, partition))
            await cluster.elected(partition)
            cluster.restart_dead()
        done = await client.batches.wait(made.id, timeout=300)
        after = [slices(cluster, partition) for partition in range(PARTITIONS)]
        assert any(
            first < middle < last
            for first, middle, last in zip(before, at_death, after, strict=True)
        )
        assert (done.state, done.changed, done.refused) == (BatchState.DONE, 2_000, 0)
        assert sum((await client.count(filter="run = 1")).values()) == 2_000

    play(work, seed)


def test_a_batch_is_stopped() -> None:
    """What it has done stays done; it ends in every partition."""

    async def work(cluster: SimCluster, client: AsyncClient) -> None:
        await submitted(client, 1_000)
        made = await client.batches.create("cancel", "name = noop")
        stopped = await client.batches.cancel(made.id)
        assert stopped.state is BatchState.CANCELLED
        counts = await client.count()
        assert counts.get(JobState.CANCELLED, 0) == stopped.changed
        assert counts[JobState.SCHEDULED] > 0
        assert await client.batches.cancel(made.id) == stopped

    play(work)


def test_lists_come_in_pages() -> None:
    """Newest first, from one partition; a token of another one's list is refused."""

    async def work(cluster: SimCluster, client: AsyncClient) -> None:
        made = [await client.batches.create("cancel", "name = noop") for _ in range(5)]
        leader = await cluster.elected(0)
        assert leader.node is not None
        api, found = leader.node.batches, list[str]()
        request = batches_pb2.ListBatchesRequest(partition=0, page_size=2)
        for size in (2, 2, 1):
            page = await api.list_batches(request)
            assert len(page.batches) == size
            found += [batch.batch_id for batch in page.batches]
            token, request.page_token = request.page_token, page.next_page_token
        assert not page.next_page_token
        assert found == [batch.id for batch in reversed(made)]
        assert [batch.id for batch in await client.batches.list()] == found
        other = await cluster.elected(1)
        assert other.node is not None
        request.partition, request.page_token = 1, token
        with pytest.raises(Rejected) as caught:
            await other.node.batches.list_batches(request)
        assert caught.value.field == "page_token"

    play(work)


def test_what_cannot_be_is_refused_with_its_field() -> None:
    """By the path in the request, and an unknown batch by NOT_FOUND."""

    async def work(cluster: SimCluster, client: AsyncClient) -> None:
        create = client.batches.create
        for field, wrong in {
            "kind": create("forget", "name = a"),  # type: ignore[arg-type]
            "filter": create("cancel", " "),
            "priority": create("boost", "name = a"),
            "delay": create("purge", "name = a", delay=LATER),
            "reason": create("requeue", "name = a", reason="why"),
        }.items():
            with pytest.raises(Rejected) as caught:
                await wrong
            assert (caught.value.reason, caught.value.field) == (Reason.INVALID_ARGUMENT, field)
        for malformed in (create("cancel", "nme = a"), create("boost", "name = a", priority=11)):
            with pytest.raises(Rejected) as caught:
                await malformed
            assert caught.value.field in ("filter", "priority")
        with pytest.raises(Rejected) as caught:
            await client.batches.get("x")
        assert caught.value.field == "batch_id"
        for call in (client.batches.get, client.batches.cancel):
            with pytest.raises(Rejected) as caught:
                await call("019c0000-0000-7000-8000-000000000000")
            assert caught.value.reason is Reason.NOT_FOUND

    play(work)
