"""The world around a partition under test: a journal, a lossy wire, workers with their own truth.

``test_machine`` lets rules act in it. Each step is audited (``audit``) and its moves are held
against the transition table.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar, get_args

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tenure.master.core import command as commands
from tenure.master.core.command import Command, LeaseRow, SubmitRow, SubmitSetting
from tenure.master.core.config import PartitionConfig, Retention
from tenure.master.core.effect import (
    Decision,
    Effect,
    SendAssignment,
    SendCheckpointAcks,
    SendRevokes,
    SendVerdicts,
    SubmitReply,
)
from tenure.master.core.event import DurableEvent
from tenure.master.core.partition import Partition
from tenure.master.core.record import LabelSelector, Policy, RetryPolicy
from tenure.master.core.settings import (
    AnySettings,
    BreakerSettings,
    JobTypeSettings,
    KeyOverride,
    QueueSettings,
    RateLimit,
    SettingsKey,
    TenantSettings,
)
from tenure.master.core.snapshot import Slice, SnapshotCursor
from tenure.master.core.transition import TABLE
from tenure.master.core.volatile import VolatileEvent
from tenure.protocol.fence import Lease, Token
from tenure.protocol.ids import JobId
from tenure.protocol.refusal import Refusal
from tenure.protocol.vocabulary import (
    TERMINAL,
    AttemptOutcome,
    Backoff,
    BreakerOverride,
    FairBy,
    JobState,
    LimitStrategy,
    Verdict,
)
from tests.unit.master.core.audit import audit, dump, state_of
from tests.unit.master.core.rig import START_MS

CONFIG = PartitionConfig(
    partition=3,
    partitions=1,
    retention=Retention(completed_ms=60_000, completed_max=8, failed_ms=90_000, failed_max=5),
    queue_depth_max=40,
    bytes_max=4_000,
    max_undelivered=3,
)
QUICK = RetryPolicy(backoff=Backoff.NONE, max_attempts=3, max_lost=2)
POLICIES = [
    Policy(name="a"),
    Policy(name="a", retry=QUICK),
    Policy(name="b", retry=QUICK, timeout_ms=2_000),
    Policy(name="b", queue="bulk", retry=QUICK, schedule_timeout_ms=4_000, deadline_ms=30_000),
    Policy(name="a", retry=QUICK, at_most_once=True),
    Policy(name="b", tenant="other", heartbeat_timeout_ms=6_000, result_ttl_ms=20_000),
]
KEYED = Policy(name="a", queue="keyed", retry=QUICK)
GPU = LabelSelector("gpu", ("a100", "h100"))
POLICIES += [
    KEYED,
    Policy(name="b", queue="keyed", retry=QUICK, requires=(GPU,)),
    Policy(name="a", retry=QUICK, prefers=(LabelSelector("region"),)),
]
LABELS = [{}, {"gpu": "a100"}, {"gpu": "old", "region": "eu"}, {"region": "eu"}]
BREAKER = BreakerSettings(volume_min=2, open_for_ms=3_000, probes=1)
#: (limit key, sticky key)
JOB_KEYS = [("", ""), ("", ""), ("l1", ""), ("l2", ""), ("", "s1"), ("l1", "s2")]
#: Ways to run queues, tenants and job types.
SETTINGS: list[tuple[SettingsKey, AnySettings]] = [
    *[
        (("default", queue), settings)
        for queue in ("default", "keyed")
        for settings in (
            QueueSettings(),
            QueueSettings(paused=True),
            QueueSettings(weight=0.25, concurrency=3),
            QueueSettings(fair_by=FairBy.TIME, key_concurrency=1),
            QueueSettings(key_concurrency=2, key_strategy=LimitStrategy.CANCEL_NEWEST),
            QueueSettings(key_concurrency=1, key_strategy=LimitStrategy.CANCEL_IN_PROGRESS),
            QueueSettings(rate=RateLimit(3, 2_000, 4), key_rate=RateLimit(1, 1_500, 2)),
            QueueSettings(reserved=0.4, reserved_priority=1, refuse_late=True),
            QueueSettings(
                key_breaker=BreakerSettings(volume_min=2, open_for_ms=2_000, probes=1),
                key_breaker_overrides=(KeyOverride("l2", BreakerOverride.OPEN),),
            ),
        )
    ],
    (("other",), TenantSettings(paused=True)),
    (("other",), TenantSettings(weight=3.0)),
    (("default", "a"), JobTypeSettings(paused=True)),
    (("default", "a"), JobTypeSettings()),
    (("default", "a"), JobTypeSettings(retry_budget=0.2, adaptive_retry=True)),
    (("default", "b"), JobTypeSettings(breaker=BREAKER)),
    (("default", "a"), JobTypeSettings(breaker=BREAKER, retry_budget=0.5)),
    (("default", "a"), JobTypeSettings(breaker_override=BreakerOverride.OPEN)),
]
INCARNATIONS = ("w1", "w2", "w3")
NAMES = [frozenset({"a"}), frozenset({"b"}), frozenset({"a", "b"})]
BACK = st.sampled_from([INCARNATIONS, INCARNATIONS, INCARNATIONS[:1], ()])
OUTCOMES = st.sampled_from([*[AttemptOutcome.COMPLETED] * 4, *AttemptOutcome])
MOVES = {(state, to) for (_, state), to in TABLE.items()}
JOURNAL = msgspec.msgpack.Decoder(list[DurableEvent])
#: What happened in all examples together.
SEEN: Counter[str] = Counter()
#: The names of all rules.
STEPS: set[str] = set()
F = TypeVar("F", bound=Callable[..., None])


def step(**strategies: st.SearchStrategy[Any]) -> Callable[[F], F]:
    """A rule that is counted when it fires."""

    def decorate(function: F) -> F:
        STEPS.add(function.__name__)

        @rule(**strategies)
        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            SEEN[function.__name__] += 1
            function(*args, **kwargs)

        return run  # type: ignore[return-value]

    return decorate


@dataclass
class Worker:
    """A worker process: its own truth about what it holds."""

    incarnation: str
    session_id: int = 0
    #: Leases and whether each has started.
    held: dict[LeaseRow, bool] = field(default_factory=dict)
    last_assignment: int = 0


class World(RuleBasedStateMachine):
    """What surrounds the partition, and how commands get in and effects out."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = START_MS
        self.journal: list[bytes] = []
        self.committed = 0
        self.partition = Partition(CONFIG)
        self.partition.finish_replay()
        self.term = 0
        self.sessions = 0
        self.minted = 0
        self.workers = {name: Worker(name) for name in INCARNATIONS}
        #: Effects and the seq that each waits for.
        self.outbox: list[tuple[int, Effect]] = []
        #: Submits that wait for their commit: (seq, ids), and those acknowledged.
        self.submits: list[tuple[int, list[str]]] = []
        self.acked: dict[str, None] = {}
        #: Jobs whose submits wait for what another partition says.
        self.unsettled: set[str] = set()
        #: Results whose acceptance was told to a worker.
        self.results: dict[JobId, bytes] = {}
        self.leases: list[LeaseRow] = []
        #: By lease: how often its job has saved something; by job: what was said to be safe.
        self.numbers: dict[LeaseRow, int] = {}
        self.safe: dict[JobId, tuple[Lease, int]] = {}
        self.ids: list[JobId] = []
        #: Steps since the last disturbance.
        self.calm = 0
        #: At the end all is done well, and checked less.
        self.healing = False
        self.cursor: SnapshotCursor | None = None
        self.slices: list[Slice] = []
        self.snapshot_from = 0

    def do(self, command: Command) -> Decision | Refusal:
        """Decides, checks that nothing changed, applies, checks all."""
        SEEN[type(command).__name__] += 1
        before = None if self.healing else dump(state_of(self.partition))
        decision = self.partition.decide(command, self.now_ms)
        assert self.healing or dump(state_of(self.partition)) == before
        if isinstance(decision, Refusal):
            return decision
        for event in decision.events:
            self.apply(event)
        for job_id, refusal in self.partition.drain_answers():
            SEEN["settled" if refusal is None else "withdrawn"] += 1
            if refusal is None and job_id in self.unsettled:
                self.submits.append((len(self.journal), [job_id]))
            self.unsettled.discard(job_id)
        if not self.healing:
            audit(self.partition)
        for effect in decision.effects:
            if isinstance(effect, SendAssignment) and not effect.write_ahead:
                self.receive(effect)
            else:
                self.outbox.append((len(self.journal), effect))
        self.deliver()
        return decision

    def send(self, setting: SubmitSetting, rows: list[SubmitRow]) -> None:
        """A client submits; it takes note of what it is told, once that has committed."""
        decision = self.do(commands.SubmitJobs(settings=[setting], rows=rows))
        assert isinstance(decision, Decision)
        reply = decision.reply
        assert isinstance(reply, SubmitReply)
        for _, refusal in reply.refusals:
            SEEN[refusal.reason.name] += 1
        waiting = {reply.job_ids[index] for index in reply.unsettled}
        self.unsettled |= waiting
        known = [job_id for job_id in reply.job_ids if job_id and job_id not in waiting]
        self.submits.append((len(self.journal), known))
        self.deliver()

    def apply(self, event: object) -> None:
        """Journals and applies one event; its moves must be in the table."""
        states = {job_id: r.state for job_id, r in state_of(self.partition).jobs.items()}
        SEEN[type(event).__name__] += 1
        if isinstance(event, DurableEvent):
            self.journal.append(msgspec.msgpack.encode([event]))
        self.partition.apply(event)  # type: ignore[arg-type]
        after = {job_id: r.state for job_id, r in state_of(self.partition).jobs.items()}
        for job_id in {**states, **after}:
            move = (states.get(job_id), after.get(job_id))
            assert move[0] is move[1] or move in MOVES, (event, move)

    def deliver(self) -> None:
        """Lets out, in order, what waits for nothing uncommitted any more."""
        while self.outbox and self.outbox[0][0] <= self.committed:
            effect = self.outbox.pop(0)[1]
            if isinstance(effect, SendAssignment):
                self.do(commands.SendHeld(session_id=effect.session_id, rows=effect.rows))
            else:
                self.receive(effect)
        while self.submits and self.submits[0][0] <= self.committed:
            for job_id in self.submits.pop(0)[1]:
                self.acked[job_id] = None

    def receive(self, effect: Effect) -> None:
        """A worker gets a message."""
        if isinstance(effect, SendCheckpointAcks):
            for job_id, lease, number in effect.rows:
                known = self.safe.get(job_id)
                self.safe[job_id] = (
                    (lease, number) if known is None else max(known, (lease, number))
                )
        worker = self.worker_of(getattr(effect, "session_id", 0))
        if worker is None:
            return
        match effect:
            case SendAssignment(number=number, rows=rows):
                assert number == worker.last_assignment + 1
                worker.last_assignment = number
                for row in rows:
                    lease = Lease(self.token, row.lease_seq, row.record.run)
                    worker.held[LeaseRow(row.record.job_id, lease)] = False
            case SendVerdicts(rows=rows):
                for job_id, lease, verdict in rows:
                    SEEN[verdict.name] += 1
                    worker.held.pop(LeaseRow(job_id, lease), None)
            case SendRevokes(rows=rows, unless_started=unless_started):
                for job_id, lease in rows:
                    row = LeaseRow(job_id, lease)
                    if unless_started and worker.held.get(row) is False:
                        SEEN["taken back"] += 1
                        del worker.held[row]
                        self.do(commands.ReturnLeases(session_id=worker.session_id, rows=[row]))
                    elif not unless_started:
                        worker.held.pop(row, None)
            case _:
                pass

    def worker_of(self, session_id: int) -> Worker | None:
        """The worker whose present stream this is."""
        for worker in self.workers.values():
            if session_id and worker.session_id == session_id:
                return worker
        return None

    def open_term(self, window_ms: int) -> None:
        """A master takes the office."""
        self.term += 1
        self.do(commands.OpenTerm(token=self.token, incarnation="m", window_ms=window_ms))
        self.commit_all()

    def commit_all(self) -> None:
        """Commits the whole journal."""
        self.committed = len(self.journal)
        self.deliver()

    def holders(self) -> list[Worker]:
        """Workers that hold something and can say so."""
        return [w for w in self.workers.values() if w.held and w.session_id]

    def closed_leases(self) -> list[LeaseRow]:
        """The last leases of open jobs that nobody runs."""
        jobs = state_of(self.partition).jobs
        return [
            row
            for row in self.leases
            if (record := jobs.get(row.job_id)) is not None
            and record.lease == row.lease
            and record.state not in TERMINAL | {JobState.RUNNING}
        ]

    @property
    def token(self) -> Token:
        """The present term's token."""
        return Token(1, self.term)


def unseen() -> set[str]:
    """Rules, commands, events, verdicts and states that have not occurred yet."""
    happens = {verdict.name for verdict in Verdict if verdict is not Verdict.GONE}
    happens |= {job_state.name for job_state in JobState}
    happens |= {kind.__name__ for kind in get_args(DurableEvent) + get_args(VolatileEvent)}
    happens |= {kind.__name__ for kind in get_args(Command)}
    happens |= STEPS | {"taken back", "snapshot compared"}
    return happens - SEEN.keys()


def said(row: LeaseRow) -> bytes:
    """What an attempt has logged: every third one has said something."""
    return b"" if row.lease.seq % 3 else b"said"
