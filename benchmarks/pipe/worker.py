"""The pipe's worker: runs what it is granted, at once and in order.

python -m benchmarks.pipe.worker --master HOST:PORT
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any, Final

import grpc.aio
import uvloop

from benchmarks.payload import encoded_checksum
from benchmarks.pipe import wire
from tenure.v1 import common_pb2, worker_pb2

#: Jobs that may be on their way to the worker or in it.
SLOTS: Final = 1024

_COMPLETED = common_pb2.ATTEMPT_OUTCOME_COMPLETED


class PipeWorker:
    """What was granted and is not reported yet."""

    def __init__(self) -> None:
        self._grants: list[worker_pb2.Grant] = []
        self._accepted = 0
        self._credit = SLOTS
        self._credit_number = 0
        self._hello = True
        self._token = common_pb2.Token()

    def take(self, message: worker_pb2.SessionResponse) -> bool:
        """Keeps the grants of a message; True if there were any."""
        for instruction in message.instructions:
            if instruction.HasField("assignment"):
                self._token = instruction.token
                self._accepted = instruction.assignment.number
                self._grants.extend(instruction.assignment.grants)
        return bool(self._grants)

    def next_message(self) -> worker_pb2.SessionRequest | None:
        """Runs what waits and reports it, with as much new credit."""
        if self._hello:
            self._hello = False
            return worker_pb2.SessionRequest(
                hello=worker_pb2.Hello(name="pipe", slots=SLOTS), credit=self._limit(0)
            )
        if not self._grants:
            return None
        rows = self._grants[: wire.BATCH_ROWS]
        del self._grants[: wire.BATCH_ROWS]
        message = worker_pb2.SessionRequest(credit=self._limit(len(rows)))
        update = message.updates.add(
            partition=0, token=self._token, accepted_assignment=self._accepted
        )
        add = update.reports.add
        for grant in rows:
            report = add(outcome=_COMPLETED, result=encoded_checksum(grant.payload))
            lease = report.lease
            lease.job_id = grant.job_id
            lease.seq = grant.seq
        return message

    def _limit(self, more: int) -> worker_pb2.CreditLimit:
        self._credit += more
        self._credit_number += 1
        return worker_pb2.CreditLimit(number=self._credit_number, limit=self._credit)


async def work(address: str) -> None:
    """Serves one master until it is gone."""
    worker = PipeWorker()
    async with grpc.aio.insecure_channel(address, wire.CLIENT_OPTIONS) as channel:
        call = wire.open_stream(channel, wire.SESSION, worker_pb2.SessionResponse)
        sender: wire.Sender[Any] = wire.Sender(call.write, worker.next_message)
        sender.wake()
        print(json.dumps({"event": "registered", "master": address}), flush=True)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(sender.run())
            while (message := await call.read()) is not grpc.aio.EOF:
                if worker.take(message):
                    sender.wake()
            sending.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--master", required=True)
    uvloop.run(work(parser.parse_args().master))
