"""``AsyncJobHandle``: a submitted job, as its submitter holds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from tenure.client.change import requeue_with
from tenure.client.codec import decode_result
from tenure.client.errors import JobCancelled, JobFailed, RemoteError, WaitTimeout
from tenure.protocol.errors import error_of, refusal_from_wire
from tenure.protocol.vocabulary import ErrorCategory, FailureReason, JobState
from tenure.v1 import jobs_pb2

if TYPE_CHECKING:
    from datetime import timedelta

    from tenure.client.client import AsyncClient
    from tenure.client.explain import Explanation
    from tenure.client.job import JobDef, Step
    from tenure.client.logs import LogLine
    from tenure.client.watch import JobEvent

R_co = TypeVar("R_co", covariant=True)


class AsyncJobHandle(msgspec.Struct, Generic[R_co], eq=False):
    """A job that the cluster has accepted. (A struct: there is one for each job.)

    Attributes:
        id: The job's id. ``client.get(id)`` makes a handle of it again, in any process.
        name: The job's name.
    """

    #: These are given by ``AsyncClient``; without a job, results come back as plain values.
    _client: AsyncClient
    id: str
    name: str
    _job: JobDef[..., Any] | None
    _result: jobs_pb2.JobResult | None = None

    async def result(self, timeout: float | None = None) -> R_co:
        """Waits until the job has ended, through failovers, and returns what it returned.

        Args:
            timeout: Seconds; None waits as long as it takes.

        Raises:
            JobFailed: It failed for good; the error and the attempts are in it.
            JobCancelled: It was cancelled.
            WaitTimeout: It has not ended yet, and goes on.
            Rejected: NOT_FOUND, or RESULT_EXPIRED after its retention.
        """
        result = self._result
        if result is None:
            result = await self.outcome(timeout)
        return self._value(result)

    async def wait(self, timeout: float | None = None) -> bool:
        """Waits until the job has ended. False: it has not within ``timeout`` seconds."""
        try:
            await self.outcome(timeout)
        except WaitTimeout:
            return False
        return True

    async def status(self) -> JobState:
        """The job's present state."""
        return JobState((await self._client.describe(self.id)).state)

    async def explain(self) -> Explanation:
        """Why the job does not run: its place, all that blocks it, and an estimate."""
        return await self._client.explain(self.id)

    async def progress(self) -> float:
        """The last percentage that the running attempt reported; 0 if none runs. Best effort."""
        return (await self._client.describe(self.id)).progress

    def events(self) -> AsyncIterator[JobEvent]:
        """The job's states as they change, its present one first, until it has ended.

        Goes on through failovers; a state that a job was in for a moment may be missing then.

        Raises:
            Rejected: NOT_FOUND, or RESULT_EXPIRED after its retention.
        """
        return self._client.follow(self.id)

    async def logs(
        self,
        *,
        follow: bool = False,
        attempt: int | None = None,
        after: LogLine | None = None,
    ) -> AsyncIterator[LogLine]:
        """What the job's attempts have logged and printed, in order, each line once.

        Of attempts that have ended it is what is kept, of the running one what its worker holds.
        Goes on through failovers and, with ``follow``, from one attempt to the next.

        Args:
            follow: Wait for more until the job has ended.
            attempt: Only this one of the newest run; None: all.
            after: Begin behind this line.

        Raises:
            Rejected: NOT_FOUND, or RESULT_EXPIRED after the job's retention.
            Unavailable: No leader can be reached, or TOO_MANY_LOG_READERS.
        """
        from tenure.client.logs import read_logs

        client = self._client
        router = await client.router()
        lines = read_logs(
            router,
            self.id,
            follow=follow,
            attempt=attempt,
            after=after,
            timeout_s=client.timeout_s,
        )
        async with aclosing(lines):
            async for line in lines:
                yield line

    async def cancel(self, reason: str = "") -> JobState:
        """Asks the job to stop, and returns its state after that.

        A waiting job is CANCELLED at once. A running one stops at its next checkpoint; if it
        completes before, it is COMPLETED.

        Raises:
            Rejected: WRONG_STATE if it has ended otherwise already.
        """
        (verdict,) = await self._client.cancel([self.id], reason=reason)
        return verdict.state_or_raise()

    async def requeue(self, step: Step[Any] | None = None) -> JobState:
        """Runs a FAILED or CANCELLED job again, with a fresh budget.

        Args:
            step: The same job with other arguments, ``resize.bind("b")``, which it has from then
                on; None: with its own.

        Raises:
            Rejected: WRONG_STATE if it is neither; or the job does not take the arguments.
        """
        if step is None:
            (verdict,) = await self._client.requeue([self.id])
        else:
            verdict = await requeue_with(self._client, self.id, step)
        self._result = None
        return verdict.state_or_raise()

    async def boost(
        self, *, priority: int | None = None, delay: timedelta | None = None
    ) -> JobState:
        """Gives the job another place while it waits, and returns its state after that.

        Args:
            priority: 0 (critical) to 10 (low); None: as it was.
            delay: Due so long from now, 0 for at once; None: as it was.

        Raises:
            Rejected: WRONG_STATE if it runs or has ended.
        """
        (verdict,) = await self._client.boost([self.id], priority=priority, delay=delay)
        return verdict.state_or_raise()

    async def outcome(self, timeout: float | None = None) -> jobs_pb2.JobResult:
        """The raw final state, asked for once. See ``result``."""
        if self._result is None:
            if timeout is None:
                self._result = await self._client.wait_for_result(self.id)
            else:
                try:
                    async with asyncio.timeout(timeout):
                        self._result = await self._client.wait_for_result(self.id)
                except TimeoutError:
                    raise WaitTimeout(self.id, timeout) from None
        return self._result

    @property
    def known(self) -> jobs_pb2.JobResult | None:
        """The raw final state, if it has been asked for and has come."""
        return self._result

    def take(self, result: jobs_pb2.JobResult) -> None:
        """Takes a final state that arrived by another way than ``outcome``."""
        self._result = result

    def _value(self, result: jobs_pb2.JobResult) -> R_co:
        """What a final state means: a value or an error."""
        state = int(result.state)
        if state == JobState.COMPLETED:
            value: R_co = decode_result(result.result, result.content_type, self._job)
            return value
        if result.HasField("refusal"):
            raise error_of(refusal_from_wire(result.refusal))
        if state == JobState.CANCELLED:
            raise JobCancelled(self.id, result.cancel_reason)
        raise JobFailed(
            self.id,
            RemoteError(
                type=result.error.type,
                message=result.error.message,
                traceback=result.error.traceback,
                category=ErrorCategory(result.error.category) if result.error.category else None,
            ),
            result.attempts,
            FailureReason(result.failure_reason) if result.failure_reason else None,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.id}>"
