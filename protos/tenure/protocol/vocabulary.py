"""The one vocabulary of states and outcomes, with the numbers of the protos.

The members equal the enum values of ``tenure.v1`` (a test compares them), so the wire, the journal
and the core never translate. This module knows no stubs: the core may import it.
"""

from enum import IntEnum


class JobState(IntEnum):
    """Where a job is in its life."""

    SCHEDULED = 1  #: left when its time has come (timer)
    BLOCKED = 2  #: left when its parents have ended
    PENDING = 3  #: left by a grant, a cancel or its schedule timeout
    RUNNING = 4  #: left by a report, an expiry or a take-back
    RETRYING = 5  #: left when its backoff is over (timer) or by a cancel
    COMPLETED = 6  #: terminal; left by a purge only
    FAILED = 7  #: terminal, the dead letter; left by a requeue or a purge
    CANCELLED = 8  #: terminal; left by a requeue or a purge


#: States that a job leaves only by a requeue or a purge.
TERMINAL = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})


class WorkflowState(IntEnum):
    """How a workflow does, from its own state and its members'."""

    OPEN = 1  #: not sealed: no member runs
    RUNNING = 2  #: a member has not ended
    COMPLETED = 3  #: all have ended, all are still known, none is FAILED
    FAILED = 4  #: all have ended, one is FAILED
    CANCELLED = 5  #: cancelled, or not sealed in time
    ENDED = 6  #: all have ended, none that is still known is FAILED, some were purged


class AttemptOutcome(IntEnum):
    """How one attempt ended."""

    COMPLETED = 1
    FAILED = 2
    FAILED_PERMANENT = 3
    TIMED_OUT = 4
    LOST = 5
    RELEASED = 6
    CANCELLED = 7


class FailureReason(IntEnum):
    """Why a job is FAILED."""

    EXHAUSTED = 1
    PERMANENT = 2
    TIMED_OUT = 3
    EXPIRED = 4
    POISON = 5
    LOST = 6
    DEPENDENCY = 7


class Backoff(IntEnum):
    """How the delay before attempt n+1 grows with n failures."""

    EXPONENTIAL = 1
    LINEAR = 2
    FIXED = 3
    FIBONACCI = 4
    NONE = 5


class Jitter(IntEnum):
    """How much of a delay is drawn at random."""

    FULL = 1
    EQUAL = 2
    NONE = 3


class ErrorCategory(IntEnum):
    """What kind of trouble an error is."""

    TRANSIENT = 1
    PERMANENT = 2
    SYSTEM = 3


class Verdict(IntEnum):
    """What became of a worker's report."""

    ACCEPTED = 1
    DUPLICATE = 2
    SUPERSEDED = 3
    GONE = 4
    IGNORED = 5


class FairBy(IntEnum):
    """What a queue's share is counted in."""

    GRANTS = 1
    TIME = 2


class LimitStrategy(IntEnum):
    """What becomes of a job whose key already runs as many as it may."""

    QUEUE = 1
    CANCEL_IN_PROGRESS = 2
    CANCEL_NEWEST = 3


class BreakerState(IntEnum):
    """Whether a job type's attempts are let through."""

    CLOSED = 1
    OPEN = 2
    HALF_OPEN = 3


class BreakerOverride(IntEnum):
    """Whether an operator has taken a breaker into their own hands."""

    NONE = 1
    CLOSED = 2
    OPEN = 3


class BlockerKind(IntEnum):
    """What kind of thing keeps a job from running."""

    NOT_DUE = 1
    PARENTS = 2
    TENANT_PAUSED = 3
    QUEUE_PAUSED = 4
    JOB_TYPE_PAUSED = 5
    QUEUE_CONCURRENCY = 6
    KEY_CONCURRENCY = 7
    QUEUE_RATE = 8
    KEY_RATE = 9
    CIRCUIT_BREAKER = 10
    NO_WORKER = 11
    NO_LABELS = 12
    STICKY_WORKER_BUSY = 13
    NO_CREDIT = 14
    RESERVED = 15
    ORDER = 16
    LEADER = 17
    RETRY_BUDGET = 18
    KEY_CIRCUIT_BREAKER = 19
    QUARANTINE = 20


class WorkerState(IntEnum):
    """Whether a worker gets work."""

    ACTIVE = 1
    #: A job keeps the others of its event loop from going on; it gets work all the same.
    BLOCKED = 2
    #: It fails at what others do well, or an operator wants it: it gets nothing for a while.
    QUARANTINED = 3
    #: It gets nothing more, and has not ended what it runs.
    DRAINING = 4
    #: It gets nothing, and runs nothing.
    DRAINED = 5


class KeyConflict(IntEnum):
    """What a submit with a taken key comes to."""

    RETURN = 1
    REJECT = 2
    REPLACE = 3


class RunIf(IntEnum):
    """Which outcomes of its parents let a job run, once all of them have ended."""

    ALL_SUCCEEDED = 1
    ANY_FAILED = 2
    ALWAYS = 3


class ParentFailure(IntEnum):
    """What becomes of a job that waits for successes when a parent has failed."""

    FAIL = 1
    IGNORE = 2
    HOLD = 3


class LogStream(IntEnum):
    """Where a line of a job's log comes from."""

    LOGGING = 1
    STDOUT = 2
    STDERR = 3


class BatchKind(IntEnum):
    """What a batch does to jobs."""

    CANCEL = 1
    REQUEUE = 2
    PURGE = 3
    BOOST = 4


class BatchState(IntEnum):
    """How a batch is."""

    #: Jobs may be left: the leader goes on, or somebody cancels it.
    RUNNING = 1
    DONE = 2
    CANCELLED = 3


class Misfire(IntEnum):
    """What becomes of a schedule's ticks that were missed."""

    SKIP = 1
    FIRE_ONCE = 2
    FIRE_ALL = 3


class Overlap(IntEnum):
    """What becomes of a schedule's tick while the job of the one before has not ended."""

    SKIP = 1
    BUFFER_ONE = 2
    ALLOW = 3
    CANCEL_OTHER = 4
