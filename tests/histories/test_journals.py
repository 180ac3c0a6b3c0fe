"""Stores that earlier releases and this one have written are read by this one, forever."""

from __future__ import annotations

import asyncio
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tenure.master.backend.etcd import operation as op
from tenure.master.backend.etcd.client import EtcdClient
from tenure.master.backend.etcd.keyspace import ClusterKeys
from tenure.master.core.partition import Partition
from tenure.master.election.port import Candidate
from tenure.master.journal.etcd import EtcdJournal
from tenure.master.store import open_store
from tenure.testing.etcd import EtcdCluster
from tests.histories.archive import RELEASES, read_json, read_pairs
from tests.histories.state import describe, differences, recovered

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
ME = Candidate(incarnation="replay", name="replay", address="127.0.0.1:1")

release = pytest.mark.parametrize("release", RELEASES, ids=lambda folder: folder.name)


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdCluster]:
    """One member."""
    with EtcdCluster(1) as started:
        yield started


def demand(found: Partition, recorded: dict[str, Any]) -> None:
    """The jobs are the recorded ones; so is the hash, while records have no other fields."""
    state = describe(found, list(recorded["jobs"]))
    state_hash, recorded_hash = state.pop("state_hash"), recorded["state_hash"]
    expected = {name: value for name, value in recorded.items() if name != "state_hash"}
    assert differences(expected, state) == []
    assert (state == expected) == (state_hash == recorded_hash)


def test_this_release_is_recorded() -> None:
    """The version of pyproject.toml has its histories, with the commit they came from."""
    version = tomllib.loads(PYPROJECT.read_text())["project"]["version"]

    manifests = {folder.name: read_json(folder / "manifest.json") for folder in RELEASES}

    assert version in manifests
    assert all(manifest["version"] == name for name, manifest in manifests.items())
    assert all(len(manifest["commit"]) == 40 for manifest in manifests.values())


@release
def test_sqlite_store(release: Path, tmp_path: Path) -> None:
    """A copy of the file opens, and recovery gives the state that the live leader had."""
    path = tmp_path / "store.db"
    shutil.copy(release / "sqlite.db", path)

    async def read() -> Partition:
        store = await open_store(f"sqlite://{path}", candidate=ME, wall_ms=0)
        try:
            return (await recovered(store.journal(0))).partition
        finally:
            await store.close()

    demand(asyncio.run(read()), read_json(release / "sqlite.json"))


@release
@pytest.mark.etcd
def test_etcd_store(release: Path, etcd: EtcdCluster) -> None:
    """The keys under another prefix: snapshot and batches give the state the live leader had."""
    prefix = f"/histories-{release.name}"

    async def read() -> Partition:
        async with EtcdClient(etcd.endpoints) as client:
            for key, value in read_pairs(release / "etcd.jsonl"):
                await client.txn(success=[op.put(prefix.encode() + key, value)])
            journal = EtcdJournal(client, ClusterKeys(prefix).partition(0))
            assert await journal.load_snapshot() is not None
            return (await recovered(journal)).partition

    demand(asyncio.run(read()), read_json(release / "etcd.json"))


@release
@pytest.mark.parametrize("name", ["sqlite.json", "etcd.json"])
def test_recorded_state_has_jobs_of_all_kinds(release: Path, name: str) -> None:
    """What is replayed is worth replaying."""
    jobs = read_json(release / name)["jobs"].values()

    states = {job["state"] for job in jobs}
    assert {"SCHEDULED", "PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"} <= states
    assert {"EXHAUSTED", "PERMANENT"} <= {job["failure_reason"] for job in jobs}
    assert any(job["key"] and job["policy"]["labels"] for job in jobs)
    assert any(job["run"] for job in jobs)
    assert any(job["history"] for job in jobs)


def test_differences_are_found() -> None:
    """A value that changed and a name that went are differences; a new name is none."""
    recorded = {"jobs": {"a": {"state": "COMPLETED", "history": [{"number": 1}]}}}

    def changed(**fields: object) -> list[str]:
        job = {"state": "COMPLETED", "history": [{"number": 1}], **fields}
        return differences(recorded, {"jobs": {"a": job}})

    assert changed(added_later=0) == []
    assert changed(history=[{"number": 1, "added_later": 0}]) == []
    assert len(changed(state="FAILED")) == 1
    assert len(changed(history=[])) == 1
    assert len(changed(history=[{"number": 2}])) == 1
    assert len(differences(recorded, {"jobs": {}})) == 1
