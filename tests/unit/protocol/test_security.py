"""Files of certificates and tokens: what is taken, what is refused, when they are read again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from tenure.protocol import security
from tenure.protocol.errors import Rejected
from tenure.protocol.loopback import is_loopback
from tenure.protocol.refusal import Reason
from tenure.protocol.security import (
    LOOK_S,
    Pem,
    Tls,
    TokenGate,
    bearer,
    read_identity,
    read_tokens,
    read_trust,
)
from tests.unit.protocol.certificates import Authority

TOKEN = "5e2f4a6b7c8d"


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets so much time pass that files are looked at again."""
    now_s = [1_000.0]
    monkeypatch.setattr(security.time, "monotonic", lambda: now_s[0])

    def later() -> None:
        now_s[0] += LOOK_S

    return later


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority whose files lie in the test's folder."""
    return Authority(tmp_path)


def refused(read: Callable[[], object]) -> str:
    """The message of a file that cannot be used."""
    with pytest.raises(Rejected) as caught:
        read()
    assert caught.value.reason is Reason.CREDENTIALS_UNUSABLE
    return str(caught.value)


def test_files_of_a_client_and_of_a_server_are_read(authority: Authority) -> None:
    """What is sent to gRPC are the files, as they are."""
    pair = authority.issue("node")
    expected = Pem(
        ca=authority.ca.read_bytes(), cert=pair.cert.read_bytes(), key=pair.key.read_bytes()
    )

    assert read_trust(authority.trusted(pair)).now() == expected
    assert read_identity(pair.cert, pair.key, authority.ca).now() == expected
    assert read_trust(authority.trusted()).now() == Pem(ca=expected.ca)


def test_unusable_certificates_are_refused_by_name(authority: Authority, tmp_path: Path) -> None:
    """Missing, empty, foreign, swapped: the message names the file and says what it should be."""
    pair, other = authority.issue("node"), authority.issue("other")
    empty = tmp_path / "empty.pem"
    empty.touch()
    locked = tmp_path / "locked.key"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")

    assert "No such file" in refused(lambda: read_trust(Tls(ca=tmp_path / "none.pem")))
    assert "empty.pem" in refused(lambda: read_trust(Tls(ca=empty)))
    assert "together" in refused(lambda: read_trust(Tls(ca=authority.ca, cert=pair.cert)))
    assert "another certificate's" in refused(lambda: read_identity(pair.cert, other.key, None))
    assert "a certificate in" in refused(lambda: read_identity(pair.key, pair.key, None))
    assert "a private key in" in refused(lambda: read_identity(pair.cert, pair.cert, None))
    assert "passphrase" in refused(lambda: read_identity(pair.cert, locked, None))
    assert "directory" in refused(lambda: read_identity(pair.cert, tmp_path, None))


def test_a_damaged_certificate_is_refused(authority: Authority) -> None:
    """The marks of PEM are there, and nothing that can be read between them."""
    pair = authority.issue("node")
    lines = pair.cert.read_text().splitlines()
    pair.cert.write_text("\n".join([lines[0], "AAAA", lines[-1], ""]))

    assert "cannot be read" in refused(lambda: read_identity(pair.cert, pair.key, None))


def test_changed_files_are_read_again(authority: Authority, look: Callable[[], None]) -> None:
    """A renewed certificate is taken at the next look; without a change nothing is made anew."""
    pair = authority.issue("node")
    identity = read_identity(pair.cert, pair.key, None)
    first = identity.now()
    look()
    assert identity.now() is first

    authority.issue("node")
    assert identity.now() is first, "looked at more often than it costs"
    look()

    assert identity.now() == Pem(cert=pair.cert.read_bytes(), key=pair.key.read_bytes())
    assert identity.now() != first


def test_half_of_a_change_is_not_taken(
    authority: Authority, look: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A certificate without its key is not used; the log says so once, and the pair is taken."""
    pair = authority.issue("node")
    identity = read_identity(pair.cert, pair.key, None)
    first, old_key = identity.now(), pair.key.read_bytes()

    authority.issue("node")
    new_key = pair.key.read_bytes()
    pair.key.write_bytes(old_key)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            look()
            assert identity.now() is first
    assert [record.message.count("another certificate's") for record in caplog.records] == [1]

    pair.key.write_bytes(new_key)
    look()
    assert identity.now().key == new_key


def test_a_file_that_goes_away_changes_nothing(
    authority: Authority, look: Callable[[], None]
) -> None:
    """What was read stays in force until there is something else."""
    trust = read_trust(authority.trusted())
    first = trust.now()
    authority.ca.unlink()
    look()

    assert trust.now() is first


def test_tokens_are_one_a_line(tmp_path: Path) -> None:
    """Blank lines and the newline at the end are no tokens."""
    path = tmp_path / "token"
    path.write_bytes(f"{TOKEN}\r\n\r\n \n\nsecond\n".encode())

    assert read_tokens(path).now() == (TOKEN, "second")


@pytest.mark.parametrize("content", [b"", b"\n \n", b"two words\n", "schlüssel".encode(), b"\0"])
def test_a_token_that_cannot_travel_is_refused(tmp_path: Path, content: bytes) -> None:
    """Metadata is printable ASCII; the message names the file and never shows the token."""
    path = tmp_path / "token"
    path.write_bytes(content)

    message = refused(lambda: read_tokens(path))

    assert str(path) in message
    assert "words" not in message


def test_the_gate_knows_each_token_of_the_file(tmp_path: Path, look: Callable[[], None]) -> None:
    """Any line lets in, nothing else does; a removed one is refused from the next look on."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\nsecond\n")
    gate = TokenGate(read_tokens(path))

    def reason(authorization: str | None) -> Reason | None:
        refusal = gate.refusal(authorization)
        return refusal.reason if refusal else None

    assert reason(bearer(TOKEN)[1]) is None
    assert reason("bearer second") is None
    assert reason(None) is Reason.TOKEN_MISSING
    for wrong in (
        "Bearer ",
        "Bearer",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        "Bearer \udc80",
    ):
        assert reason(wrong) is Reason.TOKEN_INVALID

    path.write_text("second\n")
    look()
    assert reason(bearer(TOKEN)[1]) is Reason.TOKEN_INVALID
    assert reason("Bearer second") is None


def test_loopback() -> None:
    """Only what no other machine can reach."""
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.1", "[::]", "tenure.example", "")))
