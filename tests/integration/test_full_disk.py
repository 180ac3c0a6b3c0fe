"""A disk without space: refused with a reason, nothing accepted is lost, and it recovers by itself.

The disk is a tmpfs in a mount namespace of the master's own, so nothing is left behind. It needs no
root: without it the namespace belongs to a user namespace.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenure.client import Client, Reason, TenureError
from tests.chaos.cluster import Cluster
from tests.chaos.process import Process
from tests.integration.app import size
from tests.integration.commands import run

DISK_BYTES = 12 * 1024 * 1024
TEXT = "x" * 100_000


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose master's store lies on a small disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with Cluster(tmp_path / "cluster", f"sqlite://{disk}/store.db") as cluster:
        yield cluster


def start_master(cluster: Cluster, disk: Path) -> Process:
    """A master that sees a small tmpfs where the others see an empty directory."""
    space = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--user", "--map-root-user"])
    mount = f"mount -t tmpfs -o size={DISK_BYTES} tmpfs {disk}"
    return cluster.start_master(
        "master-1", wrapper=[*space, "sh", "-c", f'{mount} && exec "$@"', "sh"]
    )


def test_full_disk_refuses_and_recovers(cluster: Cluster, tmp_path: Path) -> None:
    """STORE_FULL while there is no space; once there is, all that was accepted gets done."""
    disk = tmp_path / "disk"
    master = start_master(cluster, disk)
    cluster.wait_said(master, "leader")
    # The master's own view of its mounts.
    ballast = Path(f"/proc/{master.pid}/root{disk}/ballast")
    ballast.write_bytes(bytes(DISK_BYTES // 2))
    accepted = []
    refused: TenureError | None = None
    with Client(cluster.addresses, timeout=5.0) as client:
        for _ in range(2 * DISK_BYTES // len(TEXT)):
            try:
                accepted.append(client.submit(size, TEXT))
            except TenureError as error:
                refused = error
                break
        shown = run(
            *("submit", "size", "1", "--address", cluster.addresses, "--timeout", "2"),
        )
        ballast.unlink()
        worker = cluster.start_worker("worker-1", app="tests.integration.app")
        cluster.wait_said(worker, "registered")
        results = [handle.result(timeout=30) for handle in accepted]
        after = client.submit(size, TEXT).result(timeout=30)

    assert refused is not None
    assert refused.reason in (Reason.STORE_FULL, Reason.OUTCOME_UNKNOWN)
    assert shown.code == 4
    assert "STORE_FULL" in shown.complaint
    assert len(accepted) >= 5
    assert results == [len(TEXT)] * len(accepted)
    assert after == len(TEXT)
