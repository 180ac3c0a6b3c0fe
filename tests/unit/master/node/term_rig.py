"""A term under test: the shipped owner loop, gate, keeper and hub over a journal that obeys."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from tenure.master.core.command import SubmitJobs, SubmitRow, SubmitSetting
from tenure.master.core.config import PartitionConfig
from tenure.master.core.partition import Partition
from tenure.master.core.record import Policy
from tenure.master.election.port import Candidate
from tenure.master.node.changes import Changes
from tenure.master.node.clock import TermClock
from tenure.master.node.hub import WorkerHub
from tenure.master.node.keeper import Keeper
from tenure.master.node.link import WorkerLink
from tenure.master.node.roster import Roster
from tenure.master.node.term import Term
from tenure.master.node.worker_streams import WorkerApi
from tenure.protocol.errors import TenureError
from tenure.protocol.ids import JobId, mint
from tenure.protocol.limits import PROTOCOL_REVISION
from tenure.testing.clock import SimClock
from tenure.v1 import worker_pb2
from tests.unit.master.node.fakes import TOKEN, FakeOffice, HeldJournal, make_gate, settle

JOB = Policy(name="job")
ONCE = Policy(name="job", at_most_once=True)


class TermRig:
    """One term, its workers' streams, and the batches that wait for their commit."""

    def __init__(self) -> None:
        self.clock = clock = SimClock()
        self.journal = HeldJournal(pipeline_depth=2)
        self.gate = make_gate(self.journal)
        self.office = FakeOffice()
        self.hub = WorkerHub()
        self.workers = WorkerApi(
            hub=self.hub, rng=random.Random(1), welcome=lambda: worker_pb2.Welcome()
        )
        self.keeper = Keeper(self.office, clock, sent_ms=clock.boot_ms())
        self.partition = Partition(PartitionConfig(partition=0, partitions=1))
        self.partition.finish_replay()
        self.announced: list[str] = []
        self.term = Term(
            partition=self.partition,
            changes=Changes(0),
            gate=self.gate,
            keeper=self.keeper,
            token=TOKEN,
            clock=TermClock(clock, stamp_ms=0, walls_ms=[clock.wall_ms()]),
            rng=random.Random(1),
            hub=self.hub,
            announce=self._announce,
        )
        me = Candidate(incarnation="i", name="m", address="127.0.0.1:1")
        self.roster = Roster(cluster_id="c", partitions=1, me=me, clock=clock)
        self._minted = 0
        self._committed = 0

    def _announce(self, event: str, fields: Mapping[str, object]) -> None:
        self.announced.append(event)

    async def commit(self) -> None:
        """Lets everything that was appended so far commit, and all that follows from it."""
        await settle()
        while self._committed < len(self.journal.batches):
            self._committed += 1
            await self.journal.commit(self._committed)
        await settle()

    def connect(self, name: str = "w", credit: int = 10) -> WorkerLink:
        """A worker's stream: it has declared no lease and gives credit."""
        link = self.hub.connect(
            worker_pb2.Hello(
                incarnation=name,
                name=name,
                job_names=["job"],
                slots=credit,
                protocol=PROTOCOL_REVISION,
            )
        )
        self.say(link, declare=worker_pb2.LeaseSet())
        self.hub.take_credit(link, worker_pb2.CreditLimit(number=1, limit=credit))
        return link

    def say(self, link: WorkerLink, **said: object) -> None:
        """What a worker says about the partition."""
        request = worker_pb2.SessionRequest()
        update = request.updates.add(partition=0, **said)
        update.token.epoch, update.token.revision = TOKEN
        self.workers._take(link, request)

    def heard(self, link: WorkerLink) -> list[worker_pb2.PartitionInstruction]:
        """What was sent to a worker since the last call."""
        said = [part for envelope in link._envelopes for part in envelope.instructions]
        link._envelopes.clear()
        return said

    def mint(self) -> JobId:
        """A new job id."""
        self._minted += 1
        return mint(0, self.term.clock.now_ms(), self._minted * 0x9E3779B97F4A7C15)

    def submit(self, policy: Policy = JOB, count: int = 1) -> list[JobId]:
        """Posts a submit that nobody waits for."""
        ids = [self.mint() for _ in range(count)]
        self.term.post(self.submission(ids, policy))
        return ids

    def submission(self, ids: list[JobId], policy: Policy = JOB) -> SubmitJobs:
        """A submit of these jobs."""
        setting = SubmitSetting(policy, 5, 0, 0)
        rows = [SubmitRow(job_id, 0, b"", "") for job_id in ids]
        return SubmitJobs(settings=[setting], rows=rows)

    def abandon(self) -> None:
        """The office is lost."""
        self.roster.terms.pop(0, None)
        self.hub.close_partition(0, TOKEN, "")
        self.term.abandon(self.roster.not_leader(0))


@asynccontextmanager
async def leading(*, window: bool = False, commit_ms: int = 0) -> AsyncIterator[TermRig]:
    """A term that has just been opened.

    Args:
        window: Whether workers re-declare their leases first.
        commit_ms: How long its first event is on its way.
    """
    rig = TermRig()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(rig.keeper.run()), tasks.create_task(rig.gate.run())]
        begin = tasks.create_task(rig.term.begin("i", window=window))
        await rig.clock.sleep(commit_ms)
        await rig.commit()
        await begin
        rig.roster.terms[0] = rig.term
        running.append(tasks.create_task(rig.term.own()))
        await rig.commit()
        yield rig
        for task in running:
            task.cancel()


def numbers(heard: list[worker_pb2.PartitionInstruction]) -> list[int]:
    """The assignments among what a worker has heard."""
    return [part.assignment.number for part in heard if part.HasField("assignment")]


def granted(heard: list[worker_pb2.PartitionInstruction]) -> list[str]:
    """The jobs granted in what a worker has heard."""
    return [
        g.job_id for part in heard if part.HasField("assignment") for g in part.assignment.grants
    ]


async def outcome(coroutine: object, within_s: float = 5.0) -> object:
    """What a call comes to: its result, or the error it ended in."""
    try:
        async with asyncio.timeout(within_s):
            return await coroutine  # type: ignore[misc]
    except TenureError as error:
        return error
