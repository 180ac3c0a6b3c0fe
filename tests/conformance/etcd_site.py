"""Clusters of etcd under test, real and simulated ones alike, and a store's place on one."""

from __future__ import annotations

import asyncio
import shutil
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Final, Protocol

from tenure.master.backend.etcd.client import Channel, Dial, EtcdClient, dial
from tenure.master.backend.etcd.errors import OutcomeUnknown, Unavailable
from tenure.master.etcd_store import EtcdUrl
from tenure.protocol.security import read_trust
from tenure.protocol.tls import Pem, Tls
from tenure.testing.etcd import EtcdCluster, EtcdMember
from tenure.testing.loop import VirtualLoop
from tenure.testing.network import SimNetwork
from tenure.testing.simetcd.cluster import QUOTA_BYTES, SimEtcd, Snapshot
from tenure.testing.simetcd.member import SimEtcdMember
from tenure.testing.simetcd.mvcc import Mvcc

Main = Callable[[], Coroutine[Any, Any, None]]

#: The simulated members' client.
CLIENT: Final = "test"


class Member(ABC):
    """One member, to be struck."""

    address: str

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL."""

    @abstractmethod
    def start(self) -> None:
        """A new process on the same data."""

    @abstractmethod
    def pause(self) -> None:
        """SIGSTOP."""

    @abstractmethod
    def resume(self) -> None:
        """SIGCONT."""

    @abstractmethod
    def forget(self) -> None:
        """The only one: its data is lost, and it starts again as if nothing had been."""


class Etcd(ABC):
    """A cluster, and the loop that its clients run on.

    Attributes:
        members: In the order of ``endpoints``.
        dial: Makes the channels to them.
    """

    members: Sequence[Member]
    dial: Dial

    @property
    def endpoints(self) -> list[str]:
        """``host:port`` of every member."""
        return [member.address for member in self.members]

    def site(self, prefix: str = "", *, first: int = 0) -> Site:
        """A place for a store: under a prefix, with one member as the first endpoint."""
        endpoints = self.endpoints[first:] + self.endpoints[:first]
        return Site(self, f"etcd://{','.join(endpoints)}{prefix}")

    def client(self, endpoints: Sequence[str] = ()) -> EtcdClient:
        """A client of all members, or of some."""
        return EtcdClient(endpoints or self.endpoints, dial=self.dial)

    @abstractmethod
    def leader(self) -> Member:
        """The member that leads now."""

    def follower(self) -> Member:
        """A member that does not lead now."""
        leader = self.leader()
        return next(member for member in self.members if member is not leader)

    @abstractmethod
    def run(self, main: Main) -> None:
        """Runs a scenario, on the loop that the cluster needs."""

    @abstractmethod
    async def ready(self) -> None:
        """Waits until every running member answers (frozen ones do not)."""

    @abstractmethod
    def mend(self) -> None:
        """Every member runs, is awake and answers."""

    @abstractmethod
    def close(self) -> None:
        """Ends the cluster."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a store is, and how it is reached."""

    etcd: Etcd
    url: str

    @property
    def dial(self) -> Dial:
        """Makes the channels."""
        return self.etcd.dial

    @property
    def prefix(self) -> bytes:
        """What all its keys start with."""
        return EtcdUrl.parse(self.url).prefix.encode() + b"/"

    def run(self, main: Main) -> None:
        """Runs a scenario."""
        self.etcd.run(main)


class MakeEtcd(Protocol):
    """Makes a cluster of its own for a test."""

    def __call__(
        self, size: int, *, quota_bytes: int = QUOTA_BYTES, beside: Etcd | None = None
    ) -> Etcd:
        """A cluster; with ``beside``, one that the same client may be given."""


class _RealMember(Member):
    def __init__(self, inner: EtcdMember) -> None:
        self.inner = inner
        self.address = inner.address
        self._paused = False

    @property
    def well(self) -> bool:
        """Whether nothing has struck it, or all that has is over."""
        return self.inner.running and not self._paused

    def kill(self) -> None:
        self.inner.kill()

    def start(self) -> None:
        self.inner.start()

    def pause(self) -> None:
        self._paused = True
        self.inner.pause()

    def resume(self) -> None:
        if self._paused and self.inner.running:
            self.inner.resume()
        self._paused = False

    def forget(self) -> None:
        self.kill()
        shutil.rmtree(self.inner.directory / "data")
        self.start()


class RealEtcd(Etcd):
    """Real processes, on the real loop."""

    def __init__(self, cluster: EtcdCluster) -> None:
        self.cluster = cluster
        self._members = [_RealMember(member) for member in cluster.members]
        self.members = self._members
        self.dial = dial

    def site(self, prefix: str = "", *, first: int = 0) -> Site:
        site = super().site(prefix, first=first)
        _, _, files = self.cluster.url().partition("?")
        return Site(self, f"{site.url}?{files}") if files else site

    def client(self, endpoints: Sequence[str] = ()) -> EtcdClient:
        files = self.cluster.tls
        trust = read_trust(Tls(ca=files.ca, cert=files.cert, key=files.key)) if files else None
        return EtcdClient(endpoints or self.endpoints, tls=trust)

    def leader(self) -> Member:
        leader = self.cluster.leader()
        return next(member for member in self.members if member.address == leader.address)

    def run(self, main: Main) -> None:
        asyncio.run(main())

    async def ready(self) -> None:
        self.cluster.wait_ready()

    def mend(self) -> None:
        struck = [member for member in self._members if not member.well]
        for member in struck:
            member.resume()
            member.start()
        if struck:
            self.cluster.wait_ready()

    def close(self) -> None:
        self.cluster.stop()


class _SimMember(Member):
    def __init__(self, etcd: SimEtcd, inner: SimEtcdMember) -> None:
        self.inner = inner
        self.address = inner.host
        self._etcd = etcd

    def kill(self) -> None:
        self.inner.kill()

    def start(self) -> None:
        self.inner.start()

    def pause(self) -> None:
        self.inner.freeze()

    def resume(self) -> None:
        self.inner.thaw()

    def forget(self) -> None:
        self._etcd.restore(Snapshot(Mvcc(), {}), cluster_id=self._etcd.cluster_id)


class SimulatedEtcd(Etcd):
    """Simulated members, on a virtual loop that lives as long as they do.

    Args:
        size: How many.
        quota_bytes: Of each one's database.
        beside: Another cluster, to share loop and network with.
    """

    def __init__(
        self, size: int, *, quota_bytes: int = QUOTA_BYTES, beside: SimulatedEtcd | None = None
    ) -> None:
        self._beside = beside
        self._loop: VirtualLoop = VirtualLoop(3_600) if beside is None else beside._loop
        self.etcd = self._loop.run_until_complete(self._start(size))
        self.etcd.quota_bytes = quota_bytes
        self._members = [_SimMember(self.etcd, member) for member in self.etcd.members.values()]
        self.members = self._members
        self._dialer = self.etcd.dialer(CLIENT)
        self.dial = self._dialer
        if beside is not None:
            beside.dial = self._dial_either

    async def _start(self, size: int) -> SimEtcd:
        rng = Random(size if self._beside is None else "neighbour")
        if self._beside is None:
            return SimEtcd(SimNetwork(rng), rng, size=size)
        return SimEtcd(self._beside.etcd.network, rng, size=size, prefix="n")

    def _dial_either(self, address: str, pem: Pem | None) -> Channel:
        mine = address in self.endpoints
        return (self if mine or self._beside is None else self._beside)._dialer(address, pem)

    def leader(self) -> Member:
        leader = self.etcd.leader()
        return next(member for member in self._members if member.inner is leader)

    def run(self, main: Main) -> None:
        self._loop.run_until_complete(main())

    async def ready(self) -> None:
        for member in self._members:
            if member.inner.works:
                async with self.client([member.address]) as client:
                    await until_answered(partial(client.range, b"/ready"))

    def mend(self) -> None:
        self.etcd.heal()
        self.run(self.ready)

    def close(self) -> None:
        self.etcd.close()
        if self._beside is None:
            self._loop.close()


async def until_answered(call: Callable[[], Awaitable[object]]) -> int:
    """Repeats an idempotent call, as a caller of the client does, and counts the failures."""
    failures = 0
    async with asyncio.timeout(20):
        while True:
            try:
                await call()
            except (Unavailable, OutcomeUnknown):
                failures += 1
                # The cluster may be electing: a pause of the caller's own, never the client's.
                await asyncio.sleep(0.05)
            else:
                return failures
