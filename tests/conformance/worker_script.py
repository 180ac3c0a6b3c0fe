"""A master that follows a script: it says what a test tells it to, and keeps what a worker says.

It knows no jobs and no store, so that a worker in any language can be held to the protocol alone.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import grpc
import msgspec

from tenure.protocol.ids import mint
from tenure.v1 import common_pb2, worker_pb2

#: Short, so that what is sent again comes soon; the worker's deadline is a second before its end.
LEASE_TTL_S = 3
HEARTBEAT_MS = 100
#: Long enough for a slow machine; nothing here should need a tenth of it.
PATIENCE_S = 20.0
PARTITION = 3

_STARTED_MS = 1_760_000_000_000


def token(revision: int, epoch: int = 1) -> common_pb2.Token:
    """A token."""
    return common_pb2.Token(epoch=epoch, revision=revision)


def grant(
    number: int, *, options: int = 0, text: str = "", hold_s: float = 0.0
) -> worker_pb2.Grant:
    """A grant of a job that is called with a text, and a time that it takes."""
    return worker_pb2.Grant(
        job_id=mint(PARTITION, _STARTED_MS, number),
        seq=number,
        attempt=1,
        options=options,
        payload=msgspec.msgpack.encode(([text, hold_s] if hold_s else [text], {})),
    )


class Session:
    """One stream of the worker.

    Attributes:
        hello: How it introduced itself.
        limit: The credit that it gave in all.
        credits: The numbers of its limits.
        declared: The leases of its declarations, one list for each.
        beats: Its heartbeats.
        accepted: The last assignment that it accepted.
        started: Jobs of leases that it said have started.
        returned: Jobs of leases that it handed back.
        reports: What it reported, repeats included.
        goodbye: Whether it said so.
        ended: Whether it ended the stream.
    """

    def __init__(self) -> None:
        self.hello = worker_pb2.Hello()
        self.limit = 0
        self.credits: list[int] = []
        self.declared: list[list[worker_pb2.HeldLease]] = []
        self.beats: list[worker_pb2.Heartbeat] = []
        self.accepted = 0
        self.started: list[str] = []
        self.returned: list[str] = []
        self.reports: list[worker_pb2.Report] = []
        self.goodbye = False
        self.ended = False
        self.token = token(0)
        #: Answer heartbeats by acks, by holds, or not at all.
        self.answers: str = "ack"
        self._inbox: queue.Queue[worker_pb2.SessionRequest | None] = queue.Queue()
        self._outbox: queue.Queue[worker_pb2.SessionResponse | None] = queue.Queue()

    # What the script does.

    def until(self, true: Callable[[], object], what: str) -> None:
        """Takes in what the worker says until something is true.

        Raises:
            AssertionError: It does not become true in time.
        """
        while not true():
            try:
                said = self._inbox.get(timeout=PATIENCE_S)
            except queue.Empty:
                raise AssertionError(f"expected {what}; so far: {vars(self)}") from None
            if said is None:
                self.ended = True
                if not true():
                    raise AssertionError(f"expected {what}, but the stream ended: {vars(self)}")
                return
            self._take(said)

    def open(self, revision: int) -> None:
        """Opens the partition under a token, and waits until the worker has declared itself."""
        self.token = token(revision)
        opened = worker_pb2.PartitionOpened(partition=PARTITION, token=self.token)
        self.say(worker_pb2.SessionResponse(opened=[opened]))
        self.until(lambda: self.declared and self.limit, "a declaration and credit")

    def instruct(self, *, under: common_pb2.Token | None = None, **parts: Any) -> None:
        """Says something about the partition."""
        own = under or self.token
        part = worker_pb2.PartitionInstruction(partition=PARTITION, token=own, **parts)
        self.say(worker_pb2.SessionResponse(instructions=[part]))

    def assign(self, number: int, *grants: worker_pb2.Grant, job: str = "echo") -> None:
        """Grants jobs."""
        options = common_pb2.JobOptions(name=job, content_type="application/msgpack")
        self.instruct(
            assignment=worker_pb2.Assignment(number=number, options=[options], grants=grants)
        )

    def judge(self, report: worker_pb2.Report, verdict: worker_pb2.Verdict) -> None:
        """Answers a report."""
        self.instruct(verdicts=[worker_pb2.ReportVerdict(lease=report.lease, verdict=verdict)])

    def ref(self, granted: worker_pb2.Grant) -> worker_pb2.LeaseRef:
        """The lease of a grant, as a message under its own token names it."""
        return worker_pb2.LeaseRef(job_id=granted.job_id, seq=granted.seq, run=granted.run)

    def say(self, response: worker_pb2.SessionResponse) -> None:
        """Sends an envelope."""
        self._outbox.put(response)

    def clear_up(self) -> None:
        """Lets the worker forget every lease: all are lost, and all reports are judged."""
        self.answers = "ack"
        rows = list(self.next_beat().held.leases)
        self.instruct(revokes=[worker_pb2.Revoke(lease=row.lease, reason="over") for row in rows])
        self.until(
            lambda: {row.lease.job_id for row in rows} <= {r.lease.job_id for r in self.reports},
            "reports of all that was held",
        )
        for report in self.reports:
            self.judge(report, worker_pb2.VERDICT_SUPERSEDED)
        self.next_beat()
        self.until(lambda: not self.held(), "no lease held")

    def hang_up(self) -> None:
        """Ends the stream, as a master does that dies in order."""
        self._outbox.put(None)

    def next_beat(self) -> worker_pb2.Heartbeat:
        """A heartbeat that is yet to come."""
        seen = len(self.beats)
        self.until(lambda: len(self.beats) > seen + 1, "two more heartbeats")
        return self.beats[-1]

    def held(self) -> set[str]:
        """The jobs whose leases the last heartbeat lists."""
        return {row.lease.job_id for row in self.beats[-1].held.leases}

    # What the worker says.

    def _take(self, said: worker_pb2.SessionRequest) -> None:
        if said.HasField("credit"):
            self.limit = said.credit.limit
            self.credits.append(said.credit.number)
            self.say(worker_pb2.SessionResponse(credit_acked=said.credit.number))
        for update in said.updates:
            if update.partition == PARTITION and update.token == self.token:
                self._update(update)
        self.goodbye = self.goodbye or said.HasField("goodbye")

    def _update(self, update: worker_pb2.PartitionUpdate) -> None:
        if update.HasField("declare"):
            self.declared.append(list(update.declare.leases))
        self.accepted = max(self.accepted, update.accepted_assignment)
        self.started += [ref.job_id for ref in update.started]
        self.returned += [ref.job_id for ref in update.returned]
        self.reports += update.reports
        if update.HasField("heartbeat"):
            self.beats.append(update.heartbeat)
            number = update.heartbeat.number
            if self.answers == "ack":
                self.instruct(heartbeat_ack=worker_pb2.HeartbeatAck(number=number))
            elif self.answers == "hold":
                self.instruct(hold=worker_pb2.Hold(number=number))

    # The stream itself.

    def read(self, requests: Iterable[worker_pb2.SessionRequest]) -> None:
        """Takes what arrives, until the stream ends."""
        try:
            for request in requests:
                self._inbox.put(request)
        except grpc.RpcError:
            pass  # The worker's process was killed.
        self._inbox.put(None)
        self._outbox.put(None)

    def write(self) -> Iterator[worker_pb2.SessionResponse]:
        """What is to be sent."""
        while (response := self._outbox.get()) is not None:
            yield response

    def greet(self, address: str) -> None:
        """Waits for the Hello and welcomes the worker."""
        first = self._inbox.get(timeout=PATIENCE_S)
        if first is None:
            raise AssertionError("expected a Hello, but the stream ended")
        self.hello = first.hello
        self._take(first)
        welcome = worker_pb2.Welcome(cluster_id="c", master="script", masters=[address])
        welcome.lease_ttl.FromSeconds(LEASE_TTL_S)
        welcome.heartbeat_interval.FromMilliseconds(HEARTBEAT_MS)
        self.say(worker_pb2.SessionResponse(welcome=welcome))


class ScriptedMaster:
    """Listens on loopback; each stream of the worker becomes a ``Session``.

    Attributes:
        address: Where it listens.
        current: The newest session.
    """

    current: Session

    def __init__(self) -> None:
        self._revision = 0
        self._sessions: queue.Queue[Session] = queue.Queue()
        self._open: list[Session] = []
        self._server = grpc.server(ThreadPoolExecutor(8))
        handler = grpc.stream_stream_rpc_method_handler(
            self._serve,
            request_deserializer=worker_pb2.SessionRequest.FromString,
            response_serializer=worker_pb2.SessionResponse.SerializeToString,
        )
        service = grpc.method_handlers_generic_handler(
            "tenure.v1.WorkerService", {"Session": handler}
        )
        self._server.add_generic_rpc_handlers((service,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for session in self._open:
            session.hang_up()
        self._server.stop(grace=None).wait()

    def session(self) -> Session:
        """The worker's next stream, welcomed."""
        session = self._sessions.get(timeout=PATIENCE_S)
        session.greet(self.address)
        self.current = session
        return session

    def next_revision(self) -> int:
        """A token's revision above all before."""
        self._revision += 1
        return self._revision

    def _serve(self, requests: Any, context: Any) -> Iterator[worker_pb2.SessionResponse]:
        session = Session()
        self._open.append(session)
        self._sessions.put(session)
        threading.Thread(target=session.read, args=(requests,), daemon=True).start()
        yield from session.write()
