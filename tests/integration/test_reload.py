"""``--reload``: files are changed, and what runs follows."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tenure.client import Client, named
from tests.chaos.cluster import REPOSITORY, Cluster, tenure
from tests.chaos.process import Process

pytestmark = pytest.mark.timeout(180)

JOBS = """
import asyncio
from tenure.client import Retry, job
{rest}

@job(name="say", retry=Retry(max_attempts=1, max_lost=1))
async def say(seconds: float) -> str:
    if "{word}" == "one":
        await asyncio.sleep(seconds)
    return "{word}"
"""


class Dev:
    """``tenure dev --reload`` on an application in a folder of the test's."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder = folder
        self.write("one")
        command = ["sh", "-c", 'cd "$0" && exec "$@"', str(folder)]
        command += tenure("dev", "shop", "--listen", "127.0.0.1:0", "--ephemeral", "--reload")
        self.process = Process(
            "dev", command, folder, cluster.timeline, {"PYTHONPATH": str(REPOSITORY)}
        )
        cluster.processes["dev"] = self.process
        self._cluster = cluster

    def write(self, word: str, rest: str = "") -> None:
        """Changes the application."""
        new = self.folder / "shop.new"
        new.write_text(JOBS.format(word=word, rest=rest))
        new.replace(self.folder / "shop.py")

    def wait(self, event: str, *, count: int = 1) -> None:
        """The n-th of these."""
        self._cluster.until(lambda: len(self.process.events(event)) >= count, 60, event)

    @property
    def address(self) -> str:
        """Of its master."""
        return str(self.process.events("serving")[0].fields["address"])


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    """A running one, with its worker registered."""
    (tmp_path / "app").mkdir()
    with Cluster(tmp_path / "cluster", "none") as cluster:
        dev = Dev(tmp_path / "app", cluster)
        dev.wait("registered")
        yield dev
        dev.process.let_end()
        children = psutil.Process(dev.process.pid).children(recursive=True)
        dev.process.send(signal.SIGTERM)
        assert dev.process.wait_exit(40) == 0
        assert psutil.wait_procs(children, timeout=15)[1] == []


def test_a_changed_file_is_taken_and_running_jobs_are_handed_back(dev: Dev) -> None:
    """A job that runs the old code is run again by the new one at once, at no cost."""
    with Client(dev.address) as client:
        job = client.submit(named("say"), 100.0)
        dev._cluster.until(lambda: job.status().name == "RUNNING", 30, "the job's start")
        dev.write("two")
        assert job.result(timeout=60) == "two"
        told = client.describe(job.id)
        assert (told.attempts_charged, told.losses_charged) == (0, 0)
    assert dev.process.events("crashed") == []


def test_an_error_is_shown_and_the_next_change_waited_for(dev: Dev) -> None:
    """A file that does not import ends nothing and is not tried again until it is mended."""
    dev.write("two", rest="import no_such_module_here")
    dev.wait("refused")
    started = len(dev.process.events("started"))
    assert "no_such_module_here" in dev.process.log_tail(30)
    with Client(dev.address) as client:
        job = client.submit(named("say"), 0.0)
        dev.write("three")
        assert job.result(timeout=60) == "three"
    assert len(dev.process.events("started")) == started + 1
    assert dev.process.events("crashed") == dev.process.events("quarantined") == []


def test_an_error_at_the_start_ends_it(tmp_path: Path) -> None:
    """As without --reload: nothing ran yet, and who has started it is looking."""
    (tmp_path / "shop.py").write_text("import no_such_module_here")
    done = subprocess.run(
        tenure("dev", "shop", "--listen", "127.0.0.1:0", "--ephemeral", "--reload"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    assert "APP_NOT_IMPORTABLE" in done.stderr
