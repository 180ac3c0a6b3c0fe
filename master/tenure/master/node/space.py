"""Watermarks: how full the store is, and what is refused before it takes nothing any more.

```
 used / quota   60 %            75 %                85 %
 ROOMY ─────────► TIDYING ──────► NO_BULK ───────────► NO_SUBMITS
                  snapshots early  jobs behind the      all new jobs refused;
                  the log is cut   default priority     results are taken
                                   refused
```
The share counts what holds data: what a truncation frees is used again. The file only grows, and
its size is what etcd holds against its quota, so there a large file is an alarm: only an operator
can defragment. An office is never given up for want of space, for none could be won.
"""

import logging
from dataclasses import dataclass
from typing import Final

from tenure.master.backend.errors import StoreUnavailable
from tenure.master.backend.space import Space
from tenure.master.core.command import Intake
from tenure.master.node.alarms import Alarms
from tenure.master.node.port import Clock
from tenure.master.store import Store
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason
from tenure.v1 import cluster_pb2

_log = logging.getLogger(__name__)

#: Of the quota: what all partitions' live data may be. An old snapshot, a log of up to twice its
#: size and a new snapshot then fit below the first watermark.
_LIVE_PERCENT: Final = 15
_FILE_ALARM_PERCENT: Final = 80
#: What all partitions' logs together may hold in a tight store before they are cut. More, of a
#: small quota, would keep it tight for ever.
_TIGHT_LOGS_PERCENT: Final = 10
#: One partition's part of it: a snapshot for each few batches costs more than it frees.
_TIGHT_LOG_BYTES_MIN: Final = 16 * 1024
_TIGHT_LOG_BYTES_MAX: Final = 256 * 1024
#: A level ends when the share has fallen so far below its mark.
_SLACK_PERCENT: Final = 3
_LOOK_MS: Final = 5_000
_TIDY_MS: Final = 60_000

_Level = cluster_pb2.SpaceLevel


@dataclass(frozen=True, slots=True)
class _Mark:
    percent: int
    level: "_Level"
    intake: Intake


_MARKS: Final = (
    _Mark(85, _Level.SPACE_LEVEL_NO_SUBMITS, Intake.CLOSED),
    _Mark(75, _Level.SPACE_LEVEL_NO_BULK, Intake.NO_BULK),
    _Mark(60, _Level.SPACE_LEVEL_TIDYING, Intake.OPEN),
    _Mark(0, _Level.SPACE_LEVEL_ROOMY, Intake.OPEN),
)


def demand_quota(quota_bytes: int | None, partitions: int) -> None:
    """Refuses a quota in which not even the shortest logs of all partitions have their place.

    Args:
        quota_bytes: What the operator has said; None: nothing.
        partitions: The store's.

    Raises:
        Rejected: It is too small for so many.
    """
    least = _TIGHT_LOG_BYTES_MIN * partitions * 100 // _TIGHT_LOGS_PERCENT
    if quota_bytes is not None and quota_bytes < least:
        raise Rejected(
            f"expected a store quota of at least {least} bytes for {partitions} partitions, but got"
            f" {quota_bytes}; give the store more room",
            reason=Reason.INVALID_ARGUMENT,
            metadata={"limit": str(least), "partitions": str(partitions)},
            field="store_quota",
        )


class SpaceWatch:
    """Looks at a master's store every few seconds.

    Args:
        store: Whose space.
        clock: For its pauses.
        alarms: Where a full store is told of.
    """

    def __init__(self, store: Store, clock: Clock, alarms: Alarms) -> None:
        self._store = store
        self._clock = clock
        self._alarms = alarms
        self._space: Space | None = None
        self._mark = _MARKS[-1]
        self._tidied_ms: int | None = None

    def intake(self) -> Intake:
        """Which new jobs the store has room for."""
        return self._mark.intake

    def tight(self) -> bool:
        """Whether the log should be cut early."""
        return self._mark.percent > 0

    def log_bytes_max(self) -> int | None:
        """How long one partition's log may be now; None: the store is not tight."""
        if self._space is None or not self.tight():
            return None
        part = self._space.quota_bytes * _TIGHT_LOGS_PERCENT // 100 // self._store.partitions
        return min(max(part, _TIGHT_LOG_BYTES_MIN), _TIGHT_LOG_BYTES_MAX)

    def bytes_max(self, memory_bytes_max: int) -> int:
        """What one partition may keep of payloads, results and errors.

        Args:
            memory_bytes_max: What this master may keep, should it have to lead all partitions.
        """
        bytes_max = memory_bytes_max
        if self._space is not None:
            bytes_max = min(bytes_max, self._space.quota_bytes * _LIVE_PERCENT // 100)
        return bytes_max // self._store.partitions

    def status(self) -> cluster_pb2.StoreSpace | None:
        """For ``GetStatus``; None: there is nothing to say."""
        space = self._space
        if space is None:
            return None
        return cluster_pb2.StoreSpace(
            used_bytes=space.used_bytes,
            file_bytes=space.file_bytes,
            quota_bytes=space.quota_bytes,
            level=self._mark.level,
        )

    async def run(self) -> None:
        """Looks again and again, until cancelled."""
        while True:
            await self._clock.sleep(_LOOK_MS)
            await self.run_once()

    async def run_once(self) -> None:
        """Looks, and tidies up if it is time to."""
        try:
            space = await self._store.space()
        except StoreUnavailable as error:
            _log.info("Cannot see how full the store is: %s", error, extra={"action": "space"})
            return
        if space is None:
            return
        self._space = space
        self._judge(space)
        if self.tight():
            await self._tidy()

    def _judge(self, space: Space) -> None:
        used = 100 * space.used_bytes / space.quota_bytes
        file = 100 * space.file_bytes / space.quota_bytes
        self._mark = next(
            mark
            for mark in _MARKS
            if used >= mark.percent - (_SLACK_PERCENT if mark.percent <= self._mark.percent else 0)
        )
        refused = {Intake.NO_BULK: "jobs of a low priority", Intake.CLOSED: "new jobs"}
        what = refused.get(self._mark.intake)
        self._alarms.judge(
            "store_used",
            what
            and f"{used:.0f} % of the store's quota holds data, so {what} are refused; let"
            " jobs end, purge, or raise the quota (docs/runbooks/nospace.md)",
        )
        self._alarms.judge(
            "store_file",
            f"the store's file takes {file:.0f} % of its quota, beyond which nothing is written;"
            " defragment each member (docs/runbooks/nospace.md)"
            if space.file_counts and file >= _FILE_ALARM_PERCENT
            else None,
        )

    async def _tidy(self) -> None:
        now_ms = self._clock.boot_ms()
        if self._tidied_ms is None or now_ms - self._tidied_ms >= _TIDY_MS:
            self._tidied_ms = now_ms
            await self._store.tidy()
