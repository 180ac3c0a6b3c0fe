"""Watches: the changes of jobs in all partitions as one stream, with a cursor to go on from."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from tenure.client.errors import invalid
from tenure.client.router import RESEND, Router
from tenure.client.scope import TaskScope
from tenure.protocol.errors import Rejected, TenureError, Unavailable
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import TERMINAL, JobState
from tenure.v1 import jobs_pb2

WATCH_JOBS: Final = "/tenure.v1.JobService/WatchJobs"
#: Answers that may wait unread before the streams are read no further.
BUFFERED_MAX: Final = 64

#: Describes a job.
Look = Callable[[str], Awaitable[jobs_pb2.Job]]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """One change of one job.

    Attributes:
        job_id: The job.
        state: Its state after the change. RUNNING is best effort.
        name: The job's name.
        queue: Its queue.
        at: When, by the cluster's clock.
        cursor: Pass it to ``watch`` to go on after this change.
    """

    job_id: str
    state: JobState
    name: str
    queue: str
    at: datetime
    cursor: str


def parse_cursor(text: str) -> dict[int, int]:
    """``partition:seq``, comma-separated.

    Raises:
        Rejected: The text is no cursor.
    """
    try:
        pairs = [part.split(":") for part in text.split(",") if part]
        return {int(partition): int(seq) for partition, seq in pairs}
    except ValueError:
        raise invalid("cursor", f"one that an event carried, got {text!r}") from None


def format_cursor(positions: Mapping[int, int]) -> str:
    """The text form of how far a watch has come in each partition."""
    return ",".join(f"{partition}:{seq}" for partition, seq in sorted(positions.items()))


class Watch:
    """One watch over some partitions. Follows leaders; resumes where it was.

    Args:
        router: Finds leaders.
        scope: Runs the readers.
        jobs: Which jobs, as a filter.
        partitions: Where they live.
    """

    def __init__(
        self, router: Router, scope: TaskScope, jobs: str, partitions: Collection[int]
    ) -> None:
        self._router = router
        self._scope = scope
        self._filter = jobs
        self._partitions = partitions
        self._positions: dict[int, int] = {}
        self._answers: asyncio.Queue[jobs_pb2.WatchJobsResponse | TenureError] = asyncio.Queue(
            BUFFERED_MAX
        )

    async def events(self, cursor: str | None) -> AsyncGenerator[JobEvent, None]:
        """Changes after the cursor; without one, from now on."""
        async with aclosing(self.messages(cursor)) as messages:
            async for _, events in messages:
                for event in events:
                    yield event

    async def messages(
        self, cursor: str | None
    ) -> AsyncGenerator[tuple[str, list[JobEvent]], None]:
        """The same in pieces, each with the cursor behind it.

        A piece without events says that a leader has been found, and tells all from now on.
        """
        self._positions = parse_cursor(cursor) if cursor else {}
        reached = dict(self._positions)
        pumps = [await self._scope.start(self._pump(partition)) for partition in self._partitions]
        try:
            while True:
                answer = await self._answers.get()
                if isinstance(answer, TenureError):
                    raise answer
                events = [_event(change, reached, answer) for change in answer.changes]
                partition = answer.position.partition
                reached[partition] = max(reached.get(partition, 0), answer.position.seq)
                yield format_cursor(reached), events
        finally:
            for pump in pumps:
                pump.cancel()

    async def _pump(self, partition: int) -> None:
        """Reads one partition until refused for good."""
        failures = 0
        while True:
            address = ""
            try:
                address = await self._router.leader(partition)
                await self._read(partition, address)
                failures = 0
            except Unavailable as error:
                if error.reason not in RESEND:
                    await self._answers.put(error)
                    return
                self._router.lost(partition, address, error)
                failures += 1
            except TenureError as error:
                await self._answers.put(error)
                return
            await asyncio.sleep(self._router.topology.backoff_s(failures))

    async def _read(self, partition: int, address: str) -> None:
        stream = self._router.transport.stream(address, WATCH_JOBS, jobs_pb2.WatchJobsResponse)
        try:
            request = jobs_pb2.WatchJobsRequest(partition=partition, filter=self._filter)
            if partition in self._positions:
                request.after_seq = self._positions[partition]
            await stream.send(request)
            await stream.close_sending()
            async for answer in stream:
                self._router.answered(partition, address)
                answer.position.partition = partition
                await self._answers.put(answer)
                self._positions[partition] = answer.position.seq
        finally:
            stream.cancel()
        raise Unavailable(
            f"expected the leader of partition {partition} to go on, but it ended the watch",
            reason=Reason.UNREACHABLE,
        )


def _event(
    change: jobs_pb2.JobChange, reached: dict[int, int], answer: jobs_pb2.WatchJobsResponse
) -> JobEvent:
    reached[answer.position.partition] = change.seq
    return JobEvent(
        job_id=change.job_id,
        state=JobState(change.state),
        name=change.name,
        queue=change.queue,
        at=change.changed_at.ToDatetime(UTC),
        cursor=format_cursor(reached),
    )


async def follow(
    router: Router, scope: TaskScope, job_id: str, look: Look
) -> AsyncGenerator[JobEvent, None]:
    """One job's states until it has ended, its present one first.

    The job is looked at whenever a leader has begun to tell, so a failover hides no end of it.

    Args:
        router: Finds leaders; the topology must be known.
        scope: Runs the reader.
        job_id: The job.
        look: Describes it.
    """
    home = router.topology.home_of_id(job_id)
    told: JobState | None = None
    cursor: str | None = None
    while True:
        watch = Watch(router, scope, f'job_id = "{job_id}"', (home,))
        try:
            async with aclosing(watch.messages(cursor)) as messages:
                async for cursor, events in messages:
                    for event in events or [_present(await look(job_id), cursor)]:
                        if event.state is told:
                            continue
                        told = event.state
                        yield event
                        if told in TERMINAL:
                            return
        except Rejected as error:
            if error.reason is not Reason.CURSOR_EXPIRED:
                raise
            # A new leader knows no changes of a term before: look at the job and go on from there.
            cursor = None


def _present(job: jobs_pb2.Job, cursor: str) -> JobEvent:
    """A job's state, and since when it is in it, as well as that is known."""
    state = JobState(job.state)
    since = job.ready_at if state is JobState.PENDING else job.submitted_at
    if state in TERMINAL:
        since = job.finished_at
    elif job.attempts and state is JobState.RUNNING:
        since = job.attempts[-1].granted_at
    elif job.attempts and state is JobState.RETRYING:
        since = job.attempts[-1].ended_at
    return JobEvent(
        job_id=job.job_id,
        state=state,
        name=job.options.name,
        queue=job.options.queue,
        at=since.ToDatetime(UTC),
        cursor=cursor,
    )
