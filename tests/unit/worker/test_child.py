"""A child process by itself, with the test as its parent."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from tenure.protocol.fence import Lease
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.child import EXIT_APP, EXIT_PARENT_GONE
from tenure.worker.executor import frame
from tenure.worker.executor.board import Board, new_page
from tests.unit.worker.masters import TOKEN, job_id

WAIT_S = 30.0
APP = "tests.unit.worker.applications"


@dataclass
class Spawned:
    """A child and this end of its sockets."""

    process: subprocess.Popen[bytes]
    jobs: socket.socket
    control: socket.socket
    board: Board
    inflow: frame.Inflow[frame.ToParent] = field(default_factory=frame.inflow_of_parent)
    said: list[frame.ToParent] = field(default_factory=list)

    def heard(self, count: int = 1) -> list[frame.ToParent]:
        """So many frames of the child's, without those of progress: jobs go on to say those."""
        found: list[frame.ToParent] = []
        while len(found) < count:
            said = self._next()
            if not isinstance(said, frame.Progress):
                found.append(said)
        return found

    def until_runs(self, number: int) -> None:
        """Waits for the first word of a job's progress; what comes before is other jobs'."""
        while (said := self._next()) != frame.Progress(number, 50):
            assert isinstance(said, frame.Progress), said

    def _next(self) -> frame.ToParent:
        while not self.said:
            self.said += frame.receive(self.jobs, self.inflow)
        return self.said.pop(0)


@contextmanager
def spawned(app: str = APP) -> Iterator[Spawned]:
    """A child for a while."""
    (jobs, theirs), (control, their_control) = socket.socketpair(), socket.socketpair()
    page = new_page()
    passed = [theirs.fileno(), their_control.fileno(), page]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tenure.worker.child"),
            *(*map(str, passed), str(os.getpid()), app, "20"),
        ],
        pass_fds=passed,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry or "." for entry in sys.path)},
    )
    theirs.close()
    their_control.close()
    jobs.settimeout(WAIT_S)
    with process, jobs, control:
        yield Spawned(process, jobs, control, Board(page))
        control.close()


def run_of(number: int, name: str, *args: object) -> frame.Run:
    """A request to run a job of the test application."""
    return frame.Run(
        number=number,
        job_id=job_id(number),
        name=name,
        fence=Lease(TOKEN, number, 0).fence,
        attempt=1,
        expires_ms=1 << 60,
        deadline_ms=0,
        timeout_ms=0,
        content_type="",
        non_retryable=[],
        payload=msgspec.msgpack.encode((args, {})),
    )


@pytest.mark.parametrize("busy", [False, True])
def test_child_ends_with_its_parent(busy: bool, tmp_path: Path) -> None:
    """When the sockets close the child exits, in the middle of a job too."""
    with spawned() as child:
        assert child.heard() == [frame.Ready()]
        if busy:
            frame.send(child.jobs, run_of(1, "until_told_in_child", f"{tmp_path}/s"))
            child.until_runs(1)
        child.control.close()
        assert child.process.wait(WAIT_S) == EXIT_PARENT_GONE


def test_child_that_gets_no_more_jobs_ends_in_order() -> None:
    """It has exit status 0: what the application does at exit is done."""
    with spawned() as child:
        assert child.heard() == [frame.Ready()]
        child.jobs.shutdown(socket.SHUT_WR)
        assert child.process.wait(WAIT_S) == 0


def test_child_without_an_application_says_why() -> None:
    """A module that does not import ends the child with its own status and a readable line."""
    with spawned("nowhere_4711") as child:
        assert child.process.wait(WAIT_S) == EXIT_APP
        assert child.process.stderr is not None
        assert b"there is no module nowhere_4711" in child.process.stderr.read()


def test_stop_and_lease_reach_the_running_job(tmp_path: Path) -> None:
    """What the parent says counts for the job that it names only."""
    with spawned() as child:
        assert child.heard() == [frame.Ready()]
        for number, said, outcome in (
            (1, frame.Stop(1, AttemptOutcome.CANCELLED), AttemptOutcome.CANCELLED),
            (2, frame.Lease(2, 1 << 60, True), AttemptOutcome.LOST),
            (3, frame.Lease(3, 0, False), AttemptOutcome.LOST),
        ):
            frame.send(child.jobs, run_of(number, "until_told_in_child", f"{tmp_path}/s"))
            child.until_runs(number)
            frame.send(child.control, frame.Stop(number - 1, AttemptOutcome.RELEASED), said)
            (answer,) = child.heard()
            assert isinstance(answer, frame.Ended)
            assert (answer.number, answer.as_result().outcome) == (number, outcome)


def test_jobs_of_one_write_run_in_order_and_the_lease_waits_for_its_job(tmp_path: Path) -> None:
    """What is said of a lease before the job's turn has come counts when it has."""
    with spawned() as child:
        assert child.heard() == [frame.Ready()]
        frame.send(
            child.jobs,
            run_of(1, "until_told_in_child", f"{tmp_path}/s"),
            run_of(2, "double_in_child", 2),
            run_of(3, "until_told_in_child", f"{tmp_path}/s"),
        )
        child.until_runs(1)
        frame.send(child.control, frame.Lease(3, 0, False))
        frame.send(child.control, frame.Stop(1, AttemptOutcome.CANCELLED))
        first, second, third = child.heard(3)
        assert isinstance(first, frame.Ended)
        assert isinstance(second, frame.Ended)
        assert isinstance(third, frame.Ended)
        assert [first.number, second.number, third.number] == [1, 2, 3]
        assert third.as_result().outcome is AttemptOutcome.LOST


def test_a_stop_waits_for_its_job(tmp_path: Path) -> None:
    """One that comes between a job's turn and its code is not lost: nobody would say it again."""
    with spawned() as child:
        assert child.heard() == [frame.Ready()]
        frame.send(
            child.jobs,
            run_of(1, "until_told_in_child", f"{tmp_path}/s"),
            run_of(2, "until_told_in_child", f"{tmp_path}/s"),
        )
        child.until_runs(1)
        frame.send(child.control, frame.Stop(2, AttemptOutcome.RELEASED))
        frame.send(child.control, frame.Stop(1, AttemptOutcome.CANCELLED))
        first, second = child.heard(2)
        assert isinstance(first, frame.Ended)
        assert isinstance(second, frame.Ended)
        assert (first.number, first.as_result().outcome) == (1, AttemptOutcome.CANCELLED)
        assert (second.number, second.as_result().outcome) == (2, AttemptOutcome.RELEASED)


def test_what_was_taken_back_is_skipped(tmp_path: Path) -> None:
    """The board counts, whatever is in the socket; what comes later runs."""
    with spawned() as child:
        assert child.heard() == [frame.Ready()]
        frame.send(
            child.jobs,
            run_of(1, "until_told_in_child", f"{tmp_path}/s"),
            run_of(2, "double_in_child", 2),
            run_of(3, "double_in_child", 3),
        )
        child.until_runs(1)
        assert child.board.take_back(3) == 1
        frame.send(child.jobs, run_of(4, "double_in_child", 4))
        frame.send(child.control, frame.Stop(1, AttemptOutcome.CANCELLED))
        first, *skipped, last = child.heard(4)
        assert isinstance(first, frame.Ended)
        assert skipped == [frame.Skipped(2), frame.Skipped(3)]
        assert isinstance(last, frame.Ended)
        assert (last.number, last.result) == (4, msgspec.msgpack.encode(8))
