"""The simulated etcd's key space: revisions, history, compaction, leases, sizes."""

from __future__ import annotations

import pytest

from tenure.etcdapi import etcd_pb2 as pb
from tenure.master.backend.etcd import operation as op
from tenure.testing.simetcd.mvcc import Mvcc
from tenure.testing.simetcd.refusal import Refusal


def txn(state: Mvcc, *ops: pb.RequestOp, compare: tuple[pb.Compare, ...] = ()) -> pb.TxnResponse:
    """A transaction at the newest revision."""
    return state.txn(pb.TxnRequest(compare=compare, success=ops), state.revision)


def keys(state: Mvcc, revision: int | None = None) -> list[bytes]:
    """All keys, now or as a member sees them that has applied less."""
    request = pb.RangeRequest(key=b"\0", range_end=b"\0")
    found = state.range(request, state.revision if revision is None else revision)
    return [kv.key for kv in found.kvs]


def test_a_transaction_is_one_revision() -> None:
    """All its changes share it; one that changes nothing takes none."""
    state = Mvcc()
    txn(state, op.put(b"a", b"1"), op.put(b"b", b"1"))
    assert state.revision == 2
    txn(state, op.delete(b"x"), op.get(b"a"))
    assert state.revision == 2
    txn(state, op.put(b"a", b"2"), op.delete(b"b"))
    kv = state.get(b"a", state.revision)
    assert kv is not None
    assert (kv.create_revision, kv.mod_revision, kv.version, kv.value) == (2, 3, 2, b"2")
    assert [(c.revision, c.put, c.key, c.create_revision) for c in state.history] == [
        (2, True, b"a", 2),
        (2, True, b"b", 2),
        (3, True, b"a", 2),
        (3, False, b"b", 2),
    ]


def test_a_refused_transaction_changes_nothing() -> None:
    """A lease that is not there, or a key written twice: not one of its changes is made."""
    state = Mvcc()
    for bad in (
        [op.put(b"a", b""), op.put(b"b", b"", lease=7)],
        [op.put(b"a", b""), op.put(b"a", b"")],
        [op.put(b"a", b""), op.delete(b"a", b"b")],
    ):
        with pytest.raises(Refusal):
            txn(state, *bad)
    assert (state.revision, state.history, state.in_use_bytes) == (1, [], 0)


def test_the_past_is_read_as_it_was() -> None:
    """A member that lags sees what was there, whatever has been compacted since."""
    state = Mvcc()
    txn(state, op.put(b"a", b"1"))
    txn(state, op.put(b"b", b"1"))
    txn(state, op.delete(b"a"), op.put(b"b", b"2"))
    assert keys(state) == [b"b"]
    assert keys(state, 3) == [b"a", b"b"]
    assert keys(state, 2) == [b"a"]
    state.compact(4)
    assert keys(state, 2) == [b"a"]
    old = state.get(b"b", 3)
    assert old is not None
    assert old.value == b"1"


def test_compaction_refuses_older_revisions_and_frees_what_was_superseded() -> None:
    """What is current stays, with its size."""
    state = Mvcc()
    txn(state, op.put(b"a", bytes(1_000)))
    small = state.in_use_bytes
    for _ in range(5):
        txn(state, op.put(b"a", bytes(1_000)))
    assert state.in_use_bytes == 6 * small
    state.compact(state.revision)
    assert state.in_use_bytes == small
    at = pb.RangeRequest(key=b"a", revision=state.revision)
    assert len(state.range(at, state.revision).kvs) == 1
    for request, text in ((state.revision - 1, "compacted"), (state.revision + 1, "future")):
        with pytest.raises(Refusal, match=text):
            state.range(pb.RangeRequest(key=b"a", revision=request), state.revision)
    for revision, text in ((state.revision, "compacted"), (state.revision + 1, "future")):
        with pytest.raises(Refusal, match=text):
            state.compact(revision)


def test_a_deleted_key_takes_no_space_after_a_compaction() -> None:
    """Not even its tombstone."""
    state = Mvcc()
    txn(state, op.put(b"a", bytes(1_000)))
    txn(state, op.delete(b"a"))
    assert state.in_use_bytes > 1_000
    state.compact(state.revision)
    assert state.in_use_bytes == 0


def test_a_lease_takes_along_what_it_holds_now() -> None:
    """Not the keys that were put again without it, or deleted and made anew."""
    state = Mvcc()
    state.grant(7, 5, 0.0)
    with pytest.raises(Refusal, match="exists"):
        state.grant(7, 5, 0.0)
    for key in (b"a", b"b", b"c"):
        txn(state, op.put(key, b"", lease=7))
    txn(state, op.put(b"b", b"mine"))
    txn(state, op.delete(b"c"))
    txn(state, op.put(b"c", b"anew"))
    before = state.revision
    state.revoke(7)
    assert keys(state) == [b"b", b"c"]
    assert state.revision == before + 1
    with pytest.raises(Refusal, match="not found"):
        state.revoke(7)


def test_a_copy_goes_its_own_way() -> None:
    """A backup knows nothing of what happens after it."""
    state = Mvcc()
    state.grant(7, 5, 0.0)
    txn(state, op.put(b"a", b"1", lease=7))
    copy = state.copy()
    txn(state, op.put(b"b", b"1"))
    state.revoke(7)
    assert keys(copy) == [b"a"]
    copy.revoke(7)
    assert keys(copy) == []
    assert (copy.revision, state.revision) == (3, 4)
