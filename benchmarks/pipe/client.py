"""The pipe's client: submits, waits for all results, checks each.

    python -m benchmarks.pipe.client --master HOST:PORT --jobs N

Prints `begin` before the first measured submit and `end` after the last result.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import deque
from typing import Any, Final

import grpc.aio
import uvloop

from benchmarks.payload import encoded_checksum, payload
from benchmarks.pipe import wire
from tenure.protocol.ids import mint
from tenure.v1 import common_pb2, jobs_pb2

#: Jobs that may be unfinished at once.
WINDOW: Final = 8192
WARM_UP_JOBS: Final = 5_000


class PipeClient:
    """Two streams, and the results that are still expected."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._submit_call = wire.open_stream(channel, wire.SUBMITS, jobs_pb2.StreamSubmitsResponse)
        self._result_call = wire.open_stream(channel, wire.RESULTS, jobs_pb2.StreamResultsResponse)
        self._submits: wire.Sender[Any] = wire.Sender(self._submit_call.write, self._next_submits)
        self._asks: wire.Sender[Any] = wire.Sender(self._result_call.write, self._next_ask)
        self._options = common_pb2.JobOptions(name="bench", queue="default", tenant="default")
        self._next_job = 0
        self._last_job = 0
        self._number = 0
        self._unanswered: deque[jobs_pb2.StreamResultsRequest] = deque()
        #: Job id to the result it must have.
        self._expected: dict[str, bytes] = {}
        self._all_done = asyncio.Event()

    async def run(self, jobs: int) -> None:
        """Submits this many jobs and returns when all results have come."""
        self._last_job += jobs
        self._all_done.clear()
        self._submits.wake()
        await self._all_done.wait()

    async def read_and_write(self) -> None:
        """Keeps both streams going until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._submits.run())
            group.create_task(self._asks.run())
            group.create_task(self._read_acks())
            group.create_task(self._read_results())

    def _next_submits(self) -> jobs_pb2.StreamSubmitsRequest | None:
        room = WINDOW - len(self._expected)
        count = min(self._last_job - self._next_job, wire.BATCH_ROWS)
        if count <= 0 or room < wire.BATCH_ROWS:
            return None
        self._number += 1
        message = jobs_pb2.StreamSubmitsRequest(number=self._number)
        message.request.options.append(self._options)
        add, expected = message.request.jobs.add, self._expected
        now_ms, bits = time.time_ns() // 1_000_000, random.getrandbits
        for number in range(self._next_job, self._next_job + count):
            data = payload(number)
            job_id = mint(0, now_ms, bits(62))
            expected[job_id] = encoded_checksum(data)
            add(job_id=job_id, payload=data)
        self._next_job += count
        return message

    async def _read_acks(self) -> None:
        while (message := await self._submit_call.read()) is not grpc.aio.EOF:
            self._unanswered.append(jobs_pb2.StreamResultsRequest(job_ids=message.response.job_ids))
            self._asks.wake()
        raise RuntimeError("expected the master to keep the stream of submits open")

    def _next_ask(self) -> jobs_pb2.StreamResultsRequest | None:
        return self._unanswered.popleft() if self._unanswered else None

    async def _read_results(self) -> None:
        expected = self._expected
        while (message := await self._result_call.read()) is not grpc.aio.EOF:
            for row in message.results:
                if expected.pop(row.job_id, None) != row.result:
                    raise RuntimeError(f"job {row.job_id} came twice or with a wrong result")
            self._submits.wake()
            if not expected and self._next_job == self._last_job:
                self._all_done.set()
        raise RuntimeError("expected the master to keep the stream of results open")


def say(event: str, **fields: object) -> None:
    """Prints one line for the harness."""
    print(json.dumps({"event": event, **fields}), flush=True)


async def measure(address: str, jobs: int) -> None:
    """Warms up, then runs the measured jobs."""
    async with grpc.aio.insecure_channel(address, wire.CLIENT_OPTIONS) as channel:
        client = PipeClient(channel)
        async with asyncio.TaskGroup() as group:
            streams = group.create_task(client.read_and_write())
            await client.run(WARM_UP_JOBS)
            say("begin")
            began = time.perf_counter()
            await client.run(jobs)
            say("end", seconds=time.perf_counter() - began, jobs=jobs)
            streams.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--master", required=True)
    parser.add_argument("--jobs", type=int, required=True)
    arguments = parser.parse_args()
    uvloop.run(measure(arguments.master, arguments.jobs))
