"""A site that is gone comes back from a backup: nothing is lost, and how long it takes is told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tenure.client import Client
from tenure.protocol.ids import home_partition
from tests.chaos.cluster import Cluster
from tests.integration.app import double

#: Of the restore's command and of the first grant after it, for the full size.
RTO_S = 60.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """On a disk that will be lost; nothing runs yet."""
    with Cluster(tmp_path / "cluster", f"sqlite://{tmp_path / 'old.db'}") as cluster:
        yield cluster


def tenure(cluster: Cluster, *arguments: str) -> str:
    """Runs a command of an operator's."""
    done = subprocess.run(
        [sys.executable, "-m", "tenure.cli", *arguments],
        env={**os.environ, "TENURE_ADDRESS": cluster.addresses},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.fault(4)
@pytest.mark.parametrize(
    "jobs", [2_000, pytest.param(100_000, marks=[pytest.mark.nightly, pytest.mark.timeout(600)])]
)
def test_a_site_comes_back_with_every_job_of_its_backup(
    cluster: Cluster, tmp_path: Path, jobs: int, record_property: Callable[[str, object], None]
) -> None:
    """All jobs are there; the time from the file to the first grant is told (RTO)."""
    old = cluster.start_master("master-1")
    cluster.wait_said(old, "leader")
    with Client(cluster.addresses, timeout=60) as client:
        for start in range(0, jobs, 10_000):
            client.submit_many(double, [(n,) for n in range(start, min(jobs, start + 10_000))])
    backup = tmp_path / "backup"
    began_s = time.monotonic()
    tenure(cluster, "cluster", "backup", str(backup))
    backed_up_s = time.monotonic() - began_s
    old.kill()
    (tmp_path / "old.db").unlink()

    began_s = time.monotonic()
    store = f"sqlite://{tmp_path / 'new.db'}"
    tenure(cluster, "cluster", "restore", str(backup), "--store", store)
    restored_s = time.monotonic() - began_s
    cluster.store = store
    new = cluster.start_master("master-1")
    cluster.start_worker("worker-1", app="tests.integration.app")
    cluster.wait_said(new, "first_grant")
    rto_s = time.monotonic() - began_s
    with Client(cluster.addresses, timeout=60) as client:
        assert sum(client.count().values()) == jobs
    record_property("rto_s", rto_s)
    sys.stdout.write(
        f"site restore: {jobs} jobs, {backup.stat().st_size / 1e6:.1f} MB; backup"
        f" {backed_up_s:.1f} s, restore {restored_s:.1f} s, to the first grant {rto_s:.1f} s\n"
    )
    assert rto_s < RTO_S


def test_partitions_talk_in_a_restored_cluster(tmp_path: Path) -> None:
    """A job waits for one of another partition; both were there before, or come now."""
    old_store, new_store = (f"sqlite://{tmp_path / name}.db" for name in ("old", "new"))
    queues = [
        next(q for q in (f"q{n}" for n in range(99)) if home_partition("default", q, 2) == number)
        for number in range(2)
    ]
    here, there = (double.options(queue=queue) for queue in queues)
    with Cluster(tmp_path / "cluster", old_store, partitions=2) as cluster:
        old = cluster.start_master("master-1")
        cluster.wait_said(old, "leader")
        with Client(cluster.addresses, timeout=60) as client:
            parent = client.submit(here, 1).id
            child = client.submit(there.options(after=[parent]), 2).id
        tenure(cluster, "cluster", "backup", str(tmp_path / "backup"))
        old.kill()

        tenure(cluster, "cluster", "restore", str(tmp_path / "backup"), "--store", new_store)
        cluster.store = new_store
        cluster.start_master("master-1")
        cluster.start_worker("worker-1", queues=",".join(queues), app="tests.integration.app")
        with Client(cluster.addresses, timeout=60) as client:
            later = client.submit(there.options(after=[parent]), 3)
            assert later.result() == 6
            assert client.get(child, double).result() == 4
            assert client.get(parent, double).result() == 2
