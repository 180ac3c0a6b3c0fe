"""Gives the worker's half of a transcript to this release's master, and compares its verdicts.

The recorded messages go through the shipped service (``node.worker_streams``); each report is then
judged by the partition as it was at that moment: rebuilt from the recorded journal up to the event
that closed the report's lease, or, if none did, up to where the journal was when the verdict came.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, cast

from tenure.master.core import command as commands
from tenure.master.core.effect import Decision, SendVerdicts
from tenure.master.core.event import AttemptsEnded, DurableEvent, JobsCompleted
from tenure.master.core.partition import Partition
from tenure.master.journal.codec import decode_events
from tenure.master.journal.frame import Chain
from tenure.master.journal.port import SealedBatch
from tenure.master.node.hub import WorkerHub
from tenure.master.node.link import WorkerLink
from tenure.master.node.worker_streams import WorkerApi
from tenure.protocol.fence import Token
from tenure.protocol.vocabulary import Verdict
from tenure.v1 import worker_pb2
from tests.histories.archive import Entry
from tests.histories.player import LeaseKey, key_of
from tests.histories.state import ONLY_PARTITION

#: Above every recorded one, so that the term in which a report is judged can be opened.
_TOKEN = Token(1 << 20, 1)
_SESSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A recorded verdict.

    Attributes:
        lease: The lease that was reported.
        verdict: What the worker was told.
        batches: How many batches the journal had by then.
    """

    lease: LeaseKey
    verdict: Verdict
    batches: int


class Inbox:
    """A term that keeps the commands it is posted."""

    judging = True

    def __init__(self, number: int, token: Token, posted: list[commands.Command]) -> None:
        self.number = number
        self.token = token
        self._posted = posted

    def post(self, command: commands.Command, *, size: int = 0) -> None:
        self._posted.append(command)


class Hub:
    """The streams of a master that leads under whatever token it is spoken to with."""

    def __init__(self) -> None:
        self.posted: list[commands.Command] = []
        self.terms: dict[int, Inbox] = {}

    def connect(self, hello: worker_pb2.Hello, now_ms: int) -> WorkerLink:
        return WorkerLink(_SESSION, hello, now_ms)

    def disconnect(self, link: WorkerLink) -> None:
        link.close()

    def take_vitals(self, link: WorkerLink, vitals: worker_pb2.Vitals, now_ms: int) -> None:
        link.take_vitals(vitals, now_ms)

    def take_credit(self, link: WorkerLink, limit: worker_pb2.CreditLimit) -> None:
        link.take_credit(limit)


def commands_of(entries: Sequence[Entry]) -> list[commands.Command]:
    """What the shipped service makes of a transcript's requests, in order."""

    async def serve() -> list[commands.Command]:
        hub = Hub()
        streams = sorted({entry.stream for entry in entries if entry.kind == "up"})
        for stream in streams:
            await _serve(hub, [e for e in entries if e.stream == stream and e.kind == "up"])
        return hub.posted

    return asyncio.run(serve())


async def _serve(hub: Hub, entries: Sequence[Entry]) -> None:
    async def requests() -> AsyncIterator[worker_pb2.SessionRequest]:
        for entry in entries:
            request = worker_pb2.SessionRequest.FromString(entry.message)
            for update in request.updates:
                token = Token(update.token.epoch, update.token.revision)
                hub.terms[update.partition] = Inbox(update.partition, token, hub.posted)
            yield request

    async def send(said: worker_pb2.SessionResponse) -> None:
        """What the service answers by itself is a greeting and acknowledged credit."""

    api = WorkerApi(hub=cast(WorkerHub, hub), rng=Random(1), welcome=worker_pb2.Welcome)
    await api.session(requests(), send)


def verdicts_of(entries: Sequence[Entry]) -> list[Judged]:
    """The verdicts that the recorded masters sent."""
    return [
        Judged(
            lease=key_of(row.lease, instruction),
            verdict=Verdict(row.verdict),
            batches=entry.batches,
        )
        for entry in entries
        if entry.kind == "down"
        for instruction in worker_pb2.SessionResponse.FromString(entry.message).instructions
        for row in instruction.verdicts
    ]


class Judge:
    """A partition as it was at any moment of a recorded journal."""

    def __init__(self, batches: Sequence[bytes]) -> None:
        chain = Chain.start(ONLY_PARTITION.partition)
        self._events: list[tuple[int, DurableEvent]] = []
        #: By number of batches: the seq of the next event.
        self._next_seq: list[int] = [1]
        for number, data in enumerate(batches):
            batch = chain.follow(SealedBatch(number=number, data=data))
            self._events += enumerate(decode_events(batch.events), batch.first_seq)
            self._next_seq.append(batch.first_seq + batch.event_count)

    def closure(self, lease: LeaseKey) -> tuple[int, Any] | None:
        """The event that closed a lease by a report, and its row."""
        for seq, event in self._events:
            if isinstance(event, JobsCompleted | AttemptsEnded):
                for row in event.rows:
                    if (row.job_id, row.lease) == lease:
                        return seq, row
        return None

    def rule(self, judged: Judged, report: commands.ReportRow) -> Decision:
        """What this release's master decides about a report at the recorded moment."""
        closure = self.closure(judged.lease) if judged.verdict is Verdict.ACCEPTED else None
        before = self._next_seq[judged.batches] if closure is None else closure[0]
        partition = self._partition(before)
        command = commands.ReportAttempts(session_id=_SESSION, rows=[report], jitter=[0.5])
        decision = partition.decide(command, partition.stamp_ms)
        if not isinstance(decision, Decision):
            raise TypeError(f"expected a verdict, but the report was refused: {decision}")
        return decision

    def _partition(self, before: int) -> Partition:
        partition = Partition(ONLY_PARTITION)
        for seq, event in self._events:
            if seq < before:
                partition.replay(event, seq)
        partition.finish_replay()
        opened = commands.OpenTerm(token=_TOKEN, incarnation="replay", window_ms=0)
        decision = partition.decide(opened, partition.stamp_ms)
        if not isinstance(decision, Decision):
            raise TypeError(f"expected to open a term, but it was refused: {decision}")
        for decided in decision.events:
            partition.apply(decided)
        return partition


def verdict_of(decision: Decision) -> Verdict:
    """The one verdict of a decision about one report."""
    (sent,) = [effect for effect in decision.effects if isinstance(effect, SendVerdicts)]
    ((_, _, verdict),) = sent.rows
    return verdict
