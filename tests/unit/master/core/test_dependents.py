"""Dependents: what is said to who submits a child, and what one decision does about children."""

from collections.abc import Sequence

import msgspec
import pytest

from tenure.master.core import command as commands
from tenure.master.core.command import SealWorkflow, SubmitRow
from tenure.master.core.dependency import GONE, OPEN
from tenure.master.core.effect import Deliver, NotifySettled
from tenure.master.core.event import (
    DependentsResolved,
    DurableEvent,
    InboxTaken,
    OutboxAppended,
)
from tenure.master.core.message import ParentState, RegisterChild, ReleaseParent
from tenure.master.core.outbox import Numbered, Outbox
from tenure.master.core.partition import Partition
from tenure.master.core.record import Policy
from tenure.master.core.snapshot import Slice
from tenure.protocol.fence import Token
from tenure.protocol.ids import JobId
from tenure.protocol.refusal import Reason, Refusal
from tenure.protocol.vocabulary import (
    AttemptOutcome,
    ErrorCategory,
    JobState,
    ParentFailure,
    RunIf,
)
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import Rig, of_type
from tests.unit.master.core.town import Town


def row_of(rig: Rig, *parents: JobId, workflow_id: str = "") -> SubmitRow:
    """A job that waits for these."""
    return SubmitRow(rig.mint(), 0, b"", "", parents=parents, workflow_id=workflow_id)


def refused(rig: Rig, *rows: SubmitRow) -> list[Refusal]:
    """Those of a submit of these rows."""
    return [refusal for _, refusal in rig.submit_rows(list(rows)).refusals]


def workflow(rig: Rig) -> JobId:
    """One that is open."""
    workflow_id = rig.mint()
    opened = commands.OpenWorkflow(
        workflow_id=workflow_id, name="w", tenant="t", seal_within_ms=60_000
    )
    rig.do(opened)
    return workflow_id


# What is refused.


def test_a_job_that_would_wait_for_itself() -> None:
    """Is told so, and so is each that is behind it."""
    rig = Rig()
    row = row_of(rig)
    circle = SubmitRow(row.job_id, 0, b"", "", parents=(row.job_id,))
    behind = row_of(rig, row.job_id)
    for refusal, each in zip(refused(rig, circle, behind), (circle, behind), strict=True):
        assert (refusal.reason, refusal.field) == (Reason.PARENT_CYCLE, "parents")
        assert refusal.metadata == {"job_id": each.job_id}
        assert f"expected to submit job {each.job_id}, but it is its own ancestor" in (
            refusal.message
        )


@pytest.mark.parametrize("is_member", [False, True])
def test_a_job_whose_parent_is_not_there(is_member: bool) -> None:
    """Is told which one, by its place among those that the client named."""
    rig = Rig()
    (known,) = rig.submit(1)
    nobody = rig.mint()
    flow = (workflow(rig),) if is_member else ()
    row = row_of(rig, *flow, known, nobody, workflow_id="".join(flow))
    (refusal,) = refused(rig, row)
    assert (refusal.reason, refusal.field) == (Reason.UNKNOWN_PARENT, "parents[1]")
    assert refusal.metadata == {"job_id": row.job_id, "parent": nobody}
    assert f"submit job {row.job_id} after job {nobody}, but no such job" in refusal.message


@pytest.mark.parametrize(
    ("how", "reason", "why"),
    [
        ("sealed", Reason.WORKFLOW_SEALED, "it takes no more members: it was sealed or cancelled"),
        ("cancelled", Reason.WORKFLOW_SEALED, "it takes no more members"),
        ("unknown", Reason.NOT_FOUND, "there is no such"),
    ],
)
def test_a_member_of_a_workflow_that_is_not_open(how: str, reason: Reason, why: str) -> None:
    """Is told which workflow, and why."""
    rig = Rig()
    flow = rig.mint() if how == "unknown" else workflow(rig)
    if how == "sealed":
        rig.do(SealWorkflow(workflow_id=flow, members=0))
    elif how == "cancelled":
        rig.do(commands.CancelWorkflow(workflow_id=flow))
    row = row_of(rig, flow, workflow_id=flow)
    (refusal,) = refused(rig, row)
    assert (refusal.reason, refusal.field) == (reason, "workflow_id")
    assert refusal.metadata == {"job_id": row.job_id, "workflow_id": flow}
    assert f"submit job {row.job_id} to workflow {flow}, but {why}" in refusal.message


@pytest.mark.parametrize(("room", "taken"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2)])
def test_a_job_needs_room_to_ask_for_its_parents(
    monkeypatch: pytest.MonkeyPatch, room: int, taken: int
) -> None:
    """For each one elsewhere, beside those of the rows before it that were taken."""
    town = Town()
    here, there = town.rigs
    first, second = there.submit(2, town.policy(1))
    monkeypatch.setattr(Outbox, "room", lambda outbox, target: room)
    rows = [row_of(here, first, second) for _ in range(2)]
    reply = here.submit_rows(rows, town.policy(0))
    assert [index for index, _ in reply.refusals] == [0, 1][taken:]
    for index, refusal in reply.refusals:
        assert (refusal.reason, refusal.field) == (Reason.OUTBOX_FULL, "parents")
        assert refusal.metadata == {"job_id": rows[index].job_id, "partition": "1"}
        assert refusal.retry_after_ms == here.config.retry_after_ms
        assert f"job {rows[index].job_id} after a job of partition 1" in refusal.message


def test_what_is_refused_takes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that fails for another reason leaves it to those behind it."""
    town = Town()
    here, there = town.rigs
    (parent,) = there.submit(1, town.policy(1))
    monkeypatch.setattr(Outbox, "room", lambda outbox, target: 1)
    bad, good = row_of(here, parent, here.mint()), row_of(here, parent)
    reply = here.submit_rows([bad, good], town.policy(0))
    assert [(index, why.reason) for index, why in reply.refusals] == [(0, Reason.UNKNOWN_PARENT)]


# What one decision does.


def test_a_decision_shares_its_rows_between_children_and_letters() -> None:
    """Children first, then what is to be said, to one partition after the other."""
    town = Town(3)
    here = town.rigs[0]
    near, _ = town.submit(0)
    ones, twos = ([town.submit(target)[0] for _ in range(3)] for target in (1, 2))
    for _ in range(2):
        town.submit(0, [near], on_parent_failure=ParentFailure.IGNORE)
    for one, two in zip(ones, twos, strict=True):
        town.submit(0, [one, two])
    here.do(commands.CancelJobs(job_ids=[near]))
    said = []
    for rows_max in (1, 4, 1, 9):
        decision = here.do(commands.ResolveDependents(rows_max=rows_max))
        resolved = sum(len(each.rows) for each in of_type(decision.events, DependentsResolved))
        sent = of_type(decision.events, OutboxAppended)
        assert [each.now_ms for each in sent] == [here.now_ms] * len(sent)
        delivers = of_type(decision.effects, Deliver)
        assert [(each.target, each.upto) for each in delivers] == [
            (each.target, each.first_number + len(each.messages) - 1) for each in sent
        ]
        said.append((resolved, {each.target: len(each.messages) for each in sent}))
    assert said == [(1, {}), (1, {1: 3}), (0, {2: 1}), (0, {2: 2})]
    assert not here.partition.has_dependents_due()


def test_nothing_is_due_that_cannot_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """While no partition takes messages, or nobody leads; children here are decided on still."""
    town = Town()
    here, there = town.rigs
    (parent,) = there.submit(1, town.policy(1))
    town.submit(0, [parent])
    assert here.partition.has_dependents_due()
    with monkeypatch.context() as full:
        full.setattr(Outbox, "room", lambda outbox, target: 0)
        assert not here.partition.has_dependents_due()
        assert here.do(commands.ResolveDependents(rows_max=9)).events == ()
        near, _ = town.submit(0)
        town.submit(0, [near])
        here.do(commands.CancelJobs(job_ids=[near]))
        assert here.partition.has_dependents_due()
        (event,) = here.do(commands.ResolveDependents(rows_max=9)).events
        assert isinstance(event, DependentsResolved)
    here.do(commands.CloseTerm())
    assert not here.partition.has_dependents_due()
    assert here.do(commands.ResolveDependents(rows_max=9)).events == ()


@pytest.mark.parametrize(
    ("run_if", "outcome", "state", "told"),
    [
        (RunIf.ALWAYS, AttemptOutcome.COMPLETED, JobState.PENDING, False),
        (RunIf.ANY_FAILED, AttemptOutcome.COMPLETED, JobState.CANCELLED, True),
        (RunIf.ALL_SUCCEEDED, AttemptOutcome.FAILED_PERMANENT, JobState.FAILED, True),
    ],
)
def test_who_waits_for_a_child_is_told_when_it_has_ended(
    run_if: RunIf, outcome: AttemptOutcome, state: JobState, told: bool
) -> None:
    """When it may run nobody is; what its parents came to is kept with it."""
    rig = Rig()
    rig.open_session(1)
    (parent,) = rig.submit(1)
    (reply,) = rig.submit_rows([row_of(rig, parent)], Policy(name="job", run_if=run_if)).job_ids
    child = JobId(reply)
    rig.report(rig.grant_one(), outcome)
    rig.now_ms += 77
    decision = rig.do(commands.ResolveDependents(rows_max=9))
    record = rig.record(child)
    assert (record.state, record.freed) == (state, not told)
    assert record.parent_states == bytes([rig.state(parent)])
    assert record.ended_ms == (rig.now_ms if told else 0)
    settled = [each.records for each in of_type(decision.effects, NotifySettled)]
    assert settled == ([[record]] if told else [])
    (event,) = of_type(decision.events, DependentsResolved)
    assert event.now_ms == rig.now_ms


def test_a_job_that_its_parent_failed_says_which_one() -> None:
    """The first that did not succeed, and what has become of it."""
    town = Town()
    here = town.rigs[0]
    good, failed, cancelled = (town.submit(0)[0] for _ in range(3))
    first, _ = town.submit(0, [good, cancelled, failed])
    second, _ = town.submit(0, [failed])
    here.open_session(1)
    rows = {row.job_id: row for row in here.grant(1, 2)}
    here.report(rows[good])
    here.report(rows[failed], AttemptOutcome.FAILED_PERMANENT)
    here.do(commands.CancelJobs(job_ids=[cancelled]))
    far, _ = town.submit(1)
    third, _ = town.submit(0, [far])
    town.calm()
    number = state_of(here.partition).inbox.get(1).number + 1
    gone = ParentState(parent=far, child=third, run=0, state=GONE)
    town.take(1, 0, Numbered(number, gone))
    town.resolve(0)
    for child, parent, what in (
        (first, cancelled, "is CANCELLED"),
        (second, failed, "is FAILED"),
        (third, far, "is not known any more"),
    ):
        fault = here.record(child).fault
        assert fault is not None
        assert (fault.type, fault.category) == ("tenure.ParentFailed", ErrorCategory.PERMANENT)
        assert fault.message == f"its parent {parent} {what}"


# What other partitions say.


def register(town: Town, parent: JobId, child: JobId, number: int, run: int = 0) -> list[type]:
    """A child of the first partition asks the second; what that comes to."""
    there = town.rigs[1]
    before = len(there.journal)
    message = RegisterChild(parent=parent, child=child, run=run)
    town.take(0, 1, Numbered(number, message))
    return [type(event) for event in there.events()[before:]]


def test_an_older_run_neither_asks_nor_leaves() -> None:
    """A child that was requeued is registered by its new run; its old one has nothing to say."""
    town = Town()
    here, there = town.rigs
    parent, _ = town.submit(1)
    child = here.mint()
    register(town, parent, child, 1, run=2)
    registered = state_of(there.partition).dependencies.registered
    assert register(town, parent, child, 2, run=1) == [InboxTaken]
    for number, run, left in ((3, 1, True), (4, 2, False), (5, 2, False)):
        release = ReleaseParent(parent=parent, child=child, run=run)
        town.take(0, 1, Numbered(number, release))
        assert (parent in registered) is left
    assert register(town, parent, child, 6, run=2) != [InboxTaken]
    assert registered[parent][child].run == 2
    assert register(town, parent, child, 7, run=3) != [InboxTaken]
    assert registered[parent][child].run == 3


def test_what_is_known_already_is_not_written_again() -> None:
    """Nor what is said of another job, of another run, or of one that is no parent."""
    town = Town()
    here = town.rigs[0]
    parent, _ = town.submit(1)
    other, _ = town.submit(1)
    child, _ = town.submit(0, [parent])
    town.calm()
    assert state_of(here.partition).dependencies.foreign[child].states == {parent: OPEN}
    done = int(JobState.COMPLETED)
    number = state_of(here.partition).inbox.get(1).number
    for message in (
        ParentState(parent=parent, child=child, run=0, state=OPEN),
        ParentState(parent=parent, child=child, run=1, state=done),
        ParentState(parent=other, child=child, run=0, state=done),
        ParentState(parent=parent, child=here.mint(), run=0, state=done),
    ):
        number += 1
        before = len(here.journal)
        town.take(1, 0, Numbered(number, message))
        assert [type(event) for event in here.events()[before:]] == [InboxTaken]
    told = ParentState(parent=parent, child=child, run=0, state=done)
    town.take(1, 0, Numbered(number + 1, told))
    town.resolve(0)
    assert here.state(child) is JobState.PENDING


@pytest.mark.parametrize(
    ("state", "reason"),
    [(int(JobState.COMPLETED), Reason.WORKFLOW_SEALED), (GONE, Reason.NOT_FOUND), (OPEN, None)],
)
def test_a_member_of_a_workflow_elsewhere_is_taken_while_that_is_open(
    state: int, reason: Reason | None
) -> None:
    """Else it is withdrawn with those behind it, each told why."""
    town = Town()
    here, there = town.rigs
    flow = there.mint()
    row = row_of(here, flow, workflow_id=flow)
    behind = row_of(here, flow, row.job_id, workflow_id=flow)
    assert here.submit_rows([row, behind], town.policy(0)).unsettled == (0, 1)
    for number, each in enumerate((row, behind), 1):
        told = ParentState(parent=flow, child=each.job_id, run=0, state=state)
        town.take(1, 0, Numbered(number, told))
    answers = dict(here.partition.drain_answers())
    assert list(answers) == [row.job_id, behind.job_id]
    if reason is None:
        assert list(answers.values()) == [None, None]
        return
    first, second = answers.values()
    assert first is not None
    assert second is not None
    assert (first.reason, first.field) == (reason, "workflow_id")
    assert (second.reason, second.field) == (reason, "workflow_id")
    assert not state_of(here.partition).jobs


# What a replay finds newer than what it reads.


def slices_of(partition: Partition) -> list[Slice]:
    """A snapshot of all of it."""
    cursor = partition.snapshot()
    slices = []
    while (part := cursor.next_slice(1_000)) is not None:
        slices.append(msgspec.msgpack.decode(msgspec.msgpack.encode(part)))
    return slices


def read_on(rig: Rig, slices: Sequence[Slice], events: Sequence[tuple[int, DurableEvent]]) -> bytes:
    """The hash of what comes of a snapshot and of events that it has seen already."""
    partition = Partition(rig.config)
    for part in slices:
        partition.load_slice(part)
    for seq, event in events:
        partition.replay(event, seq)
    return partition.state_hash()


def family() -> Town:
    """Children and parents over two partitions, with all that is said among them."""
    town = Town()
    here, there = town.rigs
    first, second = town.submit(1)[0], town.submit(1)[0]
    child, _ = town.submit(0, [first, second])
    other, _ = town.submit(0, [there.mint()])
    town.submit(0, [other])
    town.calm()
    town.end(first, AttemptOutcome.FAILED_PERMANENT)
    town.calm()
    there.do(commands.CancelJobs(job_ids=[second]))
    town.calm()
    assert town.state(child) is JobState.FAILED
    there.do(commands.RequeueJobs(job_ids=[first, second]))
    here.do(commands.RequeueJobs(job_ids=[child]))
    while town.resolve(0, 1):
        pass
    town.calm()
    here.do(commands.CancelJobs(job_ids=[child]))
    while town.resolve(0, 1):
        pass
    town.calm()
    here.do(commands.RequeueJobs(job_ids=[child]))
    town.resolve(0)
    restored = commands.OpenTerm(token=Token(1_795_000_000, 1), incarnation="r", window_ms=0)
    here.do(restored)
    return town


def test_what_a_snapshot_has_newer_stays_whatever_is_read_after_it() -> None:
    """From wherever the journal is read on, and whenever the snapshot was taken."""
    for rig in family().rigs:
        events = list(enumerate(rig.events(), 1))
        for last in range(1, len(events) + 1):
            partition = rig.replayed(keep=last)
            slices, expected = slices_of(partition), partition.state_hash()
            for begin in range(last):
                assert read_on(rig, slices, events[begin:last]) == expected
