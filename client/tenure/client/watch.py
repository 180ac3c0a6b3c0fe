"""Watches: the changes of jobs in all partitions as one stream, with a cursor to go on from."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

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
        cursor: Pass it to ``watch``, with the same filter, to go on after this change.
    """

    job_id: str
    state: JobState
    name: str
    queue: str
    at: datetime
    cursor: str


class Place(NamedTuple):
    """How far a watch has come in one partition.

    Attributes:
        seq: The last event of which something was told.
        part: How many of its changes, if there may be more; 0: all of it was told.
    """

    seq: int
    part: int = 0


def parse_cursor(text: str) -> dict[int, Place]:
    """``partition:seq`` or ``partition:seq.part``, comma-separated.

    Raises:
        Rejected: The text is no cursor.
    """
    try:
        pairs = [item.split(":") for item in text.split(",") if item]
        return {int(partition): Place(*map(int, place.split("."))) for partition, place in pairs}
    except (TypeError, ValueError):
        raise invalid("cursor", f"one that an event carried, got {text!r}") from None


def format_cursor(places: Mapping[int, Place]) -> str:
    """The text form of how far a watch has come in each partition."""
    return ",".join(
        f"{partition}:{seq}.{part}" if part else f"{partition}:{seq}"
        for partition, (seq, part) in sorted(places.items())
    )


class Progress:
    """How far the watch of one partition has come; leaves out what a new stream tells again.

    Leaders resume behind whole events. One event may change many jobs, more than go into one
    message: who breaks off within it asks for all of it again, and skips what it has had.

    Args:
        place: Where to go on; None: from now on.
    """

    def __init__(self, place: Place | None) -> None:
        self._place = place
        #: Of the event that ``_place`` is in, how many changes this stream has told.
        self._seen = 0

    def begin(self) -> int | None:
        """A new stream begins: what it is asked for, as ``after_seq``."""
        self._seen = 0
        if self._place is None:
            return None
        return self._place.seq - 1 if self._place.part else self._place.seq

    def take(
        self, answer: jobs_pb2.WatchJobsResponse
    ) -> tuple[list[tuple[jobs_pb2.JobChange, Place]], Place]:
        """What is new in an answer, with the place after each change, and the one after all."""
        told_seq = answer.position.seq
        place = self._place or Place(0)
        new: list[tuple[jobs_pb2.JobChange, Place]] = []
        changes = answer.changes
        for index, change in enumerate(changes, 1):
            seq = change.seq
            self._seen = self._seen + 1 if seq == place.seq and self._seen else 1
            if seq < place.seq:
                continue
            if seq == place.seq and (not place.part or self._seen <= place.part):
                continue
            last = seq <= told_seq and (index == len(changes) or changes[index].seq != seq)
            place = Place(seq, 0 if last else self._seen)
            new.append((change, place))
        if told_seq >= place.seq:
            place = Place(told_seq)
        self._place = place
        return new, place


class _Step(NamedTuple):
    """What one answer has brought: changes with the place after each, and the one after all."""

    partition: int
    changes: list[tuple[jobs_pb2.JobChange, Place]]
    place: Place


class Watch:
    """One watch over some partitions. Follows leaders; resumes where it was, change by change.

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
        self._answers: asyncio.Queue[_Step | TenureError] = asyncio.Queue(BUFFERED_MAX)

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

        A partition's first piece says that a leader has been found, and tells all from there on.
        """
        reached = parse_cursor(cursor) if cursor else {}
        pumps = [
            await self._scope.start(self._pump(partition, Progress(reached.get(partition))))
            for partition in self._partitions
        ]
        try:
            while True:
                answer = await self._answers.get()
                if isinstance(answer, TenureError):
                    raise answer
                events: list[JobEvent] = []
                for change, place in answer.changes:
                    reached[answer.partition] = place
                    events.append(_event(change, format_cursor(reached)))
                reached[answer.partition] = answer.place
                yield format_cursor(reached), events
        finally:
            for pump in pumps:
                pump.cancel()

    async def _pump(self, partition: int, progress: Progress) -> None:
        """Reads one partition until refused for good."""
        failures = 0
        while True:
            address = ""
            try:
                address = await self._router.leader(partition)
                await self._read(partition, progress, address)
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

    async def _read(self, partition: int, progress: Progress, address: str) -> None:
        stream = self._router.transport.stream(address, WATCH_JOBS, jobs_pb2.WatchJobsResponse)
        try:
            request = jobs_pb2.WatchJobsRequest(partition=partition, filter=self._filter)
            after_seq = progress.begin()
            if after_seq is not None:
                request.after_seq = after_seq
            await stream.send(request)
            await stream.close_sending()
            async for answer in stream:
                self._router.answered(partition, address)
                await self._answers.put(_Step(partition, *progress.take(answer)))
        finally:
            stream.cancel()
        raise Unavailable(
            f"expected the leader of partition {partition} to go on, but it ended the watch",
            reason=Reason.UNREACHABLE,
        )


def _event(change: jobs_pb2.JobChange, cursor: str) -> JobEvent:
    return JobEvent(
        job_id=change.job_id,
        state=JobState(change.state),
        name=change.name,
        queue=change.queue,
        at=change.changed_at.ToDatetime(UTC),
        cursor=cursor,
    )


async def follow(
    router: Router, scope: TaskScope, job_id: str, look: Look
) -> AsyncGenerator[JobEvent, None]:
    """One job's states until it has ended, its present one first.

    The job is looked at when the first leader has begun to tell; what comes after is told, by that
    leader or by its successors.

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
                async for reached, events in messages:
                    if cursor is None:
                        events = [_present(await look(job_id), reached), *events]
                    cursor = reached
                    for event in events:
                        if event.state is told:
                            continue
                        told = event.state
                        yield event
                        if told in TERMINAL:
                            return
        except Rejected as error:
            if error.reason is not Reason.CURSOR_EXPIRED:
                raise
            # Too much has happened since this watch was last told: look, and go on from there.
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
