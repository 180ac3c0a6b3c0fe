"""The worker's side of all its streams, without I/O: messages and facts in, orders out.

Streams come and go, partitions move between masters, the worker's slots are one: the arbiter routes
what masters say to the partition it is about, splits the credit over the streams, and fences the
worker off leases that it could not renew. It reads no clock and no socket: the shell (``runtime``)
passes the time in, sends what ``flush`` gives and carries out the orders in ``workload``.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, assert_never

from tenure.protocol.fence import Token
from tenure.protocol.token_wire import token_of
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.v1 import worker_pb2
from tenure.worker.credit import Claim, distribute
from tenure.worker.held import HeldJob
from tenure.worker.partition import Partition
from tenure.worker.port import Fact, FactKind, Load, Rng
from tenure.worker.session import Session
from tenure.worker.vitals import Reading, told
from tenure.worker.workload import Quarantined, Workload

#: How long jobs may go on in a drain, where nobody says it.
DRAIN_TIMEOUT_MS: Final = 30_000


class Orders(NamedTuple):
    """What the executors are to do."""

    runs: list[HeldJob]
    stops: list[tuple[HeldJob, AttemptOutcome]]
    leases: list[HeldJob]


class Arbiter:
    """All that a worker knows and owes.

    Attributes:
        sessions: The open streams.
        partitions: Every partition that was ever opened to this worker.
    """

    def __init__(
        self,
        hello: worker_pb2.Hello,
        rng: Rng,
        *,
        batch_sizes: Mapping[str, int] | None = None,
        drain_timeout_ms: int = DRAIN_TIMEOUT_MS,
        look: Callable[[int], tuple[Load, Reading]] = lambda _: (Load(), Reading()),
    ) -> None:
        """Knows nobody yet.

        Args:
            hello: How the worker introduces itself.
            rng: For jitter.
            batch_sizes: Those of batch handlers, by job name.
            drain_timeout_ms: How long jobs may go on after a master's Drain.
            look: How the process and its executors do at a time.
        """
        self.sessions: list[Session] = []
        self.partitions: dict[int, Partition] = {}
        self._hello = hello
        self._rng = rng
        self._workload = Workload(hello.slots, batch_sizes)
        self._turn = 0
        self._look = look
        self._drain_timeout_ms = drain_timeout_ms
        #: When what still runs in a drain is handed back; None: not at all.
        self._interrupt_ms: int | None = None

    # Streams.

    def stream_opened(self, address: str, now_ms: int) -> Session:
        """A stream stands; its Hello is the first thing to flush."""
        session = Session(address, self._hello, self._rng, now_ms, self._vitals)
        self.sessions.append(session)
        return session

    def stream_closed(self, session: Session) -> None:
        """The stream is gone. Leases stay: they are declared to whoever opens their partition."""
        for partition in session.partitions.values():
            partition.session = None
        session.partitions.clear()
        self.sessions.remove(session)
        self._share_credit()

    def received(
        self, session: Session, said: worker_pb2.SessionResponse, now_ms: int
    ) -> list[str]:
        """Takes a master's envelope. Returns addresses of masters that it names."""
        addresses: list[str] = []
        if said.HasField("welcome"):
            session.welcome(said.welcome)
            addresses.extend(session.masters)
        for opened in said.opened:
            self._open(session, opened.partition, token_of(opened.token))
        if said.credit_acked:
            session.credit_acked(said.credit_acked)
        for instruction in said.instructions:
            partition = self.partitions.get(instruction.partition)
            if partition is None:
                partition = self._partition(instruction.partition)
            granted = session.credit.granted
            session.instructed(partition, instruction, now_ms)
            if session.credit.granted != granted:
                self._turn += 1
                session.turn = self._turn
        for closed in said.closed:
            partition = self.partitions.get(closed.partition)
            if partition is not None and partition.close(token_of(closed.token), session):
                session.partitions.pop(closed.partition, None)
            if closed.hint:
                addresses.append(closed.hint)
        if said.HasField("drain"):
            self._rest(now_ms)
        if said.HasField("undrain"):
            self._workload.drained, self._interrupt_ms = False, None
            self._tell_vitals()
        if said.HasField("quarantine"):
            self._take_quarantine(said.quarantine, now_ms)
        self._share_credit()
        return addresses

    def _take_quarantine(self, said: worker_pb2.Quarantine, now_ms: int) -> None:
        """Remembers, for all masters, that this worker gets nothing; or that it does again.

        What a master has found does not take the place of an operator's wish.
        """
        workload, known = self._workload, self._workload.quarantine
        if said.lifted:
            workload.quarantine = None
        elif known is None or (said.by_hand and not known.by_hand):
            workload.quarantine = Quarantined(said.reason, said.by_hand, now_ms)
        self._tell_vitals()

    def _rest(self, now_ms: int) -> None:
        """An operator wants no more work here, whichever master has passed that on."""
        if not self._workload.drained:
            self._workload.drained = True
            self._interrupt_ms = now_ms + self._drain_timeout_ms
            self._give_all_way()
        # The master waits for this, also if it says it a second time.
        self._tell_vitals()

    def _tell_vitals(self) -> None:
        for session in self.sessions:
            session.tell_vitals()

    def _vitals(self, now_ms: int) -> worker_pb2.Vitals:
        return told(self._workload, *self._look(now_ms), now_ms)

    def _open(self, session: Session, number: int, token: Token) -> None:
        partition = self._partition(number)
        before = partition.session
        if not partition.open(token, session):
            return
        if before is not None and before is not session:
            before.partitions.pop(number, None)
        session.partitions[number] = partition

    def _partition(self, number: int) -> Partition:
        partition = self.partitions.get(number)
        if partition is None:
            partition = self.partitions[number] = Partition(number, self._workload)
        return partition

    # Executors.

    def happened(self, facts: Iterable[Fact]) -> None:
        """Takes what the executors have to say."""
        workload = self._workload
        before = workload.occupied
        for kind, job in facts:
            partition = self.partitions[job.partition]
            match kind:
                case FactKind.ENDED:  # Most are, so it comes first.
                    workload.free(job)
                    workload.note_run(job)
                    partition.ended(job)
                case FactKind.STARTED:
                    partition.started(job)
                case FactKind.SAVED:
                    partition.saved(job)
                case FactKind.UNSTARTED:
                    partition.give_back(job)
                case FactKind.ABANDONED:
                    workload.free(job)
                    partition.ended(job)
                case FactKind.FREED:
                    pass  # Its slot was replaced when it was given up.
                case _:
                    assert_never(kind)
        if workload.draining and before and not workload.occupied:
            # Whoever waits for the drain's end sees it at once.
            self._tell_vitals()
        self._share_credit()

    def take_orders(self) -> Orders | None:
        """What the executors are to do now, or None for nothing."""
        workload = self._workload
        if not (workload.runs or workload.stops or workload.leases):
            return None
        orders = Orders(workload.runs, workload.stops, workload.leases)
        workload.runs, workload.stops, workload.leases = [], [], []
        return orders

    # Time.

    def tick(self, now_ms: int) -> list[Session]:
        """Lets time pass. Returns streams whose masters do not answer: they are to be dropped."""
        scan_ms = self._workload.next_scan_ms
        if scan_ms is not None and now_ms >= scan_ms:
            self._workload.next_scan_ms = None
            for partition in self.partitions.values():
                partition.scan(now_ms)
            self._share_credit()
        if self._interrupt_ms is not None and now_ms >= self._interrupt_ms:
            self._interrupt_ms = None
            self.interrupt()
        deaf = []
        for session in self.sessions:
            session.tick(now_ms)
            if session.is_deaf(now_ms):
                deaf.append(session)
        return deaf

    def next_wake_ms(self) -> int | None:
        """When ``tick`` has something to do next."""
        times = [session.next_wake_ms() for session in self.sessions]
        times += (self._workload.next_scan_ms, self._interrupt_ms)
        return min((time_ms for time_ms in times if time_ms is not None), default=None)

    # The way out.

    def drain(self) -> None:
        """Takes nothing more, and returns what has not begun. What runs goes on, but for loops that
        can go on elsewhere: they end with the item that they are at.
        """
        self._workload.stopping = True
        self._give_all_way()
        for partition in self.partitions.values():
            if partition.unheard:
                # Whoever waits for the end learns soon whether it has arrived.
                partition.heartbeat()
        self._tell_vitals()
        self._share_credit()

    def pause(self, *, paused: bool) -> None:
        """Takes nothing more for a while, and returns what has not begun; or takes jobs again."""
        self._workload.paused = paused
        if paused:
            for job in self._unfinished():
                if job.withdraw():
                    self.partitions[job.partition].give_back(job)
        self._share_credit()

    def interrupt(self) -> None:
        """Orders all that runs to stop, to be handed back uncharged."""
        for job in self._unfinished():
            self._workload.stops.append((job, AttemptOutcome.RELEASED))

    def forsake(self) -> None:
        """Hands back what could not be stopped: the process is about to end, and it with it."""
        for job in self._unfinished():
            self.partitions[job.partition].forsake(job)

    def say_goodbye(self, reason: str) -> None:
        """Ends every stream in order, after all that is still to say."""
        for session in self.sessions:
            session.goodbye = reason

    @property
    def quarantine(self) -> Quarantined | None:
        """Why masters give this worker nothing, if they do not."""
        return self._workload.quarantine

    @property
    def drained(self) -> bool:
        """Whether an operator wants no more work here."""
        return self._workload.drained

    @property
    def busy(self) -> int:
        """Slots that are taken."""
        return min(self._workload.calls, self._workload.slots)

    @property
    def backlog(self) -> int:
        """Ready jobs that the worker could run, as the masters said with their last heartbeats."""
        return sum(
            partition.backlog_told
            for session in self.sessions
            for partition in session.partitions.values()
        )

    @property
    def ended(self) -> dict[AttemptOutcome, int]:
        """Attempts that have ended, by outcome."""
        return {outcome: self._workload.ended[outcome] for outcome in AttemptOutcome}

    @property
    def running(self) -> int:
        """Jobs that have begun and not ended."""
        return sum(1 for _ in self._unfinished())

    @property
    def held(self) -> int:
        """Leases that are not freed: jobs that run, and results without a verdict."""
        return sum(len(partition.held) for partition in self.partitions.values())

    @property
    def expected(self) -> int:
        """Grants that may still come: the masters have not acked yet that we take no more."""
        return sum(session.credit.unspent for session in self.sessions)

    @property
    def deliverable(self) -> int:
        """Those of them whose partitions are open now."""
        return sum(
            len(partition.held)
            for partition in self.partitions.values()
            if partition.session is not None
        )

    @property
    def unheard(self) -> int:
        """Leases that are handed back, and no master is known to have heard it."""
        return sum(partition.unheard for partition in self.partitions.values())

    def _unfinished(self) -> list[HeldJob]:
        return [
            job
            for partition in self.partitions.values()
            for job in partition.held.values()
            if job.result is None
        ]

    def _give_all_way(self) -> None:
        for partition in self.partitions.values():
            self._give_way(partition)

    def _give_way(self, partition: Partition) -> None:
        for job in list(partition.held.values()):
            if job.result is not None:
                continue
            if job.withdraw():
                partition.give_back(job)
            elif not job.terms.at_most_once:
                # One that must not run twice would be over if it were handed back.
                job.wanted_back = True
                self._workload.leases.append(job)

    def _share_credit(self) -> None:
        """Offers the free part of the pool to the streams that have open partitions."""
        pool = self._workload.pool
        claims: list[Claim] = []
        for session in self.sessions:
            if session.partitions and not self._workload.refusing:
                claims.append(Claim(session.credit, session.backlog, session.turn))
                continue
            if session.credit.wanted:
                session.credit.offer(0)
            pool -= session.credit.unspent
        distribute(max(0, pool), claims)
