"""Probes, metrics and systemd's ear: of one worker, of a supervised tree, of a master."""

from __future__ import annotations

import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.cluster import Cluster
from tests.chaos.process import Process
from tests.integration.commands import run

pytestmark = pytest.mark.timeout(120)

APP = "tests.integration.shaky"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A master on SQLite."""
    with Cluster(tmp_path, f"sqlite://{tmp_path}/store.db") as cluster:
        cluster.start_masters(1)
        yield cluster


def ask(worker: Process, page: str) -> tuple[int, str]:
    """What a page says: its status, and its text."""
    address = worker.events("health")[-1].fields["address"]
    try:
        with urllib.request.urlopen(f"http://{address}/{page}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_one_worker(cluster: Cluster) -> None:
    """It is ready when a master has welcomed it, and tells its slots."""
    worker = cluster.start_worker("w", app=APP, slots=3, flags=("--health", "127.0.0.1:0"))
    cluster.wait_said(worker, "registered")
    assert ask(worker, "livez") == (200, "ok\n")
    assert ask(worker, "readyz") == (200, "w: ready, 1 master, 0 of 3 slots used\n")
    assert 'tenure_worker_slots{worker="w",state="free"} 3' in ask(worker, "metrics")[1]


def test_a_worker_without_a_master_lives_and_is_not_ready(cluster: Cluster) -> None:
    """Nobody should restart it for that."""
    cluster.leader().kill()
    worker = cluster.start_worker("w", app=APP, flags=("--health", "127.0.0.1:0"))
    cluster.wait_said(worker, "health")
    assert ask(worker, "livez")[0] == 200
    assert ask(worker, "readyz")[0] == 503


def test_a_supervised_tree_has_one_port(cluster: Cluster) -> None:
    """All processes are told of, by name; a crash is counted."""
    worker = cluster.start_worker(
        "w", app=APP, slots=3, flags=("--processes", "2", "--health", "127.0.0.1:0")
    )
    cluster.until(lambda: ask_ready(worker) == 2, 60, "two ready workers")
    text = ask(worker, "metrics")[1]
    for name in ("w-1", "w-2"):
        assert f'tenure_worker_slots{{worker="{name}",state="free"}} 3' in text
    assert 'tenure_supervisor_processes{state="ready"} 2' in text
    assert "tenure_supervisor_crashes_total 0" in text
    os.kill(worker.events("started")[0].fields["pid"], signal.SIGKILL)
    cluster.wait_said(worker, "crashed")
    assert ask(worker, "readyz")[0] == 200
    assert "tenure_supervisor_crashes_total 1" in ask(worker, "metrics")[1]


def ask_ready(worker: Process) -> int:
    """How many processes of a tree are ready."""
    if not worker.events("health"):
        return 0
    return ask(worker, "readyz")[1].count(": ready,")


@pytest.mark.parametrize("flags", [(), ("--processes", "2")], ids=["one process", "supervised"])
def test_an_address_that_others_reach_is_refused(flags: tuple[str, ...]) -> None:
    """INSECURE_BIND, before anything has started."""
    refused = run("worker", APP, *flags, "--health", "0.0.0.0:0")
    assert refused.code == 2
    assert "INSECURE_BIND" in refused.complaint


@pytest.mark.parametrize("what", ["worker", "supervisor", "master"])
def test_systemd_hears_of_each_step(cluster: Cluster, tmp_path: Path, what: str) -> None:
    """READY when it serves, WATCHDOG while its loop turns, a STATUS, STOPPING when it is asked."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(60)
        cluster.environment |= {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "400000",
        }
        if what == "master":
            cluster.leader().terminate()
            node = cluster.start_master("master-2")
        else:
            flags = ("--processes", "2") if what == "supervisor" else ()
            node = cluster.start_worker("w", app=APP, flags=flags)
        said = hear(ear, "READY=1")
        assert said[-1] == "READY=1"
        hear(ear, "WATCHDOG=1")
        hear(ear, "WATCHDOG=1")
        if what == "supervisor":
            cluster.until(lambda: len(node.events("registered")) == 2, 60, "two workers")
            node.send(signal.SIGHUP)
            assert hear(ear, "RELOADING=1")
            assert hear(ear, "READY=1")
        node.terminate()
        said = hear(ear, "STOPPING=1")
        assert said.count("READY=1") == 0
        assert node.wait_exit(60) == 0


def hear(ear: socket.socket, wanted: str) -> list[str]:
    """What is said until this is."""
    said = [ear.recv(4096).decode()]
    while said[-1].split("\n")[0] != wanted:
        said.append(ear.recv(4096).decode())
    return said
