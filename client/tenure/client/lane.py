"""One partition's stream to whoever leads it: dialled when there is work, dialled again after a
failover. What flows over it is the subclass's business; it neither sees sockets nor waits.

```
            work               stream ends, is refused, or stalls
  idle ───────────► streaming ────────────────────────────────────► backing off
                        ▲                                               │
                        └──────────── leader found, work left ──────────┘
```
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Final, Generic, TypeVar

from google.protobuf.message import Message

from tenure.client.router import RESEND, Router
from tenure.client.transport import Stream
from tenure.protocol.cancellation import pass_cancellation
from tenure.protocol.errors import TenureError, Unavailable
from tenure.protocol.refusal import Reason

S = TypeVar("S", bound=Message)

#: How often a lane that has work looks for what is overdue.
TICK_S: Final = 0.5


class Lane(ABC, Generic[S]):
    """Dials, writes, reads and dials again.

    Attributes:
        partition: The partition whose leader is called.
        over: It is served no more: nothing that is put in now will be sent.
    """

    #: The bidirectional method.
    method: str
    #: Class of its answers.
    response_type: type[S]

    def __init__(self, router: Router, partition: int) -> None:
        self.partition = partition
        self.over = False
        self.router = router
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._stream: Stream[Message, S] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failures = 0

    @abstractmethod
    def has_work(self) -> bool:
        """Whether something waits to be sent or answered."""

    @abstractmethod
    def take(self) -> Message | None:
        """The next message to send; None: nothing for now."""

    @abstractmethod
    def receive(self, message: S) -> None:
        """Takes an answer.

        Raises:
            TenureError: It ends the stream, which is dialled again.
        """

    @abstractmethod
    def broken(self) -> None:
        """The stream is gone: what it left unanswered must be sent again."""

    @abstractmethod
    def fail(self, error: TenureError) -> None:
        """A refusal for good, or the client closes: nothing that waits can succeed."""

    @abstractmethod
    def overdue(self, now_s: float) -> bool:
        """Gives up what has waited too long; True: the stream has stalled, abandon it."""

    def wake(self) -> None:
        """There is something to send."""
        self._wake.set()
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_S, self._tick)

    async def run(self) -> None:
        """Serves the lane until cancelled."""
        try:
            while True:
                if not self.has_work():
                    self._wake.clear()
                    await self._wake.wait()
                await self._serve_once()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self.over = True
            self.fail(closed())

    async def _serve_once(self) -> None:
        address = ""
        try:
            address = await self.router.leader(self.partition)
            await self._stream_to(address)
        except TenureError as error:
            self.broken()
            if not isinstance(error, Unavailable) or error.reason not in RESEND:
                self.fail(error)
                return
            self._failures += 1
            self.router.lost(self.partition, address, error)
            delay = self.router.topology.backoff_s(self._failures)
            await asyncio.sleep(delay)

    async def _stream_to(self, address: str) -> None:
        """Writes and reads until the stream breaks.

        Raises:
            TenureError: Why it broke.
        """
        stream: Stream[Message, S] = self.router.transport.stream(
            address, self.method, self.response_type
        )
        self._stream = stream
        failure: TenureError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(stream, address))
                await self._write(stream)
        except* TenureError as several:
            failure = first_of(several)
        finally:
            self._stream = None
            stream.cancel()
        pass_cancellation()
        if failure is not None:
            raise failure

    async def _write(self, stream: Stream[Message, S]) -> None:
        while True:
            message = self.take()
            if message is None:
                self._wake.clear()
                await self._wake.wait()
            else:
                await stream.send(message)

    async def _read(self, stream: Stream[Message, S], address: str) -> None:
        async for message in stream:
            self.receive(message)
            self.router.answered(self.partition, address)
            self._failures = 0
            self._wake.set()
        raise Unavailable(
            f"expected the leader of partition {self.partition} to go on, but it ended the stream",
            reason=Reason.UNREACHABLE,
        )

    def _tick(self) -> None:
        self._timer = None
        stalled = self.overdue(self._loop.time())
        if stalled and self._stream is not None:
            self._stream.cancel()
        if self.has_work():
            self._timer = self._loop.call_later(TICK_S, self._tick)


def closed() -> Unavailable:
    """What those who still wait get when the client closes."""
    return Unavailable(
        "expected an answer, but the client was closed; open a new one to ask again",
        reason=Reason.UNREACHABLE,
    )


def first_of(several: BaseExceptionGroup[TenureError]) -> TenureError:
    """The first error of a group, however nested. One whose reason is not UNREACHABLE wins.

    When a reader is told NOT_LEADER, the writer may fail too and knows less of why.
    """
    found: list[TenureError] = []
    stack: list[TenureError | BaseExceptionGroup[TenureError]] = [several]
    while stack:
        error = stack.pop()
        if isinstance(error, TenureError):
            found.append(error)
        else:
            stack.extend(error.exceptions)
    return next((e for e in found if e.reason is not Reason.UNREACHABLE), found[0])
