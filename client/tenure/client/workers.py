"""Workers: who they are, how they do, what they run, and whether they get work."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from tenure.client.errors import invalid
from tenure.client.settings import moment_of
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import WorkerState
from tenure.v1 import worker_pb2, workers_pb2

if TYPE_CHECKING:
    from tenure.client.client import AsyncClient

_SERVICE: Final = "/tenure.v1.WorkersService/"
_PAGE: Final = 1_000
#: How often it is looked whether a worker has ended what it ran.
_LOOK_S: Final = 0.25

R = TypeVar(
    "R",
    workers_pb2.DrainWorkerResponse,
    workers_pb2.UndrainWorkerResponse,
    workers_pb2.QuarantineWorkerResponse,
    workers_pb2.ReleaseWorkerResponse,
)
_Wish: TypeAlias = (
    workers_pb2.DrainWorkerRequest
    | workers_pb2.UndrainWorkerRequest
    | workers_pb2.QuarantineWorkerRequest
    | workers_pb2.ReleaseWorkerRequest
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopBlocked:
    """What keeps async jobs from going on.

    Attributes:
        job_id: The job; empty: the code is no job's own, but a callback.
        name: Its name.
        blocked: For how long, when the worker told it.
        stack: Where its code was when that was noticed, the innermost call last.
    """

    job_id: str
    name: str
    blocked: timedelta
    stack: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """Why a worker gets nothing for a while.

    Attributes:
        reason: In words.
        by_hand: An operator wants it; else masters found that it fails at what others do well, and
            try it with one job now and then.
        lasting: For how long by now, when the worker told it.
    """

    reason: str
    by_hand: bool
    lasting: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerVitals:
    """How a worker's process does, as it told with its last heartbeat.

    Attributes:
        age: Since it told this.
        slots_used: Jobs that hold a slot.
        slots_lost: Slots that jobs keep which were given up and have not ended.
        children: Processes that it runs jobs in.
        rss_bytes: Resident memory of its own process.
        cpu_share: Of one core, lately: 0.5 is half of it.
        loop_lag: How late its session has been with what was due, at most, lately.
        loop_blocked: Who blocks the loop of async jobs; None: nobody does.
        quarantine: Why it gets nothing for a while; None: it is in no quarantine.
    """

    age: timedelta
    slots_used: int = 0
    slots_lost: int = 0
    children: int = 0
    rss_bytes: int = 0
    cpu_share: float = 0.0
    loop_lag: timedelta = timedelta()
    loop_blocked: LoopBlocked | None = None
    quarantine: Quarantine | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLease:
    """A job that a worker holds.

    Attributes:
        job_id: The job.
        name: Its name.
        tenant: Whose it is.
        queue: Its queue.
        attempt: 1 for the first attempt of a run.
        granted_at: When the worker got it.
        started_at: When it began; None: it is not known to have.
        progress: How far it is, from 0 to 100, as the job told.
    """

    job_id: str
    name: str
    tenant: str
    queue: str
    attempt: int
    granted_at: datetime
    started_at: datetime | None = None
    progress: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker that is connected.

    Attributes:
        incarnation: UUID of its process.
        name: Its name; several may have the same.
        state: Whether it gets work.
        queues: Those that it serves; empty: all.
        labels: Its labels.
        build_id: The version of its application, as it was started with.
        slots: How many jobs it runs at once.
        job_name_count: How many jobs it knows by name.
        job_names: Their names; of one worker only, empty in lists.
        connected_at: When it connected to the master that answered.
        heartbeat_age: Since its last heartbeat; None: none has come yet.
        leases: Jobs that it holds.
        vitals: How its process does; None: its release does not tell.
        running: The jobs that it holds, longest held first; of one worker only, empty in lists.
    """

    incarnation: str
    name: str
    state: WorkerState | None
    slots: int
    connected_at: datetime
    queues: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    build_id: str = ""
    job_name_count: int = 0
    job_names: Sequence[str] = ()
    heartbeat_age: timedelta | None = None
    leases: int = 0
    vitals: WorkerVitals | None = None
    running: Sequence[WorkerLease] = ()


class AsyncWorkers:
    """The workers of a cluster: ``client.workers``.

    A worker is named by its incarnation, or by its name if no other connected one has it.
    """

    def __init__(self, client: AsyncClient, timeout_s: float) -> None:
        """Used by ``AsyncClient``."""
        self._client = client
        self._timeout_s = timeout_s

    async def list(self) -> Sequence[Worker]:
        """All connected workers, in order of name and incarnation."""
        router = await self._client.router()
        found: dict[str, Worker] = {}
        for partition in range(router.topology.partitions):
            request = workers_pb2.ListWorkersRequest(partition=partition, page_size=_PAGE)
            while True:
                page = await router.call(
                    partition,
                    _SERVICE + "ListWorkers",
                    request,
                    workers_pb2.ListWorkersResponse,
                    self._timeout_s,
                )
                for wire in page.workers:
                    _add(found, worker_of(wire))
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token
        return sorted(found.values(), key=lambda each: (each.name, each.incarnation))

    async def get(self, worker: str) -> Worker:
        """One worker, with the names of its jobs and those that it holds.

        Args:
            worker: Its incarnation or its name.

        Raises:
            Rejected: NOT_FOUND: no such worker is connected. WORKER_AMBIGUOUS: several have that
                name; the message has their incarnations.
        """
        router = await self._client.router()
        found: dict[str, Worker] = {}
        missing: Rejected | None = None
        for partition in range(router.topology.partitions):
            try:
                response = await router.call(
                    partition,
                    _SERVICE + "GetWorker",
                    workers_pb2.GetWorkerRequest(partition=partition, worker=_checked(worker)),
                    workers_pb2.GetWorkerResponse,
                    self._timeout_s,
                )
            except Rejected as error:
                if error.reason is not Reason.NOT_FOUND:
                    raise
                # It may be connected to another leader, and be on its way to this one.
                missing = error
            else:
                _add(found, worker_of(response.worker))
        for each in found.values():
            return each
        raise missing or _nobody(worker)

    async def drain(self, worker: str, *, wait: bool = False) -> Worker:
        """Gives a worker no more work, from any master, until ``undrain`` or its end.

        What it runs goes on, up to its drain timeout; what is left then, and what has not begun, is
        handed back without an attempt charged. The worker itself remembers that it is drained, so
        this outlives every leader and every master.

        Args:
            worker: Its incarnation or its name.
            wait: Until it runs nothing any more. A cancelled wait undoes nothing.

        Returns:
            The worker, as it is then.

        Raises:
            Rejected: As ``get``; or WRONG_STATE: its release cannot be drained.
            Unavailable: It has not answered; it may be drained all the same.
        """
        incarnation = (await self.get(worker)).incarnation
        request = workers_pb2.DrainWorkerRequest(worker=incarnation)
        found = await self._tell("DrainWorker", request, workers_pb2.DrainWorkerResponse)
        while wait and found.state is not WorkerState.DRAINED:
            await asyncio.sleep(_LOOK_S)
            found = await self.get(found.incarnation)
        return found

    async def undrain(self, worker: str) -> Worker:
        """Lets a drained worker work again.

        Args:
            worker: Its incarnation or its name.

        Raises:
            Rejected: As ``drain``.
            Unavailable: As ``drain``.
        """
        incarnation = (await self.get(worker)).incarnation
        request = workers_pb2.UndrainWorkerRequest(worker=incarnation)
        return await self._tell("UndrainWorker", request, workers_pb2.UndrainWorkerResponse)

    async def quarantine(self, worker: str, reason: str = "") -> Worker:
        """Gives a worker nothing more, from any master, until ``release`` or its end.

        What it runs goes on, for as long as it takes. Masters do the same by themselves to one that
        fails at what others do well; those they try again.

        Args:
            worker: Its incarnation or its name.
            reason: For who looks at it, 256 characters at most.

        Raises:
            Rejected: As ``drain``; or the reason is too long.
            Unavailable: As ``drain``.
        """
        incarnation = (await self.get(worker)).incarnation
        request = workers_pb2.QuarantineWorkerRequest(worker=incarnation, reason=reason)
        return await self._tell("QuarantineWorker", request, workers_pb2.QuarantineWorkerResponse)

    async def release(self, worker: str) -> Worker:
        """Ends a worker's quarantine, whoever has begun it.

        Args:
            worker: Its incarnation or its name.

        Raises:
            Rejected: As ``drain``.
            Unavailable: As ``drain``.
        """
        incarnation = (await self.get(worker)).incarnation
        request = workers_pb2.ReleaseWorkerRequest(worker=incarnation)
        return await self._tell("ReleaseWorker", request, workers_pb2.ReleaseWorkerResponse)

    async def _tell(self, method: str, request: _Wish, kind: type[R]) -> Worker:
        """Has a master tell a worker something; the worker, as it is then."""
        router = await self._client.router()
        missing: Rejected | None = None
        for partition in range(router.topology.partitions):
            # Any master that the worker is connected to can pass it on; leaders it looks for first.
            try:
                await router.call(partition, _SERVICE + method, request, kind, self._timeout_s)
            except Rejected as error:
                if error.reason is not Reason.NOT_FOUND:
                    raise
                missing = error
            else:
                return await self.get(request.worker)
        raise missing or _nobody(request.worker)


def worker_of(wire: workers_pb2.Worker) -> Worker:
    """A worker, as one partition's leader knows it."""
    known = wire.state in WorkerState._value2member_map_
    return Worker(
        incarnation=wire.incarnation,
        name=wire.name,
        state=WorkerState(wire.state) if known else None,
        slots=wire.slots,
        connected_at=moment_of(wire.connected_at),
        queues=list(wire.queues),
        labels=dict(wire.labels),
        build_id=wire.build_id,
        job_name_count=wire.job_name_count,
        job_names=list(wire.job_names),
        heartbeat_age=wire.heartbeat_age.ToTimedelta() if wire.HasField("heartbeat_age") else None,
        leases=wire.leases,
        vitals=_vitals_of(wire.vitals, wire.vitals_age.ToTimedelta())
        if wire.HasField("vitals")
        else None,
        running=[_lease_of(row) for row in wire.running],
    )


def _vitals_of(wire: worker_pb2.Vitals, age: timedelta) -> WorkerVitals:
    blocked = None
    if wire.HasField("loop_blocked"):
        blocked = LoopBlocked(
            job_id=wire.loop_blocked.job_id,
            name=wire.loop_blocked.name,
            blocked=timedelta(milliseconds=wire.loop_blocked.blocked_ms),
            stack=wire.loop_blocked.stack,
        )
    quarantine = None
    if wire.HasField("quarantine"):
        quarantine = Quarantine(
            reason=wire.quarantine.reason,
            by_hand=wire.quarantine.by_hand,
            lasting=timedelta(milliseconds=wire.quarantine.for_ms),
        )
    return WorkerVitals(
        age=age,
        slots_used=wire.slots_used,
        slots_lost=wire.slots_lost,
        children=wire.children,
        rss_bytes=wire.rss_bytes,
        cpu_share=wire.cpu_share,
        loop_lag=timedelta(milliseconds=wire.loop_lag_ms),
        loop_blocked=blocked,
        quarantine=quarantine,
    )


def _lease_of(wire: workers_pb2.WorkerLease) -> WorkerLease:
    return WorkerLease(
        job_id=wire.job_id,
        name=wire.name,
        tenant=wire.tenant,
        queue=wire.queue,
        attempt=wire.attempt,
        granted_at=moment_of(wire.granted_at),
        started_at=moment_of(wire.started_at) if wire.HasField("started_at") else None,
        progress=wire.progress,
    )


def _add(found: dict[str, Worker], part: Worker) -> None:
    """Adds what one more partition's leader says of a worker."""
    known = found.get(part.incarnation)
    found[part.incarnation] = part if known is None else _together(known, part)


def _together(one: Worker, other: Worker) -> Worker:
    """What two leaders say: the fresher word of the worker itself, and the leases of both."""
    fresh, stale = (one, other) if _age(one) <= _age(other) else (other, one)
    ages = [each.heartbeat_age for each in (one, other) if each.heartbeat_age is not None]
    state = fresh.state
    if state is WorkerState.DRAINED and (one.leases or other.leases):
        state = WorkerState.DRAINING
    return replace(
        fresh,
        state=state,
        connected_at=min(fresh.connected_at, stale.connected_at),
        heartbeat_age=min(ages, default=None),
        leases=one.leases + other.leases,
        running=sorted([*one.running, *other.running], key=lambda row: row.granted_at),
    )


def _age(worker: Worker) -> timedelta:
    return timedelta.max if worker.vitals is None else worker.vitals.age


def _checked(worker: str) -> str:
    """Raises Rejected if it is no text that can be sent."""
    try:
        worker.encode()
    except UnicodeEncodeError:
        raise invalid("worker", f"a worker's incarnation or name, got {worker!r}") from None
    if not worker:
        raise invalid("worker", "a worker's incarnation or name, got nothing")
    return worker


def _nobody(worker: str) -> Rejected:
    return Rejected(
        f"expected a connected worker named {worker}, but the cluster has no partition",
        reason=Reason.NOT_FOUND,
        metadata={"worker": worker},
        field="worker",
    )
