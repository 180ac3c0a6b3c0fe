"""Workflows: open until they are sealed or cancelled, and what their members make of that."""

import pytest

from tenure.master.core import command as commands
from tenure.master.core import workflow
from tenure.master.core.command import (
    CancelWorkflow,
    OpenWorkflow,
    RetryWorkflow,
    SealWorkflow,
    SubmitRow,
)
from tenure.master.core.dependents import NOT_SEALED as MEMBERS_REASON
from tenure.master.core.event import WorkflowsForgotten, WorkflowsWritten
from tenure.master.core.workflow import NOT_SEALED
from tenure.master.core.workflows import WorkflowRecord, Workflows
from tenure.protocol.ids import JobId
from tenure.protocol.limits import DAY_MS, WORKFLOW_KEPT_MS
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import JobState
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import Rig, of_type

WITHIN_MS = 60_000


def opened(rig: Rig, name: str = "w", tenant: str = "t") -> WorkflowRecord:
    """A workflow begins; as it is told."""
    command = OpenWorkflow(
        workflow_id=rig.mint(), name=name, tenant=tenant, seal_within_ms=WITHIN_MS
    )
    return told(rig, command)


def told(
    rig: Rig, command: OpenWorkflow | SealWorkflow | CancelWorkflow | RetryWorkflow
) -> WorkflowRecord:
    """What somebody wants of a workflow; as it is told, which is as it is known then."""
    rig.now_ms += 1
    reply = rig.do(command).reply
    assert isinstance(reply, WorkflowRecord)
    assert known(rig, reply.workflow_id) == reply
    return reply


def known(rig: Rig, workflow_id: JobId) -> WorkflowRecord | None:
    """A workflow, if it is there."""
    return state_of(rig.partition).workflows.records.get(workflow_id)


def member(rig: Rig, flow: WorkflowRecord, *parents: JobId) -> JobId:
    """A job of a workflow, behind others of it."""
    row = SubmitRow(
        rig.mint(),
        0,
        b"",
        "",
        parents=(flow.workflow_id, *parents),
        workflow_id=flow.workflow_id,
    )
    assert not rig.submit_rows([row]).refusals
    return row.job_id


def resolve(rig: Rig) -> None:
    """Decides on dependents until none is due."""
    while rig.partition.has_dependents_due():
        rig.do(commands.ResolveDependents(rows_max=100))


def seal(flow: WorkflowRecord, members: int = 1) -> SealWorkflow:
    """It has all its members."""
    return SealWorkflow(workflow_id=flow.workflow_id, members=members)


def cancel(flow: WorkflowRecord, reason: str = "") -> CancelWorkflow:
    """It is not wanted any more."""
    return CancelWorkflow(workflow_id=flow.workflow_id, reason=reason)


def retry(flow: WorkflowRecord) -> RetryWorkflow:
    """It is wanted after all."""
    return RetryWorkflow(workflow_id=flow.workflow_id)


# What people do.


def test_a_workflow_is_open_until_its_time_is_over() -> None:
    """It is known by what it was opened with; opened again it stays as it is."""
    rig = Rig()
    flow = opened(rig)
    assert flow == WorkflowRecord(
        workflow_id=flow.workflow_id,
        name="w",
        tenant="t",
        created_ms=rig.now_ms,
        seal_by_ms=rig.now_ms + WITHIN_MS,
        look_ms=rig.now_ms + WITHIN_MS,
        seq=flow.seq,
    )
    again = OpenWorkflow(workflow_id=flow.workflow_id, name="x", tenant="y", seal_within_ms=1)
    assert told(rig, again) == flow
    assert not rig.decide(again).events
    child = member(rig, flow)
    resolve(rig)
    assert rig.state(child) is JobState.BLOCKED


def test_a_sealed_workflow_lets_its_members_run() -> None:
    """It is kept for a while, with how many they are; sealed again it stays as it is."""
    rig = Rig()
    flow = opened(rig)
    first = member(rig, flow)
    second = member(rig, flow, first)
    sealed = told(rig, seal(flow, 2))
    assert (sealed.sealed_ms, sealed.members, sealed.cancelled_ms) == (rig.now_ms, 2, 0)
    assert sealed.look_ms == rig.now_ms + WORKFLOW_KEPT_MS
    assert (sealed.name, sealed.created_ms) == (flow.name, flow.created_ms)
    assert told(rig, seal(flow, 9)) == sealed
    assert not rig.decide(seal(flow, 9)).events
    resolve(rig)
    assert (rig.state(first), rig.state(second)) == (JobState.PENDING, JobState.BLOCKED)
    assert rig.replayed().state_hash() == rig.partition.state_hash()


@pytest.mark.parametrize(("reason", "said"), [("enough", "enough"), ("", "it was cancelled")])
def test_members_of_a_workflow_that_is_cancelled_open_end_with_it(reason: str, said: str) -> None:
    """It can be neither sealed nor retried: nobody knows whether it was whole."""
    rig = Rig()
    flow = opened(rig)
    child = member(rig, flow)
    cancelled = told(rig, cancel(flow, reason))
    assert (cancelled.cancelled_ms, cancelled.cancel_reason) == (rig.now_ms, reason)
    assert (cancelled.look_ms, cancelled.sealed_ms) == (rig.now_ms + WORKFLOW_KEPT_MS, 0)
    assert told(rig, cancel(flow, "other")) == cancelled
    assert not rig.decide(cancel(flow, "other")).events
    resolve(rig)
    record = rig.record(child)
    assert (record.state, record.cancel_reason) == (JobState.CANCELLED, MEMBERS_REASON)
    why = {
        "seal": f"it is CANCELLED ({said}): build it anew",
        "retry": "it was never sealed, so it may not be whole: build it anew",
    }
    for verb, command in (("seal", seal(flow)), ("retry", retry(flow))):
        refusal = rig.refused(command)
        assert refusal.reason is Reason.WRONG_STATE
        assert refusal.message == f"expected to {verb} workflow {flow.workflow_id}, but {why[verb]}"
        assert refusal.metadata == {"workflow_id": flow.workflow_id, "name": "w"}
        assert refusal.field == "workflow_id"


def test_a_cancel_of_a_sealed_workflow_can_be_taken_back() -> None:
    """Its members are the caller's business: the gate stays open for them."""
    rig = Rig()
    flow = opened(rig)
    child = member(rig, flow)
    sealed = told(rig, seal(flow))
    assert told(rig, retry(flow)) == sealed
    assert not rig.decide(retry(flow)).events
    cancelled = told(rig, cancel(flow, "enough"))
    assert (cancelled.sealed_ms, cancelled.cancel_reason) == (sealed.sealed_ms, "enough")
    assert told(rig, seal(flow)) == cancelled
    resolve(rig)
    assert rig.state(child) is JobState.PENDING
    anew = told(rig, retry(flow))
    assert (anew.cancelled_ms, anew.cancel_reason, anew.sealed_ms) == (0, "", sealed.sealed_ms)
    assert (anew.look_ms, anew.members) == (rig.now_ms + WORKFLOW_KEPT_MS, 1)
    assert rig.replayed().state_hash() == rig.partition.state_hash()


@pytest.mark.parametrize("verb", ["seal", "cancel", "retry"])
def test_a_workflow_that_nobody_knows_is_refused(verb: str) -> None:
    """By its id."""
    rig = Rig()
    nobody = rig.mint()
    command = {
        "seal": SealWorkflow(workflow_id=nobody, members=0),
        "cancel": CancelWorkflow(workflow_id=nobody),
        "retry": RetryWorkflow(workflow_id=nobody),
    }[verb]
    refusal = rig.refused(command)
    assert (refusal.reason, refusal.field) == (Reason.NOT_FOUND, "workflow_id")
    assert refusal.metadata == {"workflow_id": nobody}
    assert refusal.message.startswith(f"expected to {verb} workflow {nobody}, but no such workflow")


def test_a_partition_keeps_so_many_workflows(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused for now; one that is known may be opened again."""
    monkeypatch.setattr(workflow, "WORKFLOWS_MAX", 2)
    rig = Rig()
    flow, _ = opened(rig), opened(rig)
    more = OpenWorkflow(workflow_id=rig.mint(), name="more", tenant="t", seal_within_ms=1)
    refusal = rig.refused(more)
    assert refusal.reason is Reason.MEMORY_FULL
    assert refusal.metadata == {"workflow": "more", "limit": "2"}
    assert "open workflow more, but the partition has 2 workflows (at most 2)" in refusal.message
    assert refusal.retry_after_ms == rig.config.retry_after_ms
    told(rig, OpenWorkflow(workflow_id=flow.workflow_id, name="w", tenant="t", seal_within_ms=1))


# What time does.


def test_a_workflow_that_nobody_seals_is_cancelled() -> None:
    """When its time is over, not before; its members end with it."""
    rig = Rig()
    flow = opened(rig)
    child = member(rig, flow)
    rig.pass_time(WITHIN_MS - 1)
    assert known(rig, flow.workflow_id) == flow
    rig.pass_time(1)
    late = known(rig, flow.workflow_id)
    assert late is not None
    assert (late.cancelled_ms, late.cancel_reason) == (rig.now_ms, NOT_SEALED)
    assert late.look_ms == rig.now_ms + WORKFLOW_KEPT_MS
    resolve(rig)
    assert rig.state(child) is JobState.CANCELLED
    assert rig.replayed().state_hash() == rig.partition.state_hash()
    rig.pass_time(WORKFLOW_KEPT_MS)
    assert known(rig, flow.workflow_id) is None


def test_a_sealed_workflow_is_not_cancelled_when_its_time_is_over() -> None:
    """It is looked at, and nothing is written of it; it is forgotten when it has been kept."""
    rig = Rig()
    flow = opened(rig)
    sealed = told(rig, seal(flow, 0))
    rig.now_ms = flow.seal_by_ms
    decision = rig.fire()
    assert [event.rows for event in of_type(decision.events, WorkflowsWritten)] == [[]]
    assert [event.workflow_ids for event in of_type(decision.events, WorkflowsForgotten)] == [[]]
    assert known(rig, flow.workflow_id) == sealed
    assert rig.partition.next_timer_ms() == sealed.look_ms
    rig.now_ms = sealed.look_ms
    decision = rig.fire()
    (forgotten,) = of_type(decision.events, WorkflowsForgotten)
    assert (forgotten.now_ms, forgotten.workflow_ids) == (rig.now_ms, [flow.workflow_id])
    assert known(rig, flow.workflow_id) is None
    assert rig.partition.next_timer_ms() is None
    assert rig.replayed().state_hash() == rig.partition.state_hash()


def test_a_workflow_is_kept_for_its_members() -> None:
    """As long as one of them is open: it is looked at again each day."""
    rig = Rig()
    flow = opened(rig)
    gate = rig.submit_one(delay_ms=WORKFLOW_KEPT_MS * 2)
    child = member(rig, flow, gate)
    sealed = told(rig, seal(flow))
    resolve(rig)
    rig.pass_time(sealed.look_ms - rig.now_ms)
    later = known(rig, flow.workflow_id)
    assert later is not None
    assert later.look_ms == rig.now_ms + DAY_MS
    assert (later.sealed_ms, later.cancelled_ms) == (sealed.sealed_ms, 0)
    rig.do(commands.CancelJobs(job_ids=[child]))
    rig.pass_time(DAY_MS - 1)
    assert known(rig, flow.workflow_id) == later
    rig.pass_time(1)
    assert known(rig, flow.workflow_id) is None


def test_many_workflows_are_looked_at_some_at_a_time() -> None:
    """Each once."""
    rig = Rig()
    rig.now_ms -= 1
    flows = []
    for name in "abc":
        flows.append(opened(rig, name))
        rig.now_ms -= 1
    rig.now_ms = flows[0].seal_by_ms
    written = []
    for left in (1, 0):
        (event,) = of_type(rig.fire(rows_max=2).events, WorkflowsWritten)
        assert event.now_ms == rig.now_ms
        written += [row.name for row in event.rows]
        due_ms = rig.partition.next_timer_ms()
        assert (due_ms == rig.now_ms) is bool(left)
    assert written == ["a", "b", "c"]


def test_who_was_sealed_in_time_holds_up_nobody_else() -> None:
    """One that is looked at for nothing is passed over; what is written has its event's number."""
    rig = Rig()
    sealed = opened(rig, "sealed")
    rig.now_ms -= 1
    late = opened(rig, "late")
    told(rig, seal(sealed))
    rig.now_ms = late.seal_by_ms
    rig.submit_one(delay_ms=1)
    rig.now_ms += 1
    rig.fire()
    record = known(rig, late.workflow_id)
    assert record is not None
    assert record.cancelled_ms == rig.now_ms
    (seq,) = [
        seq
        for seq, event in enumerate(rig.events(), 1)
        if isinstance(event, WorkflowsWritten) and [each.name for each in event.rows] == ["late"]
        if event.rows[0].cancelled_ms
    ]
    assert record.seq == seq


def test_what_is_newer_than_an_event_stays() -> None:
    """A snapshot may know more of one workflow than of another, and more than the event."""
    state = state_of(Rig().partition)
    newer, older = flow_of(1, seq=7), flow_of(2, seq=3)
    records = state.workflows.records
    records |= {each.workflow_id: each for each in (newer, older)}
    rows = [flow_of(number, sealed_ms=5) for number in (1, 2)]
    workflow.apply_written(state, WorkflowsWritten(now_ms=9, rows=rows), 6)
    assert (records[newer.workflow_id].sealed_ms, records[older.workflow_id].sealed_ms) == (0, 5)
    assert [each.seq for each in records.values()] == [7, 6]
    ids = [newer.workflow_id, JobId("w3"), older.workflow_id]
    workflow.apply_forgotten(state, WorkflowsForgotten(now_ms=9, workflow_ids=ids), 7)
    assert list(records) == [newer.workflow_id]


# By themselves.


def flow_of(number: int, tenant: str = "t", **fields: int) -> WorkflowRecord:
    """A workflow with this id."""
    return WorkflowRecord(
        workflow_id=JobId(f"w{number}"),
        name="w",
        tenant=tenant,
        created_ms=1,
        seal_by_ms=2,
        look_ms=3,
        **fields,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("fields", "gate"),
    [
        ({}, 2),
        ({"sealed_ms": 5}, JobState.COMPLETED),
        ({"cancelled_ms": 5}, JobState.CANCELLED),
        ({"sealed_ms": 5, "cancelled_ms": 6}, JobState.COMPLETED),
    ],
)
def test_what_a_workflow_is_to_its_members(fields: dict[str, int], gate: int) -> None:
    """A parent: one that has not ended, that has succeeded, that was cancelled; or none."""
    flows = Workflows()
    flow = flow_of(1, **fields)
    flows.records[flow.workflow_id] = flow
    assert (flow.gate, flows.gate(flow.workflow_id)) == (gate, gate)
    assert flows.gate(JobId("w2")) == 9


def test_workflows_are_told_the_newest_first() -> None:
    """Of one tenant or of all, behind one, so many at most."""
    flows = Workflows()
    for number in (2, 4, 1, 3):
        flow = flow_of(number, "even" if number % 2 == 0 else "odd")
        flows.records[flow.workflow_id] = flow

    def page(tenant: str, before: str, count: int = 9) -> list[str]:
        return [flow.workflow_id for flow in flows.page(tenant, before, count)]

    assert page("", "") == ["w4", "w3", "w2", "w1"]
    assert page("", "", 3) == ["w4", "w3", "w2"]
    assert page("", "w3") == ["w2", "w1"]
    assert page("odd", "w3") == ["w1"]
    assert page("even", "") == ["w4", "w2"]
    assert page("none", "") == []


def test_members_are_known_until_they_are_gone() -> None:
    """In their order, a part at a time; a workflow without any is not there."""
    rig = Rig()
    flow, other = opened(rig), opened(rig)
    ids = [member(rig, flow) for _ in range(4)]
    flows = state_of(rig.partition).workflows
    assert flows.members_from(flow.workflow_id, 0, 9) == ids
    assert flows.members_from(flow.workflow_id, 1, 2) == ids[1:3]
    assert flows.members_from(other.workflow_id, 0, 9) == []
    records = [rig.record(job_id) for job_id in ids]
    alone = Workflows()
    for record in records[:2]:
        alone.join(record)
    for record, left in zip((records[2], *records[:2], records[0]), (2, 1, 0, 0), strict=True):
        alone.leave(record)
        assert len(alone.members_from(flow.workflow_id, 0, 9)) == left
    assert alone.members == {}


def test_timers_of_workflows_are_armed_anew_after_a_replay() -> None:
    """In steps, so that a hundred thousand hold nobody up."""
    flows = Workflows()
    for number in range(5_000):
        flow = flow_of(number)
        flows.records[flow.workflow_id] = flow
    steps = flows.rebuild_timers()
    next(steps)
    assert len(flows.timers) == 4_096
    assert list(steps) == []
    assert len(flows.timers) == 5_000
    assert flows.timers.next_ms() == 3


def test_workflows_that_were_armed_over_and_over_are_thinned_out() -> None:
    """Each is told from others by its id, and stays armed."""
    flows = Workflows()
    for number in range(3):
        flow = flow_of(number)
        flows.records[flow.workflow_id] = flow
    assert list(flows.rebuild_timers()) == []
    for _ in range(1_600):
        flows.timers.arm(flow)
    assert len(flows.timers) < 800
    assert {each.workflow_id for _, each in flows.timers.things()} == flows.records.keys()
