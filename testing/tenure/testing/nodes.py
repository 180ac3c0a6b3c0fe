"""The machines of a simulated cluster, and the shipped masters and workers that run on them."""

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from tenure.client.client import AsyncClient
from tenure.master.election.port import Candidate
from tenure.master.node.master import Master
from tenure.master.node.method import PACKAGE, services
from tenure.master.node.trace import Trace
from tenure.master.store import Store
from tenure.testing.clock import SimClock
from tenure.testing.executor import LoopExecutor
from tenure.testing.network import full_names
from tenure.testing.process import Process, current_process
from tenure.worker.config import WorkerConfig
from tenure.worker.crew import Announce, Crew, MakeExecutor
from tenure.worker.exits import EXIT_RESTART
from tenure.worker.memory import Memory
from tenure.worker.parents import LoopParents
from tenure.worker.pools import Pool
from tenure.worker.runtime import WorkerNode, introduction

if TYPE_CHECKING:
    from tenure.testing.cluster import SimCluster

VERSION: Final = "0-simulated"

_PORT: Final = 7400
#: What the listener allows open streams when it closes.
_GRACE_MS: Final = 500


class SimNode(ABC):
    """A machine of the cluster, and the process that runs there now.

    Attributes:
        name: Its name.
        host: Its name on the network.
        clock: Its clocks.
        process: The present incarnation.
    """

    def __init__(self, cluster: "SimCluster", name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.clock = SimClock()
        self.process = Process(name)
        self._cluster = cluster
        self._incarnations = 0

    @property
    def running(self) -> bool:
        """Whether its process lives (frozen or not)."""
        return not self.process.ended and not self.process.killed

    @property
    def to_restart(self) -> bool:
        """Whether its process has ended though nobody wanted that: it is to be started again."""
        process = self.process
        return process.ended and (process.error is not None or process.status == EXIT_RESTART)

    def start(self, group: asyncio.TaskGroup) -> None:
        """A new process on this node."""
        self._incarnations += 1
        process = self.process = Process(self.name)
        rng = self._cluster.rng(f"{self.name}.{self._incarnations}")
        process.start(group, lambda: self._run(process, rng))

    @abstractmethod
    def stop(self) -> None:
        """As SIGTERM does: it ends in order."""

    def kill(self) -> None:
        """As ``kill -9`` does."""
        self._cluster.network.crash(self.host)
        self.process.kill()

    def freeze(self) -> None:
        """As SIGSTOP does: the node's clocks go on, its process does not."""
        self._cluster.network.stall(self.host)
        self.process.freeze()

    def thaw(self) -> None:
        """As SIGCONT does."""
        self._cluster.network.unstall(self.host)
        self.process.thaw()

    @abstractmethod
    async def _run(self, process: Process, rng: Random) -> None:
        """What ``main`` of the process does."""


class SimMaster(SimNode):
    """A master.

    Attributes:
        store: Its store; None until it has opened it.
        node: The shipped master; None until it has opened the store.
    """

    def __init__(self, cluster: "SimCluster", name: str) -> None:
        super().__init__(cluster, name, f"{name}:{_PORT}")
        self.store: Store | None = None
        self.node: Master | None = None

    def leads(self, partition: int) -> bool:
        """Whether it serves a partition, as far as it knows."""
        return self.running and self.node is not None and partition in self.node.roster.terms

    def start(self, group: asyncio.TaskGroup) -> None:
        self.store = self.node = None
        super().start(group)

    def stop(self) -> None:
        """As SIGTERM does: it hands over what it leads, and ends."""
        if self.node is not None:
            self.node.stop()
        elif self.running:
            # It has not got as far as to listen for signals.
            self.kill()

    def kill(self) -> None:
        self._cluster.ground.crash(self.host)
        super().kill()

    async def _run(self, process: Process, rng: Random) -> None:
        cluster = self._cluster
        incarnation = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        process.incarnation = incarnation
        me = Candidate(incarnation=incarnation, name=self.name, address=self.host)
        store = self.store = await cluster.ground.open(
            me, process, partitions=cluster.partitions, wall_ms=self.clock.wall_ms(), rng=rng
        )
        node = self.node = Master(
            store=store,
            me=me,
            clock=self.clock,
            rng=rng,
            peers=cluster.network.transport(self.host),
            announce=cluster.announcer(process),
            version=VERSION,
            store_name="simulated",
            log_sizes=cluster.log_sizes,
            trace=_ClusterTrace(self.clock, cluster),
        )
        cluster.network.listen(self.host, process, full_names(services(node), PACKAGE))
        try:
            await node.run()
        finally:
            if not process.killed:
                node.hub.close_all()
                await self.clock.sleep(_GRACE_MS)
                cluster.network.crash(self.host)
                await store.close()


class SimWorker(SimNode):
    """A worker.

    Attributes:
        crew: The shipped process; None until it has started.
        node: Its only worker; None until the process has started.
        executor: What runs its jobs; None until its process has started.
        former: Earlier releases of its program that may still run.
    """

    def __init__(self, cluster: "SimCluster", name: str) -> None:
        super().__init__(cluster, name, name)
        self.crew: Crew | None = None
        self.node: WorkerNode | None = None
        self.executor: LoopExecutor | None = None
        self.former: dict[Crew, Process] = {}
        self._retired: WeakSet[Crew] = WeakSet()

    def start(self, group: asyncio.TaskGroup) -> None:
        self.crew = self.node = None
        super().start(group)

    def stop(self) -> None:
        """As SIGTERM does: it drains, and ends."""
        if self.crew is not None:
            self.crew.drain()

    def release(self, group: asyncio.TaskGroup) -> None:
        """Starts a new release of the program; the present one goes on until ``retire``."""
        if self.crew is not None:
            self.former[self.crew] = self.process
        self.start(group)

    def retire(self) -> None:
        """All but the newest release drain, and end. Idempotent."""
        former = self.former.items()
        self.former = {crew: process for crew, process in former if not process.ended}
        for crew in self.former:
            if crew not in self._retired:
                self._retired.add(crew)
                crew.drain()

    def kill(self) -> None:
        for process in self.former.values():
            process.kill()
        super().kill()

    def freeze(self) -> None:
        for process in self.former.values():
            process.freeze()
        super().freeze()

    def thaw(self) -> None:
        for process in self.former.values():
            process.thaw()
        super().thaw()

    async def _run(self, process: Process, rng: Random) -> None:
        cluster = self._cluster
        config = WorkerConfig(
            app="simulated",
            masters=cluster.addresses,
            name=self.name,
            slots=cluster.slots,
            labels=cluster.labels_of(self),
            lost_slots_max=cluster.lost_slots_max,
        )
        incarnation = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        process.incarnation = incarnation
        client = AsyncClient(
            ",".join(cluster.addresses),
            transport=cluster.network.transport(self.name),
            rng=Random(incarnation),
        )
        transport = cluster.network.transport(self.name)

        def make_pool(
            pool: Pool, wake: Callable[[], None], on_lost: Callable[[], None]
        ) -> LoopExecutor:
            self.executor = LoopExecutor(
                pool.jobs,
                pool.slots,
                clock=self.clock,
                spawn=process.spawn,
                wake=wake,
                parents=LoopParents(client),
                on_lost=on_lost,
                folders=cluster.folders,
            )
            return self.executor

        def make_node(pool: Pool, make_executor: MakeExecutor, tell: Announce) -> WorkerNode:
            self.node = WorkerNode(
                introduction(config, pool.jobs, incarnation, pool),
                config.masters,
                transport=transport,
                clock=self.clock,
                rng=rng,
                make_executor=make_executor,
                drain_timeout_ms=cluster.drain_ms,
                announce=tell,
            )
            return self.node

        crew = self.crew = Crew(
            config,
            cluster.jobs,
            clock=self.clock,
            make_pool=make_pool,
            make_node=make_node,
            announce=cluster.announcer(process),
            read_memory=_read_memory,
        )
        try:
            await crew.run()
        finally:
            await client.close()
            await transport.close()
        process.exit(crew.status)


def _read_memory() -> Memory:
    """Nobody asks: simulated workers have no limits of memory."""
    return Memory(total=0, available=0, resident=0)


class _ClusterTrace(Trace):
    """Keeps what masters trace, for those who judge the run."""

    def __init__(self, clock: SimClock, cluster: "SimCluster") -> None:
        super().__init__(None, clock)
        self._cluster = cluster

    def append_sent(self, partition: int, number: int, last_seq: int) -> None:
        self._note("append_sent", partition, number)

    def append_committed(self, partition: int, number: int, last_seq: int) -> None:
        self._note("append_committed", partition, number)

    def state(self, partition: int, last_seq: int, state_hash: Callable[[], bytes]) -> None:
        self._cluster.state_hashes[partition, last_seq] = state_hash().hex()

    def _note(self, event: str, partition: int, number: int) -> None:
        # By the loop's time: the master's own clocks may be bent.
        at_ms = asyncio.get_running_loop().time() * 1000
        process = current_process()
        by = "" if process is None else process.incarnation
        row = {"boot_ms": at_ms, "event": event, "number": number, "by": by}
        self._cluster.traces.setdefault(partition, []).append(row)
