"""A client's connection: what it has of a cluster, made at first use, for one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from tenure.client import fork
from tenure.client.router import Router
from tenure.client.scope import TaskScope
from tenure.client.submitter import Submitter
from tenure.client.topology import Rng, Topology
from tenure.client.transport import Transport
from tenure.client.waiter import Waiter
from tenure.protocol.errors import Rejected, Unavailable
from tenure.protocol.ids import mint
from tenure.protocol.refusal import Reason

if TYPE_CHECKING:
    from tenure.client.argument_schema import Published


class Core:
    """What a client has once it is in use, all of one event loop."""

    def __init__(
        self, addresses: Sequence[str], transport: Transport, rng: Rng, timeout_s: float
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport = transport
        self.scope = TaskScope()
        self.router = Router(transport, Topology(addresses, rng))
        self._rng = rng
        self.submitter = Submitter(self.router, self.scope, rng, timeout_s)
        self.waiter = Waiter(self.router, self.scope)

    @cached_property
    def published(self) -> Published:
        """What jobs take that are known by name only."""
        from tenure.client.argument_schema import Published

        return Published(self.router)

    def mint(self, partition: int) -> str:
        """A fresh id of a job or workflow; the topology must be known."""
        now_ms = self.router.topology.cluster_ms(self.loop.time())
        return mint(partition, now_ms, self._rng.getrandbits(62))


class Connection:
    """See the module."""

    def __init__(
        self, addresses: Sequence[str], transport: Transport, rng: Rng, timeout_s: float
    ) -> None:
        """Args:
        addresses: Of masters, to begin with.
        transport: How masters are reached.
        rng: For ids and pauses.
        timeout_s: How long one operation may take.
        """
        self._addresses = addresses
        self._transport = transport
        self._rng = rng
        self._timeout_s = timeout_s
        self._core: Core | None = None
        self._closed = False

    def started(self) -> Core:
        """What there is; the topology need not be known.

        Raises:
            Rejected: It is in use in another event loop.
            Unavailable: It was closed.
        """
        core = self._core
        if core is None:
            core = self._core = self._start()
        elif core.loop is not asyncio.get_running_loop():
            fork.claim()
            raise Rejected(
                "expected an AsyncClient to stay in the event loop that first used it, but this is "
                "another one: make a client for each loop, or use Client, which any thread may use",
                reason=Reason.INVALID_ARGUMENT,
            )
        return core

    async def ready(self) -> Core:
        """The same, once the number of partitions is known."""
        core = self.started()
        if not core.router.topology.partitions:
            await core.router.ready(self._timeout_s)
        return core

    async def close(self) -> None:
        """Ends all streams. Idempotent."""
        self._closed = True
        core, self._core = self._core, None
        if core is not None:
            core.router.close()
            try:
                await core.scope.close()
            finally:
                await core.transport.close()

    def _start(self) -> Core:
        if self._closed:
            raise Unavailable(
                "expected an open client, but it was closed; make a new one",
                reason=Reason.UNREACHABLE,
            )
        return Core(self._addresses, self._transport, self._rng, self._timeout_s)
