"""Who may call this master: its certificate, theirs if it demands them, and the cluster's token."""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio

from tenure.master.rpc.status import abort
from tenure.protocol.errors import Rejected
from tenure.protocol.loopback import is_loopback
from tenure.protocol.refusal import Reason
from tenure.protocol.security import (
    AUTHORIZATION,
    TokenGate,
    Watched,
    read_identity,
    read_tokens,
    unusable,
)
from tenure.protocol.tls import Pem

_log = logging.getLogger(__name__)

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Found: TypeAlias = "_Handler | None"

#: Probes have no token, and learn nothing but that the process lives or is ready.
_OPEN: Final = "/grpc.health.v1.Health/"
#: Refused calls are logged this far apart at least.
_QUIET_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityFiles:
    """Files that protect a listener; they are read again when they change.

    Attributes:
        cert: The master's certificate with its chain (PEM); with ``key``. None: no TLS.
        key: Its private key, without a passphrase.
        client_ca: Authorities, one of which must have issued each caller's certificate; None:
            callers need none.
        token: Bearer tokens, one a line, of which each call must have one; None: none is asked for.
    """

    cert: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    token: Path | None = None


class ServerSecurity:
    """The same, read.

    Raises:
        Rejected: CREDENTIALS_UNUSABLE.
    """

    def __init__(self, files: SecurityFiles) -> None:
        if (files.cert is None) != (files.key is None):
            raise unusable(
                f"--tls-cert and --tls-key together, but got only {files.cert or files.key}"
            )
        self._identity: Watched[Pem] | None = None
        self._demands_certificate = files.client_ca is not None
        if files.cert is not None and files.key is not None:
            self._identity = read_identity(files.cert, files.key, files.client_ca)
        elif files.client_ca is not None:
            raise unusable("--tls-cert and --tls-key with --tls-client-ca, but they are missing")
        self._tokens = read_tokens(files.token) if files.token is not None else None

    def check_bind(self, host: str) -> None:
        """Refuses an address that others can reach unless TLS and a token protect it.

        Raises:
            Rejected: INSECURE_BIND.
        """
        if is_loopback(host):
            return
        missing = " nor ".join(
            name
            for name, have in (("TLS", self._identity), ("a token", self._tokens))
            if have is None
        )
        if missing:
            lacks = (
                f"neither {missing} protect it" if " nor " in missing else f"{missing} is missing"
            )
            raise Rejected(
                f"expected a loopback address to listen on, but {host} is not one and {lacks}; "
                "give --tls-cert, --tls-key and --token-file, or listen on 127.0.0.1, or give "
                "--insecure if the network is safe",
                reason=Reason.INSECURE_BIND,
                metadata={"host": host},
                field="listen",
            )

    def credentials(self) -> grpc.ServerCredentials | None:
        """What a port is opened with; None: plaintext. Who connects gets the files of then."""
        identity = self._identity
        if identity is None:
            return None

        served = identity.now()

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            # gRPC asks at each new connection; None spares it to build the same once more.
            nonlocal served
            pem = identity.now()
            if pem is served:
                return None
            served = pem
            return _configuration(pem)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(served),
            renewed,  # type: ignore[arg-type]  # The stub lacks the documented None.
            self._demands_certificate,
        )

    def interceptors(self) -> list[grpc.aio.ServerInterceptor]:
        """What each call passes before it is served."""
        return [_Gate(TokenGate(self._tokens))] if self._tokens is not None else []


class _Gate(grpc.aio.ServerInterceptor):
    """Lets calls with a token in, and health checks. It sees calls, not their messages."""

    def __init__(self, gate: TokenGate) -> None:
        self._gate = gate
        self._refused = 0
        self._quiet_until_s = 0.0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Found]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Found:
        if handler_call_details.method.startswith(_OPEN):
            return await continuation(handler_call_details)
        given: str | None = None
        for key, value in handler_call_details.invocation_metadata or ():
            if key == AUTHORIZATION and isinstance(value, str):
                given = value
        refusal = self._gate.refusal(given)
        if refusal is None:
            return await continuation(handler_call_details)
        return self._refusing(refusal, handler_call_details.method)

    def _refusing(self, refusal: Rejected, method: str) -> _Handler:
        async def refuse(requests: Any, context: Any) -> None:
            self._note(refusal, method, context.peer())
            await abort(context, refusal)

        # Serves a call of any kind: it reads nothing before it ends it.
        return grpc.stream_stream_rpc_method_handler(refuse)

    def _note(self, refusal: Rejected, method: str, peer: str) -> None:
        """Logs a refused call; of a caller that goes on trying, only one in ten seconds."""
        self._refused += 1
        now_s = time.monotonic()
        if now_s < self._quiet_until_s:
            return
        self._quiet_until_s = now_s + _QUIET_S
        _log.warning(
            "Refused %s from %s, the %d. call without the cluster's token",
            method,
            peer,
            self._refused,
            extra={"action": "call_refused", "reason": refusal.reason.value},
        )


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(pem.key or b"", pem.cert or b"")], root_certificates=pem.ca
    )
