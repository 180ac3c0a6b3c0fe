"""Dependencies: BLOCKED until the parents have ended, then what the policy makes of it."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core import command as commands
from tenure.master.core.command import LeaseRow, SubmitRow, SubmitSetting
from tenure.master.core.config import Retention
from tenure.master.core.dependency import OPEN, Fate, fate_of
from tenure.master.core.dependents import NOT_NEEDED, parents_first
from tenure.master.core.effect import JobVerdict, NotifySettled, SubmitReply
from tenure.master.core.event import InboxTaken
from tenure.master.core.message import ParentState, RegisterChild, ReleaseParent
from tenure.master.core.outbox import Numbered, Outbox
from tenure.master.core.record import Policy, RetryPolicy
from tenure.protocol.fence import Token
from tenure.protocol.ids import JobId
from tenure.protocol.refusal import Reason, Refusal
from tenure.protocol.vocabulary import (
    TERMINAL,
    AttemptOutcome,
    FailureReason,
    JobState,
    ParentFailure,
    RunIf,
)
from tests.unit.master.core.audit import audit, state_of
from tests.unit.master.core.rig import Rig, of_type
from tests.unit.master.core.town import Town

#: Of a cluster that was set back: the time of it, in seconds.
EPOCH = 1_795_000_000
OK, BAD = AttemptOutcome.COMPLETED, AttemptOutcome.FAILED_PERMANENT
S = JobState


def after(rig: Rig, *parents: JobId, **policy: object) -> JobId:
    """A new job that waits for these."""
    row = SubmitRow(rig.mint(), 0, b"", "", parents=parents)
    reply = rig.submit_rows([row], Policy(name="job", **policy))  # type: ignore[arg-type]
    assert (reply.job_ids, reply.refusals, reply.unsettled) == ([row.job_id], [], ())
    return row.job_id


def resolve(rig: Rig, rows_max: int = 512) -> int:
    """Decides on dependents until none is due; gives how many decisions it took."""
    decisions = 0
    while rig.partition.has_dependents_due():
        rig.do(commands.ResolveDependents(rows_max=rows_max))
        decisions += 1
    return decisions


def run(rig: Rig, job_id: JobId, outcome: AttemptOutcome = OK) -> None:
    """Runs the only job that is ready."""
    session = state_of(rig.partition).sessions[1]
    rig.renew(1, session.assignment)
    row = rig.grant_one()
    assert row.job_id == job_id
    rig.accept(1, session.assignment)
    rig.report(row, outcome)
    resolve(rig)


@pytest.fixture
def rig() -> Rig:
    """A partition with a worker."""
    rig = Rig()
    rig.open_session(1)
    return rig


# What parents come to.


@pytest.mark.parametrize("run_if", RunIf)
@pytest.mark.parametrize("on_failure", ParentFailure)
def test_fate(run_if: RunIf, on_failure: ParentFailure) -> None:
    """The contract's table, over all pairs of outcomes."""
    policy = Policy(name="job", run_if=run_if, on_parent_failure=on_failure)
    for first in TERMINAL:
        for second in TERMINAL:
            failed = (first, second) != (S.COMPLETED, S.COMPLETED)
            if run_if is RunIf.ALWAYS or (run_if is RunIf.ALL_SUCCEEDED and not failed):
                expected = Fate.RUN
            elif run_if is RunIf.ANY_FAILED:
                expected = Fate.RUN if failed else Fate.SKIP
            else:
                expected = {
                    ParentFailure.FAIL: Fate.FAIL,
                    ParentFailure.IGNORE: Fate.RUN,
                    ParentFailure.HOLD: Fate.HOLD,
                }[on_failure]
            assert fate_of(policy, bytes([first, second])) is expected


def test_a_child_runs_when_all_its_parents_have_succeeded(rig: Rig) -> None:
    """It is BLOCKED before, and takes its place in the queue when it is freed."""
    first, second = rig.submit(2)
    child = after(rig, first, second)
    assert rig.state(child) is S.BLOCKED
    run(rig, first)
    assert rig.state(child) is S.BLOCKED
    rig.now_ms += 5_000
    run(rig, second)
    record = rig.record(child)
    assert (record.state, record.ready_ms) == (S.PENDING, rig.now_ms)
    run(rig, child)
    assert rig.state(child) is S.COMPLETED
    assert rig.replayed().state_hash() == rig.partition.state_hash()


def test_parents_that_have_ended_before_count(rig: Rig) -> None:
    """A child of jobs that have ended is decided on at once."""
    (parent,) = rig.submit(1)
    run(rig, parent)
    child = after(rig, parent)
    resolve(rig)
    assert rig.state(child) is S.PENDING


def test_a_delay_goes_on_after_the_parents(rig: Rig) -> None:
    """A child is not due before its own time, either."""
    (parent,) = rig.submit(1)
    row = SubmitRow(rig.mint(), 0, b"", "", parents=(parent,))
    rig.submit_rows([row], delay_ms=10_000)
    run(rig, parent)
    assert rig.state(row.job_id) is S.SCHEDULED
    rig.pass_time(10_000)
    assert rig.state(row.job_id) is S.PENDING


def test_no_time_runs_while_it_is_blocked(rig: Rig) -> None:
    """A schedule timeout and a deadline count from when the parents have let it run."""
    (parent,) = rig.submit(1)
    child = after(rig, parent, schedule_timeout_ms=1_000, deadline_ms=2_000)
    rig.pass_time(60_000)
    assert rig.state(child) is S.BLOCKED
    run(rig, parent)
    rig.pass_time(999)
    assert rig.state(child) is S.PENDING
    rig.pass_time(1)
    assert rig.record(child).failure_reason is FailureReason.EXPIRED


def test_a_failure_fails_the_whole_subtree_in_slices(rig: Rig) -> None:
    """FAILED/DEPENDENCY, level by level, at most so many jobs a decision; waiters are told."""
    (root,) = rig.submit(1)
    level = [after(rig, root) for _ in range(10)]
    leaves = [after(rig, *level) for _ in range(3)]
    rig.report(rig.grant_one(), BAD)
    told = []
    decisions = 0
    while rig.partition.has_dependents_due():
        decision = rig.do(commands.ResolveDependents(rows_max=4))
        decisions += 1
        for effect in of_type(decision.effects, NotifySettled):
            told += [record.job_id for record in effect.records]
    assert decisions >= 4
    assert sorted(told) == sorted([*level, *leaves])
    for job_id in (*level, *leaves):
        record = rig.record(job_id)
        assert (record.state, record.failure_reason) == (S.FAILED, FailureReason.DEPENDENCY)
        assert record.fault is not None
    assert root in str(rig.record(level[0]).fault)


def test_an_error_branch_runs_after_a_failure_only(rig: Rig) -> None:
    """``any_failed``: it runs if a parent has failed; else it is cancelled: it was not needed."""
    good, bad = rig.submit(1)[0], rig.submit(1)[0]
    branch = after(rig, good, run_if=RunIf.ANY_FAILED)
    other = after(rig, bad, run_if=RunIf.ANY_FAILED)
    run(rig, good)
    run(rig, bad, BAD)
    assert (rig.state(branch), rig.record(branch).cancel_reason) == (S.CANCELLED, NOT_NEEDED)
    assert rig.state(other) is S.PENDING


def test_hold_waits_for_a_requeued_parent(rig: Rig) -> None:
    """It stays BLOCKED after a failure; the parent's next run that succeeds frees it."""
    (parent,) = rig.submit(1)
    child = after(rig, parent, on_parent_failure=ParentFailure.HOLD)
    run(rig, parent, BAD)
    assert rig.state(child) is S.BLOCKED
    assert not rig.partition.has_dependents_due()
    for outcome, state in ((BAD, S.BLOCKED), (OK, S.PENDING)):
        rig.do(commands.RequeueJobs(job_ids=[parent]))
        run(rig, parent, outcome)
        assert rig.state(child) is state


def test_requeue_looks_at_the_parents_again(rig: Rig) -> None:
    """A job that its parents failed waits for them again; one that they let run just runs."""
    (parent,) = rig.submit(1)
    child = after(rig, parent)
    run(rig, parent, BAD)
    assert rig.state(child) is S.FAILED
    (verdict,) = rig.do(commands.RequeueJobs(job_ids=[child])).reply  # type: ignore[misc]
    assert verdict == JobVerdict(child, S.BLOCKED, None)
    resolve(rig)
    assert rig.state(child) is S.FAILED
    rig.do(commands.RequeueJobs(job_ids=[parent, child]))
    assert rig.state(child) is S.BLOCKED
    run(rig, parent)
    run(rig, child, BAD)
    rig.do(commands.RequeueJobs(job_ids=[child]))
    assert rig.state(child) is S.PENDING
    assert rig.replayed().state_hash() == rig.partition.state_hash()


def test_a_requeued_child_remembers_parents_that_were_purged(rig: Rig) -> None:
    """What they had come to when it failed is kept with it."""
    good, bad = rig.submit(2)
    child = after(rig, good, bad)
    run(rig, good)
    run(rig, bad, BAD)
    rig.do(commands.PurgeJobs(job_ids=[good]))
    rig.do(commands.RequeueJobs(job_ids=[bad, child]))
    run(rig, bad)
    assert rig.state(child) is S.PENDING


def test_a_blocked_job_can_be_cancelled(rig: Rig) -> None:
    """At once; its own children take that for a failure."""
    (parent,) = rig.submit(1)
    child = after(rig, parent)
    grandchild = after(rig, child)
    rig.do(commands.CancelJobs(job_ids=[child]))
    resolve(rig)
    assert (rig.state(child), rig.state(grandchild)) == (S.CANCELLED, S.FAILED)
    run(rig, parent)
    assert rig.state(child) is S.CANCELLED


# Parents are kept.


def test_a_parent_is_kept_while_a_child_is_open() -> None:
    """By age, by count and by its own TTL; it is purged soon after its last child has ended."""
    retention = Retention(completed_ms=1_000, completed_max=2)
    town = Town(1, retention=retention)
    rig = town.rigs[0]
    rig.open_session(1)
    aged, own = rig.submit_one(), rig.submit_one(Policy(name="job", result_ttl_ms=500))
    gate = rig.submit_one(delay_ms=50_000)
    child = after(rig, aged, own, gate)
    run(rig, aged)
    run(rig, own)
    for job_id in rig.submit(5):
        run(rig, job_id)
    rig.pass_time(20_000)
    assert {rig.state(aged), rig.state(own)} == {S.COMPLETED}
    refusal = rig.do(commands.PurgeJobs(job_ids=[aged])).reply[0].refusal  # type: ignore[index]
    assert refusal is not None
    assert refusal.reason is Reason.WRONG_STATE
    rig.pass_time(30_000)
    run(rig, gate)
    run(rig, child)
    rig.pass_time(0)
    assert {aged, own}.isdisjoint(state_of(rig.partition).jobs)
    rig.pass_time(2_000)
    assert not state_of(rig.partition).jobs


# What is refused.


def refusals(rig: Rig, rows: list[SubmitRow], *, whole: bool = False) -> object:
    """What a submit of these rows refuses."""
    setting = SubmitSetting(Policy(name="job"), 5, 0, 0)
    command = commands.SubmitJobs(settings=[setting], rows=rows, all_or_nothing=whole)
    decision = rig.partition.decide(command, rig.now_ms)
    if isinstance(decision, Refusal):
        return decision.reason
    assert isinstance(decision.reply, SubmitReply)
    rig.do(command)
    return [(index, why.reason, why.field) for index, why in decision.reply.refusals]


def test_unknown_parents_and_cycles_are_refused(rig: Rig) -> None:
    """Row by row, with the field's path; what hangs on a refused row is refused, too."""
    ids = [rig.mint() for _ in range(6)]
    rows = [
        SubmitRow(ids[0], 0, b"", "", parents=(ids[5],)),
        SubmitRow(ids[1], 0, b"", "", parents=(ids[2],)),
        SubmitRow(ids[2], 0, b"", "", parents=(ids[1],)),
        SubmitRow(ids[3], 0, b"", "", parents=(ids[4], rig.mint())),
        SubmitRow(ids[4], 0, b"", ""),
        SubmitRow(ids[5], 0, b"", "", parents=(ids[3],)),
    ]
    assert refusals(rig, rows) == [
        (0, Reason.UNKNOWN_PARENT, "parents[0]"),
        (1, Reason.PARENT_CYCLE, "parents"),
        (2, Reason.PARENT_CYCLE, "parents"),
        (3, Reason.UNKNOWN_PARENT, "parents[1]"),
        (5, Reason.UNKNOWN_PARENT, "parents[0]"),
    ]
    assert list(state_of(rig.partition).jobs) == [ids[4]]
    itself = rig.mint()
    row = SubmitRow(itself, 0, b"", "", parents=(itself,))
    assert refusals(rig, [row], whole=True) is Reason.PARENT_CYCLE


def test_children_may_come_before_their_parents_in_a_batch(rig: Rig) -> None:
    """A batch's order is no matter; answers keep it. A job named by its key stands for its row."""
    ids = [rig.mint() for _ in range(3)]
    (known,) = rig.submit(1, key="k")
    rows = [
        SubmitRow(ids[0], 0, b"", "", parents=(ids[1], ids[1])),
        SubmitRow(ids[1], 0, b"", "", parents=(ids[2],)),
        SubmitRow(ids[2], 0, b"other", "k"),
    ]
    reply = rig.submit_rows(rows)
    assert (reply.job_ids, reply.existing) == ([ids[0], ids[1], known], [2])
    assert rig.record(ids[0]).parents == (ids[1],)
    assert rig.record(ids[1]).parents == (known,)
    again = rig.submit_rows(rows)
    assert (again.existing, again.refusals) == ([0, 1, 2], [])
    for job_id in (known, ids[1], ids[0]):
        run(rig, job_id)


@given(st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=10))
def test_order_of_a_batch(edges: list[list[int]]) -> None:
    """Every row comes after its parents, or is on or behind a circle; none is left out."""
    names = [JobId(str(index)) for index in range(len(edges))]
    rows = [
        SubmitRow(name, 0, b"", "", parents=tuple(JobId(str(p)) for p in parents))
        for name, parents in zip(names, edges, strict=True)
    ]
    order, circular = parents_first(rows)
    assert sorted([*order, *circular]) == list(range(len(rows)))
    at = {index: place for place, index in enumerate(order)}
    for index, place in at.items():
        for parent in edges[index]:
            assert parent >= len(rows) or at[parent] < place
    for index in circular:
        assert any(parent in circular for parent in edges[index])


# Parents in other partitions.


def test_a_submit_is_settled_when_its_parent_elsewhere_is_pinned() -> None:
    """The child's partition asks, the parent's keeps it and tells; then all goes as at home."""
    town = Town()
    here, there = town.rigs
    parent, _ = town.submit(1)
    child, reply = town.submit(0, [parent])
    assert (reply.job_ids, reply.unsettled) == ([child], (0,))
    town.resolve(0)
    assert town.said(0, 1) == [RegisterChild(parent=parent, child=child, run=0)]
    assert here.partition.drain_answers() == []
    town.calm()
    assert here.partition.drain_answers() == [(child, None)]
    assert state_of(there.partition).dependencies.pins(parent)
    town.end(parent)
    town.calm()
    assert town.state(child) is S.PENDING
    town.end(child)
    town.resolve(0)
    assert town.said(0, 1) == [ReleaseParent(parent=parent, child=child, run=0)]
    town.calm()
    for rig in town.rigs:
        dependencies = state_of(rig.partition).dependencies
        assert (dependencies.foreign, dependencies.registered) == ({}, {})
        assert rig.replayed().state_hash() == rig.partition.state_hash()


def test_an_unknown_parent_elsewhere_withdraws_the_submit() -> None:
    """With all that waits for it: their clients are told, nothing stays, its key is free."""
    town = Town()
    here, there = town.rigs
    nobody = there.mint()
    ids = [here.mint() for _ in range(3)]
    rows = [
        SubmitRow(ids[0], 0, b"", "k", parents=(nobody,)),
        SubmitRow(ids[1], 0, b"", "", parents=(ids[0],)),
        SubmitRow(ids[2], 0, b"", ""),
    ]
    reply = here.submit_rows(rows, town.policy(0))
    assert reply.unsettled == (0, 1)
    elsewhere, far = town.submit(1, [ids[1]])
    assert far.unsettled == (0,)
    town.calm()
    answers = [
        (job_id, why and (why.reason, why.field)) for job_id, why in here.partition.drain_answers()
    ]
    unknown = (Reason.UNKNOWN_PARENT, "parents[0]")
    assert answers == [(ids[0], unknown), (ids[1], unknown)]
    assert [job_id for job_id, _ in there.partition.drain_answers()] == [elsewhere]
    assert list(state_of(here.partition).jobs) == [ids[2]]
    assert not state_of(there.partition).jobs
    again = here.submit_rows([SubmitRow(here.mint(), 0, b"", "k")], town.policy(0))
    assert again.existing == []
    for rig in town.rigs:
        assert rig.replayed().state_hash() == rig.partition.state_hash()


def test_a_submit_sent_again_waits_as_the_first_one() -> None:
    """A known job whose parent is not known yet is unsettled, also after a failover."""
    town = Town()
    here = town.rigs[0]
    parent, _ = town.submit(1)
    row = SubmitRow(here.mint(), 0, b"", "", parents=(parent,))
    here.submit_rows([row], town.policy(0))
    here.crash(window_ms=0)
    again = here.submit_rows([row], town.policy(0))
    assert (again.existing, again.unsettled) == ([0], (0,))
    town.calm()
    assert here.submit_rows([row], town.policy(0)).unsettled == ()


def test_a_requeued_child_asks_again_elsewhere() -> None:
    """Its new run has a registration of its own; what was said of the old one is passed over."""
    town = Town()
    here = town.rigs[0]
    parent, _ = town.submit(1)
    child, _ = town.submit(0, [parent])
    town.calm()
    town.end(parent, BAD)
    town.calm()
    assert town.state(child) is S.FAILED
    town.rigs[1].do(commands.RequeueJobs(job_ids=[parent]))
    here.do(commands.RequeueJobs(job_ids=[child]))
    number = state_of(here.partition).inbox.get(1).number + 1
    stale = ParentState(parent=parent, child=child, run=0, state=int(S.FAILED))
    before = len(here.journal)
    town.take(1, 0, Numbered(number, stale))
    assert [type(event) for event in here.events()[before:]] == [InboxTaken]
    # The number is used up: what the partition really says next has another one.
    state_of(here.partition).inbox._marks.clear()
    here.journal.pop()
    here.crash(window_ms=0)
    town.calm()
    assert town.state(child) is S.BLOCKED
    town.end(parent)
    town.calm()
    assert town.state(child) is S.PENDING


def test_a_restored_cluster_asks_again() -> None:
    """What was registered or told may be forgotten; the child is no less acknowledged for that."""
    town = Town()
    here, there = town.rigs
    parent, _ = town.submit(1)
    child, _ = town.submit(0, [parent])
    town.calm()
    here.do(commands.OpenTerm(token=Token(EPOCH, 1), incarnation="restored", window_ms=0))
    assert child not in here.partition._state.dependencies.unsettled
    town.resolve(0)
    (row,) = town.waiting(0, 1)
    assert row.message == RegisterChild(parent=parent, child=child, run=0)
    assert EPOCH << 31 < row.number < 1 << 63
    assert here.replayed().state_hash() == here.partition.state_hash()
    there.do(commands.OpenTerm(token=Token(EPOCH, 2), incarnation="restored", window_ms=0))
    town.take(0, 1, row, token=Token(EPOCH, 1))
    town.resolve(1)
    told = ParentState(parent=parent, child=child, run=0, state=OPEN)
    assert town.said(1, 0) == [told]


def test_a_full_outbox_refuses_what_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job with a parent in a partition that takes nothing is refused; others are not."""
    town = Town()
    parent, _ = town.submit(1)
    monkeypatch.setattr(Outbox, "room", lambda outbox, target: 0)
    _, reply = town.submit(0, [parent])
    assert [refusal.reason for _, refusal in reply.refusals] == [Reason.OUTBOX_FULL]
    assert not town.submit(0)[1].refusals


# S14: any graph, any policies, over partitions that fail.


class Model:
    """What should become of a graph's jobs: the contract's sentences, written down once more."""

    def __init__(self) -> None:
        self.parents: dict[JobId, list[JobId]] = {}
        self.policies: dict[JobId, tuple[RunIf, ParentFailure]] = {}
        self.ended: dict[JobId, JobState] = {}

    def state(self, job: JobId) -> JobState:
        """Terminal, PENDING (it may run) or BLOCKED."""
        if job in self.ended:
            return self.ended[job]
        states = [self.state(parent) for parent in self.parents[job]]
        if any(state not in TERMINAL for state in states):
            return S.BLOCKED
        run_if, on_failure = self.policies[job]
        failed = any(state is not S.COMPLETED for state in states)
        if not states or run_if is RunIf.ALWAYS:
            return S.PENDING
        if run_if is RunIf.ANY_FAILED:
            return S.PENDING if failed else S.CANCELLED
        if not failed or on_failure is ParentFailure.IGNORE:
            return S.PENDING
        return S.FAILED if on_failure is ParentFailure.FAIL else S.BLOCKED


@given(seed=st.integers(0, 2**32), partitions=st.sampled_from([1, 2, 3]))
def test_random_graphs_end_as_the_model_says(seed: int, partitions: int) -> None:
    """S14: a child is granted only when its parents' outcomes let it; none waits for ever."""
    rng, town, model = Random(seed), Town(partitions, audited=False), Model()
    jobs: list[JobId] = []
    for _ in range(rng.randint(2, 14)):
        parents = rng.sample(jobs, min(len(jobs), rng.randint(0, 3)))
        policy = rng.choice(list(RunIf)), rng.choice(list(ParentFailure))
        options = {"run_if": policy[0], "on_parent_failure": policy[1]}
        home = rng.randrange(partitions)
        job_id, _ = town.submit(home, parents, retry=RetryPolicy(max_attempts=1), **options)
        jobs.append(job_id)
        model.parents[job_id], model.policies[job_id] = parents, policy
        _disturb(town, rng)
    for _ in range(60):
        _disturb(town, rng)
        if rng.random() < 0.1:
            _cancel(town, model, rng.choice(jobs))
        rig = rng.choice(town.rigs)
        for row in _granted(rig, rng.randint(1, 3)):
            assert model.state(row.job_id) is S.PENDING
            outcome = rng.choice([OK, OK, BAD])
            model.ended[row.job_id] = S.COMPLETED if outcome is OK else S.FAILED
            rig.report(row, outcome)
    town.calm()
    while any(town.state(job) is S.PENDING for job in jobs):
        for rig in town.rigs:
            for row in _granted(rig, 20):
                assert model.state(row.job_id) is S.PENDING
                model.ended[row.job_id] = S.COMPLETED
                rig.report(row, OK)
        town.calm()
    for job in jobs:
        assert town.state(job) is model.state(job)
    for rig in town.rigs:
        audit(rig.partition)
        assert rig.replayed().state_hash() == rig.partition.state_hash()
        pinned = state_of(rig.partition).dependencies.registered
        assert all(town.state(c) is S.BLOCKED for p in pinned.values() for c in p)


def _cancel(town: Town, model: Model, job: JobId) -> None:
    """Somebody cancels a job that waits; its children take that for a failure."""
    if model.state(job) not in TERMINAL:
        town.rig_of(job).do(commands.CancelJobs(job_ids=[job]))
        model.ended[job] = S.CANCELLED


def _granted(rig: Rig, credit: int) -> list[LeaseRow]:
    """What its worker gets, a new one after each crash."""
    if 1 not in state_of(rig.partition).sessions:
        rig.open_session(1, f"w{len(rig.journal)}", slots=1_000)
    return rig.grant(1, credit)


def _disturb(town: Town, rng: Random) -> None:
    for _ in range(rng.randint(0, 3)):
        if len(town.rigs) > 1:
            town.stumble(rng)
        else:
            town.resolve(0, rng.randint(1, 3))
