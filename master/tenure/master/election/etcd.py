"""The election in etcd: one leased key holds the office, its create revision is the token.

A campaign ends in one of four ways::

    settle what an earlier campaign or office of ours has left ─ a late win ► Office
          ▼
    grant a lease under an id of our own
          ▼
    txn(office absent, epoch the same → put) ── put ────────────► Office
          │            │ somebody was quicker: revoke the lease ► None
          ▼ no answer
    read the office until answered: our ballot in it ───────────► Office

The ballot is new with every campaign. Telling an own key by the process alone would hand a second
term the token of the first: writes that the first still has under way would pass as the second's.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, suppress
from dataclasses import dataclass
from random import Random, SystemRandom

from tenure.etcdapi import etcd_pb2 as pb
from tenure.master.backend.errors import OfficeLost, StoreMismatch
from tenure.master.backend.etcd import operation as op
from tenure.master.backend.etcd.client import EtcdClient
from tenure.master.backend.etcd.errors import (
    Compacted,
    EtcdError,
    LeaseExists,
    LeaseNotFound,
    NoSpace,
    Unavailable,
)
from tenure.master.backend.etcd.keyspace import PartitionKeys
from tenure.master.backend.etcd.resolution import failed, resolve, unavailable
from tenure.master.election.port import Candidate, Leader
from tenure.protocol.fence import Token
from tenure.protocol.refusal import Reason

#: Time to live of an office without a keepalive.
OFFICE_TTL_S = 6

# How long `vacancy` waits before it looks again when etcd does not answer.
_VACANCY_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class _Ballot:
    """One campaign: what to look for in the office to know that it was won."""

    name: str
    lease_id: int


class EtcdOffice:
    """An office that was won; see ``election.port``."""

    def __init__(
        self, client: EtcdClient, keys: PartitionKeys, token: Token, lease_id: int, ttl_s: int
    ) -> None:
        self.token = token
        self.ttl_ms: int | None = ttl_s * 1_000
        #: Given up or found lost: the key, if it is still there, is nobody's any more.
        self.abandoned = False
        #: The lease has ended, and took the key with it.
        self.ended = False
        self._client = client
        self._keys = keys
        self._lease_id = lease_id

    async def renew(self) -> None:
        action = f"renew the office of partition {self._keys.partition}"
        if self.abandoned:
            raise self._lost(action, "it was given up")
        try:
            # One try: the caller counts from when it called, so a second would count too long.
            await self._client.lease_keepalive(self._lease_id)
        except LeaseNotFound as error:
            self.ended = True
            raise self._lost(action, "its lease has ended") from error
        except EtcdError as error:
            raise failed(action, error) from error

    async def verify(self) -> None:
        action = f"verify the office of partition {self._keys.partition}"
        # It is the read that makes etcd ask for a majority.
        guard, look = self._keys.guard(self.token), [op.get(self._keys.office)]
        if self.abandoned:
            raise self._lost(action, "it was given up")
        try:
            answer = await resolve(lambda: self._client.txn(guard, failure=look), action)
        except EtcdError as error:
            raise failed(action, error) from error
        if not answer.succeeded:
            raise self._lost(action, "another holds it, or nobody does")

    async def resign(self) -> None:
        self.abandoned = True
        action = f"resign from partition {self._keys.partition}"
        try:
            # The lease is this office's alone, so no guard is needed: it can take no other key.
            with suppress(LeaseNotFound):
                await resolve(lambda: self._client.lease_revoke(self._lease_id), action)
        except EtcdError as error:
            raise failed(action, error) from error
        self.ended = True

    def _lost(self, action: str, why: str) -> OfficeLost:
        self.abandoned = True
        return OfficeLost(
            f"expected to {action} under token {self.token}, but {why}",
            reason=Reason.FENCED,
            metadata={"token": str(self.token)},
        )


class EtcdElection:
    """The election of one partition; see ``election.port``.

    An office lives for at least its TTL from the call of ``campaign`` that returned it.

    Args:
        client: shared with the other partitions of this master.
        keys: the partition's.
        candidate: who stands.
        epoch: the cluster's, as read when the store was opened.
        ttl_s: the office's time to live without a keepalive, in seconds; etcd takes no less
            than 1.5 election timeouts of its own (2 s by default).
        rng: makes ids that nobody else has.
    """

    def __init__(
        self,
        client: EtcdClient,
        keys: PartitionKeys,
        candidate: Candidate,
        epoch: int,
        *,
        ttl_s: int = OFFICE_TTL_S,
        rng: Random | None = None,
    ) -> None:
        self._rng = rng or SystemRandom()
        self._client = client
        self._keys = keys
        self._candidate = candidate
        self._epoch = epoch
        self._ttl_s = ttl_s
        self._office: EtcdOffice | None = None
        #: A campaign whose outcome is not known yet.
        self._pending: _Ballot | None = None

    async def campaign(self) -> EtcdOffice | None:
        action = f"campaign for partition {self._keys.partition}"
        try:
            return await self._campaign(action)
        except NoSpace as error:
            # Etcd grants no lease now; nobody can lead until an operator has made space.
            raise unavailable(action, error) from error
        except EtcdError as error:
            raise failed(action, error) from error

    async def leader(self) -> Leader | None:
        action = f"read who leads partition {self._keys.partition}"
        try:
            held = await self._read(action)
        except EtcdError as error:
            raise failed(action, error) from error
        if held is None:
            return None
        fields = json.loads(held.value)
        candidate = Candidate(
            incarnation=fields["incarnation"], name=fields["name"], address=fields["address"]
        )
        return Leader(candidate=candidate, token=Token(fields["epoch"], held.create_revision))

    async def vacancy(self, timeout_ms: int) -> bool:
        try:
            async with asyncio.timeout(timeout_ms / 1_000):
                while True:
                    if await self._watch_until_free():
                        return True
                    await asyncio.sleep(_VACANCY_PAUSE_S)
        except TimeoutError:
            return False

    async def _campaign(self, action: str) -> EtcdOffice | None:
        if self._pending is not None:
            # An earlier try of ours got no answer: has it been applied meanwhile?
            won = self._won(self._pending, await self._read(action))
            if won is not None:
                # Its lease is older than this call, and the caller counts from this call.
                return await self._renewed(won)
            # It may still arrive late, and must then fail: without its lease it does.
            await self._revoke(self._pending.lease_id, action)
            self._pending = None
        former = self._office
        if former is not None and former.abandoned and not former.ended:
            await former.resign()
        ballot = _Ballot(f"{self._rng.getrandbits(64):016x}", self._rng.getrandbits(62) + 1)
        self._pending = ballot
        await self._grant(ballot, action)
        won = await self._vote(ballot, action)
        self._pending = None
        if won is None:
            # Tidiness only: the lease holds nothing and ends by itself.
            with suppress(EtcdError):
                await self._client.lease_revoke(ballot.lease_id)
        return won

    async def _renewed(self, office: EtcdOffice) -> EtcdOffice | None:
        try:
            await office.renew()
        except OfficeLost:
            return None
        return office

    async def _vote(self, ballot: _Ballot, action: str) -> EtcdOffice | None:
        """The transaction that wins the office, sent until its outcome is known."""
        keys = self._keys
        value = {
            "ballot": ballot.name,
            "incarnation": self._candidate.incarnation,
            "name": self._candidate.name,
            "address": self._candidate.address,
            "epoch": self._epoch,
        }
        success = [op.put(keys.office, json.dumps(value).encode(), lease=ballot.lease_id)]
        failure = [op.get(keys.office), op.get(keys.epoch)]
        compare = [op.absent(keys.office), keys.epoch_is(self._epoch)]
        try:
            answer = await resolve(lambda: self._client.txn(compare, success, failure), action)
        except LeaseNotFound:
            # It took so long that the lease ran out: nothing of this campaign is left.
            return None
        if answer.succeeded:
            return self._take(ballot, answer.header.revision)
        office, epoch = (response.response_range.kvs for response in answer.responses)
        if not epoch or epoch[0].value != b"%d" % self._epoch:
            raise StoreMismatch(
                f"expected to {action} in epoch {self._epoch}, but the cluster was restored"
                " meanwhile; restart this master",
                reason=Reason.STORE_MISMATCH,
            )
        return self._won(ballot, office[0] if office else None)

    def _won(self, ballot: _Ballot, held: pb.KeyValue | None) -> EtcdOffice | None:
        if held is None or json.loads(held.value)["ballot"] != ballot.name:
            return None
        self._pending = None
        return self._take(ballot, held.create_revision)

    def _take(self, ballot: _Ballot, revision: int) -> EtcdOffice:
        token = Token(self._epoch, revision)
        self._office = EtcdOffice(self._client, self._keys, token, ballot.lease_id, self._ttl_s)
        return self._office

    async def _grant(self, ballot: _Ballot, action: str) -> None:
        try:
            await resolve(lambda: self._client.lease_grant(self._ttl_s, ballot.lease_id), action)
        except LeaseExists:
            # The id is random and our own: an earlier try of this very grant made it.
            return

    async def _revoke(self, lease_id: int, action: str) -> None:
        try:
            await resolve(lambda: self._client.lease_revoke(lease_id), action)
        except LeaseNotFound:
            return

    async def _read(self, action: str) -> pb.KeyValue | None:
        found = await resolve(lambda: self._client.range(self._keys.office), action)
        return found.kvs[0] if found.kvs else None

    async def _watch_until_free(self) -> bool:
        """False: etcd did not answer, or the watch broke; look again."""
        try:
            found = await self._client.range(self._keys.office)
            if not found.kvs:
                return True
            start_revision = found.header.revision + 1
            watch = self._client.watch(self._keys.office, start_revision=start_revision)
            async with aclosing(watch) as batches:
                async for batch in batches:
                    if any(event.type == pb.Event.DELETE for event in batch.events):
                        return True
        except (Compacted, Unavailable):
            return False
        except EtcdError as error:
            raise failed("watch the office", error) from error
        return False
