"""Results on a virtual-time loop: many waits, failovers, timeouts, errors."""

import asyncio

import pytest

from tenure.client import (
    AsyncClient,
    JobCancelled,
    JobFailed,
    Reason,
    Rejected,
    Unavailable,
    WaitTimeout,
)
from tenure.protocol.ids import mint
from tenure.protocol.vocabulary import FailureReason, JobState
from tests.unit.client.fake_master import EPOCH_MS, FakeCluster
from tests.unit.client.test_submitter import add, play


def test_a_result_comes_back_as_the_annotated_type() -> None:
    """``result`` returns what the job returned, decoded as its annotation says."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1, 2)
        cluster.complete(handle.id, 3)
        assert await handle.result(timeout=5) == 3
        assert await handle.wait()

    play(cluster, work)


def test_a_result_is_asked_for_once() -> None:
    """A handle keeps its outcome: a second ``result`` costs no call."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1, 2)
        cluster.complete(handle.id, 3)
        await handle.result()
        cluster.kill("a:1")
        assert await handle.result() == 3

    play(cluster, work)


def test_waits_survive_a_failover() -> None:
    """Outstanding waits are asked of the new leader; none is lost, none is answered twice."""
    cluster = FakeCluster(masters=("a:1", "b:1"))

    async def work(client: AsyncClient) -> None:
        handles = await client.map(add, range(100))
        waits = [cluster.tasks.create_task(handle.result()) for handle in handles]
        await cluster.pass_time(1)
        for handle in handles[:40]:
            cluster.complete(handle.id, 1)
        await cluster.pass_time(1)
        cluster.kill("a:1")
        del cluster.leaders[0]
        for handle in handles[40:70]:
            cluster.complete(handle.id, 2)
        await cluster.pass_time(10)
        cluster.lead("b:1")
        await cluster.pass_time(5)
        for handle in handles[70:]:
            cluster.complete(handle.id, 3)
        assert await asyncio.gather(*waits) == [1] * 40 + [2] * 30 + [3] * 30

    play(cluster, work)


def test_a_wait_follows_a_leader_that_steps_down() -> None:
    """A stream that ends in NOT_LEADER is dialled again where the hint says."""
    cluster = FakeCluster(masters=("a:1", "b:1"))

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        wait = cluster.tasks.create_task(handle.result())
        await cluster.pass_time(1)
        cluster.lead("b:1")
        await cluster.pass_time(1)
        cluster.complete(handle.id, 7)
        assert await wait == 7

    play(cluster, work)


def test_errors_say_how_a_job_ended() -> None:
    """A failed job raises JobFailed with its error and attempts, a cancelled one JobCancelled."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        failed = await client.submit(add, 1)
        cluster.fail(failed.id, "ValueError", "no such thing")
        with pytest.raises(JobFailed) as caught:
            await failed.result()
        assert caught.value.error.type == "ValueError"
        assert caught.value.attempts == 4
        assert caught.value.failure_reason is FailureReason.EXHAUSTED
        assert "ValueError: no such thing" in str(caught.value)

        cancelled = await client.submit(add, 1)
        assert await cancelled.cancel("not needed") is JobState.CANCELLED
        with pytest.raises(JobCancelled, match=r"it was cancelled \(not needed\); ") as stopped:
            await cancelled.result()
        assert stopped.value.cancel_reason == "not needed"

    play(cluster, work)


def test_an_unknown_job_is_not_found() -> None:
    """Waiting for an id that the cluster does not know ends at once."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        await client.submit(add, 1)
        with pytest.raises(Rejected) as caught:
            await client.get(mint(0, EPOCH_MS, 5))
        assert caught.value.reason is Reason.NOT_FOUND
        result = await client.wait_for_result(mint(0, EPOCH_MS, 5))
        assert result.refusal.reason == "NOT_FOUND"

    play(cluster, work)


def test_a_timeout_ends_the_wait_and_not_the_job() -> None:
    """``result(timeout)`` raises a TimeoutError, ``wait(timeout)`` says False; both can go on."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        with pytest.raises(WaitTimeout) as caught:
            await handle.result(timeout=2)
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, Unavailable)
        assert not await handle.wait(timeout=1)
        cluster.complete(handle.id, 9)
        assert await handle.result(timeout=1) == 9

    play(cluster, work)


def test_one_of_several_waits_may_be_cancelled() -> None:
    """Two waits for one job are apart: cancelling one leaves the other."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        again = await client.get(handle.id, add)
        one = cluster.tasks.create_task(handle.result())
        two = cluster.tasks.create_task(again.result())
        three = cluster.tasks.create_task((await client.get(handle.id)).result())
        await cluster.pass_time(1)
        one.cancel()
        await cluster.pass_time(1)
        cluster.complete(handle.id, 4)
        assert await two == 4
        assert await three == 4

    play(cluster, work)


def test_an_idle_lane_dials_nothing() -> None:
    """When nobody waits, a broken stream is left alone."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        cluster.complete(handle.id, 1)
        await handle.result()
        cluster.kill("a:1")
        await cluster.pass_time(60)
        assert len(cluster.calls) < 5

    play(cluster, work)


def test_as_completed_yields_in_the_order_of_completion() -> None:
    """Handles come as their jobs end, each once, and their results are there at once."""
    cluster = FakeCluster(partitions=2)

    async def work(client: AsyncClient) -> None:
        handles = [await client.submit(add.options(queue=f"q{n}"), n) for n in range(6)]
        order = [3, 0, 5, 1, 4, 2]

        async def end_them() -> None:
            for index in order:
                await cluster.pass_time(1)
                cluster.complete(handles[index].id, index)

        ending = cluster.tasks.create_task(end_them())
        seen = [await done.result() async for done in client.as_completed(handles)]
        assert seen == order
        await ending

    play(cluster, work)


def test_leaving_as_completed_early_forgets_the_rest() -> None:
    """A caller that stops iterating leaves no wait behind."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        handles = await client.map(add, range(3))
        cluster.complete(handles[1].id, 1)
        completed = client.as_completed(handles)
        assert (await anext(completed)).id == handles[1].id
        await completed.aclose()
        lane = (await client.core()).waiter.lane(handles[0].id)
        assert not lane.has_work()

    play(cluster, work)


def test_as_completed_yields_every_handle_it_was_given() -> None:
    """Handles of one job, as the same key makes them, are all yielded, each as often as given."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        keyed = add.options(key="k")
        one, other = await client.submit(keyed, 1), await client.submit(keyed, 1)
        last = await client.submit(add, 2)
        assert one.id == other.id
        cluster.complete(one.id, 1)
        cluster.complete(last.id, 2)
        seen = [done async for done in client.as_completed([one, last, other, one])]
        assert [await done.result() for done in seen] == [1, 1, 1, 2]
        assert [done is one for done in seen].count(True) == 2
        assert [done is other for done in seen].count(True) == 1

    play(cluster, work)


def test_waits_for_several_jobs_end_in_time() -> None:
    """A timeout counts from the call; what was known before needs no master."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        first, second = await client.map(add, range(2))
        assert await client.wait_any([first, second], timeout=1) is None
        assert not await client.wait_all([first, second], timeout=1)
        with pytest.raises(WaitTimeout, match="1 other"):
            await anext(client.as_completed([first, second], timeout=1))
        cluster.complete(second.id, 2)
        assert await client.wait_any([first, second]) is second
        assert [done async for done in client.as_completed([second], timeout=0)] == [second]
        completed = client.as_completed([first, second], timeout=1)
        assert await anext(completed) is second
        with pytest.raises(WaitTimeout, match=first.id):
            await anext(completed)
        cluster.complete(first.id, 1)
        assert await client.wait_all([first, second])
        cluster.kill("a:1")
        assert await client.wait_all([first, second], timeout=0)
        with pytest.raises(Rejected) as caught:
            await client.wait_any([])
        assert caught.value.field == "handles"

    play(cluster, work)


def test_as_completed_yields_what_came_before_the_client_closed() -> None:
    """The end of the client is an error for those that still wait, after what has come."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        handles = await client.map(add, range(3))
        completed = client.as_completed(handles)
        cluster.complete(handles[0].id, 0)
        cluster.complete(handles[1].id, 1)
        seen = [await anext(completed)]
        await cluster.pass_time(1)
        await client.close()
        seen.append(await anext(completed))
        assert seen == [*handles[:2]]
        with pytest.raises(Unavailable, match="closed"):
            await anext(completed)

    play(cluster, work)


def test_ten_thousand_waits_share_their_messages() -> None:
    """10,000 handles awaited at once are asked for on one stream, in a few messages, each once."""
    cluster = FakeCluster()
    count = 10_000

    async def work(client: AsyncClient) -> None:
        handles = await client.map(add, range(count))
        waits = [cluster.tasks.create_task(handle.result()) for handle in handles]
        await cluster.pass_time(1)
        (stream,) = [s for s in cluster.streams if s.method == "StreamResults"]
        asked = [job_id for message in stream.sent for job_id in message.job_ids]
        assert sorted(asked) == sorted(handle.id for handle in handles)
        assert len(stream.sent) <= 20
        for handle in handles:
            cluster.complete(handle.id, 1)
        assert await asyncio.gather(*waits) == [1] * count

    play(cluster, work)
