"""One port for probes and metrics."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from tenure.protocol.refusal import Reason
from tenure.worker import metrics, probe
from tenure.worker.probe import CONNECTIONS_MAX, Readiness, Report, Unusable

Ask = Callable[[bytes], Awaitable[bytes]]
FAMILY = metrics.Family("m", "gauge", "M.", [({}, 1)])


def serve(scenario: Callable[[Ask, str], Awaitable[None]], *, ready: bool = True) -> None:
    """Runs a scenario with an open port."""
    report = Report(lambda: Readiness(ready, "how it is\n"), lambda: [FAMILY])
    at: list[str] = []

    async def ask(request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(at[0].split(":")[1]))
        writer.write(request)
        try:
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            await close(writer)

    async def main() -> None:
        async with probe.listening("127.0.0.1:0", False, report, at.append):
            await scenario(ask, at[0])

    asyncio.run(main())


async def close(writer: asyncio.StreamWriter) -> None:
    """Closes a connection, whoever was first."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def get(path: str, method: str = "GET") -> bytes:
    """A request."""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


@pytest.mark.parametrize("ready", [True, False])
def test_pages(ready: bool) -> None:
    """It lives as long as it answers; whether it is ready is the status; metrics are a text."""

    async def scenario(ask: Ask, at: str) -> None:
        assert (await ask(get("/livez"))).startswith(b"HTTP/1.1 200 OK\r\n")
        answer = await ask(get("/readyz?verbose"))
        assert answer.startswith(b"HTTP/1.1 200" if ready else b"HTTP/1.1 503")
        assert answer.endswith(b"\r\n\r\nhow it is\n")
        answer = await ask(get("/metrics"))
        assert b"Content-Type: text/plain; version=0.0.4" in answer
        assert answer.endswith(b"m 1\n")

    serve(scenario, ready=ready)


def test_what_is_no_question() -> None:
    """Another page, another method, nonsense, too much: an answer or an end, and it lives on."""

    async def scenario(ask: Ask, at: str) -> None:
        assert (await ask(get("/"))).startswith(b"HTTP/1.1 404")
        assert (await ask(get("/livez", "POST"))).startswith(b"HTTP/1.1 405")
        head = await ask(get("/livez", "HEAD"))
        assert b"Content-Length: 3" in head
        assert head.endswith(b"\r\n\r\n")
        assert (await ask(b"\xff\r\n\r\n")).startswith(b"HTTP/1.1 405")
        assert await ask(b"GET /" + 100_000 * b"x") == b""
        assert (await ask(get("/livez"))).startswith(b"HTTP/1.1 200")

    serve(scenario)


def test_connections_are_bounded() -> None:
    """Who opens many and asks nothing keeps none of memory but theirs: further ones are closed."""

    async def scenario(ask: Ask, at: str) -> None:
        port = int(at.split(":")[1])
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS_MAX)]
        assert await ask(get("/livez")) == b""
        for _, writer in idle:
            await close(writer)
        answers = [await ask(get("/livez")) for _ in range(20)]
        assert answers[-1].startswith(b"HTTP/1.1 200")

    serve(scenario)


@pytest.mark.parametrize("address", ["", "7480", ":7480", "localhost:http", "127.0.0.1:70000"])
def test_what_is_no_address(address: str) -> None:
    """Refused before anything starts."""
    with pytest.raises(Unusable) as refused:
        probe.parsed(address, insecure=True)
    assert refused.value.reason is Reason.INVALID_ARGUMENT


def test_others_reach_it_only_when_that_is_wanted() -> None:
    """As for masters: an address that is not loopback needs --insecure."""
    assert probe.parsed("[::1]:1", insecure=False) == ("::1", 1)
    assert probe.parsed("0.0.0.0:1", insecure=True) == ("0.0.0.0", 1)
    with pytest.raises(Unusable, match="--insecure") as refused:
        probe.parsed("0.0.0.0:1", insecure=False)
    assert refused.value.reason is Reason.INSECURE_BIND


def test_a_taken_port_is_told() -> None:
    """ADDRESS_IN_USE, as of a master."""

    async def main(address: str) -> None:
        report = Report(lambda: Readiness(True, ""), list)
        async with probe.listening(address, False, report, print):
            raise AssertionError("expected a refusal")

    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(Unusable) as refused:
        asyncio.run(main(f"127.0.0.1:{other.getsockname()[1]}"))
    assert refused.value.reason is Reason.ADDRESS_IN_USE
