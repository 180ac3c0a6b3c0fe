"""Plays the masters' half of a transcript to this release's worker, and compares what it says.

The worker's session is sans-IO: it gets the recorded messages at the recorded times, and its jobs
begin and end when the recorded worker said that they did. Compared is what a master acts upon:
greeting, declarations, heartbeats with their leases, starts, returns, reports. When it speaks, and
how much credit it gives, is its own business.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from tenure.protocol.fence import Lease, Token
from tenure.protocol.vocabulary import AttemptOutcome, ErrorCategory
from tenure.v1 import common_pb2, worker_pb2
from tenure.worker.arbiter import Arbiter
from tenure.worker.held import AttemptResult, Fault, HeldJob
from tenure.worker.port import Fact, FactKind
from tenure.worker.session import Session
from tests.histories.archive import Entry

Claim = tuple[Hashable, ...]
#: A lease as both sides name it: job, token, seq, run.
LeaseKey = tuple[str, Lease]


class NoHeartbeats:
    """Randomness that puts off the worker's own heartbeats: they come when they were recorded."""

    def random(self) -> float:
        return 1e9


class Player:
    """A worker of this release on the streams of a recorded one."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._arbiter = Arbiter(hello_of(entries), NoHeartbeats())
        self._sessions: dict[int, Session] = {}
        self._jobs: dict[LeaseKey, HeldJob] = {}
        #: What the worker has said and was recorded to say, by stream.
        self.said: list[Claim] = []
        self.recorded: list[Claim] = []

    def play(self) -> None:
        """Plays the whole transcript."""
        for entry in self._entries:
            # Leases lapse by the clock, in the middle of a cut too.
            self._arbiter.tick(entry.at_ms)
            match entry.kind:
                case "opened":
                    session = self._arbiter.stream_opened(entry.address, entry.at_ms)
                    self._sessions[entry.stream] = session
                case "closed":
                    self._arbiter.stream_closed(self._sessions.pop(entry.stream))
                case "down":
                    said = worker_pb2.SessionResponse.FromString(entry.message)
                    self._arbiter.received(self._sessions[entry.stream], said, entry.at_ms)
                    self._take_orders()
                case "up":
                    self._speak(entry)

    def _take_orders(self) -> None:
        orders = self._arbiter.take_orders()
        for job in orders.runs if orders is not None else ():
            self._jobs[job.job_id, job.lease] = job

    def _speak(self, entry: Entry) -> None:
        """Makes happen what the recorded worker spoke of, and lets this one speak."""
        request = worker_pb2.SessionRequest.FromString(entry.message)
        session = self._sessions[entry.stream]
        facts: list[Fact] = []
        for update in request.updates:
            facts += self._facts(update, entry.at_ms)
            if update.HasField("heartbeat") and update.partition in session.partitions:
                session.partitions[update.partition].heartbeat()
        self._arbiter.happened(facts)
        if request.HasField("goodbye"):
            session.goodbye = request.goodbye.reason
        self.recorded += claims(entry.stream, request)
        while (own := session.flush(entry.at_ms)) is not None:
            self.said += claims(entry.stream, own)

    def _facts(self, update: worker_pb2.PartitionUpdate, now_ms: int) -> Iterator[Fact]:
        for ref in update.started:
            job = self._jobs[key_of(ref, update)]
            if job.begin(now_ms):
                yield FactKind.STARTED, job
        for ref in update.returned:
            known = self._jobs.get(key_of(ref, update))
            if known is None or known.freed:
                continue
            if known.begin(now_ms):
                yield FactKind.UNSTARTED, known
            elif known.finish(AttemptResult(AttemptOutcome.RELEASED), now_ms):
                yield FactKind.ENDED, known
        for report in update.reports:
            job = self._jobs[key_of(report.lease, update)]
            if job.begin(now_ms):
                yield FactKind.STARTED, job
            if job.finish(result_of(report), now_ms):
                yield FactKind.ENDED, job


def hello_of(entries: Sequence[Entry]) -> worker_pb2.Hello:
    """How the recorded worker introduced itself."""
    first = next(entry for entry in entries if entry.kind == "up")
    return worker_pb2.SessionRequest.FromString(first.message).hello


def result_of(report: worker_pb2.Report) -> AttemptResult:
    """The result that a report carries."""
    fault = None
    if report.HasField("error"):
        error = report.error
        after = error.retry_after.ToMilliseconds() if error.HasField("retry_after") else None
        category = ErrorCategory(error.category)
        fault = Fault(error.type, error.message, error.traceback, category, after)
    return AttemptResult(AttemptOutcome(report.outcome), report.result, fault)


def key_of(ref: worker_pb2.LeaseRef, update: Any) -> LeaseKey:
    """The lease that a reference names in a message under a token of its own."""
    wire: common_pb2.Token = ref.token if ref.HasField("token") else update.token
    return ref.job_id, Lease(Token(wire.epoch, wire.revision), ref.seq, ref.run)


def claims(stream: int, request: worker_pb2.SessionRequest) -> Iterator[Claim]:
    """What a master acts upon."""
    if request.HasField("hello"):
        hello = request.hello
        yield "hello", stream, hello.incarnation, hello.protocol, tuple(hello.job_names)
    for update in request.updates:
        token = (update.token.epoch, update.token.revision)
        where = (stream, update.partition, token)
        if update.HasField("declare"):
            yield "declare", *where, held_of(update.declare, update)
        if update.HasField("heartbeat"):
            beat = update.heartbeat
            held = held_of(beat.held, update)
            yield "heartbeat", *where, beat.number, beat.last_assignment, held
        for ref in update.started:
            yield "started", *where, key_of(ref, update)
        for ref in update.returned:
            yield "returned", *where, key_of(ref, update)
        for report in update.reports:
            error = report.error.SerializeToString(deterministic=True)
            lease = key_of(report.lease, update)
            yield "report", *where, lease, report.outcome, report.result, error
    if request.HasField("goodbye"):
        yield "goodbye", stream, request.goodbye.reason


def held_of(held: worker_pb2.LeaseSet, update: Any) -> frozenset[LeaseKey]:
    """The leases of a declaration or a heartbeat."""
    return frozenset(key_of(row.lease, update) for row in held.leases)
