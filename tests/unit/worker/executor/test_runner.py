"""How jobs begin, whatever runs them."""

import pytest

from tenure.protocol.vocabulary import AttemptOutcome
from tests.unit.worker.executor.bench import bench


@pytest.mark.parametrize("name", ["double", "double_async", "double_in_child"])
def test_a_job_that_was_stopped_before_its_turn_does_not_run(name: str) -> None:
    """A stop may meet it on its way back from a child in which it had not begun: nobody is there to
    be told, so its code is not called, and its slot is free for the next.
    """
    with bench(name, slots=1) as pool:
        job = pool.job(name, 2)
        job.stop = AttemptOutcome.CANCELLED
        other = pool.job(name, 2)
        results = pool.run(job, other)
        outcomes = [result.outcome for result in results]
        assert outcomes == [AttemptOutcome.CANCELLED, AttemptOutcome.COMPLETED]
        assert job.started_ms is None
