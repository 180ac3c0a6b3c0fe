"""The journal in etcd: a key per batch, and a guard on everything that changes one.

An append is one transaction (DESIGN, etcd rule 2)::

    if   office created at the token's revision     I still lead, by the same key
     and epoch is the token's                       nobody restored a backup meanwhile
     and batch n absent                             this is no second application
     and batch n-1 present                          no gap, whatever overtook what on the way
    then put batch n
    else read office, epoch, n, n-1                 tells which of the four it was

So a transaction without an answer can be sent again as it is: if it had been applied, its second
run reads its own bytes in place. Appends are pipelined, and may reach etcd out of order or fail
one by one; the predecessor's compare keeps the stored order right::

    1. batches 7 and 8 are sent together; 7 is lost, 8 arrives
    2. 8's else-branch finds 7 absent: its append waits for 7's
    3. 7's append times out, is sent again and commits
    4. 8 is sent again and commits
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tenure.etcdapi import etcd_pb2 as pb
from tenure.master.backend.errors import (
    CorruptJournal,
    OfficeLost,
    StoreIoError,
    StoreUnavailable,
)
from tenure.master.backend.etcd import operation as op
from tenure.master.backend.etcd.client import EtcdClient
from tenure.master.backend.etcd.errors import Compacted, EtcdError, NoSpace, Unavailable
from tenure.master.backend.etcd.keyspace import PartitionKeys
from tenure.master.backend.etcd.resolution import failed, resolve
from tenure.master.journal.port import HaltRecord, ReplayMark, SealedBatch, SnapshotRef
from tenure.protocol.fence import Token
from tenure.protocol.refusal import Reason

_log = logging.getLogger(__name__)

_PAGE_FIRST: Final = 16
_PAGE_MAX: Final = 1_024
_PAGE_BYTES: Final = 2 * 1024 * 1024
#: Etcd starts a goroutine a call, and of calls that arrive together the last often runs first.
#: (Measured: 4 batches sent at once come out of order three times in four; 0.5 ms apart, never.)
_SPACING_S: Final = 0.000_5
#: Etcd applies a delete of many keys at one go, and all writes wait for it.
_DELETE_MAX: Final = 1_024


@dataclass(slots=True, eq=False)
class _Flight:
    """An append under way."""

    #: The loop's time when it was last sent; None: not yet, or refused since.
    sent_at_s: float | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class _Found:
    """What the else-branch of an append read."""

    office: pb.KeyValue | None
    epoch: pb.KeyValue | None
    mine: pb.KeyValue | None
    previous: pb.KeyValue | None


class EtcdJournal:
    """One partition's journal; see ``journal.port`` for what each method promises.

    Args:
        client: shared with the other partitions of this master.
        keys: the partition's.
    """

    #: More would be sent at once, and overtake each other, more often than they gain.
    pipeline_depth: int = 2

    def __init__(self, client: EtcdClient, keys: PartitionKeys) -> None:
        self._client = client
        self._keys = keys
        #: Appends under way, by number.
        self._flights: dict[int, _Flight] = {}
        #: Set, and replaced, whenever a flight is sent, is refused or ends.
        self._changed = asyncio.Event()
        #: The highest number known to be stored; its absence later is a loss, not a race.
        self._stored_number = -1
        #: Revision of the last put of the snapshot pointer that was read or made here.
        self._pointer_revision = 0

    # Appending.

    async def append(self, token: Token, batch: SealedBatch) -> None:
        flight = self._flights[batch.number] = _Flight()
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._clear_to_send(batch.number)
                stored_number = self._stored_number
                self._set_sent(flight, loop.time())
                if await self._try_append(token, batch):
                    break
                self._set_sent(flight, None)
                await self._wait_for_predecessor(batch.number, stored_number)
            self._note_stored(batch)
            # Its answer may have come first, but callers see commits in order.
            if (predecessor := self._flights.get(batch.number - 1)) is not None:
                await predecessor.ended.wait()
        finally:
            # A repeated append of the same number may have taken the entry over.
            if self._flights.get(batch.number) is flight:
                del self._flights[batch.number]
            flight.ended.set()
            self._set_sent(flight, None)

    async def _clear_to_send(self, number: int) -> None:
        """Returns when ``number`` is unlikely to overtake its predecessor on the way to etcd.

        Sending too early is harmless but dear: the refused transaction has gone through raft with
        all its bytes, and its successors, sent behind it, are refused as well.
        """
        loop = asyncio.get_running_loop()
        while (predecessor := self._flights.get(number - 1)) is not None:
            if predecessor.sent_at_s is None:
                await self._changed.wait()
            elif (early_s := predecessor.sent_at_s + _SPACING_S - loop.time()) > 0:
                await asyncio.sleep(early_s)
            else:
                return

    def _set_sent(self, flight: _Flight, sent_at_s: float | None) -> None:
        flight.sent_at_s = sent_at_s
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _try_append(self, token: Token, batch: SealedBatch) -> bool:
        """Whether the batch is stored now; False: its predecessor is not."""
        keys, number = self._keys, batch.number
        key, previous = keys.batch(number), keys.batch(number - 1)
        action = f"append batch {number}"
        compare = [*keys.guard(token), op.absent(key), op.exists(previous)]
        success = [op.put(key, batch.data)]
        failure = [op.get(keys.office), op.get(keys.epoch), op.get(key)]
        failure.append(op.get(previous, keys_only=True))
        try:
            answer = await resolve(lambda: self._client.txn(compare, success, failure), action)
        except NoSpace as error:
            # The transaction that first crosses the quota is applied and *then* reported so.
            if await self._holds(key, batch.data):
                return True
            raise failed(action, error) from error
        except EtcdError as error:
            raise failed(action, error) from error
        if answer.succeeded:
            return True
        return self._judge(token, batch, _Found(*map(_first, answer.responses)))

    def _judge(self, token: Token, batch: SealedBatch, found: _Found) -> bool:
        """What a refused append means: stored already (True), too early (False), or an error."""
        if found.mine is not None and found.mine.value == batch.data:
            return True
        if not _holds_office(token, found.office, found.epoch):
            raise _office_lost(f"append batch {batch.number}", token)
        if found.mine is not None:
            raise OfficeLost(
                f"expected to append batch {batch.number}, but another one has that number",
                reason=Reason.FENCED,
            )
        if found.previous is None:
            return False
        raise StoreIoError(
            f"expected to append batch {batch.number}, but etcd refused it without a reason",
            reason=Reason.STORE_IO,
        )

    async def _wait_for_predecessor(self, number: int, stored_number: int) -> None:
        """Returns when batch ``number`` is worth sending again: its predecessor may be there.

        Args:
            number: The batch that was refused because batch ``number - 1`` is not stored.
            stored_number: The highest number known to be stored when it was sent.
        """
        if number - 1 <= stored_number:
            raise self._corrupt(number - 1, "it was stored and is gone")
        predecessor = self._flights.get(number - 1)
        if predecessor is not None:
            await predecessor.ended.wait()
        elif number - 1 > self._stored_number:
            raise StoreUnavailable(
                f"expected to append batch {number}, but batch {number - 1} is not stored;"
                " append that one again first",
                reason=Reason.STORE_UNAVAILABLE,
            )

    def _note_stored(self, batch: SealedBatch) -> None:
        self._stored_number = max(self._stored_number, batch.number)

    # Reading.

    async def read(self, first: int) -> AsyncIterator[SealedBatch]:
        number = first
        while True:
            start = self._keys.batch(number)
            try:
                async for kv in self._pages(start, op.prefix_end(self._keys.batches), "read"):
                    found = self._keys.batch_number(kv.key)
                    if found != number:
                        raise self._corrupt(number, f"the next one there is {found}")
                    batch = SealedBatch(number=number, data=kv.value)
                    self._note_stored(batch)
                    number += 1
                    yield batch
            except Compacted:
                # Only superseded revisions are gone; what is stored now can be listed anew.
                continue
            return

    async def last_number(self) -> int:
        return self._keys.batch_number((await self._last_batch()).key)

    async def _last_batch(self) -> pb.KeyValue:
        """Its key, without its data."""
        found = await self._range(
            self._keys.batches,
            op.prefix_end(self._keys.batches),
            action="find the last batch",
            limit=1,
            keys_only=True,
            descending=True,
        )
        if not found.kvs:
            raise self._empty()
        return found.kvs[0]

    async def _first_number(self) -> int:
        found = await self._range(
            self._keys.batches,
            op.prefix_end(self._keys.batches),
            action="find the first batch",
            limit=1,
            keys_only=True,
        )
        if not found.kvs:
            raise self._empty()
        return self._keys.batch_number(found.kvs[0].key)

    # Snapshots.

    async def write_slice(self, token: Token, snapshot_id: str, index: int, data: bytes) -> None:
        key = self._keys.slice(snapshot_id, index)
        await self._mutate(token, [op.put(key, data)], f"write slice {index} of {snapshot_id}")

    async def publish_snapshot(self, token: Token, snapshot_id: str, manifest: bytes) -> None:
        keys = self._keys
        action = f"publish snapshot {snapshot_id}"
        pointer = b"\0".join((snapshot_id.encode(), manifest))
        own = keys.slices_of(snapshot_id)
        compare = [*keys.guard(token), op.modified_at(keys.snapshot, self._pointer_revision)]
        success = [
            op.put(keys.snapshot, pointer),
            # All slices but this snapshot's: the former one's, and those never published.
            op.delete(keys.slices, own),
            op.delete(op.prefix_end(own), op.prefix_end(keys.slices)),
        ]
        failure = [op.get(keys.office), op.get(keys.epoch), op.get(keys.snapshot)]
        try:
            answer = await resolve(lambda: self._client.txn(compare, success, failure), action)
        except NoSpace as error:
            stored = await self._range(keys.snapshot, action=action)
            if stored.kvs and stored.kvs[0].value == pointer:
                self._pointer_revision = stored.kvs[0].mod_revision
                return
            raise failed(action, error) from error
        except EtcdError as error:
            raise failed(action, error) from error
        if answer.succeeded:
            self._pointer_revision = answer.header.revision
            return
        office, epoch, found = map(_first, answer.responses)
        if found is not None and found.value == pointer:
            self._pointer_revision = found.mod_revision
            return
        if not _holds_office(token, office, epoch):
            raise _office_lost(action, token)
        raise OfficeLost(
            f"expected to {action}, but another was published since this master last read it",
            reason=Reason.FENCED,
        )

    async def snapshot_manifest(self) -> bytes | None:
        pointer = await self._range(self._keys.snapshot, action="read the snapshot's pointer")
        self._pointer_revision = pointer.kvs[0].mod_revision if pointer.kvs else 0
        return pointer.kvs[0].value.partition(b"\0")[2] if pointer.kvs else None

    async def load_snapshot(self) -> SnapshotRef | None:
        while True:
            pointer = await self._range(self._keys.snapshot, action="read the snapshot's pointer")
            if not pointer.kvs:
                self._pointer_revision = 0
                return None
            name, _, manifest = pointer.kvs[0].value.partition(b"\0")
            start = self._keys.slices_of(name.decode())
            pages = self._pages(
                start, op.prefix_end(start), "read the snapshot", pointer.header.revision
            )
            try:
                slices = [kv.value async for kv in pages]
            except Compacted:
                # A newer snapshot may have taken its place: begin with the pointer again.
                continue
            self._pointer_revision = pointer.kvs[0].mod_revision
            return SnapshotRef(manifest=manifest, slices=slices)

    # Truncation.

    async def truncate(self, token: Token, before: int) -> int:
        keys = self._keys
        end = min(before, await self.last_number())
        first = start = await self._first_number()
        revision = 0
        # No put: a full store still takes it. Upwards: a crash between two steps leaves no gap.
        while start < end:
            stop = min(start + _DELETE_MAX, end)
            delete = op.delete(keys.batches, keys.batch(stop))
            answer = await self._mutate(token, [delete], f"truncate before batch {stop}")
            revision, start = answer.header.revision, stop
        if not revision:
            # Nothing to delete, but the token is judged all the same.
            await self._mutate(token, [], f"truncate before batch {before}")
            return 0
        await self._compact(revision)
        return end - first

    async def _compact(self, revision: int) -> None:
        """Let etcd forget what was deleted; the next truncation makes up for a failure."""
        try:
            await self._client.compact(revision)
        except Compacted:
            return
        except EtcdError as error:
            _log.warning(
                "etcd was not compacted to revision %d: %s",
                revision,
                error,
                extra={"action": "compact"},
            )

    # Halting.

    async def halt(self, token: Token, record: HaltRecord) -> None:
        value = json.dumps({"batch_number": record.batch_number, "detail": record.detail})
        await self._mutate(token, [op.put(self._keys.halted, value.encode())], "halt the partition")

    async def halted(self) -> HaltRecord | None:
        found = await self._range(self._keys.halted, action="read the halt record")
        if not found.kvs:
            return None
        fields = json.loads(found.kvs[0].value)
        return HaltRecord(batch_number=fields["batch_number"], detail=fields["detail"])

    async def mark_replay(self, token: Token, mark: ReplayMark | None) -> None:
        key = self._keys.replay
        if mark is None:
            change = op.delete(key)
        else:
            fields = {"crashes": mark.crashes, "seq": mark.seq, "revision": token.revision}
            change = op.put(key, json.dumps(fields).encode())
        await self._mutate(token, [change], "mark the replay")

    async def replay_mark(self) -> ReplayMark | None:
        found = await self._range(self._keys.replay, action="read the replay's mark")
        if not found.kvs:
            return None
        fields = json.loads(found.kvs[0].value)
        # A put that was given up can be applied long after, even after the delete. But a recovery
        # that has journaled something has ended.
        if "revision" in fields and (await self._last_batch()).mod_revision > fields["revision"]:
            return None
        return ReplayMark(crashes=fields["crashes"], seq=fields["seq"])

    # How etcd is called.

    async def _mutate(
        self, token: Token, success: Sequence[pb.RequestOp], action: str
    ) -> pb.TxnResponse:
        """One guarded transaction that may be applied twice without harm."""
        # The read makes etcd ask for a majority even where there is nothing to change.
        compare, look = self._keys.guard(token), [op.get(self._keys.office)]
        try:
            answer = await resolve(lambda: self._client.txn(compare, success, look), action)
        except EtcdError as error:
            raise failed(action, error) from error
        if not answer.succeeded:
            raise _office_lost(action, token)
        return answer

    async def _range(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        action: str,
        limit: int = 0,
        keys_only: bool = False,
        descending: bool = False,
    ) -> pb.RangeResponse:
        """A linearizable read."""

        async def read() -> pb.RangeResponse:
            return await self._client.range(
                key, range_end, limit=limit, keys_only=keys_only, descending=descending
            )

        try:
            return await resolve(read, action)
        except EtcdError as error:
            raise failed(action, error) from error

    def _corrupt(self, number: int, why: str) -> CorruptJournal:
        partition = self._keys.partition
        return CorruptJournal(
            f"expected to read batch {number} of partition {partition}, but {why}; nothing was"
            " skipped or deleted",
            reason=Reason.STORE_CORRUPT,
            metadata={"partition": str(partition), "batch": str(number)},
        )

    def _empty(self) -> CorruptJournal:
        return self._corrupt(0, "there is no batch at all, which no truncation does")

    async def _holds(self, key: bytes, value: bytes) -> bool:
        found = await self._range(key, action="read a batch back")
        return bool(found.kvs) and found.kvs[0].value == value

    async def _pages(
        self, start: bytes, end: bytes, action: str, revision: int = 0
    ) -> AsyncIterator[pb.KeyValue]:
        """The keys of ``[start, end)`` at one revision, in pages of about ``_PAGE_BYTES``.

        Raises:
            Compacted: the revision is gone; begin again, at a new one.
        """
        limit = _PAGE_FIRST

        async def page() -> pb.RangeResponse:
            nonlocal limit
            try:
                return await self._client.range(start, end, limit=limit, revision=revision)
            except Unavailable:
                # Perhaps it was too much for one deadline.
                limit = max(1, limit // 2)
                raise

        while True:
            try:
                answer = await resolve(page, action)
            except Compacted:
                raise
            except EtcdError as error:
                raise failed(action, error) from error
            for kv in answer.kvs:
                yield kv
            if not answer.more:
                return
            # The first page was linearizable; the rest is read as of the same moment.
            revision = revision or answer.header.revision
            start = answer.kvs[-1].key + b"\0"
            mean = sum(len(kv.value) for kv in answer.kvs) // len(answer.kvs) + 1
            limit = max(1, min(2 * limit, _PAGE_BYTES // mean, _PAGE_MAX))


def _first(response: pb.ResponseOp) -> pb.KeyValue | None:
    kvs = response.response_range.kvs
    return kvs[0] if kvs else None


def _holds_office(token: Token, office: pb.KeyValue | None, epoch: pb.KeyValue | None) -> bool:
    return (
        office is not None
        and office.create_revision == token.revision
        and epoch is not None
        and epoch.value == b"%d" % token.epoch
    )


def _office_lost(action: str, token: Token) -> OfficeLost:
    return OfficeLost(
        f"expected to {action} under token {token}, but the office is not its any more",
        reason=Reason.FENCED,
        metadata={"token": str(token)},
    )
