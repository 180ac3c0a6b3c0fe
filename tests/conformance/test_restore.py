"""Restores into every store that keeps anything: checked before, all or nothing, and fenced."""

import asyncio
import itertools
import random
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tenure.etcdapi import etcd_pb2 as pb
from tenure.master import maintenance
from tenure.master.backend.errors import (
    CorruptJournal,
    FormatTooNew,
    OfficeLost,
    StoreMismatch,
    TenureError,
)
from tenure.master.backend.etcd import operation as op
from tenure.master.backend.etcd.client import EtcdClient
from tenure.master.backend.etcd.errors import OutcomeUnknown
from tenure.master.backend.etcd.keyspace import ClusterKeys
from tenure.master.backend.sqlite import SqliteConnection
from tenure.master.etcd_store import EtcdUrl
from tenure.master.journal.backup import FORMAT, BackupFile
from tenure.master.journal.frame import open_snapshot
from tenure.master.journal.port import HaltRecord, ReplayMark, SnapshotRef
from tenure.master.sqlite_maintenance import SqliteMaintenance
from tenure.master.store import Store, open_store
from tenure.protocol.errors import Rejected
from tenure.testing.etcd import EtcdCluster
from tenure.v1 import backup_pb2
from tests.conformance.bench import WALL_MS, candidate, followed, sealed, stored, won
from tests.conformance.test_backup import back_up, fill

NewUrl = Callable[[str], str]


@pytest.fixture(params=["sqlite", pytest.param("etcd", marks=pytest.mark.etcd)])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> NewUrl:
    """The URL of a store that does not exist yet, by a name."""
    if request.param == "sqlite":
        return lambda name: f"sqlite://{tmp_path / name}.db"
    cluster: EtcdCluster = request.getfixturevalue("cluster")
    return lambda name: cluster.url(f"/{tmp_path.name}-{name}")


async def _opened(url: str, partitions: int | None = None) -> Store:
    return await open_store(
        url, candidate=candidate("alice"), wall_ms=WALL_MS, partitions=partitions
    )


async def _content(store: Store, partition: int) -> tuple[list[bytes], SnapshotRef | None]:
    """What a new leader would read."""
    journal = store.reader(partition)
    snapshot = await journal.load_snapshot()
    first = 0
    if snapshot is not None:
        first = open_snapshot(partition, snapshot).manifest.first_batch
    return [batch.data for batch in await stored(journal, first)], snapshot


@pytest.mark.parametrize(("cut", "more"), [(False, 0), (True, 2), (True, 0)])
def test_a_restored_store_is_the_one_that_was_backed_up(
    new_url: NewUrl, tmp_path: Path, cut: bool, more: int
) -> None:
    """All batches and snapshots are there, a leader can go on, and every old token is stale."""

    async def main() -> None:
        store = await _opened(new_url("old"), partitions=2)
        await fill(store, cut=cut, more=more)
        before = [await _content(store, partition) for partition in range(2)]
        await back_up(store, tmp_path / "file")
        old = (await won(store, 1)) if new_url("x").startswith("sqlite") else None
        await store.close()
        made = await maintenance.restore(new_url("new"), tmp_path / "file")
        assert (made.cluster_id, made.epoch > store.epoch) == (store.cluster_id, True)
        restored = await _opened(new_url("new"))
        assert (restored.partitions, restored.epoch) == (2, made.epoch)
        assert [await _content(restored, partition) for partition in range(2)] == before
        for partition in range(2):
            office = await won(restored, partition)
            assert office.token.epoch == made.epoch
            journal = restored.journal(partition)
            last = [batch async for batch in journal.read(await journal.last_number())]
            contents = made.contents.partitions[partition]
            assert last[0].number == contents.last_batch
            if old is not None:
                with pytest.raises(OfficeLost):
                    await journal.halt(old.token, HaltRecord(batch_number=0, detail=""))
            await office.resign()
        await restored.close()

    asyncio.run(main())


def test_a_restore_refuses_a_store_that_is_there(new_url: NewUrl, tmp_path: Path) -> None:
    """Nothing of it is changed; and each restore of one backup has an epoch of its own."""

    async def main() -> None:
        store = await _opened(new_url("old"))
        await fill(store, cut=False, more=0)
        await back_up(store, tmp_path / "file")
        before = await _content(store, 0)
        await store.close()
        with pytest.raises(StoreMismatch):
            await maintenance.restore(new_url("old"), tmp_path / "file")
        store = await _opened(new_url("old"))
        assert await _content(store, 0) == before
        await store.close()
        copy = await maintenance.restore(new_url("copy"), tmp_path / "file", new_cluster_id=True)
        assert copy.cluster_id != store.cluster_id

    asyncio.run(main())


@pytest.mark.fault(49)
def test_row_49_a_damaged_backup_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Each bit matters: any flipped one, and any cut, is found."""

    async def main() -> None:
        store = await _opened(f"sqlite://{tmp_path / 'old.db'}")
        await fill(store, cut=True, more=2)
        path = tmp_path / "file"
        await back_up(store, path)
        await store.close()
        whole = path.read_bytes()
        rng = random.Random(49)
        for place in range(len(whole)):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << rng.randrange(8)
            path.write_bytes(flipped)
            with pytest.raises((CorruptJournal, Rejected, FormatTooNew)):
                BackupFile(path).verify()
            path.write_bytes(whole[:place])
            with pytest.raises((CorruptJournal, Rejected)):
                BackupFile(path).verify()
        path.write_bytes(whole + b"more")
        with pytest.raises(CorruptJournal):
            await maintenance.restore(f"sqlite://{tmp_path / 'new.db'}", path)
        assert not (tmp_path / "new.db").exists()

    asyncio.run(main())


def test_a_backup_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    """Its format is what tells."""

    async def main() -> None:
        store = await _opened(f"sqlite://{tmp_path / 'old.db'}")
        await back_up(store, tmp_path / "file")
        await store.close()

    asyncio.run(main())
    path = tmp_path / "file"
    header = backup_pb2.BackupHeader(format=FORMAT + 1, partitions=1)
    # Only the header is looked at, so nothing has to follow it.
    data = backup_pb2.BackupRecord(header=header).SerializeToString()
    path.write_bytes(b"tenure backup 1\n" + framed(data))
    with pytest.raises(FormatTooNew):
        BackupFile(path).verify()


def framed(data: bytes) -> bytes:
    """One record, as docs say that it lies in the file."""
    from google_crc32c import value

    return len(data).to_bytes(4, "little") + data + value(data).to_bytes(4, "little")


def test_a_halted_partition_is_cleared_by_an_operator(new_url: NewUrl) -> None:
    """The mark and the count of crashes go; a partition that is not halted is told so."""

    async def main() -> None:
        url = new_url("store")
        store = await _opened(url, partitions=2)
        office = await won(store, 1)
        await store.journal(1).mark_replay(office.token, ReplayMark(crashes=2, seq=7))
        record = HaltRecord(batch_number=4, detail="event 7")
        await store.journal(1).halt(office.token, record)
        await office.resign()
        await store.close()
        with pytest.raises(StoreMismatch):
            await maintenance.clear_halt(url, 0)
        assert await maintenance.clear_halt(url, 1) == record
        store = await _opened(url)
        assert await store.journal(1).halted() is None
        assert await store.journal(1).replay_mark() is None
        await store.close()

    asyncio.run(main())


@pytest.mark.fault(43)
def test_row_43_a_restore_onto_a_disk_that_becomes_full_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What gets the store's name is whole, though SQLite closes a file without a word of it."""
    close = SqliteConnection.close

    async def close_without_space(self: SqliteConnection) -> None:
        _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
        try:
            await close(self)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    async def main() -> None:
        store = await _opened(f"sqlite://{tmp_path / 'old.db'}")
        await fill(store, cut=True, more=20)
        await back_up(store, tmp_path / "file")
        before = await _content(store, 0)
        await store.close()
        with monkeypatch.context() as patch:
            patch.setattr(SqliteConnection, "close", close_without_space)
            await maintenance.restore(f"sqlite://{tmp_path / 'new.db'}", tmp_path / "file")
        restored = await _opened(f"sqlite://{tmp_path / 'new.db'}")
        assert await _content(restored, 0) == before
        await restored.close()

    asyncio.run(main())


def test_the_epoch_that_is_told_is_the_one_that_is_kept(tmp_path: Path) -> None:
    """Also where the clock's second ends in the middle."""

    async def main() -> None:
        url = f"sqlite://{tmp_path / 'old.db'}"
        await (await _opened(url)).close()
        seconds = itertools.count(1_000)
        told = await SqliteMaintenance(url).raise_epoch(lambda epoch: next(seconds))
        store = await _opened(url)
        assert store.epoch == told
        await store.close()

    asyncio.run(main())


def test_a_raised_epoch_fences_what_was_given_out(new_url: NewUrl) -> None:
    """A token of before is refused, and the store opens with the new epoch."""

    async def main() -> None:
        url = new_url("store")
        store = await _opened(url)
        office = await won(store)
        chain = await followed(store.journal(0))
        batch = sealed(chain, office.token)
        if url.startswith("etcd"):
            # Masters may still run: they find out with their next write.
            await maintenance.raise_epoch(url)
            with pytest.raises((OfficeLost, TenureError)):
                await store.journal(0).append(office.token, batch)
            await store.close()
        else:
            await store.close()
            await maintenance.raise_epoch(url)
        again = await _opened(url)
        assert again.epoch > store.epoch
        with pytest.raises(OfficeLost):
            await again.journal(0).append(office.token, batch)
        await again.close()

    asyncio.run(main())


@pytest.mark.etcd
def test_an_interrupted_restore_is_no_store_and_is_begun_anew(
    cluster: EtcdCluster, tmp_path: Path
) -> None:
    """Half of a restore keeps masters out; the next restore replaces it."""
    url = cluster.url(f"/{tmp_path.name}-half")

    async def main() -> None:
        store = await _opened(f"sqlite://{tmp_path / 'old.db'}")
        await fill(store, cut=True, more=2)
        await back_up(store, tmp_path / "file")
        before = await _content(store, 0)
        await store.close()
        await maintenance.restore(url, tmp_path / "file")
        async with EtcdClient(EtcdUrl.parse(url).endpoints) as client:
            prefix = EtcdUrl.parse(url).prefix.encode()
            half = [
                op.put(prefix + b"/cluster", b'{"format": 1, "restoring": true}'),
                op.delete(prefix + b"/epoch"),
                op.put(prefix + b"/partitions/0000/batch/left", b"over"),
            ]
            done = await client.txn(success=half)
            assert isinstance(done, pb.TxnResponse)
        with pytest.raises(StoreMismatch):
            await _opened(url)
        await maintenance.restore(url, tmp_path / "file")
        restored = await _opened(url)
        assert await _content(restored, 0) == before
        await restored.close()

    asyncio.run(main())


@pytest.mark.etcd
@pytest.mark.fault(45)
def test_row_45_space_is_freed_though_a_member_is_dead(
    cluster: EtcdCluster, tmp_path: Path
) -> None:
    """It is named, the others take their turns, and the alarm is looked after all the same."""
    url = cluster.url(f"/{tmp_path.name}-space")
    alive = EtcdUrl.parse(url).endpoints
    said: list[str] = []
    with_a_dead_one = url.replace("etcd://", "etcd://127.0.0.1:1,")
    freed = asyncio.run(maintenance.free_space(with_a_dead_one, said.append))
    assert [member.address for member in freed] == [*alive]
    assert [text for text in said if "127.0.0.1:1" in text and "goes on" in text]


Txn = Callable[..., Awaitable[pb.TxnResponse]]


def changing(wrapped: Callable[[Txn, EtcdClient, bytes], Awaitable[pb.TxnResponse]]) -> Txn:
    """A client's ``txn`` whose changes, unlike its reads, go through something else."""
    txn: Txn = EtcdClient.txn

    async def either(client: EtcdClient, *change: Any, **reads: Any) -> pb.TxnResponse:
        if not change:
            return await txn(client, **reads)
        same, made, _ = change
        name = pb.TxnRequest(compare=same, success=made).SerializeToString()
        return await wrapped(lambda _: txn(client, *change), client, name)

    return either


@pytest.mark.etcd
def test_a_change_whose_answer_was_lost_was_made_by_nobody_else(
    cluster: EtcdCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restore, raise-epoch and clear-halt find that they have done it, and tell what they did."""
    told: set[bytes] = set()

    async def losing(txn: Txn, client: EtcdClient, name: bytes) -> pb.TxnResponse:
        answer = await txn(client)
        if name not in told:
            told.add(name)
            raise OutcomeUnknown("its answer was lost")
        return answer

    async def main() -> None:
        old, new = cluster.url(f"/{tmp_path.name}-old"), cluster.url(f"/{tmp_path.name}-new")
        store = await _opened(old)
        record = HaltRecord(batch_number=4, detail="event 7")
        office = await won(store)
        await store.journal(0).halt(office.token, record)
        await office.resign()
        await fill(store, cut=False, more=0)
        await back_up(store, tmp_path / "file")
        await store.close()
        with monkeypatch.context() as patch:
            patch.setattr(EtcdClient, "txn", changing(losing))
            assert await maintenance.clear_halt(old, 0) == record
            epoch = await maintenance.raise_epoch(old)
            made = await maintenance.restore(new, tmp_path / "file")
        for url, known in ((old, epoch), (new, made.epoch)):
            store = await _opened(url)
            assert store.epoch == known
            assert await store.journal(0).halted() is None
            await store.close()

    asyncio.run(main())
    assert len(told) >= 5


@pytest.mark.etcd
def test_an_epoch_that_somebody_else_has_raised_is_not_told_as_ones_own(
    cluster: EtcdCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record says the same after both; the epoch does not."""
    url = cluster.url(f"/{tmp_path.name}-raised")

    async def overtaken(txn: Txn, client: EtcdClient, name: bytes) -> pb.TxnResponse:
        keys = ClusterKeys(EtcdUrl.parse(url).prefix)
        await client.txn(success=[op.put(keys.epoch, b"4000000000")])
        return await txn(client)

    async def main() -> None:
        await (await _opened(url)).close()
        with monkeypatch.context() as patch:
            patch.setattr(EtcdClient, "txn", changing(overtaken))
            with pytest.raises(StoreMismatch, match="somebody else"):
                await maintenance.raise_epoch(url)

    asyncio.run(main())
