"""The whole worker's work: how many jobs it takes in advance."""

import pytest

from tenure.protocol.fence import Token
from tenure.protocol.prefetch import PREFETCH_MS
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.held import AttemptResult, HeldJob, Terms
from tenure.worker.workload import Workload

SLOTS = 10
BROKEN_OFF = (AttemptOutcome.CANCELLED, AttemptOutcome.RELEASED, AttemptOutcome.LOST)


def ran(run_ms: int, outcome: AttemptOutcome) -> HeldJob:
    """A job that has run so long, and ended so."""
    job = HeldJob(
        job_id="job",
        partition=0,
        token=Token(1, 1),
        seq=1,
        run=0,
        attempt=1,
        terms=Terms("app.job"),
        payload=b"x",
        expires_ms=0,
    )
    assert job.begin(1_000)
    assert job.finish(AttemptResult(outcome), 1_000 + run_ms)
    return job


@pytest.mark.parametrize("outcome", BROKEN_OFF)
def test_runs_that_were_broken_off_are_not_brief_ones(outcome: AttemptOutcome) -> None:
    """Long jobs of which many are cancelled at once are as long as before."""
    workload = Workload(SLOTS)
    for _ in range(50):
        workload.note_run(ran(1, outcome))
    assert workload.prefetch == 0
    workload.note_run(ran(60_000, AttemptOutcome.COMPLETED))
    for _ in range(500):
        workload.note_run(ran(1, outcome))
    assert workload.prefetch == 0


@pytest.mark.parametrize("outcome", [o for o in AttemptOutcome if o not in BROKEN_OFF])
def test_runs_that_ended_by_themselves_count(outcome: AttemptOutcome) -> None:
    """However they ended: as many are taken in advance as 50 ms are worth."""
    workload = Workload(SLOTS)
    workload.note_run(ran(10, outcome))
    assert workload.prefetch == SLOTS * PREFETCH_MS // 10
