"""WatchJobs: committed changes of a partition's jobs, remembered for those who come back.

The first watcher of a term turns recording on; from then on the latest changes are kept in a ring,
so that a watch that breaks can resume behind its cursor. A cursor older than the ring, or of a term
before, is CURSOR_EXPIRED: list, then watch from there.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import takewhile
from typing import Final

from tenure.master.core.state import JobChange
from tenure.master.node.pace import Pace
from tenure.master.node.translate import wire_enum
from tenure.protocol.errors import Rejected, TenureError
from tenure.protocol.refusal import Reason
from tenure.v1 import jobs_pb2

_CHANGES_KEPT: Final = 20_000
_CHANGES_A_MESSAGE: Final = 500


class Watch:
    """The changes of one term, and who follows them.

    Args:
        number: The partition.
        committed_seq: How far the commits have come.
        applied_seq: How far the state has come.
        record_changes: Told when changes must be remembered from now on.
    """

    def __init__(
        self,
        *,
        number: int,
        committed_seq: Callable[[], int],
        applied_seq: Callable[[], int],
        record_changes: Callable[[bool], None],
    ) -> None:
        self._number = number
        self._committed_seq = committed_seq
        self._applied_seq = applied_seq
        self._record_changes = record_changes
        self._changes: deque[JobChange] = deque(maxlen=_CHANGES_KEPT)
        self._from_seq: int | None = None
        self._followers: set[asyncio.Event] = set()
        self._error: TenureError | None = None

    @property
    def on(self) -> bool:
        """Whether changes must be recorded."""
        return self._from_seq is not None

    def record(self, changes: list[JobChange]) -> None:
        """Takes changes that have committed."""
        if not changes:
            return
        kept = self._changes
        if len(kept) + len(changes) > _CHANGES_KEPT and kept:
            lost = min(len(kept), len(kept) + len(changes) - _CHANGES_KEPT)
            self._from_seq = kept[lost - 1].seq
        kept.extend(changes)
        for follower in self._followers:
            follower.set()

    def abandon(self, error: TenureError) -> None:
        """The term has ended, or cannot prove its office: every follower is told."""
        self._error = error
        for follower in self._followers:
            follower.set()

    def resume(self) -> None:
        """The office was held all along: who comes back may follow again."""
        self._error = None

    async def follow(
        self, wanted: Callable[[JobChange], bool], after_seq: int | None, pace: Pace
    ) -> AsyncIterator[jobs_pb2.WatchJobsResponse]:
        """Yields wanted changes after a cursor (None: from now on), a position with each message.

        Raises:
            Rejected: CURSOR_EXPIRED.
            TenureError: The leader stepped down, or is frozen.
        """
        if self._from_seq is None:
            # What was applied before now was not recorded, even if it has yet to commit.
            self._from_seq = self._applied_seq()
            self._record_changes(True)
        committed_seq = self._committed_seq()
        seq = max(committed_seq, self._from_seq) if after_seq is None else after_seq
        wake = asyncio.Event()
        self._followers.add(wake)
        try:
            yield self._message([], min(seq, committed_seq))
            while True:
                if self._error is not None:
                    raise self._error
                if seq < self._from_seq:
                    raise _expired(self._number, seq, self._from_seq)
                wake.clear()
                changes = self._behind(seq)
                matching: list[JobChange] = []
                looked = 0
                while looked < len(changes):
                    few = changes[looked : looked + pace.looks]
                    matching += filter(wanted, few)
                    looked += len(few)
                    await pace.rest()
                for message in self._messages(matching, seq):
                    yield message
                seq = changes[-1].seq if changes else seq
                await wake.wait()
        finally:
            self._followers.discard(wake)

    def _behind(self, seq: int) -> list[JobChange]:
        """The changes after a cursor; looks at no others, so that a watch costs what it tells."""
        found = list(takewhile(lambda change: change.seq > seq, reversed(self._changes)))
        found.reverse()
        return found

    def _messages(self, changes: list[JobChange], seq: int) -> Iterator[jobs_pb2.WatchJobsResponse]:
        """Changes in messages; a position is the last event of which all has been told."""
        for start in range(0, len(changes), _CHANGES_A_MESSAGE):
            end = start + _CHANGES_A_MESSAGE
            part = changes[start:end]
            next_seq = changes[end].seq if end < len(changes) else None
            whole = [change.seq for change in part if change.seq != next_seq]
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
