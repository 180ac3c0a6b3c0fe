"""The key space with its history: what every member of the simulated etcd agrees on.

There is one for all members. A member that lags reads it as of an older revision, for which all
history is kept: compaction only moves the revision below which etcd would refuse.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, Self

from tenure.etcdapi import etcd_pb2 as pb
from tenure.testing.simetcd.refusal import (
    compacted,
    duplicate_key,
    future_revision,
    lease_exists,
    lease_not_found,
)

#: What a stored revision takes besides its key and value.
_OVERHEAD_BYTES: Final = 64
#: What the quota reckons for a put besides its key and value.
_PUT_COST_BYTES: Final = 256
#: To etcd a range end of one zero byte is the end of the key space.
_ALL_KEYS: Final = b"\0"

_COMPARE: Final[dict[int, Callable[[Any, Any], bool]]] = {
    pb.Compare.EQUAL: lambda found, expected: bool(found == expected),
    pb.Compare.GREATER: lambda found, expected: bool(found > expected),
    pb.Compare.LESS: lambda found, expected: bool(found < expected),
    pb.Compare.NOT_EQUAL: lambda found, expected: bool(found != expected),
}


class Change(NamedTuple):
    """One key put or deleted.

    Attributes:
        revision: The transaction's; changes of one transaction share it.
        put: Whether it was put; else it was deleted.
        key: Which.
        value: What was put; empty for a delete.
        create_revision: Of the key that was put or deleted.
    """

    revision: int
    put: bool
    key: bytes
    value: bytes
    create_revision: int


class Lease:
    """A lease, and the keys that go with it.

    Attributes:
        expires_s: When, by the loop's time, unless it is renewed; kept by etcd's leader.
            Long ago: it has expired, and its end is on the way through the log.
    """

    __slots__ = ("expires_s", "id", "keys", "ttl_s")

    def __init__(self, id: int, ttl_s: int, expires_s: float) -> None:
        self.id = id
        self.ttl_s = ttl_s
        self.expires_s = expires_s
        self.keys: dict[bytes, None] = {}


class Mvcc:
    """Keys, leases, revisions.

    Attributes:
        revision: The newest; that of an empty store is 1.
        compacted: Revisions before it are gone.
        in_use_bytes: What is stored, superseded revisions included until they are compacted.
        history: All changes since revision 1, in order.
        leases: By id.
    """

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        self.in_use_bytes = 0
        self.history: list[Change] = []
        self.leases: dict[int, Lease] = {}
        self._live: dict[bytes, pb.KeyValue] = {}
        self._live_keys: list[bytes] = []
        #: Every key that ever was, and every put and delete (None) of it, by revision.
        self._known_keys: list[bytes] = []
        self._versions: dict[bytes, list[tuple[int, pb.KeyValue | None]]] = {}
        #: What a compaction at a revision or later frees.
        self._superseded: deque[tuple[int, int]] = deque()

    def copy(self) -> Self:
        """An independent one; what never changes is shared."""
        other = self.__class__()
        other.revision, other.compacted = self.revision, self.compacted
        other.in_use_bytes = self.in_use_bytes
        other.history = list(self.history)
        for lease in self.leases.values():
            twin = other.leases[lease.id] = Lease(lease.id, lease.ttl_s, lease.expires_s)
            twin.keys = dict(lease.keys)
        other._live, other._live_keys = dict(self._live), list(self._live_keys)
        other._known_keys = list(self._known_keys)
        other._versions = {key: list(found) for key, found in self._versions.items()}
        other._superseded = deque(self._superseded)
        return other

    # Reading.

    def get(self, key: bytes, revision: int) -> pb.KeyValue | None:
        """A key as of a revision."""
        if revision >= self.revision:
            return self._live.get(key)
        versions = self._versions.get(key)
        if versions is None:
            return None
        place = bisect_right(versions, revision, key=_revision_of)
        return versions[place - 1][1] if place else None

    def range(self, request: pb.RangeRequest, revision: int) -> pb.RangeResponse:
        """Reads as a member does that has applied everything up to ``revision``.

        Raises:
            Refusal: The revision that the request names is gone, or yet to come.
        """
        if request.revision:
            if request.revision > revision:
                raise future_revision()
            if request.revision < self.compacted:
                raise compacted()
            revision = request.revision
        response = pb.RangeResponse()
        if not request.range_end:
            found = self.get(request.key, revision)
            if found is not None:
                self._fill(response, request, [found])
            return response
        if revision >= self.revision:
            live = self._live
            kvs = [live[key] for key in _within(self._live_keys, request.key, request.range_end)]
        else:
            keys = _within(self._known_keys, request.key, request.range_end)
            past = (self.get(key, revision) for key in keys)
            kvs = [kv for kv in past if kv is not None]
        self._fill(response, request, kvs)
        return response

    def _fill(
        self, response: pb.RangeResponse, request: pb.RangeRequest, kvs: Sequence[pb.KeyValue]
    ) -> None:
        response.count = len(kvs)
        if request.count_only:
            return
        if request.sort_order == pb.RangeRequest.DESCEND:
            kvs = kvs[::-1]
        if request.limit and len(kvs) > request.limit:
            kvs = kvs[: request.limit]
            response.more = True
        response.kvs.extend(kvs)
        if request.keys_only:
            for kv in response.kvs:
                kv.ClearField("value")

    def changes(self, key: bytes, range_end: bytes, first: int, last: int) -> list[Change]:
        """Changes of ``key`` or ``[key, range_end)`` in revisions ``first`` to ``last``."""
        if first > last:
            return []
        start = bisect_left(self.history, first, key=_revision_of)
        return [
            change
            for change in self.history[start:]
            if change.revision <= last and covers(key, range_end, change.key)
        ]

    def event(self, change: Change) -> pb.Event:
        """A change as a watch tells it."""
        if not change.put:
            kv = pb.KeyValue(key=change.key, mod_revision=change.revision)
            return pb.Event(type=pb.Event.DELETE, kv=kv)
        return pb.Event(type=pb.Event.PUT, kv=self.get(change.key, change.revision))

    # Transactions.

    def txn(self, request: pb.TxnRequest, revision: int) -> pb.TxnResponse:
        """Runs a transaction, at the newest revision, or one that only reads at an older one.

        Raises:
            Refusal: Nothing of it was done.
        """
        succeeded = all(self._holds(compare, revision) for compare in request.compare)
        branch = request.success if succeeded else request.failure
        self._check(branch)
        response = pb.TxnResponse(succeeded=succeeded)
        at = self.revision + 1
        for op in branch:
            kind = op.WhichOneof("request")
            answer = response.responses.add()
            if kind == "request_range":
                # Etcd shows a transaction its own writes.
                seen = self.revision if revision >= at - 1 else revision
                answer.response_range.CopyFrom(self.range(op.request_range, seen))
            elif kind == "request_put":
                self._put(op.request_put, at)
                answer.response_put.SetInParent()
            elif kind == "request_delete_range":
                delete = op.request_delete_range
                keys = _within(self._live_keys, delete.key, delete.range_end)
                answer.response_delete_range.deleted = len(keys)
                for key in keys:
                    self._delete(key, at)
        return response

    def _holds(self, compare: pb.Compare, revision: int) -> bool:
        kv = self.get(compare.key, revision)
        judge = _COMPARE[compare.result]
        match compare.target:
            case pb.Compare.CREATE:
                return judge(0 if kv is None else kv.create_revision, compare.create_revision)
            case pb.Compare.MOD:
                return judge(0 if kv is None else kv.mod_revision, compare.mod_revision)
            case pb.Compare.VERSION:
                return judge(0 if kv is None else kv.version, compare.version)
            case pb.Compare.LEASE:
                return judge(0 if kv is None else kv.lease, compare.lease)
            case pb.Compare.VALUE:
                # The value of a key that is not there compares as nothing does.
                return kv is not None and judge(kv.value, compare.value)
            case other:
                raise ValueError(f"expected a target of a compare, but got {other}")

    def _check(self, branch: Iterable[pb.RequestOp]) -> None:
        """Refuses what etcd refuses before it applies anything."""
        puts: dict[bytes, None] = {}
        for op in branch:
            if op.WhichOneof("request") != "request_put":
                continue
            put = op.request_put
            if put.key in puts:
                raise duplicate_key()
            puts[put.key] = None
            if put.lease and put.lease not in self.leases:
                raise lease_not_found()
        if puts:
            for op in branch:
                if op.WhichOneof("request") == "request_delete_range":
                    delete = op.request_delete_range
                    if any(covers(delete.key, delete.range_end, key) for key in puts):
                        raise duplicate_key()

    def _put(self, put: pb.PutRequest, revision: int) -> None:
        key = put.key
        former = self._live.get(key)
        kv = pb.KeyValue(
            key=key,
            value=put.value,
            create_revision=revision if former is None else former.create_revision,
            mod_revision=revision,
            version=1 if former is None else former.version + 1,
            lease=put.lease,
        )
        if former is None:
            insort(self._live_keys, key)
            if key not in self._versions:
                insort(self._known_keys, key)
                self._versions[key] = []
        else:
            self._supersede(former, revision)
        if put.lease:
            self.leases[put.lease].keys[key] = None
        self._live[key] = kv
        self._versions[key].append((revision, kv))
        self.in_use_bytes += _size(kv)
        self.history.append(Change(revision, True, key, put.value, kv.create_revision))
        self.revision = revision

    def _delete(self, key: bytes, revision: int) -> None:
        former = self._live.pop(key)
        del self._live_keys[bisect_left(self._live_keys, key)]
        self._supersede(former, revision)
        tombstone_bytes = len(key) + _OVERHEAD_BYTES
        self.in_use_bytes += tombstone_bytes
        self._superseded.append((revision, tombstone_bytes))
        self._versions[key].append((revision, None))
        self.history.append(Change(revision, False, key, b"", former.create_revision))
        self.revision = revision

    def _supersede(self, former: pb.KeyValue, revision: int) -> None:
        self._superseded.append((revision, _size(former)))
        if former.lease:
            lease = self.leases.get(former.lease)
            if lease is not None:
                lease.keys.pop(former.key, None)

    # Leases and compaction.

    def grant(self, id: int, ttl_s: int, now_s: float) -> Lease:
        """Makes a lease.

        Raises:
            Refusal: The id is taken.
        """
        if id in self.leases:
            raise lease_exists()
        lease = self.leases[id] = Lease(id, ttl_s, now_s + ttl_s)
        return lease

    def revoke(self, id: int) -> None:
        """Ends a lease and deletes its keys, in one revision.

        Raises:
            Refusal: There is none.
        """
        lease = self.leases.pop(id, None)
        if lease is None:
            raise lease_not_found()
        revision = self.revision + 1
        for key in list(lease.keys):
            self._delete(key, revision)

    def compact(self, revision: int) -> None:
        """Forgets superseded revisions up to ``revision``.

        Raises:
            Refusal: This or more was compacted already, or the revision is yet to come.
        """
        if revision <= self.compacted:
            raise compacted()
        if revision > self.revision:
            raise future_revision()
        self.compacted = revision
        while self._superseded and self._superseded[0][0] <= revision:
            self.in_use_bytes -= self._superseded.popleft()[1]


def cost_bytes(request: pb.TxnRequest) -> int:
    """What the quota reckons for a transaction, by its dearer branch; 0: it stores nothing."""
    return max(_branch_cost_bytes(request.success), _branch_cost_bytes(request.failure))


def covers(key: bytes, range_end: bytes, other: bytes) -> bool:
    """Whether a key is ``key``, or lies in ``[key, range_end)``."""
    if not range_end:
        return other == key
    return key <= other and (range_end == _ALL_KEYS or other < range_end)


def writes(request: pb.TxnRequest) -> bool:
    """Whether any branch of a transaction may change something."""
    return any(
        op.WhichOneof("request") != "request_range"
        for branch in (request.success, request.failure)
        for op in branch
    )


def _branch_cost_bytes(branch: Iterable[pb.RequestOp]) -> int:
    puts = (op.request_put for op in branch if op.WhichOneof("request") == "request_put")
    return sum(_PUT_COST_BYTES + len(put.key) + len(put.value) for put in puts)


def _within(keys: list[bytes], key: bytes, range_end: bytes) -> list[bytes]:
    """Those of the sorted keys that are ``key``, or lie in ``[key, range_end)``."""
    start = bisect_left(keys, key)
    if not range_end:
        return keys[start : start + 1] if keys[start : start + 1] == [key] else []
    return keys[start:] if range_end == _ALL_KEYS else keys[start : bisect_left(keys, range_end)]


def _revision_of(entry: Any) -> int:
    revision: int = entry[0]
    return revision


def _size(kv: pb.KeyValue) -> int:
    return len(kv.key) + len(kv.value) + _OVERHEAD_BYTES
