"""The bare pipe that benchmarks compare with, as real processes."""

import pytest

from benchmarks import throughput
from benchmarks.store import StoreKind


@pytest.mark.parametrize("kind", ["none", "sqlite", pytest.param("etcd", marks=pytest.mark.etcd)])
def test_every_job_passes_the_pipe_once(kind: StoreKind) -> None:
    """Its client fails on a lost, doubled or changed job, so a figure proves that none was."""
    assert throughput.measure_pipe(kind, 2_000).jobs_per_s > 0
