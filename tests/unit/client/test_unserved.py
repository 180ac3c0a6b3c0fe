"""Why a job waits: in words, and in the log of who waits for it."""

import logging

import pytest

from tenure.client import AsyncClient, named
from tenure.client.unserved import LOGGER, why_unserved
from tenure.v1.cluster_pb2 import WorkerStatus
from tests.unit.client.fake_master import FakeCluster
from tests.unit.client.test_submitter import add, play

HELLO = WorkerStatus(job_names=["myjobs.hello", "myjobs.boom"])


@pytest.mark.parametrize(
    ("workers", "why"),
    [
        ([], "no worker is connected"),
        ([WorkerStatus(job_names=["a.f"])], None),
        ([WorkerStatus(job_names=["a.f"], queues=["q", "p"])], None),
        ([HELLO, WorkerStatus(job_names=["a.f"])], None),
        ([WorkerStatus()], "no connected worker runs a.f; they run no jobs at all"),
        (
            [WorkerStatus(job_names=["a.f"], queues=["p", "o"])],
            "no connected worker that runs a.f serves the queue q; they serve: o, p",
        ),
        (
            [WorkerStatus(job_names=["a.f"], draining=True), HELLO],
            "every connected worker that runs a.f is draining",
        ),
    ],
)
def test_why_is_told(workers: list[WorkerStatus], why: str | None) -> None:
    """Names come first, then queues, then drains; one worker that can is enough."""
    assert why_unserved(workers, "a.f", "q") == why


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("hello", "; did you mean myjobs.hello?"),
        ("jobs.hello", "; did you mean myjobs.hello?"),
        ("helo", "; did you mean myjobs.hello?"),
        ("myjobs.helo", "; did you mean myjobs.hello?"),
        ("x", "."),
    ],
)
def test_near_names_are_proposed(name: str, near: str) -> None:
    """A forgotten module and a typo are seen; what resembles nothing gets no proposal."""
    assert why_unserved([HELLO], name, "q") == (
        f"no connected worker runs {name}{near} They run: myjobs.boom, myjobs.hello"
    )


def test_many_names_are_counted() -> None:
    """A line stays a line."""
    worker = WorkerStatus(job_names=[f"a.f{n:03}" for n in range(500)])
    why = why_unserved([worker], "zzz", "q")
    assert why is not None
    assert why.endswith("a.f006, a.f007 and 492 more")


def test_a_wait_in_vain_is_told_once_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """After some seconds, one line, however long it goes on; the wait goes on."""
    cluster = FakeCluster(partitions=2)

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(named("add"), 1)
        wait = cluster.tasks.create_task(handle.result())
        await cluster.pass_time(3)
        assert caplog.record_tuples == []
        await cluster.pass_time(300)
        ((logger, level, text),) = caplog.record_tuples
        assert (logger, level) == (LOGGER, logging.WARNING)
        assert text == (
            f"job {handle.id} waits: no connected worker runs add; did you mean app.add? "
            "They run: app.add"
        )
        cluster.complete(handle.id, 1)
        assert await wait == 1

    play(cluster, work)


def test_a_wait_is_told_again_when_the_workers_have_changed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Workers that came and went again are news."""
    cluster = FakeCluster()
    (worker,) = cluster.workers

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        wait = cluster.tasks.create_task(handle.wait())
        for present in (False, True, False):
            cluster.workers = [worker] if present else []
            await cluster.pass_time(60)
        assert [text for _, _, text in caplog.record_tuples] == [
            f"job {handle.id} waits: no worker is connected"
        ] * 2
        cluster.complete(handle.id, 1)
        await wait

    play(cluster, work)


def test_a_wait_that_moves_asks_for_nothing() -> None:
    """While results come, no job and no worker is asked for."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        handles = await client.map(add, range(20))
        wait = cluster.tasks.create_task(client.wait_all(handles))
        for handle in handles:
            await cluster.pass_time(4)
            cluster.complete(handle.id, 1)
        assert await wait
        assert {"GetJob", "GetStatus"}.isdisjoint(name for _, name in cluster.calls)

    play(cluster, work)


def test_a_large_wait_is_sampled(caplog: pytest.LogCaptureFixture) -> None:
    """Of many jobs a few are asked for; those behind running ones are found."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        served = await client.map(add, range(500))
        others = await client.map(named("app.ad"), range(500))
        wait = cluster.tasks.create_task(client.wait_all([*served, *others], 20))
        await cluster.pass_time(21)
        assert not await wait
        assert sum(name == "GetJob" for _, name in cluster.calls) <= 8
        assert "no connected worker runs app.ad; did you mean app.add?" in caplog.text

    play(cluster, work)
