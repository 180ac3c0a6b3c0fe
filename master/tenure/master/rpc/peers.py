"""Calls to other masters over gRPC: the adapter of the node's port ``Peers``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from tenure.master.rpc.security import SecurityFiles
from tenure.protocol.errors import error_from_rpc
from tenure.protocol.security import Watched, bearer, read_tokens, read_trust
from tenure.protocol.tls import Pem, Tls

M = TypeVar("M", bound=Message)

#: As a client's: a frozen peer is found after 5 + 2 seconds, a new one soon after it listens.
_OPTIONS: Final[list[tuple[str, Any]]] = [
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 0),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
]


class GrpcPeers:
    """Calls masters with the certificate and the token that this one's own listener has.

    Args:
        files: Of the listener. Peers' certificates must be of ``peer_ca``; without it, of an
            authority in ``client_ca``, which issued theirs too if masters' callers need any.
        peer_ca: Authorities of the masters' certificates.

    Raises:
        Rejected: CREDENTIALS_UNUSABLE.
    """

    def __init__(self, files: SecurityFiles, peer_ca: Path | None = None) -> None:
        self._trust: Watched[Pem] | None = None
        if files.cert is not None:
            ca = peer_ca or files.client_ca or files.cert
            self._trust = read_trust(Tls(ca=ca, cert=files.cert, key=files.key))
        self._tokens = read_tokens(files.token) if files.token is not None else None
        #: By address: a channel, and the certificates that it was made with.
        self._channels: dict[str, tuple[grpc.aio.Channel, Pem | None]] = {}

    async def unary(
        self, address: str, method: str, request: Message, response_type: type[M], timeout_s: float
    ) -> M:
        parse: Callable[[bytes], M] = response_type.FromString
        call = self._channel(address).unary_unary(
            method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=parse,
        )(request, timeout=timeout_s, metadata=self._metadata())
        try:
            response: M = await call
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, address=address) from None
        finally:
            call.cancel()
        return response

    async def close(self) -> None:
        """Closes all connections. Idempotent."""
        while self._channels:
            await self._channels.popitem()[1][0].close()

    def _metadata(self) -> tuple[tuple[str, str]] | None:
        return None if self._tokens is None else (bearer(self._tokens.now()[0]),)

    def _channel(self, address: str) -> grpc.aio.Channel:
        pem = None if self._trust is None else self._trust.now()
        known = self._channels.get(address)
        if known is None or known[1] is not pem:
            # An old one is only let go: gRPC closes it when its calls have ended.
            known = self._channels[address] = _dialled(address, pem), pem
        return known[0]


def _dialled(address: str, pem: Pem | None) -> grpc.aio.Channel:
    if pem is None:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(pem.ca, pem.key, pem.cert)
    return grpc.aio.secure_channel(address, credentials, options=_OPTIONS)
