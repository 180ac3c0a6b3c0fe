"""A stand-in for a master: grants one worker as much as its credit allows, and takes its word.

It has no store and no rules, so what is measured with it is the worker's. As a program it prints
JSON lines, and plays one of these, against the first worker that comes:

    python -m benchmarks.worker_stub flow JOB COUNT [--mark N]      as fast as the worker takes them
    python -m benchmarks.worker_stub hold JOB COUNT                 all at once
    python -m benchmarks.worker_stub cancel JOB COUNT               one by one, each cancelled
    python -m benchmarks.worker_stub kill JOB COUNT --timeout-ms N  one by one, each timed out
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import grpc.aio
import msgspec
import uvloop

from benchmarks import jobs, worker_jobs
from benchmarks.payload import encoded_checksum, payload
from benchmarks.pipe import wire
from tenure.client.codec import encode_args
from tenure.client.job import JobDef
from tenure.v1 import common_pb2, worker_pb2

_ACCEPTED: Final = worker_pb2.VERDICT_ACCEPTED
_TOKEN: Final = common_pb2.Token(epoch=1, revision=1)
#: Different payloads, with what their checksums come to.
_PAYLOADS: Final = 1_000
#: What a job that is to be stopped runs for, if it is not.
_LONG_S: Final = 600.0
#: Between a job's start and its cancel.
_SETTLE_S: Final = 0.02
#: How often a process is looked at.
_LOOK_S: Final = 0.001
_JOBS: Final[dict[str, JobDef[..., Any]]] = {
    found.name: found
    for module in (jobs, worker_jobs)
    for found in vars(module).values()
    if isinstance(found, JobDef)
}


class Stub:
    """The master's side of one session: what is to be granted, and what was heard."""

    def __init__(self, job: str, *, timeout_ms: int = 0) -> None:
        self.options = common_pb2.JobOptions(name=job)
        if timeout_ms:
            self.options.timeout.FromMilliseconds(timeout_ms)
        #: Arguments of jobs that wait to be granted, encoded.
        self.waiting: Iterator[bytes] = iter(())
        self.granted = 0
        self.started = 0
        #: What reports came to, by the lease's number, for who wants to know.
        self.reports: dict[int, worker_pb2.Report] = {}
        self.reported = 0
        self.on_reports: Callable[[list[worker_pb2.Report]], None] = self._keep
        self.news = asyncio.Event()
        self.cancels: list[worker_pb2.LeaseRef] = []
        self.hello = asyncio.Event()
        self._limit = 0
        self._assignment = 0
        self._said: list[worker_pb2.SessionResponse] = []
        self._verdicts: list[worker_pb2.LeaseRef] = []
        self._sender: wire.Sender[Any] = wire.Sender(self._nowhere, self._next)

    async def session(self, _: Any, context: Any) -> None:
        """Handles the worker's stream."""
        self._sender = wire.Sender(context.write, self._next)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._sender.run())
            while (raw := await context.read()) is not grpc.aio.EOF:
                self._hear(worker_pb2.SessionRequest.FromString(raw))
            sending.cancel()

    def wake(self) -> None:
        """There is something to say."""
        self._sender.wake()

    def _keep(self, reports: list[worker_pb2.Report]) -> None:
        self.reports.update((report.lease.seq, report) for report in reports)

    async def _nowhere(self, _: object) -> None:
        raise RuntimeError("expected a worker to have come")

    def _hear(self, said: worker_pb2.SessionRequest) -> None:
        if said.HasField("hello"):
            answer = worker_pb2.SessionResponse()
            answer.welcome.master = "stub"
            answer.welcome.lease_ttl.FromSeconds(15)
            answer.welcome.heartbeat_interval.FromSeconds(5)
            answer.opened.add(partition=0, token=_TOKEN)
            self._said.append(answer)
            self.hello.set()
        if said.HasField("credit"):
            self._limit = said.credit.limit
            self._said.append(worker_pb2.SessionResponse(credit_acked=said.credit.number))
        for update in said.updates:
            if update.HasField("heartbeat"):
                answer = worker_pb2.SessionResponse()
                ack = answer.instructions.add(partition=0, token=_TOKEN).heartbeat_ack
                ack.number = update.heartbeat.number
                self._said.append(answer)
            self.started += len(update.started)
            if update.reports:
                self._verdicts.extend([report.lease for report in update.reports])
                self.reported += len(update.reports)
                self.on_reports(list(update.reports))
        self.news.set()
        self._sender.wake()

    def _next(self) -> worker_pb2.SessionResponse | None:
        if self._said:
            return self._said.pop(0)
        message = worker_pb2.SessionResponse()
        instruction = message.instructions.add(partition=0, token=_TOKEN)
        some = self._grant(instruction)
        if self._verdicts:
            add = instruction.verdicts.add
            for lease in self._verdicts[: wire.BATCH_ROWS]:
                add(lease=lease, verdict=_ACCEPTED)
            del self._verdicts[: wire.BATCH_ROWS]
            some = True
        if self.cancels:
            instruction.cancels.extend(self.cancels)
            self.cancels.clear()
            some = True
        return message if some else None

    def _grant(self, instruction: worker_pb2.PartitionInstruction) -> bool:
        count = min(self._limit - self.granted, wire.BATCH_ROWS)
        if count <= 0:
            return False
        payloads = list(islice(self.waiting, count))
        if not payloads:
            return False
        self._assignment += 1
        assignment = instruction.assignment
        assignment.number = self._assignment
        assignment.options.append(self.options)
        add, seq = assignment.grants.add, self.granted
        for data in payloads:
            seq += 1
            add(job_id=job_id(seq), seq=seq, attempt=1, payload=data)
        self.granted = seq
        return True

    async def until(self, done: Callable[[], bool]) -> None:
        """Waits for the worker to have said something."""
        while not done():
            self.news.clear()
            await self.news.wait()


def job_id(number: int) -> str:
    """An id of partition 0."""
    return f"018f0000-0000-7000-8000-{number:012x}"


def say(event: str, **fields: object) -> None:
    """Tells the measurement."""
    print(json.dumps({"event": event, **fields}), flush=True)


async def flow(stub: Stub, job: JobDef[..., Any], count: int, mark: int) -> None:
    """Says when each ``mark`` jobs have been reported, with the time, and how many were wrong."""
    data = [encode_args(job, (payload(number),), {}) for number in range(_PAYLOADS)]
    right = [encoded_checksum(payload(number)) for number in range(_PAYLOADS)]
    wrong, following = 0, mark

    def check(reports: list[worker_pb2.Report]) -> None:
        nonlocal wrong, following
        for report in reports:
            wrong += report.result != right[(report.lease.seq - 1) % _PAYLOADS]
        while stub.reported >= following:
            say("mark", jobs=following, at_s=time.monotonic(), wrong=wrong)
            following += mark

    stub.on_reports = check
    stub.waiting = (data[number % _PAYLOADS] for number in range(count))
    stub.wake()
    await stub.until(lambda: stub.reported >= count)


async def hold(stub: Stub, job: JobDef[..., Any], count: int) -> None:
    """Says when so many run at once."""
    stub.waiting = iter([encode_args(job, (_LONG_S,), {})] * count)
    stub.wake()
    await stub.until(lambda: stub.started >= count)
    say("held", jobs=count)


async def cancel(stub: Stub, job: JobDef[..., Any], count: int) -> None:
    """Says how many milliseconds it took until each job knew that it had been cancelled."""
    took_ms = []
    for _ in range(count):
        stub.waiting, number = iter([encode_args(job, (_LONG_S,), {})]), stub.granted + 1
        stub.wake()
        await stub.until(lambda number=number: stub.started >= number)  # type: ignore[misc]
        await asyncio.sleep(_SETTLE_S)
        stub.cancels.append(worker_pb2.LeaseRef(job_id=job_id(number), seq=number))
        sent_ns = time.monotonic_ns()
        stub.wake()
        await stub.until(lambda number=number: number in stub.reports)  # type: ignore[misc]
        heard_ns = msgspec.msgpack.decode(stub.reports[number].result, type=int)
        took_ms.append((heard_ns - sent_ns) / 1e6)
    say("cancelled", ms=took_ms)


async def kill(stub: Stub, job: JobDef[..., Any], count: int) -> None:
    """Says how many milliseconds each process lived from its job's first line on."""
    took_ms = []
    with tempfile.TemporaryDirectory(prefix="tenure-bench-") as folder:
        for number in range(1, count + 1):
            note = Path(folder, str(number))
            stub.waiting = iter([encode_args(job, (str(note),), {})])
            stub.wake()
            took_ms.append(await asyncio.to_thread(_lived_ms, note))
            await stub.until(lambda number=number: stub.reported >= number)  # type: ignore[misc]
    say("killed", ms=took_ms)


def _lived_ms(note: Path) -> float:
    """How long a process lives that notes who it is and when it begins; waits for its end."""
    while not note.exists():
        time.sleep(_LOOK_S)
    pid, began_ns = map(int, note.read_text().split())
    while _is_alive(pid):
        time.sleep(_LOOK_S)
    return (time.monotonic_ns() - began_ns) / 1e6


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def play(told: argparse.Namespace) -> None:
    """Serves until killed."""
    stub, job = Stub(told.job, timeout_ms=told.timeout_ms), _JOBS[told.job]
    server = grpc.aio.server(options=wire.SERVER_OPTIONS)
    server.add_generic_rpc_handlers((wire.service("WorkerService", Session=stub.session),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    say("serving", address=f"127.0.0.1:{port}")
    await stub.hello.wait()
    played: dict[str, Callable[[], Awaitable[None]]] = {
        "flow": lambda: flow(stub, job, told.count, told.mark or told.count),
        "hold": lambda: hold(stub, job, told.count),
        "cancel": lambda: cancel(stub, job, told.count),
        "kill": lambda: kill(stub, job, told.count),
    }
    await played[told.what]()
    await asyncio.Event().wait()


def main() -> None:
    """Plays what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("flow", "hold", "cancel", "kill"))
    parser.add_argument("job", choices=sorted(_JOBS))
    parser.add_argument("count", type=int)
    parser.add_argument("--mark", type=int, default=0)
    parser.add_argument("--timeout-ms", type=int, default=0)
    uvloop.run(play(parser.parse_args()))


if __name__ == "__main__":
    main()
