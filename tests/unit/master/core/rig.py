"""A partition under test: its clock, its journal, and short ways to say what happens to it."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import msgspec

from tenure.master.core import command as commands
from tenure.master.core.command import (
    Command,
    Dispatch,
    HeldRow,
    LeaseRow,
    ReportRow,
    SubmitRow,
    SubmitSetting,
)
from tenure.master.core.config import PartitionConfig
from tenure.master.core.effect import Decision, Effect, SendAssignment, SendVerdicts, SubmitReply
from tenure.master.core.event import DurableEvent
from tenure.master.core.partition import Partition
from tenure.master.core.record import JobFault, JobRecord, Policy
from tenure.master.core.settings import AnySettings, SettingsKey
from tenure.protocol.fence import Lease, Token
from tenure.protocol.ids import JobId, mint
from tenure.protocol.refusal import Refusal
from tenure.protocol.vocabulary import AttemptOutcome, JobState, Verdict
from tests.unit.master.core.audit import audit

T = TypeVar("T")

START_MS = 1_700_000_000_000
CONFIG = PartitionConfig(partition=0, partitions=1)
JOB = Policy(name="job")
_JOURNAL = msgspec.msgpack.Decoder(list[DurableEvent])


class Rig:
    """A partition with an open term; every step is audited and journaled as the node would.

    Args:
        config: The partition's limits.
        window_ms: How long its first term's window is.
        audited: Whether all that is derived is checked after each step; it takes its time.
    """

    def __init__(
        self, config: PartitionConfig = CONFIG, *, window_ms: int = 0, audited: bool = True
    ) -> None:
        self.config = config
        self._audited = audited
        self.now_ms = START_MS
        #: The journal: events as they were written.
        self.journal: list[bytes] = []
        self.partition = Partition(config)
        self.partition.finish_replay()
        self._minted = 0
        self._term = 0
        self._heartbeats = 0
        self.open_term(window_ms)

    # Commands.

    def decide(self, command: Command) -> Decision:
        """Decides, expecting no refusal of the whole."""
        decision = self.partition.decide(command, self.now_ms)
        assert isinstance(decision, Decision), decision
        return decision

    def refused(self, command: Command) -> Refusal:
        """Decides, expecting a refusal of the whole."""
        refusal = self.partition.decide(command, self.now_ms)
        assert isinstance(refusal, Refusal), refusal
        return refusal

    def do(self, command: Command) -> Decision:
        """Decides and applies, then checks all that is derived."""
        decision = self.decide(command)
        for event in decision.events:
            if isinstance(event, DurableEvent):
                self.journal.append(msgspec.msgpack.encode([event]))
            self.partition.apply(event)
        if self._audited:
            audit(self.partition)
        return decision

    def submit(
        self,
        count: int = 1,
        policy: Policy = JOB,
        *,
        priority: int = 5,
        delay_ms: int = 0,
        at_ms: int = 0,
        key: str = "",
        payload: bytes = b"payload",
        limit_key: str = "",
        sticky_key: str = "",
    ) -> list[JobId]:
        """Submits new jobs that are expected to be accepted (or to exist under the key)."""
        rows = [
            SubmitRow(self.mint(), 0, payload, key, limit_key, sticky_key) for _ in range(count)
        ]
        reply = self.submit_rows(rows, policy, priority=priority, delay_ms=delay_ms, at_ms=at_ms)
        assert not reply.refusals
        return [JobId(job_id) for job_id in reply.job_ids]

    def submit_one(self, policy: Policy = JOB, **options: int | str) -> JobId:
        """Submits one new job."""
        return self.submit(1, policy, **options)[0]  # type: ignore[arg-type]

    def submit_rows(
        self,
        rows: list[SubmitRow],
        policy: Policy = JOB,
        *,
        priority: int = 5,
        delay_ms: int = 0,
        at_ms: int = 0,
    ) -> SubmitReply:
        """Submits rows of one setting."""
        setting = SubmitSetting(policy, priority, delay_ms, at_ms)
        reply = self.do(commands.SubmitJobs(settings=[setting], rows=rows)).reply
        assert isinstance(reply, SubmitReply)
        return reply

    def mint(self, at_ms: int | None = None) -> JobId:
        """A new job id."""
        self._minted += 1
        scattered = self._minted * 0x9E3779B97F4A7C15
        return mint(self.config.partition, self.now_ms if at_ms is None else at_ms, scattered)

    def open_session(
        self,
        session_id: int,
        incarnation: str = "",
        *,
        names: tuple[str, ...] = ("job",),
        queues: tuple[str, ...] = (),
        slots: int = 10,
        labels: Mapping[str, str] = MappingProxyType({}),
        declare: list[HeldRow] | None = None,
    ) -> Decision:
        """Opens a session and declares its leases, none by default."""
        self.do(
            commands.OpenSession(
                session_id=session_id,
                incarnation=incarnation or f"w{session_id}",
                worker=f"worker-{incarnation or session_id}",
                job_names=frozenset(names),
                queues=frozenset(queues),
                slots=slots,
                labels=tuple(sorted(labels.items())),
            )
        )
        return self.do(commands.DeclareLeases(session_id=session_id, rows=declare or []))

    def configure(self, key: SettingsKey, settings: AnySettings) -> None:
        """Sets how a queue, a tenant or a job type is run."""
        self.do(commands.UpdateSettings(key=key, settings=settings))

    def dispatch(self, *credits: tuple[int, int], committed_seq: int | None = None) -> Decision:
        """Grants to sessions with credit; everything has committed by default."""
        committed = self.partition.next_seq - 1 if committed_seq is None else committed_seq
        decision = self.do(
            Dispatch(credits=list(credits), committed_seq=committed, grants_max=1_000_000)
        )
        for effect in decision.effects:
            if isinstance(effect, SendAssignment) and effect.write_ahead:
                self.do(commands.SendHeld(session_id=effect.session_id, rows=effect.rows))
        return decision

    def grant(self, session_id: int = 1, credit: int = 1) -> list[LeaseRow]:
        """Grants up to ``credit`` jobs to a session; its leases, in order."""
        return leases_of(self.dispatch((session_id, credit)).effects)

    def grant_one(self, session_id: int = 1) -> LeaseRow:
        """Grants the next job to a session."""
        (row,) = self.grant(session_id)
        return row

    def accept(self, session_id: int, number: int) -> None:
        """The session's assignments up to this number have arrived."""
        self.do(commands.AcceptAssignment(session_id=session_id, number=number))

    def start(self, *rows: LeaseRow, session_id: int = 1) -> None:
        """Jobs have started."""
        self.do(commands.StartLeases(session_id=session_id, rows=list(rows)))

    def give_back(self, *rows: LeaseRow, session_id: int = 1) -> Decision:
        """A worker hands jobs back."""
        return self.do(commands.ReturnLeases(session_id=session_id, rows=list(rows)))

    def report(
        self,
        row: LeaseRow,
        outcome: AttemptOutcome = AttemptOutcome.COMPLETED,
        *,
        result: bytes | None = None,
        fault: JobFault | None = None,
        session_id: int = 1,
        draw: float = 0.5,
    ) -> Verdict | None:
        """Reports one attempt; the verdict, None if it was kept."""
        decision = self.do(
            commands.ReportAttempts(
                session_id=session_id,
                rows=[report_row(row, outcome, result=result, fault=fault)],
                jitter=[draw],
            )
        )
        verdicts = verdicts_of(decision.effects)
        return verdicts[0][2] if verdicts else None

    def fail(
        self, row: LeaseRow, fault: JobFault | None = None, **options: float
    ) -> Verdict | None:
        """Reports a failure."""
        fault = fault or JobFault("app.Error", "it broke")
        return self.report(row, AttemptOutcome.FAILED, fault=fault, **options)  # type: ignore[arg-type]

    def renew(self, session_id: int, last_assignment: int, *rows: HeldRow) -> Decision:
        """A heartbeat."""
        self._heartbeats += 1
        return self.do(
            commands.RenewLeases(
                session_id=session_id,
                number=self._heartbeats,
                last_assignment=last_assignment,
                rows=list(rows),
            )
        )

    def fire(self, rows_max: int = 1_000) -> Decision:
        """Does what is due now."""
        return self.do(commands.FireTimers(rows_max=rows_max, jitter=[0.5]))

    def pass_time(self, ms: int) -> list[Effect]:
        """Lets time pass, firing timers exactly when they are due; all their effects."""
        until = self.now_ms + ms
        effects: list[Effect] = []
        while (due := self.partition.next_timer_ms()) is not None and due <= until:
            self.now_ms = max(self.now_ms, due)
            effects += self.fire().effects
        self.now_ms = until
        return effects

    def open_term(self, window_ms: int = 0) -> Decision:
        """Opens the next term."""
        self._term += 1
        return self.do(
            commands.OpenTerm(token=self.token, incarnation=f"m{self._term}", window_ms=window_ms)
        )

    def close_window(self) -> Decision:
        """Ends the adoption window."""
        return self.do(commands.CloseWindow(jitter=[0.5]))

    @property
    def token(self) -> Token:
        """The present term's token."""
        return Token(1, 10 * self._term)

    # What is known.

    def record(self, job_id: JobId) -> JobRecord:
        """A job that is expected to be there."""
        record = self.partition.get(job_id)
        assert isinstance(record, JobRecord), record
        return record

    def state(self, job_id: JobId) -> JobState:
        """A job's state."""
        return self.record(job_id).state

    # Death and recovery.

    def replaying(self, *, keep: int | None = None) -> Partition:
        """A partition that has read the journal's first ``keep`` events, and is not open yet."""
        partition = Partition(self.config)
        for seq, event in enumerate(self.events()[:keep], 1):
            partition.replay(event, seq)
        return partition

    def replayed(self, *, keep: int | None = None) -> Partition:
        """A partition that has read the journal's first ``keep`` events, all by default."""
        partition = self.replaying(keep=keep)
        partition.finish_replay()
        return partition

    def events(self) -> list[DurableEvent]:
        """The journal's events; the first has seq 1."""
        return [_JOURNAL.decode(data)[0] for data in self.journal]

    def crash(self, *, lose: int = 0, window_ms: int = 3_000) -> None:
        """The master dies with its last ``lose`` events uncommitted; a successor takes over."""
        if lose:
            del self.journal[-lose:]
        self.partition = self.replayed()
        audit(self.partition)
        self.open_term(window_ms)


def leases_of(effects: Sequence[Effect]) -> list[LeaseRow]:
    """The leases that assignments among the effects carry."""
    rows = []
    for effect in effects:
        if isinstance(effect, SendAssignment):
            rows += [LeaseRow(row.record.job_id, row.record.lease) for row in effect.rows]
    return rows


def verdicts_of(effects: Sequence[Effect]) -> list[tuple[JobId, Lease, Verdict]]:
    """The verdicts among the effects."""
    return [row for e in effects if isinstance(e, SendVerdicts) for row in e.rows]


def of_type(effects: Sequence[Effect], kind: type[T]) -> list[T]:
    """The effects of one type."""
    return [effect for effect in effects if isinstance(effect, kind)]


def held(
    row: LeaseRow, *, started: bool = True, running_ms: int = 0, progress: float = 0.0
) -> HeldRow:
    """A lease as heartbeats list it."""
    return HeldRow(row.job_id, row.lease, started, running_ms, progress)


def report_row(
    row: LeaseRow,
    outcome: AttemptOutcome = AttemptOutcome.COMPLETED,
    *,
    result: bytes | None = None,
    fault: JobFault | None = None,
    log: bytes = b"",
) -> ReportRow:
    """One report; successes have a result by default."""
    if result is None:
        result = b"result" if outcome is AttemptOutcome.COMPLETED else b""
    return ReportRow(row.job_id, row.lease, outcome, result, "text/plain", fault, 1, log)
