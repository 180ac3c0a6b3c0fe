"""A look at the cluster itself: masters, leaders, workers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Final

from tenure.client.errors import invalid
from tenure.client.router import Router
from tenure.client.unserved import unserved
from tenure.protocol.errors import TenureError, Unavailable
from tenure.protocol.limits import PARTITIONS_MAX
from tenure.v1 import cluster_pb2, jobs_pb2

_SERVICE: Final = "/tenure.v1.ClusterService/"


class ClusterView:
    """Reads that any master answers."""

    def __init__(self, router: Router, timeout_s: float) -> None:
        self._router = router
        self._timeout_s = timeout_s

    async def topology(self) -> cluster_pb2.GetTopologyResponse:
        """Partitions, their leaders, the masters' addresses and the cluster's clock."""
        return await self._router.view(self._timeout_s)

    async def members(self) -> Sequence[cluster_pb2.Member]:
        """The masters that live."""
        response = await self._router.ask_any(
            _SERVICE + "ListMembers",
            cluster_pb2.ListMembersRequest(),
            cluster_pb2.ListMembersResponse,
            self._timeout_s,
        )
        return response.members

    async def unserved(self, job: jobs_pb2.Job) -> str | None:
        """Why no connected worker takes a PENDING job, in words; None: one does, or may.

        Args:
            job: As ``describe`` returned it.
        """
        return await unserved(self._router, job, self._timeout_s)

    async def status(self) -> tuple[list[cluster_pb2.GetStatusResponse], dict[str, TenureError]]:
        """Every known master's own view, and why those that did not answer did not.

        The addresses that the client was given count for as long as it lives, whatever the masters
        know: one that has died a while ago is named, too. A master that answers at several
        addresses is one.
        """
        await self.topology()
        views: dict[str, cluster_pb2.GetStatusResponse] = {}
        failed: dict[str, TenureError] = {}
        for address in self._router.topology.masters:
            try:
                view = await self._router.transport.unary(
                    address,
                    _SERVICE + "GetStatus",
                    cluster_pb2.GetStatusRequest(),
                    cluster_pb2.GetStatusResponse,
                    self._timeout_s,
                )
            except TenureError as error:
                failed[address] = error
            else:
                views.setdefault(view.address, view)
        return [*views.values()], failed

    async def transfer_leader(
        self, partition: int, master: str = ""
    ) -> cluster_pb2.TransferLeaderResponse:
        """Has a partition's leader hand it over, in order; returns when it has.

        Args:
            partition: Which.
            master: The name of the master that should lead it; empty: the leader chooses.

        Raises:
            Rejected: There is no such partition, or no such master that lives.
            Unavailable: Its leader cannot hand it over now.
        """
        if not 0 <= partition < PARTITIONS_MAX:
            raise invalid("partition", f"from 0 to {PARTITIONS_MAX - 1}, got {partition}")
        if not _is_text(master):
            raise invalid("master", f"a master's name, got {master!r}")
        request = cluster_pb2.TransferLeaderRequest(partition=partition, master=master)
        leader = cluster_pb2.PartitionLeader()
        if not master:
            # So that a request whose answer was lost does not end the next leader's term as well.
            leader = await self._router.led_by(partition, self._timeout_s)
            if leader.HasField("token"):
                request.term.CopyFrom(leader.token)
        answer = await self._router.call(
            partition,
            _SERVICE + "TransferLeader",
            request,
            cluster_pb2.TransferLeaderResponse,
            self._timeout_s,
        )
        if leader.name and answer.from_master == answer.master:
            answer.from_master = leader.name
        return answer

    async def backup(self) -> AsyncIterator[bytes]:
        """The file of a backup, piece by piece, from a master that answers.

        It is whole only if the last piece has come; ``tenure cluster backup`` checks it.

        Raises:
            TenureError: A refusal, or the master ended in the middle.
        """
        view = await self.topology()
        # A follower has time for it: leaders last.
        leaders = [leader.address for leader in view.leaders]
        addresses = sorted(view.masters, key=leaders.count) or self._router.topology.masters
        for address in addresses:
            begun = False
            try:
                async with aclosing(self._backup_of(address)) as pieces:
                    async for data in pieces:
                        begun = True
                        yield data
                return
            except Unavailable:
                # A master's key outlives it by seconds. Half of a file is none of the next one's.
                if begun or address == addresses[-1]:
                    raise

    async def _backup_of(self, address: str) -> AsyncGenerator[bytes, None]:
        stream = self._router.transport.stream(
            address, _SERVICE + "Backup", cluster_pb2.BackupResponse
        )
        try:
            await stream.send(cluster_pb2.BackupRequest())
            await stream.close_sending()
            async for piece in stream:
                yield piece.data
        finally:
            stream.cancel()


def _is_text(name: str) -> bool:
    """Whether UTF-8 can hold it: what a terminal gives may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
