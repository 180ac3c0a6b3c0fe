"""What an operator does to a store in etcd, whether or not masters run on it."""

import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

from tenure.etcdapi import etcd_pb2 as pb
from tenure.master.backend.errors import StoreMismatch
from tenure.master.backend.etcd import operation as op
from tenure.master.backend.etcd.client import EtcdClient
from tenure.master.backend.etcd.errors import Compacted, EtcdError
from tenure.master.backend.etcd.keyspace import ClusterKeys
from tenure.master.backend.etcd.resolution import failed, resolve
from tenure.master.backend.space import Freed
from tenure.master.etcd_store import FORMAT, RESTORING, EtcdUrl
from tenure.master.journal.backup import BackupFile, Contents
from tenure.master.journal.port import HaltRecord
from tenure.protocol.refusal import Reason
from tenure.v1 import journal_pb2

#: Of one transaction: etcd's own defaults are 128 operations and 1.5 MiB.
_OPERATIONS_MAX: Final = 64
_BYTES_MAX: Final = 768 * 1024


class EtcdMaintenance:
    """See ``maintenance.Maintenance``.

    Args:
        url: The store's.
    """

    def __init__(self, url: str) -> None:
        self._text = url
        self._url = EtcdUrl.parse(url)

    async def restore(
        self, backup: BackupFile, contents: Contents, *, cluster_id: str, epoch: int
    ) -> None:
        # The bootstrap record says until the end that the store is being restored, so no master
        # takes half of one for whole. What an interrupted restore has left is replaced.
        action = "restore the store"
        async with self._opened(action) as (client, keys):
            await _make_room(client, keys)
            fields: dict[str, Any] = {
                "cluster_id": cluster_id,
                "format": FORMAT,
                "partitions": len(contents.spans),
                "etcd_cluster_id": f"{client.cluster_id:x}",
            }
            # Its own: of two restores at one time, one goes on.
            mark = json.dumps({**fields, RESTORING: str(uuid.uuid4())}).encode()
            await _change(client, [op.absent(keys.record)], [op.put(keys.record, mark)], action)
            mine = op.value_is(keys.record, mark)
            for puts in _transactions(keys, backup, contents):
                await _change(client, [mine], puts, action)
            done = [
                op.put(keys.record, json.dumps(fields).encode()),
                op.put(keys.epoch, b"%d" % epoch),
            ]
            await _change(client, [mine], done, action)

    async def demand_store(self) -> None:
        action = "look for the store"
        async with self._opened(action) as (client, keys):
            if not (await resolve(lambda: client.range(keys.record), action)).kvs:
                raise self._no_store()

    async def raise_epoch(self, choose: Callable[[int], int]) -> int:
        """Makes a store usable that etcd itself has restored; returns the new epoch.

        Everything that masters of before have given out is fenced by it: their tokens are older,
        though etcd may give their revisions out again.

        Raises:
            StoreMismatch: There is no store, or another operator was quicker.
        """
        action = "raise the epoch"
        async with self._opened(action) as (client, keys):
            gets = [op.get(keys.record), op.get(keys.epoch)]
            answer = await resolve(lambda: client.txn(success=gets), action)
            record, known = (response.response_range.kvs for response in answer.responses)
            if not record or not known:
                raise self._no_store()
            epoch = choose(int(known[0].value))
            fields = {**json.loads(record[0].value), "etcd_cluster_id": f"{client.cluster_id:x}"}
            same = [
                op.value_is(keys.record, record[0].value),
                op.value_is(keys.epoch, known[0].value),
            ]
            puts = [
                op.put(keys.record, json.dumps(fields).encode()),
                op.put(keys.epoch, b"%d" % epoch),
            ]
            await _change(client, same, puts, action)
            return epoch

    async def clear_halt(self, partition: int) -> HaltRecord | None:
        action = f"clear the halt of partition {partition}"
        async with self._opened(action) as (client, keys):
            branch = keys.partition(partition)
            found = (await resolve(lambda: client.range(branch.halted), action)).kvs
            if not found:
                return None
            fields = json.loads(found[0].value)
            same = [op.value_is(branch.halted, found[0].value)]
            await _change(
                client, same, [op.delete(branch.halted), op.delete(branch.replay)], action
            )
            return HaltRecord(batch_number=fields["batch_number"], detail=fields["detail"])

    async def free_space(self, say: Callable[[str], None]) -> list[Freed]:
        """Compacts, defragments each member in turn, and disarms the alarm of a full etcd.

        A member that does not answer is left out: a dead one must not keep the others full.
        """
        action = "free space"
        freed = []
        async with self._opened(action) as (client, keys):
            now = await resolve(lambda: client.range(keys.record), action)
            say("compacting")
            try:
                await client.compact(now.header.revision)
            except Compacted:
                say("compacted already")
            for address in client.endpoints:
                try:
                    freed.append(await _defragment(client, address, say))
                except EtcdError as error:
                    say(f"member {address} does not answer, so this goes on without it: {error}")
            for alarm in await client.alarms():
                if alarm.alarm == pb.NOSPACE:
                    say(f"disarming the alarm of member {alarm.member_id:x}")
                    await client.disarm(alarm)
        return freed

    @asynccontextmanager
    async def _opened(self, action: str) -> AsyncIterator[tuple[EtcdClient, ClusterKeys]]:
        keys = ClusterKeys(self._url.prefix)
        async with EtcdClient(self._url.endpoints, tls=self._url.trust()) as client:
            try:
                # Its answer also says which etcd this is.
                await resolve(lambda: client.range(keys.record), action)
                yield client, keys
            except EtcdError as error:
                raise failed(action, error) from error

    def _no_store(self) -> StoreMismatch:
        return StoreMismatch(
            f"expected a store at {self._text}, but nothing was ever kept there; check its prefix",
            reason=Reason.STORE_MISMATCH,
            metadata={"url": self._text},
        )


async def _defragment(client: EtcdClient, address: str, say: Callable[[str], None]) -> Freed:
    before = (await client.status(address)).db_size
    say(f"defragmenting {address}")
    await client.defragment(address)
    return Freed(address=address, before=before, after=(await client.status(address)).db_size)


async def _make_room(client: EtcdClient, keys: ClusterKeys) -> None:
    """Refuses a prefix that is in use; removes what an interrupted restore has left there."""
    action = "look whether the store is new"
    end = op.prefix_end(keys.prefix)
    there = await resolve(lambda: client.range(keys.prefix, end, limit=1, keys_only=True), action)
    if not there.kvs:
        return
    found = (await resolve(lambda: client.range(keys.record), action)).kvs
    if not found or not json.loads(found[0].value).get(RESTORING):
        where = keys.prefix.decode()
        raise StoreMismatch(
            f"expected to restore into a new store, but there are keys under {where} already; name"
            " another prefix, as in etcd://HOST:PORT/other, or an empty etcd",
            reason=Reason.STORE_MISMATCH,
            metadata={"prefix": where},
        )
    mine = [op.value_is(keys.record, found[0].value)]
    await _change(client, mine, [op.delete(keys.prefix, end)], action)


def _transactions(
    keys: ClusterKeys, backup: BackupFile, contents: Contents
) -> Iterator[list[pb.RequestOp]]:
    """A backup's records as puts, as many at once as etcd takes."""
    puts: list[pb.RequestOp] = []
    size = 0
    snapshot, slices = "", 0
    for partition, record in backup.records(contents):
        branch = keys.partition(partition)
        if record.HasField("manifest"):
            manifest = journal_pb2.SnapshotManifest.FromString(record.manifest)
            snapshot, slices = manifest.snapshot_id, 0
            key, value = branch.snapshot, b"\0".join((snapshot.encode(), record.manifest))
        elif record.HasField("slice"):
            key, value = branch.slice(snapshot, slices), record.slice
            slices += 1
        elif record.HasField("batch"):
            batch = journal_pb2.JournalBatch.FromString(record.batch)
            key, value = branch.batch(batch.number), record.batch
        else:
            continue
        if puts and (size + len(value) > _BYTES_MAX or len(puts) >= _OPERATIONS_MAX):
            yield puts
            puts, size = [], 0
        puts.append(op.put(key, value))
        size += len(value)
    if puts:
        yield puts


async def _change(
    client: EtcdClient, same: list[pb.Compare], made: list[pb.RequestOp], action: str
) -> None:
    """One transaction that may be applied twice without harm.

    Raises:
        StoreMismatch: Somebody else changed the store meanwhile.
    """
    puts = {
        one.request_put.key: one.request_put.value for one in made if one.HasField("request_put")
    }
    keys = {*(compare.key for compare in same), *puts}
    answer = await resolve(lambda: client.txn(same, made, [op.get(key) for key in keys]), action)
    if answer.succeeded:
        return
    found = {kv.key: kv.value for each in answer.responses for kv in each.response_range.kvs}
    # If the first try was applied, and its answer lost, no key is as it was when it was compared.
    wiped = [one.request_delete_range for one in made if one.HasField("request_delete_range")]
    changed = all(
        compare.key in puts or any(_covers(gone, compare.key) for gone in wiped) for compare in same
    )
    if changed and {key: found.get(key) for key in keys} == {key: puts.get(key) for key in keys}:
        return
    raise StoreMismatch(
        f"expected to {action}, but somebody else changed the store at the same time; look at it,"
        " then try again",
        reason=Reason.STORE_MISMATCH,
    )


def _covers(gone: pb.DeleteRangeRequest, key: bytes) -> bool:
    return gone.key == key or gone.key <= key < gone.range_end
