"""What a journal says happened, in its own order, as plain facts that the checkers understand.

The checkers never see the product's events: ``journal_facts`` reads them from the journal's bytes,
and the tests of the checkers write facts by hand. Leases are fence texts: their text order is the
order in which leases were given out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeGuard, get_args


class Submitted(NamedTuple):
    """A job was accepted. ``content`` is the ``hash_of`` what was submitted; times are the term's.

    ``pending`` is whether it was due at once; ``key`` is empty if it has none. ``apart`` is whether
    something may hold it up, or send it elsewhere, while others of its queue go: a limit key, a
    sticky key, labels, a pause or a breaker of its job type, slots that its queue reserves.
    ``parents`` are what it waits for, the first one its ``workflow`` if it is a member of one.
    """

    seq: int
    job: str
    content: str
    max_attempts: int
    max_lost: int
    at_ms: int = 0
    tenant: str = ""
    queue: str = ""
    name: str = ""
    priority: int = 0
    ready_ms: int = 0
    pending: bool = True
    key: str = ""
    key_window_ms: int = 0
    apart: bool = False
    conflict: str = "RETURN"
    limit_key: str = ""
    parents: tuple[str, ...] = ()
    workflow: str = ""
    run_if: str = "ALL_SUCCEEDED"
    on_parent_failure: str = "FAIL"


class Readied(NamedTuple):
    """A job's delay or backoff was over."""

    seq: int
    job: str
    at_ms: int = 0


class Granted(NamedTuple):
    """A lease was given to a worker; ``holder`` is the worker's incarnation."""

    seq: int
    job: str
    lease: str
    attempt: int
    at_ms: int = 0
    holder: str = ""


class Adopted(NamedTuple):
    """A lease whose grant was never journaled was proved by its worker, and stands."""

    seq: int
    job: str
    lease: str
    attempt: int


class Closed(NamedTuple):
    """A lease ended. ``charged`` is the budget it cost: ``attempt``, ``loss`` or nothing.

    ``expired`` is whether its time was over; ``at_ms`` is when that was decided, in term time;
    ``outcome`` is how the attempt ended.
    """

    seq: int
    job: str
    lease: str
    charged: str
    expired: bool = False
    at_ms: int = 0
    outcome: str = ""


class Saved(NamedTuple):
    """A running job saved something; ``content`` is the ``hash_of`` it, ``number`` its lease's.

    ``forgiven`` are the losses that the job was charged with until then, and is no more.
    """

    seq: int
    job: str
    lease: str
    number: int
    content: str
    forgiven: int = 0


class Waits(NamedTuple):
    """A job whose attempt ended waits again: for a worker if ``pending``, else for its time."""

    seq: int
    job: str
    ready_ms: int
    pending: bool


class Boosted(NamedTuple):
    """A job that waits got another place: for a worker if ``pending``, else for its time."""

    seq: int
    job: str
    priority: int
    ready_ms: int
    pending: bool


class Freed(NamedTuple):
    """A job's parents let it run: it waits for a worker if ``pending``, else for its time.

    ``outcomes`` are what they had come to, as far as its partition knew: a job's state, or ``GONE``
    (it is not known any more); a workflow is ``OPEN``, ``COMPLETED`` (sealed) or ``CANCELLED``.
    """

    seq: int
    job: str
    ready_ms: int
    pending: bool
    at_ms: int = 0
    outcomes: tuple[str, ...] = ()


class CancelAsked(NamedTuple):
    """A running job was asked to stop, and why."""

    seq: int
    job: str
    reason: str = ""


class Settled(NamedTuple):
    """A job became terminal; ``lease`` is empty when no report of a worker decided it.

    ``reason`` is why it is FAILED, or what was said when it was cancelled. ``outcomes`` are what
    its parents had come to, if that decided it (see ``Freed``).
    """

    seq: int
    job: str
    run: int
    lease: str
    state: str
    content: str
    reason: str = ""
    at_ms: int = 0
    outcomes: tuple[str, ...] = ()


class Requeued(NamedTuple):
    """A job that had failed or was cancelled got a new run; not ``pending``: its parents first.

    ``content`` is as in ``Submitted``, of what it runs with from then on; empty: as before.
    """

    seq: int
    job: str
    run: int
    at_ms: int = 0
    pending: bool = True
    content: str = ""


class Withdrawn(NamedTuple):
    """A job that was not acknowledged was taken out again: a parent of it does not exist.

    ``parent`` is the one; ``outcome`` is what it is instead, a workflow among them (see ``Freed``).
    """

    seq: int
    job: str
    parent: str = ""
    outcome: str = "GONE"


class Purged(NamedTuple):
    """A job was forgotten."""

    seq: int
    job: str


class TermBegan(NamedTuple):
    """A master took office; ``token`` is the first 24 digits of its leases' fences."""

    seq: int
    token: str
    incarnation: str = ""
    at_ms: int = 0


class Rate(NamedTuple):
    """A token bucket: ``count`` grants in ``per_ms``, and ``burst`` at once."""

    count: int
    per_ms: int
    burst: int


class Fuse(NamedTuple):
    """What a circuit breaker goes by."""

    failure_rate: float
    window_ms: int
    volume_min: int
    open_for_ms: int
    probes: int


class QueueSet(NamedTuple):
    """How a queue is run from now on; 0 or None is no limit."""

    seq: int
    at_ms: int
    tenant: str
    queue: str
    paused: bool = False
    concurrency: int = 0
    key_concurrency: int = 0
    strategy: str = "QUEUE"
    rate: Rate | None = None
    key_rate: Rate | None = None
    key_breaker: Fuse | None = None
    #: (limit key, what people make of its breaker).
    key_overrides: tuple[tuple[str, str], ...] = ()


class TenantSet(NamedTuple):
    """How a tenant is run from now on."""

    seq: int
    at_ms: int
    tenant: str
    paused: bool = False


class JobTypeSet(NamedTuple):
    """How a tenant's jobs of one name are run from now on; ``override`` is what people say."""

    seq: int
    at_ms: int
    tenant: str
    name: str
    paused: bool = False
    breaker: Fuse | None = None
    override: str = "NONE"


class WorkflowIs(NamedTuple):
    """What a workflow is from now on, to its members: see ``Freed``."""

    seq: int
    at_ms: int
    workflow: str
    outcome: str


class WorkflowForgotten(NamedTuple):
    """A workflow was forgotten."""

    seq: int
    at_ms: int
    workflow: str


class BatchMade(NamedTuple):
    """Something is to be done to all jobs that match a filter; ``kind`` is what."""

    seq: int
    at_ms: int
    batch: str
    kind: str


class BatchEnded(NamedTuple):
    """A batch has done it, or was stopped."""

    seq: int
    at_ms: int
    batch: str


class Message(NamedTuple):
    """What one partition says to another: of a job, or of a parent and its child.

    ``kind`` is ``submit``, ``cancel``, ``register``, ``tell`` or ``release``. ``content`` and
    ``key`` are what a submit is about, ``outcome`` is what a parent is (see ``Freed``).
    """

    kind: str
    job: str
    child: str = ""
    run: int = 0
    outcome: str = ""
    content: str = ""
    key: tuple[str, str, str] = ("", "", "")


class Sent(NamedTuple):
    """A message was put into the outbox."""

    seq: int
    at_ms: int
    target: int
    number: int
    message: Message


class Trimmed(NamedTuple):
    """The target was known to have taken all messages up to this number."""

    seq: int
    at_ms: int
    target: int
    upto: int


class Taken(NamedTuple):
    """A message of another partition took effect, by the facts right before this one."""

    seq: int
    at_ms: int
    source: int
    number: int


class Registered(NamedTuple):
    """A job elsewhere waits for one of this partition."""

    seq: int
    at_ms: int
    parent: str
    child: str
    run: int


class Released(NamedTuple):
    """A job elsewhere waits no more for one of this partition."""

    seq: int
    at_ms: int
    parent: str
    child: str


class Told(NamedTuple):
    """Another partition told what a parent of a job of this one is (see ``Freed``)."""

    seq: int
    at_ms: int
    parent: str
    child: str
    outcome: str


class Plan(NamedTuple):
    """What a schedule is to do: when, and with the job of what content; where that goes.

    ``misfire``, ``overlap``: the names of the policies. No tick before ``start_ms`` and none after
    ``end_ms``; 0 is no bound.
    """

    cron: str
    zone: str
    content: str
    tenant: str
    queue: str
    misfire: str = "FIRE_ONCE"
    overlap: str = "SKIP"
    catch_up_ms: int = 0
    jitter_ms: int = 0
    start_ms: int = 0
    end_ms: int = 0


class Cursor(NamedTuple):
    """How far a schedule is: the first tick not decided on, one that waits, the last that fired.

    0 is none; ``last_job`` is the last one's.
    """

    next_ms: int = 0
    buffered_ms: int = 0
    last_ms: int = 0
    last_job: str = ""


class SchedulePut(NamedTuple):
    """A schedule was made or changed."""

    seq: int
    at_ms: int
    tenant: str
    name: str
    plan: Plan
    cursor: Cursor
    paused: bool = False


class SchedulePaused(NamedTuple):
    """A schedule was stopped, or goes on."""

    seq: int
    at_ms: int
    tenant: str
    name: str
    paused: bool
    cursor: Cursor


class ScheduleDeleted(NamedTuple):
    """A schedule was forgotten."""

    seq: int
    at_ms: int
    tenant: str
    name: str


class Ticked(NamedTuple):
    """Ticks of a schedule were decided on; the jobs of those that fired come right before."""

    seq: int
    at_ms: int
    tenant: str
    name: str
    cursor: Cursor


#: Facts about one job.
JobFact = (
    Submitted
    | Readied
    | Granted
    | Adopted
    | Closed
    | Saved
    | Waits
    | Boosted
    | Freed
    | Withdrawn
    | CancelAsked
    | Settled
    | Requeued
    | Purged
)
SettingFact = QueueSet | TenantSet | JobTypeSet
#: Facts about what partitions say to each other, and what comes of it.
PostFact = Sent | Trimmed | Taken | Registered | Released | Told
ScheduleFact = SchedulePut | SchedulePaused | ScheduleDeleted | Ticked
WorkflowFact = WorkflowIs | WorkflowForgotten
BatchFact = BatchMade | BatchEnded
Fact = JobFact | TermBegan | SettingFact | PostFact | ScheduleFact | WorkflowFact | BatchFact
_JOB_FACTS: Final = frozenset(get_args(JobFact))


def is_about_job(fact: Fact) -> TypeGuard[JobFact]:
    """Whether a fact is about one job."""
    return type(fact) in _JOB_FACTS


def lives_of(facts: Iterable[Fact]) -> dict[str, list[JobFact]]:
    """The facts of each job, in order."""
    lives: dict[str, list[JobFact]] = {}
    for fact in facts:
        if is_about_job(fact):
            lives.setdefault(fact.job, []).append(fact)
    return lives


def last_ms(facts: Sequence[Fact]) -> int:
    """The last time that a partition's facts tell of; 0: they tell of none."""
    return next((at_ms for fact in reversed(facts) if (at_ms := getattr(fact, "at_ms", 0))), 0)


#: How many digits of a fence text are its token, and how many at the end its run.
TOKEN_DIGITS, RUN_DIGITS = 24, 8


def token_of(lease: str) -> str:
    """The office's part of a fence text."""
    return lease[:TOKEN_DIGITS]


def run_of(lease: str) -> str:
    """The run's part of a fence text: one more for each requeue."""
    return lease[-RUN_DIGITS:]


def contents_of(facts: Iterable[Fact]) -> dict[str, dict[int, str]]:
    """By job: what each of its runs is about."""
    found: dict[str, dict[int, str]] = {}
    for fact in facts:
        match fact:
            case Submitted():
                found[fact.job] = {0: fact.content}
            case Requeued() if fact.job in found:
                runs = found[fact.job]
                runs[fact.run] = fact.content or runs.get(fact.run - 1, "")
            case _:
                pass
    return found
