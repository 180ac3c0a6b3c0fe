"""``examples/``: what jobs can be to each other and to the calendar, on a real cluster.

Etcd, two masters with three partitions, and a worker for each example; the programs are run as
their readers run them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tenure.testing.etcd import EtcdCluster
from tests.chaos.cluster import REPOSITORY, Cluster

EXAMPLES = ("order_flow", "data_pipeline", "nightly_report")
PARTITIONS = 3
COMMAND_TIMEOUT_S = 45.0
#: A node of a picture: its id, and the last part of its job's name.
NODE = re.compile(r'^ +(n\d+)\["[\w.]*\.(\w+)<br/>', re.M)
pytestmark = [pytest.mark.timeout(120), pytest.mark.etcd]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose workers have all examples."""
    folder = tmp_path_factory.mktemp("examples")
    with EtcdCluster(1) as etcd, Cluster(folder, etcd.url(), partitions=PARTITIONS) as cluster:
        cluster.start_masters(2)
        # Jobs may be clients of their cluster, too.
        cluster.environment["TENURE_ADDRESS"] = cluster.addresses
        for name in EXAMPLES:
            cluster.start_worker(name, queues="", app=f"examples.{name}.jobs")
        for name in EXAMPLES:
            cluster.wait_said(cluster.processes[name], "registered")
        yield cluster


def run(cluster: Cluster, *arguments: str) -> str:
    """Runs a module of Python to its end; returns its stdout."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "TENURE_ADDRESS": cluster.addresses},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"expected {arguments} to succeed, got {done}\n{cluster.story()}")
    return done.stdout


def tenure(cluster: Cluster, *arguments: str) -> str:
    """Runs a command."""
    return run(cluster, "tenure.cli", *arguments)


def test_an_order(cluster: Cluster) -> None:
    """Payment and inventory, then shipment and confirmation; an unpaid order is undone."""
    said = run(cluster, "examples.order_flow.main").splitlines()
    assert said[0] == "order 1001: COMPLETED, mail COMPLETED"
    second = said.index("order 1002: FAILED, mail FAILED")
    good, bad = said[1:second], said[second + 1 :]
    for picture, undone in ((good, "CANCELLED"), (bad, "COMPLETED")):
        assert picture[0] == "flowchart LR"
        names = dict(NODE.findall("\n".join(picture)))
        edges = {tuple(line.split()[::2]) for line in picture if "-->" in line}
        assert {(names[parent], names[child]) for parent, child in edges} == {
            ("charge", "ship"),
            ("reserve", "ship"),
            ("ship", "confirm"),
            ("charge", "put_back"),
            ("reserve", "put_back"),
        }
        assert any(f'put_back<br/>{undone}"]:::{undone}' in line for line in picture)
    listed = [line.split() for line in tenure(cluster, "workflows", "list").splitlines()]
    orders = {row[3]: row[0] for row in listed if row[1] == "order"}
    assert orders.keys() == {"COMPLETED", "FAILED"}
    failed = orders["FAILED"]
    assert "digraph" in tenure(cluster, "workflows", "get", failed, "-o", "dot")
    assert "put_back" in tenure(cluster, "workflows", "get", failed)
    assert "2 COMPLETED, 3 FAILED" in tenure(cluster, "workflows", "explain", failed)


def test_a_pipeline(cluster: Cluster) -> None:
    """All parts go through all stages; missing data ends in the error branch."""
    said = run(cluster, "examples.data_pipeline.main").splitlines()
    assert said[0] == "monday: COMPLETED, mean 1.10, highest 2.20"
    (lost,) = [line for line in said if line.startswith("lost:")]
    assert lost == "lost: FAILED, the data of lost needs a look"
    assert sum("-->" in line for line in said) == 2 * (3 * 2 + 3 + 2 + 1)


def test_a_nightly_report(cluster: Cluster) -> None:
    """It is planned for the next nights by the office's clocks, and one is made at once, of what
    this cluster did; the same job fires by the calendar, too.
    """
    said = run(cluster, "examples.nightly_report.main").splitlines()
    nights, report = said[:3], said[3:]
    for night in nights:
        assert re.fullmatch(r"next: \w+day 0[23]:\d\d in Europe/Berlin", night)
    assert report[0] == "jobs of the last 24 hours"
    by_queue = {line.split()[0]: line for line in report[1:]}
    assert by_queue["backups"].endswith(" ██ 2 COMPLETED")
    assert by_queue["invoices"].endswith(" ████████xx 8 COMPLETED, 2 FAILED")
    assert any(line.strip() == "2 × Permanent" for line in report)
    shown = tenure(cluster, "schedules", "get", "nightly-report")
    assert {"FIRE_ONCE", "SKIP", "Europe/Berlin"} <= set(re.split(r"[\s,]+", shown))

    job = ("examples.nightly_report.jobs.report", "--tz", "Europe/Berlin")
    tenure(cluster, "schedules", "put", "often", "* * * * * *", *job)

    def last_job() -> str | None:
        found = json.loads(tenure(cluster, "schedules", "get", "often", "-o", "json"))
        return str(found["lastJobId"]) if found.get("lastJobId") else None

    fired = cluster.until(last_job, 30.0, "a tick")
    tenure(cluster, "schedules", "delete", "often", "--yes")
    assert "invoices" in tenure(cluster, "jobs", "wait", fired)
