"""Backups of every store: whole up to one batch, checked, and good for a new store."""

from pathlib import Path

import pytest

from tenure.master.backend.errors import CorruptJournal, OfficeLost
from tenure.master.journal.backup import BackupFile, Contents, export
from tenure.master.journal.frame import Chain, seal_manifest, seal_slice
from tenure.master.journal.port import Journal, ReplayMark
from tenure.master.store import Store
from tenure.protocol.fence import Token
from tenure.v1 import backup_pb2
from tests.conformance.bench import WALL_MS, Bench, followed, sealed, won


def _header(store: Store) -> backup_pb2.BackupHeader:
    return backup_pb2.BackupHeader(
        cluster_id=store.cluster_id, partitions=store.partitions, epoch=store.epoch
    )


async def back_up(store: Store, path: Path) -> Contents:
    """Writes a backup beside whoever leads, and checks it."""
    readers = [store.reader(partition) for partition in range(store.partitions)]
    path.write_bytes(b"".join([piece async for piece in export(readers, _header(store))]))
    return BackupFile(path).verify()


async def _snapshot(journal: Journal, token: Token, chain: Chain, name: str) -> None:
    """Publishes a snapshot up to the chain's end, and cuts the log behind it."""
    slices = [seal_slice(chain.partition, name, index, b"\x91\x01") for index in range(3)]
    for index, data in enumerate(slices):
        await journal.write_slice(token, name, index, data)
    manifest = seal_manifest(
        partition=chain.partition,
        snapshot_id=name,
        slice_count=len(slices),
        first_batch=chain.number,
        previous_hash=chain.previous_hash,
        last_seq=7,
        token=token,
        stamp_ms=WALL_MS,
    )
    await journal.publish_snapshot(token, name, manifest)
    await journal.truncate(token, chain.number)


async def fill(store: Store, *, cut: bool, more: int) -> list[bytes]:
    """Some batches in each partition, perhaps a snapshot, and some more; the last hashes."""
    hashes = []
    for partition in range(store.partitions):
        journal, office = store.journal(partition), await won(store, partition)
        chain = await followed(journal, partition)
        for number in range(3):
            await journal.append(office.token, sealed(chain, office.token, b"%d" % number))
        if cut:
            await _snapshot(journal, office.token, chain, f"snapshot-{partition}")
        for number in range(more):
            await journal.append(office.token, sealed(chain, office.token, b"more %d" % number))
        hashes.append(chain.previous_hash)
    return hashes


@pytest.mark.parametrize(("cut", "more"), [(False, 0), (True, 2), (True, 0)])
async def test_a_backup_holds_each_partition_up_to_its_last_batch(
    bench: Bench, tmp_path: Path, cut: bool, more: int
) -> None:
    """With or without a snapshot, and where nothing follows it, too."""
    store = await bench.open(partitions=2)
    hashes = await fill(store, cut=cut, more=more)
    contents = await back_up(store, tmp_path / "file")
    assert contents.header.cluster_id == store.cluster_id
    assert [part.last_hash for part in contents.partitions] == hashes
    assert [part.slices for part in contents.partitions] == [3 if cut else 0] * 2
    await store.close()


async def test_a_backup_survives_a_truncation_in_its_midst(bench: Bench, tmp_path: Path) -> None:
    """The leader cuts the log under the reader's hands: the partition begins anew."""
    store = await bench.open()
    journal, office = store.journal(0), await won(store)
    chain = await followed(journal)
    for number in range(200):
        await journal.append(office.token, sealed(chain, office.token, b"%d" % number))
    pieces = []
    async for piece in export([store.reader(0)], _header(store)):
        pieces.append(piece)
        if len(pieces) == 3:
            await _snapshot(journal, office.token, chain, "later")
            await journal.append(office.token, sealed(chain, office.token, b"last"))
    path = tmp_path / "file"
    path.write_bytes(b"".join(pieces))
    contents = BackupFile(path).verify()
    assert contents.partitions[0].last_hash == chain.previous_hash
    kinds = [record.WhichOneof("record") for _, record in BackupFile(path).records(contents)]
    assert kinds == ["manifest", "slice", "slice", "slice", "batch", "partition"]
    await store.close()


async def test_a_damaged_journal_gives_no_backup(bench: Bench, tmp_path: Path) -> None:
    """What recovery would refuse is not backed up as if it were whole."""
    store = await bench.open()
    await fill(store, cut=False, more=3)
    await bench.damage(store, 2, None)
    with pytest.raises(CorruptJournal):
        await back_up(store, tmp_path / "file")
    await store.close()


async def test_a_replay_mark_is_the_leaders_and_stays(bench: Bench) -> None:
    """A mark outlives its writer, is taken away by the next one, and no stale token writes it."""
    store = await bench.open()
    assert await store.journal(0).replay_mark() is None
    stale = (await won(store)).token
    await store.journal(0).mark_replay(stale, ReplayMark(crashes=1, seq=70))
    takeover = await bench.takeover(store)
    journal = takeover.store.journal(0)
    assert await journal.replay_mark() == ReplayMark(crashes=1, seq=70)
    for mark in (None, ReplayMark(crashes=2, seq=1)):
        with pytest.raises(OfficeLost):
            await journal.mark_replay(stale, mark)
    await journal.mark_replay(takeover.office.token, None)
    assert await journal.replay_mark() is None
    await takeover.store.close()
    await store.close()
