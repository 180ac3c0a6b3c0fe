"""Records the histories of this release, which all later ones have to understand.

Usage: `python -m tools.record_histories`. It writes `tests/histories/VERSION`: the stores of two
masters in real processes (SQLite and etcd) with the state that the live leader had, and the
transcript of a worker's streams through a failover, a cut and a drain on virtual time. What it
records is committed code: with changes that are not committed it refuses.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

import tenure.protocol
from tenure.client import Client, JobCancelled, JobFailed, JobState
from tenure.master.backend.etcd.client import EtcdClient
from tenure.master.backend.etcd.operation import prefix_end
from tenure.master.election.port import Candidate
from tenure.master.journal.frame import FORMAT, seal_manifest, seal_slice
from tenure.master.journal.port import Journal
from tenure.master.store import open_store
from tenure.protocol.limits import PROTOCOL_REVISION
from tenure.testing.etcd import EtcdCluster
from tests.chaos.cluster import Cluster
from tests.histories.app import broken, flaky, steady
from tests.histories.archive import (
    HISTORIES,
    read_entries,
    read_pairs,
    write_entries,
    write_json,
    write_pairs,
)
from tests.histories.session import record_session
from tests.histories.state import describe, recovered

REPOSITORY: Final = Path(__file__).resolve().parent.parent
PRODUCT: Final = ("protos", "client", "worker", "master", "testing", "pyproject.toml")
APP: Final = "tests.histories.app"
PREFIX: Final = "/histories"
_WAIT_S: Final = 30.0
_SLICE_ROWS: Final = 8


def record(folder: Path, commit: str, version: str) -> None:
    """Writes all files of a release."""
    with tempfile.TemporaryDirectory(prefix="tenure-histories-") as temporary:
        record_sqlite(folder, Path(temporary) / "sqlite")
        record_etcd(folder, Path(temporary) / "etcd")
    entries, batches = record_session()
    write_entries(folder / "session.jsonl", entries)
    pairs = [(b"batch/%d" % number, data) for number, data in enumerate(batches)]
    write_pairs(folder / "session.journal.jsonl", pairs)
    manifest = {
        "version": version,
        "commit": commit,
        "python": ".".join(map(str, sys.version_info[:3])),
        "journal_format": FORMAT,
        "protocol_revision": PROTOCOL_REVISION,
    }
    write_json(folder / "manifest.json", manifest)
    expect(not named_places(folder), "files that name no folder of this machine")


def named_places(folder: Path) -> list[str]:
    """Folders of this machine that recorded bytes name, in tracebacks for example."""
    recorded = [(folder / "sqlite.db").read_bytes()]
    recorded += [entry.message for entry in read_entries(folder / "session.jsonl")]
    for name in ("etcd.jsonl", "session.journal.jsonl"):
        recorded += [value for _, value in read_pairs(folder / name)]
    places = {str(REPOSITORY), str(Path.home()), sys.prefix, sys.base_prefix}
    return [place for place in places if any(place.encode() in data for data in recorded)]


# ---- stores -------------------------------------------------------------------------------------


def record_sqlite(folder: Path, scratch: Path) -> None:
    """A store file with the whole journal from batch 0 on."""
    scratch.mkdir()
    path = scratch / "store.db"
    with Cluster(scratch / "cluster", f"sqlite://{path}") as cluster:
        work(cluster)
        live = work_again(cluster)
    copy = scratch / "copy.db"
    shutil.copy(path, copy)
    state = asyncio.run(state_of(f"sqlite://{copy}", live))
    shutil.copy(path, folder / "sqlite.db")
    write_json(folder / "sqlite.json", state)


def record_etcd(folder: Path, scratch: Path) -> None:
    """The keys of a store with a snapshot and batches after it."""
    scratch.mkdir()
    with EtcdCluster(1) as etcd:
        url = etcd.url(PREFIX)
        with Cluster(scratch / "cluster", url) as cluster:
            work(cluster)
            asyncio.run(take_snapshot(url))
            live = work_again(cluster)
        pairs = asyncio.run(keys_of(etcd))
        state = asyncio.run(state_of(url, live))
    write_pairs(folder / "etcd.jsonl", pairs)
    write_json(folder / "etcd.json", state)


def work(cluster: Cluster) -> None:
    """The first term: jobs that end in every way."""
    start(cluster)
    with Client(cluster.addresses) as client:
        texts = [f"result {number} of the first term" for number in range(8)]
        results = [handle.result(timeout=_WAIT_S) for handle in client.map(steady, texts)]
        expect(results == texts, "the results of the first term")
        kept = client.submit(steady.options(key="order-1", labels={"region": "eu"}), "keyed")
        expect(kept.result(timeout=_WAIT_S) == "keyed", "a job with a key")
        expect(client.submit(flaky, 1).result(timeout=_WAIT_S) == 2, "a job that is retried")
        fail(client, "exhausted")
        fail(client, "permanent")
        waiting = client.submit(steady.options(delay=timedelta(days=300)), "cancelled")
        waiting.cancel("not needed")
        purged = client.submit(broken, "purged")
        await_failure(purged)
        (verdict,) = client.purge([purged.id])
        expect(verdict.error is None, "a purge")
    cluster.end()


def work_again(cluster: Cluster) -> dict[str, Any]:
    """The second term; it ends in order while a job runs. Returns what its leader had."""
    start(cluster)
    with Client(cluster.addresses) as client:
        dead = next(iter(client.list(states=[JobState.FAILED])))
        client.requeue([dead.job_id])
        await_failure(client.get(dead.job_id))
        client.submit(steady.options(delay=timedelta(days=300), priority=1), "scheduled")
        client.submit(steady.options(queue="unserved", priority=9, tenant="acme"), "pending")
        runs = client.submit(steady.options(timeout=timedelta(hours=1)), "running", 3600.0)
        events = runs.events()
        while runs.status() is not JobState.RUNNING:
            next(events)
        jobs = {job.job_id: JobState(job.state).name for job in client.list()}
    # The worker stays until the master has written down what it holds.
    (master,) = cluster.masters
    master.terminate()
    expect(master.wait_exit(_WAIT_S) == 0, "the end of a term")
    cluster.processes["worker-1"].kill()
    lines = cluster.traces[master.log.name].read_text().splitlines()
    states = [row for row in map(json.loads, lines) if row["event"] == "state"]
    return {"jobs": jobs, "last_seq": states[-1]["last_seq"], "hash": states[-1]["hash"]}


def start(cluster: Cluster) -> None:
    """A master that leads, and a worker."""
    cluster.start_masters(1)
    worker = cluster.start_worker("worker-1", app=APP)
    cluster.wait_said(worker, "registered")


def fail(client: Client, how: str) -> None:
    """A job of the dead letter queue."""
    await_failure(client.submit(broken, how) if how == "permanent" else client.submit(flaky, 9))


def await_failure(handle: Any) -> None:
    """Waits until a job has failed."""
    try:
        handle.result(timeout=_WAIT_S)
    except (JobFailed, JobCancelled):
        return
    raise RuntimeError(f"expected job {handle.id} to fail, but it has a result")


async def state_of(url: str, live: dict[str, Any]) -> dict[str, Any]:
    """What recovery makes of a store; it has to be what its last leader had."""
    me = Candidate(incarnation=str(uuid.uuid4()), name="recorder", address="127.0.0.1:1")
    store = await open_store(url, candidate=me, wall_ms=0)
    try:
        found = (await recovered(store.journal(0))).partition
    finally:
        await store.close()
    state = describe(found, list(live["jobs"]))
    states = {job_id: job["state"] for job_id, job in state["jobs"].items()}
    expect(states == live["jobs"], "the jobs that the live leader listed")
    expect(state["next_seq"] == live["last_seq"] + 1, "the live leader's last seq")
    expect(state["state_hash"] == live["hash"], "the live leader's state")
    return state


async def take_snapshot(url: str) -> None:
    """What a leader does when its log has grown to megabytes."""
    me = Candidate(incarnation=str(uuid.uuid4()), name="recorder", address="127.0.0.1:1")
    store = await open_store(url, candidate=me, wall_ms=0)
    try:
        office = await store.election(0).campaign()
        if office is None:
            raise RuntimeError("expected to win the office of a store that nobody leads")
        await write_snapshot(store.journal(0), office.token)
        await office.resign()
    finally:
        await store.close()


async def write_snapshot(journal: Journal, token: Any) -> None:
    """Slices, manifest, and the end of the batches that they replace."""
    found = await recovered(journal)
    snapshot_id = uuid.uuid4().hex
    cursor, index = found.partition.snapshot(), 0
    while (rows := cursor.next_slice(_SLICE_ROWS)) is not None:
        records = msgspec.msgpack.encode(rows)
        data = seal_slice(0, snapshot_id, index, records, format_=found.partition.format)
        await journal.write_slice(token, snapshot_id, index, data)
        index += 1
    manifest = seal_manifest(
        partition=0,
        snapshot_id=snapshot_id,
        slice_count=index,
        first_batch=found.chain.number,
        previous_hash=found.chain.previous_hash,
        last_seq=found.partition.next_seq - 1,
        token=token,
        stamp_ms=found.partition.stamp_ms,
        format_=found.partition.format,
    )
    await journal.publish_snapshot(token, snapshot_id, manifest)
    await journal.truncate(token, found.chain.number)


async def keys_of(etcd: EtcdCluster) -> list[tuple[bytes, bytes]]:
    """All that lasts of a store, with keys relative to its prefix."""
    prefix = PREFIX.encode()
    async with EtcdClient(etcd.endpoints) as client:
        found = await client.range(prefix, prefix_end(prefix))
        return [(kv.key.removeprefix(prefix), kv.value) for kv in found.kvs if not kv.lease]


# ---- the command --------------------------------------------------------------------------------


def expect(holds: bool, what: str) -> None:
    """Stops a recording that is not what it should be."""
    if not holds:
        raise RuntimeError(f"expected {what}, but the run went otherwise")


def committed() -> str:
    """The commit that is recorded.

    Raises:
        RuntimeError: The product has changes that are not committed, or it is another one that is
            imported.
    """
    imported = Path(next(iter(tenure.protocol.__path__)))
    expect(imported.is_relative_to(REPOSITORY), f"tenure of {REPOSITORY}, not {imported}")
    status = ("git", "status", "--porcelain", "--", *PRODUCT)
    expect(not _git(*status), "a product without changes that are not committed")
    return _git("git", "rev-parse", "HEAD").strip()


def _git(*command: str) -> str:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout


def main() -> None:
    """Records the release that pyproject.toml names."""
    argparse.ArgumentParser(description="Records the histories of this release.").parse_args()
    commit = committed()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    folder = HISTORIES / project["version"]
    with tempfile.TemporaryDirectory(prefix="tenure-histories-") as temporary:
        fresh = Path(temporary)
        record(fresh, commit, project["version"])
        # What else is kept of the release, its contract, stays.
        folder.mkdir(exist_ok=True)
        for path in fresh.iterdir():
            shutil.copy(path, folder)
        size = sum(path.stat().st_size for path in fresh.iterdir())
    print(f"recorded {project['version']} at {commit[:12]}: {folder}, {size // 1024} KiB")


if __name__ == "__main__":
    main()
