"""One watch at one member."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenure.etcdapi import etcd_pb2 as pb
from tenure.testing.simetcd.channel import Call
from tenure.testing.simetcd.mvcc import Mvcc, covers

if TYPE_CHECKING:
    from tenure.testing.simetcd.member import SimEtcdMember


class Watcher:
    """Tells a client of the changes of some keys, as its member applies them.

    Args:
        member: Where it is.
        call: The client's stream.
        key: The first key.
        range_end: Their end; empty: the one key.
    """

    def __init__(self, member: SimEtcdMember, call: Call, key: bytes, range_end: bytes) -> None:
        self.member = member
        self.call = call
        self._key = key
        self._range_end = range_end
        self._next_revision = 0
        #: When its client last heard of it.
        self._told_s = 0.0

    def begin(self, state: Mvcc, start_revision: int) -> None:
        """Says that the watch is in place, and what has happened since its start."""
        member = self.member
        created = pb.WatchResponse(created=True)
        member.answer(self.call, member.head(created, member.applied_revision))
        if start_revision and start_revision < state.compacted:
            gone = pb.WatchResponse(canceled=True, compact_revision=state.compacted)
            member.answer(self.call, member.head(gone, member.applied_revision))
            self._next_revision = state.revision
            return
        self._next_revision = start_revision or member.applied_revision + 1
        self.pump(state)

    def concerns(self, key: bytes) -> bool:
        """Whether a key is one of those that it watches."""
        return covers(self._key, self._range_end, key)

    def pump(self, state: Mvcc) -> None:
        """Tells what its member has applied and it has not told yet."""
        member = self.member
        last = member.applied_revision
        if last < self._next_revision:
            return
        found = state.changes(self._key, self._range_end, self._next_revision, last)
        self._next_revision = last + 1
        if found:
            response = pb.WatchResponse(events=map(state.event, found))
            member.answer(self.call, member.head(response, last))

    def progress(self, state: Mvcc) -> None:
        """Tells up to where there was nothing new."""
        self.pump(state)
        member = self.member
        member.answer(self.call, member.head(pb.WatchResponse(), member.applied_revision))
