"""Limits: how many may run at once, and how many may begin in a time, per queue and per key."""

from collections import Counter
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tenure.master.core.command import CancelJobs, CloseSession, LeaseRow, PurgeJobs
from tenure.master.core.effect import SendAssignment, SendCancels
from tenure.master.core.limit import REASON
from tenure.master.core.record import Policy
from tenure.master.core.settings import QueueSettings, RateLimit
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import AttemptOutcome, JobState, LimitStrategy
from tests.unit.master.core.audit import audit, state_of
from tests.unit.master.core.crowd import BACKOFF_MS, TOUGH, Key
from tests.unit.master.core.rates import Tokens
from tests.unit.master.core.rig import CONFIG, Rig, held, leases_of, of_type

MAIL = ("default", "mail")
JOB = Policy(name="job", queue="mail")


def limited(**fields: object) -> Rig:
    """A partition whose queue has limits, and a worker with slots for all."""
    rig = Rig()
    rig.configure(MAIL, QueueSettings(**fields))  # type: ignore[arg-type]
    rig.open_session(1, slots=1_000)
    return rig


class Site:
    """A queue with limits, its workers, and all that may befall them."""

    def __init__(self, concurrency: int, key_concurrency: int) -> None:
        self.rig = Rig(audited=False)
        self.concurrency, self.key_concurrency = concurrency, key_concurrency
        self.rig.configure(
            MAIL, QueueSettings(concurrency=concurrency, key_concurrency=key_concurrency)
        )
        #: Who is there, and what they hold.
        self.workers: dict[int, list[LeaseRow]] = {}
        #: What those hold who have left.
        self.lost: list[LeaseRow] = []
        self._came = 0
        self.come()

    def come(self) -> None:
        """A worker comes."""
        self._came += 1
        self.rig.open_session(self._came, slots=1_000)
        self.workers[self._came] = []

    def leave(self, session_id: int) -> None:
        """A worker dies; nobody knows it yet."""
        self.rig.do(CloseSession(session_id=session_id))
        self.lost += self.workers.pop(session_id)

    def wait(self) -> None:
        """As long as a silent worker's leases live; the others are heard of."""
        self.rig.now_ms += 17_000
        for session_id, rows in self.workers.items():
            self.rig.renew(session_id, 1_000_000, *map(held, rows))
        settle(self.rig)

    def fail_over(self, *, claimed: bool) -> None:
        """The leader dies; its workers come to the next one with what they hold, or not at all.

        What nobody claims goes on counting: its worker may be alive.
        """
        rig = self.rig
        rig.crash(window_ms=3_000)
        if not claimed:
            self.lost += [row for rows in self.workers.values() for row in rows]
            self.workers = {}
            self.come()
        for session_id, rows in self.workers.items():
            rig.open_session(session_id, slots=1_000, declare=[held(row) for row in rows])
        rig.now_ms += 3_000
        rig.close_window()

    def grant(self) -> None:
        """All who are there take as much as they can."""
        decision = self.rig.dispatch(*((session_id, 1_000) for session_id in self.workers))
        for effect in of_type(decision.effects, SendAssignment):
            self.workers[effect.session_id] += leases_of([effect])
            number = state_of(self.rig.partition).sessions[effect.session_id].assignment
            self.rig.accept(effect.session_id, number)

    def end(self, what: str, number: int) -> None:
        """Somebody ends a job: a worker that is there, or one that was thought dead."""
        owners = [(row, sid) for sid, rows in self.workers.items() for row in rows]
        owners += [(row, next(iter(self.workers), 0)) for row in self.lost]
        if not owners:
            return
        row, session_id = owners[number % len(owners)]
        (self.lost if row in self.lost else self.workers[session_id]).remove(row)
        match what:
            case "finish":
                self.rig.report(row, session_id=session_id)
            case "fail":
                self.rig.fail(row, session_id=session_id)
            case "give back":
                self.rig.give_back(row, session_id=session_id)

    def judge(self, *, granted: bool) -> None:
        """Never more run than may; and after a dispatch as many as may, if there are."""
        running = Counter[str]()
        jobs = state_of(self.rig.partition).jobs.values()
        running.update(r.limit_key for r in jobs if r.state is JobState.RUNNING)
        assert not self.concurrency or running.total() <= self.concurrency
        if self.key_concurrency:
            assert all(count <= self.key_concurrency for key, count in running.items() if key)
        if not granted or running.total() == self.concurrency > 0:
            return
        for record in jobs:
            if record.state is JobState.PENDING:
                assert record.limit_key
                assert running[record.limit_key] == self.key_concurrency > 0


def settle(rig: Rig) -> None:
    """Does all that is due by now."""
    while (due_ms := rig.partition.next_timer_ms()) is not None and due_ms <= rig.now_ms:
        rig.fire()


@given(
    concurrency=st.integers(0, 4),
    key_concurrency=st.integers(0, 3),
    steps=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    *["submit", "submit", "submit", "grant", "grant", "finish", "fail"],
                    *["give back", "come", "leave", "wait", "fail over"],
                ]
            ),
            st.sampled_from(["", "a", "b", "c"]),
            st.integers(1, 5),
        ),
        min_size=10,
        max_size=40,
    ),
)
def test_limits_are_never_exceeded_nor_under_used(
    concurrency: int, key_concurrency: int, steps: list[tuple[str, str, int]]
) -> None:
    """S17: never more run than may, per queue and per key; and as many as may, if there are.

    Whoever dies meanwhile, workers or leaders, and whatever comes back late.
    """
    site = Site(concurrency, key_concurrency)
    for what, key, count in steps:
        site.rig.now_ms += 1
        match what:
            case "submit":
                site.rig.submit(count, JOB, limit_key=key)
            case "grant":
                site.grant()
            case "come":
                site.come()
            case "leave" if site.workers:
                site.leave(list(site.workers)[count % len(site.workers)])
            case "wait":
                site.wait()
            case "fail over":
                site.fail_over(claimed=count > 1)
            case _:
                site.end(what, count)
        settle(site.rig)
        site.judge(granted=what == "grant" and bool(site.workers))
    audit(site.rig.partition)


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

RATES: Final = st.none() | st.builds(
    RateLimit, st.integers(1, 5), st.integers(200, 2_000), st.integers(1, 4)
)


class Meter:
    """What a queue with rates lets through, by a reference in fractions of tokens."""

    def __init__(self, rate: RateLimit | None, key_rate: RateLimit | None, now_ms: int) -> None:
        self._rates = rate, key_rate
        self.waiting: dict[JobId, str] = {}
        self.begin(now_ms)

    def begin(self, now_ms: int) -> None:
        """A term begins: with empty buckets."""
        self._queue, self._began_ms = Tokens(self._rates[0], now_ms), now_ms
        self._keys: dict[str, Tokens] = {}

    def take(self, now_ms: int) -> list[JobId]:
        """Who is granted now, in their order."""
        self._queue.pass_to(now_ms)
        granted = []
        for job_id, key in self.waiting.items():
            tokens = [self._queue]
            if key:
                tokens.append(self._keys.setdefault(key, Tokens(self._rates[1], self._began_ms)))
                tokens[1].pass_to(now_ms)
            if all(bucket.has_one() for bucket in tokens):
                granted.append(job_id)
                for bucket in tokens:
                    bucket.take()
        for job_id in granted:
            del self.waiting[job_id]
        return granted


@given(
    rate=RATES,
    key_rate=RATES,
    steps=st.lists(
        st.tuples(
            st.sampled_from(["submit", "submit", "", "", "cancel", "purge", "other", "fail over"]),
            st.sampled_from(["", "a", "b"]),
            st.integers(1, 5),
            st.integers(0, 1_500),
        ),
        min_size=10,
        max_size=30,
    ),
)
def test_rates_are_those_of_the_reference(
    rate: RateLimit | None, key_rate: RateLimit | None, steps: list[tuple[str, str, int, int]]
) -> None:
    """Whenever jobs come and workers ask, exactly those are granted that have their tokens.

    Also when all that was ever in the queue is gone, and in the terms of other leaders.
    """
    rig = Rig(replace(CONFIG, lease_ttl_ms=1 << 40), audited=False)
    rig.configure(MAIL, QueueSettings(rate=rate, key_rate=key_rate))
    rig.open_session(1, slots=1_000)
    meter = Meter(rate, key_rate, rig.now_ms)
    for what, key, count, pause_ms in steps:
        rig.now_ms += pause_ms
        settle(rig)
        match what:
            case "submit":
                meter.waiting |= dict.fromkeys(rig.submit(count, JOB, limit_key=key), key)
            case "cancel":
                rig.do(CancelJobs(job_ids=list(meter.waiting)[:count]))
                for job_id in list(meter.waiting)[:count]:
                    del meter.waiting[job_id]
            case "purge":
                rig.do(PurgeJobs(job_ids=list(state_of(rig.partition).jobs)))
            case "other":
                rig.configure(("default", "other"), QueueSettings(weight=count))
            case "fail over":
                rig.crash(window_ms=0)
                meter.begin(rig.now_ms)
                rig.open_session(1, slots=1_000)
        rows = rig.grant(1, 1_000)
        assert [row.job_id for row in rows] == meter.take(rig.now_ms)
        for row in rows:
            rig.report(row)
        rig.accept(1, 1_000_000)


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


@given(rate=RATES.filter(bool), wait_ms=st.integers(0, 2_000), keyed=st.booleans())
def test_tokens_are_used_the_millisecond_they_are_there(
    rate: RateLimit, wait_ms: int, keyed: bool
) -> None:
    """The partition says when to look, and then there is one: none is late, none comes before."""
    rig = Rig(audited=False)
    rates = QueueSettings(key_rate=rate) if keyed else QueueSettings(rate=rate)
    rig.configure(MAIL, rates)
    rig.open_session(1, slots=1_000)
    tokens = Tokens(rate, rig.now_ms)
    rig.submit(20, JOB, limit_key="k")
    rig.now_ms += wait_ms
    begin_ms, expected = rig.now_ms, []
    for ms in range(501):
        tokens.pass_to(begin_ms + ms)
        while tokens.has_one():
            tokens.take()
            expected.append(ms)
    assert _granted_at(rig, 500) == expected


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


@pytest.mark.parametrize("rates", ["rate", "key_rate"])
def test_a_queue_whose_jobs_are_gone_has_no_new_tokens(rates: str) -> None:
    """Purging all that was granted gives no token back."""
    rig = limited(**{rates: RateLimit(1, 60_000, 1)})
    rig.pass_time(60_000)
    rig.renew(1, 0)
    rig.submit(1, JOB, limit_key="k")
    row = rig.grant_one()
    rig.report(row)
    rig.do(PurgeJobs(job_ids=[row.job_id]))
    rig.submit(1, JOB, limit_key="k")
    assert not rig.grant(1, 9)


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
def test_a_retry_does_not_put_an_end_to_a_newer_job(strategy: LimitStrategy) -> None:
    """It came first: it waits for its place, or is the one that goes."""
    rig = limited(key_concurrency=1, key_strategy=strategy)
    old = rig.submit_one(TOUGH, limit_key="k")
    rig.fail(rig.grant_one())
    new = rig.submit_one(TOUGH, limit_key="k")
    row = rig.grant_one()
    rig.accept(1, 1_000_000)
    rig.pass_time(BACKOFF_MS)
    assert (rig.state(new), rig.record(new).cancel_requested) == (JobState.RUNNING, False)
    if strategy is LimitStrategy.CANCEL_IN_PROGRESS:
        assert rig.state(old) is JobState.CANCELLED
        return
    assert rig.state(old) is JobState.PENDING
    rig.report(row)
    assert rig.grant_one().job_id == old


# What one decision made ready was not looked at again after it.
@example(strategy=LimitStrategy.CANCEL_IN_PROGRESS, limit=1, steps=[("delay", 1), ("submit", 1)])
@given(
    strategy=st.sampled_from(LimitStrategy),
    limit=st.integers(1, 3),
    steps=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    *["submit", "submit", "delay", "grant", "grant"],
                    *["finish", "stop", "fail", "fail", "give back"],
                ]
            ),
            st.integers(1, 4),
        ),
        min_size=10,
        max_size=30,
    ),
)
def test_strategies_are_those_of_the_reference(
    strategy: LimitStrategy, limit: int, steps: list[tuple[str, int]]
) -> None:
    """Of the jobs of a key exactly those run, wait or are cancelled that should."""
    rig = Rig(replace(CONFIG, lease_ttl_ms=1 << 40), audited=False)
    rig.configure(MAIL, QueueSettings(key_concurrency=limit, key_strategy=strategy))
    rig.open_session(1, slots=1_000)
    key = Key(strategy, limit)
    for what, number in steps:
        rig.now_ms += 1
        match what:
            case "submit" | "delay":
                delay_ms = 0 if what == "submit" else number
                for job_id in rig.submit(number, TOUGH, limit_key="k", delay_ms=delay_ms):
                    key.states[job_id] = JobState.SCHEDULED if delay_ms else JobState.PENDING
                    key.ready_ms[job_id] = rig.now_ms + delay_ms
            case "grant":
                rows = {row.job_id: row for row in rig.grant(1, 1_000)}
                assert list(rows) == key.grant()
                key.running |= rows
                rig.accept(1, 1_000_000)
            case _ if key.running:
                job_id = list(key.running)[number % len(key.running)]
                stops = what == "stop" and job_id in key.stopping
                row = key.end(job_id, what, rig.now_ms)
                if what == "fail":
                    rig.fail(row)
                elif what == "give back":
                    rig.give_back(row)
                else:
                    outcome = AttemptOutcome.CANCELLED if stops else AttemptOutcome.COMPLETED
                    rig.report(row, outcome)
        settle(rig)
        key.pass_to(rig.now_ms)
        for job_id, state in key.states.items():
            assert rig.state(job_id) is state
        for job_id in key.running:
            assert rig.record(job_id).cancel_requested is (job_id in key.stopping)


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
