"""User code hurts its worker in all ways that it knows; the worker and its other jobs go on."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tenure.client import Client, JobFailed, JobHandle, Step
from tenure.client.job import JobDef
from tenure.worker.executor.patience import GRACE_MS
from tenure.worker.exits import EXIT_RESTART
from tests.chaos.cluster import Cluster
from tests.chaos.process import Process
from tests.integration import torture

pytestmark = pytest.mark.timeout(240)

WAIT_S = 90.0
#: How many hurt at a time: there are slots for others.
AT_ONCE = 3
#: Others' jobs, a half of the quiet ones before and after: how many, and how much later they may
#: end while some hurt. Of fewer the p99 would be the worst of them, and that is the machine's.
PINGS = 400
SLOWER_MAX = 3.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A master."""
    with Cluster(tmp_path / "cluster", f"sqlite://{tmp_path}/store.db") as cluster:
        cluster.start_masters(1)
        yield cluster


def start_worker(cluster: Cluster, slots: int, *flags: str) -> Process:
    """A worker that is to be tortured."""
    app = "tests.integration.torture"
    worker = cluster.start_worker("worker-1", slots=slots, app=app, flags=flags)
    cluster.wait_said(worker, "registered")
    return worker


class Pings:
    """Sends a small job again and again, and notes how long each took."""

    def __init__(self, client: Client, what: JobDef[[], float] = torture.ping) -> None:
        self._client = client
        self._what = what
        self.took_s: list[float] = []

    def ping(self, times: int = 1) -> None:
        """One more, or several, one after the other."""
        for _ in range(times):
            begun = time.monotonic()
            self._client.submit(self._what).result(timeout=WAIT_S)
            self.took_s.append(time.monotonic() - begun)

    def __str__(self) -> str:
        return f"{len(self.took_s)} pings, p99 {self.p99_s() * 1_000:.0f} ms"

    def p99_s(self) -> float:
        """What all but one in a hundred took at most, in seconds."""
        return sorted(self.took_s)[int(len(self.took_s) * 0.99)]


def grim(folder: Path) -> dict[Step[Any], tuple[str, str]]:
    """Jobs that hurt, and how each of them fails; what they note is in the folder."""
    return {
        torture.leave.bind(): ("POISON", "ended itself with exit status 17"),
        torture.segfault.bind(): ("POISON", "SIGSEGV"),
        torture.overflow.bind(): ("POISON", "SIGSEGV"),
        torture.kill.bind(): ("POISON", "SIGKILL, and not by this worker"),
        torture.halt.bind(): ("TIMED_OUT", "tenure.TIMED_OUT"),
        torture.spin.bind(f"{folder}/spin"): ("TIMED_OUT", "tenure.TIMED_OUT"),
        torture.burn.bind(): ("EXHAUSTED", "SIGXCPU"),
        torture.hog.bind(): ("EXHAUSTED", "MemoryError"),
        torture.breed.bind(f"{folder}/breed"): ("TIMED_OUT", "tenure.TIMED_OUT"),
        torture.bomb.bind(f"{folder}/bomb"): ("EXHAUSTED", "BlockingIOError"),
        torture.swallow.bind(): ("TIMED_OUT", "tenure.TimedOut"),
        torture.recurse.bind(): ("EXHAUSTED", "RecursionError"),
        torture.riddle.bind(): ("PERMANENT", "INVALID_ARGUMENT"),
        torture.slam.bind(): ("POISON", "tenure.LOST"),
        torture.yes.bind(): ("PERMANENT", "PAYLOAD_TOO_LARGE"),
        torture.stubborn.bind(): ("TIMED_OUT", "CommandFailed"),
        torture.absent.bind(): ("PERMANENT", "COMMAND_NOT_FOUND"),
    }


def hurt(client: Client, fates: dict[Step[Any], tuple[str, str]], loud: Pings) -> None:
    """Each attempt comes to what the documents say; others' jobs are timed meanwhile."""
    handles: dict[Step[Any], JobHandle[Any]] = {}
    open_jobs: list[JobHandle[Any]] = []
    for step in fates:
        handles[step] = _submit(client, step)
        open_jobs = [handle for handle in [*open_jobs, handles[step]] if not handle.wait(0.01)]
        while len(open_jobs) >= AT_ONCE:
            loud.ping()
            open_jobs = [handle for handle in open_jobs if not handle.wait(0.01)]
    well = [_submit(client, step.bind()) for step in (torture.babble, torture.leak)]
    while not client.wait_all(open_jobs, timeout=0.01):
        loud.ping()
    for step, (reason, text) in fates.items():
        told = _fate(handles[step])
        assert told[0] == reason, (step, told)
        assert text in told[1], (step, told)
    for handle in well:
        handle.result(timeout=WAIT_S)


def test_torture(cluster: Cluster, tmp_path: Path) -> None:
    """Whatever user code does, its own attempt pays for it, and nobody else notices."""
    worker = start_worker(cluster, slots=8)
    pid = worker.pid
    folders: list[Path] = []
    with Client(cluster.addresses) as client:
        quiet, loud = Pings(client), Pings(client)
        quiet.ping(PINGS // 2)
        while len(loud.took_s) < PINGS:
            folders.append(tmp_path / f"round-{len(folders)}")
            folders[-1].mkdir()
            fates = grim(folders[-1])
            if len(folders) > 1:
                # The first one still runs: of many of that kind a worker gets rid by a restart.
                fates = {s: fate for s, fate in fates.items() if s.job is not torture.swallow}
            hurt(client, fates, loud)
        assert worker.pid == pid
        assert worker.running
        quiet.ping(PINGS // 2)
        sys.stdout.write(f"torture: {loud} in {len(folders)} rounds, quiet: {quiet}\n")
        assert loud.p99_s() <= SLOWER_MAX * quiet.p99_s()
    notes = [folder / name for folder in folders for name in ("breed", "bomb")]
    groups = [int(note.read_text()) for note in notes]
    _until(lambda: not [pid for pid, its in _groups().items() if its in groups])


def test_a_coroutine_that_blocks_the_loop(cluster: Cluster) -> None:
    """It is in nobody's way who does not share the loop, and is given up; what waits for the loop
    runs when the worker, which asks for it, has been started again.

    That the loop is blocked is known after two seconds. Other coroutines have to wait for longer:
    they are no measure of how well the rest does.
    """
    slots = 8
    worker = start_worker(cluster, slots, "--drain-timeout", "1")
    worker.let_end()
    with Client(cluster.addresses) as client:
        quiet, loud = Pings(client, torture.pong), Pings(client, torture.pong)
        quiet.ping(PINGS // 2)
        # Until it is given up: then the worker ends, and they would wait for the next one.
        end = time.monotonic() + torture.BLOCKED.total_seconds() + GRACE_MS / 2_000
        blocker = client.submit(torture.block)
        while "has blocked the loop" not in worker.log_tail():
            loud.ping()
        waiting = [client.submit(torture.ping) for _ in range(2 * slots)]
        while time.monotonic() < end:
            loud.ping()
        assert not any(handle.wait(0) for handle in waiting)
        assert _fate(blocker)[0] == "TIMED_OUT"
        assert worker.wait_exit(WAIT_S) == EXIT_RESTART
        start_worker(cluster, slots)
        client.wait_all(waiting, timeout=WAIT_S)
        for handle in waiting:
            assert handle.result(timeout=WAIT_S) > 0
        quiet.ping(PINGS // 2)
        sys.stdout.write(f"a blocked loop: {loud}, quiet: {quiet}\n")
        assert len(loud.took_s) >= 100
        assert loud.p99_s() <= SLOWER_MAX * quiet.p99_s()


def test_nothing_outlives_a_worker_that_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    """Children, commands, and what they have started end with it, though it could say nothing."""
    worker = start_worker(cluster, slots=4)
    notes = [tmp_path / "process", tmp_path / "command"]
    with Client(cluster.addresses) as client:
        client.submit(torture.stay, str(notes[0]))
        client.submit(torture.stay_command, str(notes[1]))
        _until(lambda: all(note.exists() and len(note.read_text().split()) == 2 for note in notes))
    left = [int(pid) for note in notes for pid in note.read_text().split()]
    assert all(pid in _groups() for pid in left)
    worker.kill()
    _until(lambda: not any(pid in _groups() for pid in left))


def test_a_thread_that_a_job_leaves_behind_does_not_keep_its_worker(cluster: Cluster) -> None:
    """A worker that was told to end does, with status 0, and says what it has not waited for."""
    worker = start_worker(cluster, slots=4)
    with Client(cluster.addresses) as client:
        client.submit(torture.dangle).result(timeout=WAIT_S)
    worker.terminate()
    assert worker.wait_exit(WAIT_S) == 0
    assert "threads that jobs have left behind" in worker.log_tail()


def _submit(client: Client, step: Step[Any]) -> JobHandle[Any]:
    return client.submit(step.job, *step.args, **step.kwargs)


def _fate(handle: JobHandle[Any]) -> tuple[str, str]:
    """Why a job has failed, and with what."""
    try:
        return "COMPLETED", str(handle.result(timeout=WAIT_S))
    except JobFailed as failed:
        reason = failed.failure_reason
        return reason.name if reason is not None else "", str(failed.error)


def _groups() -> dict[int, int]:
    """The group of each process that has not ended."""
    found: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = stat.read_text().rpartition(") ")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if state != "Z":
            found[int(stat.parent.name)] = int(group)
    return found


def _until(done: Callable[[], object]) -> None:
    tick, end = threading.Event(), time.monotonic() + WAIT_S
    while not done():
        if time.monotonic() > end:
            raise AssertionError("it never came to be")
        tick.wait(0.02)
