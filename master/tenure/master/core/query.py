"""What people and the node want to know about a partition; reads only."""

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from tenure.master.core.ready import Lane
from tenure.master.core.record import JobRecord
from tenure.master.core.state import State
from tenure.protocol.vocabulary import JobState


class Filter(NamedTuple):
    """Which jobs; empty fields match all."""

    states: frozenset[JobState]
    queue: str
    name: str
    tenant: str


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
            job_names=session.skill.job_names,
            slots=session.slots,
            leases=len(session.holder.leases),
            heartbeat_ms=session.holder.heartbeat_ms,
            draining=session.draining,
        )
        for session in state.sessions.values()
    ]


def backlog_for(state: State, session_id: int) -> int:
    """How many PENDING jobs a session could run."""
    session = state.sessions.get(session_id)
    return 0 if session is None else session.skill.backlog()


def counts(state: State, wanted: Filter) -> dict[JobState, int]:
    """How many jobs match, by state; states without any are left out."""
    totals = {}
    lanes = list(_lanes(state, wanted))
    for job_state in JobState:
        if not wanted.states or job_state in wanted.states:
            total = sum(lane.counts[job_state] for lane in lanes)
            if total:
                totals[job_state] = total
    return totals


def list_jobs(
    state: State, wanted: Filter, before_ordinal: int | None, limit: int
) -> list[JobRecord]:
    """Jobs that match, newest first."""
    found: list[JobRecord] = []
    # The scan ends early when all that match were seen: a rare state costs no full scan.
    left = sum(counts(state, wanted).values())
    for record in _newest_first(state, before_ordinal):
        if not left or len(found) >= limit:
            break
        if _matches(record, wanted):
            left -= 1
            found.append(record)
    return found


def _newest_first(state: State, before_ordinal: int | None) -> Iterator[JobRecord]:
    jobs = state.jobs
    if before_ordinal is None:
        return reversed(jobs.values())
    # Deep pages are found, not walked to: copying a million references takes milliseconds.
    job_ids = list(jobs)
    end = bisect_left(job_ids, before_ordinal, key=lambda job_id: jobs[job_id].ordinal)
    return (jobs[job_ids[index]] for index in range(end - 1, -1, -1))


def _matches(record: JobRecord, wanted: Filter) -> bool:
    states, queue, name, tenant = wanted
    policy = record.policy
    return (
        (not states or record.state in states)
        and (not queue or policy.queue == queue)
        and (not name or policy.name == name)
        and (not tenant or policy.tenant == tenant)
    )


def _lanes(state: State, wanted: Filter) -> Iterator[Lane]:
    for (tenant, queue), names in state.lanes.queues.items():
        if (not wanted.tenant or tenant == wanted.tenant) and (
            not wanted.queue or queue == wanted.queue
        ):
            for name, lane in names.items():
                if not wanted.name or name == wanted.name:
                    yield lane
