"""What this release writes, read by the one before: all of it, or it steps aside.

Who goes back a release without having used anything that is new finds every job; who has used some
of it finds FORMAT_TOO_NEW: nothing is halted, nothing is left out without a word.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tenure.client import AsyncClient, JobCancelled, JobFailed, Retry, job
from tenure.master.backend.etcd.client import EtcdClient
from tenure.master.backend.etcd.keyspace import ClusterKeys
from tenure.master.journal.etcd import EtcdJournal
from tenure.master.journal.frame import open_manifest
from tenure.master.node.sizes import LOG_SIZES, LogSizes
from tenure.testing.cluster import SimCluster, simulated_cluster
from tenure.testing.process import elapse, run_processes
from tests.chaos.release import Release, check_out

pytestmark = pytest.mark.timeout(180)

#: Each snapshot covers some dozens of jobs.
SMALL = LogSizes(log_bytes_min=4 * 1024, slice_rows=8)

Use = Callable[[AsyncClient], Awaitable[object]]


@job(name="hold")
async def hold(text: str, hold_s: float = 0.1) -> str:
    """Takes a while."""
    await elapse(hold_s)
    return text


@job(name="broken", retry=Retry(max_attempts=2, backoff="none"))
async def broken() -> None:
    """Fails."""
    raise ValueError("as ever")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Release | None:
    """The release before; None on a shallow clone, which says so."""
    release = check_out("0.1.0", tmp_path_factory.mktemp("old"))
    if release is None:
        print("\nNOT TESTED: a shallow clone does not have release 0.1.0")  # noqa: T201
    return release


def written(use: Use | None, sizes: LogSizes) -> dict[str, Any]:
    """The journal of a cluster that has seen some jobs, deaths and hand-overs, as it is stored."""
    content: dict[str, Any] = {}

    async def main() -> None:
        async with simulated_cluster(seed=1, jobs=[hold, broken], log_sizes=sizes) as cluster:
            client = cluster.client()
            if use is not None:
                await use(client)
            await work(cluster, client)
            (await cluster.elected()).kill()
            await work(cluster, client)
            if sizes is SMALL:
                snapshot = ClusterKeys().partition(0).snapshot
                await cluster.until(lambda: cluster.etcd.get(snapshot) is not None)
            (await cluster.elected()).stop()
            await work(cluster, client)
            content.update(await stored(cluster))

    run_processes(main)
    return content


async def work(cluster: SimCluster, client: AsyncClient) -> None:
    """All that jobs may come to."""
    names = [str(number) for number in range(20)]
    handles = await client.submit_many(hold, [(name,) for name in names])
    once = await client.submit(hold.options(key="once"), "once")
    late = await client.submit(hold.options(delay=timedelta(seconds=1)), "late")
    gone = await client.submit(hold, "gone", 600.0)
    await client.submit(hold.options(delay=timedelta(minutes=10)), "later")
    dead = await client.submit(broken)
    with pytest.raises(JobFailed):
        await dead.result()
    await dead.requeue()
    for handle in (*handles, once, late):
        await handle.result()
    await gone.cancel()
    with pytest.raises(JobCancelled):
        await gone.result()
    await client.purge([handles[0].id])


async def stored(cluster: SimCluster) -> dict[str, Any]:
    """What the next leader would read."""
    hosts = [member.host for member in cluster.etcd.members.values()]
    async with EtcdClient(hosts, dial=cluster.etcd.dialer("reader")) as etcd:
        journal = EtcdJournal(etcd, ClusterKeys().partition(0))
        snapshot = await journal.load_snapshot()
        content: dict[str, Any] = {}
        first = 0
        if snapshot is not None:
            first = open_manifest(0, snapshot.manifest).first_batch
            content["manifest"] = b64encode(snapshot.manifest).decode()
            content["slices"] = [b64encode(data).decode() for data in snapshot.slices]
        batches = [batch async for batch in journal.read(first)]
        content["batches"] = [[b.number, b64encode(b.data).decode()] for b in batches]
        return content


def read(content: dict[str, Any], folder: Path, release: Release | None) -> dict[str, Any]:
    """What a release makes of it; None: this one."""
    path = folder / "journal.json"
    path.write_text(json.dumps(content), "utf-8")
    environment = {**os.environ}
    if release is not None:
        environment["PYTHONPATH"] = release.path
    done = subprocess.run(
        [sys.executable, "-m", "tests.histories.older", str(path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("sizes", [LOG_SIZES, SMALL], ids=["batches", "snapshot"])
def test_what_the_release_before_knows_it_reads(
    old: Release | None, tmp_path: Path, sizes: LogSizes
) -> None:
    """After a try of this release, all jobs are there as this one has left them."""
    if old is None:
        return
    content = written(None, sizes)
    assert ("manifest" in content) == (sizes is SMALL)
    found = read(content, tmp_path, old)
    assert len(found) > 60
    assert found == read(content, tmp_path, None)


async def _set(client: AsyncClient) -> None:
    await client.queues.set("default", weight=2.0)


async def _wait(client: AsyncClient) -> None:
    parent = await client.submit(hold, "parent")
    await client.submit(hold.options(after=[parent]), "child")


async def _ask(client: AsyncClient) -> None:
    await client.submit(hold.options(requires={"gpu": "a100"}), "picky")


@pytest.mark.parametrize("sizes", [LOG_SIZES, SMALL], ids=["batches", "snapshot"])
@pytest.mark.parametrize("use", [_set, _wait, _ask], ids=["settings", "parents", "labels"])
def test_at_what_it_does_not_know_it_steps_aside(
    old: Release | None, tmp_path: Path, use: Use, sizes: LogSizes
) -> None:
    """At events that it cannot read and at fields that it would pass over, wherever they are."""
    if old is None:
        return
    content = written(use, sizes)
    assert read(content, tmp_path, old) == {"error": "FormatTooNew"}
    assert len(read(content, tmp_path, None)) > 60
