"""What becomes of jobs whose limit key is full, where they do not just wait (``LimitStrategy``).

A key is *crowded* when more of its jobs run or are ready than may run at once. ``CANCEL_NEWEST``
cancels those that came last and wait; ``CANCEL_IN_PROGRESS`` cancels the oldest: those that run are
asked to stop, and the newest wait for their places. Keys that may be crowded stand in
``Lanes.crowded``; timers look at them at once.
"""

from collections.abc import Container
from itertools import islice
from operator import attrgetter
from typing import Final, NamedTuple

from tenure.master.core.effect import Effect, NotifySettled, SendCancels
from tenure.master.core.event import CancelsRequested, Event, JobsCancelled
from tenure.master.core.gate import LimitKey
from tenure.master.core.ready import Lane
from tenure.master.core.record import JobRecord
from tenure.master.core.state import State, lease_of
from tenure.protocol.fence import Lease
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import LimitStrategy

REASON: Final = "another job of its limit key has its place"
_ORDINAL: Final = attrgetter("ordinal")


class Relief(NamedTuple):
    """What is done about crowded keys, and at how many of them was looked."""

    events: list[Event]
    effects: list[Effect]
    keys: int


def relieve(state: State, keys_max: int, now_ms: int, decided: Container[JobId]) -> Relief:
    """Cancels what is too much of the first crowded keys, but for what was decided on."""
    cancelled: list[JobRecord] = []
    stopped: list[JobRecord] = []
    keys = list(islice(state.lanes.crowded, keys_max))
    for key in keys:
        waiting, running = surplus(key)
        cancelled += [record for record in waiting if record.job_id not in decided]
        stopped += [record for record in running if record.job_id not in decided]
    events: list[Event] = []
    effects: list[Effect] = []
    if cancelled:
        ids = [record.job_id for record in cancelled]
        events.append(JobsCancelled(now_ms=now_ms, job_ids=ids, reason=REASON))
        effects.append(NotifySettled(records=cancelled))
    if stopped:
        ids = [record.job_id for record in stopped]
        events.append(CancelsRequested(now_ms=now_ms, job_ids=ids, reason=REASON))
        effects += _asks(state, stopped)
    return Relief(events, effects, len(keys))


def surplus(key: LimitKey) -> tuple[list[JobRecord], list[JobRecord]]:
    """The jobs of a key that are too many: those that wait and those that run."""
    if not key.cancels:
        return [], []
    waiting = [job for lane in key.under if isinstance(lane, Lane) for job in lane.jobs()]
    waiting.sort(key=_ORDINAL)
    if key.queue.settings.key_strategy is LimitStrategy.CANCEL_NEWEST:
        room = max(key.concurrency - len(key.jobs), 0)
        return waiting[room:], []
    running = [job for job in key.jobs.values() if not job.cancel_requested]
    # The newest stay: those that wait came after those that run.
    too_many = max(len(running) + len(waiting) - key.concurrency, 0)
    return waiting[: max(too_many - len(running), 0)], running[:too_many]


def _asks(state: State, stopped: list[JobRecord]) -> list[Effect]:
    """Asks the workers of running jobs to stop them."""
    asked: dict[int, list[tuple[JobId, Lease]]] = {}
    for record in stopped:
        holder = state.holders.get(record.incarnation)
        if holder is not None and holder.session is not None:
            rows = asked.setdefault(holder.session.session_id, [])
            rows.append((record.job_id, lease_of(record)))
    return [SendCancels(session_id=sid, rows=rows) for sid, rows in asked.items()]
