"""Limits: how many may run at once, and how many may begin in a time, per queue and per key."""

from collections import Counter
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenure.master.core.command import LeaseRow
from tenure.master.core.effect import SendAssignment, SendCancels
from tenure.master.core.limit import REASON
from tenure.master.core.record import Policy
from tenure.master.core.settings import QueueSettings, RateLimit
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import AttemptOutcome, JobState, LimitStrategy
from tests.unit.master.core.audit import audit, state_of
from tests.unit.master.core.rig import Rig, leases_of, of_type

EXAMPLES: Final = max(200, settings().max_examples)
MAIL = ("default", "mail")
JOB = Policy(name="job", queue="mail")


def limited(**fields: object) -> Rig:
    """A partition whose queue has limits, and a worker with slots for all."""
    rig = Rig()
    rig.configure(MAIL, QueueSettings(**fields))  # type: ignore[arg-type]
    rig.open_session(1, slots=1_000)
    return rig


@given(
    concurrency=st.integers(0, 4),
    key_concurrency=st.integers(0, 3),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["submit", "grant", "finish", "fail", "give_back"]),
            st.sampled_from(["", "a", "b", "c"]),
            st.integers(1, 5),
        ),
        max_size=40,
    ),
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_limits_are_never_exceeded_nor_under_used(
    concurrency: int, key_concurrency: int, steps: list[tuple[str, str, int]]
) -> None:
    """S17: never more run than may, per queue and per key; and as many as may, if there are."""
    rig = Rig(audited=False)
    rig.configure(MAIL, QueueSettings(concurrency=concurrency, key_concurrency=key_concurrency))
    rig.open_session(1, slots=1_000)
    held: list[LeaseRow] = []
    for what, key, count in steps:
        rig.now_ms += 1
        match what:
            case "submit":
                rig.submit(count, JOB, limit_key=key)
            case "grant":
                held += rig.grant(1, 1_000)
                _check_use(rig, concurrency, key_concurrency)
            case _ if held:
                _end(rig, what, held.pop(count % len(held)))
        _check_limits(rig, concurrency, key_concurrency)
    audit(rig.partition)


def _end(rig: Rig, what: str, row: LeaseRow) -> None:
    if what == "finish":
        rig.report(row)
    elif what == "fail":
        rig.report(row, AttemptOutcome.FAILED_PERMANENT)
    else:
        rig.give_back(row)


def _running(rig: Rig) -> Counter[str]:
    jobs = state_of(rig.partition).jobs.values()
    return Counter(r.limit_key for r in jobs if r.state is JobState.RUNNING)


def _check_limits(rig: Rig, concurrency: int, key_concurrency: int) -> None:
    running = _running(rig)
    assert not concurrency or running.total() <= concurrency
    if key_concurrency:
        assert all(count <= key_concurrency for key, count in running.items() if key)


def _check_use(rig: Rig, concurrency: int, key_concurrency: int) -> None:
    """After a dispatch with credit to spare nothing waits that a limit does not hold."""
    running = _running(rig)
    if concurrency and running.total() >= concurrency:
        return
    for record in state_of(rig.partition).jobs.values():
        if record.state is JobState.PENDING:
            assert record.limit_key
            assert running[record.limit_key] >= key_concurrency > 0


def test_grants_under_a_limit_are_written_ahead() -> None:
    """Who counts what runs must not forget a grant: it leaves after its event has committed."""
    rig = limited(concurrency=5)
    rig.submit(2, JOB)
    (effect,) = of_type(rig.dispatch((1, 9)).effects, SendAssignment)
    assert effect.write_ahead


def test_limits_hold_through_a_failover() -> None:
    """What runs is counted anew from the journal."""
    rig = limited(key_concurrency=1)
    rig.submit(3, JOB, limit_key="k")
    assert len(rig.grant(1, 9)) == 1
    rig.crash(window_ms=0)
    rig.open_session(2, slots=10)
    assert not rig.grant(2, 9)


def test_a_key_blocks_only_its_own_jobs() -> None:
    """Jobs behind one whose key is full overtake it, in their order."""
    rig = limited(key_concurrency=1)
    first, second = rig.submit(2, JOB, limit_key="k")
    other = rig.submit_one(JOB, limit_key="other")
    free = rig.submit_one(JOB)
    assert {row.job_id for row in rig.grant(1, 9)} == {first, other, free}
    assert rig.state(second) is JobState.PENDING


def test_limits_of_other_queues_do_not_count() -> None:
    """A key is a key of its queue."""
    rig = limited(key_concurrency=1)
    rig.configure(("default", "post"), QueueSettings(key_concurrency=1))
    rig.submit(2, JOB, limit_key="k")
    rig.submit(2, Policy(name="job", queue="post"), limit_key="k")
    assert len(rig.grant(1, 9)) == 2


def test_raised_limit_is_in_force_at_once() -> None:
    """A changed limit holds from the next grant on; none is taken back."""
    rig = limited(concurrency=1)
    rig.submit(9, JOB)
    assert len(rig.grant(1, 9)) == 1
    assert not rig.partition.has_ready()
    rig.configure(MAIL, QueueSettings(concurrency=4))
    assert rig.partition.has_ready()
    assert len(rig.grant(1, 9)) == 3
    rig.configure(MAIL, QueueSettings(concurrency=2))
    assert not rig.grant(1, 9)
    rig.configure(MAIL, QueueSettings())
    assert len(rig.grant(1, 9)) == 5


# Rates.


def _granted_at(rig: Rig, for_ms: int) -> list[int]:
    """When jobs are granted, dispatching exactly when the partition asks to be looked at."""
    begin, end, times = rig.now_ms, rig.now_ms + for_ms, []
    while True:
        times += [rig.now_ms - begin] * len(rig.grant(1, 1_000))
        rig.accept(1, 1_000)
        due_ms = rig.partition.next_timer_ms()
        if due_ms is None or due_ms > end:
            return times
        rig.now_ms = max(rig.now_ms, due_ms)
        rig.renew(1, 1_000)
        rig.fire()


def test_rate_is_exact_and_wakes_the_dispatch() -> None:
    """Tokens come one by one and each is used when it comes: the partition says when that is."""
    rig = Rig(audited=False)
    rig.configure(MAIL, QueueSettings(rate=RateLimit(3, 1_000, 2)))
    rig.open_session(1, slots=1_000)
    rig.submit(50, JOB)
    rig.now_ms += 900
    assert _granted_at(rig, 2_000) == [0, 0, 334, 667, 1_000, 1_334, 1_667, 2_000]


def test_new_term_starts_with_empty_buckets() -> None:
    """What the last leader granted at its end nobody knows: no token is given for its time."""
    rig = limited(rate=RateLimit(1, 1_000, 5))
    rig.submit(9, JOB)
    rig.now_ms += 60_000
    rig.crash(window_ms=0)
    rig.open_session(2)
    assert not rig.grant(2, 9)
    rig.pass_time(999)
    assert not rig.grant(2, 9)
    rig.pass_time(1)
    assert len(rig.grant(2, 9)) == 1


def test_rate_per_key_counts_each_for_itself() -> None:
    """One key's tokens are not another's; jobs without a key need none."""
    rig = limited(key_rate=RateLimit(1, 1_000, 1))
    rig.pass_time(1_000)
    for key in ("a", "b", ""):
        rig.submit(2, JOB, limit_key=key)
    rows = rig.grant(1, 9)
    assert Counter(rig.record(row.job_id).limit_key for row in rows) == {"a": 1, "b": 1, "": 2}
    rig.pass_time(1_000)
    assert len(rig.grant(1, 9)) == 2


# Strategies.


def test_queue_strategy_lets_jobs_wait() -> None:
    """By default a job whose key is full waits."""
    rig = limited(key_concurrency=1)
    ids = rig.submit(3, JOB, limit_key="k")
    rig.pass_time(1)
    assert [rig.state(job_id) for job_id in ids] == [JobState.PENDING] * 3


def test_cancel_newest_keeps_what_came_first() -> None:
    """Jobs that find their key full are cancelled; those that fit run."""
    rig = limited(key_concurrency=2, key_strategy=LimitStrategy.CANCEL_NEWEST)
    ids = rig.submit(4, JOB, limit_key="k")
    assert rig.partition.next_timer_ms() == rig.now_ms
    rig.fire()
    assert [rig.state(job_id) for job_id in ids] == [
        *[JobState.PENDING] * 2,
        *[JobState.CANCELLED] * 2,
    ]
    assert rig.record(ids[3]).cancel_reason == REASON
    rows = rig.grant(1, 9)
    late = rig.submit_one(JOB, limit_key="k")
    rig.fire()
    assert rig.state(late) is JobState.CANCELLED
    rig.report(rows[0])
    fits = rig.submit_one(JOB, limit_key="k")
    rig.fire()
    assert rig.state(fits) is JobState.PENDING


def test_cancel_in_progress_gives_the_place_to_the_newest() -> None:
    """The oldest running job is asked to stop; the newest waits for its place."""
    rig = limited(key_concurrency=1, key_strategy=LimitStrategy.CANCEL_IN_PROGRESS)
    rig.submit(1, JOB, limit_key="k")
    row = rig.grant_one()
    second = rig.submit_one(JOB, limit_key="k")
    (asked,) = of_type(rig.fire().effects, SendCancels)
    assert asked.rows == [(row.job_id, row.lease)]
    assert rig.record(row.job_id).cancel_requested
    assert not rig.grant(1, 1)
    third = rig.submit_one(JOB, limit_key="k")
    rig.fire()
    assert rig.state(second) is JobState.CANCELLED
    rig.report(row, AttemptOutcome.CANCELLED)
    assert [granted.job_id for granted in rig.grant(1, 9)] == [third]


@pytest.mark.parametrize(
    "strategy", [LimitStrategy.CANCEL_NEWEST, LimitStrategy.CANCEL_IN_PROGRESS]
)
def test_delayed_jobs_are_cancelled_when_they_are_due(strategy: LimitStrategy) -> None:
    """A strategy looks at a job when it becomes ready, not before."""
    rig = limited(key_concurrency=1, key_strategy=strategy)
    later = rig.submit_one(JOB, limit_key="k", delay_ms=1_000)
    now = rig.submit_one(JOB, limit_key="k")
    rig.pass_time(999)
    assert rig.state(later) is JobState.SCHEDULED
    rig.pass_time(1)
    cancelled = {job_id for job_id in (later, now) if rig.state(job_id) is JobState.CANCELLED}
    # Both wait: the older submit counts as the older job.
    expected = now if strategy is LimitStrategy.CANCEL_NEWEST else later
    assert cancelled == {expected}


def test_other_keys_are_left_alone() -> None:
    """A strategy looks at one key at a time, and at jobs without a key never."""
    rig = limited(key_concurrency=1, key_strategy=LimitStrategy.CANCEL_NEWEST)
    ids = [*rig.submit(1, JOB, limit_key="a"), *rig.submit(1, JOB, limit_key="b")]
    ids += rig.submit(5, JOB)
    rig.fire()
    assert {rig.state(JobId(job_id)) for job_id in ids} == {JobState.PENDING}
    assert len(leases_of(rig.dispatch((1, 9)).effects)) == 7
