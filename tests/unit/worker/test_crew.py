"""The nodes of a worker's process, with real executors, over streams in memory."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from tenure.worker import app
from tenure.worker.clock import SystemClock
from tenure.worker.config import WorkerConfig
from tenure.worker.crew import Crew
from tenure.worker.exits import EXIT_RESTART
from tenure.worker.runtime import MakeExecutor, WorkerNode, introduction
from tests.unit.worker.masters import FakeMaster, FakeNetwork, job_id
from tests.unit.worker.test_runtime import call, until_exists

APP = "tests.unit.worker.applications"
JOBS = app.load(APP)
#: A job with this timeout is over before anybody has looked.
SHORT = Duration(nanos=20_000_000)


class Running:
    """A crew in a task, and its network."""

    def __init__(self, crew: Crew, network: FakeNetwork) -> None:
        self.crew = crew
        self.network = network
        self.ended = asyncio.Event()

    async def leader(self) -> FakeMaster:
        """The next stream's master, welcoming and leading."""
        master = await self.network.accept()
        master.welcome()
        await master.until(lambda: master.declared)
        return master


@asynccontextmanager
async def crewed(*names: str, slots: int = 4, **settings: Any) -> AsyncIterator[Running]:
    """A process that serves some of the test application's jobs."""
    jobs = {name: JOBS[name] for name in names}
    network, clock = FakeNetwork(), SystemClock()
    config = WorkerConfig(app=APP, masters=["m1:1"], name="w1", slots=slots, **settings)

    def make_node(make_executor: MakeExecutor) -> WorkerNode:
        return WorkerNode(
            introduction(config, jobs, "inc"),
            config.masters,
            transport=network,
            clock=clock,
            rng=random.Random(1),
            make_executor=make_executor,
            drain_timeout_ms=10_000,
            announce=lambda event, fields: None,
        )

    crew = Crew(config, jobs, clock=clock, parents=None, make_node=make_node)
    run = Running(crew, network)

    async def work() -> None:
        await crew.run()
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


async def _lose(master: FakeMaster, number: int, folder: Path) -> None:
    """Has a job run past its timeout and go on."""
    started = str(folder / f"s{number}")
    master.grant(call(number, "deaf", started, str(folder / "release")), timeout=SHORT)
    await master.until(lambda: job_id(number) in master.reports)
