"""What a node tells systemd, heard by a socket of the test's."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenure.protocol.systemd import Notifier
from tenure.testing.loop import run_virtual
from tenure.testing.process import elapse


@pytest.fixture(params=["path", "abstract"])
def ear(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket, and its name as systemd writes it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@tenure-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        bound.setblocking(False)
        yield bound, name


def heard(ear: socket.socket) -> list[str]:
    """All that was said so far."""
    said = []
    while True:
        try:
            said.append(ear.recv(4096).decode())
        except BlockingIOError:
            return said


def test_each_state_is_a_datagram(ear: tuple[socket.socket, str]) -> None:
    """Ready, reloading with the time it began, ready again, stopping; a status when it changes."""
    notifier = Notifier({"NOTIFY_SOCKET": ear[1]})
    notifier.ready()
    notifier.status("one")
    notifier.status("one")
    notifier.status("two")
    notifier.reloading()
    notifier.stopping()
    said = heard(ear[0])
    assert said[:3] == ["READY=1", "STATUS=one", "STATUS=two"]
    assert said[3].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert said[4:] == ["STOPPING=1"]


def test_what_it_starts_does_not_speak_for_it(ear: tuple[socket.socket, str]) -> None:
    """The variables are gone when it has read them."""
    environ = {"NOTIFY_SOCKET": ear[1], "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    Notifier(environ)
    assert environ == {"HOME": "/"}


def test_nobody_listens() -> None:
    """Without systemd nothing is sent, and one that has gone is not waited for."""
    for environ in ({}, {"NOTIFY_SOCKET": "/no/such/socket"}):
        notifier = Notifier(environ)
        notifier.ready()
        notifier.status("fine")
        assert notifier.watchdog_s is None


def test_watchdog_hears_twice_as_often_as_it_must(ear: tuple[socket.socket, str]) -> None:
    """At once and every half of its time, from the loop itself, until the body has ended."""
    notifier = Notifier(
        {"NOTIFY_SOCKET": ear[1], "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}
    )
    assert notifier.watchdog_s == 5.0

    async def main() -> None:
        with notifier.watched():
            await elapse(21)
        await elapse(60)

    run_virtual(main)
    assert heard(ear[0]) == ["WATCHDOG=1"] * 5


def test_a_watchdog_for_another_process_is_not_ours(ear: tuple[socket.socket, str]) -> None:
    """WATCHDOG_PID names whom it is about."""
    notifier = Notifier({"NOTIFY_SOCKET": ear[1], "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"})
    assert notifier.watchdog_s is None
