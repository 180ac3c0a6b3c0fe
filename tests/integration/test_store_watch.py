"""The watch that the journal oracle judges by: it sees every change, or says that it did not."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from tenure.testing.etcd import EtcdCluster
from tests.chaos.process import until
from tests.oracles.etcd_watch import StoreWatch, WatchBroken
from tests.oracles.journal import (
    BatchDeleted,
    BatchWritten,
    Change,
    OfficeTaken,
    OfficeVacated,
    SnapshotPublished,
)

pytestmark = pytest.mark.etcd

OFFICE, BATCH = "partitions/0000/office", "partitions/0000/batch/00000000000000000001"
SNAPSHOT = "partitions/0000/snapshot"


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdCluster]:
    """Three members."""
    with EtcdCluster(3) as cluster:
        yield cluster


def call(etcd: EtcdCluster, path: str, key: str, **more: Any) -> int:
    """One call of the JSON gateway; returns the store's revision after it."""
    body = {"key": base64.b64encode(key.encode()).decode(), **more}
    for member in [*etcd.members, *etcd.members]:
        try:
            return int(member.post(path, body)["header"]["revision"])
        except OSError:
            continue
    raise AssertionError("no member answers")


def put(etcd: EtcdCluster, key: str, value: bytes = b"") -> int:
    """Writes a key."""
    return call(etcd, "/v3/kv/put", key, value=base64.b64encode(value).decode())


def delete(etcd: EtcdCluster, key: str) -> int:
    """Deletes a key."""
    return call(etcd, "/v3/kv/deleterange", key)


def expect(changes: list[Change], expected: list[Change]) -> None:
    """Compare, with the revisions that were returned."""
    assert changes == expected


def test_every_kind_of_change_is_seen(etcd: EtcdCluster) -> None:
    """Changes made before the watch began and after it did, in the order of revisions."""
    put(etcd, "/a/epoch", b"3")
    taken = put(etcd, f"/a/{OFFICE}", b'{"incarnation": "me"}')
    put(etcd, f"/a/{OFFICE}", b"renamed")
    with StoreWatch(etcd.endpoints, "/a") as watch:
        written = put(etcd, f"/a/{BATCH}", b"data")
        again = put(etcd, f"/a/{BATCH}", b"other")
        published = put(etcd, f"/a/{SNAPSHOT}", b"id\0manifest")
        gone = delete(etcd, f"/a/{BATCH}")
        vacated = delete(etcd, f"/a/{OFFICE}")
        put(etcd, f"/ab/{BATCH}", b"another cluster's")
        changes = watch.finish()

    expect(
        changes,
        [
            OfficeTaken(taken, 0, 3, "me"),
            BatchWritten(written, 0, 1, True, b"data"),
            BatchWritten(again, 0, 1, False, b"other"),
            SnapshotPublished(published, 0, b"manifest"),
            BatchDeleted(gone, 0, 1),
            OfficeVacated(vacated, 0),
        ],
    )


def test_nothing_is_missed_when_a_member_dies(etcd: EtcdCluster) -> None:
    """The watch goes on at another member from the revision after the last one seen."""
    revisions = []
    with StoreWatch(etcd.endpoints, "/b") as watch:
        for number, member in enumerate(etcd.members):
            revisions.append(put(etcd, f"/b/partitions/{number}/office"))
            assert until(lambda: len(watch.changes) >= len(revisions), 20)
            member.kill()
            revisions.append(put(etcd, f"/b/partitions/1{number}/office"))
            member.start()
            etcd.wait_ready()
        changes = watch.finish()

    assert [change.revision for change in changes] == revisions


def test_compacted_past_is_refused(etcd: EtcdCluster) -> None:
    """What was compacted away before the watch saw it makes the whole watch worthless."""
    put(etcd, f"/c/{BATCH}")
    newest = delete(etcd, f"/c/{BATCH}")
    etcd.members[0].post("/v3/kv/compaction", {"revision": str(newest), "physical": True})

    with StoreWatch(etcd.endpoints, "/c") as watch, pytest.raises(WatchBroken, match="compacted"):
        watch.finish()
