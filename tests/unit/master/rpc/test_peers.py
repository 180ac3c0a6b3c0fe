"""Calls among masters over real gRPC: whom they trust, what they show, what errors come back as."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from tenure.master.rpc.peers import GrpcPeers
from tenure.master.rpc.security import SecurityFiles, ServerSecurity
from tenure.master.rpc.status import abort
from tenure.protocol.errors import LEADER_METADATA, Rejected, TenureError, Unavailable
from tenure.protocol.refusal import Reason
from tenure.v1 import partition_pb2
from tests.unit.protocol.certificates import Authority

SERVICE = "tenure.v1.PartitionService"
Handler = Callable[[partition_pb2.DeliverRequest, Any], Awaitable[partition_pb2.DeliverResponse]]


async def taking(request: partition_pb2.DeliverRequest, _: Any) -> partition_pb2.DeliverResponse:
    """Takes all there is."""
    return partition_pb2.DeliverResponse(taken_number=request.messages[-1].number)


async def elsewhere(request: partition_pb2.DeliverRequest, context: Any) -> Any:
    """Knows who leads."""
    refusal = Unavailable(
        "ask m2", reason=Reason.NOT_LEADER, metadata={LEADER_METADATA: "10.0.0.2:7400"}
    )
    await abort(context, refusal)


@asynccontextmanager
async def listening(files: SecurityFiles, handler: Handler = taking) -> AsyncIterator[str]:
    """A master's listener with one method; gives its address."""
    security = ServerSecurity(files)
    server = grpc.aio.server(interceptors=security.interceptors())
    method = grpc.unary_unary_rpc_method_handler(
        handler,
        request_deserializer=partition_pb2.DeliverRequest.FromString,
        response_serializer=partition_pb2.DeliverResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {"Deliver": method}),)
    )
    credentials = security.credentials()
    port = (
        server.add_insecure_port("127.0.0.1:0")
        if credentials is None
        else server.add_secure_port("127.0.0.1:0", credentials)
    )
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def deliver(address: str, files: SecurityFiles, peer_ca: Path | None = None) -> int:
    """One call by a master with these files."""
    peers = GrpcPeers(files, peer_ca)
    request = partition_pb2.DeliverRequest(source=1, target=0)
    request.messages.add(number=7, body=b"x")
    try:
        response = await peers.unary(
            address, f"/{SERVICE}/Deliver", request, partition_pb2.DeliverResponse, 5.0
        )
        return response.taken_number
    finally:
        await peers.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The cluster's authority."""
    return Authority(tmp_path)


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> SecurityFiles:
    """What every master of the cluster is given: certificate, token, callers' authority."""
    pair = authority.issue("master")
    token = tmp_path / "token"
    token.write_text("secret\n")
    return SecurityFiles(cert=pair.cert, key=pair.key, client_ca=authority.ca, token=token)


def test_masters_reach_each_other_in_plaintext() -> None:
    """On a loopback address nothing is asked for."""

    async def main() -> None:
        async with listening(SecurityFiles()) as address:
            assert await deliver(address, SecurityFiles()) == 7

    asyncio.run(main())


def test_masters_show_their_certificate_and_token(files: SecurityFiles) -> None:
    """The listener's own files are enough where callers need certificates."""

    async def main() -> None:
        async with listening(files) as address:
            assert await deliver(address, files) == 7
            without = SecurityFiles(cert=files.cert, key=files.key, client_ca=files.client_ca)
            with pytest.raises(Rejected) as caught:
                await deliver(address, without)
            assert caught.value.reason is Reason.TOKEN_MISSING

    asyncio.run(main())


def test_masters_without_client_certificates_name_their_authority(
    files: SecurityFiles, authority: Authority
) -> None:
    """``--tls-ca`` says whom to trust; a certificate of another authority is not reached."""
    plain = SecurityFiles(cert=files.cert, key=files.key, token=files.token)

    async def main() -> None:
        async with listening(plain) as address:
            assert await deliver(address, plain, authority.ca) == 7
            folder = authority.ca.parent / "other"
            folder.mkdir()
            with pytest.raises(TenureError):
                await deliver(address, plain, Authority(folder).ca)

    asyncio.run(main())


def test_errors_come_back_as_they_were() -> None:
    """The leader that NOT_LEADER names arrives: the courier follows it."""

    async def main() -> None:
        async with listening(SecurityFiles(), elsewhere) as address:
            with pytest.raises(Unavailable) as caught:
                await deliver(address, SecurityFiles())
            assert caught.value.reason is Reason.NOT_LEADER
            assert caught.value.metadata[LEADER_METADATA] == "10.0.0.2:7400"

    asyncio.run(main())
