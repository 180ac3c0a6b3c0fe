"""Keeps an office: keepalives that prove it, and the checks after a pause.

A keepalive counts only if the owner loop turned since the last one and no batch is stuck for
another reason than space; there is no background thread, so a wedged loop loses its office.

```
 HOLDING ──valid_until passed──► FROZEN ──keepalive answered, key verified──► HOLDING (thaw)
    │                               └──key gone──► OfficeLost
    └──gap in the loop > TTL/3──► DOUBTING ──key verified──► HOLDING (deadlines pushed by the gap)
```
"""

import asyncio
import logging
from typing import Final, Protocol

from tenure.master.backend.errors import StoreUnavailable
from tenure.master.election.port import Office
from tenure.master.node.port import Clock
from tenure.master.node.validity import Validity

_log = logging.getLogger(__name__)

_TICK_MS: Final = 250
#: For offices that cannot be lost: pushes lease deadlines after a pause all the same.
_GAP_MS_DEFAULT: Final = 2_000
_STUCK_MS_MAX: Final = 3_000


class Kept(Protocol):
    """What the keeper keeps an office for (a term, or a recovery)."""

    def turns(self) -> int:
        """How often the owner loop has turned; asking makes it turn once more."""

    def stuck_ms(self) -> int:
        """How long the oldest batch has been on its way; 0: none is."""

    def freeze(self) -> None:
        """The office cannot be proved any more: who waits here may have to ask another leader."""

    def thaw(self) -> None:
        """The office was held all along: lease TTLs start anew."""

    def resume(self, gap_ms: int) -> None:
        """The process stood still for this long, and the office is still ours."""


class Keeper:
    """Renews one office.

    Args:
        office: What was won.
        clock: The machine's clocks.
        sent_ms: When the request that won it was sent (boot clock).
    """

    def __init__(self, office: Office, clock: Clock, *, sent_ms: int) -> None:
        self._office = office
        self._clock = clock
        self._validity = Validity(clock, ttl_ms=office.ttl_ms, sent_ms=sent_ms)
        ttl_ms = office.ttl_ms
        self._interval_ms = ttl_ms // 4 if ttl_ms else _TICK_MS
        self._gap_ms = ttl_ms // 3 if ttl_ms else _GAP_MS_DEFAULT
        self._ticked_ms = clock.boot_ms()
        self._renewed_ms = sent_ms
        self._turns = -1
        self._frozen = False
        #: Keepalives stopped because of this process, not because of the store.
        self._withheld = False
        #: The last tick before the process stood still, until the office has been checked.
        self._doubt_from_ms: int | None = None
        self.kept: Kept | None = None

    def may_act(self) -> bool:
        """Whether effects that no commit guards may leave now. Call it at the start of a turn."""
        if self._doubt_from_ms is not None or self._frozen:
            return False
        if self._clock.boot_ms() - self._ticked_ms > self._gap_ms:
            self._doubt_from_ms = self._ticked_ms
            return False
        if not self._validity.holds():
            self._freeze()
            return False
        return True

    @property
    def frozen(self) -> bool:
        """Whether the office cannot be proved now."""
        return self._frozen or self._doubt_from_ms is not None or not self._validity.holds()

    async def run(self) -> None:
        """Renews until cancelled. Ends by raising OfficeLost."""
        while True:
            await self._clock.sleep(_TICK_MS)
            self._look_for_gap()
            if self._doubt_from_ms is not None:
                await self._settle_doubt(self._doubt_from_ms)
            elif self._office.ttl_ms is not None and self._due():
                await self._renew()

    def _look_for_gap(self) -> None:
        now_ms = self._clock.boot_ms()
        if now_ms - self._ticked_ms > self._gap_ms and self._doubt_from_ms is None:
            self._doubt_from_ms = self._ticked_ms
        self._ticked_ms = now_ms
        if not self._validity.holds():
            self._freeze()

    def _freeze(self) -> None:
        if not self._frozen:
            self._frozen = True
            if self.kept is not None:
                self.kept.freeze()

    def _due(self) -> bool:
        return self._frozen or self._clock.boot_ms() - self._renewed_ms >= self._interval_ms

    async def _settle_doubt(self, from_ms: int) -> None:
        gap_ms = self._clock.boot_ms() - from_ms
        _log.warning(
            "The process stood still for %d ms; checking the office before going on",
            gap_ms,
            extra={"action": "doubt", "gap_ms": gap_ms},
        )
        try:
            await self._office.verify()
        except StoreUnavailable:
            return
        # What was buffered meanwhile is read before anything is judged.
        for _ in range(3):
            await asyncio.sleep(0)
        self._ticked_ms = self._clock.boot_ms()
        self._doubt_from_ms = None
        if self.kept is not None and self._validity.holds():
            # Workers got HOLD as long as the check took, too.
            self.kept.resume(self._ticked_ms - from_ms)

    async def _look_for_loss(self) -> None:
        """Notices that another may lead by now: asks, and prolongs nothing."""
        try:
            await self._office.verify()
        except StoreUnavailable:
            return
        finally:
            self._ticked_ms = self._clock.boot_ms()

    async def _renew(self) -> None:
        turns = self.kept.turns() if self.kept is not None else self._turns + 1
        stuck = self.kept is not None and self.kept.stuck_ms() > _STUCK_MS_MAX
        wedged = turns == self._turns or stuck
        # Frozen because the store was away, a batch is stuck for that very reason: renew.
        if wedged and (self._withheld or not self._frozen):
            self._withheld = True
            _log.warning(
                "Not renewing the office: %s",
                "a batch is stuck" if stuck else "the owner loop does not turn",
                extra={"action": "withhold_keepalive"},
            )
            if self._frozen:
                await self._look_for_loss()
            return
        self._withheld = False
        try:
            if self._frozen:
                # A keepalive whose answer is lost would keep the office from everyone, for good, if
                # only answers are lost: first a question that prolongs nothing.
                await self._office.verify()
            sent_ms = self._clock.boot_ms()
            await self._office.renew()
        except StoreUnavailable as error:
            _log.warning("No answer to a keepalive: %s", error, extra={"action": "keepalive"})
            return
        finally:
            self._look_for_gap()
        self._turns = turns
        self._renewed_ms = sent_ms
        self._validity.extend(sent_ms)
        if self._frozen and self._validity.holds():
            self._frozen = False
            if self.kept is not None:
                self.kept.thaw()
