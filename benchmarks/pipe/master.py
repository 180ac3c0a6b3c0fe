"""The pipe's master: a heap between two streams, and a journal in front of every answer.

python -m benchmarks.pipe.master --store none|sqlite:///path|etcd://host:port
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
from collections.abc import Awaitable
from functools import partial
from itertools import islice
from typing import Any

import grpc.aio
import msgspec
import uvloop

from benchmarks.pipe import wire
from benchmarks.pipe.journal import open_journal
from tenure.v1 import common_pb2, jobs_pb2, worker_pb2

_COMPLETED = common_pb2.JOB_STATE_COMPLETED
_ACCEPTED = worker_pb2.VERDICT_ACCEPTED


class PipeMaster:
    """All state of the master. One client, one worker."""

    def __init__(self, journal: Any) -> None:
        self._journal = journal
        #: (place in the queue, ordinal, job id, payload)
        self._ready: list[tuple[int, int, str, bytes]] = []
        self._ordinal = 0
        #: Lease seq to job id.
        self._running: dict[int, str] = {}
        self._lease_seq = 0
        #: Job id to result, of all jobs that have ended.
        self._finished: dict[str, bytes] = {}
        self._watched: set[str] = set()
        self._options = [common_pb2.JobOptions()]
        self._token = common_pb2.Token(epoch=1, revision=1)
        self._credit_limit = 0
        self._granted = 0
        self._assignment = 0
        self._verdicts: list[worker_pb2.LeaseRef] = []
        self._results: list[tuple[str, bytes]] = []
        self._acks: list[jobs_pb2.StreamSubmitsResponse] = []
        self._wake_session = _nothing
        self._wake_results = _nothing
        self._wake_submits = _nothing

    # The client's two streams.

    async def submits(self, _: Any, context: Any) -> None:
        """Handles StreamSubmits."""
        sender = wire.Sender(context.write, self._next_ack)
        self._wake_submits = sender.wake

        async def read() -> None:
            while (raw := await context.read()) is not grpc.aio.EOF:
                message = jobs_pb2.StreamSubmitsRequest.FromString(raw)
                self._journal.append(raw, partial(self._accept, message))

        await _until_end(read(), sender)

    def _accept(self, message: jobs_pb2.StreamSubmitsRequest) -> None:
        request = message.request
        self._options = list(request.options)
        ids, ready, ordinal = [], self._ready, self._ordinal
        for spec in request.jobs:
            ordinal += 1
            job_id = spec.job_id
            ids.append(job_id)
            heapq.heappush(ready, (0, ordinal, job_id, spec.payload))
        self._ordinal = ordinal
        self._acks.append(
            jobs_pb2.StreamSubmitsResponse(
                number=message.number, response=jobs_pb2.SubmitJobsResponse(job_ids=ids)
            )
        )
        self._wake_submits()
        self._wake_session()

    def _next_ack(self) -> jobs_pb2.StreamSubmitsResponse | None:
        return self._acks.pop(0) if self._acks else None

    async def results(self, _: Any, context: Any) -> None:
        """Handles StreamResults."""
        sender = wire.Sender(context.write, self._next_results)
        self._wake_results = sender.wake

        async def read() -> None:
            while (raw := await context.read()) is not grpc.aio.EOF:
                ids = jobs_pb2.StreamResultsRequest.FromString(raw).job_ids
                finished = self._finished
                for job_id in ids:
                    if job_id in finished:
                        self._results.append((job_id, finished[job_id]))
                    else:
                        self._watched.add(job_id)
                sender.wake()

        await _until_end(read(), sender)

    def _next_results(self) -> jobs_pb2.StreamResultsResponse | None:
        if not self._results:
            return None
        rows = self._results[: wire.BATCH_ROWS]
        del self._results[: wire.BATCH_ROWS]
        message = jobs_pb2.StreamResultsResponse()
        add = message.results.add
        for job_id, result in rows:
            add(job_id=job_id, state=_COMPLETED, result=result, attempts=1)
        return message

    # The worker's stream.

    async def session(self, _: Any, context: Any) -> None:
        """Handles Session."""
        sender = wire.Sender(context.write, self._next_instruction)
        self._wake_session = sender.wake

        async def read() -> None:
            while (raw := await context.read()) is not grpc.aio.EOF:
                message = worker_pb2.SessionRequest.FromString(raw)
                if message.HasField("credit"):
                    self._credit_limit = message.credit.limit
                    sender.wake()
                if message.updates:
                    self._journal.append(raw, partial(self._finish, message))

        await _until_end(read(), sender)

    def _finish(self, message: worker_pb2.SessionRequest) -> None:
        running, finished, watched = self._running, self._finished, self._watched
        results, verdicts = self._results, self._verdicts
        for update in message.updates:
            for report in update.reports:
                lease = report.lease
                job_id = running.pop(lease.seq, None)
                if job_id is None:
                    continue
                result = report.result
                finished[job_id] = result
                verdicts.append(lease)
                if job_id in watched:
                    watched.discard(job_id)
                    results.append((job_id, result))
        self._wake_session()
        self._wake_results()

    def _next_instruction(self) -> worker_pb2.SessionResponse | None:
        count = min(len(self._ready), self._credit_limit - self._granted, wire.BATCH_ROWS)
        if count <= 0 and not self._verdicts:
            return None
        message = worker_pb2.SessionResponse()
        instruction = message.instructions.add(partition=0, token=self._token)
        if count > 0:
            self._grant(instruction.assignment, count)
        if self._verdicts:
            add = instruction.verdicts.add
            for lease in islice(self._verdicts, wire.BATCH_ROWS):
                add(lease=lease, verdict=_ACCEPTED)
            del self._verdicts[: wire.BATCH_ROWS]
        return message

    def _grant(self, assignment: worker_pb2.Assignment, count: int) -> None:
        self._assignment += 1
        assignment.number = self._assignment
        assignment.options.extend(self._options)
        add, pop, ready, running = assignment.grants.add, heapq.heappop, self._ready, self._running
        seq, ordinals = self._lease_seq, []
        for _ in range(count):
            _, ordinal, job_id, payload = pop(ready)
            seq += 1
            running[seq] = job_id
            ordinals.append(ordinal)
            add(job_id=job_id, seq=seq, attempt=1, payload=payload)
        self._lease_seq = seq
        self._granted += count
        self._journal.append(msgspec.msgpack.encode(ordinals), _nothing)


def _nothing() -> None:
    """Wakes nobody: there is no such stream yet, or nothing to say."""


async def _until_end(reading: Awaitable[None], sender: wire.Sender[Any]) -> None:
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(sender.run())
        await reading
        sending.cancel()


async def serve(store: str) -> None:
    """Serves until killed."""
    journal = open_journal(store)
    master = PipeMaster(journal)
    server = grpc.aio.server(options=wire.SERVER_OPTIONS)
    server.add_generic_rpc_handlers(
        (
            wire.service("JobService", StreamSubmits=master.submits, StreamResults=master.results),
            wire.service("WorkerService", Session=master.session),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"event": "serving", "address": f"127.0.0.1:{port}"}), flush=True)
    await journal.run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", required=True)
    uvloop.run(serve(parser.parse_args().store))
