"""Answers to submits, as messages: whole, or on a stream by their numbers and in parts."""

from collections.abc import Sequence

from tenure.master.core.effect import Reply, SubmitReply
from tenure.master.node.outbox import Outbox
from tenure.master.node.unsettled import InParts
from tenure.protocol.errors import TenureError, refusal_to_wire
from tenure.protocol.refusal import Refusal
from tenure.v1 import jobs_pb2


def submitted(reply: Reply) -> jobs_pb2.SubmitJobsResponse:
    """What has become of the jobs of one submit."""
    if not isinstance(reply, SubmitReply):
        raise TypeError(f"expected the reply to a submit, got {type(reply).__name__}")
    response = jobs_pb2.SubmitJobsResponse(
        job_ids=reply.job_ids, existing=reply.existing, late=reply.unsettled
    )
    for index, refusal in reply.refusals:
        response.errors.add(index=index, refusal=refusal_to_wire(refusal))
    return response


def numbered(number: int, outbox: Outbox[jobs_pb2.StreamSubmitsResponse]) -> InParts:
    """Answers the submit of a number on a stream; ``first`` alone answers it whole."""

    def first(reply: Reply | TenureError) -> None:
        response = jobs_pb2.StreamSubmitsResponse(number=number)
        if isinstance(reply, TenureError):
            response.refusal.CopyFrom(refusal_to_wire(reply.to_refusal()))
        else:
            response.response.CopyFrom(submitted(reply))
        outbox.put(response)

    def late(rows: Sequence[int], refusal: Refusal | None) -> None:
        response = outbox.last()
        if response is None or response.number != number or not response.HasField("late"):
            response = jobs_pb2.StreamSubmitsResponse(number=number)
            outbox.put(response)
        for index in rows:
            job = response.late.jobs.add(index=index)
            if refusal is not None:
                job.refusal.CopyFrom(refusal_to_wire(refusal))

    return InParts(first, late)
