"""The transition table over its full product, and every decision's word against it."""

from collections.abc import Callable

import pytest

from tenure.master.core import command as commands
from tenure.master.core.record import Policy, RetryPolicy
from tenure.master.core.transition import OPEN, QUEUED, TABLE, TERMINAL, Move, sources
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import AttemptOutcome, JobState
from tests.unit.master.core.rig import Rig

STATES = [state for state in JobState if state is not JobState.BLOCKED]


def test_full_product() -> None:
    """Every (move, state) is either in the table, or no command makes it."""
    expected = {
        Move.SUBMIT: {None},
        Move.SCHEDULE: {None},
        Move.POSTPONE: {JobState.PENDING},
        Move.READY: {JobState.SCHEDULED, JobState.RETRYING},
        Move.GRANT: {JobState.PENDING},
        Move.BLOCK: {None},
        Move.FREE: {JobState.BLOCKED},
        Move.DEFER: {JobState.BLOCKED},
        Move.FAIL_WITH: {JobState.BLOCKED},
        Move.WITHDRAW: {JobState.BLOCKED},
        Move.REBLOCK: {JobState.FAILED, JobState.CANCELLED},
        Move.ADOPT: OPEN - {JobState.BLOCKED},
        Move.COMPLETE: {JobState.PENDING, JobState.RUNNING, JobState.RETRYING},
        Move.RETRY: {JobState.RUNNING},
        Move.RELEASE: {JobState.RUNNING},
        Move.FAIL: {JobState.RUNNING},
        Move.STOP: {JobState.RUNNING},
        Move.REQUEST_CANCEL: {JobState.RUNNING},
        Move.CANCEL: set(QUEUED),
        Move.EXPIRE: QUEUED - {JobState.BLOCKED},
        Move.REQUEUE: {JobState.FAILED, JobState.CANCELLED},
        Move.PURGE: set(TERMINAL),
    }
    assert set(expected) == set(Move)
    for move in Move:
        for state in (None, *JobState):
            assert ((move, state) in TABLE) == (state in expected[move]), (move, state)


def test_each_move_leads_to_one_state() -> None:
    """A move's target does not depend on where it starts."""
    for move in Move:
        assert len({to for (by, _), to in TABLE.items() if by is move}) == 1


def test_states_partition() -> None:
    """A state is queued, running or terminal; nothing leaves a terminal state by itself."""
    assert QUEUED | {JobState.RUNNING} == OPEN
    assert set(JobState) == OPEN | TERMINAL
    assert not OPEN & TERMINAL
    for state in TERMINAL:
        leaving = {move for (move, origin) in TABLE if origin is state}
        assert leaving <= {Move.REQUEUE, Move.REBLOCK, Move.PURGE}


def bring_to(rig: Rig, state: JobState) -> JobId:
    """A new job in the given state."""
    patient = Policy(name="job", retry=RetryPolicy(base_ms=50_000))
    job_id = rig.submit_one(patient, delay_ms=5_000 if state is JobState.SCHEDULED else 0)
    outcomes = {
        JobState.COMPLETED: AttemptOutcome.COMPLETED,
        JobState.FAILED: AttemptOutcome.FAILED_PERMANENT,
        JobState.RETRYING: AttemptOutcome.FAILED,
    }
    if state is JobState.CANCELLED:
        rig.do(commands.CancelJobs(job_ids=[job_id]))
    elif state in outcomes:
        rig.report(rig.grant_one(), outcomes[state])
    elif state is JobState.RUNNING:
        rig.grant_one()
    assert rig.state(job_id) is state
    return job_id


def _cancel(rig: Rig, job_id: JobId) -> None:
    rig.do(commands.CancelJobs(job_ids=[job_id]))


def _requeue(rig: Rig, job_id: JobId) -> None:
    rig.do(commands.RequeueJobs(job_ids=[job_id]))


def _purge(rig: Rig, job_id: JobId) -> None:
    rig.do(commands.PurgeJobs(job_ids=[job_id]))


def _grant(rig: Rig, job_id: JobId) -> None:
    rig.grant()


COMMANDS: list[tuple[Callable[[Rig, JobId], None], tuple[Move, ...]]] = [
    (_cancel, (Move.CANCEL, Move.REQUEST_CANCEL)),
    (_requeue, (Move.REQUEUE,)),
    (_purge, (Move.PURGE,)),
    (_grant, (Move.GRANT,)),
]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("act", "moves"), COMMANDS)
def test_commands_obey_the_table(
    state: JobState, act: Callable[[Rig, JobId], None], moves: tuple[Move, ...]
) -> None:
    """A command changes a job exactly where the table has its move, and as the table says."""
    rig = Rig()
    rig.open_session(1)
    job_id = bring_to(rig, state)
    act(rig, job_id)
    record = rig.partition.get(job_id)
    after = getattr(record, "state", None) if job_id in rig.partition._state.jobs else None
    targets = [TABLE[move, state] for move in moves if state in sources(move)]
    assert after == (targets[0] if targets else state)
