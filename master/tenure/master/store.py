"""A store: the elections and journals of a cluster's partitions behind one URL.

``sqlite:///path`` is one node's; ``etcd://host:port,host:port,host:port[/prefix]`` is a cluster's.
"""

from typing import Protocol

from tenure.master.backend.errors import StoreMismatch
from tenure.master.backend.space import Space
from tenure.master.election.port import Candidate, Election, Member
from tenure.master.journal.port import Journal
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason


class Store(Protocol):
    """What a master opens at start. Created by ``open_store(url, …)``; closed once at the end."""

    #: From the bootstrap record.
    cluster_id: str
    partitions: int
    #: The cluster's epoch when the store was opened; only a restore raises it.
    epoch: int

    def election(self, partition: int) -> Election:
        """The election of a partition, for the candidate the store was opened with."""

    def journal(self, partition: int) -> Journal:
        """The journal of a partition."""

    def reader(self, partition: int) -> Journal:
        """Another view of a partition's journal, to be read beside whoever leads it."""

    async def space(self) -> Space | None:
        """How full the store is; None: it has no quota.

        Raises:
            StoreUnavailable: It does not say now.
        """

    async def tidy(self) -> None:
        """Lets go of what nobody can ask for any more. A failure is logged: the next one helps."""

    async def register(self, member: Member) -> None:
        """Writes or renews this master's member key (call at about a third of its TTL)."""

    async def members(self) -> list[Member]:
        """All live masters, this one included."""

    async def close(self) -> None:
        """Gives up what is open; offices not resigned stay until their TTL. Idempotent."""


async def open_store(
    url: str,
    *,
    candidate: Candidate,
    wall_ms: int,
    partitions: int | None = None,
    cluster_id: str | None = None,
    quota_bytes: int | None = None,
) -> Store:
    """Opens a store, and bootstraps it if it is new.

    Args:
        url: Which (see the module's text).
        candidate: Who stands for the offices.
        wall_ms: The wall clock now; stamps batch 0 of a new store.
        partitions: How many partitions the cluster has; fixed by the first open. None: what the
            store says, and 1 for a new one.
        cluster_id: The cluster that the store must belong to; None: whichever it is.
        quota_bytes: How large the store may grow; None: what it says itself.

    Raises:
        Rejected: The URL is wrong, or its path cannot be used.
        StoreMismatch: The store is another cluster's, or has another number of partitions.
        StoreLocked: Another process has it open (SQLite).
        StoreUnavailable: It does not answer (etcd).
        FormatTooNew: A newer release made it.
    """
    store = await _open(url, candidate, wall_ms, partitions, quota_bytes)
    if cluster_id is not None and cluster_id != store.cluster_id:
        await store.close()
        raise StoreMismatch(
            f"expected the store {url} to be cluster {cluster_id}'s, but it is cluster"
            f" {store.cluster_id}'s; name that cluster, or another store",
            reason=Reason.STORE_MISMATCH,
            metadata={"url": url, "expected": cluster_id, "found": store.cluster_id},
        )
    return store


async def _open(
    url: str,
    candidate: Candidate,
    wall_ms: int,
    partitions: int | None,
    quota_bytes: int | None,
) -> Store:
    # Each backend is imported only when it is used: one node needs no etcd client.
    scheme, _, _ = url.partition("://")
    if scheme == "sqlite":
        from tenure.master import sqlite_store

        path = sqlite_store.parse_url(url)
        return await sqlite_store.SqliteStore.open(
            path,
            candidate=candidate,
            wall_ms=wall_ms,
            partitions=partitions,
            quota_bytes=quota_bytes,
        )
    if scheme == "etcd":
        from tenure.master import etcd_store

        return await etcd_store.open_etcd_store(
            url,
            candidate,
            partitions=partitions,
            wall_ms=wall_ms,
            quota_bytes=quota_bytes,
        )
    raise Rejected(
        f"expected the URL of a store, but got {url!r}; write sqlite:///path/to/store.db, or"
        " etcd://h1:2379,h2:2379,h3:2379 with an optional /prefix",
        reason=Reason.INVALID_ARGUMENT,
        metadata={"url": url},
        field="store",
    )
