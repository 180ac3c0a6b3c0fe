"""Circuit breakers: job types and limit keys that fail too often wait, instead of burning their
jobs' attempts.

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

from tenure.master.core.record import JobRecord
from tenure.master.core.settings import BreakerSettings
from tenure.master.core.window import Window
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import AttemptOutcome, BreakerOverride, BreakerState

#: What is known of those without a breaker.
WINDOW_MS: Final = 60_000
#: Outcomes that are failures; any other one but success says nothing.
FAILURES: Final = frozenset(
    {
        AttemptOutcome.FAILED,
        AttemptOutcome.FAILED_PERMANENT,
        AttemptOutcome.TIMED_OUT,
        AttemptOutcome.LOST,
    }
)


class Breaker:
    """One breaker; with no settings, or in an operator's hands, it only counts.

    Args:
        settings: When it opens; None: never.
        override: What an operator makes of it.
    """

    __slots__ = (
        "_made_of",
        "_probing",
        "_settings",
        "_state",
        "_succeeded",
        "_window",
        "_woke_ms",
        "is_held",
        "open_until_ms",
        "probes",
    )

    #: While it has opened by itself.
    open_until_ms: int
    #: How many more may be granted; None: any number.
    probes: int | None
    #: Whether an operator holds it open.
    is_held: bool

    def __init__(
        self,
        settings: BreakerSettings | None,
        override: BreakerOverride = BreakerOverride.NONE,
    ) -> None:
        self._made_of = (settings, override)
        self._settings = settings if override is BreakerOverride.NONE else None
        self.is_held = override is BreakerOverride.OPEN
        self._close()

    @property
    def state(self) -> BreakerState:
        """What it does, or is made to do."""
        return BreakerState.OPEN if self.is_held else self._state

    def _close(self) -> None:
        self._state = BreakerState.CLOSED
        self.open_until_ms = 0
        #: When it became half open for the last time; 0: not since it closed.
        self._woke_ms = 0
        #: Attempts and failures.
        self._window = Window(WINDOW_MS if self._settings is None else self._settings.window_ms, 2)
        self._forget_probes()

    def _forget_probes(self) -> None:
        #: Probes that run.
        self._probing: dict[JobId, None] = {}
        self._succeeded = 0
        self._count_probes()

    def _count_probes(self) -> None:
        if self.is_held or self._state is BreakerState.OPEN:
            self.probes = 0
        elif self._settings is None or self._state is BreakerState.CLOSED:
            self.probes = None
        else:
            self.probes = self._settings.probes - len(self._probing) - self._succeeded

    def granted(self, job_ids: Iterable[JobId]) -> None:
        """Jobs were granted."""
        if self._state is BreakerState.HALF_OPEN:
            self._probing.update(dict.fromkeys(job_ids))
            self._count_probes()

    def succeeded(self, job_ids: list[JobId], now_ms: int) -> None:
        """Attempts have succeeded."""
        if not self._probing:
            self._window.bucket(now_ms)[1] += len(job_ids)
            return
        for job_id in job_ids:
            self._window.bucket(now_ms)[1] += 1
            if job_id in self._probing:
                del self._probing[job_id]
                self._succeeded += 1
                if self._settings is None or self._succeeded >= self._settings.probes:
                    self._close()

    def ended(self, records: list[JobRecord], now_ms: int) -> bool:
        """Attempts have ended without success; tells whether that has opened it."""
        was_open = self._state is BreakerState.OPEN
        for record in records:
            if record.outcome in FAILURES:
                self.failed(record.job_id, now_ms)
            else:
                self.dropped(record.job_id)
        return not was_open and self._state is BreakerState.OPEN

    def failed(self, job_id: JobId, now_ms: int) -> None:
        """An attempt has failed."""
        bucket = self._window.bucket(now_ms)
        bucket[1] += 1
        bucket[2] += 1
        settings = self._settings
        if settings is None or self._state is BreakerState.OPEN:
            return
        if self._state is BreakerState.HALF_OPEN:
            if job_id in self._probing:
                self._open(settings, now_ms)
            return
        attempts, failures = self._window.sums(now_ms)
        if attempts >= settings.volume_min and failures >= settings.failure_rate * attempts:
            self._open(settings, now_ms)

    def dropped(self, job_id: JobId) -> None:
        """An attempt came to nothing."""
        if job_id in self._probing:
            del self._probing[job_id]
            self._count_probes()

    def _open(self, settings: BreakerSettings, now_ms: int) -> None:
        self._state = BreakerState.OPEN
        self.open_until_ms = now_ms + settings.open_for_ms
        self._forget_probes()

    def next_ms(self) -> int | None:
        """When time changes its state; None: it does not."""
        return self.open_until_ms if self._state is BreakerState.OPEN else None

    def wake(self, now_ms: int) -> None:
        """Time has passed."""
        if self._state is BreakerState.OPEN and self.open_until_ms <= now_ms:
            self._state = BreakerState.HALF_OPEN
            self.open_until_ms = 0
            self._woke_ms = now_ms
            self._count_probes()

    def is_of(self, settings: BreakerSettings | None, override: BreakerOverride) -> bool:
        """Whether it was made of these."""
        return (settings, override) == self._made_of

    def is_idle(self, now_ms: int) -> bool:
        """Whether it may be forgotten: it has let jobs through for a window, and none was tried.

        One that is half open would remember for ever, if no job comes any more.
        """
        if self._state is BreakerState.OPEN or self._probing or self._window.sums(now_ms)[0]:
            return False
        return self._settings is None or now_ms - self._woke_ms >= self._settings.window_ms

    def failure_rate(self, now_ms: int) -> float:
        """The share of recent attempts that failed."""
        attempts, failures = self._window.sums(now_ms)
        return failures / attempts if attempts else 0.0
