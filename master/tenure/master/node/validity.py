"""Until when an office is surely ours: the check before every effect that no commit guards.

```
 renew sent ──────────── answered                      another may win
     │◄──────────────────── ttl ───────────────────────────►│
     │◄──────── ttl − margin ────────►│ valid_until
```
"""

from tenure.master.node.port import Clock

_MARGIN_MS = 500


class Validity:
    """Holds while the last answered keepalive proves the office.

    Args:
        clock: Read by its boot clock only.
        ttl_ms: The office's time to live; None: it cannot be lost.
        sent_ms: When the request that won the office was sent.
    """

    def __init__(self, clock: Clock, *, ttl_ms: int | None, sent_ms: int) -> None:
        self._clock = clock
        self._ttl_ms = ttl_ms
        self.valid_until_ms = 0
        self.extend(sent_ms)

    def extend(self, sent_ms: int) -> None:
        """A keepalive that was sent at this time has been answered."""
        if self._ttl_ms is not None:
            margin_ms = self._ttl_ms // 10 + _MARGIN_MS
            self.valid_until_ms = max(self.valid_until_ms, sent_ms + self._ttl_ms - margin_ms)

    def holds(self) -> bool:
        """Whether the office is surely ours now."""
        return self._ttl_ms is None or self._clock.boot_ms() < self.valid_until_ms
