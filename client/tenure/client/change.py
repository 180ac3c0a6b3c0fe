"""Batched changes of jobs: split by partition and size, verdicts in the order of the ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from google.protobuf.message import Message

from tenure.client.codec import encode_args
from tenure.client.errors import invalid
from tenure.client.router import Router
from tenure.protocol import limits
from tenure.protocol.errors import TenureError, error_of, refusal_from_wire
from tenure.protocol.vocabulary import JobState
from tenure.v1 import jobs_pb2

if TYPE_CHECKING:
    from tenure.client.client import AsyncClient
    from tenure.client.job import Step

_Verdicts = (
    jobs_pb2.CancelJobsResponse
    | jobs_pb2.RequeueJobsResponse
    | jobs_pb2.PurgeJobsResponse
    | jobs_pb2.BoostJobsResponse
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobVerdict:
    """What became of one job of a batched call.

    Attributes:
        job_id: The job.
        state: Its state after the call; None if it was purged or refused.
        error: Why it was refused; None if it was not.
    """

    job_id: str
    state: JobState | None
    error: TenureError | None

    def state_or_raise(self) -> JobState:
        """The state, or the error raised."""
        if self.error is not None:
            raise self.error
        if self.state is None:
            raise TenureError(f"expected a state of job {self.job_id}, but the answer had none")
        return self.state


class Change(NamedTuple):
    """A kind of change: the method, and what it answers."""

    method: str
    response_type: type[_Verdicts]


CANCEL: Final = Change("CancelJobs", jobs_pb2.CancelJobsResponse)
REQUEUE: Final = Change("RequeueJobs", jobs_pb2.RequeueJobsResponse)
PURGE: Final = Change("PurgeJobs", jobs_pb2.PurgeJobsResponse)
BOOST: Final = Change("BoostJobs", jobs_pb2.BoostJobsResponse)


async def change(
    router: Router,
    kind: Change,
    jobs: Iterable[tuple[str, int]],
    request: Callable[[Sequence[str]], Message],
    timeout_s: float,
) -> Sequence[JobVerdict]:
    """Changes jobs; one verdict for each, in order.

    Args:
        router: Finds leaders.
        kind: What to do.
        jobs: Their ids, and the partitions that they are at home in.
        request: The message for some ids of one partition.
        timeout_s: How long one call may take, failovers included.
    """
    ids: list[str] = []
    by_partition: dict[int, list[str]] = {}
    for job_id, partition in jobs:
        ids.append(job_id)
        by_partition.setdefault(partition, []).append(job_id)
    verdicts: dict[str, JobVerdict] = {}
    for partition, some in by_partition.items():
        for start in range(0, len(some), limits.BATCH_JOBS_MAX):
            response = await router.call(
                partition,
                f"/tenure.v1.JobService/{kind.method}",
                request(some[start : start + limits.BATCH_JOBS_MAX]),
                kind.response_type,
                timeout_s,
            )
            for row in response.verdicts:
                verdicts[row.job_id] = _verdict(row)
    return [verdicts[job_id] for job_id in ids]


async def requeue_with(client: AsyncClient, job_id: str, step: Step[Any]) -> JobVerdict:
    """Gives a FAILED or CANCELLED job a new run with other arguments, encoded as its own are.

    Args:
        client: Of the job's cluster.
        job_id: The job.
        step: The same job with the arguments that it is to run with.

    Raises:
        Rejected: NOT_FOUND; it is another job than the step's, or its function does not take the
            arguments; UNKNOWN_CODEC.
    """
    found = await client.describe(job_id)
    options = found.options
    if step.job.name != options.name:
        raise invalid("step", f"of job {options.name}, as {job_id} says, got {step.job.name}")
    payload = encode_args(step.job.options(codec=options.content_type), step.args, step.kwargs)
    if step.job.signature.stands_in:
        await client.started_core.published.check(options.name, step.args, step.kwargs)
    (verdict,) = await change(
        await client.router(),
        REQUEUE,
        [(job_id, found.partition)],
        lambda ids: jobs_pb2.RequeueJobsRequest(job_ids=ids, payload=payload),
        client.timeout_s,
    )
    return verdict


def _verdict(row: jobs_pb2.JobVerdict) -> JobVerdict:
    return JobVerdict(
        job_id=row.job_id,
        state=JobState(row.state) if row.state else None,
        error=error_of(refusal_from_wire(row.refusal)) if row.HasField("refusal") else None,
    )
