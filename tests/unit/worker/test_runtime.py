"""The worker node with real executors, over streams in memory."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tenure.client.codec import encode_args
from tenure.protocol.fence import Token
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tenure.v1 import worker_pb2
from tenure.worker import app
from tenure.worker.clock import SystemClock
from tenure.worker.config import WorkerConfig
from tenure.worker.executor.pool import ExecutorPool
from tenure.worker.port import Clock, Executor
from tenure.worker.runtime import WorkerNode, introduction
from tests.unit.worker.batch_handlers import CALLS
from tests.unit.worker.masters import FakeMaster, FakeNetwork, job_id

APP = "tests.unit.worker.applications"
JOBS = {**app.load(APP), **app.load("tests.unit.worker.batch_handlers")}
NEWER = Token(1, 101)


def call(number: int, name: str, *args: Any) -> tuple[str, str, bytes]:
    """A job as ``FakeMaster.grant`` takes it."""
    return job_id(number), name, encode_args(JOBS[name], args, {})


class Running:
    """A node in a task, its network, and what it announced."""

    def __init__(self, node: WorkerNode, network: FakeNetwork) -> None:
        self.node = node
        self.network = network
        self.announced: list[tuple[str, Mapping[str, object]]] = []
        self.ended = asyncio.Event()

    async def leader(self, *, token: Token | None = None, **welcome: Any) -> FakeMaster:
        """The next stream's master, welcoming and leading."""
        master = await (
            self.network.accept(token=token) if token is not None else self.network.accept()
        )
        master.welcome(**welcome)
        await master.until(lambda: master.declared)
        return master


@asynccontextmanager
async def running(
    *names: str,
    slots: int = 4,
    masters: tuple[str, ...] = ("m1:1",),
    drain_ms: int = 10_000,
    clock: Clock | None = None,
) -> AsyncIterator[Running]:
    """A worker that serves some of the test application's jobs."""
    jobs = {name: JOBS[name] for name in names}
    network, clock = FakeNetwork(), clock or SystemClock()
    config = WorkerConfig(app=APP, masters=list(masters), name="w1", slots=slots)

    def make_executor(wake: Callable[[], None]) -> Executor:
        return ExecutorPool(jobs, APP, slots, clock, wake)

    node = WorkerNode(
        introduction(config, jobs, "inc"),
        config.masters,
        transport=network,
        clock=clock,
        rng=random.Random(1),
        make_executor=make_executor,
        drain_timeout_ms=drain_ms,
        announce=lambda event, fields: run.announced.append((event, fields)),
    )
    run = Running(node, network)

    async def work() -> None:
        await node.run()
        run.ended.set()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work())
        yield run
        task.cancel()


async def until_exists(path: Path) -> None:
    """Waits for a job to create a file."""
    loop = asyncio.get_running_loop()
    while not path.exists():
        tick = asyncio.Event()
        loop.call_later(0.005, tick.set)
        await tick.wait()


def test_job_runs_end_to_end() -> None:
    """Hello, credit, grant, started, result, verdict: each kind of executor."""

    async def scenario() -> None:
        async with running("double", "double_async", "double_in_child") as run:
            master = await run.leader()
            assert master.hello is not None
            assert list(master.hello.job_names) == ["double", "double_async", "double_in_child"]
            assert master.credit == 4
            names = ["double", "double_async", "double_in_child"]
            master.grant(*[call(number, name, number) for number, name in enumerate(names)])
            await master.until(lambda: len(master.reports) == 3)
            results = [
                msgspec.msgpack.decode(master.reports[job_id(number)].result) for number in range(3)
            ]
            assert results == [0, 2, 4]
            assert run.announced == [
                (
                    "registered",
                    {
                        "name": "w1",
                        "master": "m1",
                        "address": "m1:1",
                        "incarnation": "inc",
                        "jobs": ["double", "double_async", "double_in_child"],
                    },
                )
            ]

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["double_all", "double_all_async"])
def test_batch_handlers_collect_what_is_granted(name: str) -> None:
    """The first item brings credit for the rest of its call; each has a report of its own."""

    async def scenario() -> None:
        async with running(name, slots=1) as run:
            master = await run.leader()
            assert master.credit == 1
            master.grant(call(1, name, ("node", 1)))
            await master.until(lambda: master.credit == 2)
            master.grant(*[call(number, name, ("node", number)) for number in (2, 3)])
            await master.until(lambda: len(master.reports) == 3)
            results = [master.reports[job_id(number)].result for number in (1, 2, 3)]
            assert [msgspec.msgpack.decode(result) for result in results] == [2, 4, 6]
            master.grant(call(4, name, ("node", 4)))
            await master.until(lambda: len(master.reports) == 4)
        assert CALLS.pop("node") == [[1, 2, 3], [4]]

    asyncio.run(scenario())


class StandingClock:
    """Time passes when the test lets it pass, also for the threads of executors."""

    def __init__(self) -> None:
        self._now_ms = 0
        self._sleepers: list[tuple[int, asyncio.Event]] = []

    def boot_ms(self) -> int:
        return self._now_ms

    def wall_ms(self) -> int:
        return self._now_ms

    async def sleep(self, ms: int) -> None:
        over = asyncio.Event()
        self._sleepers.append((self._now_ms + ms, over))
        await over.wait()

    def advance(self, ms: int) -> None:
        """Lets so much time pass at once, and wakes all whose sleep is over."""
        self._now_ms += ms
        for due_ms, over in self._sleepers:
            if due_ms <= self._now_ms:
                over.set()
        self._sleepers = [sleeper for sleeper in self._sleepers if not sleeper[1].is_set()]


@pytest.mark.parametrize(
    ("name", "count"), [("block_loop", 1), ("compute_async", 1), ("compute", 2)]
)
def test_busy_jobs_keep_their_leases(name: str, count: int, tmp_path: Path) -> None:
    """Heartbeats go on and are answered past the TTL, whatever jobs do in our own process: one that
    waits in the loop and blocks it, one that computes there, some that compute in all threads.
    """

    async def scenario() -> None:
        clock = StandingClock()
        async with running(name, slots=2, clock=clock) as run:
            master = await run.leader(lease_ttl_ms=2_000, heartbeat_ms=300)
            release = tmp_path / "r"
            jobs = [call(n, name, str(tmp_path / f"s{n}"), str(release)) for n in range(count)]
            master.grant(*jobs)
            for number in range(count):
                await until_exists(tmp_path / f"s{number}")
            for _ in range(10):
                clock.advance(400)  # A beat, with all its jitter.
                beat = await next_beat(master)
                held = [row.lease.job_id for row in beat.held.leases]
                assert held == [job_id(number) for number in range(count)]
            assert master.returned == []
            release.touch()
            await master.until(lambda: len(master.reports) == count)
            assert {report.outcome for report in master.reports.values()} == {1}
            assert all(report.run_ms == 4_000 for report in master.reports.values())

    asyncio.run(scenario())


async def next_beat(master: FakeMaster) -> worker_pb2.Heartbeat:
    """The heartbeat that comes next."""
    seen = len(master.heartbeats)
    await master.until(lambda: len(master.heartbeats) > seen)
    return master.heartbeats[seen]


def test_running_job_survives_its_master(tmp_path: Path) -> None:
    """The stream breaks, another master leads: it is told of the lease and gets the result."""

    async def scenario() -> None:
        async with running("deaf", masters=("m1:1", "m2:1")) as run:
            first = await run.leader(name="m1")
            second = await run.network.accept(token=NEWER)
            started, release = tmp_path / "s", tmp_path / "r"
            first.grant(call(1, "deaf", str(started), str(release)))
            await until_exists(started)
            first.stream.cancel()
            second.welcome("m2")
            await second.until(lambda: second.declared)
            (row,) = second.declared[0].leases
            assert (row.lease.job_id, row.started) == (job_id(1), True)
            assert (row.lease.token.epoch, row.lease.token.revision) == first.token
            release.touch()
            await second.until(lambda: second.reports)
            assert job_id(1) in second.reports

    asyncio.run(scenario())


def test_broken_stream_is_dialled_again() -> None:
    """A clean end, an error, and a stream that was never welcomed."""

    async def scenario() -> None:
        async with running("double") as run:
            master = await run.leader()
            master.stream.end()
            again = await run.leader()
            again.stream.cancel()
            third = await run.network.accept()
            third.stream.cancel()
            last = await run.leader()
            last.grant(call(1, "double", 4))
            await last.until(lambda: last.reports)

    asyncio.run(scenario())


def test_masters_are_found_by_name() -> None:
    """Addresses in a Welcome are dialled, once each; a master with two of them has one stream."""

    async def scenario() -> None:
        async with running("double") as run:
            master = await run.network.accept()
            master.welcome("m1")
            said = worker_pb2.SessionResponse(
                welcome=worker_pb2.Welcome(master="m1", masters=["m1:1", "alias:1", "m2:1"])
            )
            master.stream.say(said)
            alias, other = await run.network.accept(), await run.network.accept()
            assert (alias.stream.address, other.stream.address) == ("alias:1", "m2:1")
            alias.welcome("m1")
            other.welcome("m2")
            await alias.stream.broken.wait()
            assert not other.stream.broken.is_set()

    asyncio.run(scenario())


def test_addresses_that_no_master_names_are_dialled_no_more() -> None:
    """A learnt one is let go of after a while; those given and those that answer stay."""

    async def main() -> None:
        async with (
            running("double", masters=("m1:1", "dns:1"), clock=SimClock()) as run,
            asyncio.TaskGroup() as tasks,
        ):
            master = await run.network.accept()
            unseen = await run.network.accept()
            said = worker_pb2.Welcome(master="m1", masters=["m1:1", "m2:1", "gone:1"])
            master.stream.say(worker_pb2.SessionResponse(welcome=said))
            other = await run.network.accept()
            other.welcome("m2")
            run.network.topology.masters.append("m1:1")
            listening = [tasks.create_task(m.until(lambda: False)) for m in (master, other)]
            dialled = []
            for _ in range(2):
                await SimClock().sleep(100_000)
                streams = run.network.streams
                dialled.append({streams.get_nowait().address for _ in range(streams.qsize())})
            assert dialled == [{"dns:1", "gone:1"}, {"dns:1"}]
            assert run.network.forgotten == ["gone:1"]
            assert unseen.stream.broken.is_set()
            assert not master.stream.broken.is_set()
            assert not other.stream.broken.is_set()
            for task in listening:
                task.cancel()

    run_virtual(main)


def test_drain_finishes_what_runs(tmp_path: Path) -> None:
    """After the first TERM: unstarted jobs go back, running ones end, then goodbye."""

    async def scenario() -> None:
        async with running("deaf", slots=1) as run:
            master = await run.leader()
            started, release = tmp_path / "s", tmp_path / "r"
            jobs = [call(number, "deaf", str(started), str(release)) for number in (1, 2)]
            master.grant(*jobs)
            await until_exists(started)
            run.node.drain()
            await master.until(lambda: master.returned)
            assert master.returned == [job_id(2)]
            assert master.credit <= 0
            release.touch()
            await master.until(lambda: master.goodbye)
            assert list(master.reports) == [job_id(1)]
            await run.ended.wait()
            assert [event for event, _ in run.announced] == ["registered", "draining", "stopped"]

    asyncio.run(scenario())


@pytest.mark.parametrize("hurried", [False, True])
def test_drain_waits_for_grants_that_are_on_their_way(hurried: bool) -> None:
    """A job granted at the moment of the drain goes back; nobody has to wait for its lease."""

    async def scenario() -> None:
        async with running("double") as run:
            master = await run.leader()
            run.node.drain()
            if hurried:
                run.node.hurry()
            said = await master.stream.requests.get()
            while not said.HasField("credit"):
                said = await master.stream.requests.get()
            assert said.credit.limit == 0
            master.grant(call(1, "double", 1))
            master.stream.say(worker_pb2.SessionResponse(credit_acked=said.credit.number))
            await master.until(lambda: master.goodbye)
            assert master.returned == [job_id(1)]
            await run.ended.wait()

    run_virtual(scenario)


@pytest.mark.parametrize("hurried", [False, True])
def test_a_drain_hands_back_over_the_next_stream(hurried: bool, tmp_path: Path) -> None:
    """What goes back while its stream is down, or is lost with it, goes over the next one."""

    async def scenario() -> None:
        async with running("until_told_async", drain_ms=600_000 if hurried else 50) as run:
            master = await run.leader()
            master.grant(call(1, "until_told_async", str(tmp_path / "s")))
            await until_exists(tmp_path / "s")
            master.stream.cancel()
            run.node.drain()
            if hurried:
                run.node.hurry()
            again = await run.leader()
            await again.until(lambda: again.goodbye)
            assert [row.lease.job_id for row in again.declared[0].leases] == [job_id(1)]
            assert again.returned == [job_id(1)]
            await run.ended.wait()

    asyncio.run(scenario())


def test_a_worker_without_a_leader_rests() -> None:
    """Welcomed by a master that leads nothing, it looks at the clock as seldom as when idle."""

    class CountingClock(SimClock):
        sleeps = 0

        async def sleep(self, ms: int) -> None:
            self.sleeps += 1
            await super().sleep(ms)

    async def scenario() -> None:
        clock = CountingClock()
        async with running("double", clock=clock) as run:
            master = await run.network.accept()
            said = worker_pb2.SessionResponse()
            said.welcome.master = "m1"
            master.stream.say(said)
            await clock.sleep(10_000)
            assert clock.sleeps < 200

    run_virtual(scenario)


def test_second_term_hands_back_at_once(tmp_path: Path) -> None:
    """What runs is interrupted and handed back uncharged, not reported."""

    async def scenario() -> None:
        async with running("until_told_async", "until_told", drain_ms=600_000) as run:
            master = await run.leader()
            paths = tmp_path / "a", tmp_path / "b"
            master.grant(
                call(1, "until_told_async", str(paths[0])), call(2, "until_told", str(paths[1]))
            )
            for path in paths:
                await until_exists(path)
            run.node.drain()
            run.node.drain()
            await master.until(lambda: master.goodbye)
            assert sorted(master.returned) == [job_id(1), job_id(2)]
            assert master.reports == {}
            await run.ended.wait()

    asyncio.run(scenario())


def test_drain_timeout_hands_back_what_does_not_stop(tmp_path: Path) -> None:
    """Even a thread that hears nothing does not keep the worker."""

    async def scenario() -> None:
        async with running("deaf", drain_ms=50) as run:
            master = await run.leader()
            started, release = tmp_path / "s", tmp_path / "r"
            master.grant(call(1, "deaf", str(started), str(release)))
            await until_exists(started)
            run.node.drain()
            await master.until(lambda: master.goodbye)
            release.touch()
            assert master.returned == [job_id(1)]
            await run.ended.wait()

    asyncio.run(scenario())


def test_cancel_reaches_the_job(tmp_path: Path) -> None:
    """From the master's word to the report."""

    async def scenario() -> None:
        async with running("until_told_async") as run:
            master = await run.leader()
            (ref,) = master.grant(call(1, "until_told_async", str(tmp_path / "s")))
            await until_exists(tmp_path / "s")
            master.instruct(cancels=[ref])
            await master.until(lambda: master.reports)
            assert master.reports[job_id(1)].outcome == 7

    asyncio.run(scenario())


def test_timeout_of_the_grant_is_kept(tmp_path: Path) -> None:
    """A job ends soon after its own timeout."""

    async def scenario() -> None:
        async with running("until_told_async") as run:
            master = await run.leader()
            master.grant(
                call(1, "until_told_async", str(tmp_path / "s")), timeout={"nanos": 50_000_000}
            )
            await master.until(lambda: master.reports)
            report = master.reports[job_id(1)]
            assert report.outcome == 4
            assert 50 <= report.run_ms < 5_000

    asyncio.run(scenario())


def test_late_verdict_keeps_the_lease() -> None:
    """Without a verdict the report is repeated to the next stream."""

    async def scenario() -> None:
        async with running("double") as run:
            master = await run.leader()
            master.judging = False
            master.grant(call(1, "double", 4))
            await master.until(lambda: master.reports)
            master.stream.cancel()
            again = await run.leader()
            await again.until(lambda: again.reports)
            assert job_id(1) in again.reports
            assert [row.lease.job_id for row in again.declared[0].leases] == [job_id(1)]

    asyncio.run(scenario())
