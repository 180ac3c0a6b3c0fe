"""BatchService: one thing done to all jobs that match a filter, partition by partition."""

from collections.abc import Mapping

from tenure.master.core.batch import unknown
from tenure.master.core.bulk import BatchRecord, BatchSpec
from tenure.master.core.command import CancelBatch, CreateBatch
from tenure.master.core.effect import Reply
from tenure.master.node.jobs import counted
from tenure.master.node.paging import page_size, page_token, place_of
from tenure.master.node.roster import Roster
from tenure.master.node.selection import select_jobs
from tenure.master.node.term import Term
from tenure.master.node.translate import (
    checked_member,
    checked_span,
    invalid,
    out_of_range,
    stamp,
    wire_enum,
)
from tenure.protocol import limits
from tenure.protocol.errors import error_of
from tenure.protocol.ids import is_job_id
from tenure.protocol.vocabulary import BatchKind, JobState
from tenure.v1 import batches_pb2, jobs_pb2

_REASON_CHARS_MAX = 1_024


class BatchApi:
    """The service, without gRPC: messages in, messages out, errors raised.

    Args:
        roster: Finds the term of a partition, or says who leads it.
    """

    def __init__(self, *, roster: Roster) -> None:
        self._roster = roster

    async def create_batch(
        self, request: batches_pb2.CreateBatchRequest
    ) -> batches_pb2.CreateBatchResponse:
        """Counts what matches and, unless it is a dry run, makes the batch durable."""
        spec = _spec(request)
        if not request.dry_run:
            _check_id(request.batch_id)
        wanted = select_jobs(spec.filter)
        term = self._roster.term(request.partition)
        counts = await counted(term, wanted)
        response = batches_pb2.CreateBatchResponse(counts=_counts(counts))
        matched = sum(counts.values())
        if request.dry_run:
            await term.readable(term.partition.next_seq - 1)
            response.batch.partition = term.number
            response.batch.kind = wire_enum(spec.kind)
            response.batch.filter = spec.filter
            response.batch.matched = matched
            return response
        command = CreateBatch(batch_id=request.batch_id, spec=spec, matched=matched)
        reply = await term.ask(command, size=len(spec.filter))
        response.batch.CopyFrom(_told(term, reply))
        term.batch_made.set()
        return response

    async def get_batch(self, request: batches_pb2.GetBatchRequest) -> batches_pb2.GetBatchResponse:
        """How far a batch is."""
        _check_id(request.batch_id)
        term = self._roster.term(request.partition)
        record = term.partition.batch(request.batch_id)
        if record is None:
            await term.readable(term.partition.next_seq - 1)
            raise error_of(unknown(request.batch_id, "read"))
        response = batches_pb2.GetBatchResponse(batch=batch_to_wire(record, term.number))
        await term.readable(record.seq)
        return response

    async def list_batches(
        self, request: batches_pb2.ListBatchesRequest
    ) -> batches_pb2.ListBatchesResponse:
        """A page of the batches that a partition remembers, newest first."""
        size = page_size(request.page_size)
        listed = f"batches/{request.partition}"
        (before,) = place_of(request.page_token, listed) or ("",)
        term = self._roster.term(request.partition)
        records = term.partition.batches()
        found = [each for each in records if not before or each.batch_id < before]
        response = batches_pb2.ListBatchesResponse(
            batches=[batch_to_wire(record, term.number) for record in found[:size]]
        )
        if len(found) > size:
            response.next_page_token = page_token(listed, found[size - 1].batch_id)
        await term.readable(term.partition.next_seq - 1)
        return response

    async def cancel_batch(
        self, request: batches_pb2.CancelBatchRequest
    ) -> batches_pb2.CancelBatchResponse:
        """Stops a batch; returns when that is durable."""
        _check_id(request.batch_id)
        term = self._roster.term(request.partition)
        reply = await term.ask(CancelBatch(batch_id=request.batch_id))
        return batches_pb2.CancelBatchResponse(batch=_told(term, reply))


def batch_to_wire(record: BatchRecord, partition: int) -> batches_pb2.Batch:
    """A batch as its users see it."""
    wire = batches_pb2.Batch(
        batch_id=record.batch_id,
        partition=partition,
        kind=wire_enum(record.spec.kind),
        filter=record.spec.filter,
        state=wire_enum(record.state),
        matched=record.matched,
        changed=record.changed,
        refused=record.refused,
    )
    stamp(wire.created_at, record.created_ms)
    stamp(wire.ended_at, record.ended_ms)
    return wire


def _told(term: Term, reply: Reply) -> batches_pb2.Batch:
    if not isinstance(reply, BatchRecord):
        raise TypeError(f"expected a batch, got {type(reply).__name__}")
    return batch_to_wire(reply, term.number)


def _counts(counts: Mapping[JobState, int]) -> list[jobs_pb2.StateCount]:
    return [
        jobs_pb2.StateCount(state=wire_enum(state), count=counts[state])
        for state in JobState
        if counts.get(state)
    ]


def _check_id(batch_id: str) -> None:
    if not is_job_id(batch_id):
        raise invalid("batch_id", f"{batch_id[:60]!r} is no UUIDv7 in canonical form")


def _spec(request: batches_pb2.CreateBatchRequest) -> BatchSpec:
    """What is asked for; what is of another kind, and what would match everything, is refused."""
    kind = checked_member(BatchKind, request.kind, "kind")
    if not request.filter.strip():
        raise invalid("filter", "it is empty, which would be every job; say which, as job_id:*")
    priority = request.priority if request.HasField("priority") else None
    delay_ms = None
    if request.HasField("delay"):
        delay_ms = checked_span(request.delay, "delay", limits.DELAY_MS_MAX)
    if kind is BatchKind.BOOST:
        if priority is None and delay_ms is None:
            raise invalid("priority", "neither it nor a delay is given; give one at least")
        if priority is not None and priority > limits.PRIORITY_MAX:
            raise invalid("priority", out_of_range(priority))
    else:
        for field, value in (("priority", priority), ("delay", delay_ms)):
            if value is not None:
                raise invalid(field, f"only a BOOST has one, and this is a {kind.name}")
    if request.reason and kind is not BatchKind.CANCEL:
        raise invalid("reason", f"only a CANCEL has one, and this is a {kind.name}")
    return BatchSpec(
        kind=kind,
        filter=request.filter,
        reason=request.reason[:_REASON_CHARS_MAX],
        priority=priority,
        delay_ms=delay_ms,
    )
