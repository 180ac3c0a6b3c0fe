"""A simulated network between clients, workers and masters: the transport port in virtual time.

Each call is a connection of its own: two pipes that keep order, each with the delay of its
directed link. A cut link holds what is sent over it, as TCP does; if it stays cut for
``KEEPALIVE_S``, both ends find their calls broken, as gRPC's pings would tell them. What travels is
serialized and parsed, so nobody shares an object.

```
 client ──bytes──► pipe (delay; held while cut) ──► server's inbox ──► method of the master's table
    ▲                                                                         │
    └───────── inbox ◄── pipe ◄──── bytes, then the status ◄──────────────────┘
```
All randomness comes from one seeded ``random.Random``: the same program runs the same way again.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Any, Final, Generic, NamedTuple, TypeVar, TypeVarTuple, assert_never

from google.protobuf.message import Message
from google.rpc import status_pb2

from tenure.master.node.method import Bidi, Method, ServerStream, Unary, answer_of, first_of
from tenure.protocol.errors import TenureError, Unavailable, error_from_status, status_of
from tenure.protocol.refusal import Reason
from tenure.testing.process import Process

M = TypeVar("M", bound=Message)
Ts = TypeVarTuple("Ts")

#: A peer that does not answer for so long is given up: ping interval + ping timeout (DESIGN §16).
KEEPALIVE_S: Final = 7.0
#: After its stream broke, a handler is cancelled at most so much later than it reads the end.
_CANCEL_LAG_S: Final = 0.05


class _Kind(Enum):
    OPEN = "open"  #: the call begins
    DATA = "data"  #: one message
    END = "end"  #: the sender has said all; from a server with the call's status
    RESET = "reset"  #: the connection is gone


class _Frame(NamedTuple):
    kind: _Kind
    data: bytes = b""


_RESET: Final = _Frame(_Kind.RESET)


@dataclass(slots=True)
class Link:
    """One direction between two nodes.

    Attributes:
        delay_ms: Least and greatest delay of a message.
        loss: The chance of each message to break its call instead of arriving.
        cut_since_s: Since when nothing gets through; None: it does.
    """

    delay_ms: tuple[float, float]
    loss: float = 0.0
    cut_since_s: float | None = None
    held: "list[_Pipe]" = field(default_factory=list)


class _Inbox:
    """One end of a call: what has arrived there and was not read yet."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._event = asyncio.Event()
        self.ended = False
        self.error: TenureError | None = None

    def put(self, data: bytes) -> None:
        if not self.ended:
            self._messages.append(data)
            self._event.set()

    def end(self, error: TenureError | None = None) -> None:
        if not self.ended:
            self.ended = True
            self.error = error
            self._event.set()

    def abandon(self, error: TenureError) -> None:
        """The reader itself ends the call: what was not read will not be."""
        self.end(error)
        self._messages.clear()

    async def read(self) -> bytes | None:
        """The next message; None: the peer has ended the call in order."""
        while not self._messages:
            if self.ended:
                if self.error is not None:
                    raise self.error
                return None
            self._event.clear()
            await self._event.wait()
        return self._messages.popleft()


class _Pipe:
    """One direction of one call: what is sent arrives in order."""

    def __init__(
        self, network: "SimNetwork", link: Link, deliver: Callable[[_Frame], None]
    ) -> None:
        self._network = network
        self._link = link
        self._deliver = deliver
        self._frames: deque[_Frame] = deque()
        self._due: deque[float] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._held = False
        #: Nothing more is sent, but perhaps the news that the connection is gone.
        self.closed = False
        self._reset = False

    def send(self, frame: _Frame) -> None:
        """Puts a frame on its way. After END only RESET is, and after that nothing."""
        if self._reset or (self.closed and frame.kind is not _Kind.RESET):
            return
        self._reset = frame.kind is _Kind.RESET
        self.closed = frame.kind in (_Kind.END, _Kind.RESET)
        last_s = self._due[-1] if self._due else 0.0
        self._frames.append(frame)
        self._due.append(max(last_s, self._network.now_s() + self._network.delay_s(self._link)))
        self._arm()

    def lose_tail(self, rng: Random) -> None:
        """The sender has died: of what is on its way, only some first part arrives."""
        kept = rng.randint(0, len(self._frames))
        while len(self._frames) > kept:
            self._frames.pop()
            self._due.pop()
        self._reset = False
        self.send(_RESET)

    def resume(self) -> None:
        """The link is whole again."""
        self._held = False
        self._arm()

    def discard(self) -> None:
        """Nothing arrives any more."""
        self.closed = self._reset = True
        self._frames.clear()
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is None and self._frames and not self._held:
            self._timer = self._network.call_at(self._due[0], self._arrive)

    def _arrive(self) -> None:
        self._timer = None
        if self._link.cut_since_s is not None:
            self._held = True
            self._link.held.append(self)
            return
        now_s = self._network.now_s()
        while self._frames and self._due[0] <= now_s:
            self._due.popleft()
            self._deliver(self._frames.popleft())
        self._arm()


class _Call:
    """One call, with both its ends."""

    def __init__(
        self, network: "SimNetwork", client: str, server: str, method: str, deadline_s: float | None
    ) -> None:
        self.network = network
        self.client = client
        self.server = server
        self.method = method
        self.opened_s = network.now_s()
        #: What has arrived at the client.
        self.answers = _Inbox()
        self._requests = _Inbox()
        self.up = _Pipe(network, network.link(client, server), self._at_server)
        self.down = _Pipe(network, network.link(server, client), self._at_client)
        self._handler: asyncio.Task[None] | None = None
        self.up.send(_Frame(_Kind.OPEN))
        if deadline_s is not None:
            network.call_at(self.opened_s + deadline_s, self._drop_server)

    @property
    def over(self) -> bool:
        """Whether neither end can learn anything more."""
        return self.answers.ended and self._requests.ended

    # What the client does.

    def send(self, message: Message) -> None:
        """Sends a request, unless the link's bad luck breaks the call.

        Raises:
            TenureError: The call has ended.
        """
        if self.answers.ended:
            raise self.answers.error or self.gone()
        if self.network.loses(self.client, self.server):
            self.break_()
            raise self.gone()
        self.up.send(_Frame(_Kind.DATA, message.SerializeToString()))

    def cancel(self) -> None:
        """The client gives the call up."""
        self.answers.abandon(self.gone())
        self.up.send(_RESET)

    # What the network does.

    def break_(self) -> None:
        """Both ends find the connection gone, at once."""
        self.up.discard()
        self.down.discard()
        self.answers.end(self.gone())
        self._drop_server()

    def crash_client(self) -> None:
        """The client's process has died."""
        self.answers.end(self.gone())
        self.down.discard()
        self.up.lose_tail(self.network.rng)

    def crash_server(self) -> None:
        """The server's process has died."""
        self._requests.end()
        self.up.discard()
        self.down.lose_tail(self.network.rng)

    def _at_client(self, frame: _Frame) -> None:
        match frame.kind:
            case _Kind.DATA:
                self.answers.put(frame.data)
            case _Kind.END if frame.data:
                status = status_pb2.Status.FromString(frame.data)
                self.answers.end(error_from_status(status))
            case _Kind.END:
                self.answers.end()
            case _Kind.RESET:
                self.answers.end(self.gone())
            case _Kind.OPEN:
                raise ValueError("expected only clients to open calls")

    def _at_server(self, frame: _Frame) -> None:
        match frame.kind:
            case _Kind.OPEN:
                self._meet()
            case _Kind.DATA:
                self._requests.put(frame.data)
            case _Kind.END:
                self._requests.end()
            case _Kind.RESET:
                self._drop_server()

    # What the server does.

    def _meet(self) -> None:
        listener = self.network.listener(self.server)
        method = None if listener is None else listener.methods.get(self.method)
        if listener is not None and method is not None:
            name = f"{self.server}{self.method}"
            self._handler = listener.process.spawn(self._handle(method), name)
        if self._handler is None:
            self._requests.end()
            self.down.send(_RESET)

    async def _handle(self, method: Method) -> None:
        try:
            await self._serve(method)
        except Exception as error:  # noqa: BLE001 - every failure becomes a status
            if not self.down.closed:
                self._fail(error)
        else:
            self.down.send(_Frame(_Kind.END))
        finally:
            self._requests.end()
            if not self.down.closed:
                # It was cancelled, and says nothing in order.
                self.down.send(_RESET)

    def _fail(self, error: Exception) -> None:
        answer = answer_of(error)
        if answer is not first_of(error):
            self.network.failures.append(error)
        self.down.send(_Frame(_Kind.END, status_of(answer).SerializeToString()))

    async def _serve(self, method: Method) -> None:
        match method:
            case Bidi():
                await method.serve(self._read(method), self._answer)
            case Unary() | ServerStream():
                data = await self._requests.read()
                if data is None:
                    return
                request = method.request_type.FromString(data)
                if isinstance(method, Unary):
                    await self._answer(await method.serve(request))
                else:
                    await method.serve(request, self._answer)
            case _:
                assert_never(method)

    async def _read(self, method: Bidi) -> AsyncIterator[Message]:
        while (data := await self._requests.read()) is not None:
            yield method.request_type.FromString(data)

    async def _answer(self, message: Message) -> None:
        if self.down.closed:
            # What grpc.aio raises for a write to a call that has ended.
            raise asyncio.InvalidStateError("the call has ended")
        if self.network.loses(self.server, self.client):
            self.break_()
            raise asyncio.InvalidStateError("the call has ended")
        self.down.send(_Frame(_Kind.DATA, message.SerializeToString()))

    def _drop_server(self) -> None:
        """The server's end is gone. Its handler reads an end, and is cancelled, in either order."""
        self._requests.end()
        self.down.closed = True
        if self._handler is not None and not self._handler.done():
            lag_s = self.network.rng.choice((0.0, self.network.rng.uniform(0, _CANCEL_LAG_S)))
            self.network.call_at(self.network.now_s() + lag_s, self._cancel_handler)

    def _cancel_handler(self) -> None:
        if self._handler is not None:
            self._handler.cancel()

    def gone(self) -> Unavailable:
        """What the client is told when there is nobody at the other end."""
        return Unavailable(
            f"expected to reach {self.server}, but the connection is gone; is a master running "
            "there?",
            reason=Reason.UNREACHABLE,
            metadata={"address": self.server},
        )


class _Listener(NamedTuple):
    process: Process
    methods: Mapping[str, Method]


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
        self._loop = asyncio.get_running_loop()
        self._delay_ms = delay_ms
        self._links: dict[tuple[str, str], Link] = {}
        self._listeners: dict[str, _Listener] = {}
        self._stalled: dict[str, float] = {}
        self._calls: dict[int, _Call] = {}
        self._last_call = 0
        self._transports: dict[str, list[SimTransport]] = {}
        #: Nothing of the network belongs to a process, so that none takes it along when it freezes.
        self._context = contextvars.Context()

    # Nodes.

    def listen(self, node: str, process: Process, methods: Mapping[str, Method]) -> None:
        """A server accepts calls: ``methods`` by their full names, handlers in ``process``."""
        self._listeners[node] = _Listener(process, methods)

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
        """Every link gets everything through."""
        for (source, target), link in list(self._links.items()):
            link.loss = 0.0
            self.heal(source, target)

    def break_calls(self, node: str, other: str) -> None:
        """Resets all connections between two nodes."""
        for call in list(self._calls.values()):
            if {call.client, call.server} == {node, other}:
                call.break_()

    # For calls.

    def open(self, client: str, server: str, method: str, deadline_s: float | None) -> _Call:
        """A new call; it is remembered until neither end can learn anything more."""
        for number, known in list(self._calls.items()):
            if known.over:
                del self._calls[number]
        call = _Call(self, client, server, method, deadline_s)
        self._last_call += 1
        self._calls[self._last_call] = call
        if self._silent_since_s(call) is not None:
            self._sweep_later()
        return call

    def listener(self, node: str) -> _Listener | None:
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
        return loss > 0 and self.rng.random() < loss

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

    def _silent_since_s(self, call: _Call) -> float | None:
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
        self._open: dict[_Call, None] = {}
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

    async def close(self) -> None:
        self._closed = True
        for call in list(self._open):
            call.cancel()
        self._open.clear()

    def _dial(self, address: str, method: str, deadline_s: float | None) -> _Call:
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

    def __init__(self, call: _Call, response_type: type[M], forget: Callable[[], object]) -> None:
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
        self._call.up.send(_Frame(_Kind.END))

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
