"""gRPC as the pipe uses it: channel options, raw handlers, and one writer per stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

import grpc
import grpc.aio

M = TypeVar("M")

#: Rows of one kind in a message: enough to make the cost of the message itself small.
BATCH_ROWS: Final = 256

_COMMON: Final = (
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
)
CLIENT_OPTIONS: Final = (
    *_COMMON,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
SERVER_OPTIONS: Final = (
    *_COMMON,
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
)

SUBMITS: Final = "/tenure.v1.JobService/StreamSubmits"
RESULTS: Final = "/tenure.v1.JobService/StreamResults"
SESSION: Final = "/tenure.v1.WorkerService/Session"


class Sender(Generic[M]):
    """The one writer of a stream: sends whatever `fill` has, each time it is woken.

    What gathers while a write is under way leaves in the next message, so batches grow with load.
    """

    def __init__(self, write: Callable[[M], Awaitable[Any]], fill: Callable[[], M | None]) -> None:
        self._write = write
        self._fill = fill
        self._some = asyncio.Event()

    def wake(self) -> None:
        """There may be something to send."""
        self._some.set()

    async def run(self) -> None:
        """Sends until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            # What else this turn of the loop brings travels in the same message.
            await asyncio.sleep(0)
            while (message := self._fill()) is not None:
                await self._write(message)


def open_stream(channel: grpc.aio.Channel, method: str, response_type: Any) -> Any:
    """A bidirectional call that takes messages and returns messages of the given type."""
    return channel.stream_stream(
        method,
        request_serializer=_serialize,
        response_deserializer=response_type.FromString,
    )()


def service(name: str, **streams: Any) -> grpc.GenericRpcHandler:
    """A service of bidirectional streams whose handlers get requests as raw bytes."""
    handlers: dict[str, Any] = {
        method: grpc.stream_stream_rpc_method_handler(behaviour, response_serializer=_serialize)
        for method, behaviour in streams.items()
    }
    return grpc.method_handlers_generic_handler(f"tenure.v1.{name}", handlers)


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
