"""Jobs of all partitions: listed in one order, and counted; and one of them, looked up."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator
from typing import Final

from tenure.client.router import COUNT_JOBS, Router
from tenure.protocol.ids import time_ms_of
from tenure.protocol.vocabulary import JobState
from tenure.v1 import jobs_pb2

_LIST_JOBS: Final = "/tenure.v1.JobService/ListJobs"
_GET_JOB: Final = "/tenure.v1.JobService/GetJob"


async def newest_first(router: Router, jobs: str, timeout_s: float) -> AsyncIterator[jobs_pb2.Job]:
    """Jobs that match a filter, a merge of the partitions' own orders, page by page."""
    partitions = range(router.topology.partitions)
    pages = [_of_partition(router, partition, jobs, timeout_s) for partition in partitions]
    # The partition breaks ties, so jobs never compare.
    heads: list[tuple[int, int, jobs_pb2.Job]] = []

    async def advance(partition: int) -> None:
        job = await anext(pages[partition], None)
        if job is not None:
            heapq.heappush(heads, (-time_ms_of(job.job_id), partition, job))

    for partition in partitions:
        await advance(partition)
    while heads:
        _, partition, job = heapq.heappop(heads)
        yield job
        await advance(partition)


async def _of_partition(
    router: Router, partition: int, jobs: str, timeout_s: float
) -> AsyncIterator[jobs_pb2.Job]:
    request = jobs_pb2.ListJobsRequest(partition=partition, filter=jobs)
    while True:
        page = await router.call(
            partition, _LIST_JOBS, request, jobs_pb2.ListJobsResponse, timeout_s
        )
        for job in page.jobs:
            yield job
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def count_all(router: Router, jobs: str, timeout_s: float) -> dict[JobState, int]:
    """How many jobs match a filter, by state."""
    counts: dict[JobState, int] = {}
    for partition in range(router.topology.partitions):
        response = await router.call(
            partition,
            COUNT_JOBS,
            jobs_pb2.CountJobsRequest(partition=partition, filter=jobs),
            jobs_pb2.CountJobsResponse,
            timeout_s,
        )
        for row in response.counts:
            state = JobState(row.state)
            counts[state] = counts.get(state, 0) + row.count
    return counts


async def look_up(
    router: Router, home: int, job_id: str, timeout_s: float, *, with_payload: bool
) -> jobs_pb2.Job:
    """Everything that the leader of a job's partition knows of it."""
    response = await router.call(
        home,
        _GET_JOB,
        jobs_pb2.GetJobRequest(job_id=job_id, without_payload=not with_payload),
        jobs_pb2.GetJobResponse,
        timeout_s,
    )
    return response.job
