"""Crowded limit keys: what one decision does about them, and what it leaves to the next one."""

from dataclasses import replace

import pytest

from tenure.master.core.command import CloseSession
from tenure.master.core.effect import NotifySettled, SendCancels
from tenure.master.core.event import CancelsRequested, JobsCancelled
from tenure.master.core.limit import REASON
from tenure.master.core.record import Policy
from tenure.master.core.settings import QueueSettings
from tenure.master.core.volatile import KeysRelieved
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import FailureReason, JobState, LimitStrategy
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import CONFIG, Rig, of_type

MAIL = ("default", "mail")
JOB = Policy(name="job", queue="mail")


def strict(rig: Rig, strategy: LimitStrategy, concurrency: int = 1) -> None:
    """From now on so many jobs of a key may run."""
    settings = QueueSettings(key_concurrency=concurrency, key_strategy=strategy)
    rig.configure(MAIL, settings)


def cancelled(rig: Rig, job_ids: list[JobId]) -> list[bool]:
    """Which of them were."""
    return [rig.state(job_id) is JobState.CANCELLED for job_id in job_ids]


def test_a_long_backlog_is_cancelled_a_part_at_a_time() -> None:
    """The newest go first; each part is told in the order of the submits, to all who wait."""
    rig = Rig()
    ids = rig.submit(6, JOB, limit_key="k")
    strict(rig, LimitStrategy.CANCEL_NEWEST)
    decision = rig.fire(rows_max=3)
    (event,) = of_type(decision.events, JobsCancelled)
    assert (event.now_ms, event.job_ids, event.reason) == (rig.now_ms, ids[3:], REASON)
    (told,) = of_type(decision.effects, NotifySettled)
    assert [record.job_id for record in told.records] == ids[3:]
    assert not of_type(decision.events, KeysRelieved)
    assert rig.partition.next_timer_ms() == rig.now_ms
    rig.fire(rows_max=3)
    assert cancelled(rig, ids) == [False] + [True] * 5
    assert not state_of(rig.partition).lanes.crowded


@pytest.mark.parametrize(
    ("jobs_max", "keys", "gone"), [(1, 0, 1), (2, 0, 2), (3, 1, 3), (4, 2, 4), (5, 3, 4)]
)
def test_so_many_jobs_of_the_first_keys_are_cancelled(jobs_max: int, keys: int, gone: int) -> None:
    """Those of which all were cancelled, before there were too many, are done with."""
    rig = Rig()
    ids = [
        job
        for key, jobs in (("a", 3), ("b", 2), ("c", 2))
        for job in rig.submit(jobs, JOB, limit_key=key)
    ]
    strict(rig, LimitStrategy.CANCEL_NEWEST)
    decision = rig.fire(rows_max=jobs_max)
    assert [event.keys for event in of_type(decision.events, KeysRelieved)] == [keys] * bool(keys)
    left = [key.key for key in state_of(rig.partition).lanes.crowded]
    assert left == ["a", "b", "c"][keys:]
    assert sum(cancelled(rig, ids)) == gone


def test_running_jobs_are_asked_to_stop_on_their_own_streams() -> None:
    """The oldest, run or not; who has no stream is not asked, and hears of it when it is back."""
    rig = Rig(replace(CONFIG, lease_ttl_ms=1 << 40))
    strict(rig, LimitStrategy.CANCEL_IN_PROGRESS, 4)
    rows = []
    for session_id in (1, 2, 3):
        rig.open_session(session_id)
        rig.submit(1, JOB, limit_key="k")
        rows += rig.grant(session_id, 1)
    rig.do(CloseSession(session_id=3))
    waiting = rig.submit(1, JOB, limit_key="k")
    assert not of_type(rig.fire().events, CancelsRequested)
    fresh = rig.submit(4, JOB, limit_key="k")
    decision = rig.fire()
    (stopped,) = of_type(decision.events, CancelsRequested)
    assert (stopped.now_ms, stopped.reason) == (rig.now_ms, REASON)
    assert stopped.job_ids == [row.job_id for row in rows]
    (gone,) = of_type(decision.events, JobsCancelled)
    assert gone.job_ids == waiting
    asked = {effect.session_id: effect.rows for effect in of_type(decision.effects, SendCancels)}
    assert asked == {number: [tuple(rows[number - 1])] for number in (1, 2)}
    assert rig.record(rows[0].job_id).cancel_reason == REASON
    # They have their places still, and are not asked a second time.
    newest = rig.submit(1, JOB, limit_key="k")
    decision = rig.fire()
    assert not of_type(decision.effects, SendCancels)
    assert cancelled(rig, [*fresh, *newest]) == [True] + [False] * 4


def test_all_running_jobs_of_a_worker_are_named_together() -> None:
    """In one message, the oldest first."""
    rig = Rig()
    strict(rig, LimitStrategy.CANCEL_IN_PROGRESS, 2)
    rig.open_session(1)
    rig.submit(2, JOB, limit_key="k")
    rows = rig.grant(1, 2)
    rig.submit(2, JOB, limit_key="k")
    (asked,) = of_type(rig.fire().effects, SendCancels)
    assert (asked.session_id, asked.rows) == (1, [tuple(row) for row in rows])


def test_a_key_that_only_holds_up_cancels_nothing() -> None:
    """Also if it was to when it got crowded."""
    rig = Rig()
    strict(rig, LimitStrategy.CANCEL_NEWEST)
    ids = rig.submit(3, JOB, limit_key="k")
    strict(rig, LimitStrategy.QUEUE)
    decision = rig.fire()
    assert [event.keys for event in of_type(decision.events, KeysRelieved)] == [1]
    assert not any(cancelled(rig, ids))
    assert not state_of(rig.partition).lanes.crowded


def test_what_the_same_decision_ends_otherwise_is_left_to_it() -> None:
    """A job that expires is not cancelled as well; one that has run too long is not asked to."""
    rig = Rig(replace(CONFIG, lease_ttl_ms=1 << 40, timeout_grace_ms=0))
    strict(rig, LimitStrategy.CANCEL_NEWEST)
    hasty = Policy(name="job", queue="mail", schedule_timeout_ms=1_000)
    (kept, late) = rig.submit(2, hasty, limit_key="k")
    rig.now_ms += 1_000
    decision = rig.fire()
    assert not of_type(decision.events, JobsCancelled)
    assert rig.record(late).failure_reason is FailureReason.EXPIRED
    assert rig.record(kept).failure_reason is FailureReason.EXPIRED
    strict(rig, LimitStrategy.CANCEL_IN_PROGRESS)
    slow = Policy(name="job", queue="mail", timeout_ms=1_000)
    rig.open_session(1)
    rig.submit(1, slow, limit_key="k")
    row = rig.grant_one()
    rig.start(row)
    rig.now_ms += 1_000
    rig.submit(1, JOB, limit_key="k")
    decision = rig.fire()
    assert not of_type(decision.events, CancelsRequested)
    assert not of_type(decision.effects, SendCancels)
