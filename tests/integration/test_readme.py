"""The README does what it says: its blocks are cut out and run, as a reader would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tenure.testing.etcd import EtcdCluster
from tests.chaos.cluster import REPOSITORY, free_port
from tests.chaos.process import Event, Process, Timeline

pytestmark = pytest.mark.timeout(180)

START_TIMEOUT_S = 40.0
COMMAND_TIMEOUT_S = 45.0

#: Commands that are not run here, and who runs them.
RUN_ELSEWHERE = {
    "make demo": "a step of .ci/run",
    "make test": "a step of .ci/run, and what runs this test",
    "make demo-cluster": "four minutes at worst; tests/chaos kills the same processes",
}


class Block(NamedTuple):
    """A fenced block: its language and its text."""

    language: str
    text: str

    @property
    def path(self) -> str:
        """Where a Python block belongs: it begins with a comment that says so."""
        return self.text.partition("\n")[0].removeprefix("# ")

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block, without their comments."""
        return [line.partition(" #")[0].strip() for line in self.text.splitlines()]


def blocks() -> list[Block]:
    """Every fenced block of the README."""
    text = (REPOSITORY / "README.md").read_text("utf-8")
    return [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)]


def commands(first: str) -> list[str]:
    """The commands of the shell block that begins with this one."""
    (block,) = [b for b in blocks() if b.language == "sh" and b.commands[0].startswith(first)]
    return block.commands


class Desk:
    """A reader's folder and terminals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.timeline = Timeline()
        self.address = ""
        self._logs = folder / "logs"
        self._logs.mkdir()
        self._running: list[Process] = []
        self._environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def write_blocks(self) -> None:
        """Puts the Python blocks where their first lines say."""
        for block in blocks():
            if block.language == "python":
                path = self.folder / block.path
                path.parent.mkdir(exist_ok=True)
                path.write_text(block.text, "utf-8")

    def start(self, name: str, command: str) -> Process:
        """Runs a command in a terminal of its own."""
        shell = ["sh", "-c", f'cd "$0" && exec {command}', str(self.folder)]
        process = Process(name, shell, self._logs, self.timeline, self._environment)
        self._running.append(process)
        return process

    def wait_said(self, process: Process, event: str) -> Event:
        """The first such line of a process that runs."""

        def look(events: list[Event]) -> Event | bool | None:
            for said in events:
                if said.process == process.log.name and said.name == event:
                    return said
            return None if process.running else False

        found = self.timeline.wait(look, START_TIMEOUT_S)
        if not isinstance(found, Event):
            raise AssertionError(f"expected {process.name} to say {event}:\n{process.log_tail()}")
        return found

    def wait_leaders(self, partitions: int) -> None:
        """Returns when so many partitions are led."""

        def look(events: list[Event]) -> bool | None:
            led = {said.fields["partition"] for said in events if said.name == "leader"}
            return len(led) == partitions or None

        if self.timeline.wait(look, START_TIMEOUT_S) is None:
            raise AssertionError(f"expected {partitions} leaders, got {self.timeline.events()}")

    def run(self, command: str) -> str:
        """Runs a command to its end; returns its stdout."""
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.folder,
            env={**os.environ, **self._environment, "TENURE_ADDRESS": self.address},
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(f"expected `{command}` to succeed, got {done}")
        return done.stdout

    def close(self) -> None:
        """Ends what still runs."""
        for process in reversed(self._running):
            process.stop()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A folder with the README's two modules in it."""
    desk = Desk(tmp_path)
    desk.write_blocks()
    yield desk
    desk.close()


def test_every_block_is_run_or_excused() -> None:
    """A new block in the README fails here until something runs it."""
    found = blocks()
    modules = [block.path for block in found if block.language == "python"]
    shells = [block.commands for block in found if block.language == "sh"]
    ci = (REPOSITORY / ".ci" / "run").read_text("utf-8")

    assert modules == ["app/jobs.py", "main.py"]
    assert [lines[0].split()[:2] for lines in shells] == [
        ["make", "demo"],
        ["tenure", "dev"],
        ["tenure", "master"],
    ]
    assert len(found) == len(modules) + len(shells)
    assert set(shells[0]) == set(RUN_ELSEWHERE)
    assert all(f"step {c}\n" in ci for c, who in RUN_ELSEWHERE.items() if ".ci/run" in who)


def test_quick_start(desk: Desk) -> None:
    """`tenure dev` serves the jobs of app/jobs.py; main.py and the command line get results."""
    dev, *others = commands("tenure dev")
    node = desk.start("dev", f"{dev} --listen 127.0.0.1:0")
    desk.address = desk.wait_said(node, "serving").fields["address"]
    desk.wait_said(node, "registered")

    main, submitted, listed = map(desk.run, others)

    first, *mapped = main.splitlines()
    assert first.endswith(" s3://a.png?w=320")
    assert sorted(mapped) == ["a?w=640", "b?w=640", "c?w=640"]
    assert submitted == "s3://b.png?w=640\n"
    assert listed.count("COMPLETED") == 5
    assert first.split()[0] in listed


@pytest.mark.etcd
def test_cluster(desk: Desk) -> None:
    """The cluster's two lines, on loopback instead of three machines, run a job."""
    master, worker = commands("tenure master")
    ports = {f"10.0.0.{host}:7400": f"127.0.0.1:{free_port()}" for host in (1, 2, 3)}
    with EtcdCluster(3) as etcd:
        hosts = dict(zip((f"10.0.0.{n}:2379" for n in (1, 2, 3)), etcd.endpoints, strict=True))
        masters = []
        for number, address in enumerate(ports.values(), 1):
            line = _moved(master.replace("--listen 10.0.0.1:7400", f"--listen {address}"), hosts)
            masters.append(desk.start(f"master-{number}", line))
        for process in masters:
            desk.wait_said(process, "serving")
        desk.wait_leaders(4)
        desk.wait_said(desk.start("worker", _moved(worker, ports)), "registered")
        desk.address = ",".join(ports.values())

        result = desk.run("tenure submit app.jobs.resize c --wait --timeout 40")
        status = desk.run("tenure cluster status")

        assert result == "c?w=640\n"
        # One partition a row: four of them are led, each by one of the three.
        assert status.count(" SERVING ") == 4
        desk.close()


def _moved(command: str, addresses: dict[str, str]) -> str:
    """A command with each address replaced; none of the README's may be left."""
    for there, here in addresses.items():
        command = command.replace(there, here)
    assert "10.0.0." not in command
    return command
