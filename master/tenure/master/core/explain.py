"""Why a job does not run: all that keeps it, how many come before it, and when it may begin.

Reads only, and exact: gates are asked themselves, and whose turn it is says the dispatch itself,
decided as it would be now. So a PENDING job that nothing is said against is granted by the next
dispatch that has credit.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from tenure.master.core.breaker import Breaker
from tenure.master.core.command import Dispatch
from tenure.master.core.dependency import Fate, fate_of_job
from tenure.master.core.dispatch import reserved_for, would_grant
from tenure.master.core.gate import MANY, Limiter, Queue
from tenure.master.core.health import allowance
from tenure.master.core.ready import Lane, order_key
from tenure.master.core.record import JobRecord
from tenure.master.core.segment import Segment
from tenure.master.core.session import Session
from tenure.master.core.skill import satisfies
from tenure.master.core.state import State
from tenure.master.core.transition import QUEUED
from tenure.protocol.ids import JobId
from tenure.protocol.limits import DEFAULT_TENANT
from tenure.protocol.vocabulary import BlockerKind, BreakerState, JobState

#: What the node's dispatch grants in one turn: who is not among them has others before it.
TURN: Final = 512
#: So many queues with reserves, and workers, are named.
_NAMED_MOST: Final = 5
#: The end of these depends on people, not on time or on jobs.
_ENDLESS: Final = frozenset(
    {
        BlockerKind.PARENTS,
        BlockerKind.TENANT_PAUSED,
        BlockerKind.QUEUE_PAUSED,
        BlockerKind.JOB_TYPE_PAUSED,
        BlockerKind.NO_WORKER,
        BlockerKind.NO_LABELS,
    }
)


class Blocker(NamedTuple):
    """One thing that keeps a job from running."""

    kind: BlockerKind
    #: What it is, with its figures.
    text: str
    #: What would free it.
    freed_by: str
    #: When it ends by itself; 0: nobody knows.
    until_ms: int = 0
    #: How far apart those begin that wait for it, if it lets one after the other through; else 0.
    each_ms: float = 0.0
    #: Whether an operator wants it so, until they take it back.
    by_hand: bool = False


class Halt(NamedTuple):
    """Why nothing is granted now, whatever waits."""

    text: str
    freed_by: str
    until_ms: int = 0


class Explanation(NamedTuple):
    """See the module."""

    job_id: JobId
    state: JobState
    #: Jobs of its queue that would be granted before it.
    ahead: int
    #: What it waits for longest first; empty: it is its turn, or it does not wait.
    blockers: list[Blocker]
    #: None: nothing is known to go by.
    estimate_ms: int | None
    #: What the estimate was computed from.
    basis: str
    #: Parents of a BLOCKED job that have not ended.
    open_parents: list[JobId]


class Explaining:
    """One explanation: jobs ahead are counted in slices, between which the state may change.

    Args:
        state: The partition's.
        record: The job.
        credits: (session, credit) of all sessions that have some.
        now_ms: The time.
        halt: Why the node grants nothing now, if it does not.
    """

    def __init__(
        self,
        state: State,
        record: JobRecord,
        credits: list[tuple[int, int]],
        now_ms: int,
        halt: Halt | None,
    ) -> None:
        self._ahead = _Ahead(0, 0, 0)
        self._segments: Iterator[tuple[Segment, _Ahead]] = iter(())
        self._place = (0, 0)
        self._found = _explain(state, record, credits, now_ms, halt)
        self.done = record.state is not JobState.PENDING
        self._rate = 0.0
        if not self.done:
            key = order_key(record.priority, record.ready_ms, state.config.aging_step_ms)
            self._place = (key, record.ordinal)
            lane = state.lanes.of(record)
            self._segments = iter(_segments_ahead(lane, key))
            self._rate = lane.queue.pulse.service_rate(now_ms)
        self._now_ms = now_ms

    def take(self, looks_max: int) -> None:
        """Looks at about so many jobs that may come before it."""
        looks = 0
        while looks < looks_max:
            found = next(self._segments, None)
            if found is None:
                self.done = True
                return
            segment, each = found
            left = segment.left()
            looks += 1 + len(left)
            jobs = len(left)
            if segment.at_ms >= self._place[0]:
                jobs = sum(record.ordinal < self._place[1] for record in left)
            sums = zip(self._ahead, each, strict=True)
            self._ahead = _Ahead(*[known + jobs * counts for known, counts in sums])

    def result(self) -> Explanation:
        """What there is to say, once it is ``done``."""
        found = self._found
        estimate_ms, basis = found.estimate_ms, found.basis
        if found.state is JobState.PENDING:
            estimate_ms, basis = _estimate(found.blockers, self._ahead, self._rate, self._now_ms)
        return found._replace(ahead=self._ahead.jobs, estimate_ms=estimate_ms, basis=basis)


class _Ahead(NamedTuple):
    """Jobs before one, or what each job of a lane counts for among them."""

    #: Those that would be granted before it, and those of its own lane.
    jobs: int
    #: Those of its own limit key, in whatever lane.
    of_key: int
    #: Those of other keys, or of none, that would be granted before it.
    others: int


def _segments_ahead(lane: Lane, key: int) -> list[tuple[Segment, _Ahead]]:
    """Where jobs may be that would be granted before one with this key, as things stand."""
    found = []
    for other in lane.queue.lanes.values():
        may_run = other.is_open and other.job_type.is_open and bool(other.places)
        of_key = lane.key is not None and other.key is lane.key
        each = _Ahead(other is lane or may_run, of_key, may_run and not of_key)
        if any(each):
            found += [(part, each) for part in other.segments() if part.at_ms <= key]
    return found


def _estimate(
    blockers: list[Blocker], ahead: _Ahead, rate: float, now_ms: int
) -> tuple[int | None, str]:
    """When a ready job may begin, and what says so: the last of all that it waits for."""
    if any(_is_endless(blocker) for blocker in blockers):
        return None, "nobody knows when what keeps it ends"
    if not blockers:
        return 0, "it is its turn"
    paced = {blocker.kind for blocker in blockers if blocker.each_ms}
    jobs = ahead.others if BlockerKind.KEY_RATE in paced else ahead.jobs
    if any(_is_unmeasured(blocker, jobs) for blocker in blockers):
        return None, "how fast those begin that wait for the same is not known"
    waits = [_wait_for(blocker, ahead, now_ms) for blocker in blockers if blocker.until_ms]
    if BlockerKind.QUEUE_RATE in paced:
        jobs = 0
    if jobs or len(waits) < len(blockers):
        if not rate:
            return None, "how fast jobs of its queue begin is not known yet"
        text = f"{jobs} jobs before it, and {rate:.3g} a second have begun while jobs waited"
        waits.append((round((jobs + 1) * 1_000 / rate), text))
    return max(waits)


def _is_unmeasured(blocker: Blocker, jobs: int) -> bool:
    """Whether those that wait for it begin at another pace than their queue, which nobody knows."""
    match blocker.kind:
        case BlockerKind.KEY_CONCURRENCY | BlockerKind.STICKY_WORKER_BUSY:
            return True
        case BlockerKind.CIRCUIT_BREAKER | BlockerKind.KEY_CIRCUIT_BREAKER:
            return not blocker.until_ms
        case BlockerKind.QUARANTINE:
            return not blocker.until_ms or jobs > 0
        case _:
            return False


def _wait_for(blocker: Blocker, ahead: _Ahead, now_ms: int) -> tuple[int, str]:
    """How long a job waits for what ends by itself, after those before it; and what says so."""
    until_ms = max(blocker.until_ms - now_ms, 0)
    jobs = ahead.of_key if blocker.kind is BlockerKind.KEY_RATE else ahead.jobs
    if not blocker.each_ms or not jobs:
        return until_ms, "what keeps it ends then"
    each_s = blocker.each_ms / 1_000
    return until_ms + round(
        jobs * blocker.each_ms
    ), f"{jobs} jobs before it, one every {each_s:.3g} s"


def _is_endless(blocker: Blocker) -> bool:
    return blocker.kind in _ENDLESS or blocker.by_hand


def _explain(
    state: State,
    record: JobRecord,
    credits: list[tuple[int, int]],
    now_ms: int,
    halt: Halt | None,
) -> Explanation:
    """All but the count of jobs ahead, and what follows from it."""
    found = Explanation(record.job_id, record.state, 0, [], None, "", [])
    if record.state not in QUEUED:
        return found
    policy = record.policy
    queue = state.lanes.queues[policy.tenant, policy.queue]
    blockers = list(_pauses(state, record, queue))
    serving = _serving(state, record)
    blockers += _nobody(state, record, serving)
    match record.state:
        case JobState.PENDING:
            blockers += _held_up(state, record, queue, serving, credits, now_ms, halt)
            blockers = blockers or _others_first(state, record, credits, now_ms)
        case JobState.BLOCKED:
            waits_for = state.dependencies.open_parents(state.jobs, record)
            blockers += _parents(state, record, waits_for)
            parents = [parent for parent in waits_for if parent != record.workflow_id]
            found = found._replace(open_parents=parents)
        case _:
            blockers.append(_not_due(state, record))
            known = not any(_is_endless(blocker) for blocker in blockers)
            found = found._replace(
                estimate_ms=max(record.ready_ms - now_ms, 0) if known else None,
                basis="when it is due; who waits then is not known"
                if known
                else "nobody knows when what keeps it ends",
            )
    blockers.sort(key=lambda blocker: (not _is_endless(blocker), -blocker.until_ms))
    return found._replace(blockers=blockers)


# What keeps jobs for as long as somebody wants.


def _pauses(state: State, record: JobRecord, queue: Queue) -> Iterator[Blocker]:
    name, settings = record.policy.name, state.settings
    whose = _whose(queue.tenant.name)
    if queue.tenant.settings.paused:
        tenant = queue.tenant.name
        yield Blocker(
            BlockerKind.TENANT_PAUSED,
            f"tenant {tenant} is paused",
            f"tenure queues resume --tenant {tenant}",
        )
    if queue.settings.paused:
        yield Blocker(
            BlockerKind.QUEUE_PAUSED,
            f"queue {queue.name} is paused",
            f"tenure queues resume {queue.name}{whose}",
        )
    if settings.job_type(record.policy.tenant, name).paused:
        yield Blocker(
            BlockerKind.JOB_TYPE_PAUSED,
            f"jobs of name {name} are paused",
            f"tenure queues resume --job {name}{whose}",
        )


def _whose(tenant: str) -> str:
    """What a command that is about something of a tenant has to say."""
    return "" if tenant == DEFAULT_TENANT else f" --tenant {tenant}"


def _serving(state: State, record: JobRecord) -> list[Session]:
    """The sessions that run its name and queue, whatever labels they have."""
    policy = record.policy
    return [
        session
        for session in state.sessions.values()
        if session.holder.session is session
        and not session.draining
        and session.skill.serves(policy.queue, policy.name)
    ]


def _drained(state: State, record: JobRecord) -> list[Session]:
    """The sessions that would run its name and queue, and get nothing."""
    policy = record.policy
    return [
        session
        for session in state.sessions.values()
        if session.holder.session is session
        and session.draining
        and session.skill.serves(policy.queue, policy.name)
    ]


def _able(record: JobRecord, sessions: list[Session]) -> list[Session]:
    """Those that have the labels that it requires."""
    requires = record.policy.requires
    return [s for s in sessions if all(satisfies(s.labels, selector) for selector in requires)]


def _nobody(state: State, record: JobRecord, serving: list[Session]) -> Iterator[Blocker]:
    policy = record.policy
    if not serving:
        drained = _drained(state, record)
        text = f"none of {len(state.sessions)} workers runs jobs {policy.name} of queue "
        text += policy.queue
        freed_by = "a worker starts that serves it"
        if drained:
            names = ", ".join(session.holder.worker for session in drained[:_NAMED_MOST])
            text += f", but {len(drained)} that are drained ({names})"
            freed_by += f", or `tenure workers undrain {drained[0].holder.worker}`"
        yield Blocker(BlockerKind.NO_WORKER, text, freed_by)
    elif not _able(record, serving):
        wanted = ", ".join(
            selector.key + (f"={'|'.join(selector.values)}" if selector.values else "")
            for selector in policy.requires
        )
        yield Blocker(
            BlockerKind.NO_LABELS,
            f"none of the {len(serving)} workers that serve it has the labels {wanted}",
            "a worker starts that has them",
        )


# What keeps jobs that wait for a time or for others.


def _not_due(state: State, record: JobRecord) -> Blocker:
    if record.state is JobState.RETRYING and record.over_budget:
        policy = record.policy
        share = state.settings.job_type(policy.tenant, policy.name).retry_budget
        of_what = f" of {share:.3g} of its grants" if share else ""
        return Blocker(
            BlockerKind.RETRY_BUDGET,
            f"attempt {record.attempt} has failed and its backoff is over, but the retries of "
            f"{policy.name} had used up their budget{of_what}",
            "its place among them has come",
            record.ready_ms,
        )
    what = "its backoff is over" if record.state is JobState.RETRYING else "its time has come"
    text = (
        f"attempt {record.attempt} has failed, and the next one is not due yet"
        if record.state is JobState.RETRYING
        else "it is not due yet"
    )
    return Blocker(BlockerKind.NOT_DUE, text, what, record.ready_ms)


def _parents(state: State, record: JobRecord, waits_for: list[JobId]) -> Iterator[Blocker]:
    """``waits_for``: its parents that have not ended, and its workflow if that is not sealed."""
    total = len(record.parents) - bool(record.workflow_id)
    is_sealed = record.workflow_id not in waits_for
    parents = len(waits_for) - (not is_sealed)
    if not is_sealed:
        yield Blocker(
            BlockerKind.PARENTS,
            f"its workflow {record.workflow_id} has not been sealed",
            "it is sealed",
        )
    if parents:
        yield Blocker(
            BlockerKind.PARENTS, f"{parents} of its {total} parents have not ended", "they end"
        )
    if waits_for:
        return
    if fate_of_job(record, state.dependencies.states_of(state.jobs, record)) is Fate.HOLD:
        yield Blocker(
            BlockerKind.PARENTS,
            f"of its {total} parents one has not succeeded, and it is held for that",
            "that one is requeued and succeeds",
        )
    else:
        yield Blocker(
            BlockerKind.PARENTS,
            "its parents have ended a moment ago",
            "the leader decides what becomes of it",
        )


# What keeps a job that is due.


def _held_up(
    state: State,
    record: JobRecord,
    queue: Queue,
    serving: list[Session],
    credits: list[tuple[int, int]],
    now_ms: int,
    halt: Halt | None,
) -> Iterator[Blocker]:
    if state.window_ends_ms is not None:
        yield Blocker(
            BlockerKind.LEADER,
            "the leader has just taken office, and workers tell it what they run",
            "all have told, or the time for it is over",
            state.window_ends_ms,
        )
    elif halt is not None:
        yield Blocker(BlockerKind.LEADER, *halt)
    lane = state.lanes.of(record)
    job_type, key = lane.job_type, queue.limit_keys.get(record.limit_key)
    yield from _breaker(
        job_type.breaker,
        BlockerKind.CIRCUIT_BREAKER,
        job_type.name,
        f"--job {job_type.name}{_whose(job_type.tenant)} --breaker-override none",
    )
    what = f"queue {queue.name}"
    yield from _limits(queue, what, BlockerKind.QUEUE_CONCURRENCY, BlockerKind.QUEUE_RATE)
    if key is not None:
        what = f"limit key {key.key} of {what}"
        if key.breaker is not None:
            yield from _breaker(
                key.breaker,
                BlockerKind.KEY_CIRCUIT_BREAKER,
                what,
                f"{queue.name}{_whose(queue.tenant.name)} --key-breaker-override {key.key}=none",
            )
        yield from _limits(key, what, BlockerKind.KEY_CONCURRENCY, BlockerKind.KEY_RATE)
    able = _able(record, serving)
    # In the window nobody's credit counts yet.
    if able and state.window_ends_ms is None:
        yield from _credit(state, lane, able, dict(credits), now_ms)


def _breaker(breaker: Breaker, kind: BlockerKind, whose: str, let_go: str) -> Iterator[Blocker]:
    """``let_go``: what to say after ``tenure queues set`` for it to work by itself again."""
    if breaker.probes != 0:
        return
    until_ms = breaker.next_ms() or 0
    by_hand = False
    if breaker.state is BreakerState.HALF_OPEN:
        text, freed_by = f"the breaker of {whose} is half open, and its probes run", "they succeed"
    elif until_ms:
        text = f"the breaker of {whose} is open: too many have failed"
        freed_by = "it lets probes through"
    else:
        text = f"the breaker of {whose} was opened by hand"
        freed_by = f"an operator: tenure queues set {let_go}"
        by_hand = True
    yield Blocker(kind, text, freed_by, until_ms, by_hand=by_hand)


def _limits(
    limiter: Limiter, what: str, concurrency: BlockerKind, rate: BlockerKind
) -> Iterator[Blocker]:
    most, running = limiter.concurrency, limiter.running()
    if most and running >= most:
        yield Blocker(
            concurrency, f"{what} runs {running} of at most {most} jobs", "one of them ends"
        )
    if limiter.is_dry and limiter.bucket is not None:
        tokens = limiter.bucket.rate
        yield Blocker(
            rate,
            f"{what} begins at most {tokens.count} jobs in {tokens.per_ms / 1_000:g} s",
            "its next token",
            limiter.next_ms() or 0,
            each_ms=tokens.per_ms / tokens.count,
        )


def _credit(
    state: State, lane: Lane, able: list[Session], credit: dict[int, int], now_ms: int
) -> Iterator[Blocker]:
    """Whether some of those who can run a lane's jobs have a free slot."""
    sticky, patience_ms = lane.sticky, state.config.accept_timeout_ms
    own = [s for s in able if sticky is not None and s.incarnation == sticky.incarnation]
    bound = sticky is not None and (bool(own) or bool(sticky.incarnation and not lane.places))
    takers = own if bound else able
    ready = [s for s in takers if s.may_be_granted(now_ms, patience_ms)]
    free = [s for s in ready if allowance(state, s, 1, now_ms)]
    if ready and not free:
        yield _quarantine(state, ready)
        return
    ready = free
    if any(credit.get(session.session_id, 0) > 0 for session in ready):
        return
    if bound and sticky is not None:
        worker = own[0].holder.worker if own else "away"
        yield Blocker(
            BlockerKind.STICKY_WORKER_BUSY,
            f"sticky key {sticky.key} is bound to a worker ({worker}) that has no free slot",
            "a job of that worker ends, or the worker is gone",
        )
        return
    slots = sum(session.slots for session in able)
    yield Blocker(
        BlockerKind.NO_CREDIT,
        f"all slots of those who serve it are taken, or they are silent (workers: {len(able)}, "
        f"slots: {slots})",
        "one of their jobs ends, or a worker starts",
    )


def _quarantine(state: State, sessions: list[Session]) -> Blocker:
    """All who could be given the job are in quarantine."""
    workers = sorted(session.holder.worker for session in sessions)
    text = f"the workers that serve it are in quarantine ({', '.join(workers[:_NAMED_MOST])})"
    operator = f"an operator: tenure workers release {workers[0]}"
    marks = [(state.health.marks[session.incarnation], session) for session in sessions]
    if all(mark.by_hand for mark, _ in marks):
        return Blocker(BlockerKind.QUARANTINE, text, operator, by_hand=True)
    # Who is being tried has to end that job first.
    tries = [mark.probe_ms for mark, s in marks if not mark.by_hand and not s.holder.leases]
    freed_by = f"one of them is tried with one job, or {operator}"
    return Blocker(BlockerKind.QUARANTINE, text, freed_by, min(tries, default=0))


def _others_first(
    state: State, record: JobRecord, credits: list[tuple[int, int]], now_ms: int
) -> list[Blocker]:
    """Asks the dispatch itself whether it is its turn."""
    command = Dispatch(credits=credits, committed_seq=MANY, grants_max=TURN)
    if would_grant(state, command, now_ms, record):
        return []
    if state.lanes.reserving and would_grant(state, command, now_ms, record, reserving=False):
        names = [queue.name for queue in reserved_for(state, command, now_ms, record)]
        whose = f" ({', '.join(names[:_NAMED_MOST])})" if names else ""
        return [
            Blocker(
                BlockerKind.RESERVED,
                f"the slots that are free are reserved for others{whose}",
                "more slots become free",
            )
        ]
    return [
        Blocker(
            BlockerKind.ORDER,
            "others come before it: of its own queue by their order, of other queues by their "
            "shares",
            "they are granted",
        )
    ]
