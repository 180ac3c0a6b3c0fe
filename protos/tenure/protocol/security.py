"""Files of certificates, keys and tokens: read and checked at start, read again when they change.

Nobody restarts a process to renew a certificate. So who uses such files asks for what they hold
``now()`` whenever a connection is made, and what is connected already goes on as it is. A new state
of the files that cannot be used is not taken (a certificate may be there before its key is): what
was read before stays in force, and the log says why.
"""

import hashlib
import hmac
import logging
import re
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Generic, TypeVar

from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason
from tenure.protocol.tls import Pem, Tls

_LOG: Final = logging.getLogger(__name__)

T = TypeVar("T")

#: Metadata that carries the token, as HTTP has it (RFC 6750).
AUTHORIZATION: Final = "authorization"
_SCHEME: Final = "Bearer "

#: A look at the files costs a few system calls, so they are not looked at more often than this.
LOOK_S: Final = 1.0

_TOKEN: Final = re.compile(r"[!-~]+")


class Watched(Generic[T]):
    """What some files mean, read again when one of them changes. Used from any thread.

    Args:
        paths: The files.
        read: Reads them.

    Raises:
        Rejected: CREDENTIALS_UNUSABLE, from ``read``.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], T]) -> None:
        self.paths = tuple(paths)
        self._read = read
        # Taken before the content: a change in between is seen by the next look.
        self._seen = self._stamp()
        self._refused: object = None
        self._value = read()
        self._look_at_s = time.monotonic() + LOOK_S

    def now(self) -> T:
        """What the files hold, at most a second ago. The same object as long as they stay."""
        now_s = time.monotonic()
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + LOOK_S
            self._look()
        return self._value

    def _look(self) -> None:
        stamp = self._stamp()
        if stamp in (self._seen, self._refused):
            return
        names = ", ".join(map(str, self.paths))
        try:
            value = self._read()
        except Rejected as error:
            if stamp == self._stamp():
                self._refused = stamp
                _LOG.warning(
                    "went on with what was read before from %s: %s",
                    names,
                    error,
                    extra={"action": "credentials_refused"},
                )
            return
        if stamp != self._stamp():
            return  # Still being written: the next look takes it.
        self._seen, self._refused, self._value = stamp, None, value
        _LOG.info("read %s again", names, extra={"action": "credentials_read"})

    def _stamp(self) -> object:
        return tuple(_stamp_of(path) for path in self.paths)


def read_trust(tls: Tls) -> Watched[Pem]:
    """A client's files.

    Raises:
        Rejected: CREDENTIALS_UNUSABLE.
    """
    ca = Path(tls.ca)
    if tls.cert is None or tls.key is None:
        if tls.cert is not tls.key:
            raise unusable(
                f"a certificate and its key together, but got only {tls.cert or tls.key}"
            )
        return Watched([ca], lambda: Pem(ca=_authorities(ca)))
    cert, key = Path(tls.cert), Path(tls.key)

    def read() -> Pem:
        chain, private = _pair(cert, key)
        return Pem(ca=_authorities(ca), cert=chain, key=private)

    return Watched([ca, cert, key], read)


def read_identity(cert: Path, key: Path, client_ca: Path | None) -> Watched[Pem]:
    """A server's files; ``client_ca`` is there if clients must prove who they are.

    Raises:
        Rejected: CREDENTIALS_UNUSABLE.
    """

    def read() -> Pem:
        chain, private = _pair(cert, key)
        return Pem(ca=_authorities(client_ca) if client_ca else None, cert=chain, key=private)

    return Watched([cert, key, *([client_ca] if client_ca else [])], read)


def read_tokens(path: Path) -> Watched[tuple[str, ...]]:
    """A file of bearer tokens, one a line.

    A caller sends the first; a server accepts any. So a token is changed without a gap: append the
    new one to the servers' files, give it to the callers, take the old one out.

    Raises:
        Rejected: CREDENTIALS_UNUSABLE.
    """

    def read() -> tuple[str, ...]:
        try:
            text = _bytes(path).decode("ascii")
        except UnicodeDecodeError:
            raise unusable(
                f"a token of printable ASCII in {path}, but it has other bytes"
            ) from None
        lines = [line.strip() for line in text.split("\n")]
        return tuple(checked_token(line, str(path)) for line in lines if line)

    def read_some() -> tuple[str, ...]:
        tokens = read()
        if not tokens:
            raise unusable(f"a token in {path}, but the file is empty")
        return tokens

    return Watched([path], read_some)


def checked_token(token: str, source: str) -> str:
    """A token that can travel in metadata. The message never shows it.

    Raises:
        Rejected: CREDENTIALS_UNUSABLE.
    """
    if _TOKEN.fullmatch(token) is None:
        raise unusable(f"a token of printable ASCII without blanks in {source}, but it is not one")
    return token


def bearer(token: str) -> tuple[str, str]:
    """The metadata that carries a token."""
    return AUTHORIZATION, _SCHEME + token


class TokenGate:
    """Tells calls with the cluster's token from others, in time that does not tell how near.

    Args:
        tokens: Those that are accepted.
    """

    def __init__(self, tokens: Watched[tuple[str, ...]]) -> None:
        self._tokens = tokens
        self._accepted: tuple[tuple[str, ...], list[bytes]] = ((), [])

    def refusal(self, authorization: str | None) -> Rejected | None:
        """Why a call may not pass; None: it may.

        Args:
            authorization: The value of that metadata; None: the call has none.
        """
        if authorization is None:
            return Rejected(
                "expected a bearer token with the call, but it has none; give --token-file, "
                "TENURE_TOKEN_FILE or Client(token=…), or with any other client the metadata "
                "authorization: Bearer TOKEN",
                reason=Reason.TOKEN_MISSING,
            )
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and self._knows(token.strip()):
            return None
        return Rejected(
            "expected the cluster's bearer token, but the call's is another one; compare the "
            "caller's token with the master's --token-file",
            reason=Reason.TOKEN_INVALID,
        )

    def _knows(self, token: str) -> bool:
        tokens = self._tokens.now()
        if self._accepted[0] is not tokens:
            self._accepted = (tokens, [_digest(one) for one in tokens])
        given = _digest(token)
        # All are compared, and digests of one length: the time says nothing about any of them.
        return sum(hmac.compare_digest(given, one) for one in self._accepted[1]) > 0


def unusable(expected: str) -> Rejected:
    """CREDENTIALS_UNUSABLE: "expected …"."""
    return Rejected(f"expected {expected}", reason=Reason.CREDENTIALS_UNUSABLE)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _stamp_of(path: Path) -> object:
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_mtime_ns, found.st_ino, found.st_dev, found.st_size


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unusable(f"to read {path}, but: {error.strerror}") from None


def _authorities(path: Path) -> bytes:
    """Certificates of authorities, checked."""
    pem = _bytes(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(
            cadata=pem.decode("ascii", "replace")
        )
    except (ssl.SSLError, ValueError):
        raise unusable(f"certificates of authorities in {path} (PEM), but it has none") from None
    return pem


def _pair(cert: Path, key: Path) -> tuple[bytes, bytes]:
    """A certificate with its chain, and its key, checked to belong together."""
    chain, private = _bytes(cert), _bytes(key)
    if b"ENCRYPTED" in private:
        raise unusable(
            f"a private key without a passphrase in {key}, but it has one; decrypt it: "
            "openssl pkey -in FILE -out FILE"
        )
    if b"PRIVATE KEY-----" not in private:
        raise unusable(f"a private key in {key} (PEM), but it has none")
    if b"-----BEGIN CERTIFICATE-----" not in chain:
        raise unusable(f"a certificate in {cert} (PEM), but it has none")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise unusable(
                f"the key of {cert} in {key}, but it is another certificate's; give a pair"
            ) from None
        raise unusable(
            f"a certificate in {cert} and its key in {key} (PEM), but they cannot be read: "
            f"{error.reason or error}"
        ) from None
    except OSError as error:
        raise unusable(f"to read {cert} and {key}, but: {error.strerror}") from None
    return chain, private
