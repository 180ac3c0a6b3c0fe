"""Where the results come from that a job has as arguments: a client of the worker's own.

It connects when it is first needed. Its loop runs in a thread of its own, so jobs in threads, in
the loop of coroutines and in children wait for it alike.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from tenure.client.client import AsyncClient
from tenure.client.handle import AsyncJobHandle
from tenure.client.parent_result import ResultsNeeded
from tenure.client.portal import ThreadPortal
from tenure.v1 import jobs_pb2

#: The jobs have ended: only a failover may take long.
FETCH_S: Final = 30.0


class ParentResults:
    """Final states of jobs, from the cluster.

    Args:
        client: The client; it must not have been used yet.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._portal = ThreadPortal()

    def fetch(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        return self._portal.run(final_states(self._client, job_ids))

    async def fetch_async(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        return await asyncio.to_thread(self.fetch, job_ids)

    def close(self) -> None:
        """Ends the client, if there is one."""
        self._portal.close(self._client.close)


class LoopParents:
    """The same where all is one loop, as in tests: nothing there may wait but by ``await``."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def fetch(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        raise ResultsNeeded([*job_ids])

    async def fetch_async(self, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
        return await final_states(self._client, job_ids)


async def final_states(client: AsyncClient, job_ids: Sequence[str]) -> Sequence[jobs_pb2.JobResult]:
    """What jobs came to, in order.

    Raises:
        WaitTimeout: One has not ended: it was requeued.
        Unavailable: Nobody could say it in time.
    """
    handles = {job_id: AsyncJobHandle[object](client, job_id, "", None) for job_id in job_ids}
    async for _ in client.completions(handles.values(), FETCH_S):
        pass
    return [await handles[job_id].outcome() for job_id in job_ids]
