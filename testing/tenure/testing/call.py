"""One simulated call: two pipes that keep order, an inbox at each end, and the server's handler.

```
 client ──bytes──► pipe (delay; held while cut) ──► server's inbox ──► method of the master's table
    ▲                                                                         │
    └───────── inbox ◄── pipe ◄──── bytes, then the status ◄──────────────────┘
```
What travels is serialized and parsed, so nobody shares an object.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Final, NamedTuple, Protocol, TypeVarTuple, assert_never

from google.protobuf.message import Message
from google.rpc import status_pb2

from tenure.master.node.method import (
    Bidi,
    Method,
    ServerStream,
    Unary,
    answer_of,
)
from tenure.protocol.errors import (
    TenureError,
    Unavailable,
    error_from_status,
    first_of,
    status_of,
)
from tenure.protocol.refusal import Reason
from tenure.testing.process import Process

Ts = TypeVarTuple("Ts")

#: After its stream broke, a handler is cancelled at most so much later than it reads the end.
_CANCEL_LAG_S: Final = 0.05
#: A request that is served again is served at most so much later.
_REPEAT_LAG_S: Final = 10.0


class Kind(Enum):
    """What a frame says."""

    OPEN = "open"  #: the call begins
    DATA = "data"  #: one message
    END = "end"  #: the sender has said all; from a server with the call's status
    RESET = "reset"  #: the connection is gone


class Frame(NamedTuple):
    """What travels: a message, or news of the call itself."""

    kind: Kind
    data: bytes = b""
    #: It breaks its call where it arrives.
    doomed: bool = False


END: Final = Frame(Kind.END)
RESET: Final = Frame(Kind.RESET)


class Held(Protocol):
    """What waits at a cut link."""

    def resume(self) -> None:
        """The link is whole again."""


@dataclass(slots=True)
class Link:
    """One direction between two nodes.

    Attributes:
        delay_ms: Least and greatest delay of a message.
        loss: The chance of each message to break its call instead of arriving.
        repeat: The chance of each unary request to be served a second time, a little later: its
            answer is lost, as that of a call whose client has tried again.
        bytes_per_s: What goes over it at most; None: everything at once.
        fuse_bytes: The message that brings what arrives above so many bytes breaks its call
            instead, once; None: none does.
        dooms: Asked of each message that is sent: one that it picks breaks its call where it would
            arrive; None: none does.
        cut_since_s: Since when nothing gets through; None: it does.
        sent: How many messages were sent over it.
        broken: How many of them have broken their calls.
        repeated: How many requests were served a second time.
    """

    delay_ms: tuple[float, float]
    loss: float = 0.0
    repeat: float = 0.0
    bytes_per_s: float | None = None
    fuse_bytes: int | None = None
    dooms: "Callable[[Message], bool] | None" = None
    cut_since_s: float | None = None
    sent: int = 0
    broken: int = 0
    repeated: int = 0
    held: "list[Held]" = field(default_factory=list)
    #: When what was sent over it has left, if that takes time.
    busy_until_s: float = 0.0
    #: Told of what the source hands over, before it leaves.
    on_send: "Callable[[object], None] | None" = None

    def sent_s(self, now_s: float, size: int) -> float:
        """When so many bytes have left, that are given to it now."""
        if self.bytes_per_s is None:
            return now_s
        self.busy_until_s = max(self.busy_until_s, now_s) + size / self.bytes_per_s
        return self.busy_until_s

    def blows(self, size: int) -> bool:
        """Whether so many bytes are too many for its fuse."""
        if self.fuse_bytes is None:
            return False
        self.fuse_bytes -= size
        if self.fuse_bytes >= 0:
            return False
        self.fuse_bytes = None
        self.broken += 1
        return True


class Listener(NamedTuple):
    """A server: the process that its handlers run in, and its methods by their full names."""

    process: Process
    methods: Mapping[str, Method]


#: Told of each message that a server's handler reads or sends, at that moment.
Tap = Callable[["Call", Message], None]


class Wires(Protocol):
    """What a call needs of the network."""

    rng: Random
    failures: list[Exception]
    delivered: int
    tap: Tap | None

    def link(self, source: str, target: str) -> Link:
        """The link from one node to another."""

    def listener(self, node: str) -> Listener | None:
        """Who listens there."""

    def now_s(self) -> float:
        """The loop's time."""

    def delay_s(self, link: Link) -> float:
        """How long the next message takes."""

    def loses(self, source: str, target: str) -> bool:
        """Whether the next message breaks its call."""

    def call_at(
        self, when_s: float, callback: Callable[[*Ts], object], *args: *Ts
    ) -> asyncio.TimerHandle:
        """A timer of the network's own."""


class Inbox:
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


class Pipe:
    """One direction of one call: what is sent arrives in order."""

    def __init__(
        self,
        network: Wires,
        link: Link,
        deliver: Callable[[Frame], None],
        break_: Callable[[], None],
    ) -> None:
        self._network = network
        self._link = link
        self._deliver = deliver
        self._break = break_
        self._frames: deque[Frame] = deque()
        self._due: deque[float] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._held = False
        #: Nothing more is sent, but perhaps the news that the connection is gone.
        self.closed = False
        self._reset = False

    def send(self, frame: Frame) -> None:
        """Puts a frame on its way. After END only RESET is, and after that nothing."""
        if self._reset or (self.closed and frame.kind is not Kind.RESET):
            return
        self._reset = frame.kind is Kind.RESET
        self.closed = frame.kind in (Kind.END, Kind.RESET)
        last_s = self._due[-1] if self._due else 0.0
        self._link.sent += frame.kind is Kind.DATA
        self._frames.append(frame)
        sent_s = self._link.sent_s(self._network.now_s(), len(frame.data))
        self._due.append(max(last_s, sent_s + self._network.delay_s(self._link)))
        self._arm()

    def say(self, message: Message) -> None:
        """Puts a message on its way."""
        dooms = self._link.dooms
        doomed = dooms is not None and dooms(message)
        self.send(Frame(Kind.DATA, message.SerializeToString(), doomed))

    def lose_tail(self, rng: Random) -> None:
        """The sender has died: of what is on its way, only some first part arrives."""
        kept = rng.randint(0, len(self._frames))
        while len(self._frames) > kept:
            self._frames.pop()
            self._due.pop()
        self._reset = False
        self.send(RESET)

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
            frame = self._frames.popleft()
            if frame.kind is Kind.DATA:
                if frame.doomed or self._link.blows(len(frame.data)):
                    self._link.broken += frame.doomed
                    self._break()
                    return
                self._network.delivered += 1
            self._deliver(frame)
        self._arm()


class Call:
    """One call, with both its ends."""

    def __init__(
        self, network: Wires, client: str, server: str, method: str, deadline_s: float | None
    ) -> None:
        self.network = network
        self.client = client
        self.server = server
        self.method = method
        self.opened_s = network.now_s()
        #: What has arrived at the client.
        self.answers = Inbox()
        self._requests = Inbox()
        self.up = Pipe(network, network.link(client, server), self._at_server, self.break_)
        self.down = Pipe(network, network.link(server, client), self._at_client, self.break_)
        self._handler: asyncio.Task[None] | None = None
        self.up.send(Frame(Kind.OPEN))
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
        self.up.say(message)

    def cancel(self) -> None:
        """The client gives the call up."""
        self.answers.abandon(self.gone())
        self.up.send(RESET)

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

    def _at_client(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.DATA:
                self.answers.put(frame.data)
            case Kind.END if frame.data:
                status = status_pb2.Status.FromString(frame.data)
                self.answers.end(error_from_status(status))
            case Kind.END:
                self.answers.end()
            case Kind.RESET:
                self.answers.end(self.gone())
            case Kind.OPEN:
                raise ValueError("expected only clients to open calls")

    def _at_server(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.OPEN:
                self._meet()
            case Kind.DATA:
                self._requests.put(frame.data)
            case Kind.END:
                self._requests.end()
            case Kind.RESET:
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
            self.down.send(RESET)

    async def _handle(self, method: Method) -> None:
        try:
            await self._serve(method)
        except Exception as error:  # noqa: BLE001 - every failure becomes a status
            if not self.down.closed:
                self._fail(error)
        else:
            self.down.send(Frame(Kind.END))
        finally:
            self._requests.end()
            if not self.down.closed:
                # It was cancelled, and says nothing in order.
                self.down.send(RESET)

    def _fail(self, error: Exception) -> None:
        answer = answer_of(error)
        if answer is not first_of(error):
            self.network.failures.append(error)
        self.down.send(Frame(Kind.END, status_of(answer).SerializeToString()))

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
                    self._repeat(method, data)
                    await self._answer(await method.serve(request))
                else:
                    await method.serve(request, self._answer)
            case _:
                assert_never(method)

    def _repeat(self, method: Unary, data: bytes) -> None:
        """Perhaps serves a request once more, later."""
        network = self.network
        chance = network.link(self.client, self.server).repeat
        listener = network.listener(self.server)
        if listener is not None and chance > 0 and network.rng.random() < chance:
            network.link(self.client, self.server).repeated += 1
            lag_s = network.rng.uniform(0, _REPEAT_LAG_S)
            work = self._serve_again(method, data, lag_s)
            listener.process.spawn(work, f"{self.server}{self.method} again")

    async def _serve_again(self, method: Unary, data: bytes, lag_s: float) -> None:
        await asyncio.sleep(lag_s)
        try:
            await method.serve(method.request_type.FromString(data))
        except Exception as error:  # noqa: BLE001 - nobody is told of it, but bugs are remembered
            if answer_of(error) is not first_of(error):
                self.network.failures.append(error)

    async def _read(self, method: Bidi) -> AsyncIterator[Message]:
        tap = self.network.tap
        while (data := await self._requests.read()) is not None:
            message = method.request_type.FromString(data)
            if tap is not None:
                tap(self, message)
            yield message

    async def _answer(self, message: Message) -> None:
        if self.network.tap is not None:
            self.network.tap(self, message)
        if self.down.closed:
            # What grpc.aio raises for a write to a call that has ended.
            raise asyncio.InvalidStateError("the call has ended")
        if self.network.loses(self.server, self.client):
            self.break_()
            raise asyncio.InvalidStateError("the call has ended")
        self.down.say(message)

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
