"""A client's channels to the members, of the shape that the shipped client asks of grpc.aio's.

```
 client ──request──► wire (delay; held while cut) ──► member
    ▲                                                   │
    └── future or queue ◄── wire ◄── answer or refusal ─┘
```
Messages are handed over as they are: the client makes each request anew and the members each
answer, and neither keeps one. That, and that no call takes a task, keeps a call cheap.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import partial
from random import Random
from typing import Any, Final, Protocol

import grpc.aio

from tenure.protocol.tls import Pem
from tenure.testing.call import Link
from tenure.testing.network import SimNetwork
from tenure.testing.simetcd.refusal import (
    Refusal,
    connection_lost,
    connection_refused,
    deadline_exceeded,
)

#: What a call sends: a request of etcd's, whichever; and what it gets.
Payload = Any

#: Data that nobody acknowledges for so long takes its connection along (TCP_USER_TIMEOUT).
_UNACKED_S: Final = 2.0
#: As long as a stream is open, a silent peer is found out after: ping interval + its timeout.
_SILENT_S: Final = 8.0
#: Timers fire up to a rounding error early.
_RESOLUTION_S: Final = 1e-6


class Server(Protocol):
    """A member, as a channel sees it."""

    host: str
    running: bool
    frozen_since_s: float | None

    def receive(self, call: Call, request: Payload) -> None:
        """A request has arrived."""


class Wire:
    """One direction of one connection: what is sent arrives in order, or not at all.

    Args:
        network: Whose link it is.
        source: Where it begins.
        target: Where it ends.
        deliver: Told of each call and what has arrived for it.
    """

    def __init__(
        self,
        network: SimNetwork,
        source: str,
        target: str,
        deliver: Callable[[Call, Payload], None],
    ) -> None:
        self.link: Link = network.link(source, target)
        self._network = network
        self._source = source
        self._target = target
        self._deliver = deliver
        self._parcels: deque[tuple[float, Call, Payload]] = deque()
        self._last_s = 0.0
        self._held = False

    @property
    def waiting(self) -> bool:
        """Whether anything is on its way, or held."""
        return bool(self._parcels)

    def send(self, call: Call, payload: Payload) -> None:
        """Puts something on its way, unless the link's bad luck breaks the call."""
        network, link = self._network, self.link
        if link.on_send is not None:
            link.on_send(payload)
        if link.loss and network.loses(self._source, self._target):
            call.arrive(connection_lost("Connection reset by peer"))
            return
        link.sent += 1
        sent_s = network.now_s()
        if link.bytes_per_s is not None:
            sent_s = link.sent_s(sent_s, _size(payload))
        due_s = self._last_s = max(self._last_s, sent_s + network.delay_s(link))
        self._parcels.append((due_s, call, payload))
        network.call_at(due_s, self._flush)

    def resume(self) -> None:
        """The link is whole again."""
        self._held = False
        self._flush()

    def _flush(self) -> None:
        """What is due arrives, unless the link is cut."""
        link, parcels = self.link, self._parcels
        due_s = self._network.now_s() + _RESOLUTION_S
        while parcels and parcels[0][0] <= due_s:
            if link.cut_since_s is not None:
                if not self._held:
                    self._held = True
                    link.held.append(self)
                return
            _, call, payload = parcels.popleft()
            if link.fuse_bytes is not None and link.blows(_size(payload)):
                call.arrive(connection_lost("Connection reset by peer"))
                continue
            self._network.delivered += 1
            self._deliver(call, payload)

    def lose_tail(self, rng: Random) -> None:
        """The sender has died: of what is on its way, only some first part arrives."""
        kept = rng.randint(0, len(self._parcels))
        while len(self._parcels) > kept:
            self._parcels.pop()

    def discard(self) -> None:
        """Nothing of it arrives any more."""
        self._parcels.clear()


class Call(Protocol):
    """A call, for those who carry its messages."""

    channel: SimChannel

    @property
    def over(self) -> bool:
        """Whether its client waits no more."""

    def arrive(self, payload: Payload) -> None:
        """An answer or a refusal has come."""


class UnaryCall:
    """One request, one answer: to be awaited, once."""

    __slots__ = ("_future", "_timer", "channel", "path")

    def __init__(self, channel: SimChannel, path: str, request: Payload, timeout_s: float) -> None:
        self.channel = channel
        self.path = path
        self._future = channel.loop.create_future()
        self._timer = channel.network.call_at(channel.loop.time() + timeout_s, self._expire)
        channel.send(self, request)

    def __await__(self) -> Generator[Any, None, Payload]:
        try:
            return (yield from self._future)
        finally:
            self._timer.cancel()
            self.channel.calls.pop(self, None)

    @property
    def over(self) -> bool:
        return self._future.done()

    def arrive(self, payload: Payload) -> None:
        if not self._future.done():
            if isinstance(payload, Refusal):
                self._future.set_exception(payload.rpc_error())
            else:
                self._future.set_result(payload)

    def cancel(self) -> None:
        """The channel is closed."""
        self._future.cancel()

    def _expire(self) -> None:
        self.arrive(deadline_exceeded())


class StreamCall:
    """Messages both ways until one side ends the call."""

    __slots__ = ("_messages", "_refusal", "_timer", "_waiter", "channel", "over", "path")

    def __init__(self, channel: SimChannel, path: str, timeout_s: float | None) -> None:
        self.channel = channel
        self.path = path
        self.over = False
        self._messages: deque[Payload] = deque()
        self._refusal: Refusal | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if timeout_s is not None:
            due_s = channel.loop.time() + timeout_s
            self._timer = channel.network.call_at(due_s, self.arrive, deadline_exceeded())

    async def write(self, request: Payload) -> None:
        """Sends one message."""
        if self.over:
            raise (self._refusal or connection_lost("the call has ended")).rpc_error()
        self.channel.send(self, request)

    async def read(self) -> Payload:
        """The next message; EOF after the last.

        Raises:
            AioRpcError: The call has failed.
        """
        while not self._messages:
            if self._refusal is not None:
                raise self._refusal.rpc_error()
            if self.over:
                return grpc.aio.EOF
            self._waiter = self.channel.loop.create_future()
            await self._waiter
        return self._messages.popleft()

    async def details(self) -> str:
        """Why it ended."""
        return "" if self._refusal is None else self._refusal.detail

    def arrive(self, payload: Payload) -> None:
        if self.over:
            return
        if isinstance(payload, Refusal):
            self._refusal = payload
            self._end()
        else:
            self._messages.append(payload)
        self._wake()

    def cancel(self) -> None:
        """The client wants no more of it."""
        if not self.over:
            self._end()
            if self._waiter is not None:
                self._waiter.cancel()

    def _end(self) -> None:
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
        self.channel.calls.pop(self, None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class SimChannel:
    """One client's connection to one member.

    Attributes:
        calls: Those that have not ended, in the order of their beginnings.
    """

    def __init__(self, network: SimNetwork, client: str, server: Server) -> None:
        self.network = network
        self.loop = asyncio.get_running_loop()
        self.calls: dict[UnaryCall | StreamCall, None] = {}
        self.up = Wire(network, client, server.host, self._at_server)
        self.down = Wire(network, server.host, client, self._at_client)
        self.server = server
        #: The client's process is dead: nothing leaves it, and nothing is heard there.
        self._dead = False

    # What the shipped client calls.

    def unary_unary(self, method: str, **_: Any) -> Callable[..., UnaryCall]:
        """Calls of one method."""

        def start(request: Payload, *, timeout: float, metadata: object = None) -> UnaryCall:
            return UnaryCall(self, method, request, timeout)

        return start

    def stream_stream(self, method: str, **_: Any) -> Callable[..., StreamCall]:
        """Calls of one method."""

        def start(*, timeout: float | None = None, metadata: object = None) -> StreamCall:
            return StreamCall(self, method, timeout)

        return start

    async def close(self) -> None:
        """Cancels the calls under way."""
        for call in list(self.calls):
            call.cancel()

    # What calls and members do.

    def send(self, call: UnaryCall | StreamCall, request: Payload) -> None:
        """A call's message leaves the client."""
        if not self._dead:
            self.calls[call] = None
            self.up.send(call, request)

    def _at_server(self, call: Call, request: Payload) -> None:
        if self.server.running:
            self.server.receive(call, request)
        else:
            self.down.send(call, connection_refused(self.server.host))

    def _at_client(self, call: Call, payload: Payload) -> None:
        if not self._dead:
            call.arrive(payload)

    # What happens to connections.

    def crash_client(self, rng: Random) -> None:
        """The client's process has died."""
        self._dead = True
        self.up.lose_tail(rng)
        self.down.discard()
        self.calls.clear()

    def crash_server(self, rng: Random) -> None:
        """The member's process has died: the client finds out when the news arrive."""
        self.down.lose_tail(rng)
        for call in list(self.calls):
            self.down.send(call, connection_lost("Socket closed"))

    def sweep(self, now_s: float) -> None:
        """Breaks the connection if its other end has been silent for too long."""
        times = (
            self.up.link.cut_since_s,
            self.down.link.cut_since_s,
            self.server.frozen_since_s,
        )
        cut_s = min((time_s for time_s in times[:2] if time_s is not None), default=now_s)
        since_s = min((time_s for time_s in times if time_s is not None), default=now_s)
        unacked = now_s - cut_s >= _UNACKED_S and (self.up.waiting or self.down.waiting)
        if unacked or (now_s - since_s >= _SILENT_S and self.calls):
            self.break_("keepalive watchdog timeout")

    def break_(self, why: str) -> None:
        """Both ends find the connection gone, at once."""
        self.up.discard()
        self.down.discard()
        for call in list(self.calls):
            call.arrive(connection_lost(why))
        self.calls.clear()


class Dialer:
    """Makes the channels of one client: to be given to the shipped client.

    Args:
        network: Between clients and members.
        client: The client's node.
        servers: The members, by address.
        rng: Decides what of a dead client's requests still arrives.
    """

    def __init__(
        self, network: SimNetwork, client: str, servers: Sequence[Server], rng: Random
    ) -> None:
        self._make = partial(SimChannel, network, client)
        self._servers = {server.host: server for server in servers}
        self._rng = rng
        self.channels: list[SimChannel] = []

    def __call__(self, address: str, pem: Pem | None) -> SimChannel:
        """A channel to one member."""
        channel = self._make(self._servers[address])
        self.channels.append(channel)
        return channel

    def crash(self) -> None:
        """The client's process has died: no call returns any more. Cancel its tasks."""
        for channel in self.channels:
            channel.crash_client(self._rng)
        self.channels.clear()


def _size(payload: Payload) -> int:
    return 0 if isinstance(payload, Refusal) else int(payload.ByteSize())
