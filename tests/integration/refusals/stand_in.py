"""A listener that refuses as no healthy cluster does: a count with REASON as its filter gets it.

The listener, the topology, the roster and the service that carries the errors are a master's own.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self, cast

from tenure.master.election.port import Candidate, Leader, Member
from tenure.master.node.batches import BatchApi
from tenure.master.node.clock import SystemClock
from tenure.master.node.cluster import ClusterApi
from tenure.master.node.health import Health
from tenure.master.node.hub import WorkerHub
from tenure.master.node.jobs import JobApi
from tenure.master.node.master import Master
from tenure.master.node.partitions import PartitionApi
from tenure.master.node.queues import SettingsApi
from tenure.master.node.roster import Roster
from tenure.master.node.schedules import ScheduleApi
from tenure.master.node.worker_streams import WorkerApi
from tenure.master.node.workers import FleetApi
from tenure.master.node.workflows import WorkflowApi
from tenure.master.rpc.server import RpcServer
from tenure.protocol.errors import error_of
from tenure.protocol.fence import Token
from tenure.protocol.refusal import Reason, Refusal
from tenure.v1 import jobs_pb2, worker_pb2
from tests.chaos.ports import free_port

#: What NOT_LEADER names as the leader.
LEADER: Final = "127.0.0.1:1"
RETRY_AFTER_MS: Final = 250
START_TIMEOUT_S: Final = 20.0


class RefusingApi(JobApi):
    """Refuses counts for the reason that they ask for."""

    def __init__(self, roster: Roster) -> None:
        super().__init__(roster=roster, rng=random.Random(1))
        self._follower = roster

    async def count_jobs(self, request: jobs_pb2.CountJobsRequest) -> jobs_pb2.CountJobsResponse:
        reason = Reason(request.filter)
        if reason is Reason.INTERNAL:
            raise RuntimeError("a defect that callers must not see")
        if reason is Reason.NOT_LEADER:
            raise self._follower.not_leader(0)
        raise error_of(
            Refusal(
                reason=reason,
                message=f"expected to count, but {reason.lower()}; try again",
                metadata={"partition": "0"},
                retry_after_ms=RETRY_AFTER_MS,
            )
        )


class StandIn:
    """Serves in a thread of its own for the length of a ``with`` block."""

    # The parts of a master that a listener serves.
    jobs: JobApi
    settings: SettingsApi
    schedules: ScheduleApi
    partitions: PartitionApi
    workflows: WorkflowApi
    batches: BatchApi
    workers: WorkerApi
    cluster: ClusterApi
    health: Health

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(START_TIMEOUT_S):
            raise TimeoutError("expected the stand-in to serve, but it does not")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._loop is not None and self._end is not None:
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        me = Candidate(incarnation="stand-in", name="stand-in", address=self.address)
        clock, hub = SystemClock(), WorkerHub()
        roster = Roster(cluster_id="stand-in", partitions=1, me=me, clock=clock)
        roster.members = [Member(candidate=me, version="0", wall_ms=clock.wall_ms())]
        roster.leaders[0] = Leader(candidate=me, token=Token(1, 1))
        self.jobs, self.health = RefusingApi(self._elsewhere(clock)), Health(roster)
        self.settings = SettingsApi(roster=roster)
        self.schedules = ScheduleApi(roster=roster, rng=random.Random(1))
        self.partitions = PartitionApi(roster=roster)
        self.workflows = WorkflowApi(roster=roster)
        self.batches = BatchApi(roster=roster)
        self.fleet = FleetApi(roster=roster, hub=hub, clock=clock)
        self.workers = WorkerApi(hub=hub, rng=random.Random(1), welcome=worker_pb2.Welcome)
        self.cluster = ClusterApi(
            roster=roster,
            hub=hub,
            seats=list,
            version="0",
            store="none",
            space=lambda: None,
            alarms=list,
            backup=self._no_backup,
            look=self._no_look,
            hand_over=self._no_hand_over,
            answers=self._answers,
        )
        server = RpcServer("127.0.0.1", int(self.address.rpartition(":")[2]))
        await server.bind()
        await server.start(cast(Master, self))
        self._ready.set()
        await self._end.wait()
        await server.stop()

    async def _no_backup(self) -> AsyncIterator[bytes]:
        """There is nothing in it."""
        yield b""

    async def _no_look(self) -> None:
        """Nobody else says anything here."""

    async def _no_hand_over(self, partition: int, successor: str) -> bool:
        """It leads nothing."""
        return False

    async def _answers(self, name: str) -> bool:
        """There is nobody else."""
        return False

    def _elsewhere(self, clock: SystemClock) -> Roster:
        """What a follower knows: it leads nothing, and somebody else does."""
        me = Candidate(incarnation="follower", name="follower", address=self.address)
        leader = Candidate(incarnation="leader", name="leader", address=LEADER)
        roster = Roster(cluster_id="stand-in", partitions=1, me=me, clock=clock)
        roster.leaders[0] = Leader(candidate=leader, token=Token(1, 1))
        return roster
