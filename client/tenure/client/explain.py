"""Why a job does not run: ``client.explain(id)``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tenure.client.router import Router
from tenure.client.settings import moment_of
from tenure.protocol.vocabulary import BlockerKind, JobState
from tenure.v1 import jobs_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """One thing that keeps a job from running.

    Attributes:
        kind: What kind of thing; None: one that this SDK does not know yet.
        text: What it is in words, with its figures.
        freed_by: What would free it, in words.
        until: When it ends by itself; None: nobody knows.
    """

    kind: BlockerKind | None
    text: str
    freed_by: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a job does not run, as its leader knew when it was asked.

    Attributes:
        job_id: The job.
        state: Its state.
        ahead: Jobs of its queue that would be granted before it.
        blockers: All that keeps it from running, what it waits for longest first; empty: it is its
            turn, or it does not wait.
        estimated_wait: How long it may wait yet; None: nothing is known to go by.
        basis: What the estimate was computed from, in words.
        open_parents: Parents of a BLOCKED job that have not ended.
    """

    job_id: str
    state: JobState
    ahead: int
    blockers: Sequence[Blocker]
    estimated_wait: timedelta | None
    basis: str
    open_parents: Sequence[str]


async def explain(router: Router, home: int, job_id: str, timeout_s: float) -> Explanation:
    """Asks the leader of a job's partition."""
    response = await router.call(
        home,
        "/tenure.v1.JobService/ExplainJob",
        jobs_pb2.ExplainJobRequest(job_id=job_id),
        jobs_pb2.ExplainJobResponse,
        timeout_s,
    )
    return explanation_of(response)


def explanation_of(wire: jobs_pb2.ExplainJobResponse) -> Explanation:
    """An explanation, from a message."""
    wait = wire.estimated_wait.ToTimedelta() if wire.HasField("estimated_wait") else None
    return Explanation(
        job_id=wire.job_id,
        state=JobState(wire.state),
        ahead=wire.ahead,
        blockers=tuple(_blocker_of(blocker) for blocker in wire.blockers),
        estimated_wait=wait,
        basis=wire.basis,
        open_parents=tuple(wire.open_parents),
    )


def _blocker_of(wire: jobs_pb2.Blocker) -> Blocker:
    known = wire.kind in BlockerKind._value2member_map_
    return Blocker(
        kind=BlockerKind(wire.kind) if known else None,
        text=wire.text,
        freed_by=wire.freed_by,
        until=moment_of(wire.until) if wire.HasField("until") else None,
    )
