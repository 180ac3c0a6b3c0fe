"""Building blocks of etcd transactions: compares, and the operations of their two branches."""

from __future__ import annotations

from tenure.etcdapi import etcd_pb2 as pb


def created_at(key: bytes, revision: int) -> pb.Compare:
    """True when ``key`` was created at ``revision``; revision 0: when it does not exist."""
    return pb.Compare(
        result=pb.Compare.EQUAL,
        target=pb.Compare.CREATE,
        key=key,
        create_revision=revision,
    )


def exists(key: bytes) -> pb.Compare:
    """True when ``key`` exists."""
    return pb.Compare(
        result=pb.Compare.GREATER, target=pb.Compare.CREATE, key=key, create_revision=0
    )


def absent(key: bytes) -> pb.Compare:
    """True when ``key`` does not exist."""
    return created_at(key, 0)


def modified_at(key: bytes, revision: int) -> pb.Compare:
    """True when the last put of ``key`` was at ``revision``; revision 0: when it does not exist."""
    return pb.Compare(
        result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=key, mod_revision=revision
    )


def value_is(key: bytes, value: bytes) -> pb.Compare:
    """True when ``key`` exists and holds exactly ``value``."""
    return pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.VALUE, key=key, value=value)


def get(key: bytes, *, keys_only: bool = False) -> pb.RequestOp:
    """Read one key inside a transaction."""
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, keys_only=keys_only))


def put(key: bytes, value: bytes, *, lease: int = 0) -> pb.RequestOp:
    """Write one key; with a lease it disappears when the lease ends."""
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, lease=lease))


def delete(key: bytes, range_end: bytes = b"") -> pb.RequestOp:
    """Delete one key, or all of ``[key, range_end)``."""
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, range_end=range_end))


def prefix_end(prefix: bytes) -> bytes:
    """The ``range_end`` that makes ``[prefix, range_end)`` the keys that start with ``prefix``."""
    stem = prefix.rstrip(b"\xff")
    if not stem:
        # Etcd's own spelling of "to the end of the key space".
        return b"\x00"
    return stem[:-1] + bytes([stem[-1] + 1])
