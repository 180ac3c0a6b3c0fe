"""What jobs in children have to do with others: their results, and the children that they share."""

import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from tenure.client.parent_result import placeholder
from tenure.protocol.vocabulary import AttemptOutcome, JobState
from tenure.v1 import jobs_pb2
from tests.unit.worker.executor.bench import WAIT_S, Bench, bench, no_threads, until_exists
from tests.unit.worker.executor.test_process import executor_of
from tests.unit.worker.masters import job_id

MODULE = "tests.unit.worker.relatives"


class Family:
    """Results of other jobs: all the same, or each its job's id; who asks first waits longer."""

    def __init__(self, value: bytes | None = None) -> None:
        self._value = value
        self._asked = 0
        self._second = threading.Event()

    def fetch(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        """Their final states."""
        self._asked += 1
        if self._asked == 2:
            self._second.set()
        elif self._value is None:
            self._second.wait(WAIT_S)
        return [
            jobs_pb2.JobResult(
                job_id=found,
                state=JobState.COMPLETED,  # type: ignore[arg-type]
                result=msgspec.msgpack.encode(self._value or found),
            )
            for found in job_ids
        ]

    async def fetch_async(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        """Nobody waits in a loop here."""
        raise NotImplementedError


def until_ready(pool: Bench) -> None:
    """Waits for the first child: it is the one that jobs go to when it is idle."""
    found, tick = executor_of(pool), threading.Event()
    while not (found._children and found._children[0].is_ready):
        tick.wait(0.005)


def test_many_long_results_come_in_parts() -> None:
    """They are more than one frame may have, and arrive whole, in the child that runs the job."""
    count, size = 100, 250_000
    with bench("weigh_in_child", module=MODULE, parents=Family(bytes(size))) as pool:
        ids = placeholder([job_id(number) for number in range(count)])
        (result,) = pool.run(pool.job("weigh_in_child", ids))
        assert result.fault is None
        assert msgspec.msgpack.decode(result.result) == [size] * count


def test_who_asks_is_answered() -> None:
    """Two threads of a job ask at one time, and are answered the other way round: each gets what it
    has asked for.
    """
    ids = [[job_id(number) for number in numbers] for numbers in (range(3), range(3, 6))]
    with bench("zip_in_child", module=MODULE, parents=Family()) as pool:
        (result,) = pool.run(pool.job("zip_in_child", *map(placeholder, ids)))
        assert result.fault is None
        assert msgspec.msgpack.decode(result.result) == ids


def test_what_a_job_leaves_behind_speaks_for_nobody_else(tmp_path: Path) -> None:
    """A thread that outlives its job saves nothing for the next one in its child."""
    go, started, release = (str(tmp_path / name) for name in ("go", "started", "release"))
    with bench("litter_in_child", "sit_in_child", slots=1, module=MODULE) as pool:
        until_ready(pool)
        (first,) = pool.run(pool.job("litter_in_child", go))
        job = pool.begin(pool.job("sit_in_child", started, release), Path(started))
        Path(go).touch()
        until_exists(Path(f"{go}.done"))
        Path(release).touch()
        pool.until(lambda: job.result is not None)
        assert job.result is not None
        assert job.result.result == first.result, "expected both in one child"
        assert (job.saved, job.progress) == (None, 0)


def test_what_a_job_leaves_behind_does_not_end_its_child(tmp_path: Path) -> None:
    """A thread that speaks when no job runs is not heard, and the child lives."""
    go, started, release = (str(tmp_path / name) for name in ("go", "started", "release"))
    Path(release).touch()
    with bench("litter_in_child", "sit_in_child", slots=1, module=MODULE) as pool:
        until_ready(pool)
        (first,) = pool.run(pool.job("litter_in_child", go))
        Path(go).touch()
        until_exists(Path(f"{go}.done"))
        (second,) = pool.run(pool.job("sit_in_child", started, release))
        assert second.result == first.result


def test_results_that_cannot_be_fetched_now_cost_the_job_that_wants_them() -> None:
    """There can be no more threads: it fails, to be tried again, and the children go on."""
    with bench("weigh_in_child", module=MODULE, parents=Family(b"x")) as pool:
        ids = placeholder([job_id(1)])
        with no_threads("tenure-parents"):
            (result,) = pool.run(pool.job("weigh_in_child", ids))
            assert result.outcome is AttemptOutcome.FAILED
            assert result.fault is not None
            assert "can't start new thread" in result.fault.message
        (result,) = pool.run(pool.job("weigh_in_child", ids))
        assert result.outcome is AttemptOutcome.COMPLETED


@pytest.mark.parametrize(
    "name",
    [
        "fork_and_return",
        "fork_and_return_in_child",
        "fork_and_return_all",
        "fork_and_return_all_async",
    ],
)
@pytest.mark.parametrize("fails", [False, True])
def test_a_copy_that_a_job_has_forked_ends_with_its_code(name: str, fails: bool) -> None:
    """It answers nobody, and takes no other job: what the original returns counts."""
    with bench(name, slots=1, module=MODULE) as pool:
        jobs = [pool.job(name, fails) for _ in range(3)]
        for result in pool.run(*jobs):
            assert result.fault is None
            assert msgspec.msgpack.decode(result.result) is False
