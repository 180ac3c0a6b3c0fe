"""What is the simulated executor's own: how it runs code, and how that is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from tenure.client import job
from tenure.client.codec import encode_args
from tenure.client.parent_result import Placeholder
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.testing.clock import SimClock
from tenure.testing.executor import LoopExecutor
from tenure.testing.loop import run_virtual
from tenure.testing.process import elapse
from tenure.v1 import jobs_pb2
from tenure.worker.executor.patience import GRACE_MS
from tenure.worker.held import HeldJob, Terms
from tenure.worker.port import FactKind
from tests.unit.worker.masters import TOKEN, job_id

STARTED, ENDED = FactKind.STARTED, FactKind.ENDED
ABANDONED, FREED = FactKind.ABANDONED, FactKind.FREED


class Nowhere:
    """Results that never come."""

    def fetch(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        raise NotImplementedError

    async def fetch_async(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        await asyncio.Event().wait()
        return []


@job(name="join")
def join(text: str) -> str:
    """A plain function."""
    return text


@job(name="go_on")
async def go_on(seconds: float) -> None:
    """Does not listen."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + seconds
    while loop.time() < until_s:
        try:
            await elapse(until_s - loop.time())
        except asyncio.CancelledError:
            continue


@job(name="fail")
async def fail() -> None:
    """Raises."""
    raise ValueError("no luck")


class Bench:
    """The session's side of an executor with one slot."""

    def __init__(self, group: asyncio.TaskGroup, *, folders: bool = True) -> None:
        def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
            return group.create_task(work, name=name)

        self.clock = SimClock()
        self.lost: list[int] = []
        self.executor = LoopExecutor(
            {one.name: one for one in (join, go_on, fail)},
            1,
            clock=self.clock,
            spawn=spawn,
            wake=lambda: None,
            parents=Nowhere(),
            on_lost=lambda: self.lost.append(self.executor.load(0).lost),
            folders=folders,
        )
        self._jobs = 0

    def run(self, definition: Any, *args: Any) -> HeldJob:
        """Hands a job over."""
        self._jobs += 1
        held = HeldJob(
            job_id=job_id(self._jobs),
            partition=0,
            token=TOKEN,
            seq=self._jobs,
            terms=Terms(definition.name),
            payload=encode_args(definition, args, {}),
            expires_ms=1 << 60,
        )
        self.executor.run([held])
        return held

    async def after(self, ms: int) -> list[tuple[FactKind, HeldJob]]:
        """What is said in the meantime."""
        await elapse(ms / 1000)
        self.executor.tick(self.clock.boot_ms())
        return self.executor.take_facts()


@pytest.mark.parametrize("outcome", [AttemptOutcome.CANCELLED, AttemptOutcome.TIMED_OUT])
def test_a_plain_job_that_waits_for_results_can_be_stopped(outcome: AttemptOutcome) -> None:
    """Its code has not begun and never does, and its slot is free."""

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            bench = Bench(group)
            waits = bench.run(join, Placeholder(job_id(9)))
            assert await bench.after(10) == [(STARTED, waits)]
            bench.executor.stop(waits, outcome)
            assert await bench.after(10) == [(ENDED, waits)]
            assert waits.result is not None
            assert waits.result.outcome is outcome
            works = bench.run(join, "a")
            assert await bench.after(10) == [(ENDED, works)]
            assert bench.lost == []

    run_virtual(main)


def test_what_does_not_listen_loses_its_slot_to_the_next_job() -> None:
    """After the grace; its end says that it is over, and frees nothing."""

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            bench = Bench(group)
            first, second, third = (bench.run(go_on, 10.0) for _ in range(3))
            await bench.after(10)
            bench.executor.stop(first, AttemptOutcome.CANCELLED)
            assert await bench.after(GRACE_MS - 100) == []
            assert await bench.after(100) == [(STARTED, second), (ABANDONED, first)]
            assert bench.lost == [1]
            assert bench.executor.running == [first.job_id, second.job_id]
            assert await bench.after(5_000) == [(FREED, first)]
            assert bench.executor.load(0).lost == 0
            assert not third.claimed
            assert bench.executor.running == [second.job_id]
            await bench.after(5_100)
            assert bench.executor.running == [third.job_id]

    run_virtual(main)


@pytest.mark.parametrize("folders", [True, False])
def test_a_traceback_may_name_files_without_their_folders(folders: bool) -> None:
    """Its length then does not depend on where the code lies."""

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            bench = Bench(group, folders=folders)
            failed = bench.run(fail)
            await bench.after(10)
            assert failed.result is not None
            assert failed.result.fault is not None
            file = Path(__file__)
            named = file if folders else file.name
            assert f'File "{named}", line' in failed.result.fault.traceback
            assert 'ValueError("no luck")' in failed.result.fault.traceback

    run_virtual(main)
