"""Why a connection fails: what gRPC's status does not say, found out by a handshake of our own.

gRPC tells a peer that demands a client certificate, and a TLS port that is spoken to in plaintext,
as "Socket closed"; other causes it tells in its library's words. So when a connection has failed
in a way that may be TLS's, one more is made with the standard library, and asked for the cause.
That is never done while calls succeed, nor when nobody listens.
"""

import socket
import ssl
import time
from dataclasses import dataclass
from typing import Final

from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason
from tenure.protocol.tls import Tls

#: For each step of a handshake; whoever is slower has other troubles.
STEP_TIMEOUT_S: Final = 1.0
#: A server on its way down closes connections as one does that wants a certificate: look twice.
AGAIN_S: Final = 0.2

#: The client's half of HTTP/2's beginning, with empty settings. A server answers with its own.
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
#: What OpenSSL says, by version, of bytes that are no TLS.
_NO_TLS: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"}
)
#: X.509 verification results (OpenSSL, x509_vfy.h).
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_OTHER_NAME: Final = frozenset({62, 64})

#: gRPC's text of a connection that was never made, and parts of it that name another cause.
_CONNECTING: Final = "failed to connect"
_OTHER_CAUSES: Final = ("refused", "timed out", "timeout", "unreachable", "no route", "resol")
#: Somebody took the connection and then kept silent: a busy peer, or one that waits for TLS.
_SILENCE: Final = "before receiving settings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who is called, for messages: what it is, and where its caller names the files."""

    name: str
    ca: str
    cert: str


MASTER: Final = Peer(
    name="a master",
    ca="--tls-ca FILE, TENURE_TLS_CA or Client(tls=…)",
    cert="--tls-cert and --tls-key, TENURE_TLS_CERT and TENURE_TLS_KEY, or Client(tls=…)",
)
ETCD: Final = Peer(name="etcd", ca="?ca=FILE in --store", cert="cert=FILE&key=FILE in --store")


def may_be_tls(text: str) -> bool:
    """Whether gRPC's text of a failed call leaves it open that TLS is the trouble."""
    lower = text.lower()
    if _CONNECTING not in lower:
        return False
    return is_silence(text) or not any(cause in lower for cause in _OTHER_CAUSES)


def is_silence(text: str) -> bool:
    """Whether the peer took the connection and said nothing: to ask it may take a while."""
    return _SILENCE in text.lower()


def diagnose(address: str, tls: Tls | None, peer: Peer) -> Rejected | None:
    """Connects once or twice to find out what is wrong. Blocks: run it in a thread.

    Args:
        address: ``HOST:PORT``.
        tls: The caller's files; None: it speaks plaintext.
        peer: For the message.

    Returns:
        The cause, or None if TLS is not it.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if tls is None:
        return _expect_plaintext(host, int(port), address, peer)
    found = _expect_tls(host, int(port), address, tls, peer)
    if found is not None and found.reason is Reason.CLIENT_CERTIFICATE_REFUSED:
        time.sleep(AGAIN_S)
        found = _expect_tls(host, int(port), address, tls, peer)
    return found


def _expect_plaintext(host: str, port: int, address: str, peer: Peer) -> Rejected | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # Only whether it speaks TLS is asked; nothing is sent to whoever it is.
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), STEP_TIMEOUT_S) as raw,
            context.wrap_socket(raw, server_hostname=host),
        ):
            pass
    except ssl.SSLError as error:
        if "ALERT" not in (error.reason or ""):
            return None
    except OSError:
        return None
    return _cause(
        Reason.TLS_REQUIRED,
        f"expected {peer.name} at {address} to speak plaintext, but it speaks TLS; give the "
        f"certificate of the authority that issued its own: {peer.ca}",
        address,
    )


def _expect_tls(host: str, port: int, address: str, tls: Tls, peer: Peer) -> Rejected | None:
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(tls.ca)
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection((host, port), STEP_TIMEOUT_S) as raw,
            context.wrap_socket(raw, server_hostname=host) as connection,
        ):
            # With TLS 1.3 a client learns only after the handshake that it was refused.
            connection.sendall(_PREFACE)
            if connection.recv(1):
                return None
    except ssl.SSLCertVerificationError as error:
        return _wrong_certificate(error, host, address, tls, peer)
    except ssl.SSLError as error:
        why = error.reason or ""
        if why in _NO_TLS:
            return _cause(
                Reason.TLS_UNSUPPORTED,
                f"expected {peer.name} at {address} to speak TLS, but it speaks plaintext; set up "
                f"TLS there, or leave out {peer.ca}",
                address,
            )
        if "ALERT" not in why:
            return None
        return _refused(address, tls, peer, f" ({why.lower().replace('_', ' ')})")
    except ConnectionError as error:
        if not isinstance(error, ConnectionResetError | BrokenPipeError):
            return None
    except OSError:
        return None
    return _refused(address, tls, peer, "")


def _wrong_certificate(
    error: ssl.SSLCertVerificationError, host: str, address: str, tls: Tls, peer: Peer
) -> Rejected:
    code = error.verify_code
    if code == _EXPIRED:
        why, mend = "has expired", "renew it there; no restart is needed"
    elif code == _NOT_YET_VALID:
        why, mend = "is not valid yet", "compare the clocks of both machines"
    elif code in _OTHER_NAME:
        why = f"is not for {host}"
        mend = "call it by a name that its certificate has, or issue one with this name (SAN)"
    else:
        why = f"was not issued by an authority in {tls.ca} ({error.verify_message})"
        mend = "give the certificate of the authority that issued it"
    return _cause(
        Reason.SERVER_CERTIFICATE_INVALID,
        f"expected to trust {peer.name} at {address}, but its certificate {why}; {mend}",
        address,
    )


def _refused(address: str, tls: Tls, peer: Peer, why: str) -> Rejected:
    if tls.cert is None:
        text = f"it demands a client certificate{why}; give one: {peer.cert}"
    else:
        text = (
            f"it does not accept the client certificate {tls.cert}{why}; is it out of date, or "
            "issued by an authority that is not trusted there?"
        )
    return _cause(
        Reason.CLIENT_CERTIFICATE_REFUSED,
        f"expected {peer.name} at {address} to let us in, but {text}",
        address,
    )


def _cause(reason: Reason, message: str, address: str) -> Rejected:
    return Rejected(message, reason=reason, metadata={"address": address})
