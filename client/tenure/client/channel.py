"""The grpc.aio adapter of the transport port.

Two channels to each address: long streams and unary calls do not share one, so neither waits for
the other's flow control. gRPC's own retries are off: who calls knows what may be sent again.

A changed certificate gets new channels. An old one, or that of an address that was forgotten, is
only let go: gRPC closes it when nobody holds it any more, and calls that are open on it go on.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, Generic, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from tenure.client import fork
from tenure.client.security import Credentials
from tenure.protocol.cancellation import pass_cancellation
from tenure.protocol.errors import TenureError, Unavailable, error_from_rpc
from tenure.protocol.refusal import Reason
from tenure.protocol.tls import Pem

M = TypeVar("M", bound=Message)

#: A frozen peer is found after 5 + 2 seconds; keepalive alone would wait 60 s for the ping.
CHANNEL_OPTIONS: Final[list[tuple[str, Any]]] = [
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 0),
    # Without its own pool the stream channel would share its connection with the unary one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
]


#: The least time that gRPC gives a connection to be made: a handshake takes round trips and work.
_TLS_OPTIONS: Final[list[tuple[str, Any]]] = [
    *((key, value) for key, value in CHANNEL_OPTIONS if key != "grpc.min_reconnect_backoff_ms"),
    ("grpc.min_reconnect_backoff_ms", 1_000),
]
#: The name of gRPC's task that waits for a call's end.
_CALL: Final = "_handle_status_once_received"
_CALLS_OVER_S: Final = 0.1

#: A channel, and the certificates it was made with.
_Line = tuple[grpc.aio.Channel, Pem | None]


class GrpcTransport:
    """Calls masters over gRPC. Use it from one event loop.

    Args:
        credentials: Certificates and token; None: those of the environment.
    """

    def __init__(self, credentials: Credentials | None = None) -> None:
        self._credentials = credentials or Credentials()
        self._unary: dict[str, _Line] = {}
        self._streams: dict[str, _Line] = {}
        self._closed = False

    async def unary(
        self, address: str, method: str, request: Message, response_type: type[M], timeout_s: float
    ) -> M:
        channel = self._channel(self._unary, address)
        call = channel.unary_unary(
            method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response_type.FromString,
        )(
            request,
            timeout=max(timeout_s, 0.001),
            metadata=self._credentials.metadata(address),
        )
        try:
            response: M = await call
        except grpc.aio.AioRpcError as error:
            failure = error_from_rpc(error, address=address)
            raise await self._credentials.explained(failure, address) from None
        finally:
            call.cancel()
        return response

    def stream(self, address: str, method: str, response_type: type[M]) -> "GrpcStream[M]":
        channel = self._channel(self._streams, address)
        call = channel.stream_stream(
            method,
            request_serializer=_serialize,
            response_deserializer=response_type.FromString,
        )(metadata=self._credentials.metadata(address))
        return GrpcStream(call, address, self._credentials)

    def forget(self, address: str) -> None:
        self._unary.pop(address, None)
        self._streams.pop(address, None)
        self._credentials.forget(address)

    async def close(self) -> None:
        self._closed = True
        channels = [*self._unary.values(), *self._streams.values()]
        self._unary.clear()
        self._streams.clear()
        for channel, _ in channels:
            await channel.close()
        if channels:
            await _calls_over()

    def _channel(self, pool: dict[str, _Line], address: str) -> grpc.aio.Channel:
        if self._closed:
            raise Unavailable(
                "expected an open client, but it was closed; make a new one",
                reason=Reason.UNREACHABLE,
            )
        fork.claim()
        pem = self._credentials.pem()
        line = pool.get(address)
        if line is None or line[1] is not pem:
            line = pool[address] = _dialled(address, pem), pem
        return line[0]


async def _calls_over() -> None:
    """Waits until gRPC is done with calls that were cancelled.

    It ends each in a task of its own, and what ends there must find the loop open: else the next
    loop of the process gets it, and logs "Event loop is closed" (grpc#25364). Calls of another
    open transport do not end, so the wait has a bound.
    """
    ending = [
        task
        for task in asyncio.all_tasks()
        if _CALL in getattr(task.get_coro(), "__qualname__", "")
    ]
    if ending:
        await asyncio.wait(ending, timeout=_CALLS_OVER_S)


def _dialled(address: str, pem: Pem | None) -> grpc.aio.Channel:
    if pem is None:
        return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(pem.ca, pem.key, pem.cert)
    return grpc.aio.secure_channel(address, credentials, options=_TLS_OPTIONS)


class GrpcStream(Generic[M]):
    """One bidirectional call."""

    def __init__(self, call: Any, address: str, credentials: Credentials) -> None:
        self._call = call
        self._address = address
        self._credentials = credentials
        self._abandoned = False

    async def send(self, message: Message) -> None:
        try:
            await self._call.write(message)
        except grpc.aio.AioRpcError as error:
            raise await self._explained(error) from None
        except asyncio.InvalidStateError:
            # grpc.aio says "already finished" to a late write; the status says why it finished.
            raise await self._failure() from None
        except asyncio.CancelledError:
            pass_cancellation()
            raise self._gone() from None

    def __aiter__(self) -> AsyncIterator[M]:
        return self._read()

    async def _read(self) -> AsyncIterator[M]:
        while True:
            try:
                message = await self._call.read()
            except grpc.aio.AioRpcError as error:
                raise await self._explained(error) from None
            except asyncio.CancelledError:
                pass_cancellation()
                raise self._gone() from None
            if message is grpc.aio.EOF:
                return
            yield message

    async def close_sending(self) -> None:
        try:
            await self._call.done_writing()
        except grpc.aio.AioRpcError as error:
            raise await self._explained(error) from None
        except asyncio.InvalidStateError:
            raise await self._failure() from None

    def cancel(self) -> None:
        self._abandoned = True
        self._call.cancel()

    async def _failure(self) -> TenureError:
        if self._abandoned:
            return self._gone()
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            return self._gone()
        return await self._explained(
            grpc.aio.AioRpcError(
                code,
                await self._call.initial_metadata() or grpc.aio.Metadata(),
                await self._call.trailing_metadata() or grpc.aio.Metadata(),
                await self._call.details(),
            )
        )

    async def _explained(self, error: grpc.aio.AioRpcError) -> TenureError:
        failure = error_from_rpc(error, address=self._address)
        return await self._credentials.explained(failure, self._address)

    def _gone(self) -> Unavailable:
        return Unavailable(
            f"expected an open stream to {self._address}, but it has ended",
            reason=Reason.UNREACHABLE,
            metadata={"address": self._address},
        )


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
