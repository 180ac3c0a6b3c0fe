"""Circuit breakers: job types that fail too often wait, instead of burning their attempts.

```
            failures / attempts >= failure_rate, of volume_min or more in the window
   CLOSED ──────────────────────────────────────────────────────────────────────────► OPEN
     ▲                                                                  ▲               │
     │ as many in a row have succeeded                    one has failed │               │ open_for
     └──────────────────────────────── HALF_OPEN ────────────────────────┴◄──────────────┘
                                  so many probes are granted
```
While it is half open only probes count: whatever was granted earlier says nothing of how things are
now. A probe that came to nothing (handed back, cancelled) gives its place to another. All of it is
a term's own; what an operator said (``BreakerOverride``) is a setting, and outlives it.
"""

from collections.abc import Iterable
from typing import Final

from tenure.master.core.settings import BreakerSettings
from tenure.master.core.window import Window
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import AttemptOutcome, BreakerState

#: What is known of job types without a breaker.
WINDOW_MS: Final = 60_000
#: Outcomes that are failures; any other one but success says nothing of the job type.
FAILURES: Final = frozenset(
    {
        AttemptOutcome.FAILED,
        AttemptOutcome.FAILED_PERMANENT,
        AttemptOutcome.TIMED_OUT,
        AttemptOutcome.LOST,
    }
)


class Breaker:
    """The breaker of one job type; with no settings it only counts, and stays closed."""

    __slots__ = ("_probing", "_settings", "_succeeded", "_window", "open_until_ms", "state")

    state: BreakerState
    #: While it is OPEN.
    open_until_ms: int

    def __init__(self, settings: BreakerSettings | None) -> None:
        self._settings = settings
        self._close()

    def _close(self) -> None:
        self.state = BreakerState.CLOSED
        self.open_until_ms = 0
        #: Attempts and failures.
        self._window = Window(WINDOW_MS if self._settings is None else self._settings.window_ms, 2)
        self._forget_probes()

    def _forget_probes(self) -> None:
        #: Probes that run.
        self._probing: dict[JobId, None] = {}
        self._succeeded = 0

    def room(self) -> int | None:
        """How many more may be granted; None: any number."""
        if self._settings is None or self.state is BreakerState.CLOSED:
            return None
        if self.state is BreakerState.OPEN:
            return 0
        return self._settings.probes - len(self._probing) - self._succeeded

    def granted(self, job_ids: Iterable[JobId]) -> None:
        """Jobs were granted."""
        if self.state is BreakerState.HALF_OPEN:
            self._probing.update(dict.fromkeys(job_ids))

    def count(self, successes: int, now_ms: int) -> None:
        """Attempts that are no probes have succeeded."""
        self._window.bucket(now_ms)[1] += successes

    def succeeded(self, job_id: JobId, now_ms: int) -> None:
        """An attempt has succeeded."""
        self.count(1, now_ms)
        if job_id in self._probing:
            del self._probing[job_id]
            self._succeeded += 1
            if self._settings is None or self._succeeded >= self._settings.probes:
                self._close()

    def failed(self, job_id: JobId, now_ms: int) -> None:
        """An attempt has failed."""
        bucket = self._window.bucket(now_ms)
        bucket[1] += 1
        bucket[2] += 1
        settings = self._settings
        if settings is None or self.state is BreakerState.OPEN:
            return
        if self.state is BreakerState.HALF_OPEN:
            if job_id in self._probing:
                self._open(settings, now_ms)
            return
        attempts, failures = self._window.sums(now_ms)
        if attempts >= settings.volume_min and failures >= settings.failure_rate * attempts:
            self._open(settings, now_ms)

    def dropped(self, job_id: JobId) -> None:
        """An attempt came to nothing."""
        self._probing.pop(job_id, None)

    def _open(self, settings: BreakerSettings, now_ms: int) -> None:
        self.state = BreakerState.OPEN
        self.open_until_ms = now_ms + settings.open_for_ms
        self._forget_probes()

    def next_ms(self) -> int | None:
        """When time changes its state; None: it does not."""
        return self.open_until_ms if self.state is BreakerState.OPEN else None

    def wake(self, now_ms: int) -> None:
        """Time has passed."""
        if self.state is BreakerState.OPEN and self.open_until_ms <= now_ms:
            self.state = BreakerState.HALF_OPEN
            self.open_until_ms = 0

    def failure_rate(self, now_ms: int) -> float:
        """The share of recent attempts that failed."""
        attempts, failures = self._window.sums(now_ms)
        return failures / attempts if attempts else 0.0
