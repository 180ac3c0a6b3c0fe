"""Rebuilds what is derived from the records, after a replay."""

from itertools import groupby

from tenure.master.core.ready import Lane, order_key
from tenure.master.core.record import JobRecord
from tenure.master.core.state import State, footprint
from tenure.master.core.transition import TERMINAL
from tenure.protocol.vocabulary import JobState


def rebuild(state: State) -> None:
    """Derives everything anew and begins to keep it up. Holders must have been found before."""
    records = sorted(state.jobs.values(), key=lambda record: record.ordinal)
    state.jobs = {record.job_id: record for record in records}
    state.reset_derived()
    state.live = True
    lanes = state.lanes
    ready: dict[Lane, list[JobRecord]] = {}
    finished: list[JobRecord] = []
    for record in records:
        lane = lanes.of(record.policy)
        lane.counts[record.state] += 1
        lanes.counts[record.state] += 1
        state.stored_bytes += footprint(record)
        if record.state is JobState.PENDING:
            ready.setdefault(lane, []).append(record)
        elif record.state in TERMINAL:
            finished.append(record)
        state.timers.arm(record)
    aging_step_ms = state.config.aging_step_ms
    for lane, waiting in ready.items():
        # Jobs that one event made ready under one key are one segment, as they were.
        for (seq, key), run in groupby(
            waiting,
            key=lambda record: (
                record.seq,
                order_key(record.priority, record.ready_ms, aging_step_ms),
            ),
        ):
            lanes.push(lane, key, seq, list(run))
    finished.sort(key=lambda record: (record.ended_ms, record.seq, record.ordinal))
    for (job_state, ended_ms, seq), run in groupby(
        finished, key=lambda record: (record.state, record.ended_ms, record.seq)
    ):
        state.finished.push(job_state, ended_ms, seq, list(run))
