"""Why a job does not run, as clients are told."""

from tenure.master.core.explain import Explanation
from tenure.master.node.pace import Pace
from tenure.master.node.term import Term
from tenure.master.node.translate import stamp, wire_enum
from tenure.protocol.ids import JobId
from tenure.v1 import jobs_pb2


async def explain(term: Term, job_id: JobId) -> jobs_pb2.ExplainJobResponse | None:
    """Explains a job as it is now; others get their turn meanwhile. None: there is no such job."""
    explaining = term.explain(job_id)
    if explaining is None:
        return None
    seq = term.partition.next_seq - 1
    pace = Pace(term.clock.now_ms)
    while not explaining.done:
        explaining.take(pace.looks)
        await pace.rest()
    response = _to_wire(explaining.result())
    await term.readable(seq)
    return response


def _to_wire(found: Explanation) -> jobs_pb2.ExplainJobResponse:
    response = jobs_pb2.ExplainJobResponse(
        job_id=found.job_id,
        state=wire_enum(found.state),
        ahead=found.ahead,
        basis=found.basis,
        open_parents=found.open_parents,
    )
    for blocker in found.blockers:
        wire = response.blockers.add(
            kind=wire_enum(blocker.kind),
            text=blocker.text,
            freed_by=blocker.freed_by,
        )
        stamp(wire.until, blocker.until_ms)
    if found.estimate_ms is not None:
        response.estimated_wait.FromMilliseconds(found.estimate_ms)
    return response
