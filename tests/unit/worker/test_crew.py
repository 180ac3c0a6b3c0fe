"""The nodes of a worker's process, with real executors, over streams in memory."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from tenure.protocol.vocabulary import AttemptOutcome
from tenure.v1 import worker_pb2
from tenure.worker import app
from tenure.worker.clock import SystemClock
from tenure.worker.config import WorkerConfig
from tenure.worker.crew import MEMORY_MS, Announce, Crew, MakeExecutor
from tenure.worker.executor.loop import PROBE_MS
from tenure.worker.executor.pool import pool_maker
from tenure.worker.exits import EXIT_RESTART
from tenure.worker.memory import Memory
from tenure.worker.pools import Pool
from tenure.worker.runtime import WorkerNode, introduction
from tests.unit.worker.executor.bench import ShiftedClock
from tests.unit.worker.masters import FakeMaster, FakeNetwork, job_id
from tests.unit.worker.test_runtime import call, until_exists

APP = "tests.unit.worker.applications"
JOBS = app.load(APP)
MIB, GIB = 1024**2, 1024**3
#: A job with this timeout is over before anybody has looked.
SHORT = Duration(nanos=20_000_000)


class Running:
    """A crew in a task, its network, and what it announced."""

    def __init__(self) -> None:
        self.crew: Crew
        self.network = FakeNetwork()
        self.ended = asyncio.Event()
        self.announced: list[tuple[str, object]] = []
        self.memory = Memory(total=64 * GIB, available=32 * GIB, resident=MIB)

    async def leader(self) -> FakeMaster:
        """The next stream's master, welcoming and leading."""
        master = await self.network.accept()
        master.welcome()
        await master.until(lambda: master.declared)
        return master

    async def leaders(self, count: int) -> dict[str, FakeMaster]:
        """The masters of the next streams, by the names under which the nodes register."""
        masters = [await self.leader() for _ in range(count)]
        return {master.hello.name: master for master in masters if master.hello is not None}


@asynccontextmanager
async def crewed(
    *names: str, slots: int = 4, clock: SystemClock | None = None, **settings: Any
) -> AsyncIterator[Running]:
    """A process that serves some of the test application's jobs."""
    jobs = {name: JOBS[name] for name in names}
    config = WorkerConfig(app=APP, masters=["m1:1"], name="w1", slots=slots, **settings)
    run, time = Running(), clock or SystemClock()

    def make_node(pool: Pool, make_executor: MakeExecutor, tell: Announce) -> WorkerNode:
        return WorkerNode(
            introduction(config, pool.jobs, pool.name, pool),
            config.masters,
            transport=run.network,
            clock=time,
            rng=random.Random(1),
            make_executor=make_executor,
            drain_timeout_ms=10_000,
            announce=tell,
        )

    run.crew = Crew(
        config,
        jobs,
        clock=time,
        make_pool=pool_maker(config, time, None),
        make_node=make_node,
        announce=lambda event, fields: run.announced.append((event, fields.get("name"))),
        read_memory=lambda: run.memory,
    )

    async def work() -> None:
        await run.crew.run()
        run.ended.set()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work())
        yield run
        task.cancel()


class TestRestart:
    """A process that has lost too many threads wants to be started again."""

    @pytest.mark.parametrize(("slots", "borne"), [(1, 2), (8, 2), (12, 3)])
    def test_limit_is_a_quarter_of_the_slots(self, slots: int, borne: int, tmp_path: Path) -> None:
        """So many lost slots are borne, two at least; one more, and it drains with its status."""

        async def scenario() -> None:
            async with crewed("deaf", slots=slots) as run:
                master = await run.leader()
                for number in range(borne + 1):
                    assert master.goodbye is None
                    assert run.crew.status == 0
                    await _lose(master, number, tmp_path)
                    assert run.crew.lost_slots == number + 1
                await master.until(lambda: master.goodbye)
                (tmp_path / "release").touch()
                await run.ended.wait()
                assert run.crew.status == EXIT_RESTART

        asyncio.run(scenario())

    def test_one_job_that_blocks_the_loop_for_good_is_enough(self, tmp_path: Path) -> None:
        """No other coroutine would ever get on: what has not begun goes back, and it restarts."""

        async def scenario() -> None:
            clock, release = ShiftedClock(), tmp_path / "release"
            async with crewed("block_loop", "double_async", slots=20, clock=clock) as run:
                master = await run.leader()
                blocker = call(1, "block_loop", str(tmp_path / "s"), str(release))
                master.grant(blocker, timeout=Duration(seconds=1))
                await until_exists(tmp_path / "s")
                master.grant(call(2, "double_async", 1))
                (node,) = run.crew._nodes
                assert isinstance(node, WorkerNode)
                while not run.crew.status:
                    clock.ahead_ms += PROBE_MS
                    node._executor.tick(clock.boot_ms())
                    await asyncio.to_thread(lambda: None)
                await master.until(lambda: master.goodbye)
                assert master.reports[job_id(1)].outcome == AttemptOutcome.TIMED_OUT
                assert master.returned == [job_id(2)]
                release.touch()
                await run.ended.wait()
                assert run.crew.status == EXIT_RESTART

        asyncio.run(scenario())

    def test_what_runs_is_finished_first(self, tmp_path: Path) -> None:
        """A job that is well ends and is reported before the restart."""

        async def scenario() -> None:
            async with crewed("deaf", slots=2, lost_slots_max=0) as run:
                master = await run.leader()
                well = tmp_path / "well"
                master.grant(call(9, "deaf", str(well), str(tmp_path / "go on")))
                await until_exists(well)
                await _lose(master, 1, tmp_path)
                await master.until(lambda: master.credit <= 0)
                assert job_id(9) not in master.reports
                (tmp_path / "go on").touch()
                await master.until(lambda: master.goodbye)
                assert master.reports[job_id(9)].outcome == 1
                (tmp_path / "release").touch()
                await run.ended.wait()
                assert run.crew.status == EXIT_RESTART

        asyncio.run(scenario())

    def test_code_that_ends_after_all_is_forgotten(self, tmp_path: Path) -> None:
        """Only what still runs counts: lost and come back many times is no reason to restart."""

        async def scenario() -> None:
            async with crewed("deaf", "double", slots=1, lost_slots_max=1) as run:
                master = await run.leader()
                for number in range(4):
                    folder = tmp_path / str(number)
                    folder.mkdir()
                    await _lose(master, number, folder)
                    (folder / "release").touch()
                    while run.crew.lost_slots:
                        await asyncio.to_thread(lambda: None)
                master.grant(call(9, "double", 1))
                await master.until(lambda: job_id(9) in master.reports)
                assert run.crew.status == 0

        asyncio.run(scenario())

    def test_a_drain_wins_over_a_restart(self, tmp_path: Path) -> None:
        """Asked to end while it restarts, it ends for good, and what runs may finish first."""

        async def scenario() -> None:
            async with crewed("deaf", slots=2, lost_slots_max=0) as run:
                master = await run.leader()
                well = tmp_path / "well"
                master.grant(call(9, "deaf", str(well), str(tmp_path / "go on")))
                await until_exists(well)
                await _lose(master, 1, tmp_path)
                await master.until(lambda: master.credit <= 0)
                run.crew.drain()
                (tmp_path / "go on").touch()
                await master.until(lambda: master.goodbye)
                assert master.reports[job_id(9)].outcome == 1
                assert master.returned == []
                (tmp_path / "release").touch()
                await run.ended.wait()
                assert run.crew.status == 0

        asyncio.run(scenario())

    def test_a_drain_makes_restarts_moot(self, tmp_path: Path) -> None:
        """Slots that are lost while it drains change nothing about how it ends."""

        async def scenario() -> None:
            async with crewed("deaf", slots=1, lost_slots_max=0) as run:
                master = await run.leader()
                timeout = Duration(seconds=1)
                master.grant(
                    call(1, "deaf", str(tmp_path / "s"), str(tmp_path / "release")), timeout=timeout
                )
                await until_exists(tmp_path / "s")
                run.crew.drain()
                await master.until(lambda: master.goodbye)
                assert run.crew.lost_slots == 1
                (tmp_path / "release").touch()
                await run.ended.wait()
                assert run.crew.status == 0

        asyncio.run(scenario())


class TestPools:
    """Classes of jobs with slots of their own."""

    def test_a_full_pool_holds_up_no_other(self, tmp_path: Path) -> None:
        """Each pool has its own credit, for its own jobs: while one is full the others go on."""

        async def scenario() -> None:
            names = ("deaf_cpu", "double", "double_async", "double_io")
            async with crewed(*names, slots=3, pools={"cpu": 1, "io": 2}) as run:
                masters = await run.leaders(3)
                assert {
                    name: (list(master.hello.job_names), master.hello.slots, master.credit)
                    for name, master in masters.items()
                    if master.hello is not None
                } == {
                    "w1": (["double", "double_async"], 3, 3),
                    "w1/cpu": (["deaf_cpu"], 1, 1),
                    "w1/io": (["double_io"], 2, 2),
                }
                cpu = masters["w1/cpu"]
                release = str(tmp_path / "release")
                cpu.grant(*[call(n, "deaf_cpu", str(tmp_path / f"{n}"), release) for n in (1, 2)])
                await until_exists(tmp_path / "1")
                await _run(masters["w1"], 10, "double", 1)
                await _run(masters["w1"], 11, "double_async", 1)
                await _run(masters["w1/io"], 12, "double_io", 1)
                assert not (tmp_path / "2").exists()
                (tmp_path / "release").touch()
                await cpu.until(lambda: len(cpu.reports) == 2)

        asyncio.run(scenario())

    def test_coroutines_of_all_pools_share_a_loop(self, tmp_path: Path) -> None:
        """What an application keeps for its loop (a client, a lock) serves all of its jobs."""

        async def scenario() -> None:
            async with crewed("loop_here", "loop_here_io", pools={"io": 1}) as run:
                masters = await run.leaders(2)
                loops = {
                    await _run(masters["w1"], 1, "loop_here"),
                    await _run(masters["w1/io"], 2, "loop_here_io"),
                }
                assert len(loops) == 1

        asyncio.run(scenario())

    def test_they_end_together(self, tmp_path: Path) -> None:
        """A drain is for all of them; the process says once that it drains, and that it has ended.

        One that has nothing to finish goes; the loop of the others goes on.
        """

        async def scenario() -> None:
            async with crewed("until_told_async", "loop_here_io", pools={"io": 1}) as run:
                masters = await run.leaders(2)
                main, io = masters["w1"], masters["w1/io"]
                main.grant(call(1, "until_told_async", str(tmp_path / "s")))
                await until_exists(tmp_path / "s")
                run.crew.drain()
                await io.until(lambda: io.goodbye)
                assert len(run.announced) == 3
                ref = worker_pb2.LeaseRef(job_id=job_id(1), seq=1)
                main.instruct(cancels=[ref])
                await main.until(lambda: main.goodbye)
                assert main.reports[job_id(1)].outcome == AttemptOutcome.CANCELLED
                await run.ended.wait()
                assert sorted(run.announced[:2]) == [("registered", "w1"), ("registered", "w1/io")]
                assert run.announced[2:] == [("draining", "w1"), ("stopped", "w1")]
                assert run.crew.status == 0

        asyncio.run(scenario())


class TestMemory:
    """Jobs are taken only while there is memory for them."""

    def test_short_of_memory_it_takes_nothing(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No credit, what has not begun goes back, what runs goes on; later it takes jobs again."""

        async def scenario() -> None:
            clock = SteppedClock()
            async with crewed("deaf", slots=1, clock=clock, memory_headroom_bytes=GIB) as run:
                master = await run.leader()
                started, release = tmp_path / "s", tmp_path / "r"
                jobs = [call(number, "deaf", str(started), str(release)) for number in (1, 2)]
                master.grant(*jobs)
                await until_exists(started)
                for _ in range(3):
                    run.memory = run.memory._replace(available=GIB - 1)
                    await clock.second()
                await master.until(lambda: master.returned == [job_id(2)])
                await master.until(lambda: master.credit <= 0)
                release.touch()
                await master.until(lambda: job_id(1) in master.reports)
                assert master.credit <= 0
                run.memory = run.memory._replace(available=GIB + 1)
                await clock.second()
                assert master.credit <= 0
                run.memory = run.memory._replace(available=2 * GIB)
                await clock.second()
                await master.until(lambda: master.credit > 0)
                assert run.crew.status == 0

        with caplog.at_level(logging.INFO, logger="tenure.worker.crew"):
            asyncio.run(scenario())
        assert [record.__dict__["action"] for record in caplog.records] == [
            "memory_short",
            "memory_back",
        ]

    def test_short_from_the_start(self) -> None:
        """It looks before it takes its first job."""

        async def scenario() -> None:
            async with crewed("double", memory_headroom_bytes=33 * GIB) as run:
                master = await run.leader()
                await master.until(lambda: master.heartbeats)
                assert master.credit == 0

        asyncio.run(scenario())

    def test_too_large_and_idle_it_restarts(self, tmp_path: Path) -> None:
        """What it runs is finished; then a process that stays too large is of no more use."""

        async def scenario() -> None:
            clock = SteppedClock()
            async with crewed("deaf", slots=2, clock=clock, memory_bytes_max=100 * MIB) as run:
                master = await run.leader()
                started, release = tmp_path / "s", tmp_path / "r"
                master.grant(call(1, "deaf", str(started), str(release)))
                await until_exists(started)
                run.memory = run.memory._replace(resident=101 * MIB)
                await clock.second()
                await master.until(lambda: master.credit <= 0)
                await clock.second()
                assert master.goodbye is None
                release.touch()
                await master.until(lambda: job_id(1) in master.reports)
                await clock.second()
                await master.until(lambda: master.goodbye)
                await run.ended.wait()
                assert run.crew.status == EXIT_RESTART

        asyncio.run(scenario())


class SteppedClock(SystemClock):
    """The real clock; looks at memory come when the test says so."""

    def __init__(self) -> None:
        self._sleeping = asyncio.Event()
        self._over = asyncio.Event()

    async def sleep(self, ms: int) -> None:
        if ms != MEMORY_MS:
            await super().sleep(ms)
            return
        self._sleeping.set()
        await self._over.wait()
        self._over.clear()

    async def second(self) -> None:
        """Lets one look happen."""
        await self._sleeping.wait()
        self._sleeping.clear()
        self._over.set()
        await self._sleeping.wait()


async def _run(master: FakeMaster, number: int, name: str, *args: Any) -> bytes:
    """Has a job run to its end. Returns its encoded result."""
    master.grant(call(number, name, *args))
    await master.until(lambda: job_id(number) in master.reports)
    return master.reports[job_id(number)].result


async def _lose(master: FakeMaster, number: int, folder: Path) -> None:
    """Has a job run past its timeout and go on."""
    started = str(folder / f"s{number}")
    master.grant(call(number, "deaf", started, str(folder / "release")), timeout=SHORT)
    await master.until(lambda: job_id(number) in master.reports)
