"""A master: its seats, its roster and the services that it offers."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from tenure.master.backend.errors import StoreFull, StoreUnavailable
from tenure.master.core.config import PartitionConfig
from tenure.master.election.port import Candidate, Member
from tenure.master.journal.backup import export
from tenure.master.node.alarms import Alarms
from tenure.master.node.balance import Balancer
from tenure.master.node.batches import BatchApi
from tenure.master.node.cluster import ClusterApi
from tenure.master.node.health import Health
from tenure.master.node.hub import WorkerHub
from tenure.master.node.jobs import JobApi
from tenure.master.node.partitions import PartitionApi
from tenure.master.node.port import Clock, Peers, Rng
from tenure.master.node.queues import SettingsApi
from tenure.master.node.roster import Roster
from tenure.master.node.schedules import ScheduleApi
from tenure.master.node.seat import Seat, Surroundings
from tenure.master.node.sizes import LOG_SIZES, LogSizes
from tenure.master.node.solitude import Solitude
from tenure.master.node.space import SpaceWatch
from tenure.master.node.standby import Standbys
from tenure.master.node.trace import Trace
from tenure.master.node.walls import Walls
from tenure.master.node.wishes import Wishes
from tenure.master.node.worker_streams import WorkerApi
from tenure.master.node.workers import FleetApi
from tenure.master.node.workflows import WorkflowApi
from tenure.master.store import Store
from tenure.protocol.errors import TenureError
from tenure.v1 import backup_pb2, cluster_pb2, worker_pb2

_log = logging.getLogger(__name__)

_REGISTER_MS: Final = 2_000
#: How long a campaign waits for the latest wishes of operators.
_WISHES_S: Final = 0.5
#: Who takes longer to answer had better lead nothing more.
_ANSWER_S: Final = 1.0
_LIST_MEMBERS: Final = "/tenure.v1.ClusterService/ListMembers"
#: How often it is looked who leads a partition that nobody seems to, and how many times rarer if
#: somebody does; and who has replayed what, by a master that is to end.
_LOOK_MS: Final = 200
_LOOKS_IF_LED: Final = 3
_LEASE_TTL_MS: Final = 15_000
_HEARTBEAT_MS: Final = 5_000
#: Of payloads, results and errors; records take about a KiB each besides.
MEMORY_BYTES_DEFAULT: Final = 1024**3
#: Of a worker's last 20 attempts.
QUARANTINE_FAILURES_DEFAULT: Final = 16


class Master:
    """One master process, without its listener.

    Args:
        store: Opened for ``me``.
        me: This master.
        clock: The machine's clocks.
        rng: Jitter and ids.
        peers: Reaches other masters.
        announce: Prints a line for operators: event name and fields.
        version: This release.
        store_name: The store's URL, for people.
        trace: Told of every append.
        memory_bytes_max: Payloads, results and errors that it keeps, should it lead everything.
        quarantine_failures: How many failures put a worker into quarantine; 0: it never is.
        log_sizes: Of the batches and snapshots that it writes.
    """

    def __init__(
        self,
        *,
        store: Store,
        me: Candidate,
        clock: Clock,
        rng: Rng,
        peers: Peers,
        announce: Callable[[str, Mapping[str, object]], None],
        version: str,
        store_name: str,
        trace: Trace,
        memory_bytes_max: int = MEMORY_BYTES_DEFAULT,
        quarantine_failures: int = QUARANTINE_FAILURES_DEFAULT,
        log_sizes: LogSizes = LOG_SIZES,
    ) -> None:
        self._store = store
        self._memory_bytes_max = memory_bytes_max
        self._quarantine_failures = quarantine_failures
        self._clock = clock
        self._rng = rng
        self._peers = peers
        self._version = version
        self._me = me
        self.hub = WorkerHub()
        self.roster = Roster(
            cluster_id=store.cluster_id, partitions=store.partitions, me=me, clock=clock
        )
        self.roster.meet([Member(candidate=me, version=version, wall_ms=clock.wall_ms())])
        self._wishes = Wishes(self.roster, clock)
        self.health = Health(self.roster)
        self.alarms = Alarms()
        self.space = SpaceWatch(store, clock, self.alarms)
        self._walls = Walls(self.roster, clock, self.alarms)
        self._ending = asyncio.Event()
        #: What the others have been told that this master could lead at once.
        self._caught_up: list[int] = []
        self.standbys = Standbys(self.roster, clock, reader=store.reader, config=self._config)
        solitude = Solitude(
            roster=self.roster, hub=self.hub, clock=clock, alone_ms=2 * _LEASE_TTL_MS
        )
        around = Surroundings(
            roster=self.roster,
            hub=self.hub,
            clock=clock,
            rng=rng,
            trace=trace,
            announce=announce,
            config=self._config,
            space=self.space,
            walls=self._walls,
            solitude=solitude,
            standbys=self.standbys,
            sizes=log_sizes,
            hear_wishes=self._hear_wishes,
            peers=peers,
        )
        self._seats = [self._seat(partition, around) for partition in range(store.partitions)]
        self.jobs = JobApi(roster=self.roster, rng=rng)
        self.settings = SettingsApi(roster=self.roster, argument_schema=self.hub.argument_schema)
        self.batches = BatchApi(roster=self.roster)
        self.schedules = ScheduleApi(roster=self.roster, rng=rng)
        self.workflows = WorkflowApi(roster=self.roster)
        self.partitions = PartitionApi(roster=self.roster)
        self.workers = self._worker_api()
        self.fleet = FleetApi(roster=self.roster, hub=self.hub, clock=clock)
        self.cluster = self._cluster_api(store_name)
        self._balancer = self._new_balancer()

    def _seat(self, partition: int, around: Surroundings) -> Seat:
        election, journal = self._store.election(partition), self._store.journal(partition)
        return Seat(partition=partition, election=election, journal=journal, around=around)

    def _new_balancer(self) -> Balancer:
        return Balancer(
            self.roster,
            self._clock,
            well=self._well,
            answers=self._answers,
            hand_over=lambda number: self._seats[number].hand_over(),
        )

    def _worker_api(self) -> WorkerApi:
        return WorkerApi(
            hub=self.hub, rng=self._rng, welcome=self._welcome, boot_ms=self._clock.boot_ms
        )

    def _cluster_api(self, store_name: str) -> ClusterApi:
        return ClusterApi(
            roster=self.roster,
            hub=self.hub,
            seats=lambda: [seat.status() for seat in self._seats],
            version=self._version,
            store=store_name,
            space=self.space.status,
            alarms=self.alarms.texts,
            backup=self._backup,
            look=self._hear_wishes,
            hand_over=self._hand_over,
            answers=self._answers,
        )

    async def _answers(self, name: str) -> bool:
        """Whether the master of a name answers now."""
        request, kind = cluster_pb2.ListMembersRequest(), cluster_pb2.ListMembersResponse
        for member in self.roster.members:
            if member.candidate.name == name:
                address = member.candidate.address
                try:
                    await self._peers.unary(address, _LIST_MEMBERS, request, kind, _ANSWER_S)
                except TenureError as error:
                    _log.info("%s does not answer: %s", name, error, extra={"action": "answers"})
                else:
                    return True
        return False

    async def _hear_wishes(self) -> None:
        """Reads what the masters say now, if the store answers soon."""
        try:
            async with asyncio.timeout(_WISHES_S):
                self.roster.meet(await self._store.members() or self.roster.members)
        except (TimeoutError, StoreUnavailable) as error:
            _log.info("Cannot list the masters: %s", error, extra={"action": "members"})

    def _well(self) -> bool:
        """Whether nothing is amiss here that hand-overs could make worse."""
        return self.health.store_answers and not self.health.stopping and not self.alarms.texts()

    async def _hand_over(self, partition: int, successor: str) -> bool:
        """Hands a partition over to a master, whom the others let go first; False: not now.

        Where nothing is handed over, all is wished for as it was.
        """
        former = self._wishes.newest(partition)
        wish = self._wishes.make(partition, successor)
        await self._meet()
        seat = self._seats[partition]
        if not seat.hand_over():
            # Who was told "not now" must not see it move later, unless another has said so since.
            if self._wishes.take_back(partition, wish, former):
                await self._meet()
            return False
        await seat.left()
        return True

    def _config(self, partition: int) -> PartitionConfig:
        return PartitionConfig(
            partition=partition,
            partitions=self._store.partitions,
            lease_ttl_ms=_LEASE_TTL_MS,
            bytes_max=self.space.bytes_max(self._memory_bytes_max),
            quarantine_failures=self._quarantine_failures,
        )

    def _backup(self) -> AsyncIterator[bytes]:
        """The pieces of a backup's file, read beside the leaders."""
        header = backup_pb2.BackupHeader(
            cluster_id=self._store.cluster_id,
            partitions=self._store.partitions,
            epoch=self._store.epoch,
            version=self._version,
            made_ms=self._clock.wall_ms(),
        )
        return export([self._store.reader(p) for p in range(self._store.partitions)], header)

    def _welcome(self) -> worker_pb2.Welcome:
        welcome = worker_pb2.Welcome(
            cluster_id=self.roster.cluster_id,
            master=self._me.name,
            now_ms=self.roster.now_ms(),
            masters=self.roster.addresses(),
        )
        welcome.lease_ttl.FromMilliseconds(_LEASE_TTL_MS)
        welcome.heartbeat_interval.FromMilliseconds(_HEARTBEAT_MS)
        return welcome

    async def run(self) -> None:
        """Campaigns for every partition and leads those it wins, until stopped.

        Raises:
            StoreIoError: The store failed on I/O; the process must exit.
        """
        await self._meet()
        self.standbys.inherit(self.roster.members)
        await self.space.run_once()
        async with asyncio.TaskGroup() as tasks:
            keep = [
                tasks.create_task(self.space.run()),
                tasks.create_task(self._register()),
                tasks.create_task(self._look_for_heirs()),
                tasks.create_task(self._look_around()),
                tasks.create_task(self._balancer.run()),
                tasks.create_task(self.standbys.run()),
            ]
            async with asyncio.TaskGroup() as seats:
                for seat in self._seats:
                    seats.create_task(seat.run())
            for task in keep:
                task.cancel()

    def stop(self) -> None:
        """Hands every partition over; ``run`` returns when that is done. Idempotent."""
        self.health.stopping = True
        self._ending.set()
        self.standbys.end()
        for seat in self._seats:
            seat.stop()

    async def _register(self) -> None:
        while True:
            # Out of step with the others: now and then one reads a wall that was just written.
            await self._clock.sleep(int(_REGISTER_MS * (0.5 + self._rng.random())))
            await self._meet()

    async def _look_for_heirs(self) -> None:
        """Says that this master is to end as soon as it is, and sees who could lead instead."""
        await self._ending.wait()
        while True:
            await self._meet()
            await self._clock.sleep(_LOOK_MS)

    async def _meet(self) -> None:
        """Shows this master to the others, and learns who they are."""
        self._caught_up = self.standbys.caught_up()
        # Before the wall is read: it is later than all that was heard.
        heard_ms = self.roster.heard_ms()
        try:
            await self._store.register(
                Member(
                    candidate=self._me,
                    version=self._version,
                    boot_ms=self._clock.boot_ms(),
                    heard_ms=heard_ms,
                    wall_ms=self._clock.wall_ms(),
                    workers=len(self.hub.links()),
                    nominations=self._wishes.made,
                    following=self.standbys.deaths(),
                    caught_up=self._caught_up,
                    ending=self.health.stopping,
                )
            )
            self.roster.registered(done=True)
        except (StoreUnavailable, StoreFull) as error:
            self.roster.registered(done=False)
            _log.warning("Cannot register: %s", error, extra={"action": "register"})
        try:
            # Also where a full store takes no key: old walls would hold the term's clock back.
            self.roster.meet(await self._store.members() or self.roster.members)
            self._wishes.review()
            self.health.store_answers = True
            self._walls.look()
        except StoreUnavailable as error:
            self.health.store_answers = False
            _log.warning("Cannot list the masters: %s", error, extra={"action": "members"})

    async def _look_around(self) -> None:
        """Learns who leads what elsewhere: hints for clients, who wait after a hand-over."""
        for look in itertools.count():
            await self._clock.sleep(_LOOK_MS)
            if self.standbys.caught_up() != self._caught_up:
                # A leader may be waiting for it.
                await self._meet()
            for partition in range(self._store.partitions):
                # A seat that waits for the end of another's term knows whose that is.
                known = partition in self.roster.terms or self._seats[partition].watching
                due = look % _LOOKS_IF_LED == 0 or partition not in self.roster.leaders
                if not known and due:
                    await self._look_at(partition)

    async def _look_at(self, partition: int) -> None:
        try:
            leader = await self._store.election(partition).leader()
        except StoreUnavailable:
            return
        if leader is None or leader.candidate == self._me:
            self.roster.leaders.pop(partition, None)
        else:
            self.roster.leaders[partition] = leader
