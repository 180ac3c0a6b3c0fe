"""A whole cluster in one process on virtual time: the shipped masters, workers and clients.

    async with simulated_cluster(seed=7, jobs=[work]) as cluster:
        handle = await cluster.client().submit(work, 1)
        (await cluster.elected()).kill()
        print(await handle.result())

Only what lies behind the ports is simulated: clock, network, etcd or disk, and threads.
Run it inside ``process.run_processes``; the same seed and the same program give the same run.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final, Literal, NamedTuple

from tenure.client.client import AsyncClient
from tenure.client.job import JobDef
from tenure.master.node.sizes import LOG_SIZES, LogSizes
from tenure.testing.disk import SimDisk
from tenure.testing.ground import DiskGround, EtcdGround, Ground
from tenure.testing.loop import VirtualLoop
from tenure.testing.network import SimNetwork
from tenure.testing.nodes import SimMaster, SimNode, SimWorker
from tenure.testing.process import Process
from tenure.testing.simetcd.cluster import SimEtcd
from tenure.worker.attempt import JobTable

#: ``etcd``: three members serve all masters. ``sqlite``: the only master has a disk.
StoreKind = Literal["etcd", "sqlite"]

#: As the command's default.
_DRAIN_MS: Final = 30_000
_POLL_S: Final = 0.01


class Announcement(NamedTuple):
    """What a process said of itself, as its operator would read it."""

    at_s: float
    process: str
    incarnation: str
    event: str
    fields: Mapping[str, object]


class SimCluster:
    """Masters, workers, clients, their network and their store. Made by ``simulated_cluster``.

    Attributes:
        network: Between all of them; the node of a master, and of a member of etcd, is its
            address; the others' are their names.
        ground: What the masters' stores stand on.
        masters: By name: ``m1``, ``m2``, …
        workers: By name: ``w1``, ``w2``, …
        announcements: What all processes said of themselves, in order.
        state_hashes: By partition and seq: the hash of a leader's state right after that event.
        traces: By partition: when its masters sent batches and heard of their commits.
    """

    def __init__(
        self,
        group: asyncio.TaskGroup,
        seed: int,
        *,
        jobs: Iterable[JobDef[..., Any]],
        masters: int,
        workers: int,
        partitions: int,
        slots: int,
        worker_labels: Sequence[Mapping[str, str]],
        store: StoreKind,
        store_delay_ms: int | None,
        log_sizes: LogSizes,
        drain_ms: int,
        lost_slots_max: int | None,
        folders: bool,
    ) -> None:
        self._group = group
        self._seed = seed
        self.partitions = partitions
        self.slots = slots
        self._worker_labels = worker_labels
        self.drain_ms = drain_ms
        self.lost_slots_max = lost_slots_max
        self.folders = folders
        self.log_sizes = log_sizes
        self.jobs: JobTable = {job.name: job for job in jobs}
        self.network = SimNetwork(self.rng("network"))
        self._store_delay_ms = store_delay_ms
        self.announcements: list[Announcement] = []
        self.state_hashes: dict[tuple[int, int], str] = {}
        self.traces: dict[int, list[dict[str, Any]]] = {}
        count = masters if store == "etcd" else 1
        self.masters = {f"m{n}": SimMaster(self, f"m{n}") for n in range(1, count + 1)}
        self.workers = {f"w{n}": SimWorker(self, f"w{n}") for n in range(1, workers + 1)}
        self._clients: list[AsyncClient] = []
        self.ground: Ground
        if store == "etcd":
            self.ground = EtcdGround(SimEtcd(self.network, self.rng("etcd")), self.addresses)
            self._slow_store()
        else:
            self.ground = DiskGround(SimDisk(self.rng("disk")))

    # For tests.

    def client(self, *, timeout: float = 60.0) -> AsyncClient:
        """A new client on a node of its own (``c1``, ``c2``, …); closed with the cluster."""
        name = f"c{len(self._clients) + 1}"
        client = AsyncClient(
            ",".join(self.addresses),
            timeout=timeout,
            transport=self.network.transport(name),
            rng=self.rng(name),
        )
        self._clients.append(client)
        return client

    @property
    def etcd(self) -> SimEtcd:
        """The store of all masters.

        Raises:
            TypeError: The cluster's store is another one.
        """
        if not isinstance(self.ground, EtcdGround):
            raise TypeError("expected a cluster on etcd, but its master has a disk")
        return self.ground.etcd

    @property
    def disk(self) -> SimDisk:
        """The disk of the only master.

        Raises:
            TypeError: The cluster's store is another one.
        """
        if not isinstance(self.ground, DiskGround):
            raise TypeError("expected a cluster on a disk, but its masters have etcd")
        return self.ground.disk

    def leader(self, partition: int = 0) -> SimMaster | None:
        """Who holds a partition's office by the store's account, and serves it by his own."""
        master = self.holder(partition)
        return master if master is not None and master.leads(partition) else None

    def holder(self, partition: int = 0) -> SimMaster | None:
        """Who holds a partition's office by the store's account."""
        name = self.ground.holder(partition)
        return None if name is None else self.masters[name]

    async def elected(self, partition: int = 0, within_s: float = 30.0) -> SimMaster:
        """Waits until a partition has a leader that serves it.

        Raises:
            TimeoutError: It has none in time.
        """
        await self.until(lambda: self.leader(partition) is not None, within_s)
        leader = self.leader(partition)
        if leader is None:
            raise TimeoutError(f"expected a leader of partition {partition}, but it has gone again")
        return leader

    async def until(self, condition: Callable[[], bool], within_s: float = 60.0) -> None:
        """Lets virtual time pass until something is so.

        Raises:
            TimeoutError: It is not so in time.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + within_s
        while not condition():
            if loop.time() >= deadline_s:
                said = "\n".join(map(str, self.announcements[-20:]))
                raise TimeoutError(
                    f"expected it within {within_s} s; the last that was said:\n{said}"
                )
            await asyncio.sleep(_POLL_S)

    def start(self, node: SimNode) -> None:
        """Starts a node again whose process has stopped or was killed."""
        node.start(self._group)

    def release(self, worker: SimWorker) -> None:
        """Starts a release of a worker that knows all jobs there are by now, beside the old one."""
        if worker.node is not None or not worker.running:
            # Else its process has not looked at the jobs yet.
            worker.release(self._group)

    def sleep(self, seconds: float) -> None:
        """All machines are suspended for so long at once, as a laptop is, and wake up now.

        Boot clocks and wall clocks have gone on, so what was due meanwhile happens now, and late.
        """
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            raise RuntimeError("expected a loop on virtual time")
        loop.leap(seconds)
        self.ground.sleep(seconds)

    def heal(self) -> None:
        """Ends every fault that can end: no cut, no loss, nobody stands still, a whole store."""
        self.network.heal_all()
        if isinstance(self.ground, EtcdGround):
            self._slow_store()
        self.ground.heal()
        for node in self.nodes:
            node.thaw()

    def cut_store(self, master: SimMaster, *, requests: bool = True, replies: bool = True) -> None:
        """Cuts a master from all members of etcd, one way or both."""
        for member in self.etcd.members.values():
            if requests:
                self.network.cut(master.host, member.host)
            if replies:
                self.network.cut(member.host, master.host)

    def heal_store(self, master: SimMaster) -> None:
        """Ends what ``cut_store`` began."""
        for member in self.etcd.members.values():
            self.network.heal(master.host, member.host)
            self.network.heal(member.host, master.host)

    def restart_dead(self) -> None:
        """Starts whatever does not run."""
        for node in self.nodes:
            if not node.running:
                node.start(self._group)

    @property
    def nodes(self) -> list[SimNode]:
        """All masters and workers."""
        return [*self.masters.values(), *self.workers.values()]

    def journal(self, partition: int = 0) -> list[bytes]:
        """All batches of a partition that are stored, in order."""
        return self.ground.journal(partition)

    # For what runs inside.

    def labels_of(self, worker: SimWorker) -> Mapping[str, str]:
        """The labels that a worker says it has."""
        labels = self._worker_labels
        return labels[list(self.workers).index(worker.name) % len(labels)] if labels else {}

    @property
    def addresses(self) -> list[str]:
        """Where the masters listen."""
        return [master.host for master in self.masters.values()]

    def rng(self, name: str) -> Random:
        """Randomness for one actor: its draws do not depend on what the others do."""
        return Random(f"{self._seed}/{name}")

    def announcer(self, process: Process) -> Callable[[str, Mapping[str, object]], None]:
        """Notes what a process announces, while it lives."""

        def announce(event: str, fields: Mapping[str, object]) -> None:
            if not process.killed:
                now_s = asyncio.get_running_loop().time()
                self.announcements.append(
                    Announcement(now_s, process.name, process.incarnation, event, dict(fields))
                )

        return announce

    async def close(self) -> None:
        """Closes the clients and kills the rest. Idempotent."""
        while self._clients:
            await self._clients.pop().close()
        for node in self.nodes:
            node.kill()
        former = [process for worker in self.workers.values() for process in worker.former.values()]
        for process in (*former, *(node.process for node in self.nodes)):
            await process.join()
        self.ground.close()

    def _slow_store(self) -> None:
        """Gives the links between masters and etcd the delay that was asked for."""
        delay_ms = self._store_delay_ms
        if delay_ms is None:
            return
        for master in self.masters.values():
            for member in self.etcd.members.values():
                for ends in ((master.host, member.host), (member.host, master.host)):
                    self.network.link(*ends).delay_ms = (0.5 * delay_ms, 1.5 * delay_ms)


@asynccontextmanager
async def simulated_cluster(
    *,
    seed: int,
    jobs: Iterable[JobDef[..., Any]],
    masters: int = 3,
    workers: int = 2,
    partitions: int = 1,
    slots: int = 4,
    worker_labels: Sequence[Mapping[str, str]] = (),
    store: StoreKind = "etcd",
    store_delay_ms: int | None = None,
    log_sizes: LogSizes = LOG_SIZES,
    drain_ms: int = _DRAIN_MS,
    lost_slots_max: int | None = None,
    folders: bool = True,
    start: bool = True,
) -> AsyncIterator[SimCluster]:
    """A cluster whose processes start now and end with the block.

    Args:
        seed: Of all randomness in it.
        jobs: What its workers serve.
        masters: How many masters; on SQLite it is one.
        workers: How many workers.
        partitions: How many partitions.
        slots: How many jobs each worker runs at once.
        worker_labels: Labels of the workers, in turn; none: they have none.
        store: What the masters keep their journals in.
        store_delay_ms: How long a message between a master and etcd takes, each way, on average;
            None: as long as all others.
        log_sizes: How large batches and snapshots are.
        drain_ms: How long a worker that ends waits for what it runs.
        lost_slots_max: With more lost slots than this a worker wants to be started again; None: as
            the command's default.
        folders: Whether the tracebacks of jobs name files with their folders. Those are as long as
            the path to the code is: without them a seed is the same run wherever that lies.
        start: Whether the nodes start with the block; else whoever asks for it starts them.
    """
    async with asyncio.TaskGroup() as group:
        cluster = SimCluster(
            group,
            seed,
            jobs=jobs,
            masters=masters,
            workers=workers,
            partitions=partitions,
            slots=slots,
            worker_labels=worker_labels,
            store=store,
            store_delay_ms=store_delay_ms,
            log_sizes=log_sizes,
            drain_ms=drain_ms,
            lost_slots_max=lost_slots_max,
            folders=folders,
        )
        if start:
            cluster.restart_dead()
        try:
            yield cluster
        finally:
            await cluster.close()
