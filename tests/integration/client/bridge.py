"""Serves the fake cluster of the unit tests over real gRPC on loopback."""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from grpc_status import rpc_status

from tenure.master.rpc.security import SecurityFiles, ServerSecurity
from tenure.protocol.errors import TenureError, status_of
from tenure.v1 import cluster_pb2, jobs_pb2
from tests.unit.client.fake_master import FakeCluster

_STREAMS = {"StreamSubmits", "StreamResults", "WatchJobs"}
_MESSAGES = {**vars(jobs_pb2), **vars(cluster_pb2)}


class Bridge:
    """A gRPC server in front of one master of a fake cluster.

    Args:
        partitions: How many the cluster has.
        security: Who may call; None: everybody, in plaintext.

    Attributes:
        cluster: The fake behind it.
        address: Where it listens.
    """

    def __init__(self, partitions: int = 1, security: ServerSecurity | None = None) -> None:
        self._partitions = partitions
        self._security = security or ServerSecurity(SecurityFiles())

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server(interceptors=self._security.interceptors())
        credentials = self._security.credentials()
        port = (
            self._server.add_secure_port("127.0.0.1:0", credentials)
            if credentials is not None
            else self._server.add_insecure_port("127.0.0.1:0")
        )
        self.address = f"127.0.0.1:{port}"
        self.cluster = FakeCluster(self._partitions, masters=(self.address,))
        self._server.add_generic_rpc_handlers((_Handler(self),))
        await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._server.stop(None)

    async def unary(self, method: str, request: Any, context: Any) -> Any:
        """Answers a unary call as the fake does."""
        try:
            return await self.cluster.unary(self.address, method, request, object, 5)
        except TenureError as error:
            await context.abort_with_status(rpc_status.to_status(status_of(error)))

    async def stream(self, method: str, requests: Any, context: Any) -> AsyncIterator[Any]:
        """Feeds a stream to the fake and its answers back."""
        stream = self.cluster.stream(self.address, method, object)

        async def feed() -> None:
            async for request in requests:
                await stream.send(request)

        refusal = None
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(feed())
            try:
                async for answer in stream:
                    yield answer
            except TenureError as error:
                refusal = error
            finally:
                feeding.cancel()
        if refusal is not None:
            await context.abort_with_status(rpc_status.to_status(status_of(refusal)))


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def service(self, details: Any) -> Any:
        method = details.method
        name = method.rpartition("/")[2]
        decode = _MESSAGES[f"{name}Request"].FromString
        encode = _MESSAGES[f"{name}Response"].SerializeToString
        if name in _STREAMS:
            # gRPC looks at the function itself to see whether it is an async generator.
            async def stream(requests: Any, context: Any) -> AsyncIterator[Any]:
                async for answer in self._bridge.stream(method, requests, context):
                    yield answer

            return grpc.stream_stream_rpc_method_handler(stream, decode, encode)

        async def unary(request: Any, context: Any) -> Any:
            return await self._bridge.unary(method, request, context)

        return grpc.unary_unary_rpc_method_handler(unary, decode, encode)
