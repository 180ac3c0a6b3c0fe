"""A worker of a replay: slots, and the few jobs that it holds beyond them."""

from collections import deque

from tenure.master.core.command import LeaseRow
from tenure.protocol.prefetch import mean_after, prefetch


class Worker:
    """What one worker runs and holds. Times in milliseconds.

    Attributes:
        number: Of its session.
    """

    __slots__ = ("_free", "_mean_run_ms", "_running", "_slots", "_waiting", "number")

    def __init__(self, number: int, slots: int) -> None:
        self.number = number
        self._slots = slots
        self._running = 0
        #: Since when each free slot is free.
        self._free = deque([0] * slots)
        self._waiting: deque[LeaseRow] = deque()
        self._mean_run_ms: float | None = None

    @property
    def credit(self) -> int:
        """How many grants it may get."""
        pool = self._slots + prefetch(self._slots, self._mean_run_ms)
        return max(0, pool - self._running - len(self._waiting))

    @property
    def free(self) -> int:
        """How many grants would begin at once."""
        return len(self._free) - len(self._waiting)

    def take(self, row: LeaseRow) -> None:
        """Takes a grant."""
        self._waiting.append(row)

    def drop(self, row: LeaseRow) -> bool:
        """Gives up a job that has not begun; tells whether it was here."""
        if row not in self._waiting:
            return False
        self._waiting.remove(row)
        return True

    def next(self) -> tuple[LeaseRow, int] | None:
        """The next job to begin and since when its slot is free; None: no job or no slot."""
        if not self._waiting or not self._free:
            return None
        self._running += 1
        return self._waiting.popleft(), self._free.popleft()

    def ended(self, now_ms: int, run_ms: int) -> None:
        """A job has ended."""
        self._running -= 1
        self._free.append(now_ms)
        self._mean_run_ms = mean_after(self._mean_run_ms, run_ms)
