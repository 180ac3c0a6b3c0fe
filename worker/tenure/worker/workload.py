"""What the whole worker has to do, whichever master granted it: slots, orders, averages."""

from collections.abc import Mapping
from itertools import islice
from typing import Final, NamedTuple

from tenure.protocol.prefetch import MEAN_WEIGHT, mean_after, prefetch
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.held import HeldJob

#: How many bytes of payloads may wait here unstarted.
PREFETCH_BYTES_MAX: Final = 8 * 1024 * 1024
#: How runs end that others have ended.
_BROKEN_OFF: Final = frozenset(
    {AttemptOutcome.CANCELLED, AttemptOutcome.RELEASED, AttemptOutcome.LOST}
)


class Quarantined(NamedTuple):
    """That masters give the worker nothing.

    Attributes:
        reason: Why, for people.
        by_hand: An operator wants it.
        since_ms: When it was told, on its boot clock.
    """

    reason: str
    by_hand: bool
    since_ms: int


class Workload:
    """Shared by the sessions of one worker. Orders wait here until the shell takes them.

    Attributes:
        slots: How many jobs run at once.
        occupied: Jobs granted and not ended.
        drained: An operator wants no more work here.
        stopping: The process is about to end.
        quarantine: Why masters give it nothing, if they do not.
        paused: Nothing new is taken for a while.
        runs: Orders to run, in order.
        stops: Orders to stop begun jobs, with the outcome to report.
        leases: Begun jobs whose leases were renewed or revoked.
        ended: How many attempts have ended, by their outcomes' values.
    """

    def __init__(self, slots: int, batch_sizes: Mapping[str, int] | None = None) -> None:
        """``batch_sizes`` are those of batch handlers, by job name."""
        self.slots = slots
        self.occupied = 0
        self._batch_sizes = batch_sizes or {}
        #: Of those occupied the items of batch handlers.
        self._items = dict.fromkeys(self._batch_sizes, 0)
        self.drained = False
        self.stopping = False
        self.quarantine: Quarantined | None = None
        self.paused = False
        self.runs: list[HeldJob] = []
        self.stops: list[tuple[HeldJob, AttemptOutcome]] = []
        self.leases: list[HeldJob] = []
        self.ended = [0] * (1 + max(AttemptOutcome))
        #: When a lease may lapse next; nothing is scanned before.
        self.next_scan_ms: int | None = None
        self._mean_run_ms: float | None = None
        self._mean_payload_bytes = 0.0

    @property
    def draining(self) -> bool:
        """Whether nothing new is taken any more, or until an operator wants it."""
        return self.drained or self.stopping

    @property
    def refusing(self) -> bool:
        """Whether nothing new is taken."""
        return self.draining or self.paused

    @property
    def pool(self) -> int:
        """How many grants all masters together may still send."""
        if self.refusing:
            return 0
        free = self.slots + self.prefetch - self.calls
        if self._items and free >= 0:
            free += self._affordable(self._room)
        return max(0, free)

    @property
    def calls(self) -> int:
        """The fewest slots that all that is here will take."""
        calls = self.occupied
        for name, items in self._items.items():
            calls -= items - -(-items // self._batch_sizes[name])
        return calls

    @property
    def _room(self) -> int:
        """Items that would go with those that are here."""
        return sum(-items % self._batch_sizes[name] for name, items in self._items.items())

    def granted(self, count: int) -> None:
        """The last so many ``runs`` have come."""
        self.occupied += count
        if self._items:
            for job in islice(reversed(self.runs), count):
                if job.terms.name in self._items:
                    self._items[job.terms.name] += 1

    def free(self, job: HeldJob) -> None:
        """A job has ended, or was given back."""
        self.occupied -= 1
        if self._items and job.terms.name in self._items:
            self._items[job.terms.name] -= 1

    @property
    def prefetch(self) -> int:
        """Jobs beyond the slots that are worth having here: none until run times are known."""
        return self._affordable(prefetch(self.slots, self._mean_run_ms))

    def _affordable(self, jobs: int) -> int:
        """Of so many jobs as many as may wait here."""
        if self._mean_payload_bytes * jobs > PREFETCH_BYTES_MAX:
            return int(PREFETCH_BYTES_MAX / self._mean_payload_bytes)
        return jobs

    def note_run(self, job: HeldJob) -> None:
        """Counts a run that has ended; of one that was broken off the means learn nothing."""
        if job.result is not None:
            outcome = job.result.outcome
            self.ended[outcome] += 1
            if outcome in _BROKEN_OFF:
                return
        size = len(job.payload)
        if self._mean_run_ms is None:
            self._mean_payload_bytes = size
        else:
            self._mean_payload_bytes += (size - self._mean_payload_bytes) * MEAN_WEIGHT
        self._mean_run_ms = mean_after(self._mean_run_ms, job.run_ms)

    def watch(self, expires_ms: int) -> None:
        """Makes sure that leases are scanned at this time."""
        if self.next_scan_ms is None or expires_ms < self.next_scan_ms:
            self.next_scan_ms = expires_ms
