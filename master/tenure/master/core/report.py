"""Reports: the late-report table of the design, row by row, and what an accepted report writes.

| state of the job when a report comes | ruling |
|---|---|
| running under the report's lease | TAKE |
| terminal, same lease, same content | REPEAT (a replayed ack) |
| terminal otherwise, or an earlier run | DUPLICATE: the first stays |
| lease closed by the master, job not granted again: success | TAKE: it saves the work |
| the same, no success | IGNORED: the closure was charged |
| lease closed by this very report | REPEAT |
| granted again | SUPERSEDED |
| a lease newer than the newest known (its grant was not committed) | ADOPT, then TAKE |
| unknown | GONE |
"""

from enum import Enum, unique
from typing import Final
from zlib import crc32

import msgspec

from tenure.master.core import health
from tenure.master.core.attempt import draws, end_attempt, remember_attempt
from tenure.master.core.chunk import chunks
from tenure.master.core.command import ReportAttempts, ReportRow
from tenure.master.core.effect import (
    Announce,
    Decision,
    Effect,
    NotifySettled,
    SendRevokes,
    SendVerdicts,
)
from tenure.master.core.event import (
    AdoptedRow,
    AttemptsEnded,
    CompletedRow,
    EndedRow,
    Event,
    JobsCompleted,
    LeasesAdopted,
    LogRow,
)
from tenure.master.core.kept_log import log_row, logs_kept
from tenure.master.core.record import JobFault, JobRecord
from tenure.master.core.session import Delivery, Holding
from tenure.master.core.state import State, fault_bytes, footprint
from tenure.master.core.transition import TERMINAL, Move, sources
from tenure.master.core.volatile import ReportsKept
from tenure.protocol.fence import Lease
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import (
    AttemptOutcome,
    ErrorCategory,
    FailureReason,
    JobState,
    Verdict,
)

_COMPLETED: Final = AttemptOutcome.COMPLETED
_RUNNING: Final = JobState.RUNNING
_DONE: Final = JobState.COMPLETED
_COMPLETABLE: Final = sources(Move.COMPLETE)
#: Closures that the master judged or asked for: the worker's own word is still to come.
_CLOSED_BY_MASTER: Final = frozenset(
    {AttemptOutcome.LOST, AttemptOutcome.TIMED_OUT, AttemptOutcome.RELEASED}
)


@unique
class Ruling(Enum):
    """What the table says about a report; the value is the verdict that its worker gets."""

    TAKE = (1, Verdict.ACCEPTED)
    ADOPT = (2, Verdict.ACCEPTED)
    REPEAT = (3, Verdict.ACCEPTED)
    DUPLICATE = (4, Verdict.DUPLICATE)
    SUPERSEDED = (5, Verdict.SUPERSEDED)
    IGNORED = (6, Verdict.IGNORED)
    GONE = (7, Verdict.GONE)

    @property
    def verdict(self) -> Verdict:
        """What the worker is told."""
        return self.value[1]


#: Looking a member up in its enum takes as long as the rest of an ordinary ruling.
_TAKE: Final = Ruling.TAKE
#: Of reports that are about a job's newest attempt, what it said is news.
_HEARD: Final = frozenset({Ruling.TAKE, Ruling.ADOPT, Ruling.IGNORED})
_ACCEPTED: Final = Verdict.ACCEPTED


def rule(record: JobRecord, row: ReportRow) -> Ruling:
    """Rules on a report of a known job: the late-report table."""
    lease, newest = row.lease, record.lease
    if lease.run < record.run:
        return Ruling.DUPLICATE
    if record.state in TERMINAL:
        return Ruling.REPEAT if lease == newest and _same(record, row) else Ruling.DUPLICATE
    if newest is None or lease > newest:
        return Ruling.ADOPT  # Whatever has not ended can be adopted.
    if lease < newest:
        return Ruling.SUPERSEDED
    if record.state is _RUNNING:
        return Ruling.TAKE
    if row.outcome is _COMPLETED:
        saves = record.outcome in _CLOSED_BY_MASTER and record.state in _COMPLETABLE
        return Ruling.TAKE if saves else Ruling.DUPLICATE
    return Ruling.REPEAT if _same(record, row) else Ruling.IGNORED


def _same(record: JobRecord, row: ReportRow) -> bool:
    """Whether the report says what the job's last attempt is known to have come to."""
    if record.outcome is not row.outcome:
        return False
    return record.result == row.result and record.fault == row.fault


class Judge:
    """Rules on reports of one decision, and gathers what becomes of their jobs."""

    def __init__(self, state: State, now_ms: int, jitter: list[float]) -> None:
        self._state = state
        self._jobs = state.jobs
        self._result_bytes_max = state.config.payload_bytes_max
        self._now_ms = now_ms
        self._draws = draws(jitter)
        self._completed: list[CompletedRow] = []
        self._ended: list[EndedRow] = []
        self._logs: list[LogRow] = []
        #: By incarnation and worker.
        self._adopted: dict[tuple[str, str], list[AdoptedRow]] = {}
        #: Reports that changed something, by their jobs.
        self.taken: dict[JobId, ReportRow] = {}
        #: Leases that lost against an adopted one: (incarnation, job, lease).
        self.losers: list[tuple[str, JobId, Lease]] = []

    def rule(self, row: ReportRow, incarnation: str, worker: str) -> Verdict:
        """Rules on one report by a worker."""
        job_id, lease, sent = row.job_id, row.lease, row
        record = self._jobs.get(job_id)
        if record is None:
            return self._unknown(row).verdict
        earlier = self.taken.get(job_id)
        if earlier is not None:
            return _ACCEPTED if earlier == sent else Verdict.DUPLICATE
        result = row.result
        if len(result) > self._result_bytes_max:
            row = _too_large(row, self._result_bytes_max)
        if record.state is _RUNNING and record.lease == lease:
            ruling = _TAKE
        else:
            ruling = rule(record, row)
        if row.log:
            self._keep_log(record, row, ruling)
        if ruling is _TAKE:
            started_ms, accepted_ms = self._times(record, row.run_ms)
        elif ruling is Ruling.ADOPT:
            started_ms, accepted_ms = self._now_ms - row.run_ms, 0
            self._adopt(record, lease, incarnation, worker, started_ms)
        else:
            return ruling.verdict
        self.taken[job_id] = sent
        if row.outcome is _COMPLETED:
            done = CompletedRow(job_id, lease, started_ms, result, row.content_type, accepted_ms)
            self._completed.append(done)
        else:
            self._end(record, row, started_ms, accepted_ms)
        return _ACCEPTED

    def events(self) -> list[Event]:
        """What the reports came to."""
        now_ms = self._now_ms
        events: list[Event] = [
            LeasesAdopted(now_ms=now_ms, incarnation=incarnation, worker=worker, rows=rows)
            for (incarnation, worker), rows in self._adopted.items()
        ]
        events += logs_kept(self._logs, now_ms)
        for done in chunks(self._completed, _result_bytes):
            events.append(JobsCompleted(now_ms=now_ms, rows=list(done)))
        for ended in chunks(self._ended, ended_bytes):
            events.append(AttemptsEnded(now_ms=now_ms, rows=list(ended)))
        return events

    def effects(self) -> list[Effect]:
        """Whom to tell about jobs that ended for good."""
        jobs = self._state.jobs
        settled = [jobs[row.job_id] for row in self._completed]
        return settling(self._state, self._ended, settled)

    def _keep_log(self, record: JobRecord, row: ReportRow, ruling: Ruling) -> None:
        """Keeps what the job's newest attempt has said, even if how it ended was judged before."""
        if ruling not in _HEARD or self._state.stored_bytes >= self._state.config.bytes_max:
            return
        kept = log_row(record, row)
        if kept is not None:
            self._logs.append(kept)

    def _unknown(self, row: ReportRow) -> Ruling:
        tombstone = self._state.tombstones.get(row.job_id, self._now_ms)
        if tombstone is None:
            return Ruling.GONE
        same = (
            tombstone.lease == row.lease
            and tombstone.outcome is row.outcome
            and tombstone.result_crc == crc32(row.result)
        )
        return Ruling.REPEAT if same else Ruling.DUPLICATE

    def _times(self, record: JobRecord, run_ms: int) -> tuple[int, int]:
        """When the attempt under a job's newest lease started, by its worker's latest word, and
        when its grant had arrived.
        """
        holding = self._state.holding_of(record)
        if holding is None:
            accepted_ms, started_ms = record.accepted_ms, record.started_ms
        else:
            accepted_ms = holding.delivery.accepted_ms
            started_ms = holding.started_ms or record.started_ms
        if not started_ms:
            started_ms = max(self._now_ms - run_ms, record.granted_ms)
        return started_ms, min(accepted_ms, started_ms)

    def _adopt(
        self, record: JobRecord, lease: Lease, incarnation: str, worker: str, started_ms: int
    ) -> None:
        if record.state is _RUNNING and record.lease is not None:
            self.losers.append((record.incarnation, record.job_id, record.lease))
        rows = self._adopted.setdefault((incarnation, worker), [])
        rows.append(AdoptedRow(record.job_id, lease, record.attempt + 1, started_ms, started_ms))

    def _end(self, record: JobRecord, row: ReportRow, started_ms: int, accepted_ms: int) -> None:
        ended = end_attempt(
            self._state,
            record,
            row.lease,
            row.outcome,
            row.fault,
            now_ms=self._now_ms,
            started_ms=started_ms,
            accepted_ms=accepted_ms,
            draw=next(self._draws),
        )
        self._ended.append(ended)


def _result_bytes(row: CompletedRow) -> int:
    return len(row.result)


def ended_bytes(row: EndedRow) -> int:
    """About how many bytes a row has beyond its ids and numbers."""
    return fault_bytes(row.fault)


def _too_large(row: ReportRow, limit: int) -> ReportRow:
    """The report of a job whose result cannot be kept."""
    fault = JobFault(
        "tenure.ResultTooLarge",
        f"expected a result of at most {limit} bytes, got {len(row.result)}: store it elsewhere "
        "and return a reference",
        category=ErrorCategory.PERMANENT,
    )
    outcome = AttemptOutcome.FAILED_PERMANENT
    return msgspec.structs.replace(row, outcome=outcome, result=b"", fault=fault)


def settling(
    state: State, ended: list[EndedRow], settled: list[JobRecord] | None = None
) -> list[Effect]:
    """Whom to tell about attempts that ended: waiters, and operators about poison."""
    records = list(settled or [])
    records += [state.jobs[row.job_id] for row in ended if row.state in TERMINAL]
    effects: list[Effect] = [NotifySettled(records=records)] if records else []
    poisoned = sum(row.failure_reason is FailureReason.POISON for row in ended)
    if poisoned:
        effects.append(Announce(event="poisoned", counts={"jobs": poisoned}))
    return effects


def revokes(state: State, losers: list[tuple[str, JobId, Lease]], reason: str) -> list[Effect]:
    """Tells holders that have a stream that leases of theirs are lost."""
    by_session: dict[int, list[tuple[JobId, Lease]]] = {}
    for incarnation, job_id, lease in losers:
        holder = state.holders.get(incarnation)
        if holder is not None and holder.session is not None:
            by_session.setdefault(holder.session.session_id, []).append((job_id, lease))
    return [
        SendRevokes(session_id=session_id, rows=rows, unless_started=False, reason=reason)
        for session_id, rows in by_session.items()
    ]


def decide_report(state: State, command: ReportAttempts, now_ms: int) -> Decision:
    """Judges a worker's reports; while the window is open they are kept for its end."""
    if not state.serving:
        return Decision()
    if state.window_ends_ms is not None:
        kept = ReportsKept(session_id=command.session_id, rows=command.rows)
        return Decision(events=(kept,))
    session = state.sessions.get(command.session_id)
    incarnation = session.holder.incarnation if session is not None else ""
    worker = session.holder.worker if session is not None else ""
    judge = Judge(state, now_ms, command.jitter)
    verdicts = [
        (row.job_id, row.lease, judge.rule(row, incarnation, worker)) for row in command.rows
    ]
    effects: list[Effect] = [SendVerdicts(session_id=command.session_id, rows=verdicts)]
    effects += revokes(state, judge.losers, "superseded")
    effects += judge.effects()
    marks, told = health.judge(state, session, now_ms)
    return Decision(events=(*judge.events(), *marks), effects=(*effects, *told))


def apply_completed(state: State, event: JobsCompleted, seq: int) -> None:
    """Closes the leases with their results."""
    jobs, now_ms = state.jobs, event.now_ms
    done: list[JobRecord] = []
    for row in event.rows:
        record = jobs.get(row.job_id)
        if record is None or record.seq >= seq:
            continue
        before = record.state
        size = 0 if before is _RUNNING else footprint(record)
        record.seq = seq
        record.state = _DONE
        record.ended_ms = now_ms
        record.started_ms = row.started_ms
        record.accepted_ms = row.accepted_ms
        record.outcome = _COMPLETED
        record.result = row.result
        record.result_content_type = row.content_type
        if record.checkpoint is not None:
            if before is _RUNNING and state.live:
                state.stored_bytes -= len(record.checkpoint.data)
            record.checkpoint = None
        if before is _RUNNING:
            done.append(record)
        else:
            # A late success: the closure had left a fault, and a place in another order.
            record.fault = None
            state.moved(record, before, size, record.priority)
    if not done:
        return
    if state.live:
        _index_completed(state, done, seq)
    if state.changes is not None:
        state.note(done)


def _index_completed(state: State, done: list[JobRecord], seq: int) -> None:
    """Keeps up what is derived from jobs that were RUNNING and succeeded together."""
    holder, timed = None, state.lanes.timed
    stored = 0
    for record in done:
        stored += len(record.result)
        if holder is None or holder.incarnation != record.incarnation:
            holder = state.holders.get(record.incarnation)
        if holder is not None:
            holding = holder.leases.pop(record.job_id, None)
            if holding is not None and timed:
                state.settle_run(holder, holding, record.ended_ms)
            if holder.session is None:
                state.forget_if_idle(holder)
        if record.policy.result_ttl_ms:
            state.timers.arm(record)
    if state.dependencies.active:
        for record in done:
            state.dependents_moved(record, _RUNNING)
    state.stored_bytes += stored
    state.lanes.move(done, _RUNNING, _DONE)
    state.finished.push(_DONE, done[0].ended_ms, seq, done)
    if state.timetable.waiting:
        for record in done:
            state.timetable.ended(record.job_id)
    if state.health.watching:
        state.health.completed(done, done[0].ended_ms)


def apply_ended(state: State, event: AttemptsEnded, seq: int) -> None:
    """Closes leases without a result."""
    for record, row in state.written_rows(((row.job_id, row) for row in event.rows), seq):
        if state.live:
            state.release(record)
            if row.outcome in health.FAILURES and record.incarnation in state.holders:
                category = None if row.fault is None else row.fault.category
                state.health.failed(record.incarnation, record, category, event.now_ms)
        record.state = row.state
        record.ready_ms = row.ready_ms
        record.over_budget = False
        record.started_ms = row.started_ms
        record.accepted_ms = row.accepted_ms
        record.ended_ms = event.now_ms
        record.outcome = row.outcome
        record.attempts_charged = row.attempts_charged
        record.losses_charged = row.losses_charged
        record.undelivered = row.undelivered
        record.fault = row.fault
        record.failure_reason = row.failure_reason
        if row.state in TERMINAL:
            record.checkpoint = None


def apply_adopted(state: State, event: LeasesAdopted, seq: int) -> None:
    """Opens leases that workers proved."""
    for record, row in state.written_rows(((row.job_id, row) for row in event.rows), seq):
        if state.live:
            state.release(record)
        remember_attempt(record)
        record.state = _RUNNING
        record.lease = row.lease
        record.incarnation = event.incarnation
        record.worker = event.worker
        record.attempt = row.attempt
        record.granted_ms = row.granted_ms
        record.accepted_ms = record.started_ms = 0
        record.ended_ms = 0
        record.outcome = None
        if state.live:
            holder = state.holder(event.incarnation, event.worker, event.now_ms)
            holder.leases[row.job_id] = Holding(
                record, Delivery(), started_ms=row.started_ms, progress_ms=row.started_ms
            )
            if state.window_ends_ms is None:
                state.watch(holder, event.now_ms)
