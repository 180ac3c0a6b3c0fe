"""The proxy does what tests believe of it: to the byte, in one direction, between two processes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from tests.chaos.links import Links
from tests.oracles.history import boottime_ms


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Links]:
    """One proxy, which knows this process as ``me``."""
    folder = tmp_path_factory.mktemp("proxy")
    with Links(folder) as links:
        links.know("me", pid=os.getpid())
        yield links
    (log,) = folder.glob("proxy.*.log")
    assert log.read_text() == ""


@pytest.fixture
def pair(links: Links) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Who dialled the target ``echo`` through the proxy, and the target's end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        door = links.door("echo", f"127.0.0.1:{server.getsockname()[1]}")
        with socket.create_connection(("127.0.0.1", door), 10) as near:
            far, _ = server.accept()
            with far:
                far.settimeout(10)
                yield near, far


def received(end: socket.socket, count: int) -> bytes:
    """So many bytes, or fewer if the connection breaks before."""
    data = b""
    while len(data) < count:
        try:
            piece = end.recv(count - len(data))
        except ConnectionResetError:
            return data
        if not piece:
            return data
        data += piece
    return data


def send_for_ever(end: socket.socket) -> None:
    """Until the connection breaks."""
    while True:
        end.sendall(b"x" * 1_000)


def test_bytes_pass_unchanged_both_ways(pair: tuple[socket.socket, socket.socket]) -> None:
    """Without rules nothing is changed, and the end of one side is heard on the other."""
    near, far = pair
    near.sendall(b"ping")
    assert received(far, 4) == b"ping"
    far.sendall(b"pong")
    assert received(near, 4) == b"pong"
    near.shutdown(socket.SHUT_WR)
    assert far.recv(1) == b""


def test_one_side_goes_while_the_other_speaks(pair: tuple[socket.socket, socket.socket]) -> None:
    """Who had said all, and goes before it has heard all, ends the connection for the other."""
    near, far = pair
    near.shutdown(socket.SHUT_WR)
    assert far.recv(1) == b""
    near.close()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        send_for_ever(far)


@pytest.mark.parametrize("k", [0, 1, 3, 7])
def test_cuts_after_so_many_bytes(
    links: Links, pair: tuple[socket.socket, socket.socket], k: int
) -> None:
    """Exactly k more bytes pass, then the connection is gone; the rule is gone with it."""
    near, far = pair
    near.sendall(b"before")
    assert received(far, 6) == b"before"
    rule = links.make("me", "echo", way="up", cut_after=k)
    near.sendall(b"12345678")
    assert received(far, 100) == b"12345678"[:k]
    assert links.wait_cut(rule, 5)


def test_holds_one_way(links: Links, pair: tuple[socket.socket, socket.socket]) -> None:
    """What is held comes late and whole, while the other direction is open."""
    near, far = pair
    with links.spoiled("me", "echo", way="up", hold=True):
        near.sendall(b"late")
        far.sendall(b"open")
        assert received(near, 4) == b"open"
        far.settimeout(0.2)
        with pytest.raises(TimeoutError):
            far.recv(4)
    far.settimeout(10)
    assert received(far, 4) == b"late"


def test_delays(links: Links, pair: tuple[socket.socket, socket.socket]) -> None:
    """Bytes come later, not more slowly: those sent together come together."""
    near, far = pair
    with links.spoiled("*", "echo", delay_ms=300):
        sent_ms = boottime_ms()
        near.sendall(b"x" * 1_000)
        near.sendall(b"y" * 1_000)
        assert len(received(far, 2_000)) == 2_000
        assert 290 <= boottime_ms() - sent_ms <= 2_000


def test_limits_bandwidth(links: Links, pair: tuple[socket.socket, socket.socket]) -> None:
    """32 KiB over a line of 256 kbit/s take a second."""
    near, far = pair
    with links.spoiled("me", "echo", bytes_per_s=32_768):
        sent_ms = boottime_ms()
        near.sendall(b"x" * 32_768)
        assert len(received(far, 32_768)) == 32_768
        assert 800 <= boottime_ms() - sent_ms <= 4_000


def test_a_rule_is_for_two_processes(
    links: Links, pair: tuple[socket.socket, socket.socket]
) -> None:
    """What is spoiled between others does not concern this connection."""
    near, far = pair
    with links.spoiled("somebody", "echo", hold=True), links.spoiled("me", "else", hold=True):
        near.sendall(b"pass")
        assert received(far, 4) == b"pass"


def test_resets(links: Links, pair: tuple[socket.socket, socket.socket]) -> None:
    """Both ends are reset, and new connections are refused as long as a rule says so."""
    near, _ = pair
    door = near.getpeername()
    assert links.reset("me", "echo") >= 1
    with pytest.raises(ConnectionResetError):
        near.recv(1)
    with links.spoiled("*", "echo", refuse=True):
        again = socket.create_connection(door, 10)
        with again, pytest.raises(ConnectionResetError):
            again.recv(1)
