"""The whole worker's work: how many jobs it takes in advance."""

import pytest

from tenure.protocol.fence import Token
from tenure.protocol.prefetch import PREFETCH_MS
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.held import AttemptResult, HeldJob, Terms
from tenure.worker.workload import PREFETCH_BYTES_MAX, Workload

SLOTS = 10
BROKEN_OFF = (AttemptOutcome.CANCELLED, AttemptOutcome.RELEASED, AttemptOutcome.LOST)


def granted(name: str = "app.job", payload: bytes = b"x") -> HeldJob:
    """A job as it comes."""
    return HeldJob(
        job_id="job",
        partition=0,
        token=Token(1, 1),
        seq=1,
        run=0,
        attempt=1,
        terms=Terms(name),
        payload=payload,
        expires_ms=0,
    )


def ran(run_ms: int, outcome: AttemptOutcome, payload: bytes = b"x") -> HeldJob:
    """A job that has run so long, and ended so."""
    job = granted(payload=payload)
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


class TestBatches:
    """Items of batch handlers: held together, they take few slots."""

    def test_call_takes_one_slot_and_has_room_until_it_is_full(self) -> None:
        """The first item brings credit for the rest of its call; a full one counts as one job."""
        workload = Workload(2, {"rows": 100})
        assert workload.pool == 2
        _grant(workload, "rows", 1)
        assert workload.pool == 1 + 99
        _grant(workload, "rows", 99)
        assert workload.pool == 1
        _grant(workload, "rows", 1)
        assert workload.pool == 99
        _grant(workload, "rows", 99)
        assert workload.pool == 0

    def test_no_room_without_a_slot(self) -> None:
        """Items that could not run here yet are left to other workers."""
        workload = Workload(1, {"rows": 100})
        _grant(workload, "app.job", 1)
        _grant(workload, "rows", 1)
        assert workload.pool == 0

    def test_what_ends_frees_what_it_took(self) -> None:
        """After any mixture has ended the pool is what it was."""
        workload = Workload(4, {"rows": 10, "lines": 3})
        jobs = [
            job
            for name, count in (("rows", 25), ("app.job", 2), ("lines", 4))
            for job in _grant(workload, name, count)
        ]
        assert (workload.pool, workload.calls) == (0, 3 + 2 + 2)
        for job in jobs:
            workload.free(job)
        assert (workload.pool, workload.occupied, workload.calls) == (4, 0, 0)

    def test_room_is_bounded_in_bytes(self) -> None:
        """No more large payloads are asked for than may wait here."""
        workload = Workload(1, {"rows": 1_000})
        large = b"x" * (256 * 1024)
        for _ in range(100):
            workload.note_run(ran(60_000, AttemptOutcome.COMPLETED, large))
        _grant(workload, "rows", 1)
        assert workload.pool == PREFETCH_BYTES_MAX // len(large)

    def test_drain_takes_nothing_more(self) -> None:
        """A batch that is not full is no reason to."""
        workload = Workload(1, {"rows": 100})
        _grant(workload, "rows", 1)
        workload.stopping = True
        assert workload.pool == 0


def _grant(workload: Workload, name: str, count: int) -> list[HeldJob]:
    jobs = [granted(name) for _ in range(count)]
    workload.runs.extend(jobs)
    workload.granted(count)
    return jobs
