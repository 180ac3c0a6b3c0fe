"""Batches: one thing done to all jobs that match a filter, however many there are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from tenure.client.errors import Rejected
from tenure.protocol.errors import TenureError
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import BatchKind, BatchState, JobState
from tenure.v1 import batches_pb2

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from tenure.client.client import AsyncClient

BatchKindName = Literal["cancel", "requeue", "purge", "boost"]

_SERVICE: Final = "/tenure.v1.BatchService/"
_KINDS: Final = {member.name.lower(): member for member in BatchKind}
_POLL_S: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch as it is in all partitions together.

    Attributes:
        id: Its id; empty: of a dry run.
        kind: What it does.
        filter: To which jobs.
        state: RUNNING while it is in any partition; None: of a dry run.
        matched: Jobs that matched when it was made.
        counts: The same by state, where that was just counted.
        changed: Jobs that it has changed.
        refused: Jobs that matched and could not be changed.
        created_at: When it was made.
        ended_at: When the last partition was done.
    """

    id: str
    kind: BatchKind
    filter: str
    state: BatchState | None
    matched: int
    counts: Mapping[JobState, int]
    changed: int
    refused: int
    created_at: datetime | None
    ended_at: datetime | None


class AsyncBatches:
    """The batches of a cluster: ``client.batches``."""

    def __init__(self, client: AsyncClient, timeout_s: float) -> None:
        """Used by ``AsyncClient``."""
        self._client = client
        self._timeout_s = timeout_s

    async def create(
        self,
        kind: BatchKindName,
        filter: str,
        *,
        dry_run: bool = False,
        reason: str = "",
        priority: int | None = None,
        delay: timedelta | None = None,
    ) -> Batch:
        """Counts what matches and begins; returns at once.

        It goes on in the masters when this process ends, and through failovers, and does no job
        twice. Jobs submitted later are left alone.

        Args:
            kind: ``cancel``, ``requeue``, ``purge`` or ``boost``.
            filter: Which jobs, in the language of docs/filters.md; not empty.
            dry_run: Only count.
            reason: Of ``cancel``, as ``client.cancel`` takes it.
            priority: Of ``boost``, as ``client.boost`` takes it.
            delay: Of ``boost``, as ``client.boost`` takes it.

        Raises:
            Rejected: INVALID_ARGUMENT; ``field`` says what.
        """
        known = _KINDS.get(kind)
        if known is None:
            raise Rejected(
                f"expected a valid kind, one of {', '.join(_KINDS)}, got {kind!r}",
                reason=Reason.INVALID_ARGUMENT,
                field="kind",
            )
        core = await self._client.core()
        router = core.router
        request = batches_pb2.CreateBatchRequest(
            batch_id=core.mint(0),
            kind=known.value,  # type: ignore[arg-type]
            filter=filter,
            dry_run=dry_run,
            reason=reason,
            priority=priority,
        )
        if delay is not None:
            request.delay.FromTimedelta(delay)
        parts: list[batches_pb2.Batch] = []
        counts: dict[JobState, int] = {}
        for partition in range(router.topology.partitions):
            request.partition = partition
            response = await router.call(
                partition,
                _SERVICE + "CreateBatch",
                request,
                batches_pb2.CreateBatchResponse,
                self._timeout_s,
            )
            parts.append(response.batch)
            for row in response.counts:
                state = JobState(row.state)
                counts[state] = counts.get(state, 0) + row.count
        return _whole(parts, counts)

    async def get(self, batch_id: str) -> Batch:
        """How far a batch is.

        Raises:
            Rejected: NOT_FOUND; the newest 100 are remembered.
        """
        router = await self._client.router()
        parts: list[batches_pb2.Batch] = []
        unknown: TenureError | None = None
        for partition in range(router.topology.partitions):
            request = batches_pb2.GetBatchRequest(partition=partition, batch_id=batch_id)
            try:
                response = await router.call(
                    partition,
                    _SERVICE + "GetBatch",
                    request,
                    batches_pb2.GetBatchResponse,
                    self._timeout_s,
                )
            except TenureError as error:
                if error.reason is not Reason.NOT_FOUND:
                    raise
                unknown = error
            else:
                parts.append(response.batch)
        if not parts and unknown is not None:
            raise unknown
        return _whole(parts)

    async def list(self) -> Sequence[Batch]:
        """The batches that are remembered, newest first."""
        router = await self._client.router()
        found: dict[str, list[batches_pb2.Batch]] = {}
        for partition in range(router.topology.partitions):
            request = batches_pb2.ListBatchesRequest(partition=partition)
            while True:
                page = await router.call(
                    partition,
                    _SERVICE + "ListBatches",
                    request,
                    batches_pb2.ListBatchesResponse,
                    self._timeout_s,
                )
                for part in page.batches:
                    found.setdefault(part.batch_id, []).append(part)
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token
        return [_whole(found[batch_id]) for batch_id in sorted(found, reverse=True)]

    async def cancel(self, batch_id: str) -> Batch:
        """Stops a batch where it is; what it has done stays done.

        Raises:
            Rejected: NOT_FOUND.
        """
        router = await self._client.router()
        batch = await self.get(batch_id)
        for partition in range(router.topology.partitions):
            request = batches_pb2.CancelBatchRequest(partition=partition, batch_id=batch_id)
            try:
                await router.call(
                    partition,
                    _SERVICE + "CancelBatch",
                    request,
                    batches_pb2.CancelBatchResponse,
                    self._timeout_s,
                )
            except TenureError as error:
                if error.reason is not Reason.NOT_FOUND:
                    raise
        return await self.get(batch.id)

    async def wait(self, batch_id: str, *, timeout: float | None = None) -> Batch:
        """Waits until a batch has ended in all partitions.

        Args:
            batch_id: Which.
            timeout: In seconds; None: for ever.

        Raises:
            TimeoutError: It has not ended by then; it goes on.
            Rejected: NOT_FOUND.
        """
        async with asyncio.timeout(timeout):
            while True:
                batch = await self.get(batch_id)
                if batch.state is not BatchState.RUNNING:
                    return batch
                await asyncio.sleep(_POLL_S)


def _whole(
    parts: Sequence[batches_pb2.Batch], counts: Mapping[JobState, int] | None = None
) -> Batch:
    """What a batch is in all partitions together."""
    first = parts[0]
    states = {BatchState(part.state) for part in parts if part.state}
    state = None
    for candidate in (BatchState.RUNNING, BatchState.CANCELLED, BatchState.DONE):
        if candidate in states:
            state = candidate
            break
    ended = state is not BatchState.RUNNING
    return Batch(
        id=first.batch_id,
        kind=BatchKind(first.kind),
        filter=first.filter,
        state=state,
        matched=sum(part.matched for part in parts),
        counts=counts or {},
        changed=sum(part.changed for part in parts),
        refused=sum(part.refused for part in parts),
        created_at=min(_times(part.created_at for part in parts), default=None),
        ended_at=max(_times(part.ended_at for part in parts), default=None) if ended else None,
    )


def _times(stamps: Iterable[Timestamp]) -> list[datetime]:
    return [stamp.ToDatetime(UTC) for stamp in stamps if stamp.ToNanoseconds()]
