"""The rest of the family: parents and children of jobs, here and in another partition.

The other partition is a truth of its own: which of its jobs exist and what has become of them. It
says it as often as it likes, for it sends again what was not acknowledged.
"""

from hypothesis import strategies as st
from hypothesis.stateful import precondition

from tenure.master.core import command as commands
from tenure.master.core.command import SubmitRow, SubmitSetting
from tenure.master.core.dependency import GONE, OPEN
from tenure.master.core.effect import Decision, Taken
from tenure.master.core.message import (
    Message,
    ParentState,
    RegisterChild,
    ReleaseParent,
    SubmitFrom,
)
from tenure.master.core.record import Policy
from tenure.protocol.fence import Token
from tenure.protocol.ids import JobId, mint
from tenure.protocol.vocabulary import JobState, ParentFailure, RunIf
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.world import CONFIG, SEEN, World, step

ELSEWHERE = 5
KIN = [
    Policy(name="a"),
    Policy(name="b", run_if=RunIf.ANY_FAILED),
    Policy(name="a", run_if=RunIf.ALWAYS),
    Policy(name="b", on_parent_failure=ParentFailure.IGNORE),
    Policy(name="a", on_parent_failure=ParentFailure.HOLD, result_ttl_ms=20_000),
]
FATES = st.sampled_from([OPEN, OPEN, GONE, *map(int, (JobState.COMPLETED, JobState.FAILED))])


class Kin(World):
    """Rules about jobs that wait for others."""

    def __init__(self) -> None:
        super().__init__()
        #: Jobs of the other partition, and what they are to their children here.
        self.fates: dict[JobId, int] = {}
        #: Its children of jobs here, and their runs.
        self.wards: dict[tuple[JobId, JobId], int] = {}
        self.workflows: list[JobId] = []

    @step(
        data=st.data(),
        policy=st.sampled_from(KIN),
        parents=st.integers(0, 3),
        fate=st.one_of(st.none(), FATES),
    )
    def submit_child(
        self, data: st.DataObject, policy: Policy, parents: int, fate: int | None
    ) -> None:
        """A client submits a job that waits for others, perhaps of the other partition."""
        here = list(state_of(self.partition).jobs)[-12:]
        wanted = st.lists(st.sampled_from(here), min_size=0, max_size=parents) if here else None
        ids = list(dict.fromkeys(data.draw(wanted))) if wanted is not None else []
        if fate is not None:
            self.minted += 1
            stranger = mint(ELSEWHERE, self.now_ms, self.minted * 0x9E3779B97F4A7C15)
            self.fates[stranger] = fate
            ids.append(stranger)
        self.minted += 1
        job_id = mint(CONFIG.partition, self.now_ms, self.minted * 0x9E3779B97F4A7C15)
        self.ids.append(job_id)
        row = SubmitRow(job_id, 0, b"", "", parents=tuple(ids))
        self.send(SubmitSetting(policy, 5, 0, 0), [row])

    @step(within_ms=st.sampled_from([1_000, 60_000]))
    def open_workflow(self, within_ms: int) -> None:
        """A client begins a workflow, or asks for that again."""
        self.minted += 1
        workflow_id = mint(CONFIG.partition, self.now_ms, self.minted * 0x9E3779B97F4A7C15)
        self.workflows.append(workflow_id)
        for _ in range(2):
            self.do(
                commands.OpenWorkflow(
                    workflow_id=workflow_id, name="w", tenant="t", seal_within_ms=within_ms
                )
            )

    @precondition(lambda self: self.workflows)
    @step(
        data=st.data(),
        policy=st.sampled_from(KIN),
        parents=st.integers(0, 2),
        fate=st.sampled_from([None, None, OPEN, int(JobState.COMPLETED), GONE]),
    )
    def submit_member(
        self, data: st.DataObject, policy: Policy, parents: int, fate: int | None
    ) -> None:
        """A client submits a member of a workflow, perhaps of one of the other partition."""
        workflow_id = data.draw(st.sampled_from(self.workflows[-3:]))
        if fate is not None:
            self.minted += 1
            workflow_id = mint(ELSEWHERE, self.now_ms, self.minted * 0x9E3779B97F4A7C15)
            self.fates[workflow_id] = fate
        here = list(state_of(self.partition).jobs)[-4:][:parents]
        self.minted += 1
        job_id = mint(CONFIG.partition, self.now_ms, self.minted * 0x9E3779B97F4A7C15)
        self.ids.append(job_id)
        row = SubmitRow(job_id, 0, b"", "", parents=(workflow_id, *here), workflow_id=workflow_id)
        self.send(SubmitSetting(policy, 5, 0, 0), [row])

    @precondition(lambda self: self.workflows)
    @step(data=st.data())
    def seal_workflow(self, data: st.DataObject) -> None:
        """A client has added all members that a workflow is to have."""
        workflow_id = data.draw(st.sampled_from(self.workflows[-3:]))
        self.do(commands.SealWorkflow(workflow_id=workflow_id, members=1))

    @precondition(lambda self: self.workflows)
    @step(data=st.data(), retries=st.booleans())
    def stop_workflow(self, data: st.DataObject, retries: bool) -> None:
        """A client cancels a workflow, and perhaps wants it to go on after all."""
        workflow_id = data.draw(st.sampled_from(self.workflows[-3:]))
        self.do(commands.CancelWorkflow(workflow_id=workflow_id, reason="enough"))
        if retries:
            self.do(commands.RetryWorkflow(workflow_id=workflow_id))

    @step(rows_max=st.integers(1, 4))
    def resolve(self, rows_max: int) -> None:
        """The node decides on dependents."""
        if self.partition.has_dependents_due():
            decision = self.do(commands.ResolveDependents(rows_max=rows_max))
            assert isinstance(decision, Decision)
            assert decision.events

    @precondition(lambda self: state_of(self.partition).dependencies.foreign)
    @step(data=st.data(), fate=FATES)
    def hear_of_a_parent(self, data: st.DataObject, fate: int) -> None:
        """The other partition tells what one of its jobs is now."""
        foreign = state_of(self.partition).dependencies.foreign
        child = data.draw(st.sampled_from(list(foreign)))
        parent = data.draw(st.sampled_from(list(foreign[child].states)))
        if self.fates[parent] == OPEN and fate != GONE:
            self.fates[parent] = fate
        run = data.draw(st.sampled_from([foreign[child].run, 0]))
        self.take(ParentState(parent=parent, child=child, run=run, state=self.fates[parent]))

    @precondition(lambda self: self.ids)
    @step(data=st.data(), leaves=st.booleans())
    def meet_a_ward(self, data: st.DataObject, leaves: bool) -> None:
        """A job of the other partition waits for one of here, or has ended."""
        if leaves and self.wards:
            parent, child = data.draw(st.sampled_from(list(self.wards)))
            run = self.wards.pop((parent, child))
            self.take(ReleaseParent(parent=parent, child=child, run=run))
            return
        self.minted += 1
        child = mint(ELSEWHERE, self.now_ms, self.minted * 0x9E3779B97F4A7C15)
        parent = data.draw(st.sampled_from(self.ids))
        self.wards[parent, child] = 0
        self.take(RegisterChild(parent=parent, child=child, run=0))

    @step()
    def get_a_job(self) -> None:
        """A schedule of the other partition has a tick."""
        self.minted += 1
        job_id = mint(CONFIG.partition, self.now_ms, self.minted * 0x9E3779B97F4A7C15)
        self.ids.append(job_id)
        self.take(SubmitFrom(policy=KIN[0], priority=5, ready_ms=0, job_id=job_id, payload=b""))

    @step(count=st.integers(1, 5))
    def trim(self, count: int) -> None:
        """The other partition has taken some messages, as far as they have committed."""
        self.commit_all()
        rows = self.partition.outbox_after(ELSEWHERE, 0, count)
        if rows:
            self.do(commands.TrimOutbox(target=ELSEWHERE, upto=rows[-1].number))

    def take(self, message: Message) -> None:
        """A message arrives, and a second time."""
        number = state_of(self.partition).inbox.get(ELSEWHERE).number + 1
        command = commands.TakeMessage(
            source=ELSEWHERE, token=Token(1, 1), number=number, after=number - 1, message=message
        )
        for _ in range(2):
            decision = self.do(command)
            if not isinstance(decision, Decision):
                return
            assert decision.reply == Taken(number=number)
            SEEN[type(message).__name__] += 1
        assert not decision.events

    def heal_kin(self, *, cancel: bool) -> None:
        """All goes well elsewhere; what is held is cancelled in the end."""
        dependencies = state_of(self.partition).dependencies
        for parent, child in list(self.wards):
            self.take(
                ReleaseParent(parent=parent, child=child, run=self.wards.pop((parent, child)))
            )
        while self.partition.has_dependents_due():
            self.do(commands.ResolveDependents(rows_max=50))
        self.trim(1_000)
        for child, foreign in list(dependencies.foreign.items()):
            for parent in list(foreign.states):
                if self.fates[parent] == OPEN:
                    self.fates[parent] = int(JobState.COMPLETED)
                state = self.fates[parent]
                self.take(ParentState(parent=parent, child=child, run=foreign.run, state=state))
        if cancel:
            blocked = [
                j for j, r in state_of(self.partition).jobs.items() if r.state is JobState.BLOCKED
            ]
            self.do(commands.CancelJobs(job_ids=blocked))
