"""What becomes of jobs whose limit key is full, where they do not just wait (``LimitStrategy``).

A key is *crowded* when more of its jobs run or are ready than may run at once. ``CANCEL_NEWEST``
cancels those that came last and have not begun: a retry waits for its place. ``CANCEL_IN_PROGRESS``
cancels the oldest, by the order of their submits: a retry goes when what runs came after it, those
that run are asked to stop, and the newest wait for their places. Keys that may be crowded stand in
``Lanes.crowded``; timers look at them at once.
"""

from collections.abc import Container
from heapq import nlargest, nsmallest
from itertools import chain, islice
from operator import attrgetter
from typing import Final, NamedTuple

from tenure.master.core.effect import Effect, NotifySettled, SendCancels
from tenure.master.core.event import CancelsRequested, Event, JobsCancelled
from tenure.master.core.gate import LimitKey
from tenure.master.core.ready import Lane
from tenure.master.core.record import JobRecord
from tenure.master.core.state import State, lease_of
from tenure.master.core.volatile import KeysRelieved
from tenure.protocol.fence import Lease
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import LimitStrategy

REASON: Final = "another job of its limit key has its place"
_ORDINAL: Final = attrgetter("ordinal")


class Relief(NamedTuple):
    """What is done about crowded keys, and how many, the first ones, are done with."""

    events: list[Event]
    effects: list[Effect]
    keys: int


def relieve(state: State, jobs_max: int, now_ms: int, decided: Container[JobId]) -> Relief:
    """Cancels what is too much of the first crowded keys, but for what was decided on.

    So many jobs at most: a key may have had a long backlog when it was limited.
    """
    cancelled: list[JobRecord] = []
    stopped: list[JobRecord] = []
    keys, left = 0, jobs_max
    for key in islice(state.lanes.crowded, jobs_max):
        waiting, running = surplus(key, left)
        cancelled += [record for record in waiting if record.job_id not in decided]
        stopped += [record for record in running if record.job_id not in decided]
        left -= len(waiting) + len(running)
        if left <= 0:
            # It may have more: it is looked at again.
            break
        keys += 1
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
    return Relief(events, effects, keys)


def apply_keys_relieved(state: State, event: KeysRelieved) -> None:
    """Those keys are looked at again when they may be crowded anew."""
    state.lanes.relieved(event.keys)


def surplus(key: LimitKey, most: int) -> tuple[list[JobRecord], list[JobRecord]]:
    """The jobs of a key that are too many, ``most`` of them: those that wait and those that run."""
    if not key.cancels:
        return [], []
    lanes = [lane for lane in key.under if isinstance(lane, Lane)]
    ready = sum([lane.ready for lane in lanes])
    jobs = chain.from_iterable([lane.jobs() for lane in lanes])
    if key.queue.settings.key_strategy is LimitStrategy.CANCEL_NEWEST:
        fresh = [job for job in jobs if not job.attempt]
        room = max(key.concurrency - len(key.jobs) - (ready - len(fresh)), 0)
        newest = nlargest(min(len(fresh) - room, most), fresh, key=_ORDINAL)
        return newest[::-1], []
    running = [job for job in key.jobs.values() if not job.cancel_requested]
    too_many = max(len(running) + ready - key.concurrency, 0)
    oldest = nsmallest(min(too_many, most), chain(running, jobs), key=_ORDINAL)
    waiting = [job for job in oldest if job.job_id not in key.jobs]
    return waiting, [job for job in oldest if job.job_id in key.jobs]


def _asks(state: State, stopped: list[JobRecord]) -> list[Effect]:
    """Asks the workers of running jobs to stop them."""
    asked: dict[int, list[tuple[JobId, Lease]]] = {}
    for record in stopped:
        holder = state.holders.get(record.incarnation)
        if holder is not None and holder.session is not None:
            rows = asked.setdefault(holder.session.session_id, [])
            rows.append((record.job_id, lease_of(record)))
    return [SendCancels(session_id=sid, rows=rows) for sid, rows in asked.items()]
