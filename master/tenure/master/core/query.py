"""What people and the node want to know about a partition; reads only."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from tenure.master.core.gate import Queue, Tally
from tenure.master.core.record import JobRecord
from tenure.master.core.session import Holding
from tenure.master.core.settings import SettingsKey, SettingsKind
from tenure.master.core.state import State
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import BreakerOverride, BreakerState, JobState


class Filter(NamedTuple):
    """Which jobs; empty fields match all."""

    states: frozenset[JobState] = frozenset()
    queue: str = ""
    name: str = ""
    tenant: str = ""
    #: What the others cannot say: it has to look at each job.
    also: Callable[[JobRecord], bool] | None = None


EVERY_JOB: Final = Filter()
_TRIPPED_SHOWN: Final = 100


class SessionStatus(NamedTuple):
    """A session as the status shows it."""

    session_id: int
    incarnation: str
    worker: str
    job_names: frozenset[str]
    slots: int
    leases: int
    #: When it was last heard of; 0: not yet.
    heartbeat_ms: int
    draining: bool


class PartitionStats(NamedTuple):
    """A partition's size."""

    jobs: int
    ready: int
    running: int
    payload_bytes: int


def stats(state: State) -> PartitionStats:
    """The partition's size."""
    counts = state.lanes.counts
    return PartitionStats(
        jobs=len(state.jobs),
        ready=counts[JobState.PENDING],
        running=counts[JobState.RUNNING],
        payload_bytes=state.stored_bytes,
    )


def sessions(state: State) -> list[SessionStatus]:
    """The open sessions, oldest first."""
    return [
        SessionStatus(
            session_id=session.session_id,
            incarnation=session.holder.incarnation,
            worker=session.holder.worker,
            job_names=session.job_names,
            slots=session.slots,
            leases=len(session.holder.leases),
            heartbeat_ms=session.holder.heartbeat_ms,
            draining=session.draining,
        )
        for session in state.sessions.values()
    ]


def held_by(state: State, session_id: int, most: int) -> list[tuple[JobRecord, Holding]]:
    """What the worker of a session holds, in the order of the grants, so many at most."""
    session = state.sessions.get(session_id)
    leases = session.holder.leases.values() if session is not None else ()
    return [(holding.record, holding) for holding in islice(leases, most)]


def backlog_for(state: State, session_id: int) -> int:
    """How many ready jobs wait for nothing but credit of a session like this one."""
    session = state.sessions.get(session_id)
    return 0 if session is None else session.backlog()


def counts(state: State, wanted: Filter) -> dict[JobState, int]:
    """How many jobs match, by state; states without any are left out. Leaves ``also`` out."""
    totals = {}
    tallies = list(_tallies(state, wanted))
    for job_state in JobState:
        if not wanted.states or job_state in wanted.states:
            total = sum(tally.counts[job_state] for tally in tallies)
            if total:
                totals[job_state] = total
    return totals


def census(
    state: State, kind: SettingsKind, wanted: Filter = EVERY_JOB
) -> dict[SettingsKey, list[int]]:
    """All queues, tenants or job types that have a job or a setting, and their jobs by state.

    Args:
        state: The partition's.
        kind: What to look for.
        wanted: Only those of this tenant, queue or name.
    """
    found: dict[SettingsKey, list[int]] = {}
    for tally in _tallies(state, wanted):
        key = _key_of(kind, tally)
        totals = found.get(key)
        if totals is None:
            found[key] = list(tally.counts)
        else:
            for job_state, count in enumerate(tally.counts):
                totals[job_state] += count
    names = {SettingsKind.QUEUE: wanted.queue, SettingsKind.JOB_TYPE: wanted.name}
    name = names.get(kind, "")
    for key, _ in state.settings.entries(kind):
        if (not wanted.tenant or key[0] == wanted.tenant) and (not name or key[1] == name):
            found.setdefault(key, [0] * len(state.lanes.counts))
    return found


class QueueStatus(NamedTuple):
    """How a queue does."""

    #: When the job that has been ready for longest became so; 0: none is.
    oldest_ready_ms: int
    granted_per_s: float
    finished_per_s: float
    #: Of attempts that ended lately; 0: not known.
    mean_run_ms: int
    #: Of its limit keys those whose breakers do not let all through, open ones first; not all.
    key_breakers: Sequence["KeyBreakerStatus"] = ()


class KeyBreakerStatus(NamedTuple):
    """How the breaker of a limit key does."""

    limit_key: str
    breaker: BreakerState
    #: 0: it has not opened by itself.
    open_until_ms: int
    #: Of its recent attempts.
    failure_rate: float


def queue_status(state: State, tenant: str, name: str, now_ms: int) -> QueueStatus:
    """How a queue does; one without jobs does nothing."""
    queue = state.lanes.queues.get((tenant, name))
    if queue is None:
        return QueueStatus(0, 0.0, 0.0, 0)
    # Jobs of a lane have one priority, so its first one is its oldest.
    heads = (lane.first() for lane in queue.lanes.values())
    oldest_ms = min((head.ready_ms for head in heads if head is not None), default=0)
    granted_per_s, finished_per_s = queue.pulse.rates(now_ms)
    mean_run_ms = queue.pulse.mean_run_ms(now_ms)
    tripped = _tripped(queue, now_ms)
    return QueueStatus(oldest_ms, granted_per_s, finished_per_s, mean_run_ms, tripped)


def _tripped(queue: Queue, now_ms: int) -> tuple[KeyBreakerStatus, ...]:
    """The breakers of limit keys that do not let all through: those that are open come first."""
    found = [(key.key, key.breaker) for key in queue.tripped if key.breaker is not None]
    # Those that are half open may have been so for long.
    found.sort(key=lambda row: row[1].state is not BreakerState.OPEN)
    return tuple(
        KeyBreakerStatus(key, breaker.state, breaker.open_until_ms, breaker.failure_rate(now_ms))
        for key, breaker in found[:_TRIPPED_SHOWN]
    )


class JobTypeStatus(NamedTuple):
    """How a job type does."""

    breaker: BreakerState
    #: Until when its breaker stays open; 0: it is not, or nobody knows.
    open_until_ms: int
    #: Of its recent attempts.
    failure_rate: float


def job_type_status(state: State, tenant: str, name: str, now_ms: int) -> JobTypeStatus:
    """How a job type does; one that nothing is known of has failed at nothing."""
    job_type = state.lanes.known_job_type(tenant, name)
    if job_type is None:
        override = state.settings.job_type(tenant, name).breaker_override
        is_open = override is BreakerOverride.OPEN
        return JobTypeStatus(BreakerState.OPEN if is_open else BreakerState.CLOSED, 0, 0.0)
    breaker = job_type.breaker
    return JobTypeStatus(breaker.state, breaker.open_until_ms, breaker.failure_rate(now_ms))


def _key_of(kind: SettingsKind, tally: Tally) -> SettingsKey:
    match kind:
        case SettingsKind.QUEUE:
            return tally.tenant, tally.queue
        case SettingsKind.TENANT:
            return (tally.tenant,)
        case SettingsKind.JOB_TYPE:
            return tally.tenant, tally.name


class Scan:
    """A look for jobs that match, newest first, in slices between which the state may change.

    A job that is submitted after the first slice is not found; one that matches all the time is.

    Args:
        state: The partition's.
        wanted: Which jobs.
        before_ordinal: Only jobs submitted before the one with this ordinal; None: all.
    """

    def __init__(self, state: State, wanted: Filter, before_ordinal: int | None) -> None:
        self._state = state
        self._wanted = wanted
        self._before_ordinal = before_ordinal
        #: Ids in order of their ordinals; those yet to be looked at come before ``_end``.
        self._ids: list[JobId] | None = None
        self._end = 0
        #: Goes on from slice to slice as long as nothing changes.
        self._walk: Iterator[JobRecord] = iter(())
        self._walk_seq = 0
        self._seq = state.next_seq
        #: How many yet match but for ``also``: a rare state costs no full scan.
        self._left = sum(counts(state, wanted).values())
        self.done = not self._left

    def take(self, limit: int, looks_max: int) -> list[JobRecord]:
        """The next jobs that match: one slice.

        Args:
            limit: At most so many.
            looks_max: Look at so many at most.
        """
        found: list[JobRecord] = []
        if self.done:
            return found
        # Once something has changed, what is left cannot be counted down any more.
        counted = self._state.next_seq == self._seq
        wanted, also, left, looks = self._wanted, self._wanted.also, self._left, 0
        if self._walk_seq != self._state.next_seq:
            self._walk_seq, self._walk = self._state.next_seq, self._newest_first()
        for record in islice(self._walk, looks_max):
            looks += 1
            self._before_ordinal = record.ordinal
            if _matches(record, wanted):
                left -= 1
                if also is None or also(record):
                    found.append(record)
                if (counted and not left) or len(found) >= limit:
                    break
        self._left = left
        ran_out = looks < looks_max and len(found) < limit
        self.done = ran_out or (counted and not left)
        return found

    def _newest_first(self) -> Iterator[JobRecord]:
        jobs = self._state.jobs
        before = self._before_ordinal
        if before is None:
            yield from reversed(jobs.values())
            return
        if self._ids is None:
            # Deep pages are found, not walked to: a million references are copied in milliseconds.
            self._ids = list(jobs)
            self._end = bisect_left(self._ids, before, key=lambda job_id: jobs[job_id].ordinal)
        while self._end:
            self._end -= 1
            record = jobs.get(self._ids[self._end])
            if record is not None:
                yield record


def _matches(record: JobRecord, wanted: Filter) -> bool:
    states, queue, name, tenant, _ = wanted
    policy = record.policy
    return (
        (not states or record.state in states)
        and (not queue or policy.queue == queue)
        and (not name or policy.name == name)
        and (not tenant or policy.tenant == tenant)
    )


def _tallies(state: State, wanted: Filter) -> Iterator[Tally]:
    for (tenant, name), queue in state.lanes.queues.items():
        if (not wanted.tenant or tenant == wanted.tenant) and (
            not wanted.queue or name == wanted.queue
        ):
            for tally in queue.tallies.values():
                if not wanted.name or tally.name == wanted.name:
                    yield tally
