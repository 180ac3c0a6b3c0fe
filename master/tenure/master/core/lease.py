"""Leases between grant and end: sessions, heartbeats, declarations, starts, returns.

A heartbeat or a declaration lists every lease its worker holds, and is compared with what the
partition knows (``compare``):

- a listed lease that is known is renewed;
- a listed lease newer than any known was granted, and its grant's event lost with an earlier
  leader: it is adopted;
- any other listed lease is lost: its worker is told;
- a known lease that is not listed, though the message passed its grant, is gone: it never arrived,
  or its worker dropped it. Silence alone closes nothing before the deadline.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from tenure.master.core.attempt import end_attempt
from tenure.master.core.chunk import chunks
from tenure.master.core.command import (
    DeclareLeases,
    HeldRow,
    OpenSession,
    RenewLeases,
    ReturnLeases,
    StartLeases,
)
from tenure.master.core.effect import (
    Announce,
    Decision,
    Effect,
    SendCancels,
    SendHeartbeatAck,
    SendRevokes,
)
from tenure.master.core.event import AdoptedRow, AttemptsEnded, EndedRow, Event, LeasesAdopted
from tenure.master.core.health import judge
from tenure.master.core.record import JobRecord
from tenure.master.core.report import revokes, settling
from tenure.master.core.session import Holder, Holding, Session
from tenure.master.core.state import State, lease_of
from tenure.master.core.transition import Move, sources
from tenure.master.core.volatile import (
    AssignmentAccepted,
    ClaimsReturned,
    DeadlinesPushed,
    LeasesDeclared,
    LeasesRenewed,
    LeasesRestarted,
    LeasesStarted,
    SessionClosed,
    SessionDrained,
    SessionOpened,
    SessionUndrained,
    TakeBacksAsked,
)
from tenure.protocol.fence import Lease
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import AttemptOutcome, FailureReason, JobState

_ADOPTABLE = sources(Move.ADOPT)
#: Outcomes that only a worker's own report gives.
_REPORTED = frozenset(
    {
        AttemptOutcome.COMPLETED,
        AttemptOutcome.FAILED,
        AttemptOutcome.FAILED_PERMANENT,
        AttemptOutcome.CANCELLED,
    }
)


#: Losses found by comparison are rare: their retries need no spread.
_DRAW = 0.5


class Comparison(NamedTuple):
    """What a worker's full set of leases says, against what the partition knows."""

    #: Listed leases that stand as the journal has them.
    upheld: list[JobRecord]
    adopted: list[AdoptedRow]
    #: Known leases that are gone.
    gone: list[EndedRow]
    #: Listed leases that are lost.
    lost: list[tuple[JobId, Lease]]
    #: Leases of any holder that lost against adopted ones: (incarnation, job, lease).
    losers: list[tuple[str, JobId, Lease]]


def compare(
    state: State,
    holder: Holder,
    rows: list[HeldRow],
    passed_assignment: int,
    now_ms: int,
    decided: Mapping[JobId, object] = MappingProxyType({}),
) -> Comparison:
    """Compares a worker's full set with what is known; see the module's text.

    Args:
        state: The partition.
        holder: Whose set it is.
        rows: The set.
        passed_assignment: Grants up to this assignment have reached the worker for certain.
        now_ms: The time.
        decided: Jobs whose known leases must not be found gone: they were decided on otherwise.
    """
    result = Comparison([], [], [], [], [])
    leases = holder.leases
    for row in rows:
        holding = leases.get(row.job_id)
        if holding is not None and holding.record.lease == row.lease:
            result.upheld.append(holding.record)
        else:
            _judge_unknown(state, row, now_ms, result)
    if len(result.upheld) < len(leases):
        named = {(row.job_id, row.lease) for row in rows}
        adopted = {row.job_id for row in result.adopted}
        for job_id, holding in leases.items():
            if (
                holding.delivery.number <= passed_assignment
                and (job_id, holding.record.lease) not in named
                and job_id not in adopted
                and job_id not in decided
            ):
                result.gone.append(_gone(state, holding, now_ms))
    return result


def _judge_unknown(state: State, row: HeldRow, now_ms: int, result: Comparison) -> None:
    """Judges a listed lease that the holder is not known to have."""
    record = state.jobs.get(row.job_id)
    newest = None if record is None else record.lease
    if record is None or row.lease.run < record.run:
        result.lost.append((row.job_id, row.lease))
    elif row.lease == newest and record.outcome in _REPORTED:
        pass  # Its report was taken; the verdict is on its way.
    elif record.state in _ADOPTABLE and (newest is None or row.lease > newest):
        started_ms = now_ms - row.running_ms if row.started else 0
        result.adopted.append(
            AdoptedRow(row.job_id, row.lease, record.attempt + 1, started_ms or now_ms, started_ms)
        )
        if record.state is JobState.RUNNING and newest is not None:
            result.losers.append((record.incarnation, row.job_id, newest))
    else:
        result.lost.append((row.job_id, row.lease))


def _gone(state: State, holding: Holding, now_ms: int) -> EndedRow:
    """Closes a lease that its holder does not have: charged only if it is known to have started."""
    record, started_ms = holding.record, holding.started_ms
    # After an outage the worker may have run it, offered the result in vain, and forgotten it.
    unsure = state.window_ends_ms is not None and record.policy.at_most_once
    return end_attempt(
        state,
        record,
        lease_of(record),
        AttemptOutcome.LOST if started_ms else AttemptOutcome.RELEASED,
        None,
        now_ms=now_ms,
        started_ms=started_ms,
        accepted_ms=holding.accepted_ms,
        draw=_DRAW,
        never_arrived=not started_ms,
        final=FailureReason.LOST if unsure else None,
    )


def events_of(comparison: Comparison, holder: Holder, now_ms: int) -> list[Event]:
    """What a comparison comes to."""
    events: list[Event] = []
    for adopted in chunks(comparison.adopted):
        events.append(
            LeasesAdopted(
                now_ms=now_ms,
                incarnation=holder.incarnation,
                worker=holder.worker,
                rows=list(adopted),
            )
        )
    for gone in chunks(comparison.gone):
        events.append(AttemptsEnded(now_ms=now_ms, rows=list(gone)))
    return events


def effects_of(state: State, comparison: Comparison, session: Session | None) -> list[Effect]:
    """Whom to tell about a comparison: the worker itself, others that lost, waiters."""
    effects: list[Effect] = []
    if comparison.lost and session is not None:
        effects.append(
            SendRevokes(
                session_id=session.session_id,
                rows=comparison.lost,
                unless_started=False,
                reason="lost",
            )
        )
    effects += revokes(state, comparison.losers, "superseded")
    effects += settling(state, comparison.gone)
    if comparison.gone:
        effects.append(Announce(event="taken_back", counts={"leases": len(comparison.gone)}))
    return effects


def cancels_of(session: Session | None, records: list[JobRecord]) -> list[Effect]:
    """Asks a worker anew to stop jobs: the first time may have been on another stream."""
    rows = [(record.job_id, lease_of(record)) for record in records if record.cancel_requested]
    if not rows or session is None:
        return []
    return [SendCancels(session_id=session.session_id, rows=rows)]


def current_session(state: State, session_id: int) -> Session | None:
    """A session that speaks for its holder: open, and the newest of its incarnation."""
    session = state.sessions.get(session_id)
    return session if session is not None and session.holder.session is session else None


def decide_declare(state: State, command: DeclareLeases, now_ms: int) -> Decision:
    """Takes a worker's full set: kept for the window's end, or compared at once."""
    session = current_session(state, command.session_id)
    if session is None or not state.serving:
        return Decision()
    declared = LeasesDeclared(now_ms=now_ms, session_id=command.session_id, rows=command.rows)
    if state.window_ends_ms is not None:
        return Decision(events=(declared,))
    # Whatever was granted on an older stream cannot arrive any more.
    comparison = compare(state, session.holder, command.rows, session.assignment, now_ms)
    events = events_of(comparison, session.holder, now_ms)
    effects = effects_of(state, comparison, session)
    effects += cancels_of(session, comparison.upheld)
    if comparison.upheld or comparison.adopted:
        count = len(comparison.upheld) + len(comparison.adopted)
        effects.append(Announce(event="adopted", counts={"leases": count}))
    return Decision(events=(*events, declared), effects=tuple(effects))


def decide_renew(state: State, command: RenewLeases, now_ms: int) -> Decision:
    """Takes a heartbeat: renews all leases of the session and finds what is out of step."""
    session = current_session(state, command.session_id)
    if session is None or not state.serving:
        return Decision()
    renewed = LeasesRenewed(
        now_ms=now_ms,
        session_id=command.session_id,
        last_assignment=command.last_assignment,
        rows=command.rows,
    )
    ack = SendHeartbeatAck(session_id=command.session_id, number=command.number)
    if state.window_ends_ms is not None:
        return Decision(events=(renewed,), effects=(ack,))
    comparison = compare(state, session.holder, command.rows, command.last_assignment, now_ms)
    events = events_of(comparison, session.holder, now_ms)
    effects = effects_of(state, comparison, session)
    marks, told = judge(state, session, now_ms)
    return Decision(events=(*events, renewed, *marks), effects=(ack, *effects, *told))


def decide_start(command: StartLeases, now_ms: int) -> Decision:
    """Notes that jobs have started."""
    return Decision(events=(LeasesStarted(now_ms=now_ms, rows=command.rows),))


def decide_return(state: State, command: ReturnLeases, now_ms: int) -> Decision:
    """Takes jobs back that a worker hands back: no budget is charged.

    While the window is open, they are its claims no more: what nobody has is not adopted.
    """
    if not state.serving:
        return Decision()
    ended: dict[JobId, EndedRow] = {}
    for row in command.rows:
        job_id, lease = row.job_id, row.lease
        record = state.jobs.get(job_id)
        if record is None or record.state is not JobState.RUNNING or record.lease != lease:
            continue
        holding = state.holding_of(record)
        ended[job_id] = end_attempt(
            state,
            record,
            lease,
            AttemptOutcome.RELEASED,
            None,
            now_ms=now_ms,
            started_ms=0 if holding is None else _started_ms(state, holding, now_ms),
            accepted_ms=0 if holding is None else holding.accepted_ms,
            draw=_DRAW,
        )
    events: list[Event] = []
    if state.window_ends_ms is not None:
        events.append(ClaimsReturned(session_id=command.session_id, rows=command.rows))
    if ended:
        events.append(AttemptsEnded(now_ms=now_ms, rows=list(ended.values())))
    return Decision(events=tuple(events), effects=tuple(settling(state, list(ended.values()))))


def _started_ms(state: State, holding: Holding, now_ms: int) -> int:
    """When a job started, by all that its worker has told: claims wait for the window's end."""
    record = holding.record
    holder = state.holders.get(record.incarnation)
    if not holding.started_ms and holder is not None:
        for claim in holder.claims or ():
            if claim.job_id == record.job_id and claim.lease == record.lease and claim.started:
                return now_ms - claim.running_ms
    return holding.started_ms


def decide_open_session(command: OpenSession, now_ms: int) -> Decision:
    """Notes a new stream."""
    opened = SessionOpened(
        now_ms=now_ms,
        session_id=command.session_id,
        incarnation=command.incarnation,
        worker=command.worker,
        job_names=command.job_names,
        queues=command.queues,
        slots=command.slots,
        labels=command.labels,
    )
    return Decision(events=(opened,))


def apply_session_opened(state: State, event: SessionOpened) -> None:
    """Adds a session; it speaks for its incarnation from now on."""
    state.lanes.now_ms = event.now_ms
    holder = state.holder(event.incarnation, event.worker, event.now_ms)
    if holder.session is not None:
        # What its old stream says from now on is of no account.
        holder.session.unaccepted.clear()
        holder.session.unsent.clear()
    # Whether it is in quarantine its worker says anew, on each stream.
    state.health.marks.pop(event.incarnation, None)
    session = Session(event, holder)
    state.lanes.enlist(session)
    state.sessions[event.session_id] = session
    holder.session = session
    holder.worker = event.worker
    for holding in holder.leases.values():
        holding.delivery.number = 0
        # It may have been asked back on the old stream, and the question lost with it.
        holding.asked = False
    if holder.deadline_ms:
        state.watch(holder, event.now_ms)


def apply_session_closed(state: State, event: SessionClosed) -> None:
    """Drops a session; the leases stay."""
    session = state.sessions.pop(event.session_id, None)
    if session is None:
        return
    state.lanes.dismiss(session)
    if session.holder.session is session:
        session.holder.session = None
        state.forget_if_idle(session.holder)


def apply_session_drained(state: State, event: SessionDrained) -> None:
    """Marks a session that wants nothing more."""
    session = state.sessions.get(event.session_id)
    if session is not None:
        session.draining = True
        if session.holder.session is session:
            state.lanes.free(session.incarnation)


def apply_session_undrained(state: State, event: SessionUndrained) -> None:
    """Takes the mark back."""
    session = state.sessions.get(event.session_id)
    if session is not None:
        session.draining = False


def apply_declared(state: State, event: LeasesDeclared) -> None:
    """Renews what was declared; while the window is open, keeps it as claims."""
    _hear(state, event.session_id, event.rows, event.now_ms)


def apply_renewed(state: State, event: LeasesRenewed) -> None:
    """Renews what the heartbeat lists."""
    session = _hear(state, event.session_id, event.rows, event.now_ms)
    if session is not None:
        session.accept(event.last_assignment, event.now_ms)


def apply_claims_returned(state: State, event: ClaimsReturned) -> None:
    """Takes claims back."""
    session = current_session(state, event.session_id)
    if session is None or session.holder.claims is None:
        return
    returned = {(row.job_id, row.lease) for row in event.rows}
    claims = session.holder.claims
    session.holder.claims = [row for row in claims if (row.job_id, row.lease) not in returned]


def _hear(state: State, session_id: int, rows: list[HeldRow], now_ms: int) -> Session | None:
    session = current_session(state, session_id)
    if session is None:
        return None
    session.declared = True
    holder = session.holder
    holder.heartbeat_ms = now_ms
    if state.window_ends_ms is not None:
        holder.claims = rows
        return session
    holder.deadline_ms = state.lease_deadline_ms(now_ms)
    absorb(state, holder, rows, now_ms)
    return session


def absorb(state: State, holder: Holder, rows: list[HeldRow], now_ms: int) -> None:
    """Takes over what a worker tells about the leases it is known to hold."""
    leases = holder.leases
    for row in rows:
        holding = leases.get(row.job_id)
        if holding is None or holding.record.lease != row.lease:
            continue
        if row.started and not holding.started_ms:
            _start(state, holding, now_ms - row.running_ms, now_ms)
        if row.progress != holding.progress:
            holding.progress = row.progress
            holding.progress_ms = now_ms


def _start(state: State, holding: Holding, started_ms: int, now_ms: int) -> None:
    holding.started_ms = started_ms
    holding.progress_ms = now_ms
    policy = holding.record.policy
    if policy.timeout_ms or policy.heartbeat_timeout_ms:
        state.timers.arm(holding.record)


def apply_accepted(state: State, event: AssignmentAccepted) -> None:
    """Notes which assignments have arrived."""
    session = state.sessions.get(event.session_id)
    if session is not None:
        session.accept(event.number, event.now_ms)


def apply_started(state: State, event: LeasesStarted) -> None:
    """Notes when jobs started."""
    for row in event.rows:
        record = state.jobs.get(row.job_id)
        if record is None or record.lease != row.lease:
            continue
        holding = state.holding_of(record)
        if holding is not None and not holding.started_ms:
            _start(state, holding, event.now_ms, event.now_ms)


def apply_take_backs_asked(state: State, event: TakeBacksAsked) -> None:
    """Notes which leases were asked back, so that they are asked once."""
    for row in event.rows:
        record = state.jobs.get(row.job_id)
        holding = None if record is None else state.holding_of(record)
        if holding is not None:
            holding.asked = True


def apply_leases_restarted(state: State, event: LeasesRestarted) -> None:
    """Starts every lease's TTL anew, and the window: until now workers were told to hold."""
    if state.window_ends_ms is not None:
        state.window_ends_ms = event.now_ms + state.window_ms
    for holder in state.holders.values():
        if holder.deadline_ms:
            holder.deadline_ms = state.lease_deadline_ms(event.now_ms)
    for session in state.sessions.values():
        for delivery in session.unaccepted:
            delivery.sent_ms = event.now_ms


def apply_deadlines_pushed(state: State, event: DeadlinesPushed) -> None:
    """Moves every lease deadline by a gap, and the window's end."""
    if state.window_ends_ms is not None:
        state.window_ends_ms += event.gap_ms
    for holder in state.holders.values():
        if holder.deadline_ms:
            holder.deadline_ms += event.gap_ms
    for session in state.sessions.values():
        for delivery in session.unaccepted:
            delivery.sent_ms += event.gap_ms
