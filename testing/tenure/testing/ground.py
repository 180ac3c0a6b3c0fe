"""What the stores of simulated masters stand on: a simulated etcd, or a simulated disk.

Masters open the shipped store on it; here is what differs from one kind to the other.
"""

import json
from pathlib import Path
from random import Random
from typing import Final, Protocol

from tenure.etcdapi import etcd_pb2 as pb
from tenure.master.backend.etcd import operation as op
from tenure.master.backend.etcd.keyspace import ClusterKeys
from tenure.master.election.port import Candidate
from tenure.master.etcd_store import open_etcd_store
from tenure.master.sqlite_store import SqliteStore
from tenure.master.store import Store
from tenure.testing import host
from tenure.testing.disk import SimDisk
from tenure.testing.process import Process
from tenure.testing.simetcd.channel import Dialer
from tenure.testing.simetcd.cluster import SimEtcd

_PATH: Final = Path("/data/store.db")


class Ground(Protocol):
    """One for all masters of a cluster."""

    async def open(
        self, me: Candidate, process: Process, *, partitions: int, wall_ms: int, rng: Random
    ) -> Store:
        """A process of a master opens the store."""

    def crash(self, address: str) -> None:
        """The process of the master at an address is killed: it reaches the store no more."""

    def holder(self, partition: int) -> str | None:
        """The name of the master that holds an office, by the store's account."""

    def journal(self, partition: int) -> list[bytes]:
        """All batches of a partition that are stored, in order."""

    def heal(self) -> None:
        """Ends every fault that can end."""

    def sleep(self, seconds: float) -> None:
        """Its machines have been suspended for so long, and wake up."""

    def close(self) -> None:
        """Ends what runs in it."""


class EtcdGround:
    """The members of etcd are nodes of the network.

    Args:
        etcd: The members.
        addresses: Of the masters: each one tries another member first.
    """

    def __init__(self, etcd: SimEtcd, addresses: list[str]) -> None:
        self.etcd = etcd
        self._addresses = addresses
        self._keys = ClusterKeys()
        self._dialers: dict[str, Dialer] = {}

    async def open(
        self, me: Candidate, process: Process, *, partitions: int, wall_ms: int, rng: Random
    ) -> Store:
        dialer = self._dialers[me.address] = self.etcd.dialer(me.address)
        return await open_etcd_store(
            self._url(me.address), me, partitions=partitions, wall_ms=wall_ms, dial=dialer, rng=rng
        )

    def crash(self, address: str) -> None:
        dialer = self._dialers.pop(address, None)
        if dialer is not None:
            dialer.crash()

    def holder(self, partition: int) -> str | None:
        office = self.etcd.get(self._keys.partition(partition).office)
        return None if office is None else str(json.loads(office.value)["name"])

    def journal(self, partition: int) -> list[bytes]:
        prefix = self._keys.partition(partition).batches
        request = pb.RangeRequest(key=prefix, range_end=op.prefix_end(prefix))
        state = self.etcd.state
        return [kv.value for kv in state.range(request, state.revision).kvs]

    def heal(self) -> None:
        self.etcd.heal()

    def sleep(self, seconds: float) -> None:
        self.etcd.sleep(seconds)

    def close(self) -> None:
        self.etcd.close()

    def _url(self, address: str) -> str:
        hosts = [member.host for member in self.etcd.members.values()]
        first = self._addresses.index(address) % len(hosts)
        return f"etcd://{','.join(hosts[first:] + hosts[:first])}"


class DiskGround:
    """The disk is that of the only master's machine.

    Args:
        disk: It outlives the master's processes.
    """

    def __init__(self, disk: SimDisk) -> None:
        self.disk = disk
        self._opened_by: str | None = None

    async def open(
        self, me: Candidate, process: Process, *, partitions: int, wall_ms: int, rng: Random
    ) -> Store:
        machine = host.SimHost(self.disk, process.spawn)
        store = await SqliteStore.open(
            _PATH, candidate=me, wall_ms=wall_ms, partitions=partitions, host=machine
        )
        self._opened_by = me.name
        return store

    def crash(self, address: str) -> None:
        self.disk.crash()

    def holder(self, partition: int) -> str | None:
        return self._opened_by

    def journal(self, partition: int) -> list[bytes]:
        return self._stored("batch", "number", partition)

    def slices(self, partition: int) -> list[bytes]:
        """All slices of a partition's snapshot that are stored, in order."""
        return self._stored("slice", "position", partition)

    def root_page(self, table: str) -> int:
        """Where a table begins; 0 if there is none."""
        query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        return sum(page for (page,) in host.ask(self.disk, _PATH, query, table))

    def _stored(self, table: str, order: str, partition: int) -> list[bytes]:
        if not self.root_page(table):
            return []
        query = f"SELECT data FROM {table} WHERE partition = ? ORDER BY {order}"
        return [data for (data,) in host.ask(self.disk, _PATH, query, partition)]

    def heal(self) -> None:
        self.disk.heal()

    def sleep(self, seconds: float) -> None:
        """A disk has no clock."""

    def close(self) -> None:
        """Nothing runs in a disk."""
