"""Messages on their way to one client's stream: put from anywhere, sent by one writer."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from tenure.protocol.errors import TenureError

T = TypeVar("T")


class Outbox(Generic[T]):
    """An ordered queue with one writer.

    It is bounded by what the peer has asked for: each message answers one of the peer's own.
    """

    def __init__(self) -> None:
        self._messages: deque[T] = deque()
        self._wake = asyncio.Event()
        self._closed = False
        self._error: TenureError | None = None

    def put(self, message: T) -> None:
        """Queues a message."""
        self._messages.append(message)
        self._wake.set()

    def last(self) -> T | None:
        """The last message that is still waiting to be sent: it may be added to."""
        return self._messages[-1] if self._messages else None

    def close(self) -> None:
        """Ends the writer after what is queued. Idempotent."""
        self._closed = True
        self._wake.set()

    def fail(self, error: TenureError) -> None:
        """Ends the writer with an error after what is queued."""
        self._error = self._error or error
        self.close()

    async def write(self, send: Callable[[T], Awaitable[None]]) -> None:
        """Sends until closed.

        Raises:
            TenureError: The outbox was failed with it.
        """
        while True:
            while self._messages:
                await send(self._messages.popleft())
            if self._error is not None:
                raise self._error
            if self._closed:
                return
            self._wake.clear()
            await self._wake.wait()
