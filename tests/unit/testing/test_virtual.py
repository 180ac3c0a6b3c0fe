"""A test's own cluster: time passes as the test says, and what it promises is kept."""

from __future__ import annotations

import asyncio
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
    current_batch,
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


@job
def count_to(number: int) -> int:
    """A plain function that runs a loop of its own, as it may in a worker's thread."""

    async def count() -> int:
        await asyncio.sleep(0)
        return number

    return asyncio.run(count()) + current_job().attempt


@job
async def hash_aside(text: str) -> int:
    """A coroutine that leaves work to a thread; an empty text is none."""
    return await asyncio.to_thread([*text].index, "x")


@job(retry=Retry(max_attempts=1))
async def call_out() -> None:
    """A coroutine that talks to the world."""
    await asyncio.open_connection("127.0.0.1", 1)


@job(retry=Retry(max_attempts=1))
async def wait_for_nobody() -> None:
    """A coroutine that something else than time would have to wake."""
    await asyncio.Event().wait()


@job(name="tests.resize", queue="media")
def first(url: str) -> str:
    """One of two jobs of one name."""
    return url


@job(name="tests.resize", queue="media")
def second(url: str) -> str:
    """The other one."""
    return url


CALLS: list[int] = []


@job(batch=100, linger_ms=200)
def store(numbers: list[int]) -> list[int | Exception]:
    """A batch handler of a plain function."""
    CALLS.append(len(numbers))
    return [number if number % 10 else ValueError("round") for number in numbers]


@job(batch=100, linger_ms=200)
async def store_slowly(numbers: list[int]) -> list[str]:
    """One of a coroutine function."""
    CALLS.append(len(numbers))
    await elapse(1)
    return [me.id for me in current_batch()]


@pytest.fixture
def cluster() -> Iterator[VirtualCluster]:
    """As the fixture of users makes it."""
    with VirtualCluster() as made:
        yield made


@pytest.mark.parametrize("name", ["masters", "partitions", "slots"])
def test_a_shape_without_something_is_refused(name: str) -> None:
    """A cluster has one of each at least; the error names what is missing."""
    with pytest.raises(Rejected, match=name):
        Shape(**{name: 0})


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


@pytest.mark.parametrize(("masters", "frames_max"), [(1, 30), (3, 500)])
def test_idle_time_costs_nothing(
    masters: int, frames_max: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A year goes by with a few messages, no failover and no log line; what is due is not late."""
    with VirtualCluster(Shape(masters=masters, workers=masters), [resize]) as cluster:
        assert cluster.client.submit(resize, "a").result()
        cluster.advance(timedelta(seconds=20))
        later = cluster.client.submit(resize.options(delay=timedelta(days=365)), "x")
        due = cluster.client.describe(later.id).ready_at.ToMilliseconds()
        frames, events = cluster.sim.network.delivered, len(cluster.sim.announcements)
        cluster.advance(timedelta(days=365) - timedelta(hours=1))
        cost = cluster.sim.network.delivered - frames
        assert later.result() == "x?w=640"
        (attempt,) = cluster.client.describe(later.id).attempts

        assert cost < frames_max
        assert len(cluster.sim.announcements) == events
        assert due <= attempt.started_at.ToMilliseconds() < due + 50
        assert caplog.text == ""


def test_time_stands_still_between_calls(cluster: VirtualCluster) -> None:
    """It passes inside calls only, and by no more than they need."""
    start = cluster.now
    assert start.tzinfo is UTC
    assert start >= datetime(2026, 1, 1, tzinfo=UTC)
    cluster.client.submit(resize, "a").result()

    assert cluster.now - start < timedelta(seconds=2)


def test_a_week_of_retries(cluster: VirtualCluster) -> None:
    """Every attempt happens at its own time, and results outlive the masters' retention."""
    frames = cluster.sim.network.delivered
    tried = cluster.client.submit(stubborn, 8)
    lost = cluster.client.submit(stubborn.options(retry=Retry(max_attempts=3)), 4)
    weekly = [
        cluster.client.submit(resize.options(delay=timedelta(days=day)), str(day))
        for day in range(1, 7)
    ]
    cluster.advance(timedelta(days=7))

    assert cluster.sim.network.delivered - frames < 1_000
    assert tried.result(timeout=1) == 8
    with pytest.raises(JobFailed, match="the line broke"):
        lost.result(timeout=1)
    assert [handle.result(timeout=1) for handle in weekly] == [f"{d}?w=640" for d in range(1, 7)]


def test_a_job_that_runs_keeps_its_lease(cluster: VirtualCluster) -> None:
    """While something runs no node is stopped: its first attempt is its only one."""
    long = cluster.client.submit(nap, 100)
    cluster.advance(HOUR)

    assert long.result(timeout=1) == 1


def test_a_worker_learns_new_jobs_while_it_runs_others(cluster: VirtualCluster) -> None:
    """Nothing is cut short or charged, and then there are as many workers as before."""
    long = cluster.client.submit(nap, 100)
    cluster.advance(timedelta(seconds=1))
    tries = [cluster.client.submit(stubborn, 1) for _ in range(8)]
    assert cluster.client.submit(resize, "a").result(timeout=1) == "a?w=640"
    assert [handle.result(timeout=1) for handle in tries] == [1] * 8
    assert long.result(timeout=100) == 1
    cluster.advance(HOUR)
    statuses, _ = cluster.client.cluster.status()

    (worker,) = statuses[0].workers
    assert worker.name == "w1"
    assert {*worker.job_names} == {nap.name, resize.name, stubborn.name}


def test_a_worker_dies_with_all_its_releases(cluster: VirtualCluster) -> None:
    """What a release runs that was replaced meanwhile is lost with the machine, and run again."""
    cut_short = cluster.client.submit(nap, 50)
    cluster.advance(timedelta(seconds=5))
    cluster.client.submit(resize, "a").result(timeout=1)
    assert cluster.kill_worker("w1") == "w1"

    assert cut_short.result() == 2


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


def test_threads_and_loops_of_jobs_take_no_time(cluster: VirtualCluster) -> None:
    """A plain job may run a loop, and a coroutine may leave work to a thread."""
    start = cluster.now
    assert cluster.client.submit(count_to, 2).result(timeout=1) == 3
    assert cluster.client.submit(hash_aside, "abx").result(timeout=1) == 2
    with pytest.raises(JobFailed, match="ValueError"):
        cluster.client.submit(hash_aside.options(retry=Retry(max_attempts=1)), "").result(timeout=1)

    assert cluster.now - start < timedelta(seconds=1)


def test_a_job_that_talks_to_the_world_is_told_so(cluster: VirtualCluster) -> None:
    """Its error says that there is no network, and what to do."""
    with pytest.raises(JobFailed, match=r"no sockets.*put a fake"):
        cluster.client.submit(call_out).result(timeout=1)


def test_a_wait_that_was_too_short_says_why(cluster: VirtualCluster) -> None:
    """The job's state, and when it is due."""
    with pytest.raises(WaitTimeout) as caught:
        cluster.client.submit(resize.options(delay=HOUR), "x").result(timeout=1)
    (note,) = caught.value.__notes__
    assert "SCHEDULED, and due at 2026-01-01 01:00:00: tenure_cluster.advance(" in note
    with pytest.raises(WaitTimeout) as caught:
        cluster.client.submit(nap, 30).result(timeout=1)
    assert caught.value.__notes__[0].endswith("RUNNING")


def test_a_wait_for_a_job_that_waits_for_ever_ends(cluster: VirtualCluster) -> None:
    """It says where the job waits; a job with a timeout is waited for."""
    limited = cluster.client.submit(wait_for_nobody.options(timeout=HOUR / 4))
    with pytest.raises(JobFailed, match="TIMED_OUT"):
        limited.result()
    with pytest.raises(TenureError, match=r"job \S+ at wait_for_nobody:\d+ > Event.wait"):
        cluster.client.submit(wait_for_nobody).result()


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
        handle = cluster.client.submit(nap, 1.0)
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


def test_batch_handlers_collect(cluster: VirtualCluster) -> None:
    """Many jobs are few calls, each as large as it may be; every item has its own end."""
    CALLS.clear()
    once = store.options(retry=Retry(max_attempts=1))
    handles = cluster.client.map(once, range(1, 251))
    assert cluster.client.wait_all(handles, timeout=5)
    assert [handle.status() for handle in handles] == [
        JobState.COMPLETED if number % 10 else JobState.FAILED for number in range(1, 251)
    ]
    assert sum(CALLS) == 250
    assert max(CALLS) == 100
    assert len(CALLS) <= 5


def test_coroutines_take_batches_too(cluster: VirtualCluster) -> None:
    """A call that waits keeps nobody else; its items are those of ``current_batch()``."""
    CALLS.clear()
    handles = cluster.client.map(store_slowly, range(150))
    beside = cluster.client.submit(resize, "a")
    assert beside.result(timeout=1) == "a?w=640"
    assert cluster.client.wait_all(handles, timeout=10)
    assert [handle.result() for handle in handles] == [handle.id for handle in handles]
    assert max(CALLS) == 100
