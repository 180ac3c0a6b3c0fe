"""``tenure dev``: one process tree that comes up, runs a job, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from tenure.client import AsyncClient, Client, JobFailed, Retry
from tests.chaos.cluster import REPOSITORY, tenure
from tests.integration.app import count_jobs, double, oversleep
from tests.integration.commands import run

TIMEOUT_S = 40.0


class Dev:
    """A running ``tenure dev`` and what it says."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._errors = (directory / "stderr").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            tenure("dev", *arguments, "--listen", "127.0.0.1:0"),
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=REPOSITORY,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(directory)},
        )

    def wait_said(self, name: str) -> dict[str, str]:
        """The next event of this name on its stdout."""
        if self.process.stdout is not None:
            for line in self.process.stdout:
                event: dict[str, str] = json.loads(line)
                if event["event"] == name:
                    return event
        raise AssertionError(f"expected to read {name}, but stdout ended: {self.errors()}")

    def errors(self) -> str:
        """What it has said on stderr."""
        self._errors.seek(0)
        return self._errors.read()

    def children(self) -> list[psutil.Process]:
        """Its process tree, without itself."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def close(self) -> None:
        """Ends what still runs."""
        with suppress(psutil.NoSuchProcess):
            for child in self.children():
                child.kill()
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._errors.close()


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    """A cluster for the tests' jobs, in a directory that lasts."""
    running = Dev(tmp_path, "tests.integration.app", "--data-dir", str(tmp_path / "data"))
    yield running
    running.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_runs_and_a_signal_ends_all(dev: Dev, tmp_path: Path, number: int) -> None:
    """The serving line comes first; a job runs; INT or TERM ends the whole tree with 0."""
    address = dev.wait_said("serving")["address"]
    dev.wait_said("registered")
    with Client(address) as client:
        assert client.submit(double, 21).result(timeout=20) == 42
    assert f"serving on {address}" in dev.errors()
    assert re.search(r"^running .*\bdouble\b", dev.errors(), re.MULTILINE)
    assert re.search(rf"^next: tenure submit \S+ .*--address {address}", dev.errors(), re.MULTILINE)
    children = dev.children()
    assert len(children) >= 2

    dev.process.send_signal(number)

    assert dev.process.wait(TIMEOUT_S) == 0
    assert psutil.wait_procs(children, timeout=TIMEOUT_S)[1] == []
    assert (tmp_path / "data" / "tenure.db").exists()


def test_its_jobs_are_clients_of_it(dev: Dev) -> None:
    """A job that asks a cluster, and names none, asks the one that runs it."""
    address = dev.wait_said("serving")["address"]
    with Client(address) as client:
        assert client.submit(count_jobs).result(timeout=30) == 1


def test_a_job_that_no_worker_runs_is_told(dev: Dev) -> None:
    """A job's name with a module too many: who waits is told, and so is who looks at it later."""
    address = dev.wait_said("serving")["address"]
    dev.wait_said("registered")
    waited = run(
        *("submit", "jobs.double", "21", "--wait", "--wait-timeout", "8", "--address", address)
    )
    why = "no connected worker runs jobs.double; did you mean double? They run: "
    assert waited.code == 124
    assert waited.stderr.count(f"still waiting: {why}") == 1
    (job_id,) = run("jobs", "list", "-o", "name", "--address", address).stdout.split()
    assert f"waits:     {why}" in run("jobs", "get", job_id, "--address", address).stdout
    with Client(address) as client:
        ((master,), _) = client.cluster.status()
        assert [list(worker.queues) for worker in master.workers] == [[]]


def test_a_worker_that_asks_for_it_is_started_again(dev: Dev) -> None:
    """Threads that do not stop: past the limit the worker restarts, and the jobs go on there."""
    address = dev.wait_said("serving")["address"]
    first = dev.wait_said("registered")["incarnation"]
    with Client(address) as client:
        endless = oversleep.options(timeout=timedelta(milliseconds=50), retry=Retry(max_attempts=1))
        handles = [client.submit(endless) for _ in range(3)]
        for handle in handles:
            with pytest.raises(JobFailed):
                handle.result(timeout=20)
        assert dev.wait_said("registered")["incarnation"] != first
        assert client.submit(double, 21).result(timeout=20) == 42
    assert "status 75" in dev.errors()
    assert "stopping the others" not in dev.errors()
    dev.process.terminate()
    assert dev.process.wait(TIMEOUT_S) == 0


def test_killing_it_ends_its_children(dev: Dev) -> None:
    """kill -9 of the parent leaves no master behind that would hold the port and the store."""
    dev.wait_said("registered")
    children = dev.children()

    dev.process.kill()

    assert psutil.wait_procs(children, timeout=TIMEOUT_S)[1] == []


def test_a_dead_child_ends_the_tree(dev: Dev) -> None:
    """If the master dies, dev stops the rest and exits with an error that says so."""
    dev.wait_said("registered")
    children = dev.children()
    (master,) = [child for child in children if "master" in child.cmdline()]

    master.kill()

    assert dev.process.wait(TIMEOUT_S) == 1
    assert psutil.wait_procs(children, timeout=TIMEOUT_S)[1] == []
    assert "ended with code" in dev.errors()


def test_ephemeral_keeps_nothing(tmp_path: Path) -> None:
    """The temporary directory is gone when dev has ended."""
    dev = Dev(tmp_path, "--ephemeral")
    try:
        dev.wait_said("leader")
        assert list(tmp_path.glob("tenure-*"))
        dev.process.terminate()
        assert dev.process.wait(TIMEOUT_S) == 0
        assert list(tmp_path.glob("tenure-*")) == []
        assert "next: tenure worker APP" in dev.errors()
    finally:
        dev.close()


def test_what_cannot_start_says_why(tmp_path: Path) -> None:
    """A module that does not import, a taken port, a public address: one line, its exit code."""
    place = ("--data-dir", str(tmp_path / "data"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        in_use = run("dev", *place, "--listen", taken)
    public = run("dev", *place, "--listen", "0.0.0.0:0")
    missing = run("dev", "no.such.module", *place, "--listen", "127.0.0.1:0")

    assert in_use.code == 6
    assert "ADDRESS_IN_USE" in in_use.complaint
    assert public.code == 2
    assert "INSECURE_BIND" in public.complaint
    assert missing.code == 2
    assert "APP_NOT_IMPORTABLE" in missing.complaint
    assert "next:" not in missing.stderr

    (tmp_path / "file").touch()
    no_folder = run("dev", "--data-dir", str(tmp_path / "file"))
    assert no_folder.code == 2
    assert "--data-dir" in no_folder.complaint


def test_a_program_may_run_many_loops(dev: Dev, caplog: pytest.LogCaptureFixture) -> None:
    """Each loop's client leaves nothing that a later loop would stumble on."""
    address = dev.wait_said("serving")["address"]

    async def submit() -> None:
        async with AsyncClient(address) as client:
            await client.map(double, range(50))

    for _ in range(20):
        asyncio.run(submit())
    assert caplog.messages == []
