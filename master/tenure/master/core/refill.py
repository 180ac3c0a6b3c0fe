"""Refills: gates that time opens again, as a bucket gets a token or a breaker lets probes through.

```
 open ──a grant takes the last token──► dry, armed ──its time has come──► open
                                          ▲                                 │ still without one
                                          └─────────────────────────────────┘
```
"""

from collections.abc import Callable
from operator import attrgetter

from tenure.master.core.gate import Gate, Limiter
from tenure.master.core.timer import Timers


class Refills(Timers[Gate]):
    """Gates that wait for their time.

    Args:
        gates: How many there may be.
    """

    __slots__ = ()

    def __init__(self, gates: Callable[[], int]) -> None:
        super().__init__(lambda gate: gate.next_ms(), attrgetter("label"), gates)

    def charge(self, limiter: Limiter, grants: int, now_ms: int) -> None:
        """Grants take tokens of a limiter, if it has a bucket; without any left it closes."""
        bucket = limiter.bucket
        if bucket is not None:
            bucket.charge(grants, now_ms)
            if not limiter.is_dry and not bucket.room(now_ms):
                self._run_dry(limiter)

    def await_tokens(self, limiter: Limiter, now_ms: int) -> None:
        """A limiter has a new bucket."""
        if limiter.bucket is not None and not limiter.bucket.room(now_ms):
            self._run_dry(limiter)

    def _run_dry(self, limiter: Limiter) -> None:
        limiter.is_dry = True
        limiter.refresh()
        self.arm(limiter)

    def look_at(self, gate: Gate, now_ms: int) -> None:
        """A gate's time has come, or it is another one by now."""
        due_ms = gate.next_ms()
        if due_ms is not None and due_ms <= now_ms:
            gate.wake(now_ms)
        self.arm(gate)
