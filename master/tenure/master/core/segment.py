"""Segments: jobs that entered an order together, in the order they have in it.

All jobs of a segment were last written by the same event. A job has left a segment exactly when its
seq is another one: so leaving costs nothing, and entries that are no longer true find themselves.
One that is moved to another order has a stand-in with no seq where it was.
"""

from bisect import bisect_left
from operator import attrgetter
from typing import Final

import msgspec

from tenure.master.core.record import JobRecord

_ORDINAL: Final = attrgetter("ordinal")
#: More jobs than a segment has.
_ALL: Final = 1 << 50


class Segment(msgspec.Struct, gc=False, eq=False):
    """Some jobs in order, written by one event."""

    #: What orders segments: a key of the ready order, or when the jobs ended.
    at_ms: int
    seq: int
    records: list[JobRecord]
    #: Of the job at ``next``, in the ready order; kept here, as the job itself may lie far away in
    #: memory, where a look takes as long as some lines of code.
    ordinal: int = 0
    #: Index of the first job that may still be there; those before it have left.
    next: int = 0

    def skip_gone(self, most: int = _ALL) -> int:
        """Moves ``next`` past jobs that have left, ``most`` of them; tells how many they were."""
        records, seq = self.records, self.seq
        first = position = self.next
        end = min(len(records), first + most)
        while position < end and records[position].seq != seq:
            position += 1
        if position != first:
            self.next = position
            if position < len(records):
                self.ordinal = records[position].ordinal
        return position - first

    def take_out(self, record: JobRecord) -> bool:
        """Lets a job leave though its seq does not say so; tells whether it was there."""
        records = self.records
        index = bisect_left(records, record.ordinal, lo=self.next, key=_ORDINAL)
        if index == len(records) or records[index] is not record:
            return False
        records[index] = msgspec.structs.replace(record, seq=-1)
        return True

    @property
    def is_over(self) -> bool:
        """Whether all of its jobs have left, as far as ``next`` knows."""
        return self.next == len(self.records)

    def left(self) -> list[JobRecord]:
        """The jobs that are still there."""
        seq = self.seq
        return [record for record in self.records[self.next :] if record.seq == seq]
