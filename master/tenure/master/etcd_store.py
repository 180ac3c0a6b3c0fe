"""The store in etcd: bootstrap, the member keys, and a journal and an election per partition."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from contextlib import suppress
from dataclasses import dataclass
from random import Random, SystemRandom
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from tenure.etcdapi import etcd_pb2 as pb
from tenure.master.backend.errors import FormatTooNew, StoreMismatch, StoreUnavailable
from tenure.master.backend.etcd import operation as op
from tenure.master.backend.etcd.client import Dial, EtcdClient, dial
from tenure.master.backend.etcd.errors import (
    Compacted,
    EtcdError,
    LeaseExists,
    LeaseNotFound,
    NoSpace,
)
from tenure.master.backend.etcd.keyspace import DEFAULT_PREFIX, ClusterKeys
from tenure.master.backend.etcd.resolution import failed, resolve, unavailable
from tenure.master.backend.space import Space
from tenure.master.election.etcd import OFFICE_TTL_S, EtcdElection
from tenure.master.election.port import Candidate, Member, Nomination
from tenure.master.journal.etcd import EtcdJournal
from tenure.master.journal.frame import genesis
from tenure.protocol.errors import Rejected, TenureError
from tenure.protocol.fence import Token
from tenure.protocol.handshake import ETCD, diagnose, may_be_tls
from tenure.protocol.refusal import Reason
from tenure.protocol.security import Watched, read_trust
from tenure.protocol.tls import Pem, Tls

_log = logging.getLogger(__name__)

#: The layout of the key space; a store with another one is not opened.
FORMAT: Final = 1
#: Renew a member key at about a third of this.
MEMBER_TTL_S: Final = 10
#: What etcd takes when it is started without --quota-backend-bytes. Only 3.6 tells its quota.
QUOTA_BYTES_DEFAULT: Final = 2 * 1024**3

#: In a bootstrap record: a restore has not ended, so half of the store may be missing.
RESTORING: Final = "restoring"

_FIRST_EPOCH: Final = 1
_DEFAULT_PORT: Final = 2379
_TLS_FILES: Final = ("ca", "cert", "key")


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdUrl:
    """``etcd://host:port,host:port[/prefix][?ca=FILE&cert=FILE&key=FILE]``, taken apart.

    Attributes:
        endpoints: ``host:port`` each; the port defaults to 2379.
        prefix: What all keys start with.
        tls: The files; set when ``ca`` is given.
    """

    endpoints: tuple[str, ...]
    prefix: str = DEFAULT_PREFIX
    tls: Tls | None = None

    @classmethod
    def parse(cls, url: str) -> EtcdUrl:
        """Read a store URL.

        Raises:
            Rejected: it is not one.
        """
        parts = urlsplit(url)
        hosts = [host for host in parts.netloc.split(",") if host]
        files = dict(parse_qsl(parts.query, keep_blank_values=True))
        if parts.scheme != "etcd" or not hosts:
            raise _bad_url(url, "etcd://HOST:PORT,HOST:PORT[/prefix]")
        if unknown := sorted(set(files) - set(_TLS_FILES)):
            raise _bad_url(url, f"no parameters but ca, cert and key (got {', '.join(unknown)})")
        if files and ("ca" not in files or ("cert" in files) != ("key" in files)):
            raise _bad_url(url, "ca, and cert and key together")
        return cls(
            endpoints=tuple(host if ":" in host else f"{host}:{_DEFAULT_PORT}" for host in hosts),
            prefix=parts.path.rstrip("/") or DEFAULT_PREFIX,
            tls=Tls(**files) if files else None,
        )

    def trust(self) -> Watched[Pem] | None:
        """What the files hold; None: clear text.

        Raises:
            Rejected: CREDENTIALS_UNUSABLE.
        """
        return read_trust(self.tls) if self.tls is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """The bootstrap record, with the epoch that is kept beside it."""

    cluster_id: str
    format: int
    partitions: int
    etcd_cluster_id: str
    epoch: int


class EtcdStore:
    """What a master opens at start; see ``store.Store``. Made by ``open_etcd_store``."""

    def __init__(
        self,
        client: EtcdClient,
        keys: ClusterKeys,
        record: _Record,
        candidate: Candidate,
        office_ttl_s: int,
        quota_bytes: int | None,
        rng: Random,
    ) -> None:
        self.cluster_id = record.cluster_id
        self.partitions = record.partitions
        self.epoch = record.epoch
        self._quota_bytes = quota_bytes
        self._rng = rng
        self._client = client
        self._keys = keys
        self._epoch = record.epoch
        # One of each a partition: they remember what is under way.
        branches = [keys.partition(partition) for partition in range(record.partitions)]
        self._elections = [
            EtcdElection(client, branch, candidate, record.epoch, ttl_s=office_ttl_s, rng=rng)
            for branch in branches
        ]
        self._journals = [EtcdJournal(client, branch) for branch in branches]
        #: 0: no member key was written yet, or its lease has ended.
        self._member_lease = 0

    def election(self, partition: int) -> EtcdElection:
        return self._elections[partition]

    def journal(self, partition: int) -> EtcdJournal:
        return self._journals[partition]

    def reader(self, partition: int) -> EtcdJournal:
        return EtcdJournal(self._client, self._keys.partition(partition))

    async def space(self) -> Space:
        told: list[pb.StatusResponse] = []
        trouble: list[EtcdError] = []

        async def ask(address: str) -> None:
            try:
                told.append(await self._client.status(address))
            except EtcdError as error:
                trouble.append(error)

        # Together: a master's start waits for this, and members may be dead.
        async with asyncio.TaskGroup() as asked:
            for address in self._client.endpoints:
                asked.create_task(ask(address))
        if not told:
            raise unavailable("ask etcd how full it is", trouble[-1])
        quotas = [status.db_size_quota for status in told if status.db_size_quota > 0]
        return Space(
            used_bytes=max(status.db_size_in_use for status in told),
            file_bytes=max(status.db_size for status in told),
            # Over the smallest quota the whole cluster takes nothing.
            quota_bytes=min(quotas, default=self._quota_bytes or QUOTA_BYTES_DEFAULT),
        )

    async def tidy(self) -> None:
        """Compacts: member keys that were written again and again pile up without a truncation."""
        try:
            now = await self._client.range(self._keys.epoch)
            await self._client.compact(now.header.revision)
        except Compacted:
            return
        except EtcdError as error:
            _log.warning("etcd was not compacted: %s", error, extra={"action": "compact"})

    async def register(self, member: Member) -> None:
        candidate = member.candidate
        action = f"write the member key of {candidate.name}"
        value = json.dumps(
            {
                "incarnation": candidate.incarnation,
                "name": candidate.name,
                "address": candidate.address,
                "version": member.version,
                "wall_ms": member.wall_ms,
                "workers": member.workers,
                # JSON's keys are texts.
                "nominations": {str(p): wish for p, wish in member.nominations.items()},
                "boot_ms": member.boot_ms,
                "heard_ms": dict(member.heard_ms),
                "following": {str(p): deaths for p, deaths in member.following.items()},
                "caught_up": list(member.caught_up),
                "ending": member.ending,
            }
        )
        try:
            if self._member_lease:
                try:
                    await resolve(lambda: self._client.lease_keepalive(self._member_lease), action)
                except LeaseNotFound:
                    self._member_lease = 0
            if not self._member_lease:
                self._member_lease = await self._grant_member_lease(action)
            key = self._keys.member(candidate.incarnation)
            put = op.put(key, value.encode(), lease=self._member_lease)
            # Putting the same value twice is harmless.
            guard = self._keys.epoch_is(self._epoch)
            answer = await resolve(lambda: self._client.txn([guard], [put]), action)
        except NoSpace as error:
            # A key that is there already lives on: its lease has been renewed.
            raise unavailable(action, error) from error
        except EtcdError as error:
            raise failed(action, error) from error
        if not answer.succeeded:
            raise StoreMismatch(
                f"expected to {action} in epoch {self._epoch}, but the cluster was restored"
                " meanwhile; restart this master",
                reason=Reason.STORE_MISMATCH,
            )

    async def members(self) -> list[Member]:
        action = "list the masters"
        prefix = self._keys.members
        try:
            found = await resolve(lambda: self._client.range(prefix, op.prefix_end(prefix)), action)
        except EtcdError as error:
            raise failed(action, error) from error
        return [_member(kv) for kv in found.kvs]

    async def close(self) -> None:
        lease, self._member_lease = self._member_lease, 0
        if lease:
            # A courtesy to the others; without it the key goes when its lease ends.
            with suppress(EtcdError):
                await self._client.lease_revoke(lease)
        await self._client.close()

    async def _grant_member_lease(self, action: str) -> int:
        lease_id = self._rng.getrandbits(62) + 1
        with suppress(LeaseExists):
            await resolve(lambda: self._client.lease_grant(MEMBER_TTL_S, lease_id), action)
        return lease_id


async def open_etcd_store(
    url: str,
    candidate: Candidate,
    *,
    partitions: int | None,
    wall_ms: int,
    office_ttl_s: int = OFFICE_TTL_S,
    quota_bytes: int | None = None,
    dial: Dial = dial,
    rng: Random | None = None,
) -> EtcdStore:
    """Open the store, and bootstrap it if nobody has yet.

    Args:
        url: See ``EtcdUrl``.
        candidate: Who will stand for its offices.
        partitions: How many it has, or shall have; None takes what there is, or 1.
        wall_ms: UTC since the Unix epoch, for batch 0.
        office_ttl_s: An office's time to live without a keepalive.
        quota_bytes: The quota of its members, for an etcd that does not tell.
        dial: Makes the channels to etcd's members.
        rng: Makes ids that nobody else has.

    Raises:
        Rejected: The URL is wrong, a file that it names cannot be used, or etcd and this master do
            not trust each other.
        StoreMismatch: The store was made otherwise, or etcd was restored from a backup.
        FormatTooNew: A newer release made it.
        StoreUnavailable: Etcd does not answer; try again.
    """
    parsed = EtcdUrl.parse(url)
    keys = ClusterKeys(parsed.prefix)
    rng = rng or SystemRandom()
    client = EtcdClient(parsed.endpoints, tls=parsed.trust(), dial=dial)
    try:
        record = await _read_record(client, keys)
        if record is None:
            record = await _bootstrap(client, keys, partitions or 1, wall_ms, rng)
        _check(record, client, partitions)
        await client.check_versions()
    except (EtcdError, StoreUnavailable) as error:
        await client.close()
        if cause := await _tls_trouble(parsed, error):
            raise cause from error
        if isinstance(error, EtcdError):
            raise failed("open the store", error) from error
        raise
    except BaseException:
        await client.close()
        raise
    return EtcdStore(client, keys, record, candidate, office_ttl_s, quota_bytes, rng)


async def _tls_trouble(url: EtcdUrl, error: Exception) -> Rejected | None:
    """What is wrong with the certificates, if they are why no member answers."""
    if not may_be_tls(str(error)):
        return None
    for address in url.endpoints:
        if cause := await asyncio.to_thread(diagnose, address, url.tls, ETCD):
            return cause
    return None


async def _read_record(client: EtcdClient, keys: ClusterKeys) -> _Record | None:
    answer = await resolve(
        lambda: client.txn(success=[op.get(keys.record), op.get(keys.epoch)]), "open the store"
    )
    record, epoch = (response.response_range.kvs for response in answer.responses)
    if not record:
        return None
    fields = json.loads(record[0].value)
    if fields["format"] > FORMAT:
        raise FormatTooNew(
            f"expected to open the store, but a newer release made it (format {fields['format']};"
            f" this release reads up to {FORMAT}); upgrade this master",
            reason=Reason.FORMAT_TOO_NEW,
            metadata={"format": str(fields["format"])},
        )
    if fields.get(RESTORING):
        raise StoreMismatch(
            "expected a whole store, but a restore has not ended; wait for it, or run `tenure"
            " cluster restore` again, which begins anew",
            reason=Reason.STORE_MISMATCH,
        )
    return _Record(
        cluster_id=fields["cluster_id"],
        format=fields["format"],
        partitions=fields["partitions"],
        etcd_cluster_id=fields["etcd_cluster_id"],
        epoch=int(epoch[0].value) if epoch else 0,
    )


async def _bootstrap(
    client: EtcdClient, keys: ClusterKeys, partitions: int, wall_ms: int, rng: Random
) -> _Record:
    """Write batch 0 of each partition, then the record that makes them a cluster.

    Masters may do this at the same time, or die in the middle: everything is create-only, and once
    the record is there no batch 0 is written any more (it may have been truncated since).
    """
    action = "bootstrap the store"
    token = Token(_FIRST_EPOCH, 0)
    for partition in range(partitions):
        batch = genesis(partition, token, wall_ms)
        key = keys.partition(partition).batch(batch.number)
        await _create(client, [keys.record, key], [op.put(key, batch.data)], action)
    fields = {
        "cluster_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "format": FORMAT,
        "partitions": partitions,
        "etcd_cluster_id": f"{client.cluster_id:x}",
    }
    puts = [
        op.put(keys.record, json.dumps(fields).encode()),
        op.put(keys.epoch, b"%d" % _FIRST_EPOCH),
    ]
    await _create(client, [keys.record, keys.epoch], puts, action)
    # Whoever was first, what is stored now is the truth.
    record = await _read_record(client, keys)
    if record is None:
        raise StoreMismatch(
            "expected a new store, but it has an epoch and no bootstrap record; use another"
            " prefix, or delete what is left under this one",
            reason=Reason.STORE_MISMATCH,
        )
    return record


async def _create(
    client: EtcdClient, absent: list[bytes], puts: list[pb.RequestOp], action: str
) -> None:
    """Make the puts unless one of the keys is there already."""
    compare = [op.absent(key) for key in absent]
    await resolve(lambda: client.txn(compare, puts), action)


def _check(record: _Record, client: EtcdClient, partitions: int | None) -> None:
    if partitions is not None and partitions != record.partitions:
        raise StoreMismatch(
            f"expected a store with {partitions} partitions, but it has {record.partitions}; start"
            f" with --partitions {record.partitions}, or use another prefix",
            reason=Reason.STORE_MISMATCH,
            metadata={"partitions": str(record.partitions)},
        )
    found = f"{client.cluster_id:x}"
    if found != record.etcd_cluster_id:
        raise StoreMismatch(
            f"expected etcd cluster {record.etcd_cluster_id}, but this is {found}: etcd was"
            " restored from a snapshot of its own; stop all masters and workers of before, then run"
            " `tenure cluster raise-epoch --store URL` (docs/runbooks/restore-etcd.md)",
            reason=Reason.STORE_MISMATCH,
            metadata={"expected": record.etcd_cluster_id, "found": found},
        )


def _member(kv: pb.KeyValue) -> Member:
    fields = json.loads(kv.value)
    return Member(
        candidate=Candidate(
            incarnation=fields["incarnation"], name=fields["name"], address=fields["address"]
        ),
        version=fields["version"],
        wall_ms=fields["wall_ms"],
        # 0.1.0 does not write them.
        workers=fields.get("workers", 0),
        nominations={int(p): Nomination(*w) for p, w in fields.get("nominations", {}).items()},
        boot_ms=fields.get("boot_ms"),
        heard_ms=fields.get("heard_ms", {}),
        following={int(p): deaths for p, deaths in fields.get("following", {}).items()},
        caught_up=tuple(fields.get("caught_up", ())),
        ending=fields.get("ending", False),
    )


def _bad_url(url: str, expected: str) -> TenureError:
    return Rejected(
        f"expected the store URL to have {expected}, but got {url!r}",
        reason=Reason.INVALID_ARGUMENT,
        field="store",
    )
