"""The simulated etcd: its members' agreement, modelled rather than spoken.

There is one ordered log, one state that its entries make, and a leader among the members. An entry
commits when a majority can have it: after a round trip to the nearest follower, and an fsync. Each
follower applies it after its link's delay::

    member ──(to the leader)── accepted ──(nearest follower and back, fsync)── committed
                                   │                                              │
                                   │ the leader dies, freezes or is cut off       ├─► answer
                                   ▼                                              └─► watches
                      lost, or committed by the next leader: the rng decides, of what reached it

A leader that has no majority for an election timeout is one no more; some time later, one of those
members leads that have all that was committed and reach a majority.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Final

from tenure.etcdapi import etcd_pb2 as pb
from tenure.testing.network import SimNetwork
from tenure.testing.simetcd.channel import Call, Dialer
from tenure.testing.simetcd.member import SimEtcdMember
from tenure.testing.simetcd.mesh import Mesh
from tenure.testing.simetcd.mvcc import Change, Mvcc
from tenure.testing.simetcd.refusal import Refusal, no_leader, no_space
from tenure.testing.simetcd.watcher import Watcher

#: Etcd's own default.
QUOTA_BYTES: Final = 2 * 1024**3

_LONG_AGO_S: Final = float("-inf")
_HEARTBEAT_S: Final = 0.1
_ELECTION_S: Final = (1.0, 1.5)
#: How long a member without a leader keeps its streams.
_PATIENCE_S: Final = 4.0
#: How long a member takes at least and at most to fetch what it missed while it did not run.
_CATCH_UP_S: Final = (0.1, 0.6)
#: How often connections are looked at, and watches told of progress: in heartbeats.
_SWEEP_BEATS: Final = 5
_PROGRESS_BEATS: Final = 6_000

Apply = Callable[[], Any]


@dataclass(slots=True, eq=False)
class _Entry:
    """An entry of the leader's log that is not committed yet.

    Attributes:
        due_s: When a majority has it, if nothing goes wrong; None: no majority can be reached.
        reached: The members that have it or may have it: the leader, and whom it was sent to.
    """

    origin: SimEtcdMember
    call: Call | None
    apply: Apply
    due_s: float | None = None
    reached: Sequence[SimEtcdMember] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A backup of the whole cluster."""

    state: Mvcc
    alarms: dict[int, None]


class SimEtcd:
    """A cluster of etcd on a simulated network.

    Args:
        network: Between the members, and between them and their clients.
        rng: Election times, fsync times, ids, and what survives.
        size: How many members.
        prefix: What their names begin with.

    Attributes:
        members: By name: ``e1``, ``e2``, …
        state: What the members have agreed on.
        cluster_id: Changes with a restore.
        quota_bytes: Of each member's database.
        fsync_ms: Least and greatest time of one.
        alarms: The ids of the members that have raised NOSPACE.
        watchers: The watches of all members.
        elections: How often a leader was found.
        committed_ms: By revision: when it was committed, by the loop's time.
    """

    def __init__(
        self, network: SimNetwork, rng: Random, *, size: int = 3, prefix: str = "e"
    ) -> None:
        self.network = network
        self.rng = rng
        self.state = Mvcc()
        self.cluster_id = self.new_id()
        self.quota_bytes = QUOTA_BYTES
        self.fsync_ms: tuple[float, float] = (0.2, 1.0)
        self.term = 1
        self.elections = 0
        self.committed_s: dict[int, float] = {}
        self.committed_ms: dict[int, float] = {}
        self.alarms: dict[int, None] = {}
        self.watchers: list[Watcher] = []
        self.members = {
            name: SimEtcdMember(self, name) for name in (f"{prefix}{n}" for n in range(1, size + 1))
        }
        self._all = list(self.members.values())
        self._mesh = Mesh(network, self._all)
        self._majority = self._mesh.majority
        self._dialers: list[Dialer] = []
        self._leader: SimEtcdMember | None = None
        #: When the leader last reached a majority, and when a new one is looked for otherwise.
        self._contact_s = self.now_s()
        self._election_s = self.now_s()
        self._committed = 0
        self._pending: deque[_Entry] = deque()
        self._beats = 0
        self._beat()

    # For tests.

    @property
    def url(self) -> str:
        """The store's URL."""
        return f"etcd://{','.join(member.host for member in self._all)}"

    def leader(self) -> SimEtcdMember | None:
        """The member that leads, if it can."""
        leader = self._leader
        return leader if leader is not None and leader.works else None

    @property
    def alarmed(self) -> bool:
        """Whether NOSPACE is raised."""
        return bool(self.alarms)

    def dialer(self, client: str) -> Dialer:
        """What makes the channels of a client on this node."""
        dialer = Dialer(self.network, client, self._all, self.rng)
        self._dialers.append(dialer)
        return dialer

    def compact(self) -> None:
        """Forgets all superseded revisions, as an operator's loop does."""
        with suppress(Refusal):
            self.state.compact(self.state.revision)

    def fill(self) -> None:
        """The quota is reached: nothing that needs space is taken from now on."""
        self.quota_bytes = 1
        self.alarms.update(dict.fromkeys(member.id for member in self._all))

    def free(self) -> None:
        """The operator's runbook: compact, defragment each member, disarm; and a larger quota."""
        self.compact()
        self.quota_bytes = QUOTA_BYTES
        for member in self._all:
            member.file_bytes = self.state.in_use_bytes
        self.alarms.clear()

    def expire(self, key: bytes) -> None:
        """Ends the lease of a key before its time, as if its keepalives had failed."""
        kv = self.get(key)
        if kv is not None and kv.lease:
            first = len(self.state.history)
            self.state.revoke(kv.lease)
            self._spread(first)

    def remove(self, key: bytes) -> None:
        """Deletes a key, as an operator may: the lease that it lives by goes on."""
        first = len(self.state.history)
        deletion = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
        self.state.txn(pb.TxnRequest(success=[deletion]), self.state.revision)
        self._spread(first)

    def get(self, key: bytes) -> pb.KeyValue | None:
        """A key, as committed."""
        return self.state.get(key, self.state.revision)

    def changes(self, prefix: bytes = b"") -> list[Change]:
        """Every change of the keys that start with ``prefix`` since revision 1, in order."""
        return [change for change in self.state.history if change.key.startswith(prefix)]

    def snapshot(self) -> Snapshot:
        """A backup, as ``etcdctl snapshot save`` makes."""
        return Snapshot(self.state.copy(), dict(self.alarms))

    def restore(self, snapshot: Snapshot, *, cluster_id: int | None = None) -> None:
        """The whole cluster goes back to a backup; all members run again.

        Args:
            snapshot: The backup.
            cluster_id: None: it is another cluster now, as after ``etcdutl snapshot restore``.
        """
        for member in self._all:
            member.kill()
        self.state = snapshot.state.copy()
        kept = self.state.revision
        self.committed_ms = {at: ms for at, ms in self.committed_ms.items() if at <= kept}
        self.alarms = dict(snapshot.alarms)
        self.cluster_id = cluster_id or self.new_id()
        self._pending.clear()
        self._committed = 0
        self.term = 1
        for member in self._all:
            member.id = self.new_id()
            member.applied_revision, member.matched = self.state.revision, 0
            member.file_bytes = self.state.in_use_bytes
            member.start()

    def heal(self) -> None:
        """Every member runs, and none stands still."""
        for member in self._all:
            member.thaw()
            member.start()

    def sleep(self, seconds: float) -> None:
        """The machines of all members were suspended for so long: their clocks have stood still."""
        self._contact_s += seconds
        self._election_s += seconds
        for member in self._all:
            member.heard_s += seconds
        for lease in self.state.leases.values():
            lease.expires_s += seconds

    def close(self) -> None:
        """Ends the heartbeats. Idempotent."""
        self._timer.cancel()

    # For members.

    def now_s(self) -> float:
        """The loop's time."""
        return self.network.now_s()

    def call_at(self, when_s: float, callback: Callable[[], None]) -> None:
        """A timer."""
        self.network.call_at(when_s, callback)

    def new_id(self) -> int:
        """An id as etcd makes them."""
        return self.rng.getrandbits(63) + 1

    def knows_leader(self, member: SimEtcdMember) -> bool:
        """Whether a member believes that there is a leader; it may be wrong for a while."""
        return self.now_s() - member.heard_s < _ELECTION_S[0]

    def part(self, member: SimEtcdMember) -> None:
        """A member's process has died."""
        self.watchers = [w for w in self.watchers if w.member is not member]
        for dialer in self._dialers:
            for channel in dialer.channels:
                if channel.server is member:
                    channel.crash_server(self.rng)
        if self._leader is member:
            self._depose()

    def join(self, member: SimEtcdMember) -> None:
        """A member's process has started."""
        member.heard_s = float("-inf")
        member.caught_up_s = self.now_s() + self.rng.uniform(*_CATCH_UP_S)

    def confirm(self, member: SimEtcdMember, read: Callable[[], None]) -> None:
        """Lets a member read once its leader has made sure that it still is one.

        Raises:
            Refusal: The member knows no leader.
        """
        leader = self._reach_leader(member)
        if leader is None or not leader.works:
            return
        peers = self._mesh.peers(leader)
        if len(peers) + 1 >= self._majority:
            round_s = self._mesh.both_ways_s(member, leader) + self._mesh.round_trip_s(
                leader, peers
            )
            sent = (member, leader, self.term, self.state.revision, read)
            self.network.call_at(self.now_s() + round_s, self._confirmed, *sent)

    def _confirmed(
        self,
        member: SimEtcdMember,
        leader: SimEtcdMember,
        term: int,
        revision: int,
        read: Callable[[], None],
    ) -> None:
        known = term == self.term and leader is self._leader
        if known and leader.works and self._mesh.connected(member, leader):
            member.applied_revision = max(member.applied_revision, revision)
            member.when_awake(read)

    def ask_leader(self, member: SimEtcdMember, answer: Callable[[], None]) -> None:
        """Has the leader answer what it alone knows, which it does without asking a majority.

        Raises:
            Refusal: The member knows no leader.
        """
        leader = self._reach_leader(member)
        if leader is not None:
            due_s = self.now_s() + self._mesh.both_ways_s(member, leader)
            self.network.call_at(due_s, self._confirmed, member, leader, self.term, 0, answer)

    def propose(self, member: SimEtcdMember, call: Call | None, apply: Apply) -> None:
        """Puts an entry into the leader's log.

        Raises:
            Refusal: The member knows no leader.
        """
        leader = self._reach_leader(member)
        if leader is None:
            return
        entry = _Entry(member, call, apply)
        self._pending.append(entry)
        there_s = 0.0 if member is leader else self._mesh.delay_s(member, leader)
        self._send(entry, leader, self.now_s() + there_s)

    # What entries do.

    def apply_txn(self, request: pb.TxnRequest, cost: int, *, crossing: bool) -> Any:
        """A transaction that may write; ``crossing``: the one that is too much, and first so."""
        if cost and self.alarms and not crossing:
            raise no_space()
        response = self.state.txn(request, self.state.revision)
        if crossing:
            raise no_space()
        return response

    def apply_compaction(self, revision: int) -> Any:
        """A compaction."""
        self.state.compact(revision)
        return pb.CompactionResponse()

    def apply_grant(self, lease_id: int, ttl_s: int, *, crossing: bool) -> Any:
        """A new lease."""
        if self.alarms and not crossing:
            raise no_space()
        self.state.grant(lease_id, ttl_s, self.now_s())
        if crossing:
            raise no_space()
        return pb.LeaseGrantResponse(id=lease_id, ttl=ttl_s)

    def apply_revoke(self, lease_id: int) -> Any:
        """The end of a lease and its keys."""
        self.state.revoke(lease_id)
        return pb.LeaseRevokeResponse()

    def apply_alarm(self, member: SimEtcdMember, cost: int) -> None:
        """NOSPACE, unless space has been made meanwhile."""
        if member.file_bytes + cost > self.quota_bytes:
            self.alarms[member.id] = None

    def apply_disarm(self, member_id: int | None) -> Any:
        """The end of one alarm, or of none; tells those that are left."""
        if member_id is not None:
            self.alarms.pop(member_id, None)
        left = [pb.AlarmMember(member_id=id, alarm=pb.NOSPACE) for id in self.alarms]
        return pb.AlarmResponse(alarms=left)

    def renew(self, lease_id: int) -> int:
        """A keepalive's answer: the seconds that are left; 0: the lease has ended."""
        lease = self.state.leases.get(lease_id)
        now_s = self.now_s()
        if lease is None or lease.expires_s <= now_s:
            return 0
        lease.expires_s = now_s + lease.ttl_s
        return lease.ttl_s

    # The log.

    def _send(self, entry: _Entry, leader: SimEtcdMember, now_s: float) -> None:
        """The leader takes an entry at a time, and sends it to its followers; if it can."""
        if not leader.works:
            return
        peers = self._mesh.peers(leader)
        entry.reached = (leader, *peers)
        if len(entry.reached) >= self._majority:
            round_s = max(self._mesh.round_trip_s(leader, peers), self._fsync_s())
            entry.due_s = now_s + round_s
            self.network.call_at(entry.due_s, self._commit)

    def _commit(self) -> None:
        """Commits what a majority has by now, in order."""
        leader = self._leader
        now_s = self.now_s() + 1e-6
        while self._pending and leader is not None and leader.works:
            entry = self._pending[0]
            if entry.due_s is None or entry.due_s > now_s:
                return
            peers = self._mesh.peers(leader)
            if len(peers) + 1 < self._majority:
                entry.due_s = None
                return
            self._pending.popleft()
            self._apply(entry, leader, peers)

    def _apply(self, entry: _Entry, leader: SimEtcdMember, peers: Sequence[SimEtcdMember]) -> None:
        self._committed += 1
        leader.matched = self._committed
        for peer in peers:
            if peer.caught_up_s <= self.now_s():
                peer.matched = self._committed
        state = self.state
        first = len(state.history)
        try:
            result = entry.apply()
        except Refusal as refusal:
            result = refusal
        leader.applied_revision = state.revision
        if len(state.history) > first:
            self.committed_s[state.revision] = self.now_s()
            in_use_bytes = state.in_use_bytes
            for member in self._all:
                member.file_bytes = max(member.file_bytes, in_use_bytes)
            self._spread(first)
        if entry.call is not None and not entry.call.over:
            self._report(entry, leader, result)

    def _report(self, entry: _Entry, leader: SimEtcdMember, result: Any) -> None:
        """The member that proposed an entry applies it as well, and answers."""
        origin, call, revision = entry.origin, entry.call, self.state.revision
        if call is None:
            return
        if not isinstance(result, Refusal):
            result = origin.head(result, revision)
        if origin is leader:
            origin.answer(call, result)
        elif self._mesh.reaches(leader, origin):
            due_s = self.now_s() + self._mesh.delay_s(leader, origin)
            self.network.call_at(due_s, self._reported, origin, call, revision, result)

    def _reported(self, origin: SimEtcdMember, call: Call, revision: int, result: Any) -> None:
        if origin.running:
            origin.applied_revision = max(origin.applied_revision, revision)
            origin.when_awake(partial(origin.answer, call, result))

    def _spread(self, first: int) -> None:
        """Notes the newest changes; watches tell of them when their members have applied them."""
        self.committed_ms[self.state.revision] = self.now_s() * 1000
        if not self.watchers:
            return
        leader = self._leader
        keys = [change.key for change in self.state.history[first:]]
        for watcher in self.watchers:
            if not any(watcher.concerns(key) for key in keys):
                continue
            member = watcher.member
            if member is leader:
                self._pump(watcher, self.state.revision)
            elif leader is not None and self._mesh.connected(member, leader):
                due_s = self.now_s() + self._mesh.delay_s(leader, member)
                self.network.call_at(due_s, self._pump, watcher, self.state.revision)

    def _pump(self, watcher: Watcher, revision: int) -> None:
        member = watcher.member
        if member.works:
            member.applied_revision = max(member.applied_revision, revision)
            watcher.pump(self.state)

    # Who leads.

    def _beat(self) -> None:
        """A heartbeat of the leader's, if there is one."""
        now_s = self.now_s()
        self._beats += 1
        leader = self._leader
        if leader is not None:
            self._keep_contact(leader, now_s)
        if self._leader is None and now_s >= self._election_s:
            self._elect(now_s)
        if self._beats % _SWEEP_BEATS == 0:
            self._sweep(now_s)
        self._timer = self.network.call_at(now_s + _HEARTBEAT_S, self._beat)

    def _keep_contact(self, leader: SimEtcdMember, now_s: float) -> None:
        peers = self._mesh.peers(leader) if leader.works else []
        if leader.works and len(peers) + 1 >= self._majority:
            self._contact_s = now_s
            leader.heard_s = now_s
            for peer in peers:
                self._follow(peer, now_s)
            for entry in self._pending:
                if entry.due_s is None:
                    self._send(entry, leader, now_s)
            for watcher in self.watchers:
                if watcher.member.heard_s == now_s:
                    watcher.pump(self.state)
            self._expire_leases(leader, now_s)
        elif now_s - self._contact_s >= _ELECTION_S[0]:
            self._depose()

    def _follow(self, peer: SimEtcdMember, now_s: float) -> None:
        """A follower hears from its leader, and has all that it missed."""
        if peer.caught_up_s > now_s:
            return
        peer.heard_s = now_s
        peer.matched = self._committed
        if peer.applied_revision < self.state.revision:
            peer.applied_revision = self.state.revision
            peer.file_bytes = max(peer.file_bytes, self.state.in_use_bytes)

    def _expire_leases(self, leader: SimEtcdMember, now_s: float) -> None:
        for lease in self.state.leases.values():
            if _LONG_AGO_S < lease.expires_s <= now_s:
                # Once is enough, unless the entry is lost: then a new leader begins anew.
                lease.expires_s = _LONG_AGO_S
                entry = _Entry(leader, None, partial(self._apply_expiry, lease.id))
                self._pending.append(entry)
                self._send(entry, leader, now_s)

    def _apply_expiry(self, lease_id: int) -> None:
        if lease_id in self.state.leases:
            self.state.revoke(lease_id)

    def _depose(self) -> None:
        """The leader is one no more; entries that it had accepted wait for their fate."""
        self._leader = None
        self._contact_s = min(self._contact_s, self.now_s())
        self._election_s = max(self.now_s(), self._contact_s + self.rng.uniform(*_ELECTION_S))

    def _elect(self, now_s: float) -> None:
        able = [
            member
            for member in self._all
            if member.works
            and member.matched >= self._committed
            and len(self._mesh.peers(member)) + 1 >= self._majority
        ]
        if not able:
            self._election_s = now_s + self.rng.uniform(0.2, 0.5)
            return
        leader = self._leader = self.rng.choice(able)
        self.term += 1
        self.elections += 1
        self._contact_s = now_s
        self._inherit(leader)
        for lease in self.state.leases.values():
            # The new leader knows of no keepalive that the former one has answered.
            lease.expires_s = now_s + _ELECTION_S[0] + lease.ttl_s
        self._keep_contact(leader, now_s)

    def _inherit(self, leader: SimEtcdMember) -> None:
        """Some first part of what the former leader had accepted is in the new one's log."""
        found: list[_Entry] = []
        for entry in self._pending:
            if leader not in entry.reached:
                break
            found.append(entry)
        del found[self.rng.randint(0, len(found)) :]
        for entry in found:
            entry.due_s = None
        self._pending = deque(found)

    def _sweep(self, now_s: float) -> None:
        self.watchers = [watcher for watcher in self.watchers if not watcher.call.over]
        for watcher in self.watchers:
            member = watcher.member
            if member.works and now_s - member.heard_s > _PATIENCE_S:
                member.hang_up(watcher.call)
            elif self._beats % _PROGRESS_BEATS == 0 and member.works:
                watcher.progress(self.state)
        for dialer in self._dialers:
            for channel in dialer.channels:
                channel.sweep(now_s)

    # Who reaches whom.

    def _reach_leader(self, member: SimEtcdMember) -> SimEtcdMember | None:
        """The leader, for what a member wants of it; None: that never arrives there.

        Raises:
            Refusal: The member knows no leader.
        """
        if not self.knows_leader(member):
            raise no_leader()
        leader = self._leader
        if leader is None or not leader.running or not self._mesh.connected(member, leader):
            return None
        return leader

    def _fsync_s(self) -> float:
        return self.rng.uniform(*self.fsync_ms) / 1000
