"""What partitions say to each other about children and parents, and what a replay makes of it."""

from collections.abc import Sequence

import msgspec
import pytest
from msgspec import structs

from tenure.master.core import command as commands
from tenure.master.core.bulk import BatchSpec
from tenure.master.core.dependency import ASKED, GONE, OPEN, UNASKED, Foreign, Registration
from tenure.master.core.dependents import NOT_NEEDED
from tenure.master.core.event import JobsSubmitted, JobsWithdrawn
from tenure.master.core.message import ParentState, RegisterChild, ReleaseParent
from tenure.master.core.outbox import Numbered, Outbox
from tenure.master.core.partition import Partition
from tenure.master.core.record import Policy
from tenure.protocol.ids import JobId
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import (
    AttemptOutcome,
    BatchKind,
    JobState,
    ParentFailure,
    RunIf,
)
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import Rig
from tests.unit.master.core.test_dependents import row_of, workflow
from tests.unit.master.core.town import Town

BAD = AttemptOutcome.FAILED_PERMANENT
DONE = int(JobState.COMPLETED)
S = JobState


def tell(town: Town, parent: JobId, child: JobId, state: int, run: int = 0) -> None:
    """The second partition tells a child of the first one what its parent is."""
    number = state_of(town.rigs[0].partition).inbox.get(1).number + 1
    message = ParentState(parent=parent, child=child, run=run, state=state)
    town.take(1, 0, Numbered(number, message))


def settled(rig: Rig) -> list[tuple[JobId, Reason | None]]:
    """What clients are told that wait for what is known elsewhere."""
    answers = rig.partition.drain_answers()
    return [(job_id, None if why is None else why.reason) for job_id, why in answers]


# What is said.


def test_who_is_cancelled_before_it_has_asked_does_not_ask() -> None:
    """It only leaves."""
    town = Town()
    parent, _ = town.submit(1)
    child, _ = town.submit(0, [parent])
    town.rigs[0].do(commands.CancelJobs(job_ids=[child]))
    town.resolve(0)
    assert town.said(0, 1) == [ReleaseParent(parent=parent, child=child, run=0)]
    town.calm()
    assert not state_of(town.rigs[0].partition).dependencies.foreign
    assert not state_of(town.rigs[1].partition).dependencies.registered


def test_who_is_requeued_before_it_has_left_does_not_leave() -> None:
    """It only asks, for its new run, and runs when its parent has succeeded."""
    town = Town()
    here = town.rigs[0]
    parent, _ = town.submit(1)
    child, _ = town.submit(0, [parent])
    town.calm()
    here.do(commands.CancelJobs(job_ids=[child]))
    here.do(commands.RequeueJobs(job_ids=[child]))
    town.resolve(0)
    assert town.said(0, 1) == [RegisterChild(parent=parent, child=child, run=1)]
    assert state_of(here.partition).dependencies.foreign[child].states == {parent: ASKED}
    town.calm()
    town.end(parent)
    town.calm()
    assert town.state(child) is S.PENDING


def test_a_full_partition_keeps_nobody_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is for it is refused, and only what is said to it waits."""
    town = Town(3)
    here = town.rigs[0]
    far, near = town.submit(1)[0], town.submit(2)[0]
    town.submit(0, [far])
    town.submit(0, [near])
    monkeypatch.setattr(Outbox, "room", lambda outbox, target: 0 if target == 1 else 9)
    rows = [row_of(here, parent) for parent in (far, near)]
    reply = here.submit_rows(rows, town.policy(0))
    assert [(index, why.metadata["partition"]) for index, why in reply.refusals] == [(0, "1")]
    town.resolve(0)
    assert (len(town.said(0, 1)), len(town.said(0, 2))) == (0, 2)


def test_what_changes_in_the_decision_that_tells_of_it_is_told_again() -> None:
    """A parent fails by the same decision that says that it is open."""
    town = Town()
    here, there = town.rigs
    first, _ = town.submit(1)
    parent, _ = town.submit(1, [first])
    child, _ = town.submit(0, [parent])
    town.resolve(0)
    town.carry(0, 1)
    there.do(commands.CancelJobs(job_ids=[first]))
    town.resolve(1)
    assert there.state(parent) is S.FAILED
    assert town.said(1, 0) == [ParentState(parent=parent, child=child, run=0, state=OPEN)]
    town.calm()
    assert here.state(child) is S.FAILED


# What is known.


def test_what_a_parent_does_is_nothing_to_a_child_that_it_has_let_run() -> None:
    """It is requeued elsewhere: the child goes on."""
    town = Town()
    parent, _ = town.submit(1)
    child, _ = town.submit(0, [parent], run_if=RunIf.ALWAYS)
    town.calm()
    town.end(parent, BAD)
    town.calm()
    assert town.state(child) is S.PENDING
    town.rigs[1].do(commands.RequeueJobs(job_ids=[parent]))
    town.calm()
    foreign = state_of(town.rigs[0].partition).dependencies.foreign
    assert foreign[child].states == {parent: OPEN}
    assert town.state(child) is S.PENDING


def test_a_child_that_is_held_goes_on_with_its_parents_next_run_elsewhere() -> None:
    """One that has failed and is open again is waited for as before."""
    town = Town()
    parent, _ = town.submit(1)
    child, _ = town.submit(0, [parent], on_parent_failure=ParentFailure.HOLD)
    town.calm()
    for outcome, state in ((BAD, S.BLOCKED), (AttemptOutcome.COMPLETED, S.PENDING)):
        town.end(parent, outcome)
        town.calm()
        assert town.state(child) is state
        if state is S.BLOCKED:
            town.rigs[1].do(commands.RequeueJobs(job_ids=[parent]))
            town.calm()


def test_a_child_is_settled_when_all_that_is_before_it_is() -> None:
    """Those whose own parents are known first; each once, and none is passed over for another."""
    town = Town()
    here = town.rigs[0]
    far, other = town.submit(1)[0], town.submit(1)[0]
    first = row_of(here, far)
    plain = row_of(here, first.job_id)
    middle = row_of(here, first.job_id)
    last = row_of(here, first.job_id, middle.job_id)
    waits = row_of(here, first.job_id, other)
    rows = [first, plain, middle, last, waits]
    assert here.submit_rows(rows, town.policy(0)).unsettled == (0, 1, 2, 3, 4)
    tell(town, far, first.job_id, OPEN)
    ids = {row.job_id for row in (first, plain, middle, last)}
    answers = settled(here)
    assert len(answers) == 4
    assert dict(answers) == dict.fromkeys(ids)
    tell(town, other, waits.job_id, OPEN)
    assert settled(here) == [(waits.job_id, None)]


def test_a_child_of_an_unsettled_one_is_unsettled_after_a_failover() -> None:
    """Though its own parent elsewhere was heard of."""
    town = Town()
    here = town.rigs[0]
    far, other = town.submit(1)[0], town.submit(1)[0]
    first = row_of(here, far)
    second = row_of(here, first.job_id, other)
    here.submit_rows([first, second], town.policy(0))
    tell(town, other, second.job_id, OPEN)
    here.crash(window_ms=0)
    unsettled = [first.job_id, second.job_id]
    assert [*state_of(here.partition).dependencies.unsettled] == unsettled
    tell(town, far, first.job_id, OPEN)
    assert settled(here) == [(job_id, None) for job_id in unsettled]


@pytest.mark.parametrize("order", [(4, 3, 2, 1, 0), (0, 1, 3, 2, 4)])
def test_a_journal_may_have_a_child_before_its_parent(order: Sequence[int]) -> None:
    """Whichever is read first, all are unsettled that wait for one that is, until they are not."""
    town = Town()
    here = town.rigs[0]
    far, _ = town.submit(1)
    first = row_of(here, far)
    plain = row_of(here, first.job_id)
    middle = row_of(here, first.job_id)
    last = row_of(here, first.job_id, middle.job_id)
    behind = row_of(here, last.job_id)
    rows = [first, plain, middle, last, behind]
    here.submit_rows(rows, town.policy(0))
    at = next(i for i, event in enumerate(here.events()) if isinstance(event, JobsSubmitted))
    event = here.events()[at]
    assert isinstance(event, JobsSubmitted)
    swapped = structs.replace(event, rows=[event.rows[index] for index in order])
    here.journal[at] = msgspec.msgpack.encode([swapped])
    here.crash(window_ms=0)
    ids = {row.job_id for row in rows}
    assert set(state_of(here.partition).dependencies.unsettled) == ids
    tell(town, far, first.job_id, OPEN)
    answers = settled(here)
    assert len(answers) == len(rows)
    assert dict(answers) == dict.fromkeys(ids)


def test_what_waits_for_parents_here_only_is_nothing_elsewhere() -> None:
    """Nothing is kept of parents that are looked up."""
    rig = Rig()
    rig.submit_rows([row_of(rig, *rig.submit(1))])
    dependencies = state_of(rig.partition).dependencies
    assert (dependencies.foreign, dependencies.unsent) == ({}, {})


def test_a_child_that_is_boosted_waits_still() -> None:
    """It stays BLOCKED, and runs when its parent has ended."""
    rig = Rig()
    rig.open_session(1)
    (parent,) = rig.submit(1)
    row = row_of(rig, parent)
    rig.submit_rows([row])
    rig.do(commands.BoostJobs(job_ids=[row.job_id], priority=1))
    assert (rig.state(row.job_id), rig.record(row.job_id).priority) == (S.BLOCKED, 1)
    rig.report(rig.grant_one())
    rig.do(commands.ResolveDependents(rows_max=9))
    assert rig.state(row.job_id) is S.PENDING


def test_a_child_that_is_cancelled_while_its_parent_may_come_back_stays_so() -> None:
    """It was put off for a batch that requeues; when that ends, nothing is decided on it."""
    rig = Rig()
    rig.open_session(1)
    (parent,) = rig.submit(1)
    row = row_of(rig, parent)
    rig.submit_rows([row])
    rig.report(rig.grant_one(), BAD)
    rig.do(commands.ResolveDependents(rows_max=9))
    spec = BatchSpec(kind=BatchKind.REQUEUE, filter="name = other")
    rig.do(commands.CreateBatch(batch_id="b", spec=spec, matched=0))
    rig.do(commands.RequeueJobs(job_ids=[row.job_id]))
    dependencies = state_of(rig.partition).dependencies
    assert list(dependencies.deferred) == [row.job_id]
    rig.do(commands.CancelJobs(job_ids=[row.job_id]))
    assert not dependencies.deferred
    rig.do(commands.CancelBatch(batch_id="b"))
    assert not rig.partition.has_dependents_due()
    assert rig.state(row.job_id) is S.CANCELLED


@pytest.mark.parametrize(("jobs", "steps"), [(4_095, 0), (4_096, 1), (8_192, 2)])
def test_dependencies_are_derived_in_steps(jobs: int, steps: int) -> None:
    """Others get their turn after each few thousand jobs."""
    rig = Rig()
    record = rig.record(rig.submit_one())
    dependencies = state_of(rig.partition).dependencies
    many = {JobId(str(index)): record for index in range(jobs)}
    assert len(list(dependencies.rebuild(many))) == steps


# What is withdrawn, and what is not.


def test_all_that_waits_for_what_is_not_there_is_withdrawn() -> None:
    """However far behind it is, and nothing of it is kept; what was there before is."""
    town = Town()
    here, there = town.rigs
    nobody = there.mint()
    here.submit(1, town.policy(0), payload=b"of another size")
    kept = state_of(here.partition).stored_bytes
    rows = [row_of(here, nobody)]
    for _ in range(3):
        rows.append(row_of(here, rows[-1].job_id))
    rows = [structs.replace(row, payload=b"payload") for row in rows]
    here.submit_rows(rows, town.policy(0))
    tell(town, nobody, rows[0].job_id, GONE)
    assert settled(here) == [(row.job_id, Reason.UNKNOWN_PARENT) for row in rows]
    assert len(state_of(here.partition).jobs) == 1
    assert state_of(here.partition).stored_bytes == kept


def test_who_is_withdrawn_is_told_of_which_parent() -> None:
    """By its place among those that the client named, without the workflow."""
    town = Town()
    here, there = town.rigs
    flow, nobody, shut = workflow(here), there.mint(), there.mint()
    near = here.submit_one(town.policy(0))
    named = row_of(here, flow, near, nobody, workflow_id=flow)
    behind = row_of(here, named.job_id)
    late = row_of(here, shut, workflow_id=shut)
    here.submit_rows([named, behind, late], town.policy(0))
    tell(town, nobody, named.job_id, GONE)
    tell(town, shut, late.job_id, DONE)
    answers = [(job_id, why) for job_id, why in here.partition.drain_answers() if why]
    assert [(job_id, why.field, why.metadata) for job_id, why in answers] == [
        (named.job_id, "parents[1]", {"job_id": named.job_id, "parent": nobody}),
        (behind.job_id, "parents[0]", {"job_id": behind.job_id, "parent": named.job_id}),
        (late.job_id, "workflow_id", {"job_id": late.job_id, "workflow_id": shut}),
    ]


def test_a_member_that_came_in_time_stays_when_its_workflow_is_sealed() -> None:
    """Though another parent of it is not known yet."""
    town = Town()
    here, there = town.rigs
    flow, far = there.mint(), town.submit(1)[0]
    first = row_of(here, far)
    member = row_of(here, flow, first.job_id, workflow_id=flow)
    here.submit_rows([first, member], town.policy(0))
    tell(town, flow, member.job_id, OPEN)
    tell(town, flow, member.job_id, DONE)
    assert settled(here) == []
    tell(town, far, first.job_id, OPEN)
    assert settled(here) == [(first.job_id, None), (member.job_id, None)]
    assert here.state(member.job_id) is S.BLOCKED


def test_a_member_that_is_not_needed_says_so_in_a_sealed_workflow() -> None:
    """It is not for its workflow that it does not run."""
    rig = Rig()
    rig.open_session(1)
    flow = workflow(rig)
    parent = rig.submit_one()
    row = row_of(rig, flow, parent, workflow_id=flow)
    rig.submit_rows([row], Policy(name="job", run_if=RunIf.ANY_FAILED))
    rig.do(commands.SealWorkflow(workflow_id=flow, members=1))
    rig.report(rig.grant_one())
    rig.do(commands.ResolveDependents(rows_max=9))
    record = rig.record(row.job_id)
    assert (record.state, record.cancel_reason) == (S.CANCELLED, NOT_NEEDED)


# What a replay finds newer than what it reads.


def known_of(partition: Partition) -> bytes:
    """What is persistent of children and parents elsewhere."""
    dependencies = state_of(partition).dependencies
    return msgspec.msgpack.encode([dependencies.foreign, dependencies.registered])


def test_what_has_seen_an_event_does_not_change_with_it() -> None:
    """Not even until those behind it are read, while nobody has left."""
    town = Town()
    there = town.rigs[1]
    parents = [town.submit(1)[0] for _ in range(2)]
    child, _ = town.submit(0, parents, on_parent_failure=ParentFailure.HOLD)
    town.calm()
    town.end(parents[0], BAD)
    town.calm()
    there.do(commands.RequeueJobs(job_ids=[parents[0]]))
    town.calm()
    for rig in town.rigs:
        partition = rig.replaying()
        known = known_of(partition)
        for seq, event in enumerate(rig.events(), 1):
            partition.replay(event, seq)
            assert known_of(partition) == known
    assert town.state(child) is S.BLOCKED


def test_who_has_asked_is_told_nothing_yet() -> None:
    """Until a decision tells it; a new run begins anew."""
    town = Town()
    there = town.rigs[1]
    parent, _ = town.submit(1)
    child = town.rigs[0].mint()
    dependencies = state_of(there.partition).dependencies
    for number in (1, 2):
        message = RegisterChild(parent=parent, child=child, run=number)
        town.take(0, 1, Numbered(number, message))
        registration = dependencies.registered[parent][child]
        assert registration == Registration(registration.seq, number, UNASKED)
        town.resolve(1)
        assert registration.told == OPEN


def test_a_withdrawal_leaves_what_was_submitted_again() -> None:
    """A replay finds one of the jobs newer, or gone: the others go all the same."""
    for newer in (True, False):
        town = Town()
        here, there = town.rigs
        nobody = there.mint()
        first = row_of(here, nobody)
        second = row_of(here, first.job_id)
        here.submit_rows([first, second], town.policy(0))
        tell(town, nobody, first.job_id, GONE)
        events = here.events()
        at = next(i for i, event in enumerate(events) if isinstance(event, JobsWithdrawn))
        partition = here.replaying(keep=at)
        jobs = state_of(partition).jobs
        if newer:
            jobs[first.job_id].seq = at + 2
        else:
            del jobs[first.job_id]
        partition.replay(events[at], at + 1)
        assert list(jobs) == [first.job_id] * newer


def test_a_submit_leaves_what_was_heard_since() -> None:
    """A replay finds what is known of a job's parents elsewhere newer than the job."""
    town = Town()
    here = town.rigs[0]
    parent, _ = town.submit(1)
    child, _ = town.submit(0, [parent])
    (event,) = (event for event in here.events() if isinstance(event, JobsSubmitted))
    partition = Partition(here.config)
    foreign = state_of(partition).dependencies.foreign
    foreign[child] = heard = Foreign(9, 1, settled=True, states={parent: OPEN})
    partition.replay(event, 3)
    assert foreign[child] is heard
