"""What a job costs in memory."""

import gc
import tracemalloc

import pytest

from tenure.master.core import command as commands
from tenure.master.core.command import SubmitRow, SubmitSetting
from tests.unit.master.core.rig import JOB, Rig

COUNT = 10_000


@pytest.mark.parametrize("batch", [1, 250])
@pytest.mark.parametrize("recovered", [False, True])
def test_queued_job_costs_at_most_1_kib(batch: int, recovered: bool) -> None:
    """A queued job takes at most 1 KiB beyond its payload, live and after a replay."""
    rig = Rig()
    setting = SubmitSetting(JOB, 5, 0, 0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(COUNT // batch):
            rows = [SubmitRow(rig.mint(), 0, b"", "") for _ in range(batch)]
            command = commands.SubmitJobs(settings=[setting], rows=rows)
            for event in rig.decide(command).events:
                rig.partition.apply(event)
        if recovered:
            rig.partition.finish_replay()
            # What was derived before is in cycles: no recovery has such a thing to drop.
            gc.collect()
        spent = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert rig.partition.stats().ready == COUNT
    assert spent / COUNT <= 1_024
