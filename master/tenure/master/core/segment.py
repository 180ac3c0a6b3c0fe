"""Segments: jobs that entered an order together, in the order they have in it.

All jobs of a segment were last written by the same event. A job has left a segment exactly when its
seq is another one: so leaving costs nothing, and entries that are no longer true find themselves.
"""

from tenure.master.core.record import JobRecord


class Segment:
    """Some jobs in order, written by one event."""

    __slots__ = ("at_ms", "next", "records", "seq")

    #: What orders segments: a key of the ready order, or when the jobs ended.
    at_ms: int
    seq: int
    records: list[JobRecord]
    #: Index of the first job that may still be there; those before it have left.
    next: int

    def __init__(self, at_ms: int, seq: int, records: list[JobRecord]) -> None:
        self.at_ms = at_ms
        self.seq = seq
        self.records = records
        self.next = 0

    def skip_gone(self) -> bool:
        """Moves ``next`` to the first job that is still there; False if none is."""
        records, seq = self.records, self.seq
        position, end = self.next, len(records)
        while position < end and records[position].seq != seq:
            position += 1
        self.next = position
        return position < end

    def left(self) -> list[JobRecord]:
        """The jobs that are still there."""
        seq = self.seq
        return [record for record in self.records[self.next :] if record.seq == seq]
