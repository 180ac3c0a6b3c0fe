"""A child process by itself, with the test as its parent."""

import os
import socket
import subprocess
import sys

import msgspec
import pytest

from tenure.protocol.fence import Lease
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.child import EXIT_APP, EXIT_PARENT_GONE
from tenure.worker.executor import frame
from tests.unit.worker.masters import TOKEN, job_id

WAIT_S = 30.0


def spawn(app: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Starts a child."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "tenure.worker.child", str(theirs.fileno()), app],
        pass_fds=(theirs.fileno(),),
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry or "." for entry in sys.path)},
    )
    theirs.close()
    ours.settimeout(WAIT_S)
    return process, ours


def run_of(name: str, *args: object) -> frame.Run:
    """A request to run a job of the test application."""
    return frame.Run(
        job_id=job_id(1),
        name=name,
        fence=Lease(TOKEN, 1, 0).fence,
        attempt=1,
        expires_ms=1 << 60,
        deadline_ms=0,
        timeout_ms=0,
        content_type="",
        non_retryable=[],
        payload=msgspec.msgpack.encode((args, {})),
    )


@pytest.mark.parametrize("busy", [False, True])
def test_child_ends_with_its_parent(busy: bool, tmp_path: object) -> None:
    """When the socket closes the child exits, in the middle of a job too."""
    process, sock = spawn("tests.unit.worker.applications")
    with process:
        assert frame.receive_in_parent(sock) == frame.Ready()
        if busy:
            frame.send(sock, run_of("until_told_in_child", f"{tmp_path}/s"))
            assert frame.receive_in_parent(sock) == frame.Progress(50)
        sock.close()
        assert process.wait(WAIT_S) == EXIT_PARENT_GONE


def test_child_without_an_application_says_why() -> None:
    """A module that does not import ends the child with its own status and a readable line."""
    process, sock = spawn("nowhere_4711")
    with process, sock:
        assert process.wait(WAIT_S) == EXIT_APP
        assert process.stderr is not None
        assert b"there is no module nowhere_4711" in process.stderr.read()


def test_stop_and_lease_reach_the_running_job(tmp_path: object) -> None:
    """What the parent says while a job runs counts for that job only."""
    process, sock = spawn("tests.unit.worker.applications")
    with process, sock:
        assert frame.receive_in_parent(sock) == frame.Ready()
        for said, outcome in (
            (frame.Stop(AttemptOutcome.CANCELLED), AttemptOutcome.CANCELLED),
            (frame.Lease(1 << 60, True), AttemptOutcome.LOST),
            (frame.Lease(0, False), AttemptOutcome.LOST),
        ):
            frame.send(sock, run_of("until_told_in_child", f"{tmp_path}/s"))
            assert frame.receive_in_parent(sock) == frame.Progress(50)
            frame.send(sock, said)
            answer = frame.receive_in_parent(sock)
            assert isinstance(answer, frame.Ended)
            assert answer.as_result().outcome is outcome
        sock.close()
        process.wait(WAIT_S)
