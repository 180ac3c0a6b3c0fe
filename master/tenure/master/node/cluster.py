"""ClusterService: who leads what, and how this master is. Waits for no commit."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Final

from tenure.master.node.hub import WorkerHub
from tenure.master.node.roster import Roster
from tenure.protocol.errors import Rejected, Unavailable
from tenure.protocol.refusal import Reason
from tenure.protocol.token_wire import token_of, token_to_wire
from tenure.v1 import cluster_pb2

#: About what one message of a backup carries.
_PIECE_BYTES: Final = 256 * 1024
#: A caller that takes none of it for so long keeps nobody else from a backup.
_SEND_S: Final = 60
_BACKUP_RETRY_MS: Final = 10_000

#: Sends one message to the caller.
Send = Callable[[cluster_pb2.BackupResponse], Awaitable[None]]


class ClusterApi:
    """The cluster's service, without gRPC.

    Args:
        roster: Offices and members.
        hub: The workers' streams.
        seats: The status of each partition here.
        version: This release.
        store: The store's URL, without secrets.
        space: How full the store is.
        alarms: What an operator should look at.
        backup: Begins a backup; gives its file piece by piece.
        look: Reads who the masters are.
        hand_over: Hands a partition over to the master of a name; False: not now.
        answers: Whether the master of a name answers now.
    """

    def __init__(
        self,
        *,
        roster: Roster,
        hub: WorkerHub,
        seats: Callable[[], list[cluster_pb2.PartitionStatus]],
        version: str,
        store: str,
        space: Callable[[], cluster_pb2.StoreSpace | None],
        alarms: Callable[[], list[str]],
        backup: Callable[[], AsyncIterator[bytes]],
        look: Callable[[], Awaitable[None]],
        hand_over: Callable[[int, str], Awaitable[bool]],
        answers: Callable[[str], Coroutine[Any, Any, bool]],
    ) -> None:
        self._roster = roster
        self._hub = hub
        self._seats = seats
        self._version = version
        self._store = store
        self._space = space
        self._alarms = alarms
        self._backup = backup
        self._look = look
        self._hand_over = hand_over
        self._answers = answers
        self._backing_up = False

    async def get_topology(
        self, _: cluster_pb2.GetTopologyRequest
    ) -> cluster_pb2.GetTopologyResponse:
        """Which master leads which partition, as far as this one knows."""
        roster = self._roster
        response = cluster_pb2.GetTopologyResponse(
            cluster_id=roster.cluster_id,
            partition_count=roster.partitions,
            masters=roster.addresses(),
            now_ms=roster.now_ms(),
        )
        for partition in range(roster.partitions):
            term, other = roster.terms.get(partition), roster.leaders.get(partition)
            if term is not None and term.open:
                leader, token = roster.me, term.token
            elif other is not None:
                leader, token = other.candidate, other.token
            else:
                continue
            response.leaders.add(
                partition=partition,
                token=token_to_wire(token),
                name=leader.name,
                address=leader.address,
            )
        return response

    async def list_members(
        self, _: cluster_pb2.ListMembersRequest
    ) -> cluster_pb2.ListMembersResponse:
        """All live masters."""
        response = cluster_pb2.ListMembersResponse()
        for member in self._roster.members:
            response.members.add(
                incarnation=member.candidate.incarnation,
                name=member.candidate.name,
                address=member.candidate.address,
                version=member.version,
                workers=member.workers,
            )
        return response

    async def get_status(self, _: cluster_pb2.GetStatusRequest) -> cluster_pb2.GetStatusResponse:
        """This master's partitions and the workers connected to it."""
        roster = self._roster
        response = cluster_pb2.GetStatusResponse(
            cluster_id=roster.cluster_id,
            name=roster.me.name,
            address=roster.me.address,
            version=self._version,
            store=self._store,
            partitions=self._seats(),
            space=self._space(),
            alarms=self._alarms(),
        )
        response.workers.extend(self._workers())
        return response

    async def backup(self, _: cluster_pb2.BackupRequest, send: Send) -> None:
        """A backup's file in pieces, made while the leaders go on; to one caller at a time.

        Raises:
            Unavailable: Another one is under way, or the caller takes nothing of it.
        """
        if self._backing_up:
            # Each reads the whole store, beside those who work with it.
            raise Unavailable(
                f"expected one backup at a time, but {self._roster.me.name} gives another one now;"
                " try again later, or ask another master",
                reason=Reason.TOO_MANY_BACKUPS,
                metadata={"limit": "1"},
                retry_after_ms=_BACKUP_RETRY_MS,
            )
        self._backing_up = True
        try:
            await self._give_backup(send)
        finally:
            self._backing_up = False

    async def _give_backup(self, send: Send) -> None:
        pieces: list[bytes] = []
        size = 0
        async for piece in self._backup():
            pieces.append(piece)
            size += len(piece)
            if size >= _PIECE_BYTES:
                await _sent(send, pieces)
                pieces, size = [], 0
        await _sent(send, pieces)

    async def transfer_leader(
        self, request: cluster_pb2.TransferLeaderRequest
    ) -> cluster_pb2.TransferLeaderResponse:
        """Hands a partition over to another master; the leader answers when it has.

        Raises:
            Rejected: There is no such partition or master, or no other one.
            Unavailable: This master does not lead it, or cannot hand it over now.
        """
        roster, partition, wanted = self._roster, request.partition, request.master
        term = roster.term(partition)
        response = cluster_pb2.TransferLeaderResponse(partition=partition)
        response.from_master = roster.me.name
        named = token_of(request.term)
        ended = request.HasField("term") and named < term.token
        if ended or wanted == roster.me.name:
            response.master = roster.me.name
            return response
        # One that has just begun may be named, and one that has just ended must not be, though its
        # key outlives it by some seconds if it was killed.
        await self._look()
        others = [name for name in roster.heirs(partition) if name != roster.me.name]
        others = await self._answering(others)
        roster.term(partition)
        if not others or (wanted and wanted not in others):
            known = ", ".join([roster.me.name, *others])
            raise Rejected(
                f"expected a live master to hand partition {partition} over to, got "
                f"{wanted or 'none'}; there are: {known}",
                reason=Reason.INVALID_ARGUMENT,
                metadata={"partition": str(partition), "masters": known},
                field="master",
            )
        response.master = wanted or others[0]
        if not await self._hand_over(partition, response.master):
            raise Unavailable(
                f"expected to hand partition {partition} over, but its store has no space or does "
                "not answer, and nobody could win the office then; see `tenure cluster status`",
                reason=Reason.STORE_UNAVAILABLE,
                metadata={"partition": str(partition)},
                retry_after_ms=5_000,
            )
        return response

    async def _answering(self, names: list[str]) -> list[str]:
        """Those that answer, in their order."""
        async with asyncio.TaskGroup() as tasks:
            asked = {name: tasks.create_task(self._answers(name)) for name in names}
        return [name for name, answer in asked.items() if answer.result()]

    def _workers(self) -> list[cluster_pb2.WorkerStatus]:
        workers = {}
        for link in self._hub.links():
            hello = link.hello
            workers[link.session_id] = cluster_pb2.WorkerStatus(
                incarnation=hello.incarnation,
                name=hello.name,
                slots=hello.slots,
                job_names=hello.job_names,
                queues=hello.queues,
            )
        for term in self._roster.terms.values():
            now_ms = term.clock.now_ms()
            for session in term.partition.sessions():
                worker = workers.get(session.session_id)
                if worker is not None:
                    worker.leases += session.leases
                    worker.draining = session.draining
                    if session.heartbeat_ms:
                        worker.heartbeat_age_ms = now_ms - session.heartbeat_ms
        return list(workers.values())


async def _sent(send: Send, pieces: list[bytes]) -> None:
    try:
        async with asyncio.timeout(_SEND_S):
            await send(cluster_pb2.BackupResponse(data=b"".join(pieces)))
    except TimeoutError as late:
        raise Unavailable(
            f"expected the caller to take a piece of the backup within {_SEND_S} s",
            reason=Reason.DEADLINE_EXCEEDED,
            retry_after_ms=_BACKUP_RETRY_MS,
        ) from late
