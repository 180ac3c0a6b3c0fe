"""The worker node: the arbiter's shell. It carries bytes, time and orders, and decides nothing.

Session and gRPC live in the main thread's loop; user code never does. So however long a job blocks
its loop or computes, heartbeats go out in time (only code that holds the interpreter's lock for
seconds, such as one huge regular expression, could delay them: run that with
``executor="process"``).
"""

import asyncio
import gc
import json
import logging
import os
import random
import signal
import socket
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from tenure.client.addresses import Addresses
from tenure.client.argument_schema import schema_of
from tenure.client.channel import GrpcTransport
from tenure.client.client import AsyncClient
from tenure.client.security import Credentials
from tenure.client.transport import Transport
from tenure.protocol import loop
from tenure.protocol.errors import Rejected, TenureError
from tenure.protocol.limits import PROTOCOL_REVISION
from tenure.protocol.systemd import Notifier
from tenure.v1 import cluster_pb2, worker_pb2
from tenure.worker import app, capture, herald, probe, sources
from tenure.worker.arbiter import Arbiter
from tenure.worker.attempt import JobTable
from tenure.worker.cgroup import take_over_for
from tenure.worker.clock import SystemClock
from tenure.worker.config import WorkerConfig
from tenure.worker.crew import Announce, Crew, MakeExecutor
from tenure.worker.executor.patience import RELEASE_GRACE_MS
from tenure.worker.executor.pool import pool_maker
from tenure.worker.lifeline import Lifeline
from tenure.worker.link import MasterLink
from tenure.worker.memory import MemoryReader
from tenure.worker.parents import ParentResults
from tenure.worker.pools import DEFAULT, Pool
from tenure.worker.port import Clock, Load, Rng
from tenure.worker.pulse import Phase, Pulse, rss_bytes
from tenure.worker.session import Session
from tenure.worker.sources import Sources
from tenure.worker.vitals import Gauge, Reading

_LOGGER: Final = logging.getLogger(__name__)
#: Deadlines are looked at this often at least.
TICK_MS_MAX: Final = 100
TOPOLOGY_MS: Final = 10_000
TOPOLOGY_METHOD: Final = "/tenure.v1.ClusterService/GetTopology"
#: At its start a worker waits so long for a master's word that it may come in.
ASK_TIMEOUT_S: Final = 2.0
#: How long the last verdicts, and then the ends of the streams, are waited for.
LAST_WORDS_MS: Final = 2_000
#: Young objects before a collection. Python's 700 are a few dozen jobs: it would look at all held
#: ones over and over, for a quarter of the worker's CPU.
GC_YOUNG_MAX: Final = 20_000


class WorkerNode:
    """A worker from its first dial to its goodbye."""

    def __init__(
        self,
        hello: worker_pb2.Hello,
        masters: list[str],
        *,
        transport: Transport,
        clock: Clock,
        rng: Rng,
        make_executor: MakeExecutor,
        drain_timeout_ms: int,
        announce: Announce,
        gauge: Gauge | None = None,
    ) -> None:
        """Dials nothing yet.

        Args:
            hello: How it introduces itself.
            masters: Addresses to start with.
            transport: The network.
            clock: Time.
            rng: For jitter.
            make_executor: Builds what runs the jobs.
            drain_timeout_ms: How long jobs may go on after ``drain``.
            announce: Told of registrations, drain and end.
            gauge: Reads how the process does; None: nobody is told.
        """
        self._hello = hello
        self._transport = transport
        self._clock = clock
        self._rng = rng
        self._drain_timeout_ms = drain_timeout_ms
        self._announce = announce
        self._gauge = gauge
        self._executor = make_executor(self._wake_from_any_thread)
        self._arbiter = Arbiter(
            hello,
            rng,
            batch_sizes=self._executor.batch_sizes,
            drain_timeout_ms=drain_timeout_ms,
            look=self._look_at_itself,
        )
        self._addresses = Addresses(masters)
        self._links: dict[str, MasterLink] = {}
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._kept: list[asyncio.Task[None]] = []
        self._asked = False
        self._draining = asyncio.Event()
        self._hurry = asyncio.Event()
        self._moved = asyncio.Event()

    async def run(self) -> None:
        """Works until ``drain`` has been asked for and is done."""
        self._loop = asyncio.get_running_loop()
        self._executor.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._kept = [
                    tasks.create_task(self._keep_time()),
                    tasks.create_task(self._keep_topology()),
                ]
                for address in self._addresses:
                    self._dial(address)
                await self._draining.wait()
                await self._wind_down()
                for task in (*self._kept, *self._dialling.values()):
                    task.cancel()
        finally:
            self._executor.close()
            self._announce("stopped", {"name": self._hello.name})

    def drain(self) -> None:
        """Finish what runs and end; asked a second time: hand back at once."""
        if self._asked:
            self._hurry.set()
        self._asked = True
        self._draining.set()

    def retire(self) -> None:
        """Finish what runs and end, though nobody has asked for it."""
        self._draining.set()

    def hurry(self) -> None:
        """When it drains: hand back at once."""
        self._hurry.set()

    def pause(self, *, paused: bool) -> None:
        """Take no more jobs, and hand back what has not begun; or take some again."""
        self._arbiter.pause(paused=paused)
        self._step()

    @property
    def running(self) -> int:
        """How many jobs have begun and not ended."""
        return self._arbiter.running

    def pulse(self) -> Pulse:
        """How it is, for its supervisor and for probes."""
        masters = sum(1 for session in self._arbiter.sessions if session.master)
        phase = Phase.READY if masters else Phase.STARTING
        return Pulse(
            phase=Phase.DRAINING if self._draining.is_set() else phase,
            slots=self._hello.slots,
            busy=self._arbiter.busy,
            backlog=self._arbiter.backlog,
            masters=masters,
            rss_bytes=rss_bytes(),
            ended={outcome.name: n for outcome, n in self._arbiter.ended.items() if n},
        )

    # Links: the Owner port.

    def opened(self, address: str) -> Session:
        return self._arbiter.stream_opened(address, self._clock.boot_ms())

    def received(self, session: Session, said: worker_pb2.SessionResponse) -> bool:
        drained, quarantine = self._arbiter.drained, self._arbiter.quarantine
        addresses = self._arbiter.received(session, said, self._clock.boot_ms())
        if self._arbiter.drained is not drained:
            self._tell_drained(drained=not drained)
        if self._arbiter.quarantine != quarantine:
            self._tell_quarantine()
        if said.HasField("welcome"):
            if self._has_other(session):
                return False
            self._announce(
                "registered",
                {
                    "name": self._hello.name,
                    "master": session.master,
                    "address": session.address,
                    "incarnation": self._hello.incarnation,
                    "jobs": [*self._hello.job_names],
                },
            )
        if addresses:
            self._named(addresses)
        self._step()
        return True

    def _tell_drained(self, *, drained: bool) -> None:
        """Says that an operator wants no more work here, or wants some again."""
        if drained:
            _LOGGER.info(
                "an operator has drained this worker: it takes nothing more until it is undrained",
                extra={"action": "drain"},
            )
            self._announce("drained", {"name": self._hello.name})
        else:
            _LOGGER.info("an operator lets this worker work again", extra={"action": "undrain"})
            self._announce("undrained", {"name": self._hello.name})

    def _tell_quarantine(self) -> None:
        """Says that masters give this worker nothing, or do again."""
        quarantine, name = self._arbiter.quarantine, self._hello.name
        if quarantine is None:
            _LOGGER.info("released from quarantine", extra={"action": "release"})
            self._announce("released", {"name": name})
            return
        why = quarantine.reason or "an operator wants it"
        _LOGGER.warning(
            "in quarantine, masters give this worker nothing: %s",
            why,
            extra={"action": "quarantine"},
        )
        self._announce("quarantined", {"name": name, "reason": why})

    def closed(self, session: Session) -> None:
        self._arbiter.stream_closed(session)
        self._step()

    def _has_other(self, session: Session) -> bool:
        """Whether the session's master is known by another address already."""
        return any(
            other is not session and other.master == session.master
            for other in self._arbiter.sessions
        )

    def _dial(self, address: str) -> None:
        """Keeps a stream to this address from now on."""
        if not address or address in self._links or self._tasks is None:
            return
        link = MasterLink(
            address,
            owner=self,
            transport=self._transport,
            clock=self._clock,
            rng=self._rng,
        )
        self._links[address] = link
        self._dialling[address] = self._tasks.create_task(link.run())

    def _named(self, addresses: Iterable[str]) -> None:
        """A master has named all that it knows: dials the new ones, and the forgotten no more."""
        welcomed = [session.address for session in self._arbiter.sessions if session.master]
        now_s = self._clock.boot_ms() / 1000
        for address in self._addresses.named([*addresses, *welcomed], now_s):
            del self._links[address]
            self._dialling.pop(address).cancel()
            self._transport.forget(address)
        for address in self._addresses:
            self._dial(address)

    # What drives the arbiter.

    def _look_at_itself(self, now_ms: int) -> tuple[Load, Reading]:
        reading = Reading() if self._gauge is None else self._gauge.read(now_ms)
        return self._executor.load(now_ms), reading

    def _wake_from_any_thread(self) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # The loop is closed: nobody wants to know any more.
                self._loop.call_soon_threadsafe(self._take_facts)

    def _take_facts(self) -> None:
        self._arbiter.happened(self._executor.take_facts())
        self._step()

    async def _keep_time(self) -> None:
        while True:
            now_ms = self._clock.boot_ms()
            self._executor.tick(now_ms)
            for session in self._arbiter.tick(now_ms):
                link = self._links.get(session.address)
                # A forgotten link's stream is on its way to its end.
                if link is not None:
                    link.drop()
            self._step()
            times = (self._arbiter.next_wake_ms(), self._executor.next_wake_ms())
            wait_ms = min(
                (due_ms - now_ms for due_ms in times if due_ms is not None), default=TICK_MS_MAX
            )
            sleep_ms = min(max(wait_ms, 1), TICK_MS_MAX)
            await self._clock.sleep(sleep_ms)
            if self._gauge is not None:
                self._gauge.late(self._clock.boot_ms() - now_ms - sleep_ms)

    async def _keep_topology(self) -> None:
        """Finds masters that came after the Welcome."""
        while True:
            await self._clock.sleep(TOPOLOGY_MS)
            for session in list(self._arbiter.sessions):
                if not session.master:
                    continue
                try:
                    topology = await self._transport.unary(
                        session.address,
                        TOPOLOGY_METHOD,
                        cluster_pb2.GetTopologyRequest(),
                        cluster_pb2.GetTopologyResponse,
                        2.0,
                    )
                except TenureError:
                    continue
                self._named(topology.masters)
                break

    def _step(self) -> None:
        """Carries out what the arbiter has decided."""
        orders = self._arbiter.take_orders()
        if orders is not None:
            if orders.runs:
                self._executor.run(orders.runs)
            for job in orders.leases:
                self._executor.tell_lease(job)
            for job, outcome in orders.stops:
                self._executor.stop(job, outcome)
        for link in self._links.values():
            link.wake()
        self._moved.set()

    # The way out.

    async def _wind_down(self) -> None:
        """Finishes, hands back the rest, says goodbye."""
        self._announce("draining", {"name": self._hello.name})
        arbiter = self._arbiter
        arbiter.drain()
        self._step()
        await self._until(
            lambda: self._hurry.is_set() or (arbiter.held == 0 and self._is_quits),
            self._drain_timeout_ms,
        )
        if arbiter.running:
            _LOGGER.info(
                "handing back %d jobs that have not ended",
                arbiter.running,
                extra={"action": "drain"},
            )
            arbiter.interrupt()
            self._step()
            await self._until(lambda: arbiter.running == 0, 2 * RELEASE_GRACE_MS)
            arbiter.forsake()
            self._step()
        await self._until(lambda: arbiter.deliverable == 0 and self._is_quits, LAST_WORDS_MS)
        arbiter.say_goodbye("drained")
        for link in self._links.values():
            link.leave()
        await self._until(lambda: not arbiter.sessions, LAST_WORDS_MS)

    @property
    def _is_quits(self) -> bool:
        """Whether masters believe nothing to be here that is not.

        A grant that nobody answers, and a lease that nobody knows to be handed back, would cost
        their jobs the whole lease, and a loss.
        """
        return self._arbiter.expected == 0 and self._arbiter.unheard == 0

    async def _until(self, done: Callable[[], bool], timeout_ms: int) -> None:
        """Waits until something is so, or for this long."""
        deadline_ms = self._clock.boot_ms() + timeout_ms
        while not done() and self._clock.boot_ms() < deadline_ms:
            self._moved.clear()
            # The clock's own ticks set the event too, so no timeout is needed here.
            await self._moved.wait()


def introduction(
    config: WorkerConfig, jobs: JobTable, incarnation: str, pool: Pool | None = None
) -> worker_pb2.Hello:
    """How a worker introduces itself to masters, as a whole or with one of its pools."""
    name = _name_of(config)
    return worker_pb2.Hello(
        incarnation=incarnation,
        name=name if pool is None or pool.name == DEFAULT else f"{name}/{pool.name}",
        job_names=sorted(jobs),
        queues=config.queues,
        slots=config.slots if pool is None else pool.slots,
        labels=config.labels,
        build_id=config.build_id,
        protocol=PROTOCOL_REVISION,
        argument_schemas={name: schema_of(jobs[name].signature) for name in sorted(jobs)},
    )


def _name_of(config: WorkerConfig) -> str:
    return config.name or f"{socket.gethostname()}-{os.getpid()}"


async def run_worker(
    config: WorkerConfig, jobs: JobTable, announce: Announce, lifeline: Lifeline | None = None
) -> int:
    """Runs a worker in this loop until it was asked to drain, or wants to be started again.

    SIGTERM, SIGINT and its supervisor's end ask.

    Returns the exit status.
    """
    notifier = Notifier()
    nodes: list[WorkerNode] = []

    def pulse() -> Pulse:
        return herald.of_all([node.pulse() for node in nodes])

    teller = herald.Herald(pulse)

    def told(event: str, fields: Mapping[str, object]) -> None:
        announce(event, fields)
        teller.tell()

    transport, clock = GrpcTransport(Credentials(config.token, config.tls)), SystemClock()
    parents = ParentResults(
        AsyncClient(",".join(config.masters), token=config.token, tls=config.tls)
    )

    def make_node(pool: Pool, make_executor: MakeExecutor, tell: Announce) -> WorkerNode:
        node = WorkerNode(
            introduction(config, pool.jobs, str(uuid.uuid4()), pool),
            config.masters,
            transport=transport,
            clock=clock,
            rng=random.Random(),
            make_executor=make_executor,
            drain_timeout_ms=int(config.drain_timeout_s * 1000),
            announce=tell,
            gauge=Gauge(),
        )
        nodes.append(node)
        return node

    groups = take_over_for(wanted=any(job.limits is not None for job in jobs.values()))
    crew = Crew(
        config,
        jobs,
        clock=clock,
        make_pool=pool_maker(config, clock, parents, groups),
        make_node=make_node,
        announce=told,
        read_memory=MemoryReader(),
    )
    _obey_signals(crew, lifeline, pulse)
    teller.listeners.append(herald.to_systemd(notifier) if lifeline is None else lifeline.tell)
    probes = herald.report(_name_of(config), pulse)
    try:
        async with probe.listening(
            config.health, config.insecure, probes, lambda at: announce("health", {"address": at})
        ):
            await _ask_to_be_let_in(transport, config.masters)
            with notifier.watched(), teller.telling():
                await _work(crew, config)
    finally:
        await asyncio.to_thread(parents.close)
        await transport.close()
    return crew.status


def _obey_signals(crew: Crew, lifeline: Lifeline | None, pulse: Callable[[], Pulse]) -> None:
    """Lets SIGTERM, SIGINT and the end of its supervisor drain it."""
    running = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(number, crew.drain)

    def orphaned() -> None:
        # Nobody else would ever stop it; what has begun to drain goes on doing so.
        if pulse().phase is not Phase.DRAINING:
            _LOGGER.warning("the supervisor is gone: draining", extra={"action": "orphaned"})
            crew.drain()

    if lifeline is not None:
        lifeline.when_lost(lambda: running.call_soon_threadsafe(orphaned))


async def _work(crew: Crew, config: WorkerConfig) -> None:
    """Runs the crew to its end, which a changed source file brings about if that is wanted."""
    if not config.reload:
        await crew.run()
        return
    files = Sources(sources.loaded(config.app, Path.cwd()))

    async def watch() -> None:
        path = await files.until_changed()
        crew.restart(f"{path} has changed", hurry=True)

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        await crew.run()
        watching.cancel()


async def _ask_to_be_let_in(transport: Transport, masters: list[str]) -> None:
    """Ends a worker that no master will ever talk to, for want of a token or a certificate.

    Whoever started it learns that at once. One that works dials on when it is refused: its files
    may be renewed. So does one that reaches nobody yet.

    Raises:
        Rejected: All masters refuse it.
    """
    refusal: Rejected | None = None
    for address in masters:
        try:
            await transport.unary(
                address,
                TOPOLOGY_METHOD,
                cluster_pb2.GetTopologyRequest(),
                cluster_pb2.GetTopologyResponse,
                ASK_TIMEOUT_S,
            )
        except Rejected as error:
            refusal = error
        except TenureError:
            return
        else:
            return
    if refusal is not None:
        raise refusal


def main(config: WorkerConfig, lifeline: Lifeline | None = None) -> int:
    """What ``tenure worker`` runs. Returns the exit code.

    Args:
        config: What it was told.
        lifeline: To its supervisor, if it has one.

    Raises:
        Rejected: The application cannot be imported, a file of its credentials is unusable, or no
            master lets it in.
    """
    announce = _announcer()
    jobs = app.load(config.app)
    capture.install()
    # What is loaded by now stays for good: it need not be looked at again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG_MAX)
    return loop.run(run_worker(config, jobs, announce, lifeline))


def _announcer() -> Announce:
    """Takes stdout for events, a line each: all else that is written there goes to stderr.

    That is what the application prints, and programs that it starts: their last line may lack its
    end.
    """
    sys.stdout.flush()
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.stdout = sys.stderr

    def announce(event: str, fields: Mapping[str, object]) -> None:
        events.write(json.dumps({"event": event, **fields}) + "\n")
        events.flush()

    return announce
