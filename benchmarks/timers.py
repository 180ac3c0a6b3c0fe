"""Crowds of timers that are due at once: for how long they hold the master's loop in one go.

Judged by the CPU that the loop takes before it comes round again: what else the machine does in
between is not the loop's doing.

Delayed jobs in a real master, whose loop is watched from inside. What cannot be had there in short
(ticks of schedules after a downtime) and what few have (gates of keys that open together) in the
core alone: each of its decisions, with what it writes, is a part of one turn of that loop.

    python -m benchmarks.timers
"""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime, timedelta
from typing import Final

import uvloop

from benchmarks.core import JOB_NAME, Core
from benchmarks.jobs import noop
from benchmarks.payload import payload
from benchmarks.process import Process, ProcessGroup, workplace
from benchmarks.store import fresh_store
from benchmarks.table import Line, at_most, print_lines
from tenure.client import AsyncClient
from tenure.master.core.command import (
    CancelJobs,
    Dispatch,
    FireTimers,
    PurgeJobs,
    PutSchedule,
    SubmitJobs,
    SubmitRow,
    SubmitSetting,
    UpdateSettings,
)
from tenure.master.core.config import PartitionConfig
from tenure.master.core.record import Policy
from tenure.master.core.settings import JobTypeSettings, QueueSettings, RateLimit
from tenure.master.core.timetable import ScheduleSpec
from tenure.master.node.collector import calm_collector
from tenure.master.node.term import TIMER_ROWS
from tenure.protocol.vocabulary import JobState, Misfire, Overlap

_JOBS: Final = 100_000
_CHUNK: Final = 5_000
_SCHEDULES: Final = 500
_TICKS: Final = 20
_KEYS: Final = 1_000
#: Keys of one job type that all have something ready.
_LANES: Final = 50_000
#: Jobs with a deadline that have ended and been purged long before it.
_DEADLINES: Final = 200_000
#: So few at once that the steps by themselves are short.
_BATCH: Final = 100
_MINUTE_MS: Final = 60_000
#: Less than it takes until a grant that was not started is asked back.
_REFILL_MS: Final = 500
_HELD_MS: Final = 10.0
#: So far ahead all are due: submitting them takes a part of it.
_AHEAD_S: Final = 15.0
_END_S: Final = 60.0
_POLICY: Final = Policy(name=JOB_NAME)


def measure() -> list[Line]:
    """The lines of `make bench`."""
    # As a master does, whose turns these are parts of.
    calm_collector()
    held_ms, cpu_ms, seconds = _delayed_jobs()
    ticks_ms = _ticks_after_downtime()
    gates_ms = _gates_that_open()
    type_ms = _a_job_type_opens_and_closes()
    thinned_ms = _many_entries_that_want_nothing()
    jobs = f"{_JOBS:,} jobs due at once"
    return [
        at_most(f"{jobs}: in one go", cpu_ms, _HELD_MS, "ms"),
        Line(what="the same by the wall, others' time too", value=f"{held_ms:.1f} ms"),
        Line(what=f"{jobs}: all ready after", value=f"{seconds:.2f} s"),
        at_most(f"{_SCHEDULES * _TICKS:,} ticks missed: a decision", ticks_ms, _HELD_MS, "ms"),
        at_most(f"{_KEYS:,} keys' buckets: a decision", gates_ms, _HELD_MS, "ms"),
        at_most(f"a job type of {_LANES:,} keys is paused", type_ms, _HELD_MS, "ms"),
        at_most(f"{_DEADLINES:,} timers of purged jobs: a step", thinned_ms, _HELD_MS, "ms"),
    ]


# In a real master.


def _delayed_jobs() -> tuple[float, float, float]:
    """For how long the loop was held at most, by the wall and in CPU; and how long all took."""
    with (
        workplace() as folder,
        fresh_store("sqlite", folder) as store,
        ProcessGroup(folder) as group,
    ):
        master = group.start("master", "benchmarks.watched_master", "--store", store)
        address = master.expect("serving")["address"]
        due = datetime.now(UTC) + timedelta(seconds=_AHEAD_S)
        uvloop.run(_queue(address, due))
        left_s = (due - datetime.now(UTC)).total_seconds()
        if left_s < 0:
            raise RuntimeError(f"expected {_JOBS} submits in {_AHEAD_S} s; this machine is slower")
        time.sleep(left_s - 0.1)
        # What it was held for until now came of the submits.
        _held(master)
        took_s = uvloop.run(_all_ready(address, due))
        held = _held(master)
        return held["held_ms"], held["cpu_ms"], took_s


def _held(master: Process) -> dict[str, float]:
    """For how long the master's loop was held at most since the last time."""
    os.kill(master.pid, signal.SIGUSR1)
    return master.expect("held")


async def _queue(address: str, due: datetime) -> None:
    async with AsyncClient(address, timeout=60) as client:
        later = noop.options(at=due)
        for first in range(0, _JOBS, _CHUNK):
            await client.map(later, [payload(number) for number in range(first, first + _CHUNK)])


async def _all_ready(address: str, due: datetime) -> float:
    """Waits until none waits for its time any more; seconds since that time."""
    async with AsyncClient(address) as client:
        while True:
            counts = await client.count()
            since_s = (datetime.now(UTC) - due).total_seconds()
            if counts.get(JobState.PENDING, 0) == _JOBS:
                return since_s
            if since_s > _END_S:
                raise RuntimeError(f"expected {_JOBS} jobs to be ready, but there are {counts}")


# In the core alone.


def _core() -> Core:
    """A core, shortly before a full minute."""
    return Core(PartitionConfig(partition=0, partitions=1), now_ms=1_700_000_040_000)


def _fire(core: Core) -> float:
    """Does all that is due, as the owner loop would; the longest step in milliseconds."""
    core.longest_ms = 0.0
    jitter = [core.random.random() for _ in range(TIMER_ROWS)]
    # A schedule that has more ticks is looked at again a millisecond later.
    while (due_ms := core.partition.next_timer_ms()) and due_ms <= core.now_ms + 1:
        core.now_ms = max(core.now_ms, due_ms)
        core.do(FireTimers(rows_max=TIMER_ROWS, jitter=jitter))
    return core.longest_ms


def _submit_keyed(core: Core, keys: int) -> None:
    """One job for each of so many limit keys."""
    setting = SubmitSetting(_POLICY, 5, 0, 0)
    for first in range(0, keys, _KEYS):
        rows = [
            SubmitRow(core.new_id(), 0, b"", "", f"k{number}")
            for number in range(first, min(first + _KEYS, keys))
        ]
        core.do(SubmitJobs(settings=[setting], rows=rows))


def _ticks_after_downtime() -> float:
    """Schedules that fire all that they missed."""
    core = _core()
    for number in range(_SCHEDULES):
        spec = ScheduleSpec(
            cron="* * * * *",
            time_zone="Europe/Berlin",
            policy=_POLICY,
            misfire=Misfire.FIRE_ALL,
            overlap=Overlap.ALLOW,
        )
        core.do(PutSchedule(tenant="default", name=f"s{number}", spec=spec))
    core.now_ms += _TICKS * _MINUTE_MS
    longest_ms = _fire(core)
    fired = core.partition.counts().get(JobState.PENDING, 0)
    if fired != _SCHEDULES * _TICKS:
        raise RuntimeError(f"expected {_SCHEDULES * _TICKS} ticks to fire, but {fired} did")
    return longest_ms


def _gates_that_open() -> float:
    """Keys whose buckets all have a token again at the same time."""
    core = _core()
    rate = RateLimit(1, _REFILL_MS, 1)
    core.do(UpdateSettings(key=("default", "default"), settings=QueueSettings(key_rate=rate)))
    session = core.open_session(slots=2 * _KEYS)
    core.now_ms += _REFILL_MS
    for _ in range(2):
        _submit_keyed(core, _KEYS)
    _fire(core)
    core.hear()
    for _ in range(2):
        core.do(
            Dispatch(
                credits=[(session, 2 * _KEYS)],
                committed_seq=core.partition.next_seq - 1,
                grants_max=_KEYS,
            )
        )
    if core.partition.has_ready():
        raise RuntimeError("expected every key to have used up its token")
    core.now_ms += _REFILL_MS
    longest_ms = _fire(core)
    if core.partition.backlog_for(session) != _KEYS:
        raise RuntimeError("expected every key to have a token again")
    return longest_ms


def _a_job_type_opens_and_closes() -> float:
    """Every key of it has a job that waits."""
    core = _core()
    core.do(UpdateSettings(key=("default", "default"), settings=QueueSettings(key_concurrency=1)))
    session = core.open_session(slots=1)
    _submit_keyed(core, _LANES)
    core.longest_ms = 0.0
    for paused, waiting in ((True, 0), (False, _LANES)):
        settings = JobTypeSettings(paused=paused)
        core.do(UpdateSettings(key=("default", JOB_NAME), settings=settings))
        if core.partition.backlog_for(session) != waiting:
            raise RuntimeError(f"expected {waiting} jobs to wait for a worker only")
    return core.longest_ms


def _many_entries_that_want_nothing() -> float:
    """Jobs that have timers come and go, and leave their entries behind."""
    core = _core()
    setting = SubmitSetting(Policy(name=JOB_NAME, deadline_ms=3_600_000), 5, 0, 0)
    for _ in range(0, _DEADLINES, _BATCH):
        core.now_ms += 1
        ids = [core.new_id() for _ in range(_BATCH)]
        rows = [SubmitRow(job_id, 0, b"", "") for job_id in ids]
        core.do(SubmitJobs(settings=[setting], rows=rows))
        core.do(CancelJobs(job_ids=ids))
        core.do(PurgeJobs(job_ids=ids))
    return core.longest_ms


if __name__ == "__main__":
    print_lines("Timers that are due at once", measure())
