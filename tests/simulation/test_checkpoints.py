"""Long jobs that save how far they are, through all that ends their attempts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tenure.client import JobState, Retry, current_job, job
from tenure.testing.process import elapse
from tenure.testing.virtual import Shape, VirtualCluster

STEPS = 200
#: What ran: (worker's attempt, step).
RUN: list[tuple[int, int]] = []
SOON = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def _forget() -> None:
    RUN.clear()


@job(name="climb", retry=Retry(max_lost=1, backoff="none"))
async def climb(steps: int) -> int:
    """Takes half a second a step, and remembers each."""
    me = current_job()
    height = me.last_checkpoint or 0
    async for step in me.iterate(range(steps)):
        RUN.append((me.attempt, step))
        await elapse(0.5)
        height += 1
        me.checkpoint(height)
        me.progress(100 * height / steps)
    return height


def repeated() -> int:
    """How many steps ran more than once."""
    steps = [step for _, step in RUN]
    return len(steps) - len(set(steps))


def test_it_goes_on_elsewhere_when_its_worker_is_killed() -> None:
    """More often than losses are allowed: each attempt gets on, and repeats one step at most."""
    with VirtualCluster(Shape(workers=3)) as cluster:
        handle = cluster.client.submit(climb, STEPS)
        for _ in range(5):
            cluster.advance(timedelta(seconds=5.2))
            cluster.kill_worker()
            cluster.advance(timedelta(seconds=25))
        assert handle.result() == STEPS
        assert repeated() <= 5
        described = cluster.client.describe(handle.id)
        assert len(described.attempts) == 6
        assert described.losses_charged <= 1
        assert described.checkpoint_bytes == 0


def test_it_goes_on_after_failovers() -> None:
    """What was acknowledged by one leader its successors have."""
    with VirtualCluster(Shape(masters=3, workers=2)) as cluster:
        handle = cluster.client.submit(climb, STEPS)
        cluster.advance(timedelta(seconds=10))
        for _ in range(2):
            cluster.kill_leader()
            cluster.advance(timedelta(seconds=10.2))
            cluster.kill_worker()
            cluster.advance(timedelta(seconds=25))
        assert handle.result() == STEPS
        assert repeated() <= 2


def test_what_is_known_of_it() -> None:
    """When the last one came, and how large it is, beside the progress."""
    with VirtualCluster() as cluster:
        handle = cluster.client.submit(climb, STEPS)
        cluster.advance(timedelta(seconds=30))
        described = cluster.client.describe(handle.id)
        age = cluster.now - described.checkpoint_at.ToDatetime(cluster.now.tzinfo)
        assert age < 2 * SOON
        assert 3 <= described.checkpoint_bytes < 20
        assert described.progress > 20


def test_a_drain_hands_it_back_between_two_steps() -> None:
    """No step runs twice, nothing is charged, and the worker is gone long before the job's end."""
    with VirtualCluster(Shape(workers=2)) as cluster:
        handle = cluster.client.submit(climb, STEPS)
        for _ in range(3):
            cluster.advance(timedelta(seconds=10))
            nodes = cluster.sim.workers.values()
            (busy,) = [worker for worker in nodes if worker.executor and worker.executor.busy]
            busy.stop()
            cluster.advance(timedelta(seconds=2))
            assert not busy.running
            cluster.run(restart(cluster, busy.name))
        assert handle.result() == STEPS
        assert repeated() == 0
        described = cluster.client.describe(handle.id)
        assert [attempt.outcome for attempt in described.attempts[:-1]] == [6, 6, 6]
        assert (described.attempts_charged, described.losses_charged) == (0, 0)


@pytest.mark.parametrize("ends", [True, False])
def test_a_drain_amid_a_broken_stream_costs_nothing(ends: bool) -> None:
    """What goes back while nobody hears it goes back over the next stream, with what it has saved:
    on SIGTERM, and when an operator has drained the worker.
    """
    with VirtualCluster(Shape(workers=2)) as cluster:
        handle = cluster.client.submit(climb, STEPS)
        for _ in range(3):
            cluster.advance(timedelta(seconds=10))
            nodes = cluster.sim.workers.values()
            (busy,) = [worker for worker in nodes if worker.executor and worker.executor.busy]
            incarnation = busy.process.incarnation
            if ends:
                busy.stop()
            else:
                cluster.client.workers.drain(incarnation)
            cluster.run(break_off(cluster, busy.host))
            cluster.advance(timedelta(seconds=2))
            if ends:
                assert not busy.running
                cluster.run(restart(cluster, busy.name))
            else:
                cluster.client.workers.undrain(incarnation)
        assert handle.result() == STEPS
        assert repeated() == 0
        described = cluster.client.describe(handle.id)
        assert [attempt.outcome for attempt in described.attempts[:-1]] == [6, 6, 6]
        assert (described.attempts_charged, described.losses_charged) == (0, 0)


async def break_off(cluster: VirtualCluster, worker: str) -> None:
    """For a second nothing gets from a worker to a master, or back."""
    network, masters = cluster.sim.network, cluster.sim.masters.values()
    ways = [way for master in masters for way in ((worker, master.host), (master.host, worker))]
    for way in ways:
        network.cut(*way)
    for master in masters:
        network.break_calls(master.host, worker)
    await elapse(1)
    for way in ways:
        network.heal(*way)


async def restart(cluster: VirtualCluster, name: str) -> None:
    """A worker that has ended comes back."""
    cluster.sim.start(cluster.sim.workers[name])


@job(name="forget", retry=Retry(max_attempts=2, backoff="none"))
async def forget(text: str) -> str:
    """Fails once a run, and says what it began with."""
    me = current_job()
    found = me.last_checkpoint
    if found is None:
        me.checkpoint(text)
        raise RuntimeError("as it was told to")
    if found == text and me.attempt == 2 and int(me.fence[-8:], 16) == 0:
        raise RuntimeError("once more")
    return str(found)


def test_a_requeue_begins_anew() -> None:
    """A new run finds nothing; its own second attempt finds what the first one has saved."""
    with VirtualCluster() as cluster:
        handle = cluster.client.submit(forget, "x")
        assert handle.wait()
        assert handle.status() is JobState.FAILED
        cluster.client.requeue([handle.id])
        assert cluster.client.get(handle.id, forget).result() == "x"
        assert len(cluster.client.describe(handle.id).attempts) == 4
