"""A cluster in a test, on virtual time: what the fixture ``tenure_cluster`` gives.

    handle = tenure_cluster.client.submit(resize.options(delay=timedelta(hours=1)), "x")
    tenure_cluster.advance(timedelta(hours=1))
    assert handle.result(timeout=1).endswith("640")

Time passes only inside calls: each lets just as much of it pass as it needs, so whoever waits for a
job waits in virtual seconds. Idle time is leapt over as a laptop does it whose lid is closed: all
machines sleep at once, and wake up shortly before the next job is due.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Generator, Iterable
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self, TypeVar, TypeVarTuple

from tenure.client.client import AsyncClient
from tenure.client.errors import WaitTimeout, invalid
from tenure.client.handle import AsyncJobHandle
from tenure.client.job import JobDef
from tenure.client.scope import TaskScope
from tenure.client.sync import Client, client_over
from tenure.master.core.partition import Partition
from tenure.master.core.query import Filter
from tenure.master.node import keeper
from tenure.master.node.term import Term
from tenure.protocol.errors import Rejected, TenureError, Unavailable
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import JobState
from tenure.testing.clock import SimClock
from tenure.testing.cluster import SimCluster, StoreKind, simulated_cluster
from tenure.testing.executor import IN_JOB
from tenure.testing.loop import outside_loop, place_of
from tenure.testing.process import ProcessLoop
from tenure.testing.serving import ServingClient
from tenure.v1 import cluster_pb2
from tenure.worker.attempt import run_coroutine
from tenure.worker.executor.batch_call import coroutine_caller

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: How long before a job is due the nodes wake up. Masters on etcd have to prove their offices anew,
#: and hold back what workers say until then: their next heartbeats make sure that they are there.
_LEAD_S: Final = {"sqlite": 1.0, "etcd": 8.0}
#: Idle time that is not longer than the lead by so much passes at the cluster's own pace.
_LEAP_MIN_S: Final = 2.0
#: A job that is due and does not start within this time has no worker.
_START_S: Final = 5.0
#: Jobs that have run for so long may wait for something that never happens.
_STUCK_S: Final = 60.0
_POLL_S: Final = 0.05
_SLICE: Final = 1_000
#: Jobs that wait for a time.
_WAITING: Final = Filter(states=frozenset({JobState.SCHEDULED, JobState.RETRYING}))
#: Workers of an earlier release finish what they run, however long that takes.
_DRAIN_MS: Final = 366 * 86_400_000
#: A worker that waited so long before it is started again would be missed: it puts up with all.
_LOST_SLOTS_MAX: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a cluster is made.

    By default it is small: time passes quickly, and jobs begin to the millisecond. The clock of
    several masters is their median, and a fraction of a second off right after a failover.

    Attributes:
        masters: How many masters.
        workers: How many workers.
        partitions: How many partitions.
        slots: How many jobs each worker runs at once.
        seed: Of all randomness in it: the same seed and the same test give the same run.
    """

    masters: int = 1
    workers: int = 1
    partitions: int = 1
    slots: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"masters": 1, "workers": 0, "partitions": 1, "slots": 1}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise invalid(name, f"at least {minimum}, got {getattr(self, name)}")


class VirtualCluster:
    """A cluster in this process, for plain test functions. Use it with ``with``, or ``close()``.

    Whatever is submitted through its clients is served. Coroutine jobs may sleep; plain functions
    run as if they took no time.

    Attributes:
        sim: The nodes and the network between them, to break them in other ways than here.
        client: For the test.
        async_client: The same client, for what ``run`` runs.
    """

    sim: SimCluster

    def __init__(self, shape: Shape | None = None, jobs: Iterable[JobDef[..., Any]] = ()) -> None:
        """Starts it.

        Args:
            shape: How it is made.
            jobs: Served from the start on: for jobs that the test itself does not submit.
        """
        self._shape = shape or Shape()
        self._store: StoreKind = "sqlite" if self._shape.masters == 1 else "etcd"
        self._lead_s = _LEAD_S[self._store]
        self._leap_min_s = self._lead_s + _LEAP_MIN_S
        self._clock = SimClock()
        self._runner = asyncio.Runner(loop_factory=_ThreadlessLoop)
        self._handles: list[AsyncJobHandle[Any]] = []
        self._failure: BaseException | None = None
        self._work: asyncio.Task[Any] | None = None
        self._closed = False
        self._scope, self.async_client = self._runner.run(self._start(jobs))
        self.client: Client = client_over(self.async_client, _VirtualPortal(self))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it. Idempotent.

        Raises:
            ExceptionGroup: Something inside it failed that should not.
        """
        if self._closed:
            return
        self._closed = True
        with self._runner:
            self._runner.run(self._stop())
        if self.sim.network.failures:
            raise ExceptionGroup("the cluster's handlers failed", self.sim.network.failures)

    # Time.

    @property
    def now(self) -> datetime:
        """What the cluster's clocks show; they start with the year 2026."""
        return self.run(_value(self._now))

    def advance(self, by: timedelta) -> None:
        """Lets virtual time pass: all that is due within it happens, in order.

        Idle time costs nothing. While a job runs, a virtual minute costs about 50 ms.
        """
        if by < timedelta(0):
            raise invalid("by", f"no negative time, got {by}: clusters do not go back")
        self.run(self._advance(by.total_seconds()))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the cluster's event loop, for tests of async code.

        Time passes at the cluster's own pace: a virtual hour costs seconds.

        Args:
            work: What to run; ``async_client`` and ``asyncio.sleep`` work in it.

        Raises:
            TenureError: The cluster has failed.
        """
        try:
            self._claim()
        except TenureError:
            work.close()
            raise
        return self._runner.run(self._watched(work))

    # Nodes.

    def kill_leader(self, partition: int = 0) -> str:
        """Kills the master that leads a partition, as ``kill -9`` does, and returns its name.

        A supervisor starts it again at once. Whoever is first leads when its lease has run out.
        """
        return self.run(self._kill_leader(partition))

    def kill_worker(self, name: str | None = None) -> str:
        """Kills a worker, as ``kill -9`` does, and returns its name. It is started again at once.

        Args:
            name: Which; None: the one that runs most jobs.
        """
        return self.run(self._kill_worker(name))

    def serve(self, job: JobDef[..., Any]) -> None:
        """Lets the workers serve one more job. Clients do it with what they submit."""
        known = self.sim.jobs.get(job.name)
        if known is not None:
            if known.fn is not job.fn:
                raise invalid("job", f"one job of each name, but there is another {job.name}")
            return
        idle = not self.sim.jobs
        self.sim.jobs[job.name] = job  # type: ignore[index]
        # A worker tells what it can run when it registers.
        for worker in self.sim.workers.values():
            self.sim.release(worker)
            if idle:
                worker.retire()

    # Inside.

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.wall_ms() / 1000, UTC)

    def _claim(self) -> None:
        """It can be used, here and now."""
        if self._closed:
            raise Unavailable(
                "expected a test's cluster that runs, but its test is over",
                reason=Reason.UNREACHABLE,
            )
        if _in_loop() or self._runner.get_loop().is_running():
            raise Rejected(
                "expected to be called from a test's plain code: the cluster's time passes inside "
                "the call, so inside a coroutine use async_client, and run the coroutine with "
                "tenure_cluster.run(…); a job that submits jobs is a coroutine here",
                reason=Reason.INVALID_ARGUMENT,
            )

    async def _start(self, jobs: Iterable[JobDef[..., Any]]) -> tuple[TaskScope, AsyncClient]:
        scope = TaskScope()
        self._ending = asyncio.Event()
        started = asyncio.Event()
        await scope.start(self._keep([*jobs], started))
        await started.wait()
        client = ServingClient(
            ",".join(self.sim.addresses),
            timeout=120.0,
            transport=self.sim.network.transport("test"),
            rng=self.sim.rng("test"),
            serve=self.serve,
            handles=self._handles,
        )
        return scope, client

    async def _keep(self, jobs: Iterable[JobDef[..., Any]], started: asyncio.Event) -> None:
        shape = self._shape
        try:
            async with simulated_cluster(
                seed=shape.seed,
                jobs=jobs,
                masters=shape.masters,
                workers=shape.workers,
                partitions=shape.partitions,
                slots=shape.slots,
                store=self._store,
                drain_ms=_DRAIN_MS,
                lost_slots_max=_LOST_SLOTS_MAX,
                start=False,
            ) as self.sim:
                for master in self.sim.masters.values():
                    self.sim.start(master)
                # Before anybody calls them: the log of a test has nothing in it that means nothing.
                await self.sim.until(self._listening)
                for worker in self.sim.workers.values():
                    self.sim.start(worker)
                started.set()
                await self._ending.wait()
        except BaseException as error:
            self._failure = error
            if self._work is not None:
                self._work.cancel()
            raise

    def _listening(self) -> bool:
        return all(master.node is not None for master in self.sim.masters.values())

    async def _stop(self) -> None:
        await self.async_client.close()
        self._ending.set()
        await self._scope.close()

    def wait(self, work: Coroutine[Any, Any, T], timeout_s: float | None) -> T:
        """Runs what waits for jobs, and leaps over idle time; for ``client``.

        Raises:
            TenureError: It may wait for ever, and there is nothing more to wait for.
        """
        if timeout_s is None or timeout_s > self._leap_min_s:
            work = self._awaited(work, timeout_s)
        try:
            return self.run(work)
        except WaitTimeout as error:
            error.add_note(self.run(self._reason(error.job_id)))
            raise

    async def _awaited(self, work: Coroutine[Any, Any, T], timeout_s: float | None) -> T:
        enough = asyncio.Event()
        found: list[T] = []

        async def until_done() -> None:
            try:
                found.append(await work)
            finally:
                enough.set()

        async def pass_time() -> None:
            await self._advance(math.inf if timeout_s is None else timeout_s, enough)

        failure: TenureError | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(until_done())
                tasks.create_task(pass_time())
        except* _NothingDue as ends:
            failure = TenureError(
                "expected it to end, but there is nothing more to wait for: no job is due, and "
                + "; ".join(map(str, ends.exceptions))
            )
        except* TenureError as errors:
            # The wait's own; it is alone.
            (failure,) = (error for error in errors.exceptions if isinstance(error, TenureError))
        if failure is not None:
            raise failure
        return found[0]

    async def _reason(self, job_id: str) -> str:
        """Why a job has not ended, for whoever has waited in vain."""
        job = await self.async_client.describe(job_id)
        state = JobState(job.state)
        text = f"at {self._now():%F %T} by the cluster's clock it is {state.name}"
        if state in (JobState.SCHEDULED, JobState.RETRYING):
            text += (
                f", and due at {job.ready_at.ToDatetime():%F %T}:"
                " tenure_cluster.advance(…) lets time pass"
            )
        return text

    async def _watched(self, work: Coroutine[Any, Any, T]) -> T:
        self._work = asyncio.current_task()
        try:
            return await work
        except asyncio.CancelledError:
            if self._failure is None:
                raise
            raise TenureError(f"the cluster has failed: {self._failure!r}") from self._failure
        finally:
            self._work = None

    async def _kill_leader(self, partition: int) -> str:
        leader = await self.sim.elected(partition)
        leader.kill()
        await leader.process.join()
        self.sim.start(leader)
        return leader.name

    async def _kill_worker(self, name: str | None) -> str:
        if name is None:
            name = await self._busiest_worker()
        worker = self.sim.workers.get(name)
        if worker is None:
            raise invalid("name", f"one of {', '.join(self.sim.workers)}, got {name}")
        worker.kill()
        await worker.process.join()
        self.sim.start(worker)
        return name

    async def _busiest_worker(self) -> str:
        leases = dict.fromkeys(self.sim.workers, 0)
        for partition in range(self.sim.partitions):
            leader = await self.sim.elected(partition)
            if leader.node is not None:
                status = await leader.node.cluster.get_status(cluster_pb2.GetStatusRequest())
                leases |= {worker.name: worker.leases for worker in status.workers}
        return max(leases, key=leases.__getitem__)

    # Idle time.

    async def _advance(self, seconds: float, enough: asyncio.Event | None = None) -> None:
        """Lets time pass, until somebody has had enough of it."""
        loop = asyncio.get_running_loop()
        target_s = loop.time() + seconds
        enough = enough or asyncio.Event()
        while target_s - loop.time() > self._leap_min_s and not enough.is_set():
            await self._settle(target_s, enough)
            if target_s - loop.time() > self._leap_min_s and not enough.is_set():
                await self._pass_idle_time(target_s, enough)
        await _pause(target_s - loop.time(), enough)

    async def _settle(self, until_s: float, enough: asyncio.Event) -> None:
        """Waits until nothing runs, nor is about to.

        Raises:
            _NothingDue: That takes for ever, and ``until_s`` is no sooner.
        """
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        idle_since_s: float | None = None
        while loop.time() < until_s and not enough.is_set():
            ready, running = self._load()
            if math.isinf(until_s) and running and loop.time() - begun_s > _STUCK_S:
                self._demand_progress()
                begun_s = loop.time()
            if running or idle_since_s is None:
                idle_since_s = None if running else loop.time()
            elif not ready or loop.time() - idle_since_s > _START_S:
                # Not before: what a worker is sent while it ends costs the job an attempt.
                for worker in self.sim.workers.values():
                    worker.retire()
                return
            await _pause(_POLL_S, enough)

    def _demand_progress(self) -> None:
        """Something can still happen by itself.

        Raises:
            _NothingDue: Nothing can; it says what the running jobs wait for.
        """
        loop = asyncio.get_running_loop()
        if isinstance(loop, ProcessLoop) and loop.has_timer(IN_JOB):
            return
        for term in self._terms():
            scan = term.partition.scan(_WAITING)
            while not scan.done:
                if scan.take(_SLICE, 1):
                    return
        executors = [worker.executor for worker in self.sim.workers.values() if worker.running]
        if all(one is None or one.next_wake_ms() is None for one in executors):
            jobs = [task for task in asyncio.all_tasks() if task.get_name().startswith("job ")]
            raise _NothingDue(
                "what runs waits for something else than time: "
                + ("; ".join(sorted(map(_told, jobs))) or "a partition has no leader")
            )

    def _load(self) -> tuple[int, int]:
        """How many jobs are ready and how many run; a partition without a leader counts as busy."""
        terms = self._terms()
        if len(terms) < self.sim.partitions:
            return 0, 1
        stats = [term.partition.stats() for term in terms]
        return sum(one.ready for one in stats), sum(one.running for one in stats)

    def _terms(self) -> list[Term]:
        """The terms that serve now."""
        leaders = [(number, self.sim.leader(number)) for number in range(self.sim.partitions)]
        return [
            leader.node.roster.terms[number]
            for number, leader in leaders
            if leader is not None and leader.node is not None
        ]

    async def _pass_idle_time(self, target_s: float, enough: asyncio.Event) -> None:
        """Leaps to shortly before the next job is due; or waits for it, if that is soon."""
        loop = asyncio.get_running_loop()
        await self._keep_results()
        due_s = self._next_s(lambda partition: partition.next_job_timer_ms())
        if due_s is None and math.isinf(target_s):
            raise _NothingDue("none runs")
        tick_s = self._next_s(lambda partition: partition.next_tick_ms())
        due_s = min(at_s for at_s in (target_s, due_s, tick_s) if at_s is not None)
        if due_s - loop.time() <= self._leap_min_s:
            await _pause(due_s - loop.time() + _POLL_S, enough)
            return
        with _quiet():
            self.sim.sleep(due_s - self._lead_s - loop.time())
            # Enough for everybody to notice how late it is.
            await _pause(self._lead_s / 2, enough)

    async def _keep_results(self) -> None:
        """Fetches results that a test may ask for when the masters have purged them."""
        handles = [handle for handle in self._handles if handle.known is None]
        if handles:
            await self.async_client.wait_all(handles, timeout=_POLL_S)

    def _next_s(self, when: Callable[[Partition], int | None]) -> float | None:
        """When, by the loop's clock, something is due in any partition."""
        now_s = asyncio.get_running_loop().time()
        times = [
            now_s + (due_ms - term.clock.now_ms()) / 1000
            for term in self._terms()
            if (due_ms := when(term.partition)) is not None
        ]
        return min(times, default=None)


def _told(job: asyncio.Task[Any]) -> str:
    """Which job it is, and where in its own code it waits."""
    place = place_of(job)
    for caller in (run_coroutine.__qualname__, f"{coroutine_caller.__qualname__}.<locals>.run"):
        _, found, inside = place.rpartition(f"{caller}:")
        if found:
            place = inside.partition(" > ")[2]
            break
    return f"{job.get_name()} at {place}"


class _ThreadlessLoop(ProcessLoop):
    """What should run in a thread runs at once, and takes no time, as plain jobs do."""

    def __init__(self) -> None:
        super().__init__(None)

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            with outside_loop():
                future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  (whoever awaits it gets it, as from a thread)
            future.set_exception(error)
        return future


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Masters need not tell the log that they have overslept."""
    log = logging.getLogger(keeper.__name__)
    log.addFilter(_is_news)
    try:
        yield
    finally:
        log.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return getattr(record, "action", None) != "doubt"


class _VirtualPortal:
    """What a plain client's calls go through: each runs the cluster until it is done."""

    def __init__(self, cluster: VirtualCluster) -> None:
        self._cluster = cluster

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._cluster.run(work)

    def run_wait(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        return self._cluster.wait(work, timeout_s)

    def wind_up(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            self._cluster.run(work)
        except TenureError:
            work.close()  # Its test is over, or the collector found it inside the loop.

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """The cluster closes its client itself, when it ends."""


class _NothingDue(Exception):
    """No time that passes will change anything."""


async def _pause(seconds: float, enough: asyncio.Event) -> None:
    """Lets so much time pass, or less if somebody has enough of it."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await enough.wait()
    except TimeoutError:
        return


async def _value(read: Callable[[], T]) -> T:
    return read()


def _in_loop() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
