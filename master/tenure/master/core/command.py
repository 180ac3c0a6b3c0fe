"""What the shell asks of a partition. Imperatives; batches; plain data.

``Partition.decide(command, now_ms)`` reads state, changes nothing and returns a ``Decision``, or a
``Refusal`` when the command as a whole cannot be done. Rows inside a batch are refused one by one
in the reply. Every list of rows is owned by the command: nobody changes it afterwards. What
each job passes through are structs: one is made in a quarter of a named tuple's time.
"""

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from tenure.master.core.bulk import BatchSpec, Slices
from tenure.master.core.message import Message
from tenure.master.core.record import JobFault, Policy
from tenure.master.core.settings import AnySettings, SettingsKey
from tenure.master.core.timetable import ScheduleSpec
from tenure.protocol.fence import Lease, Token
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import AttemptOutcome

if TYPE_CHECKING:
    from tenure.master.core.effect import GrantRow


class SubmitSetting(NamedTuple):
    """What rows of a submit share: a policy and when they become ready.

    Attributes:
        policy: Everything of the options that never changes.
        priority: 0 (critical) to 10 (low).
        delay_ms: Ready this long after the submit; 0 for at once.
        at_ms: Ready at this time; 0 for none. Excludes delay_ms.
    """

    policy: Policy
    priority: int
    delay_ms: int
    at_ms: int


class SubmitRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One job to submit; ``setting`` indexes ``SubmitJobs.settings``; its keys may be empty."""

    job_id: JobId
    setting: int
    payload: bytes
    key: str
    limit_key: str = ""
    sticky_key: str = ""
    #: Jobs that it waits for.
    parents: tuple[JobId, ...] = ()
    #: The workflow that it is a member of, which is the first of its parents, too; "": none.
    workflow_id: str = ""


class Intake(Enum):
    """Which new jobs the store has room for."""

    OPEN = "open"
    #: None of a priority behind the default.
    NO_BULK = "no_bulk"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitJobs:
    """Accept jobs. Reply: ``SubmitReply``.

    Attributes:
        intake: Which of them the store has room for.
        bytes_max: What the partition may keep by now; None: what its configuration says.
        any_age: Whether unknown ids may be older than the retry window: those of ticks may.
    """

    settings: list[SubmitSetting]
    rows: list[SubmitRow]
    all_or_nothing: bool = False
    intake: Intake = Intake.OPEN
    bytes_max: int | None = None
    any_age: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelJobs:
    """Cancel queued jobs at once and ask running ones to stop. Reply: list of ``JobVerdict``."""

    job_ids: list[JobId]
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequeueJobs:
    """Give FAILED or CANCELLED jobs a new run. Reply: list of ``JobVerdict``.

    Attributes:
        payload: What all of them run with from now on; None: each with its own.
    """

    job_ids: list[JobId]
    payload: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeJobs:
    """Forget terminal jobs, leaving tombstones. Reply: list of ``JobVerdict``."""

    job_ids: list[JobId]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoostJobs:
    """Change when jobs that wait get their turn. Reply: list of ``JobVerdict``.

    Attributes:
        priority: The new one; None: as it was.
        delay_ms: Due so long from now, 0 for at once; None: as it was. What is due already keeps
            its age when it is to be due at once.
    """

    job_ids: list[JobId]
    priority: int | None = None
    delay_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateSettings:
    """Change how a queue, a tenant or a job type is run. Reply: all of its settings.

    Attributes:
        key: (tenant, queue), (tenant,) or (tenant, job name).
        settings: The new values; their type says what they are of.
        fields: Those that are to change; with no ``override_keys`` either: all of them.
        override_keys: Of a queue, limit keys whose breakers' overrides are to change, too.
    """

    key: SettingsKey
    settings: AnySettings
    fields: tuple[str, ...] = ()
    override_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PutSchedule:
    """Make a schedule or change it. Reply: its ``ScheduleRecord``.

    Attributes:
        create_only: Refuse if there is one of this name.
        bytes_max: As in ``SubmitJobs``.
    """

    tenant: str
    name: str
    spec: ScheduleSpec
    paused: bool = False
    create_only: bool = False
    bytes_max: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseSchedule:
    """Stop a schedule's ticks, or let them go on. Reply: its ``ScheduleRecord``."""

    tenant: str
    name: str
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerSchedule:
    """Submit a schedule's job now. Reply: ``SubmitReply``.

    Attributes:
        job_id: Of the job.
        intake: As in ``SubmitJobs``.
        bytes_max: As in ``SubmitJobs``.
    """

    tenant: str
    name: str
    job_id: JobId
    intake: Intake = Intake.OPEN
    bytes_max: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteSchedule:
    """Forget a schedule. Reply: the ``ScheduleRecord`` that it was."""

    tenant: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTerm:
    """The first command of a term, after replay. Its event must commit before anything is served.

    Attributes:
        token: The office's token; leases of the term carry it.
        incarnation: The master process that leads.
        window_ms: How long leases are re-declared before anything is granted; 0 when the last
            batch was a ``TermClosed`` or when no lease is open.
    """

    token: Token
    incarnation: str
    window_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseTerm:
    """The last command of a term that ends in order: journals the sessions and their leases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """A worker's stream was opened to this partition (volatile).

    Attributes:
        session_id: Unique among the streams of this master process.
        incarnation: UUID of the worker process. A newer stream of the same incarnation takes over
            the leases of an older one; another incarnation never does.
        worker: The worker's name, for people.
        job_names: The jobs it can run.
        queues: The queues it serves; empty: all.
        slots: How many jobs it runs at once.
    """

    session_id: int
    incarnation: str
    worker: str
    job_names: frozenset[str]
    queues: frozenset[str]
    slots: int
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseSession:
    """A stream ended (volatile). Leases stay until they are returned, claimed or expire."""

    session_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainSession:
    """Grant nothing more to this session (volatile)."""

    session_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UndrainSession:
    """Grants may go to this session again (volatile)."""

    session_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkSession:
    """A session's worker says that it is in quarantine, or not if ``reason`` is None (volatile)."""

    session_id: int
    reason: str | None
    by_hand: bool = False
    for_ms: int = 0


class HeldRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A lease that a worker holds, as its heartbeats and declarations say."""

    job_id: JobId
    lease: Lease
    started: bool
    running_ms: int
    progress: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclareLeases:
    """A worker's answer to PartitionOpened: every lease it holds of this partition."""

    session_id: int
    rows: list[HeldRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewLeases:
    """A heartbeat: the full set of held leases and the last assignment seen.

    Effect: ``SendHeartbeatAck``. Leases granted in assignments up to ``last_assignment`` that are
    not in the set are gone and are taken back.
    """

    session_id: int
    number: int
    last_assignment: int
    rows: list[HeldRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendHeld:
    """Grants that were written ahead have committed: they are sent now, with the next number.

    Effect: ``SendAssignment``, if the session is open. ``rows`` are those of the effect that was
    held.
    """

    session_id: int
    rows: "list[GrantRow]"


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptAssignment:
    """All assignments up to this number have arrived at the worker (volatile)."""

    session_id: int
    number: int


class LeaseRow(NamedTuple):
    """A job and one lease of it."""

    job_id: JobId
    lease: Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class StartLeases:
    """These jobs have started (volatile); their timeouts run from now."""

    session_id: int
    rows: list[LeaseRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnLeases:
    """A worker hands jobs back unstarted or interrupted: RELEASED, charged to no budget."""

    session_id: int
    rows: list[LeaseRow]


class CheckpointRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a job saved under a lease, by its worker."""

    job_id: JobId
    lease: Lease
    number: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveCheckpoints:
    """Keep what jobs have saved. Effect: ``SendCheckpointAcks``, after the commit.

    Attributes:
        bytes_max: As in ``SubmitJobs``.
    """

    session_id: int
    rows: list[CheckpointRow]
    bytes_max: int | None = None


class ReportRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How one attempt ended, by its worker."""

    job_id: JobId
    lease: Lease
    outcome: AttemptOutcome
    result: bytes
    content_type: str
    fault: JobFault | None
    run_ms: int
    #: What the attempt has said, a JobLog of the contract.
    log: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportAttempts:
    """Judge reports by the late-report table. Effect: ``SendVerdicts``, after the commit.

    Attributes:
        jitter: Uniform numbers in [0, 1), at least one a row; retries use them.
    """

    session_id: int
    rows: list[ReportRow]
    jitter: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """Grant ready jobs to sessions with credit.

    Only jobs whose record's seq is at most ``committed_seq`` are eligible. Nothing is granted
    before the window is closed.

    Attributes:
        credits: (session_id, how many grants it may get now), in no special order.
        grants_max: At most this many in one decision.
    """

    credits: list[tuple[int, int]]
    committed_seq: int
    grants_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FireTimers:
    """Do all that is due: delays, backoffs, expiries, timeouts, take-backs, retention.

    Attributes:
        rows_max: Stop after about this many jobs; ``Partition.next_timer_ms`` says when to go on.
        jitter: Uniform numbers in [0, 1), at least ``rows_max``.
        intake: Which jobs of schedules the store has room for.
        bytes_max: As in ``SubmitJobs``.
    """

    rows_max: int
    jitter: list[float]
    intake: Intake = Intake.OPEN
    bytes_max: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseWindow:
    """End the adoption window: judge the claims and the reports that were kept for its end.

    Attributes:
        jitter: As in ``ReportAttempts``.
    """

    jitter: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveDependents:
    """Decide on jobs whose parents have ended; say what other partitions are to be told.

    Attributes:
        rows_max: Stop after so many; ``Partition.has_dependents_due`` says whether to go on.
    """

    rows_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeMessage:
    """Take one message of another partition, unless it was taken. Reply: ``Taken``.

    Attributes:
        source: That partition.
        token: Of its term.
        number: Of the message.
        after: What must have been taken before; 0: it is the sender's oldest.
    """

    source: int
    token: Token
    number: int
    after: int
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimOutbox:
    """Forget the messages for a target that it has taken, up to this number."""

    target: int
    upto: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartLeases:
    """After a thaw: every lease's TTL starts anew (volatile)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushDeadlines:
    """After a gap in the event loop: move every lease deadline by the gap (volatile)."""

    gap_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWorkflow:
    """Begin a workflow. Reply: its record, as for all commands about workflows."""

    workflow_id: JobId
    name: str
    tenant: str
    seal_within_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SealWorkflow:
    """Let a workflow's members run; there are so many."""

    workflow_id: JobId
    members: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelWorkflow:
    """Note that a workflow is cancelled; end the members of one that is not sealed."""

    workflow_id: JobId
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryWorkflow:
    """Take the cancel of a workflow back."""

    workflow_id: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateBatch:
    """Begin to do something to all jobs that match. Reply: ``BatchRecord``.

    Attributes:
        matched: How many jobs match now.
    """

    batch_id: str
    spec: BatchSpec
    matched: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvanceBatch:
    """Do a batch's next jobs. Reply: ``BatchRecord``, or None: it is not under way.

    Attributes:
        scan: Finds them from the batch's cursor on; whoever cannot be sure that its last slice was
            taken makes a new one.
        rows_max: Do so many at most.
        looks_max: Look at so many at most.
    """

    batch_id: str
    scan: Slices
    rows_max: int
    looks_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelBatch:
    """Stop a batch where it is. Reply: ``BatchRecord``."""

    batch_id: str


Command = (
    OpenWorkflow
    | SealWorkflow
    | CancelWorkflow
    | RetryWorkflow
    | SubmitJobs
    | CancelJobs
    | RequeueJobs
    | PurgeJobs
    | BoostJobs
    | UpdateSettings
    | PutSchedule
    | PauseSchedule
    | TriggerSchedule
    | DeleteSchedule
    | OpenTerm
    | CloseTerm
    | OpenSession
    | CloseSession
    | DrainSession
    | UndrainSession
    | MarkSession
    | DeclareLeases
    | RenewLeases
    | SendHeld
    | AcceptAssignment
    | StartLeases
    | SaveCheckpoints
    | ReturnLeases
    | ReportAttempts
    | Dispatch
    | FireTimers
    | CloseWindow
    | ResolveDependents
    | TakeMessage
    | TrimOutbox
    | CreateBatch
    | AdvanceBatch
    | CancelBatch
    | RestartLeases
    | PushDeadlines
)
