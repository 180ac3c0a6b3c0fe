"""The order within a queue: exact at each grant, and how far a job can be overtaken."""

from dataclasses import replace
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from tenure.master.core.ready import order_key
from tenure.master.core.record import LabelSelector, Policy
from tenure.protocol.vocabulary import JobState
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.fairness import Round
from tests.unit.master.core.rig import CONFIG, Rig

EXAMPLES: Final = max(200, settings().max_examples)
STEP = CONFIG.aging_step_ms
POLICIES = [
    Policy(name="job"),
    Policy(name="other"),
    Policy(name="job", queue="bulk"),
    Policy(name="other", queue="bulk", requires=(LabelSelector("gpu"),)),
    Policy(name="job", tenant="t", prefers=(LabelSelector("gpu"),)),
]


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(POLICIES),
            st.integers(0, 10),
            st.sampled_from([0, 0, 1, 60_000, 299_999, 900_000]),
            st.integers(0, 5),
            st.integers(0, 5),
        ),
        max_size=25,
    ),
    step=st.sampled_from([0, 1_000, STEP]),
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_order_key_is_respected_at_each_grant(
    steps: list[tuple[Policy, int, int, int, int]], step: int
) -> None:
    """S11: whoever takes, nothing of the same queue that it could run comes before what it gets."""
    config = replace(CONFIG, aging_step_ms=step, lease_ttl_ms=1 << 40, accept_timeout_ms=1 << 40)
    rig = Rig(config, audited=False)
    rig.open_session(1, names=("job", "other"), slots=1_000)
    rig.open_session(2, slots=1_000, labels={"gpu": "h100"})
    for policy, priority, pause_ms, first, second in steps:
        rig.now_ms += pause_ms
        rig.submit(3, policy, priority=priority)
        credits = [(1, first), (2, second)]
        state, committed = state_of(rig.partition), rig.partition.next_seq - 1
        judge = Round(state, credits, committed, 1_000_000, rig.now_ms)
        picked = {r.job_id for r in state.jobs.values() if r.state is JobState.RUNNING}
        rig.dispatch(*credits)
        judge.judge(
            [
                (int(r.incarnation[1:]), r)
                for r in state.jobs.values()
                if r.state is JobState.RUNNING and r.job_id not in picked
            ]
        )


@given(
    priority=st.integers(0, 10),
    flood=st.lists(st.tuples(st.integers(0, 10), st.integers(1, 400_000)), max_size=60),
    served=st.integers(1, 3),
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_overtaking_is_bounded_under_a_flood(
    priority: int, flood: list[tuple[int, int]], served: int
) -> None:
    """However much of higher priority keeps coming, a job is overtaken within Δpriority × step.

    Those that overtake it became ready less than (its priority - theirs) × step after it; priority
    0 is overtaken by nothing at all.
    """
    config = replace(CONFIG, lease_ttl_ms=1 << 40, accept_timeout_ms=1 << 40)
    rig = Rig(config, audited=False)
    rig.open_session(1, slots=1_000)
    rig.submit(4, priority=5)
    waiting = rig.submit_one(priority=priority)
    ready_ms = rig.now_ms
    for other, pause_ms in flood:
        rig.now_ms += pause_ms
        rig.submit(3, priority=other)
        for row in rig.grant(1, served):
            record = rig.record(row.job_id)
            if rig.state(waiting) is JobState.RUNNING or record.ready_ms <= ready_ms:
                continue
            assert priority > 0
            if record.priority > 0:
                assert record.ready_ms - ready_ms < (priority - record.priority) * STEP
    if rig.state(waiting) is JobState.PENDING:
        mine = order_key(priority, ready_ms, STEP)
        for record in state_of(rig.partition).jobs.values():
            if record.state is JobState.RUNNING:
                assert order_key(record.priority, record.ready_ms, STEP) <= mine
