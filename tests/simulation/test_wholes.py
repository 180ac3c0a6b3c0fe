"""All or nothing through the SDK: batches, and jobs with their callbacks."""

from collections.abc import Awaitable, Callable

import pytest

from tenure.client import (
    AsyncClient,
    BatchFailed,
    JobState,
    Reason,
    Rejected,
    Unavailable,
    job,
    result_of,
)
from tenure.protocol.limits import BATCH_JOBS_MAX
from tenure.testing.cluster import simulated_cluster
from tenure.testing.process import run_processes
from tenure.testing.virtual import VirtualCluster

#: What jobs have left behind.
TOLD: list[str] = []
#: At home in different partitions of two.
HERE, ELSEWHERE = "mail", "reports"


@job(name="app.greet", queue=HERE)
async def greet(name: str) -> str:
    """Greets."""
    return f"hello {name}"


@job(name="app.tell", queue=HERE)
async def tell(text: str) -> None:
    """Leaves a trace."""
    TOLD.append(text)


def play(work: Callable[[AsyncClient], Awaitable[None]], *, partitions: int = 1) -> None:
    """Runs a piece of work with a client of a cluster of one master and one worker."""

    async def main() -> None:
        TOLD.clear()
        async with simulated_cluster(
            seed=4, jobs=[greet, tell], masters=1, workers=1, store="sqlite", partitions=partitions
        ) as cluster:
            client = cluster.client()
            homes = [
                (await client.router()).topology.home("default", name) for name in (HERE, ELSEWHERE)
            ]
            assert partitions == 1 or len({*homes}) == 2
            await work(client)

    run_processes(main, limit_s=600)


async def fill(client: AsyncClient, queue: str) -> None:
    """Lets a queue take nothing more."""
    await client.queues.set(queue, paused=True, depth_max=1)
    await client.submit(tell.options(queue=queue), "waits")


def test_one_that_is_refused_takes_all_down() -> None:
    """The error is its own and says which it is; as many as there is room for are taken."""

    async def work(client: AsyncClient) -> None:
        await client.queues.set(HERE, paused=True, depth_max=2)
        names = [("anna",), ("bert",), ("carl",)]
        with pytest.raises(Unavailable) as refused:
            await client.submit_many(greet, names, all_or_nothing=True)
        assert refused.value.reason is Reason.QUEUE_FULL
        assert refused.value.metadata["index"] == "2"
        assert await client.count() == {}
        handles = await client.submit_many(greet, names[:2], all_or_nothing=True)
        assert await client.count() == {JobState.PENDING: 2}
        await client.queues.set(HERE, paused=False, depth_max=0)
        assert [await each.result(60) for each in handles] == ["hello anna", "hello bert"]
        await client.queues.set(HERE, paused=True, depth_max=2)
        with pytest.raises(BatchFailed) as failed:
            await client.submit_many(greet, names)
        assert len(failed.value.handles) == 2

    play(work)


def test_what_cannot_be_a_whole_is_refused_before_anything_is_sent() -> None:
    """Too many jobs, too many bytes, and parents of which it would be known too late."""

    async def work(client: AsyncClient) -> None:
        many = [("x",)] * (BATCH_JOBS_MAX + 1)
        for large in (many, [("x" * 200_000,)] * 3):
            with pytest.raises(Rejected) as refused:
                await client.submit_many(greet, large, all_or_nothing=True)
            assert refused.value.field == "calls"
        elsewhere = await client.submit(greet.options(queue=ELSEWHERE), "anna")
        late = greet.options(after=[elsewhere])
        with pytest.raises(Rejected) as refused:
            await client.submit_many(late, [("a",), ("b",)], all_or_nothing=True)
        assert refused.value.field == "after"
        calls = [(result_of(elsewhere),)] * 2
        with pytest.raises(Rejected) as refused:
            await client.submit_many(greet, calls, all_or_nothing=True)
        assert refused.value.field == "after"
        called = greet.options(on_success=tell.options(queue=ELSEWHERE))
        with pytest.raises(Rejected) as refused:
            await client.submit_many(called, [("a",)], all_or_nothing=True)
        assert refused.value.field == "on_success"
        assert await client.count(queue=HERE) == {}
        (alone,) = await client.submit_many(late, [("bert",)], all_or_nothing=True)
        assert await alone.result(60) == "hello bert"

    play(work, partitions=2)


def test_a_job_is_not_taken_without_its_callback() -> None:
    """In one partition: a callback that is refused leaves nothing behind, in any of the ways."""

    async def work(client: AsyncClient) -> None:
        await fill(client, "full")
        called = greet.options(on_success=tell, on_failure=tell.options(queue="full"))
        with pytest.raises(Unavailable) as refused:
            await client.submit(called, "anna")
        assert refused.value.reason is Reason.QUEUE_FULL
        with pytest.raises(Unavailable) as refused:
            await client.submit_many(called, [("anna",), ("bert",)], all_or_nothing=True)
        assert refused.value.reason is Reason.QUEUE_FULL
        with pytest.raises(Rejected):
            await client.submit(greet.options(on_success=tell.bind(1, 2, 3)), "anna")  # type: ignore[call-arg, arg-type]
        assert await client.count(queue=HERE) == {}

    play(work)


def test_a_map_takes_jobs_before_their_callbacks() -> None:
    """In one partition, too; who submits is told of those without, and they run."""

    async def work(client: AsyncClient) -> None:
        await fill(client, "full")
        called = greet.options(on_failure=tell.options(queue="full"))
        with pytest.raises(BatchFailed) as failed:
            await client.map(called, ["anna", "bert"])
        errors = failed.value.errors.values()
        assert [error.reason for error in errors] == [Reason.OUTCOME_UNKNOWN] * 2
        handles = [await client.get(error.metadata["job_id"], greet) for error in errors]
        assert [await each.result(60) for each in handles] == ["hello anna", "hello bert"]

    play(work)


def test_callbacks_that_are_taken_run() -> None:
    """Each family by itself, and all as one; a callback may have callbacks of its own."""

    async def work(client: AsyncClient) -> None:
        told = tell.options(on_success=tell.bind("told"))
        called = greet.options(on_success=told)
        handles = [
            await client.submit(called, "anna"),
            *await client.map(called, ["bert", "carl"]),
            *await client.submit_many(called, [("dora",), ("emil",)], all_or_nothing=True),
        ]
        names = ["anna", "bert", "carl", "dora", "emil"]
        assert [await each.result(60) for each in handles] == [f"hello {name}" for name in names]
        async for each in client.list(name="app.tell"):
            await (await client.get(each.job_id)).wait(60)
        assert sorted(TOLD) == sorted([*["told"] * 5, *(f"hello {name}" for name in names)])

    play(work)


def test_a_callback_elsewhere_may_be_refused_by_itself() -> None:
    """Two partitions are no whole: the job was taken, and the error says so."""

    async def work(client: AsyncClient) -> None:
        await fill(client, ELSEWHERE)
        called = greet.options(on_success=tell.options(queue=ELSEWHERE))
        with pytest.raises(Unavailable, match="only job") as told:
            await client.submit(called, "anna")
        assert told.value.reason is Reason.OUTCOME_UNKNOWN
        handle = await client.get(told.value.metadata["job_id"], greet)
        assert await handle.result(60) == "hello anna"
        with pytest.raises(BatchFailed) as failed:
            await client.map(called, ["bert"])
        assert [error.reason for error in failed.value.errors.values()] == [Reason.OUTCOME_UNKNOWN]

    play(work, partitions=2)


def test_a_job_with_a_key_that_is_taken_gets_callbacks_all_the_same() -> None:
    """They are those of the job that the key names; sent again, they are the same ones."""

    async def work(client: AsyncClient) -> None:
        called = greet.options(key="k", on_success=tell)
        first = await client.submit(called, "anna")
        second = await client.submit(called, "anna")
        assert first.id == second.id
        assert await first.result(60) == "hello anna"
        (listed,) = [each async for each in client.list(name="app.tell")]
        await (await client.get(listed.job_id)).wait(60)
        assert TOLD == ["hello anna"]

    play(work)


def test_without_async(tenure_cluster: VirtualCluster) -> None:
    """The plain client does the same."""
    client = tenure_cluster.client
    client.queues.set(HERE, paused=True, depth_max=1)
    with pytest.raises(Unavailable):
        client.submit_many(greet, [("anna",), ("bert",)], all_or_nothing=True)
    assert client.count() == {}
    (handle,) = client.submit_many(greet, [("anna",)], all_or_nothing=True)
    assert handle.status() is JobState.PENDING
