"""Records a worker's streams: a real worker and real masters in one process on virtual time.

What happens to the worker, in order: jobs of all kinds, a cancel, the death of the leader, a cut
from all masters for longer than a lease lives (its jobs run elsewhere; it reports too late), and a
drain in the middle of a job.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

from google.protobuf.message import Message

from tenure.client import AsyncClient, JobCancelled, JobFailed, JobState
from tenure.client.transport import Transport
from tenure.testing.clock import SimClock
from tenure.testing.cluster import SimCluster, simulated_cluster
from tenure.testing.executor import LoopExecutor
from tenure.testing.process import elapse, run_processes
from tenure.worker.config import WorkerConfig
from tenure.worker.link import METHOD
from tenure.worker.port import Executor
from tenure.worker.runtime import WorkerNode, introduction
from tests.histories.app import JOBS, broken, flaky, steady
from tests.histories.archive import Entry, Kind

#: The recorded worker: its name, and its place on the network.
NAME = "recorded"
SLOTS = 4
#: Longer than a lease lives, and than what its jobs had left to do.
CUT_S = 40.0
HOLD_S = 25.0


class Transcript:
    """Collects what happens on a worker's streams.

    Args:
        batches: How many batches the journal has now.
    """

    def __init__(self, batches: Callable[[], int]) -> None:
        self.entries: list[Entry] = []
        self._batches = batches
        self._clock = SimClock()
        self._streams = 0

    def open(self, address: str) -> int:
        """A stream was dialled; its number."""
        self._streams += 1
        self.note(self._streams, "opened", address=address)
        return self._streams

    def note(
        self, stream: int, kind: Kind, message: Message | None = None, *, address: str = ""
    ) -> None:
        """Something happened now."""
        entry = Entry(
            at_ms=self._clock.boot_ms(),
            stream=stream,
            kind=kind,
            address=address,
            message=b"" if message is None else message.SerializeToString(deterministic=True),
            batches=self._batches(),
        )
        self.entries.append(entry)


class RecordingTransport:
    """A transport that notes all that goes over a worker's streams."""

    def __init__(self, inner: Transport, transcript: Transcript) -> None:
        self._inner = inner
        self._transcript = transcript

    async def unary(
        self,
        address: str,
        method: str,
        request: Message,
        response_type: type[Any],
        timeout_s: float,
    ) -> Any:
        return await self._inner.unary(address, method, request, response_type, timeout_s)

    def stream(self, address: str, method: str, response_type: type[Any]) -> Any:
        stream = self._inner.stream(address, method, response_type)
        if method != METHOD:
            return stream
        return _RecordingStream(stream, self._transcript, self._transcript.open(address))

    def forget(self, address: str) -> None:
        self._inner.forget(address)

    async def close(self) -> None:
        await self._inner.close()


class _RecordingStream:
    def __init__(self, inner: Any, transcript: Transcript, number: int) -> None:
        self._inner = inner
        self._transcript = transcript
        self._number = number
        self._open = True

    async def send(self, message: Message) -> None:
        self._transcript.note(self._number, "up", message)
        await self._inner.send(message)

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for message in self._inner:
            self._transcript.note(self._number, "down", message)
            yield message

    async def close_sending(self) -> None:
        await self._inner.close_sending()

    def cancel(self) -> None:
        self._inner.cancel()
        if self._open:
            self._open = False
            self._transcript.note(self._number, "closed")


def record_session() -> tuple[list[Entry], list[bytes]]:
    """The transcript of a worker's streams, and all batches of the journal behind them."""
    return run_processes(_record)


async def _record() -> tuple[list[Entry], list[bytes]]:
    async with simulated_cluster(seed=1, jobs=JOBS, masters=2, workers=1, slots=SLOTS) as cluster:
        transcript = Transcript(lambda: len(cluster.journal()))
        async with asyncio.TaskGroup() as group:
            worker = _worker(cluster, transcript, group)
            working = group.create_task(worker.run())
            await _live(cluster)
            worker.drain()
            await working
        return transcript.entries, cluster.journal()


def _worker(cluster: SimCluster, transcript: Transcript, group: asyncio.TaskGroup) -> WorkerNode:
    config = WorkerConfig(app="histories", masters=cluster.addresses, name=NAME, slots=SLOTS)
    clock = SimClock()
    jobs = {job.name: job for job in JOBS}

    def make_executor(wake: Callable[[], None]) -> Executor:
        return LoopExecutor(
            jobs,
            SLOTS,
            clock=clock,
            spawn=lambda work, name: group.create_task(work, name=name),
            wake=wake,
        )

    rng = Random(1)
    return WorkerNode(
        introduction(config, jobs, str(uuid.UUID(int=rng.getrandbits(128), version=4))),
        config.masters,
        transport=RecordingTransport(cluster.network.transport(NAME), transcript),
        clock=clock,
        rng=rng,
        make_executor=make_executor,
        drain_timeout_ms=1_000,
        announce=lambda event, fields: None,
    )


async def _live(cluster: SimCluster) -> None:
    """All that the transcript is to show, up to the drain."""
    client = cluster.client()
    leader = await cluster.elected()
    await _work(client)
    await _cancel(client)
    # The leader dies: running jobs are adopted by its successor.
    running = [await client.submit(steady, f"adopted {number}", HOLD_S) for number in range(6)]
    await elapse(1)
    leader.kill()
    for handle in running:
        await handle.result()
    cluster.restart_dead()
    # Cut off, the worker's leases expire; what it ran is run elsewhere, and it reports too late.
    running = [await client.submit(steady, f"superseded {number}", HOLD_S) for number in range(6)]
    await elapse(1)
    for address in cluster.addresses:
        cluster.network.split([NAME], [address])
    await elapse(CUT_S)
    cluster.network.heal_all()
    for handle in running:
        await handle.result()
    await _work(client)
    # Drained with jobs that take longer than it waits: they are handed back.
    for number in range(6):
        await client.submit(steady, f"handed back {number}", HOLD_S)
    await elapse(1)


async def _work(client: AsyncClient) -> None:
    handles: list[Any] = [await client.submit(steady, f"job {n}", 0.01 * n) for n in range(16)]
    handles += [await client.submit(flaky, failures) for failures in (1, 1, 2, 9)]
    handles += [await client.submit(broken, f"reason {number}") for number in range(3)]
    for handle in handles:
        try:
            await handle.result()
        except JobFailed:
            continue


async def _cancel(client: AsyncClient) -> None:
    handles = [await client.submit(steady, f"cancelled {number}", 60.0) for number in range(6)]
    for handle in handles:
        while await handle.status() is not JobState.RUNNING:
            await elapse(0.1)
    for handle in handles:
        await handle.cancel("not needed")
    for handle in handles:
        try:
            await handle.result()
        except JobCancelled:
            continue
