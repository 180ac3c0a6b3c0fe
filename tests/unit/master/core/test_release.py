"""What children leave behind in their parents' partitions, however they end: nothing."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core import command as commands
from tenure.master.core.command import SubmitRow
from tenure.master.core.record import RetryPolicy
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import TERMINAL, JobState, ParentFailure, RunIf
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import Rig
from tests.unit.master.core.town import Town


def check_nothing_is_left(town: Town) -> None:
    """No partition keeps anything for another one, nor has anything to say to it."""
    town.calm()
    for rig in town.rigs:
        state = state_of(rig.partition)
        kept = state.dependencies
        assert (kept.foreign, kept.registered, kept.unsent) == ({}, {}, {})
        assert (kept.children, kept.waiting, kept.unsettled) == ({}, {}, {})
        assert state.outbox.targets() == []
        assert rig.replayed().state_hash() == rig.partition.state_hash()


def cancel(town: Town, *job_ids: JobId) -> None:
    """A client cancels jobs."""
    for job_id in job_ids:
        town.rig_of(job_id).do(commands.CancelJobs(job_ids=[job_id]))


def test_a_child_that_is_cancelled_before_its_parent_was_asked() -> None:
    """What was not said yet need not be; what was is taken back."""
    for said in (False, True):
        town = Town()
        parent, _ = town.submit(1)
        child, _ = town.submit(0, [parent])
        if said:
            town.resolve(0)
        cancel(town, child)
        town.calm()
        cancel(town, parent)
        check_nothing_is_left(town)


def test_a_child_whose_client_gave_up() -> None:
    """Its submit was never answered, and its parent never was: both partitions forget it.

    So too when the word that there is no such parent comes after the child was cancelled.
    """
    for late in (False, True):
        town = Town()
        here, there = town.rigs
        nobody = there.mint()
        row = SubmitRow(here.mint(), 0, b"", "", parents=(nobody,))
        here.submit_rows([row], town.policy(0))
        town.resolve(0)
        town.carry(0, 1)
        if late:
            cancel(town, row.job_id)
        check_nothing_is_left(town)
        assert not any(state_of(rig.partition).dependencies.pins(nobody) for rig in town.rigs)


def test_a_parent_is_purged_in_its_time_when_nobody_waits_any_more() -> None:
    """A registration that stayed behind would keep it, and its result, for ever."""
    town = Town()
    parent, _ = town.submit(1, result_ttl_ms=60_000)
    child, _ = town.submit(0, [parent])
    town.calm()
    town.end(parent)
    there = town.rigs[1]
    there.pass_time(70_000)
    assert there.partition.get(parent) is there.record(parent)
    town.rigs[0].now_ms = there.now_ms
    cancel(town, child)
    check_nothing_is_left(town)
    there.pass_time(1_000)
    assert parent not in state_of(there.partition).jobs


@given(seed=st.integers(0, 2**32), partitions=st.sampled_from([2, 3]))
def test_nothing_is_left_behind(seed: int, partitions: int) -> None:
    """After all jobs of any graph have ended, in any way, on roads that lose and repeat."""
    rng, town = Random(seed), Town(partitions)
    jobs: list[JobId] = []
    for _ in range(rng.randint(2, 12)):
        parents = rng.sample(jobs, min(len(jobs), rng.randint(0, 2)))
        if rng.random() < 0.3:
            parents.append(rng.choice(town.rigs).mint())
        job_id, reply = town.submit(
            rng.randrange(partitions),
            parents,
            retry=RetryPolicy(max_attempts=1),
            run_if=rng.choice(list(RunIf)),
            on_parent_failure=rng.choice(list(ParentFailure)),
        )
        if not reply.refusals:
            jobs.append(job_id)
        for _ in range(rng.randint(0, 4)):
            town.stumble(rng)
        if jobs and rng.random() < 0.4:
            _disturb(town, rng.choice(jobs), rng)
    town.calm()
    for job_id in jobs:
        if (state := _state(town, job_id)) is not None and state not in TERMINAL:
            cancel(town, job_id)
            town.stumble(rng)
    for rig in town.rigs:
        _finish_running(rig)
    check_nothing_is_left(town)


def _state(town: Town, job_id: JobId) -> JobState | None:
    record = state_of(town.rig_of(job_id).partition).jobs.get(job_id)
    return None if record is None else record.state


def _disturb(town: Town, job_id: JobId, rng: Random) -> None:
    """Somebody cancels a job, gives it a new run, or works."""
    rig, state = town.rig_of(job_id), _state(town, job_id)
    match rng.choice(("cancel", "requeue", "work")):
        case "cancel" if state is not None:
            cancel(town, job_id)
        case "requeue" if state in (JobState.FAILED, JobState.CANCELLED):
            rig.do(commands.RequeueJobs(job_ids=[job_id]))
        case "work":
            session_id = 1 + len(rig.journal)
            rig.open_session(session_id)
            for row in rig.grant(session_id, rng.randint(1, 3)):
                rig.report(row, session_id=session_id)
        case _:
            pass


def _finish_running(rig: Rig) -> None:
    """Whoever was asked to stop says that it has."""
    for record in list(state_of(rig.partition).jobs.values()):
        assert record.state is not JobState.BLOCKED
        assert record.state is not JobState.RUNNING
