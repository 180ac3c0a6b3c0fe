"""What a client brings along: which token, which warning, and when the cause is looked for."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

import pytest

from tenure.client.security import Credentials
from tenure.protocol import handshake
from tenure.protocol.errors import Rejected, TenureError, Unavailable
from tenure.protocol.handshake import Peer
from tenure.protocol.refusal import Reason
from tenure.protocol.tls import Tls

ADDRESS = "10.0.0.1:7400"
CLOSED = "expected to reach m, but failed to connect to all addresses; last error: Socket closed"
SILENT = (
    "expected to reach m, but failed to connect to all addresses; last error: connection attempt "
    "timed out before receiving SETTINGS frame"
)


class Probe:
    """Counts the looks for a cause, and keeps them waiting if asked to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        monkeypatch.setattr(handshake, "diagnose", self._diagnose)

    def _diagnose(self, address: str, tls: Tls | None, peer: Peer) -> Rejected:
        self.looks += 1
        self.may_answer.wait(10)
        return Rejected("it speaks TLS", reason=Reason.TLS_REQUIRED, metadata={"address": address})


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Probe:
    """In place of the real handshake."""
    return Probe(monkeypatch)


def unreachable(text: str) -> Unavailable:
    """A call that gRPC could not make."""
    return Unavailable(text, reason=Reason.UNREACHABLE)


def test_callers_that_fail_together_share_one_look(probe: Probe) -> None:
    """Each gets an error of its own, so that tracebacks do not pile up in one."""

    async def main() -> list[TenureError]:
        credentials = Credentials()
        return await asyncio.gather(
            *(credentials.explained(unreachable(CLOSED), ADDRESS) for _ in range(10))
        )

    errors = asyncio.run(main())

    assert {error.reason for error in errors} == {Reason.TLS_REQUIRED}
    assert len({id(error) for error in errors}) == 10
    assert probe.looks == 1


@pytest.mark.parametrize(
    "error",
    [
        unreachable("expected to reach m, but Socket closed"),
        unreachable("failed to connect to all addresses; last error: Connection refused"),
        unreachable("failed to connect to all addresses; last error: Network is unreachable"),
        Unavailable("failed to connect to all addresses", reason=Reason.NOT_LEADER),
        Rejected("failed to connect", reason=Reason.TOKEN_INVALID),
    ],
)
def test_other_failures_cost_nothing(probe: Probe, error: TenureError) -> None:
    """A dead master, a broken stream, a refusal: nobody connects anew for them."""
    assert asyncio.run(Credentials().explained(error, ADDRESS)) is error
    assert probe.looks == 0


def test_a_silent_peer_is_not_waited_for(probe: Probe) -> None:
    """It is most often frozen, and its successor must be found: a later failure has the cause."""
    probe.may_answer.clear()

    async def main() -> None:
        credentials = Credentials()
        error = unreachable(SILENT)
        assert await credentials.explained(error, ADDRESS) is error
        probe.may_answer.set()
        # Shares the look that is under way, and this one waits.
        explained = await credentials.explained(unreachable(CLOSED), ADDRESS)
        assert explained.reason is Reason.TLS_REQUIRED

    asyncio.run(main())
    assert probe.looks == 1


def test_a_token_in_plaintext_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """Not on loopback, where nobody listens in."""
    credentials = Credentials("secret")
    with caplog.at_level(logging.WARNING):
        for address in (ADDRESS, "127.0.0.1:7400", ADDRESS, "localhost:7400", "[::1]:7400"):
            assert credentials.metadata(address) == (("authorization", "Bearer secret"),)

    assert [ADDRESS in record.getMessage() for record in caplog.records] == [True]
    assert "secret" not in caplog.text


def test_where_the_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument, the file of the environment, its text, none; an empty text is none."""
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.write_text("first\nsecond\n")
    theirs.write_text("third\n")

    def sent(token: str | Path | None) -> str | None:
        metadata = Credentials(token).metadata("127.0.0.1:1")
        return metadata[0][1].removeprefix("Bearer ") if metadata else None

    assert sent(None) is None
    monkeypatch.setenv("TENURE_TOKEN", "text")
    assert sent(None) == "text"
    monkeypatch.setenv("TENURE_TOKEN_FILE", str(theirs))
    assert sent(None) == "third"
    assert sent(mine) == "first"
    assert sent("given") == "given"
    assert sent("") is None


def test_a_token_that_cannot_travel_is_refused() -> None:
    """Before any call, and without showing it."""
    with pytest.raises(Rejected) as caught:
        Credentials("two words")
    assert caught.value.reason is Reason.CREDENTIALS_UNUSABLE
    assert "two words" not in str(caught.value)
