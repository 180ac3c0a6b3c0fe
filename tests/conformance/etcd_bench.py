"""The benches of the store in etcd, and the clusters that it is held to the suite on."""

from tenure.master.backend.etcd import operation as op
from tenure.master.backend.etcd.client import EtcdClient
from tenure.master.backend.etcd.keyspace import ClusterKeys
from tenure.master.etcd_store import EtcdStore, EtcdUrl, open_etcd_store
from tenure.master.store import Store, open_store
from tests.conformance.bench import WALL_MS, Bench, FillableBench, Main, Takeover, candidate
from tests.conformance.etcd_site import SimulatedEtcd, Site

#: The fixture of the cluster, by the name that the bench has in test ids.
ETCD_CLUSTERS = {
    "etcd": "cluster",
    "etcd-tls": "tls_cluster",
    "etcd-killed": "cluster_with_a_dead_member",
    "etcd-frozen": "cluster_with_a_frozen_member",
}


class EtcdBench(Bench):
    """A prefix of its own on a cluster.

    Args:
        site: Where.
    """

    shared = True

    def __init__(self, site: Site) -> None:
        self._site = site
        self._parsed = EtcdUrl.parse(site.url)
        self._keys = ClusterKeys(self._parsed.prefix)

    def run(self, main: Main) -> None:
        self._site.run(main)

    async def open(self, name: str = "alice", partitions: int | None = None) -> EtcdStore:
        store = await open_store(
            self._site.url, candidate=candidate(name), wall_ms=WALL_MS, partitions=partitions
        )
        assert isinstance(store, EtcdStore)
        return store

    async def takeover(self, store: Store, partition: int = 0) -> Takeover:
        async with self._client() as client:
            held = await client.range(self._keys.partition(partition).office)
            for kv in held.kvs:
                # What etcd itself does when the lease runs out.
                await client.lease_revoke(kv.lease)
        successor = await self.open("bob")
        office = await successor.election(partition).campaign()
        assert office is not None
        return Takeover(zombie=store.journal(partition), store=successor, office=office)

    async def damage(self, store: Store, number: int, data: bytes | None) -> None:
        key = self._keys.partition(0).batch(number)
        change = op.delete(key) if data is None else op.put(key, data)
        async with self._client() as client:
            await client.txn(success=[change])

    def _client(self) -> EtcdClient:
        # The last endpoint is always a healthy one.
        return EtcdClient(
            self._parsed.endpoints[-1:], tls=self._parsed.trust(), dial=self._site.dial
        )


class SimEtcdBench(EtcdBench, FillableBench):
    """The same on simulated members.

    Args:
        etcd: They.
        prefix: What the keys begin with.
    """

    def __init__(self, etcd: SimulatedEtcd, prefix: str) -> None:
        super().__init__(etcd.site(prefix))
        self._etcd = etcd.etcd

    async def open(self, name: str = "alice", partitions: int | None = None) -> EtcdStore:
        return await open_etcd_store(
            self._site.url,
            candidate(name),
            partitions=partitions,
            wall_ms=WALL_MS,
            dial=self._site.dial,
        )

    async def fill(self, store: Store) -> None:
        self._etcd.fill()

    async def free(self, store: Store) -> None:
        self._etcd.free()
