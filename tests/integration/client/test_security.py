"""TLS and token between the SDK and a port: who gets in, and what is said to who does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tenure.client import AsyncClient, Client, Reason, Rejected, Tls, Unavailable, named
from tenure.client.channel import GrpcTransport
from tenure.client.security import Credentials
from tenure.master.rpc.security import SecurityFiles, ServerSecurity
from tenure.protocol import security
from tenure.v1 import cluster_pb2, jobs_pb2
from tests.integration.client.bridge import Bridge
from tests.integration.client.test_channel import a_submit
from tests.unit.protocol.certificates import Authority

TOPOLOGY = "/tenure.v1.ClusterService/GetTopology"
SUBMITS = "/tenure.v1.JobService/StreamSubmits"
TOKEN = "5e2f4a6b7c8d"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority whose files lie in the test's folder."""
    return Authority(tmp_path)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """The cluster's token file."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


@pytest.fixture
def every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at whenever they are asked for, not once a second."""
    monkeypatch.setattr(security, "LOOK_S", 0.0)


def play(files: SecurityFiles, work: Callable[[Bridge], Awaitable[None]]) -> None:
    """Runs a piece of work with a port that is protected by some files."""

    async def main() -> None:
        async with Bridge(security=ServerSecurity(files)) as bridge:
            await work(bridge)

    asyncio.run(main())


async def ask(transport: GrpcTransport, address: str) -> int:
    """A unary call: how many partitions there are."""
    answer = await transport.unary(
        address, TOPOLOGY, cluster_pb2.GetTopologyRequest(), cluster_pb2.GetTopologyResponse, 5
    )
    return answer.partition_count


async def refusal(address: str, credentials: Credentials) -> Rejected:
    """What a unary call and a stream are refused with: the same."""
    transport = GrpcTransport(credentials)
    try:
        with pytest.raises(Rejected) as unary:
            await ask(transport, address)
        stream = transport.stream(address, SUBMITS, jobs_pb2.StreamSubmitsResponse)
        with pytest.raises(Rejected) as streamed:
            await anext(aiter(stream))
        stream.cancel()
    finally:
        await transport.close()
    assert streamed.value.reason is unary.value.reason
    assert "\n" not in str(unary.value)
    return unary.value


def refused(files: SecurityFiles, token: str | Path | None, tls: Tls | None) -> Rejected:
    """What a client that brings this along is told by a port that is protected by those."""
    found: list[Rejected] = []

    async def work(bridge: Bridge) -> None:
        found.append(await refusal(bridge.address, Credentials(token, tls)))
        assert found[0].metadata.get("address", bridge.address) == bridge.address

    play(files, work)
    return found[0]


def test_mutual_tls_and_a_token_let_in(authority: Authority, token: Path) -> None:
    """The whole set-up: both sides show certificates, and the client a token."""
    server, client = authority.issue("master"), authority.issue("client")
    files = SecurityFiles(cert=server.cert, key=server.key, client_ca=authority.ca, token=token)

    async def work(bridge: Bridge) -> None:
        tls = authority.trusted(client)
        async with AsyncClient(bridge.address, token=token, tls=tls) as known:
            handle = await known.submit(named("a"), 1)
        assert handle.id in bridge.cluster.jobs

    play(files, work)


def test_the_environment_is_as_good(
    authority: Authority, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without arguments the SDK takes TENURE_TLS_* and TENURE_TOKEN_FILE, or TENURE_TOKEN."""
    pair = authority.issue("node")
    files = SecurityFiles(cert=pair.cert, key=pair.key, client_ca=authority.ca, token=token)
    monkeypatch.setenv("TENURE_TLS_CA", str(authority.ca))
    monkeypatch.setenv("TENURE_TLS_CERT", str(pair.cert))
    monkeypatch.setenv("TENURE_TLS_KEY", str(pair.key))

    async def work(bridge: Bridge) -> None:
        for variable, value in (("TENURE_TOKEN", TOKEN), ("TENURE_TOKEN_FILE", str(token))):
            with monkeypatch.context() as patch:
                patch.setenv(variable, value)
                transport = GrpcTransport()
            assert await ask(transport, bridge.address) == 1
            await transport.close()

    play(files, work)


def test_a_certificate_without_anyone_to_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the variables is no plaintext: it is refused before anything is sent."""
    monkeypatch.setenv("TENURE_TLS_CERT", "client.pem")

    with pytest.raises(Rejected, match="TENURE_TLS_CA") as caught:
        Client("127.0.0.1:1")
    assert caught.value.reason is Reason.CREDENTIALS_UNUSABLE


def test_a_token_works_in_plaintext_too(token: Path) -> None:
    """On loopback, or where the operator says that the network is safe."""

    async def work(bridge: Bridge) -> None:
        transport = GrpcTransport(Credentials(TOKEN))
        assert await ask(transport, bridge.address) == 1
        await transport.close()

    play(SecurityFiles(token=token), work)


def test_no_token(token: Path) -> None:
    """Says that there is none, and where one is given."""
    error = refused(SecurityFiles(token=token), None, None)

    assert error.reason is Reason.TOKEN_MISSING
    assert "TENURE_TOKEN_FILE" in str(error)


def test_a_wrong_token(token: Path) -> None:
    """Says that it is another one, and shows neither."""
    error = refused(SecurityFiles(token=token), "something-else", None)

    assert error.reason is Reason.TOKEN_INVALID
    assert TOKEN not in str(error)
    assert "something-else" not in str(error)


def test_a_certificate_of_another_authority(authority: Authority, tmp_path: Path) -> None:
    """Says whose file it was held against."""
    other = Authority(tmp_path, "other")
    pair = other.issue("master")
    error = refused(SecurityFiles(cert=pair.cert, key=pair.key), None, authority.trusted())

    assert error.reason is Reason.SERVER_CERTIFICATE_INVALID
    assert f"not issued by an authority in {authority.ca}" in str(error)


def test_a_certificate_for_another_host(authority: Authority) -> None:
    """Says which name was looked for."""
    pair = authority.issue("master", "elsewhere.example")
    error = refused(SecurityFiles(cert=pair.cert, key=pair.key), None, authority.trusted())

    assert error.reason is Reason.SERVER_CERTIFICATE_INVALID
    assert "not for 127.0.0.1" in str(error)


def test_an_expired_certificate(authority: Authority) -> None:
    """Says that it has expired."""
    pair = authority.issue("master", expired=True)
    error = refused(SecurityFiles(cert=pair.cert, key=pair.key), None, authority.trusted())

    assert error.reason is Reason.SERVER_CERTIFICATE_INVALID
    assert "has expired" in str(error)


def test_plaintext_to_a_tls_port(authority: Authority) -> None:
    """Says that the port speaks TLS, and what to give."""
    pair = authority.issue("master")
    error = refused(SecurityFiles(cert=pair.cert, key=pair.key), TOKEN, None)

    assert error.reason is Reason.TLS_REQUIRED
    assert "--tls-ca" in str(error)


def test_tls_to_a_plaintext_port(authority: Authority) -> None:
    """Says that the port speaks plaintext."""
    error = refused(SecurityFiles(), None, authority.trusted())

    assert error.reason is Reason.TLS_UNSUPPORTED
    assert "speaks plaintext" in str(error)


@pytest.mark.parametrize("shown", ["nothing", "expired", "another authority's"])
def test_a_client_certificate_that_does_not_let_in(
    authority: Authority, tmp_path: Path, shown: str
) -> None:
    """gRPC says "Socket closed"; we say that a certificate is demanded, or not accepted."""
    server = authority.issue("master")
    files = SecurityFiles(cert=server.cert, key=server.key, client_ca=authority.ca)
    tls = {
        "nothing": authority.trusted(),
        "expired": authority.trusted(authority.issue("client", expired=True)),
        "another authority's": authority.trusted(Authority(tmp_path, "other").issue("client")),
    }[shown]

    error = refused(files, None, tls)

    assert error.reason is Reason.CLIENT_CERTIFICATE_REFUSED
    assert ("demands a client certificate" in str(error)) == (shown == "nothing")


def test_a_dead_port_stays_unreachable(authority: Authority) -> None:
    """Where nobody listens TLS is not the trouble, and a retry may help."""

    async def main() -> None:
        transport = GrpcTransport(Credentials(tls=authority.trusted()))
        with pytest.raises(Unavailable) as caught:
            await ask(transport, "127.0.0.1:1")
        assert caught.value.reason is Reason.UNREACHABLE
        await transport.close()

    asyncio.run(main())


@pytest.mark.usefixtures("every_look")
def test_certificates_are_renewed_under_live_streams(authority: Authority) -> None:
    """A new authority's certificates on both sides: the old stream goes on, new calls use them."""
    directory = authority.ca.parent
    server, client = authority.issue("master"), authority.issue("client")
    files = SecurityFiles(cert=server.cert, key=server.key, client_ca=authority.ca)

    async def work(bridge: Bridge) -> None:
        transport = GrpcTransport(Credentials(tls=authority.trusted(client)))
        stream = transport.stream(bridge.address, SUBMITS, jobs_pb2.StreamSubmitsResponse)
        answers = aiter(stream)

        async def speak(number: int) -> int:
            await stream.send(a_submit(number))
            return (await anext(answers)).number

        assert await ask(transport, bridge.address) == 1
        assert await speak(1) == 1

        newer = Authority(directory)
        newer.issue("master")
        newer.issue("client")

        assert await ask(transport, bridge.address) == 1
        assert await speak(2) == 2
        outsider = Credentials(tls=Tls(ca=_copy(authority, directory)))
        refused = await refusal(bridge.address, outsider)
        assert refused.reason is Reason.SERVER_CERTIFICATE_INVALID
        stream.cancel()
        await transport.close()

    play(files, work)


@pytest.mark.usefixtures("every_look")
def test_a_token_is_changed_without_a_gap(token: Path, tmp_path: Path) -> None:
    """Append the new one for the servers, give it to the clients, take the old one out."""
    mine = tmp_path / "mine"
    mine.write_text(TOKEN)

    async def work(bridge: Bridge) -> None:
        transport = GrpcTransport(Credentials(mine))
        assert await ask(transport, bridge.address) == 1
        token.write_text(f"{TOKEN}\nnew-one\n")
        assert await ask(transport, bridge.address) == 1
        mine.write_text("new-one\n")
        assert await ask(transport, bridge.address) == 1
        token.write_text("new-one\n")
        assert await ask(transport, bridge.address) == 1
        assert (await refusal(bridge.address, Credentials(TOKEN))).reason is Reason.TOKEN_INVALID
        await transport.close()

    play(SecurityFiles(token=token), work)


def _copy(authority: Authority, directory: Path) -> Path:
    """An authority's certificate where no later one overwrites it."""
    path = directory / "older.pem"
    path.write_bytes(authority.pem)
    return path
