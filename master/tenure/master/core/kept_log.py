"""What attempts have said: kept with their job, in bounded space, for as long as the job is.

Most jobs say nothing, and cost nothing here: what is said is in an event of its own, before the one
that ends the attempt.
"""

from collections.abc import Iterator
from typing import Final

from tenure.master.core.chunk import chunks
from tenure.master.core.command import ReportRow
from tenure.master.core.event import LogRow, LogsKept
from tenure.master.core.record import JobRecord, KeptLog
from tenure.master.core.state import State
from tenure.protocol.limits import JOB_LOGS_BYTES_MAX

#: Logs of one job: each takes some bytes besides its lines.
LOGS_MAX: Final = 20


def log_row(record: JobRecord, row: ReportRow) -> LogRow | None:
    """What is to be kept of a report's attempt, the newest of its job; None: it is kept already."""
    number = record.attempt
    if record.lease is None or row.lease > record.lease:
        # Adopted by the same decision, which counts it.
        number += 1
    if not _is_news(record, row.lease.run, number):
        return None
    return LogRow(record.job_id, row.lease.run, number, row.log)


def logs_kept(rows: list[LogRow], now_ms: int) -> Iterator[LogsKept]:
    """The events of one decision."""
    for some in chunks(rows, lambda row: len(row.lines)):
        yield LogsKept(now_ms=now_ms, rows=list(some))


def apply_logs_kept(state: State, event: LogsKept, seq: int) -> None:
    """Keeps them; the oldest of a job make room.

    A record's seq stays as it is, for its place in the order depends on it: the attempts' numbers
    tell what a replay has seen.
    """
    for row in event.rows:
        record = state.jobs.get(row.job_id)
        if record is None or not _is_news(record, row.run, row.attempt):
            continue
        before = sum(len(log.lines) for log in record.logs)
        logs = [*record.logs, KeptLog(row.run, row.attempt, row.lines)]
        size = before + len(row.lines)
        while size > JOB_LOGS_BYTES_MAX or len(logs) > LOGS_MAX:
            size -= len(logs.pop(0).lines)
        record.logs = tuple(logs)
        if state.live:
            state.stored_bytes += size - before


def _is_news(record: JobRecord, run: int, attempt: int) -> bool:
    """Whether an attempt is later than all of which something is kept."""
    if not record.logs:
        return True
    last = record.logs[-1]
    return (run, attempt) > (last.run, last.attempt)
