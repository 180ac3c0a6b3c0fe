"""Workflows as a partition knows them: those whose home it is, and its jobs that are members.

A workflow's id stands among its members' parents, the first one: until it is sealed it is a parent
that has not ended. So members wait for it as for any other parent, in this partition and elsewhere.

- *persistent*: ``records``;
- *derived*: the timers and ``members``.
"""

from collections.abc import Iterator
from heapq import nlargest
from itertools import islice
from typing import Final

import msgspec

from tenure.master.core.record import JobRecord
from tenure.master.core.timer import Timers
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import JobState

#: What a gate is to members, beside the states of jobs (``dependency`` has the same codes).
_OPEN: Final = 2
_GONE: Final = 9


class WorkflowRecord(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """All that is persistent about one workflow; times in milliseconds, 0: it has not happened."""

    workflow_id: JobId
    name: str
    tenant: str
    created_ms: int
    #: When it is cancelled if it has not been sealed.
    seal_by_ms: int
    #: When a timer looks at it next.
    look_ms: int
    #: Of the event that last wrote it.
    seq: int = 0
    sealed_ms: int = 0
    #: How many there were when it was sealed, in all partitions.
    members: int = 0
    cancelled_ms: int = 0
    cancel_reason: str = ""

    @property
    def gate(self) -> int:
        """What it is to its members, as a parent's code."""
        if self.sealed_ms:
            return int(JobState.COMPLETED)
        return int(JobState.CANCELLED) if self.cancelled_ms else _OPEN


class Workflows:
    """All workflows of one partition."""

    def __init__(self) -> None:
        self.records: dict[JobId, WorkflowRecord] = {}
        self.reset_derived()

    def reset_derived(self) -> None:
        """Empties what is derived."""
        #: By workflow, of this or another partition: its members here, in order.
        self.members: dict[str, dict[JobId, None]] = {}
        self.timers: Timers[WorkflowRecord] = Timers(
            self._due_ms, lambda record: record.workflow_id, lambda: len(self.records)
        )

    def gate(self, workflow_id: JobId) -> int:
        """What a workflow is to its members, as a parent's code."""
        record = self.records.get(workflow_id)
        return _GONE if record is None else record.gate

    def join(self, record: JobRecord) -> None:
        """A job that is a member is there."""
        self.members.setdefault(record.workflow_id, {})[record.job_id] = None

    def leave(self, record: JobRecord) -> None:
        """A job that is a member is no more."""
        members = self.members.get(record.workflow_id)
        if members is not None:
            members.pop(record.job_id, None)
            if not members:
                del self.members[record.workflow_id]

    def page(self, tenant: str, before: str, count: int) -> list[WorkflowRecord]:
        """Workflows of one tenant or ("") of all, newest first, behind one ("": from the first)."""
        ids = (
            workflow_id
            for workflow_id, record in self.records.items()
            if (not before or workflow_id < before) and tenant in ("", record.tenant)
        )
        return [self.records[workflow_id] for workflow_id in nlargest(count, ids)]

    def members_from(self, workflow_id: str, start: int, count: int) -> list[JobId]:
        """Some of a workflow's members here, in order."""
        return list(islice(self.members.get(workflow_id, ()), start, start + count))

    def rebuild_timers(self) -> Iterator[None]:
        """Arms all timers anew, in steps."""
        for index, record in enumerate(self.records.values(), 1):
            self.timers.arm(record)
            if index % 4_096 == 0:
                yield

    def _due_ms(self, record: WorkflowRecord) -> int | None:
        return record.look_ms if self.records.get(record.workflow_id) is record else None
