"""The arbiter without a shell: the test is the masters, the executors and the clock."""

import random
from collections.abc import Iterable
from typing import Any

from tenure.protocol.fence import Token
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.v1 import common_pb2, worker_pb2
from tenure.worker.arbiter import Arbiter
from tenure.worker.held import AttemptResult, HeldJob, Terms
from tenure.worker.port import FactKind
from tenure.worker.session import Session
from tests.unit.worker.masters import TOKEN, job_id, wire

TTL_MS = 15_000
HEARTBEAT_MS = 5_000
DONE = AttemptResult(AttemptOutcome.COMPLETED, b"\x01")


def held(number: int = 1, **fields: Any) -> HeldJob:
    """A job under a lease, for tests of the executors."""
    given: dict[str, Any] = {
        "job_id": job_id(number),
        "partition": 0,
        "token": TOKEN,
        "seq": number,
        "terms": Terms("double"),
        "expires_ms": 1 << 60,
    }
    return HeldJob(**(given | fields))


class Said:
    """Everything that the worker said over one stream, row by row."""

    def __init__(self, requests: Iterable[worker_pb2.SessionRequest]) -> None:
        self.requests = list(requests)
        self.updates = [update for request in self.requests for update in request.updates]

    def of(self, partition: int) -> "Said":
        """What it said of one partition."""
        said = Said([])
        said.updates = [update for update in self.updates if update.partition == partition]
        return said

    @property
    def declared(self) -> list[list[str]]:
        """Jobs of each declaration."""
        return [
            [row.lease.job_id for row in update.declare.leases]
            for update in self.updates
            if update.HasField("declare")
        ]

    @property
    def heartbeats(self) -> list[worker_pb2.Heartbeat]:
        """Heartbeats, in order."""
        return [update.heartbeat for update in self.updates if update.HasField("heartbeat")]

    @property
    def accepted(self) -> int:
        """The last assignment said to have arrived; 0: nothing said."""
        return max((update.accepted_assignment for update in self.updates), default=0)

    @property
    def started(self) -> list[str]:
        """Jobs said to have started."""
        return [ref.job_id for update in self.updates for ref in update.started]

    @property
    def returned(self) -> list[str]:
        """Jobs handed back."""
        return [ref.job_id for update in self.updates for ref in update.returned]

    @property
    def reports(self) -> list[worker_pb2.Report]:
        """Reports, in order."""
        return [report for update in self.updates for report in update.reports]

    @property
    def vitals(self) -> list[worker_pb2.Vitals]:
        """How it does, in order."""
        return [request.vitals for request in self.requests if request.HasField("vitals")]

    @property
    def logs(self) -> list[worker_pb2.LogChunk]:
        """What it passed on of what jobs say, in order."""
        return [chunk for update in self.updates for chunk in update.logs]

    @property
    def limits(self) -> list[worker_pb2.CreditLimit]:
        """Credit limits, in order."""
        return [request.credit for request in self.requests if request.HasField("credit")]


class Rig:
    """An arbiter with masters and executors played by the test."""

    def __init__(self, slots: int = 4, seed: int = 1) -> None:
        hello = worker_pb2.Hello(incarnation="inc", name="w1", slots=slots, protocol=1)
        self.arbiter = Arbiter(hello, random.Random(seed))
        self.now_ms = 1_000_000
        self.queued: list[HeldJob] = []
        self.running: list[HeldJob] = []
        self.stops: list[tuple[HeldJob, AttemptOutcome]] = []
        self.leases: list[HeldJob] = []
        self._assignments: dict[tuple[int, int], int] = {}
        self._seqs: dict[int, int] = {}

    # Masters.

    def connect(self, address: str = "m1") -> Session:
        """A stream whose Hello has been welcomed."""
        session = self.arbiter.stream_opened(address, self.now_ms)
        self.hear(session)
        said = worker_pb2.SessionResponse()
        said.welcome.master = address
        said.welcome.lease_ttl.FromMilliseconds(TTL_MS)
        said.welcome.heartbeat_interval.FromMilliseconds(HEARTBEAT_MS)
        self.arbiter.received(session, said, self.now_ms)
        return session

    def open(self, session: Session, partition: int = 0, token: Token = TOKEN) -> None:
        """The session's master leads a partition."""
        opened = worker_pb2.PartitionOpened(partition=partition, token=wire(token))
        self.tell(session, worker_pb2.SessionResponse(opened=[opened]))

    def close(self, session: Session, partition: int = 0, token: Token = TOKEN) -> None:
        """It leads it no more."""
        closed = worker_pb2.PartitionClosed(partition=partition, token=wire(token))
        self.tell(session, worker_pb2.SessionResponse(closed=[closed]))

    def leading(self, address: str = "m1", *, partition: int = 0, token: Token = TOKEN) -> Session:
        """A stream to a master that leads a partition; the worker's answer is heard."""
        session = self.connect(address)
        self.open(session, partition, token)
        self.hear(session)
        return session

    def tell(self, session: Session, said: worker_pb2.SessionResponse) -> list[str]:
        """A master says something."""
        addresses = self.arbiter.received(session, said, self.now_ms)
        self._take_orders()
        return addresses

    def instruct(
        self, session: Session, *, partition: int = 0, token: Token = TOKEN, **parts: Any
    ) -> None:
        """A master says something of one partition."""
        instruction = worker_pb2.PartitionInstruction(
            partition=partition, token=wire(token), **parts
        )
        self.tell(session, worker_pb2.SessionResponse(instructions=[instruction]))

    def grant(
        self,
        session: Session,
        *numbers: int,
        partition: int = 0,
        token: Token = TOKEN,
        assignment: int | None = None,
        **options: Any,
    ) -> list[worker_pb2.LeaseRef]:
        """A master grants jobs."""
        where = (id(session), partition)
        number = assignment or self._assignments.get(where, 0) + 1
        self._assignments[where] = number
        refs = []
        wire_options = common_pb2.JobOptions(name="double", **options)
        said = worker_pb2.Assignment(number=number, options=[wire_options])
        for job_number in numbers:
            seq = self._seqs[partition] = self._seqs.get(partition, 0) + 1
            said.grants.add(job_id=job_id(job_number, partition), seq=seq, attempt=1)
            ref = worker_pb2.LeaseRef(job_id=job_id(job_number, partition), seq=seq)
            ref.token.CopyFrom(wire(token))
            refs.append(ref)
        self.instruct(session, partition=partition, token=token, assignment=said)
        return refs

    def hear(self, session: Session) -> Said:
        """All that the worker has to say over a stream now."""
        requests = []
        while (request := session.flush(self.now_ms)) is not None:
            requests.append(request)
        return Said(requests)

    def ack(self, session: Session, beat: worker_pb2.Heartbeat, **where: Any) -> None:
        """A master acknowledges a heartbeat."""
        ack = worker_pb2.HeartbeatAck(number=beat.number)
        self.instruct(session, heartbeat_ack=ack, **where)

    def judge(
        self,
        session: Session,
        *refs: worker_pb2.LeaseRef,
        verdict: Any = worker_pb2.VERDICT_ACCEPTED,
        **where: Any,
    ) -> None:
        """A master judges reports."""
        rows = [worker_pb2.ReportVerdict(lease=ref, verdict=verdict) for ref in refs]
        self.instruct(session, verdicts=rows, **where)

    def revoke(
        self, session: Session, ref: worker_pb2.LeaseRef, *, unless_started: bool, **where: Any
    ) -> None:
        """A master takes a lease back."""
        revoke = worker_pb2.Revoke(lease=ref, unless_started=unless_started)
        self.instruct(session, revokes=[revoke], **where)

    # Executors.

    def begin(self, count: int = 1) -> list[HeldJob]:
        """The next queued jobs begin, unless they were withdrawn or have lapsed."""
        begun: list[HeldJob] = []
        facts = []
        while self.queued and len(begun) < count:
            job = self.queued.pop(0)
            if not job.begin(self.now_ms):
                continue
            if self.now_ms >= job.expires_ms:
                facts.append((FactKind.UNSTARTED, job))
            else:
                facts.append((FactKind.STARTED, job))
                begun.append(job)
        self.running.extend(begun)
        self.arbiter.happened(facts)
        self._take_orders()
        return begun

    def end(self, job: HeldJob, result: AttemptResult = DONE) -> None:
        """A running job ends."""
        self.running.remove(job)
        job.finish(result, self.now_ms)
        self.arbiter.happened([(FactKind.ENDED, job)])
        self._take_orders()

    def run_all(self) -> list[HeldJob]:
        """Everything queued begins and completes."""
        jobs = self.begin(len(self.queued))
        for job in jobs:
            self.end(job)
        return jobs

    # Time.

    def wait(self, ms: int) -> list[Session]:
        """Time passes. Returns streams that the arbiter wants dropped."""
        self.now_ms += ms
        deaf = self.arbiter.tick(self.now_ms)
        self._take_orders()
        return deaf

    def _take_orders(self) -> None:
        orders = self.arbiter.take_orders()
        if orders is not None:
            self.queued.extend(orders.runs)
            self.stops.extend(orders.stops)
            self.leases.extend(orders.leases)
