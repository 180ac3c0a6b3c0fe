"""Calls to the leader of a partition, whoever that is by now."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from google.protobuf.message import Message

from tenure.client.topology import Topology
from tenure.client.transport import Transport
from tenure.protocol.errors import Rejected, TenureError, Unavailable, error_of
from tenure.protocol.refusal import Reason
from tenure.v1 import cluster_pb2, jobs_pb2

_LOG: Final = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)
T = TypeVar("T")

#: Outcomes after which the same request may be sent again, to the same leader or the next one.
RESEND: Final = frozenset(
    {
        Reason.NOT_LEADER,
        Reason.FROZEN,
        Reason.OUTCOME_UNKNOWN,
        Reason.UNREACHABLE,
        Reason.STORE_UNAVAILABLE,
        Reason.DEADLINE_EXCEEDED,
    }
)

#: A master that does not let us in may have an outdated certificate or token file of its own: when
#: any master will do, the others are asked before it is believed.
NOT_LET_IN: Final = frozenset(
    {
        Reason.CLIENT_CERTIFICATE_REFUSED,
        Reason.SERVER_CERTIFICATE_INVALID,
        Reason.TLS_REQUIRED,
        Reason.TLS_UNSUPPORTED,
        Reason.TOKEN_INVALID,
        Reason.TOKEN_MISSING,
    }
)

#: One call's own deadline; the caller's may allow for several.
CALL_TIMEOUT_S: Final = 5.0
TOPOLOGY_TIMEOUT_S: Final = 2.0
GET_TOPOLOGY: Final = "/tenure.v1.ClusterService/GetTopology"
COUNT_JOBS: Final = "/tenure.v1.JobService/CountJobs"


#: A partition that nobody has served for so long is worth a warning.
WARN_AFTER_S: Final = 5.0
#: Calls that wait for a leader are made again more often than this: after a longer silence nobody
#: has asked, and the outage is counted anew.
SILENCE_S: Final = 10.0


@dataclass(slots=True)
class _Outage:
    """Since when a partition's leader has not answered, and when it was last asked in vain."""

    since_s: float
    last_s: float
    warned: bool = False

    def asked(self, now_s: float) -> float:
        """It is asked now; returns for how long it has not answered those who did."""
        if now_s - self.last_s > SILENCE_S:
            self.since_s, self.warned = now_s, False
        self.last_s = now_s
        return now_s - self.since_s


class Router:
    """Finds leaders and calls them again after a failover.

    Its log (``tenure.client.router``) has one line when a leader is lost, one when the next one
    answers, and a warning when that takes long.

    Attributes:
        transport: How masters are reached.
        topology: What is known of the cluster.
    """

    def __init__(self, transport: Transport, topology: Topology) -> None:
        self.transport = transport
        self.topology = topology
        self._asking = asyncio.Lock()
        self._asked = 0
        self._failure: TenureError | None = None
        self._outages: dict[int, _Outage] = {}
        self._closed = False

    def close(self) -> None:
        """Nobody is called any more: who tries again and again gives up."""
        self._closed = True

    def lost(self, partition: int, address: str, error: TenureError) -> None:
        """A call to a partition's supposed leader (empty: none is known) has failed."""
        self.topology.failed(partition, address, error)
        now_s = asyncio.get_running_loop().time()
        extra = {
            "action": "leader_lost",
            "partition": partition,
            "address": address,
            "reason": error.reason.value,
        }
        outage = self._outages.get(partition)
        if outage is None:
            self._outages[partition] = _Outage(now_s, now_s)
            _LOG.info(
                "partition %d is not served by %s now (%s); looking for its leader",
                partition,
                address or "any master that was asked",
                error.reason.value,
                extra=extra,
            )
            return
        outage_s = outage.asked(now_s)
        if outage_s >= WARN_AFTER_S and not outage.warned:
            outage.warned = True
            _LOG.warning(
                "partition %d has not been served for %.0f s; still looking for its leader: %s",
                partition,
                outage_s,
                error.message,
                extra=extra,
            )

    def answered(self, partition: int, address: str) -> None:
        """A partition's leader has answered."""
        # Almost always empty, so that asking costs next to nothing.
        if not self._outages or partition not in self._outages:
            return
        outage_s = self._outages.pop(partition).asked(asyncio.get_running_loop().time())
        _LOG.info(
            "partition %d is served by %s, after %.1f s",
            partition,
            address,
            outage_s,
            extra={"action": "leader_found", "partition": partition, "address": address},
        )

    async def ready(self, timeout_s: float) -> None:
        """Returns when the number of partitions is known.

        Raises:
            Unavailable: No master has answered in time.
        """
        await self._until(self._known, timeout_s)

    async def leader(self, partition: int) -> str:
        """The partition's leader, asking a master if it is not known.

        Raises:
            Unavailable: No master answers, or none leads the partition now (NOT_LEADER), or none
                will before an operator acts (PARTITION_HALTED).
        """
        address = self.topology.leader(partition)
        if address is None or self.topology.dated:
            await self.refresh()
            address = self.topology.leader(partition) or await self._located(partition)
        if address is None:
            raise Unavailable(
                f"expected partition {partition} to have a leader, but it has none now",
                reason=Reason.NOT_LEADER,
                metadata={"partition": str(partition)},
            )
        return address

    async def _located(self, partition: int) -> str | None:
        """Asks about a partition whose leader no topology names.

        A master that is asked for the partition itself says more: a newer hint, or that the
        partition is halted and nobody will lead it.
        """
        address = self.topology.next_master()
        try:
            await self.transport.unary(
                address,
                COUNT_JOBS,
                jobs_pb2.CountJobsRequest(partition=partition),
                jobs_pb2.CountJobsResponse,
                TOPOLOGY_TIMEOUT_S,
            )
        except TenureError as error:
            if error.reason not in RESEND:
                raise
            self.topology.failed(partition, address, error)
            self.topology.asked_in_vain(address)
            return self.topology.leader(partition)
        return address

    async def refresh(self) -> None:
        """Asks a master for the topology. Those who ask at the same time share one call.

        Raises:
            TenureError: The master asked did not answer; the next refresh asks another one.
        """
        seen = self._asked
        async with self._asking:
            if self._asked == seen:
                await self._ask()
            elif self._failure is not None:
                # A copy: one instance raised by many tasks would collect all their tracebacks.
                raise error_of(self._failure.to_refusal())

    async def view(self, timeout_s: float) -> cluster_pb2.GetTopologyResponse:
        """The topology as any master sees it.

        Raises:
            TenureError: A refusal, or the last failure when the time was up.
        """
        return await self._until(lambda: self._of_any(self._view), timeout_s)

    async def led_by(self, partition: int, timeout_s: float) -> cluster_pb2.PartitionLeader:
        """A partition's leader and its term, as a master says now; waits until there is one.

        Returns:
            The leader; an empty one if there is no such partition.

        Raises:
            TenureError: A refusal, or the last failure when the time was up.
        """

        async def once() -> cluster_pb2.PartitionLeader:
            view = await self._of_any(self._view)
            if partition >= view.partition_count:
                return cluster_pb2.PartitionLeader()
            for leader in view.leaders:
                if leader.partition == partition:
                    return leader
            await self._located(partition)
            raise Unavailable(
                f"expected partition {partition} to have a leader, but it has none now",
                reason=Reason.NOT_LEADER,
                metadata={"partition": str(partition)},
            )

        return await self._until(once, timeout_s)

    async def call(
        self,
        partition: int,
        method: str,
        request: Message,
        response_type: type[M],
        timeout_s: float,
    ) -> M:
        """Calls the partition's leader until it answers or the time is up.

        Raises:
            TenureError: The leader's refusal, or the last failure when the time was up.
        """

        async def once() -> M:
            address = await self.leader(partition)
            try:
                answer = await self.transport.unary(
                    address, method, request, response_type, CALL_TIMEOUT_S
                )
            except TenureError as error:
                if error.reason in RESEND:
                    self.lost(partition, address, error)
                raise
            self.answered(partition, address)
            return answer

        return await self._until(once, timeout_s)

    async def ask_any(
        self, method: str, request: Message, response_type: type[M], timeout_s: float
    ) -> M:
        """Calls any master, the next one if one does not answer.

        Raises:
            TenureError: A refusal, or the last failure when the time was up.
        """

        async def once(address: str) -> M:
            return await self.transport.unary(
                address, method, request, response_type, CALL_TIMEOUT_S
            )

        return await self._until(lambda: self._of_any(once), timeout_s)

    def _learned(self, answer: cluster_pb2.GetTopologyResponse, address: str) -> None:
        """Takes what the master at this address says of the cluster."""
        now_s = asyncio.get_running_loop().time()
        for forgotten in self.topology.learned(answer, now_s, address):
            self.transport.forget(forgotten)

    async def _known(self) -> None:
        if not self.topology.partitions:
            await self.refresh()

    async def _ask(self) -> None:
        try:
            await self._of_any(self._view)
        except TenureError as error:
            self._failure = error
            self._asked += 1
            raise
        self._failure = None
        self._asked += 1

    async def _view(self, address: str) -> cluster_pb2.GetTopologyResponse:
        answer = await self.transport.unary(
            address,
            GET_TOPOLOGY,
            cluster_pb2.GetTopologyRequest(),
            cluster_pb2.GetTopologyResponse,
            TOPOLOGY_TIMEOUT_S,
        )
        self._learned(answer, address)
        return answer

    async def _of_any(self, once: Callable[[str], Awaitable[M]]) -> M:
        """Asks one master; more of them only as long as they do not let us in.

        Raises:
            TenureError: Its refusal; or it did not answer, and the next call asks another one.
        """
        unasked = len(self.topology.masters)
        while True:
            address = self.topology.next_master()
            unasked -= 1
            try:
                return await once(address)
            except TenureError as error:
                shut = error.reason in NOT_LET_IN
                if shut or not isinstance(error, Rejected):
                    self.topology.lost(address)
                if not shut or unasked <= 0:
                    raise

    async def _until(self, once: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        """Tries until it succeeds, is refused for good, or the time is up."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        last: Unavailable | None = None
        failures = 0
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await once()
            except TimeoutError:
                raise last or _timed_out(timeout_s) from None
            except Unavailable as error:
                failures += 1
                delay = self.topology.backoff_s(failures)
                late = loop.time() + delay >= deadline
                if error.reason not in RESEND or late or self._closed:
                    raise
                last = error
            await asyncio.sleep(delay)


def _timed_out(timeout_s: float) -> Unavailable:
    return Unavailable(
        f"expected an answer within {timeout_s:g} s, but none came; is a master running?",
        reason=Reason.DEADLINE_EXCEEDED,
        metadata={"timeout_s": f"{timeout_s:g}"},
    )
