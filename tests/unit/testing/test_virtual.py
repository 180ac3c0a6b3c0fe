"""A test's own cluster: time passes as the test says, and what it promises is kept."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tenure.client import (
    AsyncClient,
    Client,
    JobFailed,
    JobState,
    Retry,
    WaitTimeout,
    current_job,
    job,
)
from tenure.protocol.errors import Rejected, TenureError, Unavailable
from tenure.testing.process import elapse
from tenure.testing.virtual import Shape, VirtualCluster

HOUR = timedelta(hours=1)


@job(queue="media")
def resize(url: str, width: int = 640) -> str:
    """A plain function."""
    return f"{url}?w={width}"


@job
async def nap(seconds: float) -> int:
    """A coroutine that takes its time."""
    await elapse(seconds)
    return current_job().attempt


@job(retry=Retry(max_attempts=12, backoff="exponential"))
def stubborn(attempts: int) -> int:
    """Fails until its last attempt but ``attempts``."""
    if current_job().attempt < attempts:
        raise ConnectionError("the line broke")
    return current_job().attempt


@job(name="tests.resize", queue="media")
def first(url: str) -> str:
    """One of two jobs of one name."""
    return url


@job(name="tests.resize", queue="media")
def second(url: str) -> str:
    """The other one."""
    return url


@pytest.fixture
def cluster() -> Iterator[VirtualCluster]:
    """As the fixture of users makes it."""
    with VirtualCluster() as made:
        yield made


def test_what_is_due_is_done_within_a_second(cluster: VirtualCluster) -> None:
    """A job that waits for nothing, and one whose hour has come: `result(timeout=1)` has it."""
    assert isinstance(cluster.client, Client)
    assert cluster.client.submit(resize, "a").result(timeout=1) == "a?w=640"
    later = cluster.client.submit(resize.options(delay=HOUR), "b", width=1)
    cluster.advance(HOUR)

    assert later.result(timeout=1) == "b?w=1"


def test_nothing_is_done_too_early(cluster: VirtualCluster) -> None:
    """A second before its time a job still waits, however long the idle time before was."""
    start = cluster.now
    later = cluster.client.submit(resize.options(delay=timedelta(days=3)), "x")
    cluster.advance(timedelta(days=3) - timedelta(seconds=1))
    assert later.status() is JobState.SCHEDULED
    cluster.advance(timedelta(seconds=1))

    assert later.result(timeout=1)
    assert timedelta(days=3) <= cluster.now - start < timedelta(days=3, seconds=1)


def test_time_stands_still_between_calls(cluster: VirtualCluster) -> None:
    """It passes inside calls only, and by no more than they need."""
    start = cluster.now
    assert start.tzinfo is UTC
    assert start >= datetime(2026, 1, 1, tzinfo=UTC)
    cluster.client.submit(resize, "a").result()

    assert cluster.now - start < timedelta(seconds=2)


def test_a_week_of_retries(cluster: VirtualCluster) -> None:
    """Every attempt happens at its own time, and results outlive the masters' retention."""
    tried = cluster.client.submit(stubborn, 8)
    lost = cluster.client.submit(stubborn.options(retry=Retry(max_attempts=3)), 4)
    weekly = [
        cluster.client.submit(resize.options(delay=timedelta(days=day)), str(day))
        for day in range(1, 7)
    ]
    cluster.advance(timedelta(days=7))

    assert tried.result(timeout=1) == 8
    with pytest.raises(JobFailed, match="the line broke"):
        lost.result(timeout=1)
    assert [handle.result(timeout=1) for handle in weekly] == [f"{d}?w=640" for d in range(1, 7)]


def test_a_job_that_runs_keeps_its_lease(cluster: VirtualCluster) -> None:
    """While something runs no node is stopped: its first attempt is its only one."""
    long = cluster.client.submit(nap, 100)
    cluster.advance(HOUR)

    assert long.result(timeout=1) == 1


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_leader_and_a_worker_die(nodes: int) -> None:
    """Jobs outlive the leader; one whose worker has died is run again."""
    with VirtualCluster(Shape(masters=nodes, workers=nodes), [nap]) as cluster:
        cut_short = cluster.client.submit(nap, 50)
        cluster.advance(timedelta(seconds=5))
        assert cluster.kill_leader() in cluster.sim.masters
        assert cluster.kill_worker() in cluster.sim.workers
        with pytest.raises(Rejected, match="one of w1"):
            cluster.kill_worker("w9")
        cluster.advance(timedelta(minutes=10))

        assert cut_short.result(timeout=1) == 2


def test_jobs_submitted_by_others_are_served_if_they_are_given() -> None:
    """`tenure_jobs` are served from the start, and the shape is as it was asked for."""
    with VirtualCluster(Shape(masters=2, workers=3, partitions=3, slots=1), [resize]) as cluster:
        cluster.advance(timedelta(seconds=10))
        members = cluster.client.cluster.members()
        statuses, _ = cluster.client.cluster.status()

        assert sorted(member.name for member in members) == ["m1", "m2"]
        assert {tuple(worker.job_names) for worker in statuses[0].workers} == {(resize.name,)}
        assert [worker.slots for worker in statuses[0].workers] == [1, 1, 1]
        assert cluster.client.cluster.topology().partition_count == 3


def test_two_jobs_of_one_name_are_refused(cluster: VirtualCluster) -> None:
    """Which of them should a worker run? The submit says so, not the wrong one's result."""
    assert cluster.client.submit(first.options(priority=1), "x").result(timeout=1) == "x"
    with pytest.raises(Rejected, match=r"tests\.resize"):
        cluster.client.submit(second, "x")


def test_code_that_is_async(cluster: VirtualCluster) -> None:
    """`run` runs it with the async client, in the cluster's time; plain calls in it are refused."""

    async def scenario() -> str:
        client = cluster.async_client
        assert isinstance(client, AsyncClient)
        with pytest.raises(Rejected, match="async_client"):
            cluster.client.submit(resize, "x")
        handle = await client.submit(resize.options(delay=timedelta(minutes=2)), "x")
        await elapse(119)
        return await handle.result(timeout=2)

    assert cluster.run(scenario()) == "x?w=640"


def test_whoever_waits_lets_time_pass(cluster: VirtualCluster) -> None:
    """`result()` waits as long as it takes, and `wait` as long as it was told, in no time."""
    start = cluster.now
    far = cluster.client.submit(resize.options(delay=timedelta(days=300)), "x")
    near = cluster.client.submit(resize.options(delay=HOUR), "x")
    assert not far.wait(timeout=86_400)
    assert timedelta(days=1) <= cluster.now - start < timedelta(days=1, seconds=5)
    with pytest.raises(WaitTimeout):
        far.result(timeout=7_200)
    assert cluster.client.wait_any([far, near]) is near
    assert far.result() == "x?w=640"
    assert timedelta(days=300) <= cluster.now - start < timedelta(days=300, seconds=5)


def test_a_wait_for_ever_ends() -> None:
    """A wait without a limit for a job that nothing will ever run says so."""
    with VirtualCluster() as cluster:
        never = cluster.run(submit_beside(cluster))
        with pytest.raises(TenureError, match="nothing more to wait for"):
            cluster.client.get(never).result()


async def submit_beside(cluster: VirtualCluster) -> str:
    """Submits a job through another client than the cluster's own, so that no worker serves it."""
    async with cluster.sim.client() as client:
        return (await client.submit(nap, 1)).id


def test_iterators_and_handles_outlive_the_test() -> None:
    """They are ended with the cluster, and say that the test is over when they are asked."""
    with VirtualCluster() as cluster:
        handle = cluster.client.submit(resize, "a")
        changes = cluster.client.watch()
        assert next(changes).job_id == handle.id
        done = [h.result() for h in cluster.client.as_completed(cluster.client.map(resize, "bc"))]
    cluster.close()

    assert sorted(done) == ["b?w=640", "c?w=640"]
    with pytest.raises(Unavailable, match="over"):
        handle.status()
    with pytest.raises(Unavailable, match="over"):
        cluster.advance(HOUR)
    changes.close()  # type: ignore[attr-defined]


def test_time_does_not_run_backwards(cluster: VirtualCluster) -> None:
    """`advance` takes no negative time; none at all is fine."""
    with pytest.raises(Rejected, match="negative"):
        cluster.advance(timedelta(seconds=-1))
    cluster.advance(timedelta(0))


def test_the_same_seed_gives_the_same_run() -> None:
    """Two clusters of one seed accept the same jobs under the same ids at the same time."""

    def run(seed: int) -> tuple[str, datetime]:
        with VirtualCluster(Shape(seed=seed)) as cluster:
            handle = cluster.client.submit(resize, "x")
            handle.result()
            return handle.id, cluster.now

    assert run(1) == run(1)
    assert run(1) != run(2)
