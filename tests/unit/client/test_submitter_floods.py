"""More submits at once than all requests on their way can carry: work, order, deadlines, ends."""

import asyncio
import gc
from contextlib import suppress
from typing import Any

import pytest

from tenure.client import AsyncClient, BatchFailed, Reason
from tenure.client.codec import decode_args
from tenure.client.lane import TICK_S
from tenure.client.row import Row
from tenure.testing.loop import run_virtual
from tests.unit.client.fake_master import FakeCluster
from tests.unit.client.test_submitter import add, play

FLOOD = 30_000


def order_of_arrival(cluster: FakeCluster) -> list[int]:
    """The first arguments of all jobs that have arrived, in that order."""
    specs = [spec for _, request in cluster.requests for spec in request.jobs]
    return [decode_args(spec.payload, "", add)[0][0] for spec in specs]


def test_a_flood_of_submits_takes_linear_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many callers wait, each is woken only by its own answer."""
    cluster = FakeCluster()
    steps = 0

    async def work(client: AsyncClient) -> None:
        loop = asyncio.get_running_loop()
        call_soon = loop.call_soon

        def counted(*args: Any, **kwargs: Any) -> asyncio.Handle:
            nonlocal steps
            steps += 1
            return call_soon(*args, **kwargs)

        await client.submit(add, 0)
        monkeypatch.setattr(loop, "call_soon", counted)
        await asyncio.gather(*(client.submit(add, n) for n in range(1, FLOOD)))

    play(cluster, work)
    assert order_of_arrival(cluster) == [*range(FLOOD)]
    # The beginning of each caller's task, its answer, its end; and little else.
    assert steps < 3.5 * FLOOD


def test_submits_arrive_in_the_order_of_the_calls() -> None:
    """Nobody overtakes those who wait by calling at the moment when some of them are sent."""
    cluster = FakeCluster()
    flood_arrives = asyncio.Event()
    called: list[int] = []

    async def submit(client: AsyncClient) -> None:
        called.append(len(called))
        await client.submit(add, called[-1])

    async def submit_later(client: AsyncClient, after_ms: int) -> None:
        await flood_arrives.wait()
        for _ in range(after_ms):
            await cluster.pass_time(0.001)
        await submit(client)

    async def work(client: AsyncClient) -> None:
        await submit(client)
        cluster.on_submit = lambda _: flood_arrives.set()
        late = [submit_later(client, after_ms) for after_ms in range(1, 20)]
        await asyncio.gather(*(submit(client) for _ in range(FLOOD)), *late)

    play(cluster, work)
    assert order_of_arrival(cluster) == called


def test_no_row_of_a_flood_outwaits_its_deadline() -> None:
    """A batch ends in time without a leader, however many rows it has."""
    cluster = FakeCluster()
    del cluster.leaders[0]

    async def work(client: AsyncClient) -> None:
        with pytest.raises(BatchFailed) as caught:
            await client.map(add, range(2 * FLOOD))
        assert {error.reason for error in caught.value.errors.values()} == {Reason.UNREACHABLE}
        assert asyncio.get_running_loop().time() < 5 + 2 * TICK_S

    play(cluster, work, timeout=5)


def test_who_is_cancelled_leaves_the_others_in_their_order() -> None:
    """Of many that wait every second one gives up: only the others arrive, in their order."""
    cluster = FakeCluster()
    del cluster.leaders[0]

    async def work(client: AsyncClient) -> None:
        pending = [cluster.tasks.create_task(client.submit(add, n)) for n in range(1_000)]
        await cluster.pass_time(1)
        for task in pending[1::2]:
            task.cancel()
        await asyncio.gather(*pending[1::2], return_exceptions=True)
        cluster.leaders[0] = "a:1"
        await asyncio.gather(*pending[::2])

    play(cluster, work)
    assert order_of_arrival(cluster) == [*range(0, 1_000, 2)]


def test_what_was_withdrawn_is_not_kept_for_a_leader_that_does_not_come() -> None:
    """Callers who give up and try again during an outage leave nothing behind."""
    cluster = FakeCluster()
    del cluster.leaders[0]

    async def work(client: AsyncClient) -> None:
        patient = [cluster.tasks.create_task(client.submit(add, n)) for n in range(3)]
        for number in range(1_000):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await client.submit(add, number)
        gc.collect()
        assert sum(isinstance(kept, Row) for kept in gc.get_objects()) < 10
        cluster.leaders[0] = "a:1"
        await asyncio.gather(*patient)

    play(cluster, work)
    assert order_of_arrival(cluster) == [0, 1, 2]


def test_a_flood_into_a_halted_partition_is_answered_at_once() -> None:
    """One refusal for good answers all who wait, however many they are."""
    cluster = FakeCluster()
    del cluster.leaders[0]

    async def submit(client: AsyncClient) -> None:
        with pytest.raises(BatchFailed) as caught:
            await client.map(add, range(2 * FLOOD))
        assert {e.reason for e in caught.value.errors.values()} == {Reason.PARTITION_HALTED}

    async def work(client: AsyncClient) -> None:
        pending = cluster.tasks.create_task(submit(client))
        await cluster.pass_time(1)
        cluster.halted.add(0)
        cluster.calls.clear()
        await pending
        assert cluster.calls.count(("a:1", "CountJobs")) == 1

    play(cluster, work)


def test_closing_ends_a_batch_that_is_too_large_to_wait_in_one_piece() -> None:
    """All of it is refused at once: no part of it waits for its deadline."""
    cluster = FakeCluster()
    cluster.silent = True

    async def main() -> None:
        client = AsyncClient("a:1", transport=cluster)
        loop = asyncio.get_running_loop()

        async def submit() -> None:
            with pytest.raises(BatchFailed):
                await client.map(add, range(2 * FLOOD))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(submit())
            await cluster.pass_time(1)
            closed_s = loop.time()
            await client.close()
        assert loop.time() - closed_s < 1

    run_virtual(main)
