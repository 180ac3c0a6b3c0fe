"""One member: what it does with each call of etcd's v3 API."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tenure.etcdapi import etcd_pb2 as pb
from tenure.testing.simetcd.channel import Call, Payload
from tenure.testing.simetcd.mvcc import cost_bytes, writes
from tenure.testing.simetcd.refusal import (
    Refusal,
    message_too_large,
    no_leader,
    no_space,
    request_too_large,
)
from tenure.testing.simetcd.watcher import Watcher

if TYPE_CHECKING:
    from tenure.testing.simetcd.cluster import SimEtcd

#: Recent enough for the shipped client not to warn.
VERSION: Final = "3.6.14"

_PORT: Final = 2379
_REQUEST_BYTES_MAX: Final = 1_572_864
_MESSAGE_BYTES_MAX: Final = _REQUEST_BYTES_MAX + 512 * 1024
_GRANT_COST_BYTES: Final = 512
#: Etcd's least: one and a half election timeouts, rounded up.
_LEASE_TTL_MIN_S: Final = 2
#: How often the transaction that crosses the quota is applied all the same, and then told of it.
_CROSSING: Final = 0.25
#: How long a defragmentation stalls its member, at least and at most.
_DEFRAGMENT_S: Final = (0.02, 0.2)


class SimEtcdMember:
    """A member.

    Attributes:
        name: ``e1``, ``e2``, …
        host: Its node on the network.
        id: Its id in the cluster; a new one after its data was lost.
        running: Whether its process is there (a frozen one is).
        frozen_since_s: Since when it stands still; None: it does not.
        applied_revision: Up to where it knows what the cluster has agreed on.
        matched: Up to which entry of the log its disk has it.
        heard_s: When it was last in contact with a leader.
        caught_up_s: Until then it has to fetch what it missed.
        file_bytes: The size of its database file.
    """

    def __init__(self, etcd: SimEtcd, name: str) -> None:
        self.name = name
        self.host = f"{name}:{_PORT}"
        self.running = True
        self.frozen_since_s: float | None = None
        self.applied_revision = 1
        self.matched = 0
        self.heard_s = float("-inf")
        self.caught_up_s = 0.0
        self.file_bytes = 0
        self.id = etcd.new_id()
        self._etcd = etcd
        self._stalled_until_s = 0.0
        self._inbox: list[Callable[[], None]] = []

    # Faults.

    @property
    def frozen(self) -> bool:
        """Whether its process stands still."""
        return self.frozen_since_s is not None

    @property
    def works(self) -> bool:
        """Whether it takes part in anything."""
        return self.running and self.frozen_since_s is None

    def kill(self) -> None:
        """As ``kill -9`` does. Idempotent."""
        if self.running:
            self.running = False
            self.frozen_since_s = None
            self._inbox.clear()
            self._etcd.part(self)

    def start(self) -> None:
        """A new process on the data that is there. Idempotent."""
        if not self.running:
            self.running = True
            self._etcd.join(self)

    def freeze(self) -> None:
        """As SIGSTOP does: connections stay open, nothing is answered. Idempotent."""
        if self.works:
            self.frozen_since_s = self._etcd.now_s()

    def thaw(self) -> None:
        """As SIGCONT does: first it finds what has arrived meanwhile. Idempotent."""
        if self.frozen_since_s is not None:
            # Its own clock stood still as well: what it believed of a leader, it still believes.
            self.heard_s += self._etcd.now_s() - self.frozen_since_s
            self.frozen_since_s = None
            self._catch_up()

    def lose_data(self) -> None:
        """Its disk is lost: it was removed from the cluster and added again, empty.

        It runs afterwards if it did before.
        """
        running = self.running
        self.kill()
        self.id = self._etcd.new_id()
        self.applied_revision, self.matched, self.file_bytes = 1, 0, 0
        if running:
            self.start()

    def stall(self, until_s: float) -> None:
        """It answers nothing until then."""
        self._stalled_until_s = max(self._stalled_until_s, until_s)
        self._etcd.call_at(until_s, self._catch_up)

    def _catch_up(self) -> None:
        inbox, self._inbox = self._inbox, []
        for step in inbox:
            self.when_awake(step)

    def when_awake(self, step: Callable[[], None]) -> None:
        """Does something now, or when it does not stand still any more; never once it is dead."""
        if not self.running:
            return
        if self.frozen_since_s is None and self._stalled_until_s <= self._etcd.now_s():
            step()
        else:
            self._inbox.append(step)

    # Calls.

    def receive(self, call: Call, request: Payload) -> None:
        """A request has arrived."""
        if self.frozen_since_s is None and self._stalled_until_s <= self._etcd.now_s():
            self._serve(call, request)
        else:
            self._inbox.append(partial(self._serve, call, request))

    def _serve(self, call: Call, request: Payload) -> None:
        if call.over and self._etcd.rng.random() < 0.5:
            # The client has given it up; the news came in time.
            return
        try:
            _HANDLERS[type(request)](self, call, request)
        except Refusal as refusal:
            self.answer(call, refusal)

    def answer(self, call: Call, payload: Payload) -> None:
        """Sends an answer, if its client still waits for one."""
        if not call.over:
            call.channel.down.send(call, payload)

    def head(self, response: Any, revision: int) -> Any:
        """Fills an answer's header in."""
        header = response.header
        header.cluster_id = self._etcd.cluster_id
        header.member_id = self.id
        header.revision = revision
        header.raft_term = self._etcd.term
        return response

    # Keys.

    def _range(self, call: Call, request: pb.RangeRequest) -> None:
        read = partial(self._read, call, request)
        if request.serializable:
            read()
        else:
            self._etcd.confirm(self, read)

    def _read(self, call: Call, request: pb.RangeRequest) -> None:
        revision = self.applied_revision
        try:
            response = self._etcd.state.range(request, revision)
        except Refusal as refusal:
            self.answer(call, refusal)
        else:
            self.answer(call, self.head(response, revision))

    def _txn(self, call: Call, request: pb.TxnRequest) -> None:
        if not writes(request):
            look = partial(self._look, call, request)
            ops = (*request.success, *request.failure)
            if all(op.request_range.serializable for op in ops):
                look()
            else:
                self._etcd.confirm(self, look)
            return
        size = request.ByteSize()
        if size > _MESSAGE_BYTES_MAX:
            raise message_too_large(size, _MESSAGE_BYTES_MAX)
        if size > _REQUEST_BYTES_MAX:
            raise request_too_large()
        cost = cost_bytes(request)
        crossing = self._demand_space(cost)
        apply = partial(self._etcd.apply_txn, request, cost, crossing=crossing)
        self._etcd.propose(self, call, apply)

    def _look(self, call: Call, request: pb.TxnRequest) -> None:
        revision = self.applied_revision
        try:
            response = self._etcd.state.txn(request, revision)
        except Refusal as refusal:
            self.answer(call, refusal)
        else:
            self.answer(call, self.head(response, revision))

    def _demand_space(self, cost: int) -> bool:
        """Checks the quota; whether what is asked crosses it, and is done all the same.

        Raises:
            Refusal: There is no space.
        """
        etcd = self._etcd
        if not cost or self.file_bytes + cost <= etcd.quota_bytes:
            return False
        crossing = not etcd.alarms and etcd.rng.random() < _CROSSING
        etcd.propose(self, None, partial(etcd.apply_alarm, self, cost))
        if not crossing:
            raise no_space()
        return True

    def _compact(self, call: Call, request: pb.CompactionRequest) -> None:
        apply = partial(self._etcd.apply_compaction, request.revision)
        self._etcd.propose(self, call, apply)

    # Leases.

    def _grant(self, call: Call, request: pb.LeaseGrantRequest) -> None:
        crossing = self._demand_space(_GRANT_COST_BYTES)
        lease_id = request.id or self._etcd.rng.getrandbits(62) + 1
        ttl_s = max(request.ttl, _LEASE_TTL_MIN_S)
        apply = partial(self._etcd.apply_grant, lease_id, ttl_s, crossing=crossing)
        self._etcd.propose(self, call, apply)

    def _revoke(self, call: Call, request: pb.LeaseRevokeRequest) -> None:
        self._etcd.propose(self, call, partial(self._etcd.apply_revoke, request.id))

    def _keep_alive(self, call: Call, request: pb.LeaseKeepAliveRequest) -> None:
        self._etcd.ask_leader(self, partial(self._renew, call, request.id))

    def _renew(self, call: Call, lease_id: int) -> None:
        response = pb.LeaseKeepAliveResponse(id=lease_id, ttl=self._etcd.renew(lease_id))
        self.answer(call, self.head(response, self.applied_revision))

    def _time_to_live(self, call: Call, request: pb.LeaseTimeToLiveRequest) -> None:
        self._etcd.ask_leader(self, partial(self._tell_lease, call, request.id))

    def _tell_lease(self, call: Call, lease_id: int) -> None:
        response = pb.LeaseTimeToLiveResponse(id=lease_id, ttl=-1)
        lease = self._etcd.state.leases.get(lease_id)
        if lease is not None:
            response.ttl = max(0, int(lease.expires_s - self._etcd.now_s()))
            response.granted_ttl = lease.ttl_s
            response.keys.extend(lease.keys)
        self.answer(call, self.head(response, self.applied_revision))

    # Watches.

    def _watch(self, call: Call, request: pb.WatchRequest) -> None:
        create = request.create_request
        if not self._etcd.knows_leader(self):
            raise no_leader()
        watcher = Watcher(self, call, create.key, create.range_end)
        self._etcd.watchers.append(watcher)
        watcher.begin(self._etcd.state, create.start_revision)

    # Maintenance.

    def _alarm(self, call: Call, request: pb.AlarmRequest) -> None:
        # Reading them goes through the log as well.
        apply = partial(self._etcd.apply_disarm, None)
        if request.action == pb.AlarmRequest.DEACTIVATE:
            apply = partial(self._etcd.apply_disarm, request.member_id)
        self._etcd.propose(self, call, apply)

    def _status(self, call: Call, request: pb.StatusRequest) -> None:
        etcd = self._etcd
        leader = etcd.leader() if etcd.knows_leader(self) else None
        response = pb.StatusResponse(
            version=VERSION,
            db_size=self.file_bytes,
            db_size_in_use=etcd.state.in_use_bytes,
            db_size_quota=etcd.quota_bytes,
            leader=0 if leader is None else leader.id,
            raft_term=etcd.term,
        )
        self.answer(call, self.head(response, self.applied_revision))

    def _defragment(self, call: Call, request: pb.DefragmentRequest) -> None:
        etcd = self._etcd
        self.file_bytes = etcd.state.in_use_bytes
        self.stall(etcd.now_s() + etcd.rng.uniform(*_DEFRAGMENT_S))
        response = self.head(pb.DefragmentResponse(), self.applied_revision)
        self.when_awake(partial(self.answer, call, response))

    def hang_up(self, call: Call) -> None:
        """Ends a stream that has no leader to follow any more."""
        self.answer(call, no_leader())


_HANDLERS: Final[dict[type[Any], Callable[[SimEtcdMember, Call, Any], None]]] = {
    pb.RangeRequest: SimEtcdMember._range,
    pb.TxnRequest: SimEtcdMember._txn,
    pb.CompactionRequest: SimEtcdMember._compact,
    pb.LeaseGrantRequest: SimEtcdMember._grant,
    pb.LeaseRevokeRequest: SimEtcdMember._revoke,
    pb.LeaseKeepAliveRequest: SimEtcdMember._keep_alive,
    pb.LeaseTimeToLiveRequest: SimEtcdMember._time_to_live,
    pb.WatchRequest: SimEtcdMember._watch,
    pb.AlarmRequest: SimEtcdMember._alarm,
    pb.StatusRequest: SimEtcdMember._status,
    pb.DefragmentRequest: SimEtcdMember._defragment,
}
