"""Dispatch: which ready jobs go to which sessions, and what a grant writes."""

from typing import Final

from tenure.master.core.attempt import remember_attempt
from tenure.master.core.command import Dispatch, SendHeld
from tenure.master.core.effect import Decision, Effect, GrantRow, SendAssignment
from tenure.master.core.event import Event, JobsGranted
from tenure.master.core.gate import Queue
from tenure.master.core.health import allowance
from tenure.master.core.pick import Picking, Taker
from tenure.master.core.record import JobRecord
from tenure.master.core.reserve import Reserves
from tenure.master.core.session import UNSENT, Delivery, Holding, Session
from tenure.master.core.state import State, footprint
from tenure.master.core.volatile import HeldSent, Turn, TurnsTaken
from tenure.protocol.fence import Lease
from tenure.protocol.vocabulary import JobState

#: Looking it up in its enum takes longer than setting it.
_RUNNING: Final = JobState.RUNNING


def decide_dispatch(state: State, command: Dispatch, now_ms: int) -> Decision:
    """Grants eligible jobs: fairly between queues, in exact order of their keys within each."""
    picking, takers = _pick(state, command, now_ms)
    return _assignments(state, picking.turns, takers, now_ms)


def would_grant(
    state: State, command: Dispatch, now_ms: int, record: JobRecord, *, reserving: bool = True
) -> bool:
    """Whether ``decide_dispatch`` would grant a job; or would, if no slot were reserved."""
    _, takers = _pick(state, command, now_ms, reserving=reserving)
    return any(record is job for taker in takers for job in (*taker.first, *taker.again))


def reserved_for(state: State, command: Dispatch, now_ms: int, record: JobRecord) -> list[Queue]:
    """The queues whose reserves keep a job from those who could run it."""
    able, policy = _able(state, command, now_ms), record.policy
    reserves = Reserves(state.lanes.reserving, state.sessions.values(), able)
    skills = dict.fromkeys(
        session.skill
        for session, _ in able
        if session.skill.serves(policy.queue, policy.name, policy.requires)
    )
    unmet = [queue for skill in skills for queue, _ in reserves.unmet(skill)]
    return list(dict.fromkeys(unmet))


def _able(state: State, command: Dispatch, now_ms: int) -> list[tuple[Session, int]]:
    """Who may be given something, and how much."""
    able: list[tuple[Session, int]] = []
    if state.serving and state.window_ends_ms is None:
        accept_timeout_ms = state.config.accept_timeout_ms
        for session_id, credit in sorted(command.credits):
            session = state.sessions.get(session_id)
            if session is None or credit <= 0:
                continue
            if session.may_be_granted(now_ms, accept_timeout_ms):
                if state.health.marks:
                    credit = allowance(state, session, credit, now_ms)
                    if not credit:
                        continue
                able.append((session, credit))
    return able


def _pick(
    state: State, command: Dispatch, now_ms: int, *, reserving: bool = True
) -> tuple[Picking, list[Taker]]:
    """What is taken, and by whom."""
    able = _able(state, command, now_ms)
    queues = state.lanes.reserving if reserving and able else ()
    reserves = Reserves(queues, state.sessions.values(), able)
    takers = [Taker(session, credit, order) for order, (session, credit) in enumerate(able)]
    picking = Picking(takers, reserves, command.grants_max, command.committed_seq, now_ms)
    picking.run()
    return picking, takers


def _assignments(state: State, turns: list[Turn], takers: list[Taker], now_ms: int) -> Decision:
    """The events and effects of what was taken: per session first grants, then written ahead."""
    events: list[Event] = [TurnsTaken(turns=turns)] if turns else []
    effects: list[Effect] = []
    lease_seq = state.lease_seq
    for taker in takers:
        session = taker.session
        for records, write_ahead in ((taker.first, False), (taker.again, True)):
            if not records:
                continue
            # What is written ahead is overtaken by first grants: it gets its number with them.
            number = 0 if write_ahead else session.assignment + 1
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


def decide_send_held(state: State, command: SendHeld, now_ms: int) -> Decision:
    """Sends grants that have committed: a worker gets assignments in order of their numbers."""
    session, rows = state.sessions.get(command.session_id), command.rows
    if session is None:
        return Decision()
    number = session.assignment + 1
    sent = HeldSent(
        now_ms=now_ms,
        session_id=session.session_id,
        number=number,
        first_lease_seq=rows[0].lease_seq,
    )
    effect = SendAssignment(
        session_id=session.session_id, number=number, rows=rows, write_ahead=False
    )
    return Decision(events=(sent,), effects=(effect,))


def apply_held_sent(state: State, event: HeldSent) -> None:
    """Gives a delivery its number; a newer stream of its worker may have made it void."""
    session = state.sessions.get(event.session_id)
    if session is None:
        return
    delivery = session.unsent.pop(event.first_lease_seq, None)
    if delivery is None:
        session.assignment = event.number
    else:
        session.send(delivery, event.number, event.now_ms)


def apply_turns_taken(state: State, event: TurnsTaken) -> None:
    """Charges queues and tenants with what they gave."""
    for session_id, tenant, name, jobs in event.turns:
        state.sessions[session_id].skill.charge(state.lanes.queues[tenant, name], jobs)


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
            record.accepted_ms = record.started_ms = record.ended_ms = 0
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
    delivery = Delivery(event.assignment or UNSENT)
    session = state.sessions.get(event.session_id)
    if session is not None:
        if event.assignment:
            session.send(delivery, event.assignment, event.now_ms)
        else:
            session.unsent[event.first_lease_seq] = delivery
    holder = state.holder(event.incarnation, event.worker, event.now_ms)
    leases = holder.leases
    for record in granted:
        leases[record.job_id] = Holding(record, delivery)
    lanes = state.lanes
    if lanes.timed:
        for record in granted:
            queue = lanes.queues[record.policy.tenant, record.policy.queue]
            leases[record.job_id].charged_ms = queue.cost_ms
    for job_type in lanes.granted(granted, event.incarnation, event.now_ms):
        state.postponed.relax((job_type.tenant, job_type.name))
    by_ms = event.now_ms + state.config.take_back_ms
    # Its worker may have been silent for long, as one without leases is looked at by nobody.
    state.watch_by(holder, min(by_ms, holder.deadline_ms or by_ms))
