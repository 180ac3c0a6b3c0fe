"""What users do in a random run: jobs of every kind, and whatever one can ask of them.

    load = Load(users=30, storm_s=40.0)
    async with simulated_cluster(seed=1, jobs=load.jobs) as cluster:
        await asyncio.gather(*(load.user(cluster, desk, number, rng) ...))

Each user draws all that it does from a randomness of its own, so that a run may leave some of them
out and the others do what they did. What jobs do is in their arguments: all return the first one.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count, cycle, islice
from random import Random
from typing import Any, Final

from tenure.client import (
    AsyncJob,
    AsyncJobHandle,
    Cancelled,
    JobState,
    Permanent,
    Retry,
    RetryLater,
    TenureError,
    Unavailable,
    current_job,
    job,
)
from tenure.client.codec import encode_args
from tenure.protocol.ids import home_partition, mint
from tenure.testing.clock import WALL_ORIGIN_MS
from tenure.testing.cluster import SimCluster, SimNode
from tenure.testing.network import SimTransport
from tenure.testing.process import Process, current_process, elapse
from tenure.v1 import jobs_pb2
from tenure.worker.middleware import Application
from tests.oracles.history import END, QUIT, START, SUBMIT, Fields, hash_of
from tests.simulation.ledger import Desk, Ledger
from tests.simulation.parcels import Clerk, forwarder

#: Retries come at once and losses are no poison: a run has many of both.
PATIENT: Final = Retry(max_attempts=4, max_lost=10, backoff="none")
#: A job looks so often whether it should stop (the oracles' ``reaction_ms`` is longer).
_LOOK_S: Final = 1.5
#: How many jobs may take longer than a lease lives: they keep a slot from all others.
_LONG_SHARE: Final = 0.06
#: Jobs on several queues of several tenants: with partitions, most runs use all of them.
_QUEUES: Final = ("default", "default", "media", "mail", "bulk")
_TENANTS: Final = ("default", "default", "default", "acme")
#: Whoever is refused tries again so much later.
_AGAIN_S: Final = 1.0
#: A worker that a job has killed is started again so much later.
_REVIVE_S: Final = 2.0
_SUBMIT_JOBS: Final = "/tenure.v1.JobService/SubmitJobs"
#: A client without our SDK gives up after so many masters have not answered.
_TRIES: Final = 60

Handle = AsyncJobHandle[str]


#: Rows of the fault table that users inject: jobs that kill their workers, jobs that hang, and many
#: users with many workers at a failover.
CROWD_ROW: Final = 52
BY_USERS: Final = frozenset({15, 17, CROWD_ROW})


class Works:
    """The jobs, each of which records its start and its end.

    Attributes:
        ledger: Where to.
        echo: Returns its argument after a while, perhaps after some failures.
        act: Behaves as its arguments say.
        forward: Takes and returns a typed value.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        #: Kills the worker whose job asks for it; set when there is a cluster.
        self.crash: Callable[[Process], None] = lambda _: None

        @job(name="echo", retry=PATIENT)
        async def echo(text: str, hold_s: float = 0.0, failures: int = 0) -> str:
            return await self._run(text, hold_s, "fail", failures)

        @job(name="act", retry=PATIENT)
        async def act(text: str, hold_s: float, manner: str, times: int = 0) -> str:
            return await self._run(text, hold_s, manner, times)

        self.echo: AsyncJob[..., str] = echo
        self.act: AsyncJob[..., str] = act
        self.forward = forwarder(ledger)

    async def _run(self, text: str, hold_s: float, manner: str, times: int) -> str:
        content = hash_of(text)
        self.ledger.observe(START, hash=content)
        try:
            await self._hold(hold_s, manner)
            self._end(manner, times)
            if manner == "poison" and current_job().attempt <= times:
                await self._die()
        except BaseException:
            self.ledger.observe(QUIT)
            raise
        self.ledger.observe(END, hash=content)
        return text

    async def _hold(self, hold_s: float, manner: str) -> None:
        """Takes its time, and looks now and then whether it should stop."""
        left_s = hold_s
        while left_s > 0:
            step_s = min(left_s, _LOOK_S)
            try:
                await elapse(step_s)
                if manner == "progress":
                    current_job().progress(100 * (1 - left_s / hold_s))
                else:
                    current_job().checkpoint()
            except (Cancelled, asyncio.CancelledError):
                # A stubborn one goes on, unless its whole process ends.
                process = current_process()
                if manner != "stubborn" or process is None or process.killed:
                    raise
            left_s -= step_s

    @staticmethod
    def _end(manner: str, times: int) -> None:
        """Fails, if that is its manner."""
        me = current_job()
        if me.attempt > times:
            return
        match manner:
            case "fail":
                raise RuntimeError("as it was told to")
            case "later":
                raise RetryLater(timedelta(seconds=0.5 * me.attempt))
            case "permanent" if int(me.fence[-8:], 16) == 0:
                raise Permanent("until it is requeued")

    async def _die(self) -> None:
        process = current_process()
        if process is not None:
            self.crash(process)
        await elapse(3600)


class Load:
    """The users of one run.

    Attributes:
        ledger: What all of them, and the jobs, saw.
        jobs: What workers serve.
    """

    def __init__(self, storm_s: float) -> None:
        """Args:
        storm_s: Users come within this time.
        """
        self.ledger = Ledger()
        self.works = Works(self.ledger)
        self.jobs: list[AsyncJob[..., Any]] = [self.works.echo, self.works.act, self.works.forward]
        #: How often the users themselves injected a row of the fault table.
        self.rows_hit: Counter[int] = Counter()
        self._storm_s = storm_s

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
        visit = Visit(self.works, cluster, desk, number, rng)
        (script,) = rng.choices(SCRIPTS, _WEIGHTS)
        await elapse(rng.uniform(0, self._storm_s))
        if script.__name__ == run_into_limit.__name__:
            self.rows_hit[17] += 1
        await script(visit)

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
        self, works: Works, cluster: SimCluster, desk: Desk, number: int, rng: Random
    ) -> None:
        self.works = works
        self.cluster = cluster
        self.desk = desk
        self.number = number
        self.rng = rng
        self._texts = 0

    def text(self) -> str:
        """What no other job of the run is about."""
        self._texts += 1
        return f"user {self.number} job {self._texts}"

    def hold_s(self) -> float:
        """How long a job takes: some take no time, a few longer than a lease lives."""
        rng = self.rng
        if rng.random() < _LONG_SHARE:
            return rng.uniform(10, 40)
        return rng.choice((0.0, 0.05, 1.0, rng.uniform(0, 6), rng.uniform(0, 12)))

    def options(self) -> dict[str, Any]:
        """Where a job goes, and how urgent it is."""
        rng = self.rng
        options: dict[str, Any] = {"queue": rng.choice(_QUEUES), "tenant": rng.choice(_TENANTS)}
        if rng.random() < 0.3:
            options["priority"] = rng.randint(0, 10)
        return options

    async def submit(self, hold_s: float, manner: str = "", times: int = 0, **more: Any) -> Handle:
        """Submits one job. Comes back only if it was taken.

        Raises:
            _NotTaken: Nobody took it, or nobody knows.
        """
        options = {**self.options(), **more}
        args = (self.text(), hold_s, manner, times)
        handle = await self.desk.submit(self.works.act, *args, **options)
        if handle is None:
            raise _NotTaken
        return handle

    async def see(self, handle: Handle, *others: Coroutine[Any, Any, None]) -> str:
        """Waits for a result, with other things going on meanwhile; how the job has ended."""
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(self.desk.result(handle))
            group.create_task(self.look(handle))
            for other in others:
                group.create_task(other)
        return waiting.result()

    async def look(self, handle: Handle) -> None:
        """Reads a job now and then."""
        for _ in range(self.rng.choice((0, 1, 1, 2))):
            await elapse(self.rng.uniform(0, 6))
            await self.desk.get(handle.id)

    async def cancel(self, handle: Handle) -> None:
        """Cancels a job after a while, sometimes twice."""
        for _ in range(self.rng.choice((1, 1, 2))):
            await elapse(self.rng.uniform(0, 6))
            await self.desk.cancel(handle.id)


class _NotTaken(Exception):
    """A user's job was not taken for certain: there is nothing more to do with it."""


Script = Callable[[Visit], Awaitable[None]]
#: What users do, and how often compared with each other.
SCRIPTS: Final[list[Script]] = []
_WEIGHTS: Final[list[int]] = []


def script(weight: int) -> Callable[[Script], Script]:
    """Registers what a user may do."""

    def register(play: Script) -> Script:
        async def patient(visit: Visit) -> None:
            try:
                await play(visit)
            except* _NotTaken:
                pass

        patient.__name__ = play.__name__
        SCRIPTS.append(patient)
        _WEIGHTS.append(weight)
        return play

    return register


@script(10)
async def work(visit: Visit) -> None:
    """A job that works."""
    await visit.see(await visit.submit(visit.hold_s()))


@script(8)
async def fail_at_first(visit: Visit) -> None:
    """A job that fails once or a few times, with every kind of backoff."""
    rng = visit.rng
    retry = Retry(
        max_attempts=rng.randint(2, 4),
        max_lost=10,
        backoff=rng.choice(("exponential", "linear", "fixed", "fibonacci", "none", "none")),
        base=timedelta(milliseconds=rng.choice((10, 200, 1_000))),
        jitter=rng.choice(("full", "equal", "none")),
    )
    manner = rng.choice(("fail", "fail", "fail", "later"))
    await visit.see(
        await visit.submit(visit.hold_s() / 4, manner, rng.choice((1, 1, 2, 9)), retry=retry)
    )


@script(5)
async def wait_first(visit: Visit) -> None:
    """A job that becomes ready later: after a delay, or at a time of day."""
    rng = visit.rng
    after = timedelta(seconds=rng.choice((0.5, 3, rng.uniform(0, 15))))
    if rng.random() < 0.7:
        handle = await visit.submit(0.0, delay=after)
    else:
        now_s = asyncio.get_running_loop().time() + WALL_ORIGIN_MS / 1000
        handle = await visit.submit(0.0, at=datetime.fromtimestamp(now_s, UTC) + after)
    others = [visit.cancel(handle)] if rng.random() < 0.2 else []
    await visit.see(handle, *others)


@script(5)
async def change_mind(visit: Visit) -> None:
    """A job that is cancelled; it may not listen."""
    manner = visit.rng.choice(("", "", "progress", "stubborn"))
    handle = await visit.submit(visit.rng.uniform(0, 10), manner)
    await visit.see(handle, visit.cancel(handle))


@script(4)
async def bring_many(visit: Visit) -> None:
    """A batch, of which all results are read."""
    rng, works = visit.rng, visit.works
    job = works.act.options(**visit.options())
    calls = [(visit.text(), visit.hold_s() / 4, "fail", 0) for _ in range(rng.randint(2, 8))]
    handles = await visit.desk.submit_many(job, calls)
    async with asyncio.TaskGroup() as group:
        for handle in handles:
            group.create_task(visit.desk.result(handle))


@script(3)
async def share_key(visit: Visit) -> None:
    """Two clients submit the same thing under one key, at the same time or one after the other."""
    rng = visit.rng
    text, hold_s = visit.text(), visit.hold_s()
    options = {**visit.options(), "key": f"key {visit.number}"}
    if rng.random() < 0.2:
        options["key_window"] = timedelta(seconds=30)
    desks = [visit.desk, Desk(visit.desk.ledger, visit.cluster.client())]

    async def bring(desk: Desk, after_s: float) -> None:
        await elapse(after_s)
        handle = await desk.submit(visit.works.act, text, hold_s, "", 0, **options)
        if handle is not None:
            await desk.result(handle)

    async with asyncio.TaskGroup() as group:
        for desk in desks:
            group.create_task(bring(desk, rng.choice((0.0, 0.0, rng.uniform(0, 8)))))


@script(3)
async def revive(visit: Visit) -> None:
    """A job that fails for good, and is requeued until it works."""
    handle = await visit.submit(visit.hold_s() / 4, "permanent", 9)
    if await visit.see(handle) != "FAILED":
        return
    await elapse(visit.rng.uniform(0, 3))
    await visit.desk.requeue(handle.id)
    await visit.see(_handle(visit, handle.id))


def _handle(visit: Visit, job_id: str) -> Handle:
    """A handle that has not seen the job's end yet."""
    return AsyncJobHandle(visit.desk.client, job_id, visit.works.act.name, visit.works.act)


@script(2)
async def forget(visit: Visit) -> None:
    """A job that is purged when it has ended; then nobody knows it."""
    handle = await visit.submit(0.0)
    await visit.see(handle)
    await visit.desk.purge(handle.id)
    await visit.desk.get(handle.id)


@script(3)
async def run_into_limit(visit: Visit) -> None:
    """A job that hangs, beats too rarely, or waits too long: one of its limits ends it."""
    rng = visit.rng
    limit = timedelta(seconds=rng.uniform(0.5, 4))
    retry = Retry(max_attempts=2, max_lost=10, backoff="none")
    name = rng.choice(("timeout", "timeout", "heartbeat_timeout", "schedule_timeout", "deadline"))
    if name == "schedule_timeout":
        delay = limit * rng.choice((0.5, 2))
        handle = await visit.submit(0.0, schedule_timeout=limit, delay=delay)
    else:
        manner = rng.choice(("", "stubborn", "progress"))
        options: dict[str, Any] = {"retry": retry, name: limit}
        handle = await visit.submit(rng.uniform(1, 12), manner, **options)
    await visit.see(handle)


@script(1)
async def poison(visit: Visit) -> None:
    """A job that kills its worker, once or more often than it may."""
    retry = Retry(max_attempts=2, max_lost=visit.rng.randint(1, 2), backoff="none")
    times = visit.rng.randint(1, 3)
    await visit.see(await visit.submit(0.0, "poison", times, retry=retry))


@script(2)
async def run_once(visit: Visit) -> None:
    """A job that must not run twice."""
    await visit.see(await visit.submit(visit.hold_s(), at_most_once=True))


@script(3)
async def survey(visit: Visit) -> None:
    """Lists and counts, with filters, now and then."""
    rng = visit.rng
    for _ in range(3):
        await elapse(rng.uniform(0, 6))
        wanted = rng.choice(({}, {}, {"tenant": "acme"}, {"queue": "media"}))
        await visit.desk.list(**wanted)
        try:
            await visit.desk.client.count(states=[JobState.RUNNING])
        except Unavailable:
            continue


@script(2)
async def watch(visit: Visit) -> None:
    """Watches for a while, leaves, and comes back with the cursor of the last event."""
    rng, cursor = visit.rng, None
    for _ in range(2):
        try:
            async with asyncio.timeout(rng.uniform(1, 10)):
                async for event in visit.desk.client.watch(cursor=cursor):
                    cursor = event.cursor
        except (TimeoutError, TenureError):
            pass
        await elapse(rng.uniform(0, 3))


@script(2)
async def die_amid(visit: Visit) -> None:
    """A client process that is killed and started anew, and sends again what it had written down.

    Its jobs' ids are on its disk before they are sent: the same ids are the same jobs.
    """
    rng, name = visit.rng, f"u{visit.number}"
    sheets = [_Sheet(visit) for _ in range(rng.randint(1, 4))]
    async with asyncio.TaskGroup() as group:
        process = Process(name)
        process.start(group, lambda: _send_all(visit, name, sheets))
        await elapse(rng.uniform(0, 3))
        visit.cluster.network.crash(name)
        process.kill()
        await process.join()
        visit.desk.ledger.close(process)
        await elapse(rng.uniform(0, 4))
        process = Process(name)
        process.start(group, lambda: _send_all(visit, name, sheets))
        await process.join()
    async with asyncio.TaskGroup() as group:
        for sheet in sheets:
            if sheet.taken:
                group.create_task(visit.desk.result(_handle(visit, sheet.job_id)))


class _Sheet:
    """One job of a client without our SDK, which writes it down before it sends it."""

    def __init__(self, visit: Visit) -> None:
        self.text, options = visit.text(), visit.options()
        queue, tenant = options["queue"], options["tenant"]
        job = visit.works.act.options(queue=queue, tenant=tenant)
        #: Whether it was told that it is taken.
        self.taken = False
        now_ms = WALL_ORIGIN_MS + int(asyncio.get_running_loop().time() * 1000)
        partition = home_partition(tenant, queue, visit.cluster.partitions)
        self.job_id = mint(partition, now_ms, visit.rng.getrandbits(62))
        self.asked: Fields = {
            "job": self.job_id,
            "hash": hash_of(self.text),
            "queue": queue,
            "tenant": tenant,
        }
        self.request = jobs_pb2.SubmitJobsRequest(options=[job.wire])
        payload = encode_args(job, (self.text, visit.hold_s() / 4, "", 0), {})
        self.request.jobs.add(job_id=self.job_id, payload=payload)


async def _send_all(visit: Visit, name: str, sheets: Sequence[_Sheet]) -> None:
    """The program of a client that is killed: all its jobs, at once."""
    transport = visit.cluster.network.transport(name)
    async with asyncio.TaskGroup() as group:
        for sheet in sheets:
            if not sheet.taken:
                group.create_task(_send(visit, transport, sheet))
    await transport.close()


async def _send(visit: Visit, transport: SimTransport, sheet: _Sheet) -> None:
    """Sends one job to one master after the other until it is answered."""
    ledger = visit.desk.ledger
    call = ledger.invoke(SUBMIT, **sheet.asked)
    for address in islice(cycle(visit.cluster.addresses), _TRIES):
        try:
            answer = await transport.unary(
                address, _SUBMIT_JOBS, sheet.request, jobs_pb2.SubmitJobsResponse, 5.0
            )
        except TenureError:
            await elapse(0.5)
            continue
        if not answer.errors:
            sheet.taken = True
            ledger.write("ok", SUBMIT, call, **sheet.asked)
            return
        break
    # Refused now, it may have been taken by an earlier try all the same.
    ledger.write("info", SUBMIT, call, **sheet.asked)
