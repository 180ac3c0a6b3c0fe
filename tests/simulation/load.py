"""What users do in a random run: jobs of every kind, and whatever one can ask of them.

    load = Load(storm_s=40.0, topics={"limits", "schedules"})
    async with simulated_cluster(seed=1, jobs=load.jobs) as cluster:
        await asyncio.gather(*(load.user(cluster, desk, number, rng) ...))

Each user draws all that it does from a randomness of its own, so that a run may leave some of them
out and the others do what they did. What a run is about beside plain jobs are its *topics*: swarm
testing, a random half of them. What jobs do is in their arguments (``works``).
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from itertools import count
from random import Random
from typing import Any, Final, NamedTuple

from tenure.client import AsyncClient, AsyncJobHandle, JobDef
from tenure.protocol.ids import home_partition
from tenure.testing.cluster import SimCluster
from tenure.testing.nodes import SimNode
from tenure.testing.process import Process, elapse
from tenure.worker.middleware import Application
from tests.simulation.ledger import Desk, Ledger
from tests.simulation.parcels import Clerk
from tests.simulation.restoring import Changed
from tests.simulation.works import Works

#: How many jobs may take longer than a lease lives: they keep a slot from all others.
_LONG_SHARE: Final = 0.06
#: Jobs on several queues of several tenants: with partitions, most runs use all of them.
QUEUES: Final = ("default", "default", "media", "mail", "bulk")
TENANTS: Final = ("default", "default", "default", "acme")
#: Whoever is refused tries again so much later.
_AGAIN_S: Final = 1.0
#: A worker that a job has killed is started again so much later.
_REVIVE_S: Final = 2.0

#: What a run may be about beside plain jobs.
TOPICS: Final = (
    "batches",
    "boosts",
    "conflicts",
    "explanations",
    "families",
    "labels",
    "limits",
    "pauses",
    "schedules",
    "sticky",
    "trouble",
    "weights",
    "workers",
    "workflows",
)
#: Labels of the workers, in turn; each of them has a zone.
WORKER_LABELS: Final = ({"zone": "eu", "disk": "ssd"}, {"zone": "us"}, {"zone": "eu"})
#: In runs about it: how many jobs have a limit key, wishes about labels, a sticky key.
_KEYED_SHARE, _LABELLED_SHARE, _STICKY_SHARE = 0.4, 0.3, 0.25

#: Rows of the fault table that users inject: jobs that kill their workers, jobs that hang, and many
#: users with many workers at a failover.
CROWD_ROW: Final = 52
BY_USERS: Final = frozenset({15, 17, CROWD_ROW})

Handle = AsyncJobHandle[str]


class Load:
    """The users of one run.

    Attributes:
        ledger: What all of them, and the jobs, saw.
        jobs: What workers serve.
        topics: What the run is about beside plain jobs.
        changed: What users have changed of how the cluster is run.
    """

    def __init__(self, storm_s: float, topics: Collection[str] = ()) -> None:
        """Args:
        storm_s: Users come within this time.
        topics: What it is about beside plain jobs.
        """
        self.ledger = Ledger()
        self.works = Works(self.ledger)
        self.jobs: list[JobDef[..., Any]] = [*self.works.all]
        self.topics = topics
        self.changed = Changed()
        #: How often the users themselves injected a row of the fault table.
        self.rows_hit: Counter[int] = Counter()
        self._storm_s = storm_s
        # By their names: the order in which modules are imported has no say in it.
        known = sorted(PLAYS, key=lambda play: play.script.__name__)
        self._plays = [play for play in known if not play.topic or play.topic in topics]
        self._weights = [play.weight for play in self._plays]

    def attach(self, cluster: SimCluster) -> None:
        """Lets poisonous jobs kill their workers; what manages services starts them again."""

        def crash(process: Process) -> None:
            for worker in cluster.workers.values():
                if worker.process is process:
                    self.rows_hit[15] += 1
                    worker.kill()
                    loop = asyncio.get_running_loop()
                    loop.call_later(_REVIVE_S, start_again, worker, context=contextvars.Context())

        def start_again(worker: SimNode) -> None:
            if not worker.running:
                cluster.start(worker)

        self.works.crash = crash
        cluster.jobs = Application(cluster.jobs, [Clerk()])

    async def user(self, cluster: SimCluster, desk: Desk, number: int, rng: Random) -> None:
        """One user: comes at some moment, does something, and sees what becomes of it."""
        visit = Visit(self, cluster, desk, number, rng)
        (play,) = rng.choices(self._plays, self._weights)
        await elapse(rng.uniform(0, self._storm_s))
        try:
            await play.script(visit)
        except* NotTaken:
            pass
        else:
            if play.row:
                self.rows_hit[play.row] += 1

    async def put_right(self, client: AsyncClient, *, late_calls: bool) -> None:
        """Sets back what users have changed, once no more of them come; see ``Changed``."""
        now_s = asyncio.get_running_loop().time()
        await elapse(max(0.0, self._storm_s - now_s) + _AGAIN_S)
        await self.changed.put_right(client, late_calls)

    async def probe(self, desk: Desk, partition: int, partitions: int) -> None:
        """A job that is submitted until it is taken, and works: the partition is alive."""
        queues = (f"probe-{number}" for number in count())
        queue = next(q for q in queues if home_partition("default", q, partitions) == partition)
        for attempt in count():
            text = f"probe {partition} {attempt}"
            handle = await desk.submit(self.works.echo, text, 0.0, queue=queue)
            if handle is not None:
                await desk.result(handle)
                return
            # A full store refuses at once.
            await elapse(_AGAIN_S)


class Visit:
    """What one user has at hand."""

    def __init__(
        self, load: Load, cluster: SimCluster, desk: Desk, number: int, rng: Random
    ) -> None:
        self.load = load
        self.works = load.works
        self.cluster = cluster
        self.desk = desk
        self.number = number
        self.rng = rng
        self._texts = 0

    @property
    def client(self) -> AsyncClient:
        """The user's client."""
        return self.desk.client

    def now_s(self) -> float:
        """The time, since the run's beginning."""
        return asyncio.get_running_loop().time()

    def text(self) -> str:
        """What no other job of the run is about."""
        self._texts += 1
        return f"user {self.number} job {self._texts}"

    def hold_s(self) -> float:
        """How long a job takes: some take no time, a few longer than a lease lives."""
        rng = self.rng
        if rng.random() < _LONG_SHARE:
            return rng.uniform(10, 25)
        return rng.choice((0.0, 0.05, 1.0, rng.uniform(0, 6), rng.uniform(0, 12)))

    def options(self) -> dict[str, Any]:
        """Where a job goes, and how urgent it is."""
        rng, topics = self.rng, self.load.topics
        options: dict[str, Any] = {"queue": rng.choice(QUEUES), "tenant": rng.choice(TENANTS)}
        if rng.random() < 0.3:
            options["priority"] = rng.randint(0, 10)
        if "limits" in topics and rng.random() < _KEYED_SHARE:
            options["limit_key"] = rng.choice(("red", "red", "green", "blue"))
        if "sticky" in topics and rng.random() < _STICKY_SHARE:
            options["sticky_key"] = f"disk {rng.randrange(3)}"
        if "labels" in topics and rng.random() < _LABELLED_SHARE:
            # Any one worker may be gone for good: what is required others have, too.
            options["requires"] = rng.choice(({}, {"zone": "*"}, {"zone": ["eu", "us"]}))
            options["prefers"] = rng.choice(({}, {"zone": "us"}, {"disk": "ssd", "zone": "eu"}))
        return options

    async def submit(self, hold_s: float, manner: str = "", times: int = 0, **more: Any) -> Handle:
        """Submits one job. Comes back only if it was taken.

        Raises:
            NotTaken: Nobody took it, or nobody knows.
        """
        options = {**self.options(), **more}
        args = (self.text(), hold_s, manner, times)
        handle = await self.desk.submit(self.works.act, *args, **options)
        if handle is None:
            raise NotTaken
        return handle

    def handle(self, job_id: str) -> Handle:
        """A handle that has not seen the job's end yet."""
        return AsyncJobHandle(self.client, job_id, self.works.act.name, self.works.act)

    async def see(self, handle: Handle, *others: Coroutine[Any, Any, None]) -> str:
        """Waits for a result, with other things going on meanwhile; how the job has ended."""
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(self.desk.result(handle))
            group.create_task(self.look(handle))
            for other in others:
                group.create_task(other)
        return waiting.result()

    async def see_all(
        self, handles: Iterable[Handle], *others: Coroutine[Any, Any, None]
    ) -> dict[str, str]:
        """The same of several jobs, and nobody looks: the ends by job."""
        async with asyncio.TaskGroup() as group:
            waiting = {each.id: group.create_task(self.desk.result(each)) for each in handles}
            for other in others:
                group.create_task(other)
        return {job_id: task.result() for job_id, task in waiting.items()}

    async def look(self, handle: Handle) -> None:
        """Reads a job now and then, or asks why it does not run."""
        for _ in range(self.rng.choice((0, 1, 1, 2))):
            await elapse(self.rng.uniform(0, 6))
            if "explanations" in self.load.topics and self.rng.random() < 0.7:
                await self.desk.explain(handle.id)
            else:
                await self.desk.get(handle.id)

    async def cancel(self, handle: Handle) -> None:
        """Cancels a job after a while, sometimes twice."""
        for _ in range(self.rng.choice((1, 1, 2))):
            await elapse(self.rng.uniform(0, 6))
            await self.desk.cancel(handle.id)

    async def give_up(self, handle: Handle, after_s: float) -> None:
        """Cancels a job that has not ended by then, until that is heard."""
        await elapse(after_s)
        while handle.known is None and not await self.desk.cancel(handle.id):
            await elapse(_AGAIN_S)


class NotTaken(Exception):
    """A user's job was not taken for certain: there is nothing more to do with it."""


Script = Callable[[Visit], Awaitable[None]]


class Play(NamedTuple):
    """Something that users do.

    Attributes:
        script: It.
        weight: How often, compared with the others.
        topic: What the run must be about; empty: anything.
        row: The row of the fault table that it injects; 0: none.
    """

    script: Script
    weight: int
    topic: str
    row: int


#: What users do.
PLAYS: Final[list[Play]] = []


def script(weight: int, topic: str = "", row: int = 0) -> Callable[[Script], Script]:
    """Registers what a user may do; see ``Play``."""

    def register(play: Script) -> Script:
        PLAYS.append(Play(play, weight, topic, row))
        return play

    return register
