"""Boosts: jobs that wait get another priority, or another time at which they are due."""

from tenure.master.core.command import BoostJobs
from tenure.master.core.control import unknown, wrong_state
from tenure.master.core.effect import Decision, JobVerdict
from tenure.master.core.event import BoostedRow, JobsBoosted
from tenure.master.core.record import JobRecord
from tenure.master.core.state import State
from tenure.master.core.transition import QUEUED
from tenure.protocol.vocabulary import JobState


def decide_boost(state: State, command: BoostJobs, now_ms: int) -> Decision:
    """Changes what waits; what would stay as it is is not journaled."""
    rows: list[BoostedRow] = []
    verdicts: list[JobVerdict] = []
    for job_id in dict.fromkeys(command.job_ids):
        record = state.jobs.get(job_id)
        if record is None:
            verdicts.append(JobVerdict(job_id, None, unknown(state, job_id, "boost", now_ms)))
        elif record.state in QUEUED:
            row = _boosted(record, command, now_ms)
            if row is not None:
                rows.append(row)
            verdicts.append(JobVerdict(job_id, record.state if row is None else row.state, None))
        else:
            advice = "only jobs that wait can be boosted"
            verdicts.append(JobVerdict(job_id, None, wrong_state(record, "boost", advice)))
    events = (JobsBoosted(now_ms=now_ms, rows=rows),) if rows else ()
    return Decision(events=events, reply=verdicts)


def _boosted(record: JobRecord, command: BoostJobs, now_ms: int) -> BoostedRow | None:
    """What a job that waits becomes; None: it stays as it is."""
    priority = record.priority if command.priority is None else command.priority
    job_state, ready_ms, run_due_ms = record.state, record.ready_ms, record.run_due_ms
    is_due = job_state is JobState.PENDING and not command.delay_ms
    if command.delay_ms is not None and not is_due:
        ready_ms = now_ms + command.delay_ms
        if job_state is JobState.PENDING:
            job_state = JobState.SCHEDULED
        elif job_state is not JobState.BLOCKED and not command.delay_ms:
            job_state = JobState.PENDING
        if not record.attempt:
            # The run has not begun: its deadlines count from when it is due now.
            run_due_ms = ready_ms
    if (priority, ready_ms, job_state) == (record.priority, record.ready_ms, record.state):
        return None
    over_budget = record.over_budget and ready_ms == record.ready_ms
    return BoostedRow(record.job_id, priority, ready_ms, run_due_ms, job_state, over_budget)


def apply_boosted(state: State, event: JobsBoosted, seq: int) -> None:
    """Puts the jobs where they wait now; watches are told of all of them."""
    stayed: list[JobRecord] = []
    for record, row in state.written_rows(((row.job_id, row) for row in event.rows), seq):
        if record.state is row.state:
            stayed.append(record)
        record.priority = row.priority
        record.ready_ms = row.ready_ms
        record.run_due_ms = row.run_due_ms
        record.state = row.state
        record.over_budget = row.over_budget
    state.note(stayed)
