"""What a caller of masters brings along: whom it trusts, who it is, its token.

What reads files and explains handshakes is imported by those only that have a use for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tenure.protocol.errors import Rejected, TenureError, error_of
from tenure.protocol.refusal import Reason
from tenure.protocol.tls import Pem, Tls

if TYPE_CHECKING:
    from pathlib import Path

    from tenure.protocol.security import Watched

_LOG: Final = logging.getLogger(__name__)

#: A cause that was found is not looked for again this soon, however often the peer is dialled.
FINDING_S: Final = 5.0
#: A call that failed waits so long for its cause; the next one may find it.
WAIT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Probe:
    """A look for the cause at one address."""

    finding: asyncio.Future[Rejected | None]
    fresh_until_s: float


class Credentials:
    """Certificates and token of one client or worker; files are read again when they change.

    Args:
        token: The bearer token, or the path of a file that holds it; None reads the file named by
            TENURE_TOKEN_FILE, then takes TENURE_TOKEN, then none. An empty text: none.
        tls: Files for TLS; None takes TENURE_TLS_CA, TENURE_TLS_CERT and TENURE_TLS_KEY, and
            plaintext if the first is not set.

    Attributes:
        tls: The files; None: plaintext.

    Raises:
        Rejected: CREDENTIALS_UNUSABLE.
    """

    def __init__(self, token: str | Path | None = None, tls: Tls | None = None) -> None:
        self.tls = tls or _tls_of_environment()
        self._trust = _trust_of(self.tls) if self.tls else None
        self._header = _header_source(token)
        self._metadata: tuple[tuple[str, str]] | None = None
        self._warned: set[str] = set()
        self._probes: dict[str, _Probe] = {}

    def pem(self) -> Pem | None:
        """What the files hold now; None: plaintext. The same object as long as they stay."""
        return self._trust.now() if self._trust is not None else None

    def metadata(self, address: str) -> tuple[tuple[str, str]] | None:
        """What goes with each call."""
        if self._header is None:
            return None
        if self.tls is None and address not in self._warned:
            self._warn(address)
        # Only a changed token makes a new tuple: a call costs a comparison.
        header = self._header()
        if self._metadata is None or self._metadata[0] != header:
            self._metadata = (header,)
        return self._metadata

    async def explained(self, error: TenureError, address: str) -> TenureError:
        """The cause of a failed call if TLS is it, else the error itself.

        All who fail at the same time share one look for it. Nobody waits long for it: a peer that
        keeps silent is most often a master that is frozen, and its successor must be found.
        """
        if error.reason is not Reason.UNREACHABLE:
            return error
        from tenure.protocol.handshake import MASTER, diagnose, is_silence, may_be_tls

        if not may_be_tls(error.message):
            return error
        loop = asyncio.get_running_loop()
        probe = self._probes.get(address)
        if probe is None or (probe.finding.done() and loop.time() >= probe.fresh_until_s):
            finding = loop.run_in_executor(None, diagnose, address, self.tls, MASTER)
            probe = self._probes[address] = _Probe(finding, loop.time() + FINDING_S)
        await asyncio.wait((probe.finding,), timeout=0 if is_silence(error.message) else WAIT_S)
        found = probe.finding.result() if probe.finding.done() else None
        # A copy: one instance raised by many tasks would collect all their tracebacks.
        return error if found is None else error_of(found.to_refusal())

    def forget(self, address: str) -> None:
        """Nobody is called there any more."""
        self._probes.pop(address, None)
        self._warned.discard(address)

    def _warn(self, address: str) -> None:
        from tenure.protocol.loopback import is_loopback

        self._warned.add(address)
        if not is_loopback(address.rpartition(":")[0]):
            _LOG.warning(
                "the token travels to %s in plaintext: whoever listens on the way can use it; "
                "set up TLS",
                address,
                extra={"action": "plaintext_token", "address": address},
            )


def _tls_of_environment() -> Tls | None:
    ca, cert, key = (os.environ.get(f"TENURE_TLS_{name}") or None for name in ("CA", "CERT", "KEY"))
    if ca is None:
        if cert or key:
            from tenure.protocol.security import unusable

            raise unusable("TENURE_TLS_CA with TENURE_TLS_CERT and TENURE_TLS_KEY; it is not set")
        return None
    return Tls(ca=ca, cert=cert, key=key)


def _trust_of(tls: Tls) -> Watched[Pem]:
    from tenure.protocol.security import read_trust

    return read_trust(tls)


def _header_source(token: str | Path | None) -> Callable[[], tuple[str, str]] | None:
    if token is None:
        path = os.environ.get("TENURE_TOKEN_FILE")
        if path:
            from pathlib import Path

            token = Path(path)
        else:
            token = os.environ.get("TENURE_TOKEN")
    if not token:
        return None
    from tenure.protocol.security import bearer, checked_token, read_tokens

    if isinstance(token, str):
        fixed = bearer(checked_token(token, "the text given"))
        return lambda: fixed
    tokens = read_tokens(token)
    return lambda: bearer(tokens.now()[0])
