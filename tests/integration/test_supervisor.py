"""``tenure worker --processes``: real processes that come, go, crash, and leave nothing behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tenure.client import Client
from tenure.v1 import jobs_pb2
from tenure.worker.exits import EXIT_RESTART
from tests.chaos.cluster import Cluster
from tests.chaos.process import Event, Process
from tests.integration.commands import run
from tests.integration.shaky import BROKEN, hold, leave

pytestmark = pytest.mark.timeout(120)

APP = "tests.integration.shaky"
GONE_S = 15.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One master on SQLite."""
    with Cluster(tmp_path, f"sqlite://{tmp_path}/store.db") as cluster:
        cluster.environment[BROKEN] = str(tmp_path / "broken")
        cluster.start_masters(1)
        yield cluster


def supervised(cluster: Cluster, processes: str, *flags: str, slots: int = 4) -> Process:
    """A supervisor whose least number of workers have registered."""
    worker = cluster.start_worker(
        "w", slots=slots, app=APP, flags=("--processes", processes, *flags)
    )
    for number in range(1, int(processes.partition(":")[0]) + 1):
        said(cluster, worker, "registered", f"w-{number}")
    return worker


def said(cluster: Cluster, worker: Process, event: str, name: str, *, count: int = 1) -> Event:
    """The n-th event of one of its workers."""

    def look(events: list[Event]) -> Event | None:
        found = [e for e in events if (e.name, e.fields.get("name")) == (event, name)]
        return found[count - 1] if len(found) >= count else None

    return cluster.wait(look, 60, f"{event} of {name}")


def pids(worker: Process) -> dict[str, int]:
    """Its workers' processes, as it has told; the last of each name."""
    return {e.fields["name"]: e.fields["pid"] for e in worker.events("started")}


def wait_gone(children: list[psutil.Process]) -> None:
    """All of these have ended."""
    assert psutil.wait_procs(children, timeout=GONE_S)[1] == []


def wait_started(cluster: Cluster, client: Client, job_id: str) -> None:
    """Its code runs: until then a drain returns it at once."""

    def started() -> bool:
        return any(run.HasField("started_at") for run in client.describe(job_id).attempts)

    cluster.until(started, 20, "the job's start")


def charged(job: jobs_pb2.Job) -> tuple[int, int]:
    """Its budgets: failures and losses."""
    return job.attempts_charged, job.losses_charged


def test_all_run_jobs_and_term_ends_all(cluster: Cluster) -> None:
    """Numbered processes share the work; a drain lets what runs end, and nothing is left."""
    worker = supervised(cluster, "2", slots=1)
    with Client(cluster.addresses) as client:
        handles = [client.submit(hold, 1.5) for _ in range(2)]
        ran = {handle.result(timeout=30) for handle in handles}
        assert ran == {*pids(worker).values()}
        last = client.submit(hold, 2.0)
        wait_started(cluster, client, last.id)
        children = psutil.Process(worker.pid).children(recursive=True)
        worker.terminate()
        assert worker.wait_exit(30) == 0
        wait_gone(children)
        assert last.result(timeout=10) in ran
        assert charged(client.describe(last.id)) == (0, 0)
    assert [event.name for event in worker.events()][-1] == "stopped"


@pytest.mark.parametrize("flags", [(), ("--processes", "2")], ids=["one process", "supervised"])
def test_the_second_term_hands_back_at_once(cluster: Cluster, flags: tuple[str, ...]) -> None:
    """The first lets a job run on; after the second it waits for another worker, uncharged."""
    worker = cluster.start_worker("w", slots=1, app=APP, flags=(*flags, "--drain-timeout", "60"))
    cluster.wait_said(worker, "registered")
    with Client(cluster.addresses) as client:
        job = client.submit(hold, 45.0)
        wait_started(cluster, client, job.id)
        worker.terminate()
        cluster.wait_said(worker, "draining")
        assert job.status().name == "RUNNING"
        second_ms = worker.terminate()
        assert worker.wait_exit(20) == 0
        cluster.until(lambda: job.status().name == "PENDING", 10, "the job's return")
        assert charged(client.describe(job.id)) == (0, 0)
        stopped = worker.events("stopped")[-1]
        assert stopped.at_ms - second_ms < 10_000


@pytest.mark.parametrize("flags", [(), ("--processes", "2")], ids=["one process", "supervised"])
def test_what_outlasts_the_drain_is_handed_back(cluster: Cluster, flags: tuple[str, ...]) -> None:
    """Short jobs end within --drain-timeout and count; a long one is returned uncharged."""
    worker = cluster.start_worker("w", slots=2, app=APP, flags=(*flags, "--drain-timeout", "3"))
    cluster.wait_said(worker, "registered")
    with Client(cluster.addresses) as client:
        short, long = client.submit(hold, 1.5), client.submit(hold, 45.0)
        for job in (short, long):
            wait_started(cluster, client, job.id)
        worker.terminate()
        assert worker.wait_exit(20) == 0
        assert short.status().name == "COMPLETED"
        cluster.until(lambda: long.status().name == "PENDING", 10, "the job's return")
        assert charged(client.describe(long.id)) == (0, 0)


def test_a_backlog_adds_processes(cluster: Cluster) -> None:
    """Jobs that wait while all slots are taken bring a second and a third process, no fourth."""
    worker = supervised(cluster, "1:3", slots=1)
    with Client(cluster.addresses) as client:
        handles = [client.submit(hold, 2.0) for _ in range(24)]
        said(cluster, worker, "registered", "w-2")
        said(cluster, worker, "registered", "w-3")
        assert len({handle.result(timeout=60) for handle in handles}) == 3
    assert [event.fields["processes"] for event in worker.events("scaled")] == [2, 3]


def test_a_killed_worker_is_replaced(cluster: Cluster) -> None:
    """SIGKILL to one: it is told, another process takes the name, and jobs go on."""
    worker = supervised(cluster, "2")
    os.kill(pids(worker)["w-1"], signal.SIGKILL)
    crashed = said(cluster, worker, "crashed", "w-1")
    assert crashed.fields["code"] == -signal.SIGKILL
    said(cluster, worker, "registered", "w-1", count=2)
    with Client(cluster.addresses) as client:
        assert client.submit(hold, 0.0).result(timeout=30) in pids(worker).values()


def test_start_me_again_is_obeyed_at_once(cluster: Cluster) -> None:
    """Exit code 75 is no crash: no rest, no complaint."""
    worker = supervised(cluster, "1")
    with Client(cluster.addresses) as client:
        client.submit(leave, EXIT_RESTART)
        ended = said(cluster, worker, "ended", "w-1")
        said(cluster, worker, "registered", "w-1", count=2)
    assert ended.fields["code"] == EXIT_RESTART
    names = [event.name for event in worker.events()]
    assert names == ["started", "registered", "ended", "started", "registered"]
    # Who is to rest is told so, and for how long.
    assert "it is started again in" not in worker.log_tail(40)


def test_a_crash_loop_is_quarantined_until_hangup(cluster: Cluster) -> None:
    """A process that cannot come up is left alone after five crashes; the others work on."""
    worker = supervised(cluster, "2")
    broken = Path(cluster.environment[BROKEN])
    broken.touch()
    os.kill(pids(worker)["w-2"], signal.SIGKILL)
    said(cluster, worker, "quarantined", "w-2")
    assert len(worker.events("crashed")) == 4
    assert "crash loop" in worker.log_tail(40)
    with Client(cluster.addresses) as client:
        assert client.submit(hold, 0.0).result(timeout=20) == pids(worker)["w-1"]
    broken.unlink()
    worker.send(signal.SIGHUP)
    said(cluster, worker, "registered", "w-2", count=2)
    said(cluster, worker, "restarted", "w")


def test_a_broken_deployment_stops_the_rolling_restart(cluster: Cluster) -> None:
    """The first new process does not come up: the old ones are not touched."""
    worker = supervised(cluster, "2")
    before = {*pids(worker).values()}
    Path(cluster.environment[BROKEN]).touch()
    worker.send(signal.SIGHUP)
    said(cluster, worker, "restart_failed", "w")
    with Client(cluster.addresses) as client:
        assert client.submit(hold, 0.0).result(timeout=20) in before
    assert before <= {p.pid for p in psutil.Process(worker.pid).children()}


@pytest.mark.parametrize("moment", ["working", "importing"])
def test_a_killed_supervisor_leaves_no_orphans(cluster: Cluster, moment: str) -> None:
    """Its workers drain by themselves; what they ran is done, or is another worker's, uncharged."""
    worker = supervised(cluster, "2", "--drain-timeout", "4", slots=1)
    children = psutil.Process(worker.pid).children(recursive=True)
    with Client(cluster.addresses) as client:
        short, long = client.submit(hold, 1.5), client.submit(hold, 45.0)
        for job in (short, long):
            wait_started(cluster, client, job.id)
        if moment == "importing":
            os.kill(children[0].pid, signal.SIGKILL)
            said(cluster, worker, "started", pid_name(worker, children[0].pid), count=2)
            children = psutil.Process(worker.pid).children(recursive=True)
        os.kill(worker.pid, signal.SIGKILL)
        worker.let_end()
        wait_gone(children)
        if moment == "working":
            assert short.status().name == "COMPLETED"
            cluster.until(lambda: long.status().name == "PENDING", 10, "the job's return")
            assert charged(client.describe(long.id)) == (0, 0)


def pid_name(worker: Process, pid: int) -> str:
    """Which of its workers a process is."""
    return next(name for name, its in pids(worker).items() if its == pid)


def test_what_cannot_start_is_told_once_and_at_once(cluster: Cluster) -> None:
    """No module, no job: the exit code and the one line of a single worker, and no retry."""
    for app in ("no.such.module", "tests.integration.commands"):
        failed = run("worker", app, "--processes", "3", "--master", cluster.addresses)
        assert failed.code == 2
        assert "APP_NOT_IMPORTABLE" in failed.complaint


def test_settings_that_do_not_fit_are_told_once() -> None:
    """What only a worker notices is no crash of it."""
    refused = run("worker", APP, "--processes", "2", "--tls-cert", "a.pem", "--tls-key", "a.key")
    assert refused.code == 2
    assert "--tls-ca" in refused.complaint


@pytest.mark.parametrize("processes", ["0", "0:2", "3:2", "1:1000", "many"])
def test_what_is_no_number_of_processes_is_refused(processes: str) -> None:
    """Before anything starts, with what was expected."""
    refused = run("worker", "app", "--processes", processes)
    assert refused.code == 2
    assert "worker.processes" in refused.complaint
