"""What a partition remembers of a batch: what is done to jobs that match a filter, and how far."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from tenure.master.core.record import JobRecord
from tenure.protocol.vocabulary import BatchKind, BatchState


class BatchSpec(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """What is to be done, and to which jobs."""

    kind: BatchKind
    #: As it was given; what it means is the node's business.
    filter: str
    #: Of CANCEL.
    reason: str = ""
    #: Of BOOST; None: as it was.
    priority: int | None = None
    delay_ms: int | None = None


class BatchRecord(msgspec.Struct, array_like=True, gc=False, eq=False, kw_only=True):
    """All that is persistent about one batch."""

    batch_id: str
    #: Seq of the event that last wrote this record.
    seq: int
    spec: BatchSpec
    #: Jobs that matched when it was made.
    matched: int
    #: Jobs with this ordinal and above have been looked at, or came later.
    cursor: int
    changed: int = 0
    refused: int = 0
    state: BatchState = BatchState.RUNNING
    created_ms: int = 0
    ended_ms: int = 0


class BatchCreated(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="batch_created"
):
    """Something is to be done to all jobs that match a filter, down from the cursor's ordinal."""

    now_ms: int
    batch_id: str
    spec: BatchSpec
    matched: int
    cursor: int
    #: Batches that have ended and are forgotten for it.
    dropped: tuple[str, ...] = ()


class BatchAdvanced(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="batch_advanced"
):
    """A batch has done its jobs from the cursor on, by the events before this one; or it ended."""

    now_ms: int
    batch_id: str
    cursor: int
    changed: int
    refused: int
    state: BatchState


class Slices(Protocol):
    """A look for the jobs that a batch is about, slice by slice (``query.Scan``)."""

    done: bool

    def take(self, limit: int, looks_max: int) -> Sequence[JobRecord]:
        """The next jobs that match."""
        ...
