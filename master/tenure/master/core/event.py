"""What happened and is journaled: the durable events that ``apply`` takes, and a replay.

A durable event carries the new values of the fields that it writes (never "+1") and the time of
its decision; its seq is its place in the journal. Rows are structs without keys (``array_like``);
what all rows of a batch share is said once. The journal encodes durable events as they are, so a
field is only ever added at the end of a struct, with a default. The others are in
``core.volatile``.
"""

import msgspec

from tenure.master.core.bulk import BatchAdvanced, BatchCreated
from tenure.master.core.command import SubmitRow
from tenure.master.core.message import Message
from tenure.master.core.record import JobFault, Policy
from tenure.master.core.settings import AnySettings, SettingsKey
from tenure.master.core.timetable import ScheduleCursor, ScheduleSpec
from tenure.master.core.volatile import VolatileEvent
from tenure.master.core.workflows import WorkflowRecord
from tenure.protocol.fence import Lease, Token
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import AttemptOutcome, FailureReason, JobState


class TermOpened(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="term_opened"
):
    """A master took the office: older terms' leases may be adopted until the window closes."""

    now_ms: int
    token: Token
    incarnation: str
    window_ms: int


class StandingLease(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A lease that stood when its term closed; a time is 0 if it had not come."""

    job_id: JobId
    lease: Lease
    started_ms: int
    accepted_ms: int = 0


class StandingHolder(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A worker process and the leases it held when the term closed."""

    incarnation: str
    worker: str
    leases: list[StandingLease]


class TermClosed(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="term_closed"
):
    """The term ended in order; if this is the last event, the successor needs no window."""

    now_ms: int
    token: Token
    holders: list[StandingHolder]


class SubmittedSetting(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What rows of a submit share: their policy, priority, state and when they are due."""

    policy: Policy
    priority: int
    ready_ms: int
    state: JobState


class JobsSubmitted(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="jobs_submitted"
):
    """Jobs were accepted; row i has ordinal ``first_ordinal + i``. Rows are as they were asked."""

    now_ms: int
    first_ordinal: int
    settings: list[SubmittedSetting]
    rows: list[SubmitRow]


class JobsReadied(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="jobs_readied"
):
    """Delays and backoffs were over: the jobs are PENDING."""

    now_ms: int
    job_ids: list[JobId]


class JobsGranted(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="jobs_granted"
):
    """A session got leases; row i has lease seq ``first_lease_seq + i`` of the token's term.

    ``session_id`` and ``assignment`` mean something to the term that wrote them only; the latter is
    0 if the grants are sent after this has committed, and get their number then.
    """

    now_ms: int
    token: Token
    incarnation: str
    worker: str
    session_id: int
    assignment: int
    first_lease_seq: int
    job_ids: list[JobId]
    #: The number of each attempt in its run.
    attempts: list[int]


class AdoptedRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A lease that the journal had lost (its grant was not committed) and its worker proved."""

    job_id: JobId
    lease: Lease
    attempt: int
    granted_ms: int
    started_ms: int


class LeasesAdopted(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="leases_adopted"
):
    """The jobs are RUNNING under leases that a worker declared or reported."""

    now_ms: int
    incarnation: str
    worker: str
    rows: list[AdoptedRow]


class CompletedRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One success, under the newest lease of its job."""

    job_id: JobId
    lease: Lease
    started_ms: int
    result: bytes
    content_type: str
    #: 0: not known.
    accepted_ms: int = 0


class JobsCompleted(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="jobs_completed"
):
    """Results were accepted."""

    now_ms: int
    rows: list[CompletedRow]


class EndedRow(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """One attempt that ended without a result, and what became of its job."""

    job_id: JobId
    lease: Lease
    outcome: AttemptOutcome
    state: JobState
    #: When it is due again; unchanged unless the job is RETRYING.
    ready_ms: int
    started_ms: int
    attempts_charged: int
    losses_charged: int
    undelivered: int
    fault: JobFault | None
    failure_reason: FailureReason | None
    #: 0: not known.
    accepted_ms: int = 0


class AttemptsEnded(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="attempts_ended"
):
    """Leases were closed: by a report, an expiry, a timeout, a return or a take-back."""

    now_ms: int
    rows: list[EndedRow]


class SavedRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a running job wants its next attempt to begin with."""

    job_id: JobId
    lease: Lease
    #: Rises with each of one lease.
    number: int
    data: bytes
    #: A job that gets on is no poison: 0, unless it saved the same as before.
    losses_charged: int


class CheckpointsSaved(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="checkpoints_saved"
):
    """RUNNING jobs saved how far they are, under their newest leases."""

    now_ms: int
    rows: list[SavedRow]


class LogRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one attempt of a job has said."""

    job_id: JobId
    run: int
    attempt: int
    lines: bytes


class LogsKept(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="logs_kept"
):
    """Attempts that end have said something, which is kept with them."""

    now_ms: int
    rows: list[LogRow]


class CancelsRequested(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="cancels_requested"
):
    """RUNNING jobs were asked to stop."""

    now_ms: int
    job_ids: list[JobId]
    reason: str


class JobsCancelled(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="jobs_cancelled"
):
    """Queued jobs were cancelled."""

    now_ms: int
    job_ids: list[JobId]
    reason: str


class JobsExpired(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="jobs_expired"
):
    """Queued jobs FAILED because their schedule timeout or deadline had passed."""

    now_ms: int
    job_ids: list[JobId]
    failure_reason: FailureReason


class RequeuedRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A job and the number of its new run."""

    job_id: JobId
    run: int
    #: BLOCKED if its parents are to be looked at (again).
    state: JobState = JobState.PENDING
    #: What it runs with from now on; None: as before.
    payload: bytes | None = None


class JobsRequeued(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="jobs_requeued"
):
    """Dead letters got a new run with fresh budgets."""

    now_ms: int
    rows: list[RequeuedRow]


class JobsPurged(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="jobs_purged"
):
    """Terminal jobs were forgotten; their tombstones stay for a while."""

    now_ms: int
    job_ids: list[JobId]


class BoostedRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A job that waits, and how it waits from now on."""

    job_id: JobId
    priority: int
    ready_ms: int
    run_due_ms: int
    state: JobState
    #: A retry that is put off, because its job type's budget for them is used up.
    over_budget: bool = False


class JobsBoosted(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="jobs_boosted"
):
    """Jobs that wait got another priority, or another time at which they are due."""

    now_ms: int
    rows: list[BoostedRow]


class SettingsChanged(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="settings_changed"
):
    """A queue, a tenant or a job type is run otherwise from now on."""

    now_ms: int
    key: SettingsKey
    #: All of them, changed or not; their type says what they are of.
    settings: AnySettings


class ResolvedRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What became of a child when all its parents had ended."""

    job_id: JobId
    #: PENDING or SCHEDULED: it may run; FAILED: by a parent; CANCELLED: it was not needed.
    state: JobState
    ready_ms: int
    #: What its parents had come to, a code each (``core.dependency``).
    parent_states: bytes


class DependentsResolved(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="dependents_resolved"
):
    """BLOCKED jobs whose parents have all ended were let run, or have ended themselves."""

    now_ms: int
    rows: list[ResolvedRow]


class JobsWithdrawn(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="jobs_withdrawn"
):
    """Jobs that nobody was told of were taken out again: a parent elsewhere does not exist.

    The first one is the parent's child, the others are its descendants.
    """

    now_ms: int
    parent: JobId
    job_ids: list[JobId]
    #: What the parent is, a code of ``core.dependency``: of a workflow, that it is sealed.
    state: int = 9


class ChildRegistered(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="child_registered"
):
    """A job of another partition waits for a job of this one (which may not exist)."""

    now_ms: int
    parent: JobId
    child: JobId
    run: int


class ChildReleased(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="child_released"
):
    """A job of another partition that waited for one of this has ended."""

    now_ms: int
    parent: JobId
    child: JobId


class ParentTold(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="parent_told"
):
    """Another partition told what a job of it is, for which a job of this one waits."""

    now_ms: int
    parent: JobId
    child: JobId
    #: A code of ``core.dependency``.
    state: int


class OutboxAppended(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="outbox_appended"
):
    """Messages for another partition, with contiguous numbers."""

    now_ms: int
    target: int
    first_number: int
    messages: list[Message]


class OutboxTrimmed(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="outbox_trimmed"
):
    """The target has taken all messages up to this number."""

    now_ms: int
    target: int
    upto: int


class InboxTaken(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="inbox_taken"
):
    """A message of another partition took effect, by the events before this one in its batch."""

    now_ms: int
    source: int
    number: int
    #: Of the source's term that sent it.
    token: Token


class SchedulePut(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="schedule_put"
):
    """A schedule was made or changed."""

    now_ms: int
    tenant: str
    name: str
    spec: ScheduleSpec
    cursor: ScheduleCursor
    paused: bool
    created_ms: int


class SchedulePaused(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="schedule_paused"
):
    """A schedule was stopped, or goes on (``paused`` is False)."""

    now_ms: int
    tenant: str
    name: str
    paused: bool
    cursor: ScheduleCursor


class ScheduleDeleted(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="schedule_deleted"
):
    """A schedule was forgotten; its jobs go on."""

    now_ms: int
    tenant: str
    name: str


class TickedRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How far a schedule is now."""

    tenant: str
    name: str
    cursor: ScheduleCursor


class SchedulesTicked(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="schedules_ticked"
):
    """Ticks fired, by the events before this one in its batch, or they were left out."""

    now_ms: int
    rows: list[TickedRow]


class WorkflowsWritten(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="workflows_written"
):
    """Workflows were opened, sealed, cancelled or taken up again, or are looked at later."""

    now_ms: int
    rows: list[WorkflowRecord]


class WorkflowsForgotten(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="workflows_forgotten"
):
    """Workflows that ended long ago were forgotten."""

    now_ms: int
    workflow_ids: list[JobId]


DurableEvent = (
    TermOpened
    | TermClosed
    | JobsSubmitted
    | JobsReadied
    | JobsGranted
    | LeasesAdopted
    | JobsCompleted
    | AttemptsEnded
    | CheckpointsSaved
    | LogsKept
    | CancelsRequested
    | JobsCancelled
    | JobsExpired
    | JobsRequeued
    | JobsPurged
    | SettingsChanged
    | SchedulePut
    | SchedulePaused
    | ScheduleDeleted
    | SchedulesTicked
    | JobsBoosted
    | DependentsResolved
    | JobsWithdrawn
    | ChildRegistered
    | ChildReleased
    | ParentTold
    | OutboxAppended
    | OutboxTrimmed
    | InboxTaken
    | WorkflowsWritten
    | WorkflowsForgotten
    | BatchCreated
    | BatchAdvanced
)

Event = DurableEvent | VolatileEvent
