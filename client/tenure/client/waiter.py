"""Waits for results: ids go out, results come in, over one stream for each partition.

A wait costs one dictionary entry and one future. Waits survive a failover: what is outstanding is
asked of the new leader again.
"""

import asyncio
from typing import Final

from tenure.client.lane import Lane
from tenure.client.router import Router
from tenure.client.scope import TaskScope
from tenure.protocol.errors import TenureError, error_of
from tenure.v1 import jobs_pb2

#: Ids in one request.
IDS_MAX: Final = 1_000

ResultFuture = asyncio.Future[jobs_pb2.JobResult]


class ResultLane(Lane[jobs_pb2.StreamResultsResponse]):
    """The results of one partition."""

    method = "/tenure.v1.JobService/StreamResults"
    response_type = jobs_pb2.StreamResultsResponse

    def __init__(self, router: Router, partition: int) -> None:
        super().__init__(router, partition)
        #: A list only where several wait for the same job: one being cancelled must not stop all.
        self._outstanding: dict[str, ResultFuture | list[ResultFuture]] = {}
        self._unsent: list[str] = []

    def expect(self, job_id: str) -> ResultFuture:
        """A future of the job's result. Cancel it with ``forget``."""
        future: ResultFuture = self._loop.create_future()
        present = self._outstanding.get(job_id)
        if present is None:
            self._outstanding[job_id] = future
            self._unsent.append(job_id)
            self.wake()
        elif isinstance(present, list):
            present.append(future)
        else:
            self._outstanding[job_id] = [present, future]
        return future

    def forget(self, job_id: str, future: ResultFuture) -> None:
        """Nobody waits for this future any more."""
        future.cancel()
        present = self._outstanding.get(job_id)
        if isinstance(present, list):
            if future in present:
                present.remove(future)
            if present:
                return
        if present is future or present == []:
            del self._outstanding[job_id]

    def has_work(self) -> bool:
        return bool(self._outstanding)

    def take(self) -> jobs_pb2.StreamResultsRequest | None:
        outstanding = self._outstanding
        while self._unsent:
            ids = [job_id for job_id in self._unsent[:IDS_MAX] if job_id in outstanding]
            del self._unsent[:IDS_MAX]
            if ids:
                return jobs_pb2.StreamResultsRequest(job_ids=ids)
        return None

    def receive(self, message: jobs_pb2.StreamResultsResponse) -> None:
        pop = self._outstanding.pop
        for result in message.results:
            waiting = pop(result.job_id, None)
            if isinstance(waiting, list):
                for future in waiting:
                    if not future.done():
                        future.set_result(result)
            elif waiting is not None and not waiting.done():
                waiting.set_result(result)

    def broken(self) -> None:
        self._unsent = list(self._outstanding)

    def fail(self, error: TenureError) -> None:
        outstanding = list(self._outstanding.values())
        self._outstanding.clear()
        self._unsent.clear()
        for waiting in outstanding:
            for future in waiting if isinstance(waiting, list) else [waiting]:
                if not future.done():
                    future.set_exception(error_of(error.to_refusal()))

    def overdue(self, now_s: float) -> bool:
        # Callers bring their own timeouts, and a silent stream is the normal case here.
        return False


class Waiter:
    """Hands waits to the lane of the job's partition."""

    def __init__(self, router: Router, scope: TaskScope) -> None:
        self._router = router
        self._scope = scope
        self._lanes: dict[int, ResultLane] = {}

    def lane(self, job_id: str) -> ResultLane:
        """The lane of a job. The topology must be known."""
        partition = self._router.topology.home_of_id(job_id)
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = ResultLane(self._router, partition)
            self._scope.spawn(lane.run())
        return lane

    async def result(self, job_id: str) -> jobs_pb2.JobResult:
        """The job's final state. Waits as long as it takes; cancelling stops only this wait."""
        lane = self.lane(job_id)
        future = lane.expect(job_id)
        try:
            return await future
        except asyncio.CancelledError:
            lane.forget(job_id, future)
            raise
