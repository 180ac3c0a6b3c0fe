"""Waits for results: ids go out, results come in, over one stream for each partition.

A wait costs one dictionary entry for each of its jobs. Waits survive a failover: what is
outstanding is asked of the new leader again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from typing import Final

from tenure.client.lane import Lane
from tenure.client.router import Router
from tenure.client.scope import TaskScope
from tenure.client.unserved import Lookout
from tenure.protocol.errors import TenureError, error_of
from tenure.protocol.ids import HOME_DIGITS
from tenure.v1 import jobs_pb2

#: Ids in one request.
IDS_MAX: Final = 1_000
#: A wait to which nothing has come for so long is looked into, and again after the second time.
LOOK_AFTER_S: Final = 5.0
LOOK_AGAIN_S: Final = 30.0


class Wait:
    """One task's wait for some jobs: results are put in as they come, and taken out together."""

    __slots__ = ("_error", "_loop", "_results", "_waker")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._results: dict[str, jobs_pb2.JobResult] = {}
        self._error: TenureError | None = None
        self._waker: asyncio.Future[None] | None = None

    def put(self, job_id: str, result: jobs_pb2.JobResult) -> None:
        """A result has come."""
        self._results[job_id] = result
        if self._waker is not None:
            self._wake()

    def fail(self, error: TenureError) -> None:
        """No more will come."""
        # A copy: one instance raised by many tasks would collect all their tracebacks.
        self._error = error_of(error.to_refusal())
        self._wake()

    async def take(self) -> dict[str, jobs_pb2.JobResult]:
        """What has come since the last time, by job id; waits for at least one.

        Raises:
            TenureError: No more will come.
        """
        if not self._results and self._error is None:
            self._waker = self._loop.create_future()
            await self._waker
        if not self._results and self._error is not None:
            raise self._error
        results, self._results = self._results, {}
        return results

    def _wake(self) -> None:
        waker, self._waker = self._waker, None
        if waker is not None and not waker.done():
            waker.set_result(None)


class ResultLane(Lane[jobs_pb2.StreamResultsResponse]):
    """The results of one partition."""

    method = "/tenure.v1.JobService/StreamResults"
    response_type = jobs_pb2.StreamResultsResponse

    def __init__(
        self, router: Router, partition: int, silent: Callable[["ResultLane"], None]
    ) -> None:
        """``silent`` is called when nothing has come for long, though something is waited for."""
        super().__init__(router, partition)
        #: A list only where several wait for the same job: one being cancelled must not stop all.
        self._outstanding: dict[str, Wait | list[Wait]] = {}
        self._unsent: list[str] = []
        self._silent = silent
        self._moved = True
        self._look_at_s = 0.0

    @property
    def outstanding(self) -> Collection[str]:
        """The jobs that are waited for, the longest first."""
        return self._outstanding.keys()

    def expect(self, job_ids: Iterable[str], wait: Wait) -> None:
        """Puts the jobs' results into ``wait`` as they come. Undone by ``forget``."""
        outstanding, unsent = self._outstanding, self._unsent
        if not outstanding:
            self._moved = True
        for job_id in job_ids:
            present = outstanding.get(job_id)
            if present is None:
                outstanding[job_id] = wait
                unsent.append(job_id)
            elif isinstance(present, list):
                present.append(wait)
            else:
                outstanding[job_id] = [present, wait]
        self.wake()

    def forget(self, job_ids: Iterable[str], wait: Wait) -> None:
        """Puts no more of these jobs' results into ``wait``."""
        for job_id in job_ids:
            present = self._outstanding.get(job_id)
            if isinstance(present, list):
                if wait in present:
                    present.remove(wait)
                if present:
                    continue
            if present is wait or present == []:
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
        self._moved = True
        pop = self._outstanding.pop
        for result in message.results:
            job_id = result.job_id
            waiting = pop(job_id, None)
            if isinstance(waiting, Wait):
                waiting.put(job_id, result)
            elif waiting is not None:
                for wait in waiting:
                    wait.put(job_id, result)

    def broken(self) -> None:
        self._unsent = list(self._outstanding)

    def fail(self, error: TenureError) -> None:
        outstanding = list(self._outstanding.values())
        self._outstanding.clear()
        self._unsent.clear()
        waits: dict[Wait, None] = {}
        for waiting in outstanding:
            waits.update(dict.fromkeys(waiting if isinstance(waiting, list) else [waiting]))
        for wait in waits:
            wait.fail(error)

    def overdue(self, now_s: float) -> bool:
        # Callers bring their own timeouts, and a silent stream is the normal case here: of one that
        # is silent for long somebody else finds out why. The router tells of leaders that are lost.
        if self._moved or self._stream is None:
            self._moved = False
            self._look_at_s = now_s + LOOK_AFTER_S
        elif self._outstanding and now_s >= self._look_at_s:
            self._look_at_s = now_s + LOOK_AGAIN_S
            self._silent(self)
        return False


class Waiter:
    """Hands waits to the lane of the job's partition."""

    def __init__(self, router: Router, scope: TaskScope) -> None:
        self._router = router
        self._scope = scope
        self._lanes: dict[int, ResultLane] = {}
        self._silent: dict[int, ResultLane] = {}
        self._silence = asyncio.Event()

    def lane(self, job_id: str) -> ResultLane:
        """The lane of a job. The topology must be known.

        Raises:
            Rejected: The id is not of this cluster.
        """
        partition = self._router.topology.home_of_id(job_id)
        lane = self._lanes.get(partition)
        if lane is None:
            if not self._lanes:
                self._scope.spawn(self._look_into_silences())
            lane = self._lanes[partition] = ResultLane(self._router, partition, self._is_silent)
            self._scope.spawn(lane.run())
        return lane

    def expect(self, job_ids: Collection[str]) -> Wait:
        """A wait for these jobs, each named once. Ended by ``forget``.

        Raises:
            Rejected: An id is not of this cluster; nothing is waited for.
        """
        wait = Wait()
        for lane, some in self._by_lane(job_ids):
            lane.expect(some, wait)
        return wait

    def forget(self, job_ids: Collection[str], wait: Wait) -> None:
        """Nobody waits for these jobs any more."""
        for lane, some in self._by_lane(job_ids):
            lane.forget(some, wait)

    async def result(self, job_id: str) -> jobs_pb2.JobResult:
        """The job's final state. Waits as long as it takes; cancelling stops only this wait."""
        lane, wait, ids = self.lane(job_id), Wait(), (job_id,)
        lane.expect(ids, wait)
        try:
            return (await wait.take())[job_id]
        except asyncio.CancelledError:
            lane.forget(ids, wait)
            raise

    def _is_silent(self, lane: ResultLane) -> None:
        self._silent[lane.partition] = lane
        self._silence.set()

    async def _look_into_silences(self) -> None:
        lookout = Lookout(self._router)
        while True:
            await self._silence.wait()
            self._silence.clear()
            while self._silent:
                partition, lane = self._silent.popitem()
                await lookout.look(partition, [*lane.outstanding])

    def _by_lane(self, job_ids: Collection[str]) -> list[tuple[ResultLane, list[str]]]:
        homes: defaultdict[str, list[str]] = defaultdict(list)
        for job_id in job_ids:
            homes[job_id[HOME_DIGITS]].append(job_id)
        return [(self.lane(some[0]), some) for some in homes.values()]
