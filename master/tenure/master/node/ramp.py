"""The ramp: after a window, grants begin slowly, for all workers are back at the same moment."""

from typing import Final

from tenure.master.core.explain import Halt

_LENGTH_MS: Final = 5_000
#: At its start; the rate grows linearly from there.
_GRANTS_PER_S: Final = 2_000
_FIRST: Final = 64


class Ramp:
    """How many grants a term may have given by now."""

    def __init__(self) -> None:
        self._from_ms = 0
        self._granted = 0

    def start(self, at_ms: int) -> None:
        """Grants are ramped up from this moment on."""
        self._from_ms = at_ms

    def granted(self, count: int) -> None:
        """So many more were given."""
        self._granted += count

    def room(self, now_ms: int) -> int | None:
        """How many may be given now; None: any number."""
        if not self._from_ms:
            return None
        since_ms = now_ms - self._from_ms
        if since_ms >= _LENGTH_MS:
            self._from_ms = 0
            return None
        # The rate grows linearly, so what may have been granted in all grows with its square.
        allowed = _FIRST + _GRANTS_PER_S * since_ms * (1 + since_ms / _LENGTH_MS) / 1000
        return int(allowed) - self._granted

    def halt(self, now_ms: int) -> Halt | None:
        """Why nothing may be given now; None: something may."""
        room = self.room(now_ms)
        if room is None or room > 0:
            return None
        until_ms = self._from_ms + _LENGTH_MS
        return Halt(
            "the leader has just taken office, and grants step by step", "a moment", until_ms
        )
