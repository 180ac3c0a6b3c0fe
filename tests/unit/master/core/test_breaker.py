"""Circuit breakers: against an automaton that remembers everything, and what they hold up."""

from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core import lanes
from tenure.master.core.breaker import Breaker
from tenure.master.core.command import LeaseRow, PurgeJobs
from tenure.master.core.query import JobTypeStatus, KeyBreakerStatus
from tenure.master.core.record import JobFault, Policy, RetryPolicy
from tenure.master.core.settings import (
    BreakerSettings,
    JobTypeSettings,
    KeyOverride,
    QueueSettings,
    RateLimit,
)
from tenure.master.core.window import BUCKETS
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import (
    AttemptOutcome,
    Backoff,
    BreakerOverride,
    BreakerState,
    JobState,
)
from tests.unit.master.core.audit import audit, state_of
from tests.unit.master.core.fairness import Round
from tests.unit.master.core.rig import Rig

QUICK = Policy(name="job", retry=RetryPolicy(backoff=Backoff.NONE, max_attempts=99))
ONCE = Policy(name="job", retry=RetryPolicy(max_attempts=1))
TYPE = ("default", "job")
QUEUE = ("default", "default")
BREAKER = BreakerSettings(
    failure_rate=0.5, volume_min=4, window_ms=60_000, open_for_ms=10_000, probes=2
)


@dataclass
class Reference:
    """The automaton in the plainest way: all that ever happened is kept, and counted anew."""

    settings: BreakerSettings
    state: BreakerState = BreakerState.CLOSED
    #: (when, whether it failed), since it closed.
    attempts: list[tuple[int, bool]] = field(default_factory=list)
    opened_ms: int = 0
    #: In this half-open time: who was granted, and how it ended; None: not yet.
    probes: dict[str, bool | None] = field(default_factory=dict)

    def room(self) -> int | None:
        """What it lets through."""
        if self.state is BreakerState.HALF_OPEN:
            return self.settings.probes - len(self.probes)
        return None if self.state is BreakerState.CLOSED else 0

    def pass_to(self, now_ms: int) -> None:
        """Time passes."""
        if self.state is BreakerState.OPEN and now_ms >= self.opened_ms + self.settings.open_for_ms:
            self.state, self.probes = BreakerState.HALF_OPEN, {}

    def grant(self, job: str) -> None:
        """A job is granted."""
        if self.state is BreakerState.HALF_OPEN:
            self.probes[job] = None

    def end(self, job: str, failed: bool | None, now_ms: int) -> None:
        """An attempt ends; None: it came to nothing."""
        if failed is None:
            self.probes.pop(job, None)
            return
        self.attempts.append((now_ms, failed))
        if self.state is BreakerState.HALF_OPEN and job in self.probes:
            self.probes[job] = failed
            if failed:
                self._open(now_ms)
            elif list(self.probes.values()).count(False) == self.settings.probes:
                self.state, self.attempts, self.probes = BreakerState.CLOSED, [], {}
        elif self.state is BreakerState.CLOSED and failed:
            recent = self.recent(now_ms)
            if len(recent) >= self.settings.volume_min and (
                sum(recent) >= self.settings.failure_rate * len(recent)
            ):
                self._open(now_ms)

    def _open(self, now_ms: int) -> None:
        self.state, self.opened_ms, self.probes = BreakerState.OPEN, now_ms, {}

    def recent(self, now_ms: int) -> list[bool]:
        """What the window knows."""
        width = -(-self.settings.window_ms // BUCKETS)
        oldest = now_ms // width - BUCKETS
        return [failed for at_ms, failed in self.attempts if at_ms // width > oldest]


@given(
    tuned=st.builds(
        BreakerSettings,
        failure_rate=st.sampled_from([0.01, 0.5, 0.9, 1.0]),
        window_ms=st.integers(1, 20_000),
        volume_min=st.integers(1, 6),
        open_for_ms=st.integers(1, 5_000),
        probes=st.integers(1, 4),
    ),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("pass"), st.integers(0, 4_000)),
            st.tuples(st.just("grant"), st.just(0)),
            st.tuples(st.sampled_from(["succeed", "fail", "fail", "drop"]), st.integers(0, 9)),
        ),
        max_size=80,
    ),
)
def test_breaker_is_the_reference_automaton(
    tuned: BreakerSettings, steps: list[tuple[str, int]]
) -> None:
    """State, room, window and times are those of an automaton that keeps everything."""
    breaker, reference = Breaker(tuned), Reference(tuned)
    now_ms, granted = 1_000_000, 0
    running: list[JobId] = []
    for what, number in steps:
        if what == "pass":
            now_ms += number
            breaker.wake(now_ms)
            reference.pass_to(now_ms)
        elif what == "grant":
            if breaker.probes != 0:
                granted += 1
                running.append(JobId(f"job-{granted}"))
                breaker.granted(running[-1:])
                reference.grant(running[-1])
        elif running:
            job_id = running.pop(number % len(running))
            if what == "succeed":
                breaker.succeeded([job_id], now_ms)
            elif what == "fail":
                breaker.failed(job_id, now_ms)
            else:
                breaker.dropped(job_id)
            reference.end(job_id, {"succeed": False, "fail": True}.get(what), now_ms)
        recent = reference.recent(now_ms)
        assert breaker.state is reference.state
        assert breaker.probes == reference.room()
        assert breaker.failure_rate(now_ms) == (sum(recent) / len(recent) if recent else 0.0)
        until_ms = reference.opened_ms + tuned.open_for_ms
        is_open = reference.state is BreakerState.OPEN
        assert breaker.next_ms() == (until_ms if is_open else None)


def take(rig: Rig, jobs: int) -> list[LeaseRow]:
    """Grants up to so many; they arrive."""
    rows = rig.grant(1, jobs)
    rig.accept(1, 1_000)
    return rows


def failing(rig: Rig, jobs: int) -> None:
    """So many attempts fail."""
    for row in take(rig, jobs):
        rig.fail(row, JobFault("app.Boom", "no"))


class Fused:
    """A job type that has a breaker."""

    limit_key = ""

    def set(
        self,
        rig: Rig,
        breaker: BreakerSettings | None,
        override: BreakerOverride = BreakerOverride.NONE,
    ) -> None:
        """Gives it one, or takes it away."""
        settings = JobTypeSettings(breaker=breaker, breaker_override=override)
        rig.configure(TYPE, settings)

    def status(self, rig: Rig) -> JobTypeStatus:
        """How it does."""
        return rig.partition.job_type_status(*TYPE, rig.now_ms)

    def submit_other(self, rig: Rig) -> JobId:
        """A job of another one."""
        return rig.submit_one(Policy(name="other"))


class FusedKey(Fused):
    """A limit key that has one."""

    limit_key = "acme"

    def set(
        self,
        rig: Rig,
        breaker: BreakerSettings | None,
        override: BreakerOverride = BreakerOverride.NONE,
    ) -> None:
        overrides = (KeyOverride("acme", override),) if override is not BreakerOverride.NONE else ()
        settings = QueueSettings(key_breaker=breaker, key_breaker_overrides=overrides)
        rig.configure(QUEUE, settings)

    def status(self, rig: Rig) -> JobTypeStatus:
        key = state_of(rig.partition).lanes.queues[QUEUE].limit_keys["acme"]
        breaker = key.breaker
        assert breaker is not None
        found = JobTypeStatus(
            breaker.state, breaker.open_until_ms, breaker.failure_rate(rig.now_ms)
        )
        shown = rig.partition.queue_status(*QUEUE, rig.now_ms).key_breakers
        closed = found.breaker is BreakerState.CLOSED
        assert shown == (() if closed else (KeyBreakerStatus("acme", *found),))
        return found

    def submit_other(self, rig: Rig) -> JobId:
        return rig.submit_one(QUICK, limit_key="globex")


@pytest.fixture(params=[Fused(), FusedKey()], ids=["job type", "limit key"])
def fused(request: pytest.FixtureRequest) -> Fused:
    """What has a breaker."""
    found: Fused = request.param
    return found


def test_an_open_breaker_parks_jobs_and_burns_no_attempt(fused: Fused) -> None:
    """Its jobs wait, untouched, and others of the queue go on; then probes decide."""
    rig = Rig()
    fused.set(rig, BREAKER)
    rig.open_session(1, names=("job", "other"), slots=50)
    ids = rig.submit(6, QUICK, limit_key=fused.limit_key)
    failing(rig, 4)
    rig.pass_time(0)
    assert fused.status(rig) == JobTypeStatus(BreakerState.OPEN, rig.now_ms + 10_000, 1.0)
    other = fused.submit_other(rig)
    assert [row.job_id for row in take(rig, 50)] == [other]
    rig.pass_time(9_999)
    assert not take(rig, 50)
    assert sum(rig.record(job_id).attempts_charged for job_id in ids) == 4
    rig.pass_time(1)
    probes = take(rig, 50)
    assert len(probes) == BREAKER.probes
    assert fused.status(rig).breaker is BreakerState.HALF_OPEN
    for row in probes:
        assert not take(rig, 50)
        rig.report(row)
    assert fused.status(rig) == JobTypeStatus(BreakerState.CLOSED, 0, 0.0)
    assert len(take(rig, 50)) == 4


def test_a_probe_that_fails_opens_it_again(fused: Fused) -> None:
    """One failure is enough; what the other probe does is of no account any more."""
    rig = Rig()
    fused.set(rig, BREAKER)
    rig.open_session(1, slots=50)
    rig.submit(8, QUICK, limit_key=fused.limit_key)
    failing(rig, 4)
    rig.pass_time(10_000)
    first, second = take(rig, 50)
    rig.fail(first, JobFault("app.Boom", "no"))
    assert fused.status(rig).open_until_ms == rig.now_ms + 10_000
    rig.report(second)
    assert fused.status(rig).breaker is BreakerState.OPEN
    rig.renew(1, 1_000)
    rig.pass_time(10_000)
    assert len(take(rig, 50)) == BREAKER.probes


def test_a_probe_that_is_handed_back_leaves_its_place(fused: Fused) -> None:
    """What says nothing of the job type neither closes nor opens it."""
    rig = Rig()
    fused.set(rig, BREAKER)
    rig.open_session(1, slots=50)
    rig.submit(8, QUICK, limit_key=fused.limit_key)
    failing(rig, 4)
    rig.pass_time(10_000)
    for row in take(rig, 50):
        rig.give_back(row)
    assert len(take(rig, 50)) == BREAKER.probes
    assert fused.status(rig).breaker is BreakerState.HALF_OPEN


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        (AttemptOutcome.FAILED, True),
        (AttemptOutcome.FAILED_PERMANENT, True),
        (AttemptOutcome.TIMED_OUT, True),
        (AttemptOutcome.LOST, True),
        (AttemptOutcome.CANCELLED, False),
        (AttemptOutcome.RELEASED, False),
    ],
)
def test_what_counts_as_a_failure(fused: Fused, outcome: AttemptOutcome, counts: bool) -> None:
    """Errors, timeouts and lost workers do; what was cancelled or handed back does not."""
    rig = Rig()
    fused.set(rig, BREAKER)
    rig.open_session(1, slots=50)
    rig.submit(4, QUICK, limit_key=fused.limit_key)
    for row in take(rig, 4):
        rig.report(row, outcome)
    assert fused.status(rig).failure_rate == float(counts)
    assert (fused.status(rig).breaker is BreakerState.OPEN) is counts


def test_an_operator_has_the_last_word(fused: Fused) -> None:
    """OPEN holds with or without a breaker, CLOSED whatever fails; afterwards it begins anew."""
    rig = Rig()
    rig.open_session(1, slots=50)
    rig.submit(20, QUICK, limit_key=fused.limit_key)
    fused.set(rig, None, BreakerOverride.OPEN)
    assert fused.status(rig) == JobTypeStatus(BreakerState.OPEN, 0, 0.0)
    assert not take(rig, 50)
    rig.pass_time(3_600_000)
    rig.renew(1, 99)
    assert not take(rig, 50)
    fused.set(rig, BREAKER, BreakerOverride.CLOSED)
    failing(rig, 10)
    assert fused.status(rig) == JobTypeStatus(BreakerState.CLOSED, 0, 1.0)
    fused.set(rig, BREAKER)
    failing(rig, 3)
    assert fused.status(rig).breaker is BreakerState.CLOSED
    failing(rig, 1)
    assert fused.status(rig).breaker is BreakerState.OPEN


def test_the_judge_of_grants_knows_what_a_breaker_holds_up(fused: Fused) -> None:
    """It asks for no grant of jobs whose breaker is open, of whichever kind that is."""
    rig = Rig()
    rig.open_session(1, slots=50)
    rig.submit(2, QUICK, limit_key=fused.limit_key)
    fused.set(rig, BREAKER, BreakerOverride.OPEN)
    committed = rig.partition.next_seq - 1
    Round(state_of(rig.partition), [(1, 50)], committed, 50, rig.now_ms).judge([])
    fused.set(rig, BREAKER)
    committed = rig.partition.next_seq - 1
    with pytest.raises(AssertionError):
        Round(state_of(rig.partition), [(1, 50)], committed, 50, rig.now_ms).judge([])


def test_a_failover_forgets_what_failed_but_not_what_was_said(fused: Fused) -> None:
    """The automaton is a term's own; the override is journaled."""
    rig = Rig()
    fused.set(rig, BREAKER)
    rig.open_session(1, slots=50)
    rig.submit(8, QUICK, limit_key=fused.limit_key)
    failing(rig, 4)
    rig.crash(window_ms=0)
    rig.open_session(2, slots=50)
    rig.pass_time(0)
    assert fused.status(rig).breaker is BreakerState.CLOSED
    assert len(rig.grant(2, 2)) == 2
    fused.set(rig, BREAKER, BreakerOverride.OPEN)
    rig.crash(window_ms=0)
    rig.open_session(3, slots=50)
    assert not rig.grant(3, 50)
    assert rig.partition.counts()[JobState.PENDING] > 0


def test_a_key_is_not_forgotten_while_its_breaker_remembers() -> None:
    """Neither when nothing of it waits, nor when all that is known of its queue was purged."""
    rig = Rig()
    fused = FusedKey()
    fused.set(rig, BREAKER)
    rig.open_session(1, slots=50)
    tripping(rig, ["acme"])
    rig.submit(2, QUICK, limit_key="acme")
    assert not take(rig, 50)
    assert fused.status(rig).breaker is BreakerState.OPEN
    rig.pass_time(10_000)
    assert len(take(rig, 50)) == BREAKER.probes


def tripping(rig: Rig, keys: list[str]) -> None:
    """Of each of these limit keys so many jobs fail for good that its breaker opens; they go."""
    for limit_key in keys:
        jobs = rig.submit(4, ONCE, limit_key=limit_key)
        failing(rig, 4)
        rig.do(PurgeJobs(job_ids=jobs))


def test_keys_that_tripped_and_never_come_again_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their breakers are half open from then on, and would be for ever: no probe comes."""
    rig = Rig(audited=False)
    FusedKey().set(rig, BREAKER)
    rig.open_session(1, slots=50)
    tripping(rig, [f"k{number}" for number in range(30)])
    rig.pass_time(BREAKER.open_for_ms + BREAKER.window_ms)
    queue = state_of(rig.partition).lanes.queues[QUEUE]
    assert len(queue.tripped) == len(queue.limit_keys) == 30
    monkeypatch.setattr(lanes, "_EMPTY_MAX", 1)
    others = [f"other{number}" for number in range(15)]
    for limit_key in others:
        rig.submit(1, QUICK, limit_key=limit_key)
    assert (list(queue.tripped), list(queue.limit_keys)) == ([], others)
    audit(rig.partition)


def test_a_breaker_is_not_forgotten_while_it_waits_for_its_probes() -> None:
    """It is when nothing came for a window, however long it was open; not while one runs."""
    tuned = msgspec.structs.replace(BREAKER, window_ms=1_200, volume_min=1)
    breaker = Breaker(tuned)
    now_ms = 1_000_000
    assert breaker.is_idle(now_ms)
    breaker.failed(JobId("first"), now_ms)
    now_ms += tuned.open_for_ms
    assert not breaker.is_idle(now_ms)
    breaker.wake(now_ms)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.is_idle(now_ms + 1_199)
    assert breaker.is_idle(now_ms + 1_200)
    breaker.granted([JobId("probe")])
    now_ms += 60_000
    assert not breaker.is_idle(now_ms)
    breaker.succeeded([JobId("probe")], now_ms)
    assert not breaker.is_idle(now_ms)
    assert breaker.is_idle(now_ms + 1_200)


def test_keys_that_are_open_are_shown_before_those_that_may_try() -> None:
    """However many tripped before them."""
    rig = Rig(audited=False)
    FusedKey().set(rig, BREAKER)
    rig.open_session(1, slots=50)
    tripping(rig, [f"k{number}" for number in range(100)])
    rig.pass_time(BREAKER.open_for_ms)
    rig.renew(1, 1_000)
    tripping(rig, ["new", "newer"])
    shown = rig.partition.queue_status(*QUEUE, rig.now_ms).key_breakers
    assert len(shown) == 100
    assert [row.limit_key for row in shown[:3]] == ["new", "newer", "k0"]
    assert [row.breaker for row in shown[1:3]] == [BreakerState.OPEN, BreakerState.HALF_OPEN]


def test_a_key_may_be_held_up_by_its_limits_and_its_breaker() -> None:
    """It goes on when both let it; when one of them has its time the other one has its own."""
    rig = Rig()
    breaker = msgspec.structs.replace(BREAKER, probes=5)
    rate = RateLimit(4, 15_000, 4)
    rig.configure(QUEUE, QueueSettings(key_breaker=breaker, key_rate=rate, key_concurrency=50))
    rig.open_session(1, slots=50)
    rig.submit(20, QUICK, limit_key="acme")
    rig.pass_time(15_000)
    rig.renew(1, 1_000)
    failing(rig, 4)
    rig.pass_time(3_750)
    assert not take(rig, 50)
    rig.pass_time(6_250)
    assert len(take(rig, 50)) == 2
    rig.pass_time(1_250)
    assert len(take(rig, 50)) == 1


# By itself.


def test_what_ends_together_counts_one_by_one() -> None:
    """Also when a job's success closes it: those behind it are the first of the new window."""
    breaker = Breaker(BREAKER)
    ids = [JobId(f"job-{number}") for number in range(9)]
    breaker.succeeded(ids[:3], 1_000)
    for job_id in ids[3:5]:
        breaker.failed(job_id, 1_000)
    assert (breaker.failure_rate(1_000), breaker.state) == (0.4, BreakerState.CLOSED)
    breaker.succeeded(ids[:1], 1_000)
    breaker.failed(ids[5], 1_000)
    assert (breaker.failure_rate(1_000), breaker.state) == (3 / 7, BreakerState.CLOSED)
    breaker.failed(ids[6], 1_000)
    assert (breaker.failure_rate(1_000), breaker.state) == (0.5, BreakerState.OPEN)
    breaker.wake(11_000)
    breaker.granted(ids[:2])
    breaker.succeeded([ids[8], *ids[:2], ids[7]], 11_000)
    assert (breaker.state, breaker.probes) == (BreakerState.CLOSED, None)
    breaker.failed(ids[6], 11_000)
    assert breaker.failure_rate(11_000) == 0.5


def test_an_attempt_beside_the_probes_counts_and_decides_nothing() -> None:
    """What was granted before it opened neither closes it nor opens it again."""
    breaker = Breaker(msgspec.structs.replace(BREAKER, volume_min=1))
    old, failed, probe = (JobId(name) for name in ("old", "failed", "probe"))
    breaker.granted([old])
    breaker.failed(failed, 1_000)
    assert (breaker.next_ms(), breaker.probes) == (11_000, 0)
    breaker.granted([old])
    breaker.failed(old, 2_000)
    assert breaker.next_ms() == 11_000
    breaker.wake(10_999)
    assert breaker.state is BreakerState.OPEN
    breaker.wake(11_000)
    assert (breaker.state, breaker.open_until_ms, breaker.next_ms()) == (
        BreakerState.HALF_OPEN,
        0,
        None,
    )
    breaker.granted([probe])
    breaker.failed(old, 11_000)
    breaker.dropped(old)
    assert (breaker.state, breaker.probes) == (BreakerState.HALF_OPEN, 1)
    breaker.dropped(probe)
    assert breaker.probes == 2


def test_who_has_no_breaker_is_only_counted() -> None:
    """In a window of a minute; whatever fails, all are let through."""
    breaker = Breaker(None)
    for _ in range(100):
        breaker.failed(JobId("job"), 60_000)
    assert (breaker.state, breaker.probes, breaker.next_ms()) == (BreakerState.CLOSED, None, None)
    assert [breaker.failure_rate(ms) for ms in (60_000, 119_999, 120_000)] == [1.0, 1.0, 0.0]
    assert [breaker.is_idle(ms) for ms in (119_999, 120_000)] == [False, True]


def test_a_new_breaker_may_be_forgotten_after_a_window() -> None:
    """It has let jobs through from the begin of time on, and none was tried."""
    breaker = Breaker(BREAKER)
    assert [breaker.is_idle(BREAKER.window_ms - late) for late in (1, 0)] == [False, True]


def test_only_the_failure_that_opens_it_is_told() -> None:
    """Of attempts that end together; none while it is open already, and none that says nothing."""
    rig = Rig()
    rows = [rig.record(job_id) for job_id in rig.submit(4, ONCE)]
    breaker = Breaker(msgspec.structs.replace(BREAKER, volume_min=2))
    for record in rows:
        record.outcome = AttemptOutcome.LOST
    rows[0].outcome = AttemptOutcome.RELEASED
    assert not breaker.ended(rows[:2], 1_000)
    assert breaker.ended(rows[2:3], 1_000)
    assert not breaker.ended(rows[3:], 1_000)
    assert breaker.failure_rate(1_000) == 1.0


@pytest.mark.parametrize("override", BreakerOverride)
def test_it_is_known_what_a_breaker_was_made_of(override: BreakerOverride) -> None:
    """Of the same settings in the same hands it is the same one."""
    breaker = Breaker(BREAKER, override)
    assert breaker.is_held is (override is BreakerOverride.OPEN)
    others = [each for each in BreakerOverride if breaker.is_of(BREAKER, each)]
    assert others == [override]
    assert not breaker.is_of(None, override)
