"""The transport port: how clients and workers reach a master.

Adapters: ``tenure.client.channel`` (grpc.aio) and the simulated one in ``tenure.testing``.
"""

from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

from google.protobuf.message import Message

Q = TypeVar("Q", bound=Message, contravariant=True)
S = TypeVar("S", bound=Message, covariant=True)
M = TypeVar("M", bound=Message)


class Stream(Protocol[Q, S]):
    """A bidirectional stream. One task reads, one task writes."""

    async def send(self, message: Q) -> None:
        """Sends one message.

        Raises:
            TenureError: The stream is broken.
        """

    def __aiter__(self) -> AsyncIterator[S]:
        """Messages until the peer ends the stream cleanly.

        Raises:
            TenureError: The call failed: the error it carries, or Unavailable.
        """
        ...

    async def close_sending(self) -> None:
        """Half-close: nothing more will be sent."""

    def cancel(self) -> None:
        """Abandons the call at once. Idempotent."""


class Transport(Protocol):
    """Calls to any master by address. Safe for many calls at once from one event loop."""

    async def unary(
        self, address: str, method: str, request: Message, response_type: type[M], timeout_s: float
    ) -> M:
        """One call.

        Args:
            address: ``HOST:PORT``.
            method: For example ``"/tenure.v1.JobService/GetJob"``.
            request: The message.
            response_type: Class of the answer.
            timeout_s: Deadline of the call.

        Raises:
            TenureError: What the master refused, or Unavailable when it cannot be reached.
        """
        ...

    def stream(self, address: str, method: str, response_type: type[M]) -> Stream[Message, M]:
        """Opens a bidirectional (or, after ``close_sending``, server-side) stream."""
        ...

    def forget(self, address: str) -> None:
        """Lets go of what is kept for an address: there is no master any more. Calls go on."""

    async def close(self) -> None:
        """Cancels what is open and closes all connections. Idempotent."""
