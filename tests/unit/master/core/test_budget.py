"""Retry budgets and adaptive retry: how much of what is granted may be retries, and when."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core.attempt import stretch
from tenure.master.core.budget import WINDOW_MS, RetryBudget
from tenure.master.core.command import CancelJobs
from tenure.master.core.event import JobsBoosted, JobsReadied
from tenure.master.core.record import JobFault, Policy, RetryPolicy
from tenure.master.core.settings import JobTypeSettings
from tenure.master.core.window import BUCKETS
from tenure.protocol.vocabulary import Backoff, Jitter, JobState
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import Rig

KEY = ("default", "job")
ERROR = JobFault("app.Boom", "no")
#: The window knows eleven twelfths of its span at least.
KNOWN_MS: Final = WINDOW_MS - WINDOW_MS // BUCKETS


def retrying(base_ms: int = 1_000, cap_ms: int = 3_600_000) -> Policy:
    """Jobs that are tried again and again, so long after a failure."""
    return Policy(
        name="job",
        retry=RetryPolicy(
            backoff=Backoff.FIXED,
            jitter=Jitter.NONE,
            base_ms=base_ms,
            cap_ms=cap_ms,
            max_attempts=1_000,
        ),
    )


@given(
    share=st.sampled_from([0.05, 0.1, 0.25, 0.5, 0.9]),
    steps=st.lists(
        st.tuples(st.integers(0, 12), st.floats(0, 1), st.integers(0, 20_000)),
        min_size=1,
        max_size=25,
    ),
)
def test_retries_keep_to_their_share(share: float, steps: list[tuple[int, float, int]]) -> None:
    """In no window more retries become ready than the share of its grants, but always one."""
    rig = Rig(audited=False)
    rig.configure(KEY, JobTypeSettings(retry_budget=share))
    rig.open_session(1, slots=1_000)
    grants: list[int] = []
    retries: list[int] = []
    seen = 0
    for jobs, failing, wait_ms in steps:
        if jobs:
            rig.submit(jobs, retrying())
        rows = rig.grant(1, 1_000)
        grants += [rig.now_ms] * len(rows)
        failures = round(failing * len(rows))
        for index, row in enumerate(rows):
            if index < failures:
                rig.fail(row, ERROR)
            else:
                rig.report(row)
        rig.pass_time(wait_ms)
        rig.renew(1, 999)
        events = rig.events()
        for event in events[seen:]:
            if isinstance(event, JobsReadied):
                retries += [event.now_ms] * len(event.job_ids)
            elif isinstance(event, JobsBoosted):
                ready = [row for row in event.rows if row.state is JobState.PENDING]
                retries += [event.now_ms] * len(ready)
        seen = len(events)
        _judge(share, grants, retries)


def _judge(share: float, grants: list[int], retries: list[int]) -> None:
    """Each retry, when it became ready, was within the share of the grants of its last minute."""
    for index, at_ms in enumerate(retries):
        since_ms = at_ms - KNOWN_MS
        recent = sum(since_ms < retry_ms for retry_ms in retries[: index + 1])
        most = sum(at_ms - WINDOW_MS <= grant_ms <= at_ms for grant_ms in grants)
        assert recent <= max(1, int(share * most)), (recent, most)


def test_a_storm_of_retries_is_put_off_once() -> None:
    """A thousand retries at once: each is journaled once, in a row of places in time."""
    rig = Rig(audited=False)
    rig.configure(KEY, JobTypeSettings(retry_budget=0.1))
    rig.open_session(1, slots=2_000)
    rig.submit(1_000, retrying())
    for row in rig.grant(1, 1_000):
        rig.fail(row, ERROR)
    rig.pass_time(1_000)
    ready = rig.partition.counts()[JobState.PENDING]
    assert ready == 100
    put_off = [event for event in rig.events() if isinstance(event, JobsBoosted)]
    rows = [row for event in put_off for row in event.rows]
    assert len(rows) == 900
    assert len({row.job_id for row in rows}) == 900
    assert sorted(row.ready_ms for row in rows) == [
        rig.now_ms + 600 * number for number in range(1, 901)
    ]


def storm(rig: Rig, share: float, jobs: int) -> list[int]:
    """So many jobs have failed together, and their backoff is over; the places of those put off."""
    rig.configure(KEY, JobTypeSettings(retry_budget=share))
    rig.open_session(1, slots=jobs)
    rig.submit(jobs, retrying())
    for row in rig.grant(1, jobs):
        rig.fail(row, ERROR)
    rig.pass_time(1_000)
    return places(rig)


def places(rig: Rig) -> list[int]:
    """When those are due that are put off."""
    jobs = state_of(rig.partition).jobs.values()
    return sorted(job.ready_ms for job in jobs if job.state is JobState.RETRYING)


def test_what_was_put_off_comes_when_the_budget_is_lifted() -> None:
    """At once, as if it had become ready now, each once, some in each turn."""
    rig = Rig()
    assert len(storm(rig, 0.1, 50)) == 45
    rig.pass_time(300)
    rig.configure(KEY, JobTypeSettings())
    assert rig.partition.next_timer_ms() == rig.now_ms
    seen = len(rig.events())
    turns = 0
    while places(rig):
        rig.fire(rows_max=10)
        turns += 1
    assert turns == 5
    rows = [row for event in rig.events()[seen:] for row in event.rows]  # type: ignore[union-attr]
    assert len({row.job_id for row in rows}) == len(rows) == 45
    assert {(row.state, row.ready_ms) for row in rows} == {(JobState.PENDING, rig.now_ms)}
    assert rig.partition.next_timer_ms() is None or rig.partition.next_timer_ms() != rig.now_ms
    assert rig.replayed().state_hash() == rig.partition.state_hash()


def test_what_was_put_off_comes_earlier_when_the_budget_is_raised() -> None:
    """As many as it lets through now at once, the others to places that are nearer."""
    rig = Rig()
    assert len(storm(rig, 0.1, 100)) == 90
    rig.configure(KEY, JobTypeSettings(retry_budget=0.5))
    rig.pass_time(0)
    step_ms = WINDOW_MS // 50
    assert places(rig) == [rig.now_ms + step_ms * number for number in range(1, 51)]
    before = places(rig)
    rig.configure(KEY, JobTypeSettings(retry_budget=0.2))
    rig.pass_time(0)
    assert places(rig) == before


def test_a_successor_goes_on_with_what_was_put_off() -> None:
    """The leader that heard of the new budget was gone before it had looked at all of them."""
    rig = Rig()
    assert len(storm(rig, 0.1, 50)) == 45
    rig.configure(KEY, JobTypeSettings())
    rig.fire(rows_max=10)
    assert len(places(rig)) == 35
    rig.crash(window_ms=0)
    rig.pass_time(0)
    assert places(rig) == []


def last_given_ms(rig: Rig) -> int:
    """The last place in time that the budget has given away."""
    budget = state_of(rig.partition).lanes.job_type(*KEY).budget
    assert budget is not None
    return budget.begin(rig.now_ms, waits=True).last_ms


def test_who_is_put_off_after_a_failover_stands_behind_those_that_wait() -> None:
    """A successor, who knows of no grant yet, leaves them where they are, and counts no more."""
    rig = Rig(audited=False)
    before = storm(rig, 0.5, 200)
    last_ms = rig.now_ms + WINDOW_MS
    assert (len(before), before[-1]) == (100, last_ms)
    rig.crash(window_ms=0)
    rig.pass_time(0)
    assert places(rig) == before[1:]
    assert last_given_ms(rig) == last_ms
    # The next one that is put off, while nothing is granted that would let more through.
    rig.open_session(2)
    (row,) = rig.grant(2, 1)
    rig.fail(row, ERROR, session_id=2)
    rig.pass_time(1_000)
    assert places(rig)[-1] <= last_ms + 3 * WINDOW_MS
    assert last_given_ms(rig) == places(rig)[-1]


def test_a_budget_that_is_raised_in_a_quiet_time_pushes_no_place_away() -> None:
    """All keep their places, or have earlier ones; the next one comes after the last of them."""
    rig = Rig(audited=False)
    assert len(storm(rig, 0.1, 1_000)) == 900
    rig.pass_time(2 * WINDOW_MS)
    before = {job.job_id: job.ready_ms for job in state_of(rig.partition).jobs.values()}
    last_ms = places(rig)[-1]
    rig.configure(KEY, JobTypeSettings(retry_budget=0.2))
    rig.pass_time(0)
    after = state_of(rig.partition).jobs
    assert all(after[job_id].ready_ms <= place_ms for job_id, place_ms in before.items())
    assert last_given_ms(rig) == places(rig)[-1] <= last_ms


@pytest.mark.parametrize("dies", [True, False])
def test_places_come_nearer_as_traffic_returns(dies: bool) -> None:
    """A storm that met an empty window (a new leader, or a quiet minute) is put off for hours only
    until jobs are granted again: then its places are as near as the budget says, within a factor of
    two, and none of it is written more often than the budget doubles.
    """
    rig = Rig(audited=False)
    rig.configure(KEY, JobTypeSettings(retry_budget=0.1))
    rig.open_session(1, slots=601)
    rig.submit(601, retrying(base_ms=70_000))
    for row in rig.grant(1, 601):
        rig.fail(row, ERROR)
    if dies:
        rig.crash(window_ms=0)
    rig.pass_time(70_000)
    assert places(rig)[-1] == rig.now_ms + 600 * WINDOW_MS
    rig.open_session(2, slots=100)
    seen = len(rig.events())
    for _ in range(60):
        rig.submit(17)
        for row in rig.grant(2, 100):
            rig.report(row, session_id=2)
        rig.renew(2, 1_000)
        rig.pass_time(1_000)
    left = places(rig)
    assert left[-1] <= rig.now_ms + len(left) * WINDOW_MS // 50
    assert last_given_ms(rig) == left[-1]
    moved = [row for e in rig.events()[seen:] if isinstance(e, JobsBoosted) for row in e.rows]
    assert len(moved) <= 7 * 600


def test_what_was_put_off_comes_with_the_grants_that_let_it() -> None:
    """When the window lets twice as many through, all that waits is looked at again at once."""
    rig = Rig()
    storm(rig, 0.5, 4)
    assert len(places(rig)) == 2
    rig.submit(4)
    assert len(rig.grant(1, 10)) == 6
    rig.pass_time(0)
    assert places(rig) == []


def test_places_that_nobody_waits_for_any_more_keep_nobody_away() -> None:
    """When all that was put off has been cancelled, the next one has the next place from now."""
    rig = Rig()
    storm(rig, 0.1, 100)
    waiting = [j.job_id for j in state_of(rig.partition).jobs.values() if j.over_budget]
    assert len(waiting) == 90
    rig.do(CancelJobs(job_ids=waiting))
    for row in rig.grant(1, 100):
        rig.fail(row, ERROR)
    rig.pass_time(1_000)
    assert places(rig)[0] == rig.now_ms - (-WINDOW_MS // 11)


def test_a_lone_job_is_tried_again() -> None:
    """One retry in a window may always be made."""
    rig = Rig()
    rig.configure(KEY, JobTypeSettings(retry_budget=0.01))
    rig.open_session(1)
    job_id = rig.submit_one(retrying())
    for _ in range(3):
        row = rig.grant_one()
        rig.fail(row, ERROR)
        rig.pass_time(WINDOW_MS + 1_000)
        rig.renew(1, 99)
        assert rig.state(job_id) is JobState.PENDING


def test_budgets_hold_from_a_terms_first_retry_on() -> None:
    """A successor knows of no grant yet: it lets one retry through, not all that fall due."""
    rig = Rig(audited=False)
    rig.configure(KEY, JobTypeSettings(retry_budget=0.5))
    rig.open_session(1, slots=100)
    rig.submit(50, retrying())
    for row in rig.grant(1, 50):
        rig.fail(row, ERROR)
    rig.crash(window_ms=0)
    rig.pass_time(1_000)
    assert rig.partition.counts()[JobState.PENDING] == 1


def test_places_are_as_far_apart_as_the_budget_says() -> None:
    """What is put off stands behind what was put off before."""
    budget = RetryBudget(0.5)
    budget.granted(12, 1_000_000)
    first = budget.begin(1_000_000, waits=False)
    assert [first.place_ms() for _ in range(8)] == [None] * 6 + [1_010_000, 1_020_000]
    budget.retried(6, 1_000_000)
    budget.put_off(first.last_ms, 1_000_000)
    assert budget.begin(1_000_001, waits=True).place_ms() == 1_030_000
    assert budget.begin(1_000_000 + 2 * WINDOW_MS, waits=True).place_ms() is None


def test_a_place_that_is_kept_takes_no_other() -> None:
    """Who has an earlier place than the next one stays there; who has a later one moves up."""
    budget = RetryBudget(0.5).begin(1_000_000, waits=False)
    assert budget.place_ms(1_000_600) is None
    assert [budget.place_ms(own_ms) for own_ms in (1_001_200, 1_000_900)] == [1_001_200, 1_000_900]
    assert budget.last_ms == 1_001_200
    assert budget.place_ms(9_000_000) == budget.last_ms == 1_001_200 + WINDOW_MS
    assert budget.place_ms() == 1_001_200 + 2 * WINDOW_MS


def test_a_new_budget_has_given_nothing_away() -> None:
    """One retry may be made; the places behind it begin now, and no grant brings one nearer."""
    budget = RetryBudget(0.5)
    assert not budget.granted(1, 0)
    for _ in range(2):
        found = budget.begin(0, waits=True)
        assert found.last_ms == 0
        assert [found.place_ms() for _ in range(3)] == [None, WINDOW_MS, 2 * WINDOW_MS]
        budget.change(0.25)


def test_retries_that_were_made_take_the_room() -> None:
    """Of the same window only."""
    budget = RetryBudget(0.5)
    budget.granted(8, 1_000_000)
    budget.retried(3, 1_000_000)
    found = budget.begin(1_000_000, waits=False)
    assert [found.place_ms() for _ in range(3)] == [None, 1_015_000, 1_030_000]
    budget.granted(2, 1_000_000 + WINDOW_MS)
    found = budget.begin(1_000_000 + WINDOW_MS, waits=False)
    assert found.place_ms() is None


def test_a_place_waits_only_as_long_as_a_retry_does() -> None:
    """Without any that waits the next place is one step from now, whatever was given away."""
    budget = RetryBudget(0.5)
    budget.granted(12, 1_000_000)
    budget.retried(6, 1_000_000)
    budget.put_off(1_040_000, 1_000_000)
    assert budget.begin(1_000_000, waits=True).place_ms() == 1_050_000
    assert budget.begin(1_000_000, waits=False).place_ms() == 1_010_000
    assert budget.begin(1_045_000, waits=True).place_ms() == 1_055_000
    budget.change(0.25)
    assert budget.begin(1_000_000, waits=True).place_ms() == 1_000_000 + WINDOW_MS // 3


def test_places_come_nearer_with_the_grant_that_doubles_the_budget() -> None:
    """Not one earlier and not one later; and only while retries wait for places that are far."""
    budget = RetryBudget(0.5)
    budget.granted(10, 0)
    budget.put_off(60_000, 0)
    assert [budget.granted(1, 0) for _ in range(10)] == [False] * 9 + [True]
    # They are looked at again: nothing waits any more, as far as this knows.
    assert budget.begin(0, waits=True).last_ms == 0
    assert not budget.granted(100, 0)
    budget.put_off(50_000, 0)
    assert not budget.granted(1_000, 50_000)
    assert budget.granted(1_000, 49_999)


def test_the_farthest_places_say_when_they_are_too_far() -> None:
    """Those of the time when the fewest were given away, as long as any of those wait."""
    budget = RetryBudget(0.5)
    budget.granted(10, 0)
    budget.put_off(60_000, 0)
    assert not budget.granted(8, 0)
    budget.put_off(30_000, 0)
    # Until the farther ones are over.
    assert [budget.granted(1, 30_000) for _ in range(2)] == [False, True]
    budget.put_off(40_000, 0)
    assert not budget.granted(10, 0)
    budget.put_off(50_000, 40_000)
    assert [budget.granted(5, 40_000) for _ in range(6)] == [False] * 5 + [True]


@given(
    failed=st.integers(0, 10),
    succeeded=st.integers(0, 10),
    running=st.integers(0, 20),
    base_ms=st.integers(0, 60_000),
    cap_ms=st.integers(60_000, 200_000),
)
def test_backoffs_are_stretched_by_failures_and_by_load(
    failed: int, succeeded: int, running: int, base_ms: int, cap_ms: int
) -> None:
    """As the formula says: never shorter, never above the cap, and journaled as a time."""
    rig = Rig(audited=False)
    rig.configure(KEY, JobTypeSettings(adaptive_retry=True))
    rig.open_session(1, slots=40)
    policy = retrying(base_ms, cap_ms)
    rig.submit(failed + succeeded, Policy(name="job", retry=RetryPolicy(max_attempts=1)))
    for index, row in enumerate(rig.grant(1, 40)):
        if index < failed:
            rig.fail(row, ERROR)
        else:
            rig.report(row)
    rig.submit(running + 1, policy)
    rows = rig.grant(1, running + 1)
    record = rig.record(rows[0].job_id)
    ended = failed + succeeded
    failing = failed / ended if ended else 0.0
    times = (1 + 3 * failing) * (1 + (running + 1) / 40)
    assert stretch(state_of(rig.partition), record, rig.now_ms) == times
    assert 1.0 <= times <= 8.0
    rig.fail(rows[0], ERROR)
    delay_ms = record.ready_ms - rig.now_ms
    assert delay_ms == max(min(int(base_ms * times), cap_ms), base_ms)
    if delay_ms:
        assert rig.state(rows[0].job_id) is JobState.RETRYING
        rig.crash(window_ms=0)
        assert rig.record(rows[0].job_id).ready_ms == record.ready_ms


def test_what_the_job_asked_for_is_not_stretched() -> None:
    """A retry-after is the job's own word; and without the setting nothing is stretched."""
    rig = Rig()
    rig.open_session(1)
    rig.submit(2, retrying(1_000))
    plain = rig.grant_one()
    rig.fail(plain, ERROR)
    assert rig.record(plain.job_id).ready_ms == rig.now_ms + 1_000
    rig.configure(KEY, JobTypeSettings(adaptive_retry=True))
    asked = rig.grant_one()
    rig.fail(asked, JobFault("app.Boom", "no", retry_after_ms=700))
    assert rig.record(asked.job_id).ready_ms == rig.now_ms + 700
