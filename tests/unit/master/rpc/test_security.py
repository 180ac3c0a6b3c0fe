"""Where a master may listen, and what it refuses to start with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenure.master.rpc.security import SecurityFiles, ServerSecurity
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason
from tests.unit.protocol.certificates import Authority, Pair


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """A master's certificate."""
    return Authority(tmp_path).issue("master")


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """A file of one token."""
    path = tmp_path / "token"
    path.write_text("secret\n")
    return path


def bind_refusal(files: SecurityFiles, host: str) -> str:
    """What is said to an address that others can reach."""
    with pytest.raises(Rejected) as caught:
        ServerSecurity(files).check_bind(host)
    assert caught.value.reason is Reason.INSECURE_BIND
    assert caught.value.metadata == {"host": host}
    return str(caught.value)


def test_an_open_address_needs_both_tls_and_a_token(pair: Pair, token: Path) -> None:
    """Each alone is not enough, and the message says which is missing."""
    tls = SecurityFiles(cert=pair.cert, key=pair.key)

    assert "neither TLS nor a token" in bind_refusal(SecurityFiles(), "0.0.0.0")
    assert "a token is missing" in bind_refusal(tls, "10.0.0.1")
    assert "TLS is missing" in bind_refusal(SecurityFiles(token=token), "[::]")
    ServerSecurity(SecurityFiles(cert=pair.cert, key=pair.key, token=token)).check_bind("0.0.0.0")
    ServerSecurity(SecurityFiles()).check_bind("127.0.0.1")


def test_half_of_a_set_up_is_refused(pair: Pair, tmp_path: Path) -> None:
    """A key without a certificate, or client certificates without TLS, protect nothing."""
    for files, lacks in (
        (SecurityFiles(cert=pair.cert), "--tls-key"),
        (SecurityFiles(key=pair.key), "--tls-cert"),
        (SecurityFiles(client_ca=pair.cert), "--tls-cert"),
        (SecurityFiles(token=tmp_path / "none"), "none"),
    ):
        with pytest.raises(Rejected, match=lacks) as caught:
            ServerSecurity(files)
        assert caught.value.reason is Reason.CREDENTIALS_UNUSABLE
