"""Rebuilds what is derived from the records, after a replay."""

from collections.abc import Iterator
from itertools import groupby
from typing import Final

from tenure.master.core.ready import Lane, order_key
from tenure.master.core.record import JobRecord
from tenure.master.core.state import State, footprint
from tenure.master.core.transition import TERMINAL
from tenure.protocol.vocabulary import JobState

#: Records looked at between two steps: some milliseconds, for a standby shares its loop with terms.
_STEP_ROWS: Final = 512


def rebuild(state: State) -> Iterator[None]:
    """Derives everything anew and begins to keep it up. Holders must have been found before.

    It takes seconds with a million jobs, so it comes in steps: between them the caller may do
    something else, but must leave the state alone. Done when the iterator is exhausted.
    """
    records = sorted(state.jobs.values(), key=lambda record: record.ordinal)
    yield
    state.jobs = {record.job_id: record for record in records}
    state.reset_derived()
    yield
    ready: dict[Lane, list[JobRecord]] = {}
    finished: list[JobRecord] = []
    for start in range(0, len(records), _STEP_ROWS):
        _sort_in(state, records[start : start + _STEP_ROWS], ready, finished)
        yield
    yield from _rebuild_lanes(state, ready)
    yield from _rebuild_timetable(state)
    yield from state.dependencies.rebuild(state.jobs)
    yield from state.workflows.rebuild_timers()
    finished.sort(key=lambda record: (record.ended_ms, record.seq, record.ordinal))
    yield
    ends = groupby(finished, key=lambda record: (record.state, record.ended_ms, record.seq))
    rows = 0
    for (job_state, ended_ms, seq), run in ends:
        ended = list(run)
        state.finished.push(job_state, ended_ms, seq, ended)
        rows += len(ended)
        if rows >= _STEP_ROWS:
            rows = 0
            yield
    state.live = True


def _sort_in(
    state: State,
    records: list[JobRecord],
    ready: dict[Lane, list[JobRecord]],
    finished: list[JobRecord],
) -> None:
    """Counts some records, arms their timers, and says which orders they belong to."""
    lanes = state.lanes
    lanes.count(records, 1)
    for record in records:
        state.stored_bytes += footprint(record)
        if record.state is JobState.PENDING:
            ready.setdefault(lanes.of(record), []).append(record)
        elif record.state is JobState.RUNNING:
            lanes.resume(record)
        elif record.state in TERMINAL:
            finished.append(record)
        elif record.over_budget:
            state.postponed.note([record])
        state.timers.arm(record)


def _rebuild_timetable(state: State) -> Iterator[None]:
    timetable = state.timetable
    for index, record in enumerate(timetable.records.values(), 1):
        state.stored_bytes += record.footprint
        timetable.follow(record, None)
        timetable.timers.arm(record)
        if index % _STEP_ROWS == 0:
            yield


def _rebuild_lanes(state: State, ready: dict[Lane, list[JobRecord]]) -> Iterator[None]:
    """Jobs that one event made ready under one key become one segment, as they were."""
    aging_step_ms = state.config.aging_step_ms

    def place(record: JobRecord) -> tuple[int, int]:
        return record.seq, order_key(record.priority, record.ready_ms, aging_step_ms)

    rows = 0
    for waiting in ready.values():
        for (seq, key), run in groupby(waiting, key=place):
            segment = list(run)
            state.lanes.push(key, seq, segment)
            rows += len(segment)
            if rows >= _STEP_ROWS:
                rows = 0
                yield
