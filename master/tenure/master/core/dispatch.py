"""Dispatch: which ready jobs go to which sessions, and what a grant writes."""

from heapq import heapify, heappop, heapreplace
from typing import Final

from tenure.master.core.attempt import remember_attempt
from tenure.master.core.command import Dispatch
from tenure.master.core.effect import Decision, Effect, GrantRow, SendAssignment
from tenure.master.core.event import Event, JobsGranted
from tenure.master.core.ready import Demand, Lane, Skill, pick
from tenure.master.core.record import JobRecord
from tenure.master.core.session import Holding, Session
from tenure.master.core.state import State, footprint
from tenure.protocol.fence import Lease
from tenure.protocol.vocabulary import JobState

#: Looking it up in its enum takes longer than setting it.
_RUNNING: Final = JobState.RUNNING


class _Taker:
    """A session with credit, and what it takes in this decision."""

    __slots__ = ("again", "credit", "first", "load", "session", "step")

    def __init__(self, session: Session, credit: int) -> None:
        self.session = session
        self.credit = credit
        #: How full it is; the emptiest takes first.
        self.step = 1 / max(session.slots, 1)
        self.load = len(session.holder.leases) * self.step
        #: First grants, and grants that must be written ahead.
        self.first: list[JobRecord] = []
        self.again: list[JobRecord] = []

    def take(self, record: JobRecord) -> None:
        self.credit -= 1
        self.load += self.step
        if record.lease is None and not record.policy.at_most_once:
            self.first.append(record)
        else:
            self.again.append(record)


class _Group:
    """Takers with the same skill, emptiest first."""

    __slots__ = ("credit", "heap", "skill")

    def __init__(self, skill: Skill) -> None:
        self.skill = skill
        self.credit = 0
        #: (load, order, taker) of those with credit.
        self.heap: list[tuple[float, int, _Taker]] = []


class _Demand(Demand):
    """All takers of a decision, and how many grants it may still make."""

    def __init__(self, takers: list[_Taker], grants_max: int) -> None:
        self._left = min(grants_max, sum([taker.credit for taker in takers]))
        groups: dict[Skill, _Group] = {}
        for order, taker in enumerate(takers):
            skill = taker.session.skill
            group = groups.get(skill)
            if group is None:
                group = groups[skill] = _Group(skill)
            group.heap.append((taker.load, order, taker))
            group.credit += taker.credit
        self._groups = groups
        for group in groups.values():
            heapify(group.heap)
        self._serving: dict[tuple[str, str], list[_Group]] = {}

    def skills(self) -> list[Skill]:
        return list(self._groups)

    def has_credit(self, skill: Skill) -> bool:
        return self._groups[skill].credit > 0

    def is_met(self) -> bool:
        return self._left == 0

    def wants(self, lane: Lane) -> int:
        groups = self._serving.get((lane.queue, lane.name))
        if groups is None:
            groups = [g for g in self._groups.values() if g.skill.serves(lane.queue, lane.name)]
            self._serving[lane.queue, lane.name] = groups
        return min(self._left, sum([group.credit for group in groups]))

    def take(self, lane: Lane, records: list[JobRecord]) -> None:
        """Gives jobs of a lane, as many as it wants at most, to the emptiest that serve it."""
        self._left -= len(records)
        groups = self._serving[lane.queue, lane.name]
        for record in records:
            group = groups[0]
            if len(groups) > 1:
                group = min([g for g in groups if g.heap], key=lambda g: g.heap[0][:2])
            heap = group.heap
            _, order, taker = heap[0]
            taker.take(record)
            group.credit -= 1
            if taker.credit:
                heapreplace(heap, (taker.load, order, taker))
            else:
                heappop(heap)


def decide_dispatch(state: State, command: Dispatch, now_ms: int) -> Decision:
    """Grants eligible jobs in exact order of their keys, each to the emptiest session for it."""
    if not state.serving or state.window_ends_ms is not None:
        return Decision()
    takers = []
    accept_timeout_ms = state.config.accept_timeout_ms
    for session_id, credit in sorted(command.credits):
        session = state.sessions.get(session_id)
        if session is None or credit <= 0:
            continue
        if session.may_be_granted(now_ms, accept_timeout_ms):
            takers.append(_Taker(session, credit))
    if not takers:
        return Decision()
    demand = _Demand(takers, command.grants_max)
    for lane, records in pick(demand, command.committed_seq):
        demand.take(lane, records)
    return _assignments(state, takers, now_ms)


def _assignments(state: State, takers: list[_Taker], now_ms: int) -> Decision:
    """The events and effects of what was taken: per session first grants, then written ahead."""
    events: list[Event] = []
    effects: list[Effect] = []
    lease_seq = state.lease_seq
    for taker in takers:
        session, number = taker.session, taker.session.assignment
        for records, write_ahead in ((taker.first, False), (taker.again, True)):
            if not records:
                continue
            number += 1
            rows = []
            first = lease_seq + 1
            for record in records:
                lease_seq += 1
                limit_ms = record.policy.deadline_ms
                deadline_ms = record.run_due_ms + limit_ms if limit_ms else 0
                rows.append(GrantRow(record, lease_seq, record.attempt + 1, deadline_ms))
            events.append(
                JobsGranted(
                    now_ms=now_ms,
                    token=state.token,
                    incarnation=session.holder.incarnation,
                    worker=session.holder.worker,
                    session_id=session.session_id,
                    assignment=number,
                    first_lease_seq=first,
                    job_ids=[record.job_id for record in records],
                    attempts=[row.attempt for row in rows],
                )
            )
            effects.append(
                SendAssignment(
                    session_id=session.session_id,
                    number=number,
                    rows=rows,
                    write_ahead=write_ahead,
                )
            )
    return Decision(events=tuple(events), effects=tuple(effects))


def apply_granted(state: State, event: JobsGranted, seq: int) -> None:
    """Opens the leases."""
    jobs, token, now_ms = state.jobs, event.token, event.now_ms
    incarnation, worker = event.incarnation, event.worker
    lease_seq = event.first_lease_seq - 1
    granted: list[JobRecord] = []
    for job_id, attempt in zip(event.job_ids, event.attempts, strict=True):
        lease_seq += 1
        record = jobs.get(job_id)
        if record is None or record.seq >= seq:
            continue
        if record.lease is not None:
            before = footprint(record)
            remember_attempt(record)
            record.fault = record.outcome = None
            record.started_ms = record.ended_ms = 0
            if state.live:
                state.stored_bytes += footprint(record) - before
        record.seq = seq
        record.state = _RUNNING
        record.lease = Lease(token, lease_seq, record.run)
        record.incarnation = incarnation
        record.worker = worker
        record.attempt = attempt
        record.granted_ms = now_ms
        granted.append(record)
    if not granted:
        return
    if state.live:
        _hold(state, event, lease_seq, granted)
    if state.changes is not None:
        state.note(granted)


def _hold(state: State, event: JobsGranted, lease_seq: int, granted: list[JobRecord]) -> None:
    """Keeps up what is derived from grants, and notes who holds them."""
    state.lease_seq = lease_seq
    number = event.assignment
    session = state.sessions.get(event.session_id)
    if session is not None:
        session.assignment = number
        session.unaccepted.append((number, event.now_ms))
    holder = state.holder(event.incarnation, event.worker, event.now_ms)
    leases = holder.leases
    for record in granted:
        leases[record.job_id] = Holding(record, number)
    for lane in state.lanes.tally(granted, JobState.PENDING, _RUNNING):
        state.lanes.settle(lane)
    by_ms = event.now_ms + state.config.take_back_ms
    # Its worker may have been silent for long, as one without leases is looked at by nobody.
    state.watch_by(holder, min(by_ms, holder.deadline_ms or by_ms))
