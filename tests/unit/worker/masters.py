"""A master in memory: one stream of the transport port, driven by the test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from tenure.client.transport import Stream
from tenure.protocol.errors import Unavailable
from tenure.protocol.fence import Token
from tenure.protocol.ids import mint
from tenure.v1 import cluster_pb2, common_pb2, worker_pb2

M = TypeVar("M", bound=Message)
TOKEN = Token(1, 100)


def job_id(number: int, partition: int = 0) -> str:
    """A readable job id."""
    return mint(partition, 1_800_000_000_000, number)


def wire(token: Token) -> common_pb2.Token:
    """A token as a message."""
    return common_pb2.Token(epoch=token.epoch, revision=token.revision)


class FakeStream:
    """One open call, seen from both ends."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.requests: asyncio.Queue[worker_pb2.SessionRequest] = asyncio.Queue()
        self.broken = asyncio.Event()
        self._responses: asyncio.Queue[worker_pb2.SessionResponse | None] = asyncio.Queue()

    # The worker's end.

    async def send(self, message: Any) -> None:
        if self.broken.is_set():
            raise self._gone()
        copy = worker_pb2.SessionRequest()
        copy.CopyFrom(message)
        self.requests.put_nowait(copy)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            said = await self._responses.get()
            if self.broken.is_set():
                raise self._gone()
            if said is None:
                return
            yield said

    async def close_sending(self) -> None:
        self.end()

    def cancel(self) -> None:
        self.broken.set()
        self.end()

    def _gone(self) -> Unavailable:
        return Unavailable(f"expected to reach {self.address}, but the stream broke")

    # The master's end.

    def say(self, said: worker_pb2.SessionResponse) -> None:
        """Sends an envelope to the worker."""
        self._responses.put_nowait(said)

    def end(self) -> None:
        """Ends the stream cleanly."""
        self._responses.put_nowait(None)


class FakeMaster:
    """Welcomes a worker, leads partition 0 and grants what the test says.

    It keeps books of all that the worker says: ``reports`` by job id, ``returned``, ``started``,
    ``heartbeats``, the credit left. With ``judging`` it answers each heartbeat and report at once.
    """

    def __init__(self, stream: FakeStream, *, token: Token = TOKEN) -> None:
        self.stream = stream
        self.token = token
        self.judging = True
        self.hello: worker_pb2.Hello | None = None
        self.reports: dict[str, worker_pb2.Report] = {}
        self.reports_count = 0
        self.returned: list[str] = []
        self.started: list[str] = []
        self.heartbeats: list[worker_pb2.Heartbeat] = []
        self.declared: list[worker_pb2.LeaseSet] = []
        self.goodbye: str | None = None
        self.limit = 0
        self.granted = 0
        self._seq = 0
        self._assignment = 0

    @property
    def credit(self) -> int:
        """Grants that the worker would take now."""
        return self.limit - self.granted

    def welcome(
        self, name: str = "m1", *, lease_ttl_ms: int = 15_000, heartbeat_ms: int = 5_000
    ) -> None:
        """Welcomes the worker and opens partition 0."""
        said = worker_pb2.SessionResponse(
            opened=[worker_pb2.PartitionOpened(partition=0, token=wire(self.token))]
        )
        said.welcome.master = name
        said.welcome.lease_ttl.FromMilliseconds(lease_ttl_ms)
        said.welcome.heartbeat_interval.FromMilliseconds(heartbeat_ms)
        self.stream.say(said)

    def instruct(self, **parts: Any) -> None:
        """Says something of partition 0."""
        instruction = worker_pb2.PartitionInstruction(partition=0, token=wire(self.token), **parts)
        self.stream.say(worker_pb2.SessionResponse(instructions=[instruction]))

    def grant(self, *jobs: tuple[str, str, bytes], **options: Any) -> list[worker_pb2.LeaseRef]:
        """Grants jobs given as (id, name, payload), with the same further options."""
        self._assignment += 1
        assignment = worker_pb2.Assignment(number=self._assignment)
        refs = []
        for index, (number, name, payload) in enumerate(jobs):
            self._seq += 1
            assignment.options.append(common_pb2.JobOptions(name=name, **options))
            assignment.grants.add(
                job_id=number, seq=self._seq, attempt=1, options=index, payload=payload
            )
            refs.append(worker_pb2.LeaseRef(job_id=number, seq=self._seq))
        self.granted += len(jobs)
        self.instruct(assignment=assignment)
        return refs

    async def listen(self) -> None:
        """Takes the worker's next envelope into the books."""
        request = await self.stream.requests.get()
        if request.HasField("hello"):
            self.hello = request.hello
        if request.HasField("credit"):
            self.limit = request.credit.limit
            self.stream.say(worker_pb2.SessionResponse(credit_acked=request.credit.number))
        if request.HasField("goodbye"):
            self.goodbye = request.goodbye.reason
        for update in request.updates:
            self._take(update)

    async def until(self, done: Callable[[], object]) -> None:
        """Listens until something is so."""
        while not done():
            await self.listen()

    def _take(self, update: worker_pb2.PartitionUpdate) -> None:
        if update.HasField("declare"):
            self.declared.append(update.declare)
        self.started.extend(ref.job_id for ref in update.started)
        self.returned.extend(ref.job_id for ref in update.returned)
        for report in update.reports:
            self.reports[report.lease.job_id] = report
            self.reports_count += 1
        if update.HasField("heartbeat"):
            self.heartbeats.append(update.heartbeat)
        if not self.judging:
            return
        if update.HasField("heartbeat"):
            self.instruct(heartbeat_ack=worker_pb2.HeartbeatAck(number=update.heartbeat.number))
        if update.reports:
            accepted = worker_pb2.VERDICT_ACCEPTED
            self.instruct(
                verdicts=[
                    worker_pb2.ReportVerdict(lease=report.lease, verdict=accepted)
                    for report in update.reports
                ]
            )


class FakeNetwork:
    """The transport port: every stream that a worker opens comes to the test."""

    def __init__(self) -> None:
        self.streams: asyncio.Queue[FakeStream] = asyncio.Queue()
        self.topology = cluster_pb2.GetTopologyResponse()
        self.forgotten: list[str] = []

    async def unary(
        self, address: str, method: str, request: Message, response_type: type[M], timeout_s: float
    ) -> M:
        response = response_type()
        response.CopyFrom(self.topology)
        return response

    def stream(self, address: str, method: str, response_type: type[M]) -> Stream[Message, M]:
        stream = FakeStream(address)
        self.streams.put_nowait(stream)
        return stream

    def forget(self, address: str) -> None:
        self.forgotten.append(address)

    async def close(self) -> None:
        pass

    async def accept(self, *, token: Token = TOKEN) -> FakeMaster:
        """The master that gets the next stream."""
        return FakeMaster(await self.streams.get(), token=token)
