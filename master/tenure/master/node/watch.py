"""WatchJobs: committed changes of a partition's jobs, remembered for those who come back.

The latest changes are kept in a ring, which recovery has filled from the journal: a watch that
breaks, if only because its leader died, resumes behind its cursor. A cursor older than the ring, or
than the snapshot that the leader began with, is CURSOR_EXPIRED: list, then watch from there.

Nothing is recorded for nobody: when as many changes as the ring holds have come since somebody
last followed, every cursor that was given out is too old anyway, and recording ends until the next
watch begins. So that a cursor does not age while nothing matches its filter, a position is told
whenever many changes were passed over, and before a snapshot lets the log be cut.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Final

from tenure.master.core.state import JobChange
from tenure.master.node.changes import CHANGES_KEPT, Changes
from tenure.master.node.pace import Pace
from tenure.master.node.translate import wire_enum
from tenure.protocol.errors import Rejected, TenureError
from tenure.protocol.refusal import Reason
from tenure.v1 import jobs_pb2

_CHANGES_A_MESSAGE: Final = 500
#: A follower that is told of none of so many changes is told its position.
_CHANGES_PASSED_MAX: Final = CHANGES_KEPT // 10


class Watch:
    """The changes of one term, and who follows them.

    Args:
        number: The partition.
        committed_seq: How far the commits have come.
        applied_seq: How far the state has come.
        changes: What is known of the time before the term; recording goes on from there.
        record_changes: Told when changes need no longer be recorded, and when they must be again.
    """

    def __init__(
        self,
        *,
        number: int,
        committed_seq: Callable[[], int],
        applied_seq: Callable[[], int],
        changes: Changes,
        record_changes: Callable[[bool], None],
    ) -> None:
        self._number = number
        self._committed_seq = committed_seq
        self._applied_seq = applied_seq
        self._record_changes = record_changes
        self._changes = changes
        #: Whether changes must be recorded.
        self.on = True
        #: How many changes have been recorded since somebody last followed.
        self._unfollowed = 0
        #: Followers are to be told when they have come as far as this.
        self._marked_seq = 0
        #: In the order of their coming, in which they are told: so a simulated run is one run.
        self._followers: dict[asyncio.Event, None] = {}
        self._error: TenureError | None = None

    def record(self, changes: list[JobChange]) -> None:
        """Takes changes that have committed."""
        if not self.on:
            # They were applied before recording ended, and nobody has begun to follow since.
            return
        self._changes.record(changes)
        if self._followers:
            self._wake()
            return
        self._unfollowed += len(changes)
        if self._unfollowed >= CHANGES_KEPT:
            self.on = False
            self._record_changes(False)
            self._changes.restart(self._applied_seq())

    def mark(self, seq: int) -> None:
        """Tells all followers their position: cursors before this event will soon be too old.

        Call it when all up to there has committed.
        """
        self._marked_seq = seq
        self._wake()

    def abandon(self, error: TenureError) -> None:
        """The term has ended, or cannot prove its office: every follower is told."""
        self._error = error
        self._wake()

    def resume(self) -> None:
        """The office was held all along: who comes back may follow again."""
        self._error = None

    async def follow(
        self, wanted: Callable[[JobChange], bool], after_seq: int | None, pace: Pace
    ) -> AsyncGenerator[jobs_pb2.WatchJobsResponse, None]:
        """Yields wanted changes after a cursor (None: from now on), a position with each message.

        Raises:
            Rejected: CURSOR_EXPIRED.
            TenureError: The leader stepped down, or is frozen.
        """
        ring = self._changes
        if not self.on:
            # What was applied before now was not recorded, even if it has yet to commit.
            ring.restart(self._applied_seq())
            self.on = True
            self._record_changes(True)
        committed_seq = self._committed_seq()
        seq = max(committed_seq, ring.after_seq) if after_seq is None else after_seq
        told_seq, passed = seq, 0
        wake = asyncio.Event()
        self._followers[wake] = None
        try:
            yield self._message([], min(seq, committed_seq))
            while True:
                if self._error is not None:
                    raise self._error
                if seq < ring.after_seq:
                    raise _expired(self._number, seq, ring.after_seq)
                wake.clear()
                marked_seq = self._marked_seq
                changes = ring.behind(seq)
                matching: list[JobChange] = []
                looked = 0
                while looked < len(changes):
                    few = changes[looked : looked + pace.looks]
                    matching += filter(wanted, few)
                    looked += len(few)
                    await pace.rest()
                # All changes of marked events have been recorded, if they have any.
                end_seq = max(changes[-1].seq if changes else seq, marked_seq)
                passed += len(changes)
                for message in self._messages(matching, seq, end_seq):
                    yield message
                    told_seq, passed = message.position.seq, 0
                seq = end_seq
                if told_seq < marked_seq or passed >= _CHANGES_PASSED_MAX:
                    yield self._message([], seq)
                    told_seq, passed = seq, 0
                await wake.wait()
        finally:
            self._followers.pop(wake, None)
            self._unfollowed = 0

    def _wake(self) -> None:
        for follower in self._followers:
            follower.set()

    def _messages(
        self, changes: list[JobChange], seq: int, end_seq: int
    ) -> Iterator[jobs_pb2.WatchJobsResponse]:
        """Changes in messages; a position is the last event of which all has been told.

        With the last message, that is all up to ``end_seq``.
        """
        for start in range(0, len(changes), _CHANGES_A_MESSAGE):
            end = start + _CHANGES_A_MESSAGE
            part = changes[start:end]
            if end >= len(changes):
                seq = end_seq
            else:
                whole = [change.seq for change in part if change.seq != changes[end].seq]
                seq = whole[-1] if whole else seq
            yield self._message(part, seq)

    def _message(self, changes: list[JobChange], seq: int) -> jobs_pb2.WatchJobsResponse:
        response = jobs_pb2.WatchJobsResponse()
        response.position.partition = self._number
        response.position.seq = seq
        for change in changes:
            row = response.changes.add(
                job_id=change.job_id,
                state=wire_enum(change.state),
                name=change.policy.name,
                queue=change.policy.queue,
                seq=change.seq,
            )
            row.changed_at.FromMilliseconds(change.changed_ms)
        return response


def _expired(partition: int, seq: int, from_seq: int) -> TenureError:
    return Rejected(
        f"expected to resume a watch of partition {partition} after {seq}, but changes are known "
        f"only after {from_seq}; list the jobs, then watch from now on",
        reason=Reason.CURSOR_EXPIRED,
        metadata={"partition": str(partition), "after_seq": str(seq), "from_seq": str(from_seq)},
    )
