"""What a worker and its child processes say to each other: length-prefixed MessagePack frames.

```
 jobs:     parent ──Run, Run…──► child ──Ready──► Progress, Saved, Ask…, Ended, Skipped ──► parent
 control:  parent ──Stop, Lease, Answer──► child
```
There are two sockets, so that what is said to a running job passes those that wait behind it. Many
frames travel in one write and are read in one; jobs are numbered by the parent, and a child runs
them one at a time, in order.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from tenure.client.parent_result import Results
from tenure.protocol.errors import TenureError, Unavailable, refusal_to_wire
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import AttemptOutcome, ErrorCategory
from tenure.worker.attempt_log import Line
from tenure.worker.executor.stream import (
    READ_BYTES,
    BrokenFrame,
    Inflow,
    packed,
    receive,
    send,
)
from tenure.worker.held import AttemptResult, Fault

__all__ = [
    "READ_BYTES",
    "Answer",
    "Ask",
    "BrokenFrame",
    "Ended",
    "Inflow",
    "Lease",
    "Progress",
    "Ready",
    "Run",
    "Said",
    "Saved",
    "Skipped",
    "Stop",
    "ToChild",
    "ToParent",
    "answers_of",
    "inflow_of_child",
    "inflow_of_parent",
    "packed",
    "receive",
    "refusal_of",
    "send",
]


class Run(msgspec.Struct, frozen=True, array_like=True, tag="run", gc=False):
    """Run this job. Times and lengths as in ``HeldJob``; ``fence`` is the lease's text."""

    number: int
    job_id: str
    name: str
    fence: str
    attempt: int
    expires_ms: int
    deadline_ms: int
    timeout_ms: int
    content_type: str
    non_retryable: list[str]
    payload: bytes
    resume: bytes = b""


class Stop(msgspec.Struct, frozen=True, array_like=True, tag="stop"):
    """The job is to end at its next checkpoint, with this outcome."""

    number: int
    outcome: AttemptOutcome


class Lease(msgspec.Struct, frozen=True, array_like=True, tag="lease"):
    """The job's lease was renewed or revoked, or the job is wanted back."""

    number: int
    expires_ms: int
    revoked: bool
    wanted_back: bool = False


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """Final states of the jobs that were asked for, in order, as the contract has them.

    There is more to come if it says so. Or, as a refusal of the contract, why they cannot be had.
    """

    ask: int
    results: list[bytes]
    refusal: bytes = b""
    more: bool = False


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    """What did these jobs come to? Several threads of a child may want to know."""

    ask: int
    job_ids: list[str]


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """The application is imported: jobs may come."""


class Progress(msgspec.Struct, frozen=True, array_like=True, tag="progress"):
    """How far the job has come, in percent."""

    number: int
    pct: float


class Saved(msgspec.Struct, frozen=True, array_like=True, tag="saved"):
    """What the job wants its next attempt to begin with."""

    number: int
    data: bytes


class Said(msgspec.Struct, frozen=True, array_like=True, tag="said"):
    """Lines of what a job logs and prints: number, time, stream, level, text."""

    number: int
    lines: list[Line]


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="ended", gc=False):
    """How the attempt ended, and how long it took.

    ``fault`` is (type, message, traceback, category, retry after). A child that is spent has not
    got rid of the job's limits, and is to run no other one.
    """

    number: int
    run_us: int
    outcome: AttemptOutcome
    result: bytes
    fault: tuple[str, str, str, ErrorCategory, int | None] | None
    is_spent: bool = False

    def as_result(self) -> AttemptResult:
        """The same as the parent's own executors say it."""
        fault = Fault(*self.fault) if self.fault is not None else None
        return AttemptResult(self.outcome, self.result, fault)


class Skipped(msgspec.Struct, frozen=True, array_like=True, tag="skipped"):
    """The job had been taken back before its turn came: it has not begun."""

    number: int


#: An answer with results that are longer than this together is not the last.
ANSWER_BYTES: Final = 1024 * 1024

ToChild = Run | Stop | Lease | Answer
#: A thread that a job has left behind may go on saying things of it when the next one runs.
ToParent = Ready | Progress | Saved | Said | Ended | Skipped | Ask

_decode_to_child: Final = msgspec.msgpack.Decoder(ToChild).decode
_decode_to_parent: Final = msgspec.msgpack.Decoder(ToParent).decode


def inflow_of_child() -> Inflow[ToChild]:
    """Reads what a parent says."""
    return Inflow(_decode_to_child)


def inflow_of_parent() -> Inflow[ToParent]:
    """Reads what a child says."""
    return Inflow(_decode_to_parent)


def refusal_of(ask: int, error: RuntimeError) -> Answer:
    """What a child is told that cannot be answered for now: its job may be tried again."""
    why = f"expected to fetch the results of a job's parents, but {error}"
    return _refusal(ask, Unavailable(why, reason=Reason.UNREACHABLE))


def _refusal(ask: int, error: TenureError) -> Answer:
    return Answer(ask, [], refusal_to_wire(error.to_refusal()).SerializeToString())


def answers_of(ask: int, parents: Results, job_ids: Sequence[str]) -> Iterator[Answer]:
    """What a child that asked for results is told, in frames of a size that is read."""
    try:
        found = parents.fetch(job_ids)
    except TenureError as error:
        yield _refusal(ask, error)
        return
    rows: list[bytes] = []
    for row in found:
        if sum(map(len, rows)) >= ANSWER_BYTES:
            yield Answer(ask, rows, more=True)
            rows = []
        rows.append(row.SerializeToString())
    yield Answer(ask, rows)
