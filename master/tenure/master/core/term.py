"""Terms: opened with a window in which workers re-declare, closed in order with all that stands.

While the window is open nothing is granted and no lease expires; claims and reports are kept. At
its end (``decide_close_window``) each job's highest claim wins, reports are ruled on, and leases
that nobody claimed are SUSPECT: they stand, withheld, for one more lease TTL.
"""

from itertools import groupby
from operator import itemgetter
from typing import Final

from tenure.master.core.chunk import chunks
from tenure.master.core.command import CloseTerm, CloseWindow, HeldRow, OpenTerm, ReportRow
from tenure.master.core.effect import Announce, Decision, Effect, SendVerdicts
from tenure.master.core.event import Event, StandingHolder, StandingLease, TermClosed, TermOpened
from tenure.master.core.lease import absorb, cancels_of, compare, effects_of, events_of
from tenure.master.core.report import Judge, revokes
from tenure.master.core.session import Delivery, Holder, Holding
from tenure.master.core.state import KeptReport, State, lease_of
from tenure.master.core.transition import OPEN
from tenure.master.core.volatile import ReportsKept, WindowClosed
from tenure.protocol.fence import Lease
from tenure.protocol.ids import JobId
from tenure.protocol.refusal import Reason, Refusal
from tenure.protocol.vocabulary import JobState, Verdict

#: Who was granted something so shortly before the journal's end may hold leases that it lacks.
LATELY_MS: Final = 60_000


def decide(
    state: State, command: OpenTerm | CloseTerm | CloseWindow, now_ms: int
) -> Decision | Refusal:
    """What a command about the term comes to."""
    match command:
        case OpenTerm():
            return decide_open_term(state, command, now_ms)
        case CloseTerm():
            return decide_close_term(state, now_ms)
        case CloseWindow():
            return decide_close_window(state, command, now_ms)


def decide_open_term(state: State, command: OpenTerm, now_ms: int) -> Decision | Refusal:
    """Opens a term under a token newer than all before."""
    if command.token <= state.token:
        return Refusal(
            reason=Reason.FENCED,
            message=f"expected to open a term newer than {state.token}, but the token is "
            f"{command.token}",
            metadata={"token": str(command.token), "newest": str(state.token)},
        )
    opened = TermOpened(
        now_ms=now_ms,
        token=command.token,
        incarnation=command.incarnation,
        window_ms=command.window_ms,
    )
    return Decision(events=(opened,))


def not_serving(state: State) -> Refusal:
    """Refuses what only the leader of an open term may decide."""
    partition = state.config.partition
    return Refusal(
        reason=Reason.NOT_LEADER,
        message=f"expected to change jobs of partition {partition}, but its term is not open here: "
        "ask its leader",
        metadata={"partition": str(partition)},
        retry_after_ms=100,
    )


def apply_term_opened(state: State, event: TermOpened, seq: int) -> None:
    """Begins a term. No record is written: no seq."""
    apply_term_replayed(state, event, seq)
    state.serving = True
    state.lease_seq = 0
    state.lanes.begin_term(event.now_ms)
    state.postponed.begin_term()
    if event.window_ms:
        state.window_ms = event.window_ms
        state.window_ends_ms = event.now_ms + event.window_ms
        return
    for holder in state.holders.values():
        holder.deadline_ms = state.lease_deadline_ms(event.now_ms)
        state.watch(holder, event.now_ms)


def apply_term_replayed(state: State, event: TermOpened, seq: int) -> None:
    """Of a term that is read in the journal only the token stays: it is another's, or over.

    One of a higher epoch is the first in a cluster that was set back: others may have forgotten
    what they were asked, or never say what they were to.
    """
    restored = 0 < state.token.epoch < event.token.epoch
    state.token = event.token
    if not restored:
        return
    state.dependencies.ask_again(seq)
    state.timetable.forget_elsewhere(seq)
    if state.live:
        for _ in state.dependencies.rebuild(state.jobs):
            pass


def decide_close_term(state: State, now_ms: int) -> Decision:
    """Journals who holds what, so that the successor needs no window."""
    if not state.serving:
        return Decision()
    standing = [
        (holder, StandingLease(job_id, lease, holding.started_ms, holding.accepted_ms))
        for holder in state.holders.values()
        for job_id, holding in holder.leases.items()
        for lease in [lease_of(holding.record)]
    ]
    # More than one only with thousands of leases; nothing else is decided in between or after.
    events = [
        TermClosed(
            now_ms=now_ms,
            token=state.token,
            holders=[
                StandingHolder(holder.incarnation, holder.worker, [lease for _, lease in rows])
                for holder, rows in groupby(part, key=itemgetter(0))
            ],
        )
        for part in list(chunks(standing)) or [[]]
    ]
    return Decision(events=tuple(events))


def apply_term_closed(state: State, event: TermClosed, seq: int) -> None:
    """Ends the term: nothing is granted or judged any more."""
    for holder in event.holders:
        for row in holder.leases:
            record = state.jobs.get(row.job_id)
            if record is not None and record.seq < seq:
                record.seq = seq
                record.started_ms = row.started_ms
                record.accepted_ms = row.accepted_ms
    state.serving = False
    state.window_ends_ms = None


def find_holders(state: State) -> None:
    """After a replay: gives the open leases to the incarnations that the journal names.

    Known is also who got anything lately: the last first grants may have died with their leader
    before they were journaled, so a worker that seems to hold nothing may hold most.
    """
    state.holders = {}
    known: dict[str, None] = {}
    lately_ms = state.stamp_ms - LATELY_MS
    for record in state.jobs.values():
        if record.incarnation and record.granted_ms >= lately_ms:
            known[record.incarnation] = None
        if record.state is JobState.RUNNING:
            known[record.incarnation] = None
            holder = state.holders.get(record.incarnation)
            if holder is None:
                holder = Holder(record.incarnation, record.worker)
                state.holders[record.incarnation] = holder
            started_ms = record.started_ms
            delivery = Delivery(accepted_ms=record.accepted_ms)
            holder.leases[record.job_id] = Holding(
                record, delivery, started_ms=started_ms, progress_ms=started_ms
            )
    state.known = list(known)


def window_due(state: State, now_ms: int) -> bool:
    """Whether the window may be closed: its time is over, or all that may hold leases are back."""
    if state.window_ends_ms is None:
        return False
    if now_ms >= state.window_ends_ms:
        return True
    holders = [state.holders.get(incarnation) for incarnation in state.known]
    return bool(holders) and all(h is not None and h.claims is not None for h in holders)


def decide_close_window(state: State, command: CloseWindow, now_ms: int) -> Decision:
    """Judges claims and kept reports: the highest lease of a job wins."""
    if state.window_ends_ms is None:
        return Decision()
    best = _best_claims(state)
    judge = Judge(state, now_ms, command.jitter)
    effects: list[Effect] = _rule_on_kept(state, judge, best)
    events: list[Event] = judge.events()
    effects += revokes(state, judge.losers, "superseded")
    effects += judge.effects()
    decided: dict[JobId, object] = {**judge.taken}
    for job_id, (lease, _) in best.items():
        record = state.jobs.get(job_id)
        if record is not None and (record.lease is None or lease >= record.lease):
            decided[job_id] = lease
    adopted = gone = 0
    for holder in state.holders.values():
        if holder.claims is None:
            continue
        upheld, beaten = _sort_claims(holder, judge.taken, best)
        comparison = compare(state, holder, upheld, 0, now_ms, decided)
        comparison.lost.extend(beaten)
        events += events_of(comparison, holder, now_ms)
        effects += effects_of(state, comparison, holder.session)
        effects += cancels_of(holder.session, comparison.upheld)
        adopted += len(comparison.upheld) + len(comparison.adopted)
        gone += len(comparison.gone)
    suspects = sum(len(h.leases) for h in state.holders.values() if h.claims is None)
    events.append(WindowClosed(now_ms=now_ms))
    if adopted:
        effects.append(Announce(event="adopted", counts={"leases": adopted}))
    if suspects:
        effects.append(Announce(event="suspect", counts={"leases": suspects}))
    counts = {"adopted": adopted, "closed": gone, "suspect": suspects, "reports": len(state.kept)}
    effects.append(Announce(event="window_closed", counts=counts))
    return Decision(events=tuple(events), effects=tuple(effects))


def _best_claims(state: State) -> dict[JobId, tuple[Lease, str]]:
    """Each claimed job's highest lease and whose claim it is; of equal ones, the journal's."""
    best: dict[JobId, tuple[Lease, str]] = {}
    for holder in state.holders.values():
        for row in holder.claims or ():
            rival = best.get(row.job_id)
            if rival is not None and rival[0] >= row.lease:
                record = state.jobs.get(row.job_id)
                owner = record is not None and record.incarnation == holder.incarnation
                if rival[0] > row.lease or not owner:
                    continue
            best[row.job_id] = (row.lease, holder.incarnation)
    return best


def _rule_on_kept(state: State, judge: Judge, best: dict[JobId, tuple[Lease, str]]) -> list[Effect]:
    """Rules on kept reports, highest lease first; a higher claim supersedes a report."""
    verdicts: dict[int, list[tuple[JobId, Lease, Verdict]]] = {}
    for kept in sorted(state.kept.values(), key=_lease_of_kept, reverse=True):
        row = kept.row
        record, claim = state.jobs.get(row.job_id), best.get(row.job_id)
        beaten = claim is not None and claim[0] > row.lease
        if beaten and record is not None and record.state in OPEN:
            verdict = Verdict.SUPERSEDED
        else:
            verdict = judge.rule(row, kept.incarnation, kept.worker)
        verdicts.setdefault(kept.session_id, []).append((row.job_id, row.lease, verdict))
    return [
        SendVerdicts(session_id=session_id, rows=rows)
        for session_id, rows in verdicts.items()
        if session_id in state.sessions
    ]


def _lease_of_kept(kept: KeptReport) -> Lease:
    return kept.row.lease


def _sort_claims(
    holder: Holder,
    taken: dict[JobId, ReportRow],
    best: dict[JobId, tuple[Lease, str]],
) -> tuple[list[HeldRow], list[tuple[JobId, Lease]]]:
    """Splits a holder's claims into the best ones and the beaten ones."""
    upheld: list[HeldRow] = []
    beaten: list[tuple[JobId, Lease]] = []
    for row in holder.claims or ():
        report = taken.get(row.job_id)
        if report is not None:
            if report.lease != row.lease:
                beaten.append((row.job_id, row.lease))
        elif best[row.job_id] == (row.lease, holder.incarnation):
            upheld.append(row)
        else:
            beaten.append((row.job_id, row.lease))
    return upheld, beaten


def apply_reports_kept(state: State, event: ReportsKept) -> None:
    """Keeps reports for the window's end; one sent again replaces itself."""
    session = state.sessions.get(event.session_id)
    incarnation = "" if session is None else session.holder.incarnation
    worker = "" if session is None else session.holder.worker
    for row in event.rows:
        kept = KeptReport(event.session_id, incarnation, worker, row)
        state.kept[row.job_id, row.lease] = kept


def apply_window_closed(state: State, event: WindowClosed) -> None:
    """Begins to grant and to expire; every lease has one TTL from now."""
    state.window_ends_ms = None
    state.kept = {}
    for holder in list(state.holders.values()):
        holder.deadline_ms = state.lease_deadline_ms(event.now_ms)
        claims, holder.claims = holder.claims, None
        absorb(state, holder, claims or [], event.now_ms)
        state.watch(holder, event.now_ms)
        state.forget_if_idle(holder)
