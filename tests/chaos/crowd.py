"""Many workers in one process: the shipped sessions, each with connections and slots of its own.

``python -m tests.chaos.crowd --master A[,B] --name crowd-1 --workers 500``. Their jobs are
coroutines of the process's own loop, so that a thousand workers need no thousand processes. It says
how many sessions it has opened so far, notes each dial in a file, and drains on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import signal
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
from google.protobuf.message import Message

from tenure.client.channel import GrpcStream, GrpcTransport
from tenure.protocol import loop
from tenure.testing.executor import LoopExecutor
from tenure.worker.app import load
from tenure.worker.attempt import JobTable
from tenure.worker.clock import SystemClock
from tenure.worker.config import WorkerConfig
from tenure.worker.port import Executor
from tenure.worker.runtime import WorkerNode, introduction
from tests.oracles.history import boottime_ms

M = TypeVar("M", bound=Message)

_SAY_EVERY = 50
_DRAIN_MS = 30_000
#: They come one after another, as machines do: it is their coming back that is tried.
_START_EVERY_MS = 20


class Dial(NamedTuple):
    """One worker dialled one master (boot clock, ms)."""

    at_ms: float
    worker: str
    address: str


def read_dials(path: Path) -> list[Dial]:
    """What a crowd noted, in order; it writes when it has ended."""
    return msgspec.json.decode(path.read_bytes(), type=list[Dial])


class NotingTransport(GrpcTransport):
    """gRPC, with a note of each session that is dialled."""

    def __init__(self, worker: str, dials: list[Dial]) -> None:
        super().__init__()
        self._worker = worker
        self._dials = dials

    def stream(self, address: str, method: str, response_type: type[M]) -> GrpcStream[M]:
        self._dials.append(Dial(boottime_ms(), self._worker, address))
        return super().stream(address, method, response_type)


class Crowd:
    """The workers of one process.

    Args:
        name: Of the process; a worker's is this and a number.
        masters: Their addresses.
        workers: How many.
        slots: Of each.
        jobs: What they serve.
    """

    def __init__(
        self, name: str, masters: list[str], *, workers: int, slots: int, jobs: JobTable
    ) -> None:
        self.dials: list[Dial] = []
        self._configs = [
            WorkerConfig(
                app="tests.chaos.app", masters=masters, name=f"{name}.{number}", slots=slots
            )
            for number in range(workers)
        ]
        self._jobs = jobs
        self._nodes: list[WorkerNode] = []
        self._opened = 0

    async def run(self) -> None:
        """Works until ``drain`` is done."""
        async with asyncio.TaskGroup() as group:
            for number, config in enumerate(self._configs):
                group.create_task(self._work(config, number * _START_EVERY_MS, group))

    def drain(self) -> None:
        """All finish what they run, and end."""
        for node in self._nodes:
            node.drain()

    async def _work(self, config: WorkerConfig, after_ms: int, group: asyncio.TaskGroup) -> None:
        clock = SystemClock()
        await clock.sleep(after_ms)

        def make_executor(wake: Callable[[], None]) -> Executor:
            return LoopExecutor(
                self._jobs,
                config.slots,
                clock=clock,
                spawn=lambda work, name: group.create_task(work, name=name),
                wake=wake,
            )

        transport = NotingTransport(config.name, self.dials)
        node = WorkerNode(
            introduction(config, self._jobs, str(uuid.uuid4())),
            config.masters,
            transport=transport,
            clock=clock,
            rng=random.Random(),
            make_executor=make_executor,
            drain_timeout_ms=_DRAIN_MS,
            announce=self._announce,
        )
        self._nodes.append(node)
        try:
            await node.run()
        finally:
            await transport.close()

    def _announce(self, event: str, fields: Mapping[str, Any]) -> None:
        if event == "registered":
            self._opened += 1
            if self._opened % _SAY_EVERY == 0:
                line = {"event": "crowd", "opened": self._opened}
                print(json.dumps(line), flush=True)  # noqa: T201 - the test reads its stdout


async def main() -> None:
    """Runs the crowd that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--master", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--dials", type=Path, required=True, help="where to note them")
    flags = parser.parse_args()
    # One line for each worker and master that is gone would bury the rest.
    logging.getLogger("tenure.worker.link").setLevel(logging.ERROR)
    crowd = Crowd(
        flags.name,
        flags.master.split(","),
        workers=flags.workers,
        slots=flags.slots,
        jobs=load("tests.chaos.app"),
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, crowd.drain)
    try:
        await crowd.run()
    finally:
        flags.dials.write_bytes(msgspec.json.encode(crowd.dials))


if __name__ == "__main__":
    loop.run(main())
