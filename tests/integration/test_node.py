"""A worker and a client in Node beside Python's, through the death of a leader; nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tenure.client import Client
from tenure.testing.etcd import EtcdCluster
from tests.chaos.cluster import Cluster
from tests.chaos.process import Process
from tests.conformance.worker_app import echo
from tests.nodejs import NODE, node_examples

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(180)]

JOBS = 200
HOLD_S = 0.3


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two masters on etcd, a worker in Python and one in Node."""
    with (
        EtcdCluster(1) as etcd,
        Cluster(tmp_path_factory.mktemp("node"), etcd.url("/node")) as cluster,
    ):
        cluster.start_masters(2)
        python = cluster.start_worker("python-1", app="tests.conformance.worker_app")
        node = start_node(cluster, "node-1")
        for worker in (python, node):
            cluster.wait_said(worker, "registered")
        yield cluster


def start_node(cluster: Cluster, name: str) -> Process:
    """A worker in Node, one of the cluster's processes."""
    command = [NODE, str(node_examples() / "serve.mjs"), cluster.addresses, name]
    process = Process(name, command, cluster.directory, cluster.timeline, {})
    cluster.processes[name] = process
    return process


def node_client(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``client.mjs``, run to its end."""
    return subprocess.run(
        [NODE, str(node_examples() / "client.mjs"), *arguments],
        env={**os.environ, "TENURE_ADDRESS": cluster.addresses},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_node_beside_python_through_a_failover(cluster: Cluster) -> None:
    """All jobs complete, by both workers, before and after; no lease is lost with the leader."""
    with Client(cluster.addresses) as client:
        first = client.submit_many(echo, [(f"first-{n}", HOLD_S) for n in range(JOBS)])
        next(client.as_completed(first)).result()
        killed_at = datetime.now(UTC).isoformat()
        killed_ms = cluster.leader().kill()
        by_node = node_client(cluster, "submit", "echo", json.dumps(["by node", 0.1]))
        later = client.submit_many(echo, [(f"later-{n}", HOLD_S) for n in range(JOBS)])
        cluster.wait_leader(after_ms=killed_ms)

        assert [handle.result(timeout=90) for handle in first] == [
            f"first-{n}" for n in range(JOBS)
        ]
        assert [handle.result(timeout=90) for handle in later] == [
            f"later-{n}" for n in range(JOBS)
        ]
        for worker in ("node-1", "python-1"):
            for when in ("<", ">"):
                served = f"worker = {worker} AND started_at {when} {killed_at}"
                assert sum(client.count(filter=served).values()) > 0, served
        assert client.count(filter="losses_charged > 0 OR attempts_charged > 0") == {}

    assert by_node.returncode == 0, by_node.stderr
    waited = node_client(cluster, "wait", by_node.stdout.strip())
    assert json.loads(waited.stdout) == "by node"


def test_the_client_in_node(cluster: Cluster) -> None:
    """Submit, list and cancel, and the master's own words when something is wrong."""
    job_id = node_client(cluster, "submit", "no.such.job").stdout.strip()
    listed = node_client(cluster, "list", "name = no.such.job AND state = PENDING")
    cancelled = node_client(cluster, "cancel", job_id)
    waited = node_client(cluster, "wait", job_id)
    wrong = node_client(cluster, "list", "colour = red")

    assert listed.stdout.split() == [job_id, "JOB_STATE_PENDING", "no.such.job"]
    assert cancelled.stdout.strip() == "JOB_STATE_CANCELLED"
    assert waited.returncode == 1
    assert "JOB_STATE_CANCELLED" in waited.stderr
    assert wrong.returncode == 1
    assert "colour" in wrong.stderr
    assert "character 1" in wrong.stderr


def test_the_worker_in_node_ends_in_order(cluster: Cluster) -> None:
    """SIGTERM drains it: it says goodbye and exits with 0."""
    extra = start_node(cluster, "node-2")
    cluster.wait_said(extra, "registered")
    extra.terminate()

    assert extra.wait_exit(20) == 0
