"""A simulated network between clients, workers and masters: the transport port in virtual time.

Each call is a connection of its own (see ``call``): what is sent over a directed link arrives in
order, after the link's delay. A cut link holds what is sent over it, as TCP does; if it stays cut
for ``KEEPALIVE_S``, both ends find their calls broken, as gRPC's pings would tell them.

All randomness comes from one seeded ``random.Random``: the same program runs the same way again.
"""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Mapping
from random import Random
from typing import Any, Final, Generic, TypeVar, TypeVarTuple

from google.protobuf.message import Message

from tenure.master.node.method import Method
from tenure.protocol.errors import Unavailable
from tenure.protocol.refusal import Reason
from tenure.testing.call import END, Call, Link, Listener, Tap
from tenure.testing.process import Process

M = TypeVar("M", bound=Message)
Ts = TypeVarTuple("Ts")

#: A peer that does not answer for so long is given up: ping interval + ping timeout (DESIGN §16).
KEEPALIVE_S: Final = 7.0

#: Calls that are over are forgotten when there are so many, or more.
_SWEPT_MIN: Final = 32


class SimNetwork:
    """Nodes, named by strings (a master by its address), and the links between them.

    Args:
        rng: Draws delays, and what is lost.
        delay_ms: Of every link that says nothing else.
    """

    def __init__(self, rng: Random, *, delay_ms: tuple[float, float] = (0.2, 2.0)) -> None:
        self.rng = rng
        #: What handlers raised that is no error of Tenure's: each one is a bug.
        self.failures: list[Exception] = []
        #: How many messages have arrived.
        self.delivered = 0
        #: Told of what handlers read and send.
        self.tap: Tap | None = None
        self._loop = asyncio.get_running_loop()
        self._delay_ms = delay_ms
        self._links: dict[tuple[str, str], Link] = {}
        self._listeners: dict[str, Listener] = {}
        self._stalled: dict[str, float] = {}
        self._calls: dict[int, Call] = {}
        self._calls_swept = _SWEPT_MIN
        self._last_call = 0
        self._transports: dict[str, list[SimTransport]] = {}
        #: Nothing of the network belongs to a process, so that none takes it along when it freezes.
        self._context = contextvars.Context()

    # Nodes.

    def listen(self, node: str, process: Process, methods: Mapping[str, Method]) -> None:
        """A server accepts calls: ``methods`` by their full names, handlers in ``process``."""
        self._listeners[node] = Listener(process, methods)

    def transport(self, node: str) -> "SimTransport":
        """How a process on this node calls servers."""
        transport = SimTransport(self, node)
        self._transports.setdefault(node, []).append(transport)
        return transport

    def crash(self, node: str) -> None:
        """The node's process has died: whoever talks to it finds out when the news arrive."""
        self._listeners.pop(node, None)
        self._stalled.pop(node, None)
        for transport in self._transports.pop(node, []):
            transport.dead = True
        for call in list(self._calls.values()):
            if call.client == node:
                call.crash_client()
            elif call.server == node:
                call.crash_server()

    def stall(self, node: str) -> None:
        """The node's process stands still: it answers no ping."""
        self._stalled.setdefault(node, self.now_s())
        self._sweep_later()

    def unstall(self, node: str) -> None:
        """It goes on."""
        self._stalled.pop(node, None)

    # Links.

    def link(self, source: str, target: str) -> Link:
        """The link from one node to another, to be read or changed."""
        link = self._links.get((source, target))
        if link is None:
            link = self._links[(source, target)] = Link(self._delay_ms)
        return link

    def cut(self, source: str, target: str) -> None:
        """Nothing gets from one node to the other; the way back stays as it is. Idempotent."""
        link = self.link(source, target)
        if link.cut_since_s is None:
            link.cut_since_s = self.now_s()
            self._sweep_later()

    def heal(self, source: str, target: str) -> None:
        """What was held arrives now, and all gets through again. Idempotent."""
        link = self.link(source, target)
        link.cut_since_s = None
        held, link.held = link.held, []
        for pipe in held:
            pipe.resume()

    def split(self, *sides: list[str]) -> None:
        """Cuts every link, both ways, between nodes of different sides."""
        for side in sides:
            for other in sides:
                if other is not side:
                    for source in side:
                        for target in other:
                            self.cut(source, target)

    def heal_all(self) -> None:
        """Every link gets everything through, at its usual pace."""
        for (source, target), link in list(self._links.items()):
            link.loss = link.repeat = 0.0
            link.bytes_per_s = link.fuse_bytes = None
            link.delay_ms = self._delay_ms
            link.on_send = link.dooms = None
            self.heal(source, target)

    def break_calls(self, node: str, other: str) -> int:
        """Resets all connections between two nodes; how many there were."""
        found = [one for one in self._calls.values() if {one.client, one.server} == {node, other}]
        for call in found:
            call.break_()
        return len(found)

    # For calls.

    def open(self, client: str, server: str, method: str, deadline_s: float | None) -> Call:
        """A new call; it is remembered until neither end can learn anything more."""
        if len(self._calls) >= self._calls_swept:
            self._calls = {number: known for number, known in self._calls.items() if not known.over}
            self._calls_swept = max(_SWEPT_MIN, 2 * len(self._calls))
        call = Call(self, client, server, method, deadline_s)
        self._last_call += 1
        self._calls[self._last_call] = call
        if self._silent_since_s(call) is not None:
            self._sweep_later()
        return call

    def listener(self, node: str) -> Listener | None:
        """Who listens there."""
        return self._listeners.get(node)

    def now_s(self) -> float:
        """The loop's time."""
        return self._loop.time()

    def delay_s(self, link: Link) -> float:
        """How long the next message takes."""
        return self.rng.uniform(*link.delay_ms) / 1000

    def loses(self, source: str, target: str) -> bool:
        """Whether the next message breaks its call."""
        loss = self.link(source, target).loss
        if loss <= 0 or self.rng.random() >= loss:
            return False
        self.link(source, target).broken += 1
        return True

    def call_at(
        self, when_s: float, callback: Callable[[*Ts], object], *args: *Ts
    ) -> asyncio.TimerHandle:
        """A timer of the network's own."""
        return self._loop.call_at(when_s, callback, *args, context=self._context)

    def _sweep_later(self) -> None:
        self.call_at(self.now_s() + KEEPALIVE_S, self._sweep)

    def _sweep(self) -> None:
        """Breaks the calls whose pings have not been answered for too long."""
        for call in list(self._calls.values()):
            since_s = self._silent_since_s(call)
            if since_s is not None and self.now_s() - since_s >= KEEPALIVE_S - 1e-6:
                call.break_()

    def _silent_since_s(self, call: Call) -> float | None:
        client, server = call.client, call.server
        times = (
            self.link(client, server).cut_since_s,
            self.link(server, client).cut_since_s,
            self._stalled.get(client),
            self._stalled.get(server),
        )
        since_s = min((time_s for time_s in times if time_s is not None), default=None)
        return None if since_s is None else max(since_s, call.opened_s)


class SimTransport:
    """The transport port over a simulated network; made by ``SimNetwork.transport``."""

    def __init__(self, network: SimNetwork, node: str) -> None:
        self._network = network
        self._node = node
        self._open: dict[Call, None] = {}
        self._closed = False
        #: The process has died: what it still says while it unwinds reaches nobody.
        self.dead = False

    async def unary(
        self, address: str, method: str, request: Message, response_type: type[M], timeout_s: float
    ) -> M:
        call = self._dial(address, method, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                call.send(request)
                data = await call.answers.read()
        except TimeoutError:
            raise Unavailable(
                f"expected an answer from {address}, but the deadline passed",
                reason=Reason.DEADLINE_EXCEEDED,
                metadata={"address": address},
            ) from None
        finally:
            call.cancel()
            self._open.pop(call, None)
        if data is None:
            raise call.gone()
        return response_type.FromString(data)

    def stream(self, address: str, method: str, response_type: type[M]) -> "SimStream[M]":
        call = self._dial(address, method, None)
        return SimStream(call, response_type, lambda: self._open.pop(call, None))

    def forget(self, address: str) -> None:
        pass

    async def close(self) -> None:
        self._closed = True
        for call in list(self._open):
            call.cancel()
        self._open.clear()

    def _dial(self, address: str, method: str, deadline_s: float | None) -> Call:
        if self._closed or self.dead:
            raise Unavailable(
                "expected an open client, but it was closed; make a new one",
                reason=Reason.UNREACHABLE,
            )
        call = self._network.open(self._node, address, method, deadline_s)
        self._open[call] = None
        return call


class SimStream(Generic[M]):
    """One bidirectional call."""

    def __init__(self, call: Call, response_type: type[M], forget: Callable[[], object]) -> None:
        self._call = call
        self._response_type = response_type
        self._forget = forget

    async def send(self, message: Message) -> None:
        self._call.send(message)

    def __aiter__(self) -> AsyncIterator[M]:
        return self._read()

    async def _read(self) -> AsyncIterator[M]:
        while (data := await self._call.answers.read()) is not None:
            yield self._response_type.FromString(data)

    async def close_sending(self) -> None:
        self._call.up.send(END)

    def cancel(self) -> None:
        self._call.cancel()
        self._forget()


def full_names(services: Mapping[str, Mapping[str, Any]], package: str) -> dict[str, Any]:
    """Methods by the names that travel: ``/package.Service/Method``."""
    return {
        f"/{package}.{service}/{name}": method
        for service, methods in services.items()
        for name, method in methods.items()
    }
