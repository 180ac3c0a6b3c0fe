"""What a partition remembers: policies, jobs, attempts. Owned by the core; only apply writes them.

They are msgspec Structs: the journal and the snapshots encode them as they are, and ``gc=False``
keeps a million of them out of the garbage collector's sight (none can be part of a cycle).
"""

from typing import Final

import msgspec

from tenure.protocol.fence import Lease
from tenure.protocol.ids import JobId
from tenure.protocol.limits import (
    BACKOFF_BASE_MS_DEFAULT,
    BACKOFF_CAP_MS_DEFAULT,
    BACKOFF_FACTOR_DEFAULT,
    DEFAULT_CONTENT_TYPE,
    DEFAULT_QUEUE,
    DEFAULT_TENANT,
    KEY_WINDOW_MS_DEFAULT,
    MAX_ATTEMPTS_DEFAULT,
    MAX_LOST_DEFAULT,
)
from tenure.protocol.vocabulary import (
    AttemptOutcome,
    Backoff,
    ErrorCategory,
    FailureReason,
    Jitter,
    JobState,
    KeyConflict,
    ParentFailure,
    RunIf,
)


class RetryPolicy(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """When and how often to try again. Times in milliseconds."""

    backoff: Backoff = Backoff.EXPONENTIAL
    base_ms: int = BACKOFF_BASE_MS_DEFAULT
    factor: float = BACKOFF_FACTOR_DEFAULT
    cap_ms: int = BACKOFF_CAP_MS_DEFAULT
    jitter: Jitter = Jitter.FULL
    max_attempts: int = MAX_ATTEMPTS_DEFAULT
    max_lost: int = MAX_LOST_DEFAULT
    #: Base for errors of category SYSTEM; 0: ``base_ms``.
    system_base_ms: int = 0
    non_retryable: tuple[str, ...] = ()


class LabelSelector(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One thing asked of a worker's labels: the key, with any of the values, or with any at all."""

    key: str
    values: tuple[str, ...] = ()


class Policy(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """What a job's options say and nobody changes later; equal ones are one object (interned).

    Times in milliseconds; 0 means none.
    """

    name: str
    queue: str = DEFAULT_QUEUE
    tenant: str = DEFAULT_TENANT
    retry: RetryPolicy = RetryPolicy()
    timeout_ms: int = 0
    schedule_timeout_ms: int = 0
    deadline_ms: int = 0
    heartbeat_timeout_ms: int = 0
    at_most_once: bool = False
    result_ttl_ms: int = 0
    labels: tuple[tuple[str, str], ...] = ()
    content_type: str = DEFAULT_CONTENT_TYPE
    key_window_ms: int = KEY_WINDOW_MS_DEFAULT
    key_conflict: KeyConflict = KeyConflict.RETURN
    #: What labels its worker must have, and what labels it had better have.
    requires: tuple[LabelSelector, ...] = ()
    prefers: tuple[LabelSelector, ...] = ()
    run_if: RunIf = RunIf.ALL_SUCCEEDED
    on_parent_failure: ParentFailure = ParentFailure.FAIL


class JobFault(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What went wrong in an attempt."""

    type: str
    message: str
    traceback: str = ""
    category: ErrorCategory = ErrorCategory.TRANSIENT
    retry_after_ms: int | None = None


class Attempt(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """One ended attempt. A job's last attempt is in its record's own fields until a new one starts.

    Times in milliseconds of the term clock; 0 means it never happened.
    """

    number: int
    worker: str
    lease: Lease
    granted_ms: int
    started_ms: int
    ended_ms: int
    outcome: AttemptOutcome
    fault: JobFault | None = None
    accepted_ms: int = 0


class Checkpoint(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a job has saved for its next attempt."""

    #: Under which it was saved.
    lease: Lease
    #: Of that lease's checkpoints.
    number: int
    data: bytes
    saved_ms: int


class KeptLog(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one ended attempt has said: a JobLog of the contract, as its worker sent it."""

    run: int
    #: Its number in the run.
    attempt: int
    lines: bytes


class Ties(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """What ties a job to others. Most have none, and many the same: a record keeps it apart."""

    #: Jobs of its queue with the same one share the queue's limits per key; "": none.
    limit_key: str = ""
    #: Jobs of its queue with the same one go to one worker; "": none.
    sticky_key: str = ""
    #: Jobs that it waits for, or has waited for.
    parents: tuple[JobId, ...] = ()
    #: What they had come to when that was last decided upon, a byte each (``core.dependency``).
    parent_states: bytes = b""
    #: Whether its parents have let it run: then they are looked at no more.
    freed: bool = False
    #: The workflow that it is a member of, which is the first of its parents, too; "": none.
    workflow_id: str = ""


#: One object for all: ``is`` tells.
NO_TIES: Final = Ties()


class JobRecord(msgspec.Struct, array_like=True, gc=False, eq=False, kw_only=True):
    """All that is persistent about one job.

    Volatile facts (who holds the lease's stream, when it expires) are in ``Session`` and rebuilt;
    order and counts are derived.
    """

    job_id: JobId
    #: Seq of the event that last wrote this record.
    seq: int
    #: Order of submission in the partition: breaks ties of the order key.
    ordinal: int
    state: JobState
    policy: Policy
    priority: int
    payload: bytes
    key: str
    submitted_ms: int
    #: When it is or was due; the age that priority works on.
    ready_ms: int
    run: int = 0
    #: Failures charged in this run.
    attempts_charged: int = 0
    #: Losses charged in this run.
    losses_charged: int = 0
    #: Grants in a row that never arrived.
    undelivered: int = 0
    #: Grants of this run: the number of the current or last attempt.
    attempt: int = 0
    #: The newest lease granted; it is open while the state is RUNNING.
    lease: Lease | None = None
    #: Incarnation of the worker process that ``lease`` went to, and its name.
    incarnation: str = ""
    worker: str = ""
    granted_ms: int = 0
    started_ms: int = 0
    #: When the last attempt ended or the job became terminal.
    ended_ms: int = 0
    outcome: AttemptOutcome | None = None
    cancel_requested: bool = False
    cancel_reason: str = ""
    result: bytes = b""
    result_content_type: str = ""
    fault: JobFault | None = None
    failure_reason: FailureReason | None = None
    #: Ended attempts before the last one: the first and last 10, of all runs.
    history: tuple[Attempt, ...] = ()
    #: When this run first became due: its schedule timeout and deadline count from here.
    run_due_ms: int = 0
    ties: Ties = NO_TIES
    #: While it is RETRYING: its backoff is over, and its job type's budget put it off.
    over_budget: bool = False
    #: When its worker had the last attempt's grant, as far as the leader of its end knew.
    accepted_ms: int = 0
    #: The last one of this run, until the job ends.
    checkpoint: Checkpoint | None = None
    #: What attempts have said that have ended, of all runs, in their order (``core.kept_log``).
    logs: tuple[KeptLog, ...] = ()

    @property
    def limit_key(self) -> str:
        """See ``Ties``, as for all of these."""
        return self.ties.limit_key

    @property
    def sticky_key(self) -> str:
        return self.ties.sticky_key

    @property
    def parents(self) -> tuple[JobId, ...]:
        return self.ties.parents

    @property
    def parent_states(self) -> bytes:
        return self.ties.parent_states

    @property
    def freed(self) -> bool:
        return self.ties.freed

    @property
    def workflow_id(self) -> str:
        return self.ties.workflow_id
