"""One port for probes and metrics: GET /livez, /readyz and /metrics, over HTTP/1.1.

It is the session's loop that answers, or the supervisor's: so an answer is the proof that it turns.
"""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from tenure.protocol.loopback import is_loopback
from tenure.protocol.refusal import Reason
from tenure.worker import metrics

#: A probe asks for one page and is done.
REQUEST_S_MAX: Final = 5.0
REQUEST_BYTES_MAX: Final = 8_192
#: Anybody who reaches the port may ask; more at once is no probe.
CONNECTIONS_MAX: Final = 64
_TEXT: Final = "text/plain; charset=utf-8"


class Unusable(Exception):
    """The address cannot be listened on.

    Attributes:
        reason: From the published list.
    """

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether it takes jobs, and what there is to say about that.

    Attributes:
        ready: Whether it does.
        text: Lines for people.
    """

    ready: bool
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """What is asked for when somebody asks.

    Attributes:
        readiness: For /readyz.
        families: For /metrics.
    """

    readiness: Callable[[], Readiness]
    families: Callable[[], list[metrics.Family]]


def parsed(address: str, *, insecure: bool) -> tuple[str, int]:
    """Host and port.

    Args:
        address: ``HOST:PORT``; port 0 takes a free one.
        insecure: Allow a host that others can reach.

    Raises:
        Unusable: INVALID_ARGUMENT, or INSECURE_BIND.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise Unusable(
            f"expected an address like 127.0.0.1:7480 for --health, got {address!r}",
            Reason.INVALID_ARGUMENT,
        )
    if not insecure and not is_loopback(host):
        raise Unusable(
            f"expected a loopback address for --health, but {host} is not one, and neither TLS nor "
            "a token protects it; listen on 127.0.0.1, or give --insecure if the network is safe",
            Reason.INSECURE_BIND,
        )
    return host.strip("[]"), int(port)


@asynccontextmanager
async def listening(
    address: str | None, insecure: bool, report: Report, announce: Callable[[str], None]
) -> AsyncIterator[None]:
    """Answers for as long as the body runs.

    Args:
        address: ``HOST:PORT``; None: nobody asks.
        insecure: Allow a host that others can reach.
        report: What is answered.
        announce: Told the address, with the port that was taken.

    Raises:
        Unusable: It cannot listen there.
    """
    if address is None:
        yield
        return
    host, port = parsed(address, insecure=insecure)
    desk = _Desk(report)
    try:
        server = await asyncio.start_server(desk.serve, host, port, limit=REQUEST_BYTES_MAX)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        raise Unusable(
            f"expected to listen on {address} for --health, but {error.strerror or error}; "
            "give another address",
            Reason.ADDRESS_IN_USE if in_use else Reason.INVALID_ARGUMENT,
        ) from None
    taken = server.sockets[0].getsockname()[1]
    announce(f"{address.rpartition(':')[0]}:{taken}")
    try:
        yield
    finally:
        server.close()


class _Desk:
    """Where questions are answered."""

    def __init__(self, report: Report) -> None:
        self._open = 0
        self._pages: Mapping[str, Callable[[], tuple[HTTPStatus, str, str]]] = {
            "/livez": lambda: (HTTPStatus.OK, _TEXT, "ok\n"),
            "/readyz": lambda: _readiness(report.readiness()),
            "/metrics": lambda: (
                HTTPStatus.OK,
                metrics.CONTENT_TYPE,
                metrics.exposition(report.families()),
            ),
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one question."""
        self._open += 1
        try:
            if self._open <= CONNECTIONS_MAX:
                with suppress(TimeoutError, OSError, EOFError, asyncio.LimitOverrunError):
                    async with asyncio.timeout(REQUEST_S_MAX):
                        head = await reader.readuntil(b"\r\n\r\n")
                        writer.write(self._answer(head))
                        await writer.drain()
        finally:
            self._open -= 1
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.decode("latin-1").partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        page = self._pages.get(path)
        if method not in ("GET", "HEAD"):
            status, kind, text = HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, "expected GET\n"
        elif page is None:
            pages = ", ".join(self._pages)
            status, kind, text = HTTPStatus.NOT_FOUND, _TEXT, f"there are {pages}\n"
        else:
            status, kind, text = page()
        body = text.encode()
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
        ]
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            lines.append("Allow: GET, HEAD")
        return "\r\n".join([*lines, "", ""]).encode() + (b"" if method == "HEAD" else body)


def _readiness(found: Readiness) -> tuple[HTTPStatus, str, str]:
    status = HTTPStatus.OK if found.ready else HTTPStatus.SERVICE_UNAVAILABLE
    return status, _TEXT, found.text
