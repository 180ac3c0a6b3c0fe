"""A disk that takes no more: refused with a reason, nothing accepted is lost, all goes on later.

A disk without space is a tmpfs in a mount namespace of the master's own, so nothing is left behind;
without root the namespace belongs to a user namespace. A write that fails for another reason is
made by a limit on the size of files, which needs no rights at all.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenure.client import Client, JobHandle, Reason, TenureError
from tests.chaos.cluster import Cluster
from tests.integration.app import size
from tests.integration.commands import run

DISK_BYTES = 16 * 1024 * 1024
FILE_BYTES = 4 * 1024 * 1024
TEXT = "x" * 100_000

OWN_MOUNTS = ["unshare", "--mount"]
if os.geteuid() != 0:
    OWN_MOUNTS += ["--user", "--map-root-user"]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where the store lies."""
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


@pytest.fixture
def cluster(tmp_path: Path, disk: Path) -> Iterator[Cluster]:
    """A cluster whose store lies on the disk; nothing runs yet."""
    with Cluster(tmp_path / "cluster", f"sqlite://{disk}/store.db") as cluster:
        yield cluster


def mounts(disk: Path) -> bool:
    """Whether a process may have mounts of its own here (some containers forbid it)."""
    command = [*OWN_MOUNTS, "mount", "-t", "tmpfs", "tmpfs", str(disk)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def submit_until_refused(client: Client) -> tuple[list[JobHandle[int]], TenureError]:
    """Jobs with large payloads, as many as are accepted, and why the next one was not."""
    accepted = []
    for _ in range(2 * DISK_BYTES // len(TEXT)):
        try:
            accepted.append(client.submit(size, TEXT))
        except TenureError as error:
            return accepted, error
    raise AssertionError("expected the disk to be full at some time, but it never was")


def finish(cluster: Cluster, client: Client, accepted: list[JobHandle[int]]) -> None:
    """All that was accepted gets done, and so does a new job."""
    worker = cluster.start_worker("worker-1", app="tests.integration.app")
    cluster.wait_said(worker, "registered")
    assert len(accepted) >= 5
    assert [handle.result(timeout=30) for handle in accepted] == [len(TEXT)] * len(accepted)
    assert client.submit(size, TEXT).result(timeout=30) == len(TEXT)


@pytest.mark.fault(43)
def test_row_43_a_full_disk_refuses_and_recovers(cluster: Cluster, disk: Path) -> None:
    """STORE_FULL while there is no space; once there is, all that was accepted gets done."""
    if not mounts(disk):
        check_write_error(cluster)
        return
    mount = f"mount -t tmpfs -o size={DISK_BYTES} tmpfs {disk}"
    master = cluster.start_master(
        "master-1", wrapper=[*OWN_MOUNTS, "sh", "-c", f'{mount} && exec "$@"', "sh"]
    )
    cluster.wait_said(master, "leader")
    # The master's own view of its mounts.
    ballast = Path(f"/proc/{master.pid}/root{disk}/ballast")
    ballast.write_bytes(bytes(DISK_BYTES // 2))
    with Client(cluster.addresses, timeout=5.0) as client:
        accepted, refused = submit_until_refused(client)
        shown = run("submit", "size", "1", "--address", cluster.addresses, "--timeout", "2")
        ballast.unlink()
        finish(cluster, client, accepted)

    assert refused.reason in (Reason.STORE_FULL, Reason.OUTCOME_UNKNOWN)
    assert shown.code == 4
    assert "STORE_FULL" in shown.complaint


@pytest.mark.fault(47)
def test_row_47_a_write_error_stops_the_master_and_loses_nothing(cluster: Cluster) -> None:
    """After a failed write nothing can be trusted: the master ends, and the next one recovers."""
    check_write_error(cluster)


def check_write_error(cluster: Cluster) -> None:
    """One life of a master that may not write large files, and one of its successor."""
    master = cluster.start_master("master-1", wrapper=["prlimit", f"--fsize={FILE_BYTES}"])
    cluster.wait_said(master, "leader")
    with Client(cluster.addresses, timeout=3.0) as client:
        accepted, refused = submit_until_refused(client)
        code = master.wait_exit(20)
        cluster.start_master("master-1")
        finish(cluster, client, accepted)

    assert code == 1
    assert refused.retryable
    assert "check the disk" in master.log_tail(50)
