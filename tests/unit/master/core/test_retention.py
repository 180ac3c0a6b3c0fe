"""Retention: finished jobs are purged by age and by count, each by an event."""

from dataclasses import replace

import pytest

from tenure.master.core import command as commands
from tenure.master.core.config import Retention
from tenure.master.core.event import JobsPurged
from tenure.master.core.record import JobRecord, Policy
from tenure.master.core.transition import TERMINAL
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import AttemptOutcome, JobState, ParentFailure, RunIf
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import CONFIG, JOB, Rig
from tests.unit.master.core.test_dependency import after, resolve

SMALL = Retention(completed_ms=10_000, completed_max=5, failed_ms=50_000, failed_max=3)


@pytest.fixture
def rig() -> Rig:
    """A partition that keeps little."""
    rig = Rig(replace(CONFIG, retention=SMALL))
    rig.open_session(1)
    return rig


def finish(
    rig: Rig,
    count: int = 1,
    outcome: AttemptOutcome = AttemptOutcome.COMPLETED,
    policy: Policy = JOB,
) -> list[JobId]:
    """Runs new jobs to their ends, one after the other."""
    ids = rig.submit(count, policy)
    for row in rig.grant(1, count):
        rig.report(row, outcome)
    rig.renew(1, 1_000)
    return ids


def kept(rig: Rig) -> list[JobId]:
    """The jobs that are still there, oldest first."""
    return [record.job_id for record in reversed(rig.partition.scan().take(100, 1_000))]


def test_age(rig: Rig) -> None:
    """A finished job is purged at its age, to the millisecond."""
    ids = finish(rig, 2)
    rig.pass_time(9_999)
    assert kept(rig) == ids
    rig.pass_time(1)
    assert kept(rig) == []


def test_count(rig: Rig) -> None:
    """Beyond the count the ones that ended first go, at once."""
    ids = finish(rig, 8)
    rig.pass_time(0)
    assert kept(rig) == ids[3:]


def test_dead_letters_are_kept_longer(rig: Rig) -> None:
    """FAILED jobs have their own age and count; cancelled ones go with the completed ones."""
    dead = finish(rig, 4, AttemptOutcome.FAILED_PERMANENT)
    cancelled = rig.submit(1)
    rig.do(commands.CancelJobs(job_ids=cancelled))
    rig.pass_time(0)
    assert kept(rig) == dead[1:] + cancelled
    rig.pass_time(10_000)
    assert kept(rig) == dead[1:]
    rig.pass_time(40_000)
    assert kept(rig) == []


def test_order_is_of_ends_not_of_submits(rig: Rig) -> None:
    """The oldest is the one that ended first."""
    ids = rig.submit(7)
    for row in reversed(rig.grant(1, 7)):
        rig.report(row)
    rig.pass_time(0)
    assert kept(rig) == ids[:5]


@pytest.mark.parametrize("ttl_ms", [2_000, 30_000])
def test_result_ttl(rig: Rig, ttl_ms: int) -> None:
    """A job's own result TTL wins over the age, shorter or longer."""
    (own,) = finish(rig, 1, policy=Policy(name="job", result_ttl_ms=ttl_ms))
    rig.pass_time(ttl_ms - 1)
    assert kept(rig) == [own]
    rig.pass_time(1)
    assert kept(rig) == []


def test_result_ttl_does_not_hold_up_others(rig: Rig) -> None:
    """A job with a long TTL does not keep younger ones beyond their age, and counts like them."""
    long = Policy(name="job", result_ttl_ms=1_000_000)
    (own,) = finish(rig, 1, policy=long)
    finish(rig, 2)
    rig.pass_time(10_000)
    assert kept(rig) == [own]
    ids = finish(rig, 5)
    rig.pass_time(0)
    assert kept(rig) == ids


def test_rows_max(rig: Rig) -> None:
    """One decision purges no more than it may; the rest is due at once."""
    finish(rig, 5)
    rig.now_ms += 10_000
    for left in (3, 1, 0):
        assert rig.partition.next_timer_ms() is not None
        rig.fire(rows_max=2)
        assert len(kept(rig)) == left
    assert rig.partition.next_timer_ms() is None


def test_purges_are_events(rig: Rig) -> None:
    """What retention purges is journaled, so that a replay purges the same."""
    ids = finish(rig, 3)
    rig.now_ms += 10_000
    (event,) = [e for e in rig.fire().events if isinstance(e, JobsPurged)]
    assert event.job_ids == ids
    assert rig.replayed().state_hash() == rig.partition.state_hash()


def test_requeued_job_leaves_the_shelf(rig: Rig) -> None:
    """A requeued job is not purged by the age of its former end."""
    (job_id,) = finish(rig, 1, AttemptOutcome.FAILED_PERMANENT)
    rig.pass_time(40_000)
    rig.do(commands.RequeueJobs(job_ids=[job_id]))
    rig.pass_time(60_000)
    assert kept(rig) == [job_id]


def test_age_after_recovery(rig: Rig) -> None:
    """A recovered partition purges in the same order and at the same times."""
    ids = finish(rig, 3)
    rig.pass_time(4_000)
    later = finish(rig, 2)
    rig.crash(window_ms=0)
    rig.pass_time(5_999)
    assert kept(rig) == ids + later
    rig.pass_time(1)
    assert kept(rig) == later


def test_what_one_event_ended_is_kept_by_each_jobs_own_time(rig: Rig) -> None:
    """After a recovery as before it, jobs with a result TTL and others part at their ends."""
    (plain,) = rig.submit(1)
    (own,) = rig.submit(1, Policy(name="job", result_ttl_ms=2_000))
    rig.do(commands.CancelJobs(job_ids=[plain, own]))
    rig.crash(window_ms=0)
    rig.pass_time(2_000)
    assert kept(rig) == [plain]
    rig.pass_time(8_000)
    assert kept(rig) == []


def test_rows_max_cuts_what_one_event_ended(rig: Rig) -> None:
    """The limit holds across events and shelves, also for jobs that a recovery put together."""
    for count in (1, 3):
        rig.do(commands.CancelJobs(job_ids=rig.submit(count)))
    finish(rig, 3, AttemptOutcome.FAILED_PERMANENT)
    rig.crash(window_ms=0)
    rig.now_ms += 50_000
    for left in (5, 3, 1, 0):
        rig.fire(rows_max=2)
        assert len(kept(rig)) == left


def test_a_shelf_forgets_what_left_it_from_the_middle() -> None:
    """Requeued jobs keep no garbage behind, and leave the order of the others as it was."""
    rig = Rig()
    long = Policy(name="job", result_ttl_ms=2 * rig.config.retention.completed_ms)
    first, last = rig.submit(2), rig.submit(2)
    first += rig.submit(1, long)
    middle = rig.submit(1_095)
    rig.do(commands.CancelJobs(job_ids=first + middle))
    rig.now_ms += 1_000
    rig.do(commands.CancelJobs(job_ids=last))
    shelf = state_of(rig.partition).finished._done
    rig.do(commands.RequeueJobs(job_ids=middle[:1_062]))
    assert shelf._entries == 1_100
    rig.do(commands.RequeueJobs(job_ids=middle[1_062:1_063]))
    assert shelf._entries == 37
    rig.do(commands.RequeueJobs(job_ids=middle[1_063:]))
    rig.pass_time(rig.config.retention.completed_ms - 1_000)
    assert [record.job_id for record in ended(rig)] == last + first[2:]
    rig.pass_time(1_000)
    assert [record.job_id for record in ended(rig)] == first[2:]


# What a child needs that has not ended is put aside.


def test_one_look_puts_aside_all_that_is_needed(rig: Rig) -> None:
    """Also behind jobs that are purged; nothing asks for another look until a child has ended."""
    ids = []
    for _ in range(3):
        ids += finish(rig)
        rig.now_ms += 1
    child = after(rig, ids[0], ids[2])
    rig.now_ms += 10_000
    rig.fire()
    assert kept(rig) == [ids[0], ids[2], child]
    assert rig.partition.next_timer_ms() is None


@pytest.mark.parametrize(
    "outcome", [AttemptOutcome.COMPLETED, AttemptOutcome.FAILED_PERMANENT], ids=str
)
def test_a_parent_is_purged_when_its_last_child_has_ended(
    rig: Rig, outcome: AttemptOutcome
) -> None:
    """At once, as its age was over long ago, whatever it had come to."""
    (parent,) = finish(rig, 1, outcome)
    child = after(rig, parent, run_if=RunIf.ALWAYS)
    rig.now_ms += 50_000
    rig.fire()
    assert kept(rig) == [parent, child]
    assert rig.partition.next_timer_ms() is None
    rig.renew(1, 1_000)
    others = finish(rig, 2, outcome)
    rig.do(commands.CancelJobs(job_ids=[child]))
    rig.fire()
    assert kept(rig) == [child, *others]


def test_a_parent_goes_back_to_its_own_kind(rig: Rig) -> None:
    """Put aside for the count, which it is no part of then, one with a result TTL is kept by that
    when its child has ended.
    """
    (own,) = finish(rig, 1, policy=Policy(name="job", result_ttl_ms=1_000_000))
    child = after(rig, own)
    rig.now_ms += 1
    others = finish(rig, 5)
    rig.pass_time(0)
    assert kept(rig) == [own, child, *others]
    rig.pass_time(10_000)
    assert kept(rig) == [own, child]
    rig.do(commands.CancelJobs(job_ids=[child]))
    rig.pass_time(10_000)
    assert kept(rig) == [own]
    rig.pass_time(1_000_000)
    assert kept(rig) == []


@pytest.mark.parametrize("failed", [False, True])
def test_a_job_that_goes_on_is_aside_no_more(rig: Rig, failed: bool) -> None:
    """A parent that is requeued is kept for its full time from its next end on."""
    if failed:
        (parent,) = finish(rig, 1, AttemptOutcome.FAILED_PERMANENT)
    else:
        (parent,) = rig.submit(1)
        rig.do(commands.CancelJobs(job_ids=[parent]))
    child = after(rig, parent, on_parent_failure=ParentFailure.HOLD)
    rig.pass_time(50_000)
    rig.do(commands.RequeueJobs(job_ids=[parent]))
    rig.do(commands.CancelJobs(job_ids=[parent, child]))
    rig.pass_time(9_999)
    assert kept(rig) == [parent, child]
    rig.pass_time(1)
    assert kept(rig) == []


def test_a_parent_whose_last_child_ends_in_the_same_look_is_not_put_aside(rig: Rig) -> None:
    """Nobody would ever take it back."""
    (parent,) = finish(rig)
    child = after(rig, parent, schedule_timeout_ms=10_000)
    resolve(rig)
    rig.pass_time(10_000)
    assert rig.state(child) is JobState.FAILED
    assert kept(rig) == [child]


def ended(rig: Rig) -> list[JobRecord]:
    """The finished jobs, oldest submit first."""
    return [r for r in state_of(rig.partition).jobs.values() if r.state in TERMINAL]
