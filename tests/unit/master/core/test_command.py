"""Commands: each of them, on a job in each state, in and out of a window, replays to the same."""

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Final, get_args

import pytest

from tenure.master.core import command as commands
from tenure.master.core.bulk import BatchSpec
from tenure.master.core.command import CheckpointRow, Command, LeaseRow, SubmitRow, SubmitSetting
from tenure.master.core.effect import GrantRow
from tenure.master.core.message import RegisterChild
from tenure.master.core.query import Filter
from tenure.master.core.record import Policy, RetryPolicy
from tenure.master.core.settings import QueueSettings
from tenure.protocol.fence import Lease, Token
from tenure.protocol.ids import JobId, mint
from tenure.protocol.refusal import Refusal
from tenure.protocol.vocabulary import AttemptOutcome, BatchKind, JobState
from tests.unit.master.core.audit import dump, state_of
from tests.unit.master.core.planner import SPEC, agree, put
from tests.unit.master.core.rig import START_MS, Rig, held, report_row

ELSEWHERE: Final = 5
WORKFLOW: Final = mint(0, START_MS, 7)
CHILD_ELSEWHERE: Final = mint(ELSEWHERE, START_MS, 7)
PATIENT: Final = Policy(name="job", retry=RetryPolicy(base_ms=50_000))
#: How a job comes to its state by its first attempt's end.
OUTCOMES: Final = {
    JobState.COMPLETED: AttemptOutcome.COMPLETED,
    JobState.FAILED: AttemptOutcome.FAILED_PERMANENT,
    JobState.RETRYING: AttemptOutcome.FAILED,
}


def job_in(rig: Rig, state: JobState) -> JobId:
    """A new job in a state; whatever else there is waits for the day after tomorrow."""
    if state is JobState.BLOCKED:
        child = SubmitRow(rig.mint(), 0, b"", "", parents=(rig.submit_one(delay_ms=1 << 30),))
        rig.submit_rows([child], PATIENT)
        return child.job_id
    job_id = rig.submit_one(PATIENT, delay_ms=5_000 if state is JobState.SCHEDULED else 0)
    if state is JobState.CANCELLED:
        rig.do(commands.CancelJobs(job_ids=[job_id]))
    elif state is JobState.RUNNING or state in OUTCOMES:
        row = rig.grant_one()
        if state in OUTCOMES:
            rig.report(row, OUTCOMES[state])
    return job_id


def world(state: JobState) -> tuple[Rig, JobId]:
    """A partition with a worker, a job in a state, and one of everything that commands act on."""
    rig = Rig()
    rig.open_session(1)
    job_id = job_in(rig, state)
    assert rig.state(job_id) is state
    put(rig)
    rig.do(
        commands.OpenWorkflow(
            workflow_id=WORKFLOW, name="w", tenant="default", seal_within_ms=60_000
        )
    )
    spec = BatchSpec(kind=BatchKind.CANCEL, filter="name = job", reason="all of them")
    rig.do(commands.CreateBatch(batch_id="b", spec=spec, matched=1))
    message = RegisterChild(parent=job_id, child=CHILD_ELSEWHERE, run=0)
    rig.do(
        commands.TakeMessage(
            source=ELSEWHERE, token=Token(1, 1), number=1, after=0, message=message
        )
    )
    rig.do(commands.ResolveDependents(rows_max=10))
    return rig, job_id


def lease_row(rig: Rig, job_id: JobId) -> LeaseRow:
    """A job's lease; one that was never given if it has none."""
    return LeaseRow(job_id, rig.record(job_id).lease or Lease(rig.token, 1, 0))


def submit(rig: Rig, job_id: JobId) -> Command:
    """The job again, and a child of it."""
    rows = [
        SubmitRow(job_id, 0, b"payload", ""),
        SubmitRow(rig.mint(), 0, b"", "", parents=(job_id,)),
    ]
    return commands.SubmitJobs(settings=[SubmitSetting(PATIENT, 5, 0, 0)], rows=rows)


def take_message(rig: Rig, job_id: JobId) -> Command:
    """Another job of elsewhere waits for the job."""
    message = RegisterChild(parent=job_id, child=mint(ELSEWHERE, START_MS, 8), run=0)
    return commands.TakeMessage(
        source=ELSEWHERE, token=Token(1, 1), number=2, after=1, message=message
    )


def open_session(rig: Rig, job_id: JobId) -> Command:
    """Another stream of the worker."""
    return commands.OpenSession(
        session_id=9,
        incarnation="w1",
        worker="w",
        job_names=frozenset({"job"}),
        queues=frozenset(),
        slots=5,
    )


#: A command of each kind, about the job.
COMMANDS: Final[dict[type, Callable[[Rig, JobId], Command]]] = {
    commands.OpenWorkflow: lambda rig, job_id: commands.OpenWorkflow(
        workflow_id=rig.mint(), name="other", tenant="default", seal_within_ms=1_000
    ),
    commands.SealWorkflow: lambda rig, job_id: commands.SealWorkflow(
        workflow_id=WORKFLOW, members=0
    ),
    commands.CancelWorkflow: lambda rig, job_id: commands.CancelWorkflow(workflow_id=WORKFLOW),
    commands.RetryWorkflow: lambda rig, job_id: commands.RetryWorkflow(workflow_id=WORKFLOW),
    commands.SubmitJobs: submit,
    commands.CancelJobs: lambda rig, job_id: commands.CancelJobs(job_ids=[job_id]),
    commands.RequeueJobs: lambda rig, job_id: commands.RequeueJobs(job_ids=[job_id]),
    commands.PurgeJobs: lambda rig, job_id: commands.PurgeJobs(job_ids=[job_id]),
    commands.BoostJobs: lambda rig, job_id: commands.BoostJobs(
        job_ids=[job_id], priority=1, delay_ms=9_000
    ),
    commands.UpdateSettings: lambda rig, job_id: commands.UpdateSettings(
        key=("default", "default"), settings=QueueSettings(concurrency=1)
    ),
    commands.PutSchedule: lambda rig, job_id: commands.PutSchedule(
        tenant="default", name="other", spec=SPEC
    ),
    commands.PauseSchedule: lambda rig, job_id: commands.PauseSchedule(
        tenant="default", name="s", paused=True
    ),
    commands.TriggerSchedule: lambda rig, job_id: commands.TriggerSchedule(
        tenant="default", name="s", job_id=rig.mint()
    ),
    commands.DeleteSchedule: lambda rig, job_id: commands.DeleteSchedule(
        tenant="default", name="s"
    ),
    commands.OpenTerm: lambda rig, job_id: commands.OpenTerm(
        token=Token(1, 1_000), incarnation="m9", window_ms=3_000
    ),
    commands.CloseTerm: lambda rig, job_id: commands.CloseTerm(),
    commands.OpenSession: open_session,
    commands.CloseSession: lambda rig, job_id: commands.CloseSession(session_id=1),
    commands.DrainSession: lambda rig, job_id: commands.DrainSession(session_id=1),
    commands.UndrainSession: lambda rig, job_id: commands.UndrainSession(session_id=1),
    commands.MarkSession: lambda rig, job_id: commands.MarkSession(
        session_id=1, reason="its disk", by_hand=False, for_ms=5
    ),
    commands.DeclareLeases: lambda rig, job_id: commands.DeclareLeases(
        session_id=1, rows=[held(lease_row(rig, job_id))]
    ),
    commands.RenewLeases: lambda rig, job_id: commands.RenewLeases(
        session_id=1, number=9, last_assignment=9, rows=[held(lease_row(rig, job_id))]
    ),
    commands.SendHeld: lambda rig, job_id: commands.SendHeld(
        session_id=1, rows=[GrantRow(rig.record(job_id), lease_row(rig, job_id).lease.seq, 1, 0)]
    ),
    commands.AcceptAssignment: lambda rig, job_id: commands.AcceptAssignment(
        session_id=1, number=9
    ),
    commands.StartLeases: lambda rig, job_id: commands.StartLeases(
        session_id=1, rows=[lease_row(rig, job_id)]
    ),
    commands.SaveCheckpoints: lambda rig, job_id: commands.SaveCheckpoints(
        session_id=1, rows=[CheckpointRow(*lease_row(rig, job_id), 1, b"saved")]
    ),
    commands.ReturnLeases: lambda rig, job_id: commands.ReturnLeases(
        session_id=1, rows=[lease_row(rig, job_id)]
    ),
    commands.ReportAttempts: lambda rig, job_id: commands.ReportAttempts(
        session_id=1, rows=[report_row(lease_row(rig, job_id))], jitter=[0.5]
    ),
    commands.Dispatch: lambda rig, job_id: commands.Dispatch(
        credits=[(1, 9)], committed_seq=rig.partition.next_seq - 1, grants_max=9
    ),
    commands.FireTimers: lambda rig, job_id: commands.FireTimers(rows_max=99, jitter=[0.5]),
    commands.CloseWindow: lambda rig, job_id: commands.CloseWindow(jitter=[0.5]),
    commands.ResolveDependents: lambda rig, job_id: commands.ResolveDependents(rows_max=9),
    commands.TakeMessage: take_message,
    commands.TrimOutbox: lambda rig, job_id: commands.TrimOutbox(target=ELSEWHERE, upto=1),
    commands.CreateBatch: lambda rig, job_id: commands.CreateBatch(
        batch_id="other", spec=BatchSpec(kind=BatchKind.PURGE, filter="", reason=""), matched=1
    ),
    commands.AdvanceBatch: lambda rig, job_id: commands.AdvanceBatch(
        batch_id="b", scan=rig.partition.scan(Filter()), rows_max=9, looks_max=9
    ),
    commands.CancelBatch: lambda rig, job_id: commands.CancelBatch(batch_id="b"),
    commands.RestartLeases: lambda rig, job_id: commands.RestartLeases(),
    commands.PushDeadlines: lambda rig, job_id: commands.PushDeadlines(gap_ms=3_000),
}


def test_no_command_is_left_out() -> None:
    """Neither of what a partition takes nor of what is tried here; the machine draws them all."""
    declared = {kind for kind in vars(commands).values() if is_dataclass(kind)}
    assert declared == set(get_args(Command)) == COMMANDS.keys()


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("in_window", [False, True])
def test_every_command_on_every_state_replays_to_the_same_state(
    kind: type, in_window: bool
) -> None:
    """S9: what was decided is what a successor reads, from the journal and from a snapshot.

    Deciding itself changes nothing.
    """
    for state in JobState:
        rig, job_id = world(state)
        if in_window:
            rig.crash(window_ms=3_000)
            rig.open_session(1)
        rig.now_ms += 10_000
        before = dump(state_of(rig.partition))
        decision = rig.partition.decide(COMMANDS[kind](rig, job_id), rig.now_ms)
        assert dump(state_of(rig.partition)) == before
        if not isinstance(decision, Refusal):
            rig.do(COMMANDS[kind](rig, job_id))
        agree(rig)
