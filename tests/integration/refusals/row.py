"""One refusal, and what its ways share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from tenure.client import Client
from tenure.protocol import limits
from tenure.protocol.refusal import Reason
from tenure.v1 import common_pb2, jobs_pb2

PARTITIONS: Final = 2
LARGEST: Final = limits.PAYLOAD_BYTES_DEFAULT
STRANGER: Final = "018f0000-0000-7000-8000-000000000000"
OPTIONS: Final = {"name": "double", "queue": "default"}

# Why a way cannot provoke a refusal.
MINTS: Final = "it mints the ids itself, by the cluster's clock and in the queue's partition"
SPLITS: Final = "it splits batches"
PAGES: Final = "it pages by itself"
NO_FLAG: Final = "it has no flag for it"
TYPED: Final = "no call of it can say this"
STATES: Final = "the answer is a state, not an error: the job has FAILED or is CANCELLED"
FOLLOWS: Final = "it asks whom the refusal names"
OWN_WORDS: Final = "no master takes part: each says it in its own words"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the cluster holds when the rows are run.

    Attributes:
        address: Of a master with little room and two partitions.
        halted: Of a master whose journal cannot be read.
        stand_in: Of a listener that refuses for what a filter says.
        closed: Where nobody listens.
        now_ms: The cluster's clock.
        completed: A job's id, as the following are.
        failed: One that failed.
        cancelled: One that was cancelled.
        purged: One of which only the tombstone is left.
        pending: One that waits.
    """

    address: str = "cluster"
    halted: str = "halted"
    stand_in: str = "stand-in"
    closed: str = "closed"
    now_ms: int = 1_800_000_000_000
    completed: str = STRANGER
    failed: str = STRANGER
    cancelled: str = STRANGER
    purged: str = STRANGER
    pending: str = STRANGER


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the API; streams: "" for none, "answers", or "both"."""

    method: str
    request: Message
    streams: str = ""
    service: str = "JobService"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One refusal.

    Attributes:
        name: For people.
        reason: The same on all ways.
        says: What the text has on all ways: the value or the field, and what to do.
        address: Who is asked.
        wire: What grpcurl and Node send.
        field: The path in ``BadRequest``, or in the refused row.
        field_here: The field in the SDK's own error, if its check comes first.
        retry: Whether a time is told after which to come back.
        sdk: Raises or returns the error.
        cli: The command, without the address.
        stdin: What the command reads.
        code: Its exit code.
    """

    name: str
    reason: Reason
    says: tuple[str, ...]
    address: str
    wire: Call | str
    field: str = ""
    field_here: str | None = None
    retry: bool = False
    sdk: Callable[[Client], object] | str
    cli: tuple[str, ...] | str
    stdin: str = ""
    code: int


def submit(
    *specs: jobs_pb2.JobSpec, options: list[common_pb2.JobOptions] | None = None, **changes: object
) -> Call:
    """A batch; of one job with these options if nothing else is said."""
    one = common_pb2.JobOptions(**{**OPTIONS, **changes})  # type: ignore[arg-type]
    jobs = specs or (jobs_pb2.JobSpec(),)
    return Call(
        "SubmitJobs",
        jobs_pb2.SubmitJobsRequest(options=options if options is not None else [one], jobs=jobs),
    )
