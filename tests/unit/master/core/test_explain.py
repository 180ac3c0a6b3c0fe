"""Explanations: each kind of blocker is found and named alone, and what has none runs next."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core.command import (
    BoostJobs,
    Dispatch,
    LeaseRow,
    MarkSession,
    ResolveDependents,
    SubmitRow,
)
from tenure.master.core.effect import SendAssignment
from tenure.master.core.explain import TURN, Explanation, Halt
from tenure.master.core.ready import order_key
from tenure.master.core.record import JobRecord, LabelSelector, Policy, RetryPolicy
from tenure.master.core.settings import (
    AnySettings,
    BreakerSettings,
    JobTypeSettings,
    KeyOverride,
    QueueSettings,
    RateLimit,
    SettingsKey,
    TenantSettings,
)
from tenure.master.core.state import lease_of
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import (
    AttemptOutcome,
    Backoff,
    BlockerKind,
    BreakerOverride,
    JobState,
    ParentFailure,
)
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import Rig, of_type

K = BlockerKind
QUEUE = ("default", "default")
TYPE = ("default", "job")
GPU = LabelSelector("gpu", ("a100",))
Credits = list[tuple[int, int]]


def explain(
    rig: Rig, job_id: JobId, credits: Credits, *, looks: int = 1_000, halt: Halt | None = None
) -> Explanation:
    """What is said of a job."""
    explaining = rig.partition.explain(job_id, credits, rig.now_ms, halt)
    assert explaining is not None
    while not explaining.done:
        explaining.take(looks)
    return explaining.result()


def kinds(found: Explanation) -> list[BlockerKind]:
    """What keeps it."""
    return [blocker.kind for blocker in found.blockers]


class Scene(NamedTuple):
    """A job that one thing keeps, who has credit, and how it is freed; then who has credit."""

    job_id: JobId
    credits: Credits
    free: Callable[[], object]
    credits_after: Credits


def _setting(key: SettingsKey, held: AnySettings) -> Callable[[Rig], Scene]:
    def scene(rig: Rig) -> Scene:
        rig.open_session(1)
        rig.configure(key, held)
        job_id = rig.submit_one()
        return Scene(job_id, [(1, 1)], lambda: rig.configure(key, type(held)()), [(1, 1)])

    return scene


def _full(held: QueueSettings) -> Callable[[Rig], Scene]:
    def scene(rig: Rig) -> Scene:
        rig.open_session(1)
        rig.configure(QUEUE, held)
        _, job_id = rig.submit(2, limit_key="k")
        row = rig.grant_one()
        return Scene(job_id, [(1, 1)], lambda: rig.report(row), [(1, 1)])

    return scene


def _dry(held: QueueSettings) -> Callable[[Rig], Scene]:
    def scene(rig: Rig) -> Scene:
        rig.open_session(1)
        rig.configure(QUEUE, held)
        job_id = rig.submit_one(limit_key="k")
        return Scene(job_id, [(1, 1)], lambda: rig.pass_time(1_000), [(1, 1)])

    return scene


def _not_due(rig: Rig) -> Scene:
    rig.open_session(1)
    job_id = rig.submit_one(delay_ms=5_000)
    return Scene(job_id, [(1, 1)], lambda: rig.pass_time(5_000), [(1, 1)])


def _parents(rig: Rig) -> Scene:
    rig.open_session(1)
    parent = rig.submit_one()
    child = rig.mint()
    rig.submit_rows([SubmitRow(child, 0, b"", "", parents=(parent,))])
    row = rig.grant_one()

    def free() -> None:
        rig.report(row)
        rig.do(ResolveDependents(rows_max=9))

    return Scene(child, [(1, 1)], free, [(1, 1)])


def _breaker(rig: Rig) -> Scene:
    rig.open_session(1)
    tuned = BreakerSettings(volume_min=1, open_for_ms=1_000)
    rig.configure(TYPE, JobTypeSettings(breaker=tuned))
    quick = Policy(name="job", retry=RetryPolicy(backoff=Backoff.NONE))
    job_id = rig.submit_one(quick)
    rig.fail(rig.grant_one())
    rig.pass_time(0)
    return Scene(job_id, [(1, 1)], lambda: rig.pass_time(1_000), [(1, 1)])


def _key_breaker(rig: Rig) -> Scene:
    rig.open_session(1)
    tuned = BreakerSettings(volume_min=1, open_for_ms=1_000)
    rig.configure(QUEUE, QueueSettings(key_breaker=tuned))
    quick = Policy(name="job", retry=RetryPolicy(backoff=Backoff.NONE))
    job_id = rig.submit_one(quick, limit_key="k")
    rig.fail(rig.grant_one())
    rig.pass_time(0)
    return Scene(job_id, [(1, 1)], lambda: rig.pass_time(1_000), [(1, 1)])


def _retry_budget(rig: Rig) -> Scene:
    rig.open_session(1, slots=2)
    rig.configure(TYPE, JobTypeSettings(retry_budget=0.5))
    quick = Policy(name="job", retry=RetryPolicy(backoff=Backoff.NONE))
    job_ids = rig.submit(2, quick)
    for row in rig.grant(1, 2):
        rig.fail(row)
    rig.pass_time(0)
    (job_id,) = (job_id for job_id in job_ids if rig.state(job_id) is JobState.RETRYING)

    def free() -> None:
        rig.pass_time(60_000)
        rig.renew(1, 99)

    return Scene(job_id, [(1, 2)], free, [(1, 2)])


def _nobody(rig: Rig) -> Scene:
    rig.open_session(1, names=("other",))
    job_id = rig.submit_one()
    return Scene(job_id, [(1, 1)], lambda: rig.open_session(2), [(1, 1), (2, 1)])


def _no_labels(rig: Rig) -> Scene:
    rig.open_session(1, labels={"gpu": "old"})
    job_id = rig.submit_one(Policy(name="job", requires=(GPU,)))
    return Scene(
        job_id, [(1, 1)], lambda: rig.open_session(2, labels={"gpu": "a100"}), [(1, 1), (2, 1)]
    )


def _sticky(rig: Rig) -> Scene:
    rig.open_session(1)
    rig.open_session(2)
    _, job_id = rig.submit(2, sticky_key="s")
    rig.grant_one(1)
    return Scene(job_id, [(2, 5)], lambda: None, [(1, 1)])


def _no_credit(rig: Rig) -> Scene:
    rig.open_session(1)
    return Scene(rig.submit_one(), [], lambda: None, [(1, 1)])


def _reserved(rig: Rig) -> Scene:
    rig.open_session(1, slots=2)
    key = ("default", "urgent")
    rig.submit_one(Policy(name="job", queue="urgent"), delay_ms=1_000)
    rig.configure(key, QueueSettings(reserved=0.5))
    _, job_id = rig.submit(2)
    assert len(rig.grant(1, 2)) == 1
    return Scene(job_id, [(1, 1)], lambda: rig.configure(key, QueueSettings()), [(1, 1)])


def _order(rig: Rig) -> Scene:
    rig.open_session(1)
    job_id = rig.submit_one()
    first = rig.submit_one(priority=0)
    assert rig.record(first).ordinal > rig.record(job_id).ordinal
    return Scene(job_id, [(1, 1)], rig.grant_one, [(1, 1)])


def _quarantine(rig: Rig) -> Scene:
    rig.open_session(1)
    rig.do(MarkSession(session_id=1, reason="its disk", by_hand=True, for_ms=0))
    job_id = rig.submit_one()
    release = MarkSession(session_id=1, reason=None)
    return Scene(job_id, [(1, 1)], lambda: rig.do(release), [(1, 1)])


SCENES: dict[BlockerKind, Callable[[Rig], Scene]] = {
    K.NOT_DUE: _not_due,
    K.PARENTS: _parents,
    K.TENANT_PAUSED: _setting(("default",), TenantSettings(paused=True)),
    K.QUEUE_PAUSED: _setting(QUEUE, QueueSettings(paused=True)),
    K.JOB_TYPE_PAUSED: _setting(TYPE, JobTypeSettings(paused=True)),
    K.QUEUE_CONCURRENCY: _full(QueueSettings(concurrency=1)),
    K.KEY_CONCURRENCY: _full(QueueSettings(key_concurrency=1)),
    K.QUEUE_RATE: _dry(QueueSettings(rate=RateLimit(1, 1_000, 1))),
    K.KEY_RATE: _dry(QueueSettings(key_rate=RateLimit(1, 1_000, 1))),
    K.CIRCUIT_BREAKER: _breaker,
    K.KEY_CIRCUIT_BREAKER: _key_breaker,
    K.RETRY_BUDGET: _retry_budget,
    K.NO_WORKER: _nobody,
    K.NO_LABELS: _no_labels,
    K.STICKY_WORKER_BUSY: _sticky,
    K.NO_CREDIT: _no_credit,
    K.QUARANTINE: _quarantine,
    K.RESERVED: _reserved,
    K.ORDER: _order,
}


def test_every_kind_of_blocker_has_a_scene() -> None:
    """LEADER has tests of its own."""
    assert {*SCENES, K.LEADER} == set(BlockerKind)


@pytest.mark.parametrize("kind", SCENES)
def test_a_job_that_one_thing_keeps(kind: BlockerKind) -> None:
    """Exactly that is named; a dispatch does not grant it; once it is freed, the next one does."""
    rig = Rig()
    job_id, credits, free, credits_after = SCENES[kind](rig)
    found = explain(rig, job_id, credits)
    assert kinds(found) == [kind]
    (blocker,) = found.blockers
    assert blocker.text
    assert blocker.freed_by
    assert job_id not in granted(rig, credits)
    free()
    found = explain(rig, job_id, credits_after)
    assert (kinds(found), found.estimate_ms) == ([], 0)
    assert job_id in granted(rig, credits_after)


def granted(rig: Rig, credits: Credits) -> set[JobId]:
    """What a dispatch would grant; nothing is done."""
    command = Dispatch(credits=credits, committed_seq=1 << 60, grants_max=TURN)
    effects = rig.decide(command).effects
    return {row.record.job_id for e in of_type(effects, SendAssignment) for row in e.rows}


def test_a_leader_that_has_just_taken_office_grants_nothing() -> None:
    """While the window is open, until it closes; the node may say so, too."""
    rig = Rig(window_ms=3_000)
    rig.open_session(1)
    job_id = rig.submit_one()
    (blocker,) = explain(rig, job_id, [(1, 1)]).blockers
    assert (blocker.kind, blocker.until_ms) == (K.LEADER, rig.now_ms + 3_000)
    rig.close_window()
    assert kinds(explain(rig, job_id, [(1, 1)])) == []
    halted = explain(rig, job_id, [(1, 1)], halt=Halt("the store is full", "space"))
    assert [(b.kind, b.text) for b in halted.blockers] == [(K.LEADER, "the store is full")]


def test_an_operators_breaker_and_half_open_probes_are_told_apart() -> None:
    """By hand: nobody knows until when. Half open: until the probes have ended."""
    rig = Rig()
    rig.open_session(1)
    tuned = BreakerSettings(volume_min=1, open_for_ms=1_000, probes=1)
    rig.configure(TYPE, JobTypeSettings(breaker=tuned))
    rig.submit(1, Policy(name="job", retry=RetryPolicy(backoff=Backoff.NONE)))
    rig.fail(rig.grant_one())
    job_id = rig.submit_one()
    rig.pass_time(1_000)
    rig.grant_one()
    (blocker,) = explain(rig, job_id, [(1, 1)]).blockers
    assert "half open" in blocker.text
    rig.configure(TYPE, JobTypeSettings(breaker_override=BreakerOverride.OPEN))
    found = explain(rig, job_id, [(1, 1)])
    assert "by hand" in found.blockers[0].text
    assert found.estimate_ms is None


def test_a_retry_over_budget_says_so_until_it_is_due_for_another_reason() -> None:
    """A boost to another time, a crash and a change of the budget each leave the truth standing."""
    rig = Rig()
    job_id, _, _, _ = _retry_budget(rig)
    assert "budget of 0.5 of its grants" in explain(rig, job_id, []).blockers[0].text
    rig.do(BoostJobs(job_ids=[job_id], priority=3))
    rig.configure(TYPE, JobTypeSettings())
    rig.crash(window_ms=0)
    assert explain(rig, job_id, []).blockers[-1].text.endswith("had used up their budget")
    rig.do(BoostJobs(job_ids=[job_id], delay_ms=5_000))
    assert explain(rig, job_id, []).blockers[-1].kind is K.NOT_DUE


def test_a_childs_open_parents_are_named_and_a_held_one_says_why() -> None:
    """Those that have not ended; if all have and one failed, that it is held for that."""
    rig = Rig()
    rig.open_session(1)
    parents = tuple(rig.submit(2))
    child = rig.mint()
    hold = Policy(name="job", on_parent_failure=ParentFailure.HOLD)
    rig.submit_rows([SubmitRow(child, 0, b"", "", parents=parents)], hold)
    rig.report(rig.grant_one())
    found = explain(rig, child, [])
    assert found.open_parents == [parents[1]]
    assert found.blockers[0].text == "1 of its 2 parents have not ended"
    rig.report(rig.grant_one(), AttemptOutcome.FAILED_PERMANENT)
    assert "held" in explain(rig, child, []).blockers[0].text
    rig.do(ResolveDependents(rows_max=9))
    found = explain(rig, child, [])
    assert (found.state, found.open_parents) == (JobState.BLOCKED, [])
    assert "held" in found.blockers[0].text


def test_a_child_that_is_about_to_be_decided_on_is_not_called_held() -> None:
    """Its parents have ended, and the next decision is about it."""
    rig = Rig()
    rig.open_session(1)
    parent = rig.submit_one()
    child = rig.mint()
    rig.submit_rows([SubmitRow(child, 0, b"", "", parents=(parent,))])
    rig.report(rig.grant_one())
    (blocker,) = explain(rig, child, []).blockers
    assert (blocker.kind, blocker.text) == (K.PARENTS, "its parents have ended a moment ago")
    rig.do(ResolveDependents(rows_max=9))
    assert kinds(explain(rig, child, [(1, 1)])) == []


def test_jobs_that_do_not_wait_are_not_explained() -> None:
    """A job that runs or has ended is blocked by nothing; an unknown one is not there."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one()
    row = rig.grant_one()
    assert explain(rig, job_id, []) == Explanation(job_id, JobState.RUNNING, 0, [], None, "", [])
    rig.report(row)
    assert kinds(explain(rig, job_id, [])) == []
    assert rig.partition.explain(rig.mint(), [], rig.now_ms) is None


def test_a_worker_in_quarantine_is_tried_again_by_itself() -> None:
    """Unless an operator put it there: then nobody knows how long. While it is tried with a job,
    nobody knows, either.
    """
    rig = Rig()
    rig.open_session(1, names=("job", "second"), labels={"gpu": "a100"})
    rig.open_session(2, names=("job", "second"))
    gpu = Policy(name="job", requires=(GPU,))
    job_id, other = rig.submit(2, gpu)
    rig.do(MarkSession(session_id=1, reason="its disk", by_hand=False, for_ms=20_000))
    found = explain(rig, job_id, [(1, 1), (2, 1)])
    (blocker,) = found.blockers
    assert (blocker.kind, blocker.until_ms) == (K.QUARANTINE, rig.now_ms + 40_000)
    assert found.estimate_ms == 40_000
    assert "tried" in blocker.freed_by
    assert explain(rig, other, [(1, 1), (2, 1)]).estimate_ms is None
    rig.now_ms += 40_000
    rig.renew(1, 0)
    rig.renew(2, 0)
    assert kinds(explain(rig, job_id, [(1, 1), (2, 1)])) == []
    rig.grant_one(1)
    found = explain(rig, other, [(1, 1), (2, 1)])
    assert (kinds(found), found.estimate_ms) == ([K.QUARANTINE], None)
    assert found.blockers[0].until_ms == 0
    rig.do(MarkSession(session_id=1, reason="its disk", by_hand=True, for_ms=0))
    found = explain(rig, other, [(1, 1), (2, 1)])
    assert (found.estimate_ms, found.basis) == (None, "nobody knows when what keeps it ends")
    assert "tried" not in found.blockers[0].freed_by


def test_reserves_that_keep_it_are_named_and_no_others() -> None:
    """Not those of queues that its workers do not serve, or that have all that they are due; who
    has not the labels that it asks for is none of its workers.
    """
    rig = Rig()
    queues = ("default", "urgent", "met")
    rig.open_session(1, names=("job",), queues=queues, slots=10, labels={"gpu": "a100"})
    rig.open_session(2, names=("job",), queues=("default", "elsewhere"), slots=10)
    for name in ("elsewhere", "met", "urgent"):
        rig.configure(("default", name), QueueSettings(reserved=0.5))
        rig.submit_one(Policy(name="job", queue=name), delay_ms=60_000)
    rig.submit(5, Policy(name="job", queue="met"))
    assert len(rig.grant(1, 10)) == 5
    job_id = rig.submit_one(Policy(name="job", requires=(GPU,)))
    (blocker,) = explain(rig, job_id, [(1, 5), (2, 5)]).blockers
    assert blocker.kind is K.RESERVED
    assert blocker.text.endswith("reserved for others (urgent)")


def test_advice_names_the_tenant() -> None:
    """A command that would free it is about its own tenant's queue, job type or breaker."""
    rig = Rig()
    rig.open_session(1)
    settings: list[tuple[SettingsKey, AnySettings]] = [
        (("acme",), TenantSettings(paused=True)),
        (("acme", "default"), QueueSettings(paused=True)),
        (
            ("acme", "job"),
            JobTypeSettings(paused=True, breaker_override=BreakerOverride.OPEN),
        ),
    ]
    for key, held in settings:
        rig.configure(key, held)
    found = explain(rig, rig.submit_one(Policy(name="job", tenant="acme")), [(1, 1)])
    assert len(found.blockers) == 4
    assert all("--tenant acme" in blocker.freed_by for blocker in found.blockers)


SETTINGS: list[tuple[SettingsKey, AnySettings]] = [
    (QUEUE, QueueSettings(concurrency=2)),
    (QUEUE, QueueSettings(paused=True)),
    (QUEUE, QueueSettings(key_concurrency=1, key_rate=RateLimit(1, 2_000, 2))),
    (QUEUE, QueueSettings(rate=RateLimit(2, 1_500, 3))),
    (QUEUE, QueueSettings(reserved=0.5, reserved_priority=2)),
    (QUEUE, QueueSettings(weight=5.0)),
    (
        QUEUE,
        QueueSettings(
            key_breaker=BreakerSettings(volume_min=1, open_for_ms=900, probes=1),
            key_breaker_overrides=(KeyOverride("b", BreakerOverride.OPEN),),
        ),
    ),
    (("default", "other"), QueueSettings(reserved=0.3)),
    (("default",), TenantSettings(paused=True)),
    (("default",), TenantSettings()),
    (TYPE, JobTypeSettings(paused=True)),
    (TYPE, JobTypeSettings(breaker=BreakerSettings(volume_min=1, open_for_ms=900, probes=1))),
    (TYPE, JobTypeSettings(breaker_override=BreakerOverride.OPEN)),
    (TYPE, JobTypeSettings(retry_budget=0.2)),
    (TYPE, JobTypeSettings()),
]
POLICIES = [
    Policy(name="job"),
    Policy(name="job", queue="other"),
    Policy(name="second", retry=RetryPolicy(backoff=Backoff.NONE)),
    Policy(name="job", requires=(GPU,)),
    Policy(name="second", queue="other", prefers=(GPU,)),
]
STEPS = st.one_of(
    st.tuples(
        st.just("submit"),
        st.sampled_from(POLICIES),
        st.integers(1, 4),
        st.sampled_from([0, 5, 10]),
        st.sampled_from([("", ""), ("a", ""), ("b", ""), ("", "s"), ("a", "t")]),
        st.sampled_from([0, 0, 0, 2_000]),
    ),
    st.tuples(st.just("configure"), st.sampled_from(SETTINGS)),
    st.tuples(
        st.just("session"),
        st.sampled_from([("job",), ("second",), ("job", "second")]),
        st.sampled_from([(), ("default",), ("other",)]),
        st.sampled_from([{}, {"gpu": "a100"}]),
    ),
    st.tuples(st.just("grant"), st.integers(0, 9), st.integers(1, 3)),
    st.tuples(st.just("end"), st.integers(0, 9), st.sampled_from(AttemptOutcome)),
    st.tuples(st.just("pass"), st.integers(1, 2_500)),
)


@given(
    steps=st.lists(STEPS, min_size=5, max_size=30),
    credit=st.lists(st.integers(0, 3), min_size=4, max_size=4),
)
def test_what_nothing_is_said_against_is_what_runs(
    steps: list[tuple[object, ...]], credit: list[int]
) -> None:
    """In any state: the jobs without blockers are those that a dispatch grants, and no others."""
    rig = Rig(audited=False)
    world = _Play(rig)
    for step in steps:
        world.do(step)
    credits = [(number, credit[number % 4]) for number in range(1, world.sessions + 1)]
    state = state_of(rig.partition)
    free, ahead = set(), {}
    for job_id, record in list(state.jobs.items()):
        found = explain(rig, job_id, credits)
        if record.state is JobState.PENDING:
            ahead[job_id] = found.ahead
            if not found.blockers:
                free.add(job_id)
        elif record.state in (JobState.SCHEDULED, JobState.RETRYING):
            assert {K.NOT_DUE, K.RETRY_BUDGET} & {*kinds(found)}
        else:
            assert not found.blockers
    assert free == granted(rig, credits)
    for job_id, count in ahead.items():
        assert count == _ahead(rig, state.jobs[job_id])


def _ahead(rig: Rig, record: JobRecord) -> int:
    """Counted one by one: jobs of its queue that may run, or are of its own lane, before it."""
    lanes, step_ms = state_of(rig.partition).lanes, rig.config.aging_step_ms
    own = lanes.of(record)

    def place(job: JobRecord) -> tuple[int, int]:
        return order_key(job.priority, job.ready_ms, step_ms), job.ordinal

    return sum(
        place(job) < place(record)
        for job in state_of(rig.partition).jobs.values()
        if job.state is JobState.PENDING
        for lane in [lanes.of(job)]
        if lane.queue is own.queue
        if lane is own or (lane.is_open and lane.job_type.is_open and lane.places)
    )


class _Play:
    """Steps that bring a partition into some state."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.sessions = 0

    def do(self, step: tuple[object, ...]) -> None:
        """One step; what cannot be done is left out."""
        rig = self._rig
        match step:
            case ("submit", Policy() as policy, int(count), int(priority), (limit, sticky), delay):
                rig.submit(
                    count,
                    policy,
                    priority=priority,
                    limit_key=limit,
                    sticky_key=sticky,
                    delay_ms=delay,  # type: ignore[arg-type]
                )
            case ("configure", (key, value)):
                rig.configure(key, value)
            case ("session", names, queues, labels):
                self.sessions += 1
                rig.open_session(
                    self.sessions,
                    names=names,  # type: ignore[arg-type]
                    queues=queues,  # type: ignore[arg-type]
                    labels=labels,  # type: ignore[arg-type]
                    slots=5,
                )
            case ("grant", int(which), int(count)) if self.sessions:
                session_id = which % self.sessions + 1
                rig.grant(session_id, count)
                rig.accept(session_id, 1_000)
            case ("end", int(which), AttemptOutcome() as outcome):
                running = [
                    holding.record
                    for holder in state_of(rig.partition).holders.values()
                    for holding in holder.leases.values()
                ]
                if running:
                    self._end(running[which % len(running)], outcome)
            case ("pass", int(ms)):
                rig.pass_time(ms)
            case _:
                pass

    def _end(self, record: JobRecord, outcome: AttemptOutcome) -> None:
        self._rig.report(LeaseRow(record.job_id, lease_of(record)), outcome)
