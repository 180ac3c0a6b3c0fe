"""The latest changes of a partition's jobs: recovery begins the ring, the term goes on with it."""

from collections import deque
from itertools import takewhile
from typing import Final

from tenure.master.core.state import JobChange

CHANGES_KEPT: Final = 20_000


class Changes:
    """Every change after one event up to another, but for those that were too many.

    Seqs are the journal's, so a successor that has replayed them knows the same changes.

    Args:
        after_seq: The event after which changes are known.
    """

    def __init__(self, after_seq: int) -> None:
        #: Changes of this event and of all before it may be missing.
        self.after_seq = after_seq
        self._kept: deque[JobChange] = deque(maxlen=CHANGES_KEPT)

    def record(self, changes: list[JobChange]) -> None:
        """Takes the changes that came next; the oldest ones give way."""
        kept = self._kept
        over = len(kept) + len(changes) - CHANGES_KEPT
        if over > 0:
            lost = kept[over - 1] if over <= len(kept) else changes[over - len(kept) - 1]
            self.after_seq = max(self.after_seq, lost.seq)
        kept.extend(changes)

    def restart(self, after_seq: int) -> None:
        """Forgets all: what came up to this event has not been recorded."""
        self.after_seq = after_seq
        self._kept.clear()

    def behind(self, seq: int) -> list[JobChange]:
        """The changes after a cursor; looks at no others, so that a watch costs what it tells."""
        found = list(takewhile(lambda change: change.seq > seq, reversed(self._kept)))
        found.reverse()
        return found
