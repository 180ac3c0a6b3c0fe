"""The master's listener: grpc.aio servicers that hand messages to the node's services.

Handlers hold no logic. An error raised by a service becomes a status with exactly one ErrorInfo;
its reason, and the leader that NOT_LEADER names, are in plain trailing metadata too.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, assert_never

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tenure.master.node.master import Master
from tenure.master.node.method import (
    PACKAGE,
    Bidi,
    Method,
    Send,
    ServerStream,
    Unary,
    answer_of,
    services,
)
from tenure.master.rpc.health import HealthServicer
from tenure.master.rpc.security import SecurityFiles, ServerSecurity
from tenure.master.rpc.status import abort
from tenure.protocol.errors import Rejected, first_of
from tenure.protocol.refusal import Reason
from tenure.v1 import (
    batches_pb2,
    cluster_pb2,
    jobs_pb2,
    partition_pb2,
    queues_pb2,
    schedules_pb2,
    worker_pb2,
    workers_pb2,
    workflows_pb2,
)

_log = logging.getLogger(__name__)

_Context = Any
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

#: Pings find a frozen peer; two servers must never share a port silently.
_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
)
_SERVICES: Final = (
    batches_pb2,
    cluster_pb2,
    jobs_pb2,
    partition_pb2,
    queues_pb2,
    schedules_pb2,
    worker_pb2,
    workers_pb2,
    workflows_pb2,
)
_GRACE_S: Final = 0.5


class RpcServer:
    """Listens for clients and workers.

    Args:
        host: A loopback address, or one that the operator allowed.
        port: 0 takes a free one.
        security: Who may call; None: everybody who can reach the port, in plaintext.
    """

    def __init__(self, host: str, port: int, security: ServerSecurity | None = None) -> None:
        self._host = host
        self.port = port
        self._security = security or ServerSecurity(SecurityFiles())
        self._server: grpc.aio.Server | None = None

    async def bind(self) -> None:
        """Takes the port.

        Raises:
            Rejected: ADDRESS_IN_USE.
        """
        self._server = server = grpc.aio.server(
            interceptors=self._security.interceptors(), options=_OPTIONS
        )
        address, credentials = f"{self._host}:{self.port}", self._security.credentials()
        try:
            if credentials is None:
                self.port = server.add_insecure_port(address)
            else:
                self.port = server.add_secure_port(address, credentials)
        except RuntimeError:
            raise Rejected(
                f"expected to listen on {self._host}:{self.port}, but the address is in use or "
                "not this machine's; stop what listens there, or give another --listen",
                reason=Reason.ADDRESS_IN_USE,
                metadata={"listen": f"{self._host}:{self.port}"},
                field="listen",
            ) from None

    async def start(self, master: Master) -> None:
        """Serves a master's services, health and reflection."""
        server = self._server
        if server is None:
            raise RuntimeError("expected bind() before start()")
        server.add_generic_rpc_handlers(tuple(_handlers(master)))
        health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(master.health), server)
        names = [s.full_name for m in _SERVICES for s in m.DESCRIPTOR.services_by_name.values()]
        reflection.enable_server_reflection(
            [*names, reflection.SERVICE_NAME, health.SERVICE_NAME], server
        )
        await server.start()

    async def stop(self) -> None:
        """Stops; open streams are cut after a short grace. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(_GRACE_S)


def _handlers(master: Master) -> list[grpc.GenericRpcHandler]:
    return [
        grpc.method_handlers_generic_handler(
            f"{PACKAGE}.{service}", {name: _handler(method) for name, method in methods.items()}
        )
        for service, methods in services(master).items()
    ]


def _handler(method: Method) -> _Handler:
    parse = method.request_type.FromString
    match method:
        case Unary():
            return grpc.unary_unary_rpc_method_handler(
                _unary(method), request_deserializer=parse, response_serializer=_serialize
            )
        case ServerStream():
            return grpc.unary_stream_rpc_method_handler(
                _streaming(method.serve), request_deserializer=parse, response_serializer=_serialize
            )
        case Bidi():
            return grpc.stream_stream_rpc_method_handler(
                _streaming(method.serve), request_deserializer=parse, response_serializer=_serialize
            )
        case _:
            assert_never(method)


def _unary(method: Unary) -> Callable[[Any, _Context], Awaitable[Message]]:
    async def handle(request: Any, context: _Context) -> Message:
        try:
            return await method.serve(request)
        except Exception as error:
            await _abort(context, error)
            raise

    return handle


def _streaming(
    serve: Callable[[Any, Send], Awaitable[None]],
) -> Callable[[Any, _Context], Awaitable[None]]:
    async def handle(requests: Any, context: _Context) -> None:
        try:
            # By itself it would go with the first message; and where the write of that is
            # cancelled, gRPC takes it for unsent, refuses the status after it, and leaves the
            # caller waiting.
            await context.send_initial_metadata(())
            await serve(requests, context.write)
        except Exception as error:  # noqa: BLE001 - every failure becomes a status
            await _abort(context, error)

    return handle


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


async def _abort(context: _Context, error: Exception) -> None:
    found = first_of(error)
    if isinstance(found, grpc.RpcError | asyncio.InvalidStateError | grpc.aio.UsageError):
        # The peer went away while something was being written to it.
        _log.debug("A call ended early: %s", found, extra={"action": "call_ended"})
        raise found
    await abort(context, answer_of(error))
