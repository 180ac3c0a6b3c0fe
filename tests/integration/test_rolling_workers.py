"""Workers that are replaced one after the other under load: nothing is lost, charged or doubled."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tenure.client import AsyncClient, AsyncJobHandle
from tests.chaos.cluster import Cluster
from tests.chaos.process import Process
from tests.integration.counted import RUNS, note

WORKERS = 4
SLOTS = 50
#: Submits go out so often; a request carries what is due by then.
PACE_S = 0.05


@dataclass(slots=True)
class Driven:
    """What a client has done and seen."""

    submitted: int = 0
    seconds: float = 0.0
    results: dict[str, str] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Jobs submitted and answered for, in a second."""
        return self.submitted / self.seconds


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One master on SQLite; runs are noted in a folder."""
    with Cluster(tmp_path, f"sqlite://{tmp_path}/store.db") as cluster:
        (tmp_path / "runs").mkdir()
        cluster.environment[RUNS] = str(tmp_path / "runs")
        cluster.start_masters(1)
        yield cluster


async def drive(address: str, rate: int, done: asyncio.Event) -> Driven:
    """Submits at a rate until it is told to stop, and waits for every result."""
    driven = Driven()
    began_s = time.monotonic()
    async with AsyncClient(address, timeout=60) as client, asyncio.TaskGroup() as waiting:

        async def collect(handles: list[AsyncJobHandle[str]]) -> None:
            async for handle in client.as_completed(handles, timeout=120):
                driven.results[handle.id] = await handle.result()

        while not done.is_set():
            due = int(rate * (time.monotonic() - began_s)) - driven.submitted
            if due > 0:
                numbers = range(driven.submitted, driven.submitted + due)
                handles = await client.submit_many(note, [(number,) for number in numbers])
                driven.submitted += due
                waiting.create_task(collect(list(handles)))
            try:
                async with asyncio.timeout(PACE_S):
                    await done.wait()
            except TimeoutError:
                continue
        driven.seconds = time.monotonic() - began_s
    return driven


def restarts(worker: Process) -> int:
    """How many of its processes were started in place of others."""
    return len(worker.events("started")) - WORKERS


def roll(cluster: Cluster, worker: Process, seconds: float, at_least: int) -> None:
    """Rolling restarts, one behind the other, for so long and until there have been so many."""
    ends_s = time.monotonic() + seconds
    rounds = 0

    def done() -> bool:
        return len(worker.events("restarted")) >= rounds

    while time.monotonic() < ends_s or restarts(worker) < at_least:
        worker.send(signal.SIGHUP)
        rounds += 1
        cluster.until(done, 120, "a round")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("rate", "seconds", "restarts_min", "rate_min"),
    [
        (300, 10.0, 4, 0.0),
        pytest.param(2_050, 60.0, 12, 2_000.0, marks=pytest.mark.nightly),
    ],
)
def test_a_rolling_restart_under_load_costs_nothing(
    cluster: Cluster,
    capsys: pytest.CaptureFixture[str],
    rate: int,
    seconds: float,
    restarts_min: int,
    rate_min: float,
) -> None:
    """Every job ends with one result, no budget is charged, and no result is taken twice."""
    flags = ("--processes", str(WORKERS))
    worker = cluster.start_worker("w", slots=SLOTS, app="tests.integration.counted", flags=flags)
    cluster.until(lambda: len(worker.events("registered")) >= WORKERS, 60, "all workers")

    async def main() -> tuple[Driven, int, dict[str, str]]:
        done = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            driving = tasks.create_task(drive(cluster.addresses, rate, done))
            try:
                await asyncio.to_thread(roll, cluster, worker, seconds, restarts_min)
            finally:
                done.set()
        async with AsyncClient(cluster.addresses) as client:
            charged = await client.count(filter="attempts_charged > 0 OR losses_charged > 0")
            handles = [await client.get(job_id, note) for job_id in again(runs_of(cluster))]
            kept = {
                handle.id: await handle.result()
                async for handle in client.as_completed(handles, timeout=120)
            }
        return driving.result(), sum(charged.values()), kept

    driven, charged, kept = asyncio.run(main())
    runs = runs_of(cluster)
    with capsys.disabled():
        print(  # noqa: T201 - the figures are to be seen
            f"\n{driven.submitted} jobs at {driven.rate:.0f}/s, {restarts(worker)} restarts, "
            f"{len(again(runs))} ran again"
        )
    lost = driven.submitted - len(driven.results)
    assert lost == 0
    assert charged == 0
    # Whatever ran twice, as its worker's last word did not arrive: the first result stays.
    assert {*kept} == {*again(runs)}
    assert kept == {job_id: driven.results[job_id] for job_id in kept}
    assert {*driven.results} == {*runs}
    assert restarts(worker) >= restarts_min
    assert driven.rate >= rate_min
    assert worker.events("crashed") == worker.events("restart_failed") == []
    worker.terminate()
    assert worker.wait_exit(60) == 0


def runs_of(cluster: Cluster) -> Counter[str]:
    """How often each job's code was run to its end."""
    folder = Path(cluster.environment[RUNS])
    return Counter(line for path in folder.iterdir() for line in path.read_text().split())


def again(runs: Counter[str]) -> list[str]:
    """Jobs that ran more than once."""
    return [job_id for job_id, count in runs.items() if count > 1]
