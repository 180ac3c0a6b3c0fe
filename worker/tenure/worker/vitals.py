"""How a worker's process does: its memory, its CPU, how late its session's loop is."""

import time
from typing import Final, NamedTuple

from tenure.v1 import worker_pb2
from tenure.worker.port import Load
from tenure.worker.pulse import rss_bytes
from tenure.worker.workload import Workload

#: Readings that are nearer than this share one: streams beat at about the same time.
FRESH_MS: Final = 1_000


class Reading(NamedTuple):
    """What the system says of the process.

    Attributes:
        rss_bytes: Its resident memory.
        cpu_share: Of one core, since the reading before.
        loop_lag_ms: How late its session was at most, since the reading before.
    """

    rss_bytes: int = 0
    cpu_share: float = 0.0
    loop_lag_ms: int = 0


class Gauge:
    """Reads this process."""

    def __init__(self) -> None:
        self._read_ms: int | None = None
        self._cpu_s = time.process_time()
        self._lag_ms = 0
        self._last = Reading()

    def late(self, lag_ms: int) -> None:
        """The session's loop came so late to what was due."""
        self._lag_ms = max(self._lag_ms, lag_ms)

    def read(self, now_ms: int) -> Reading:
        """How the process does, as of the last second."""
        if self._read_ms is not None and now_ms - self._read_ms < FRESH_MS:
            return self._last
        cpu_s = time.process_time()
        share = 0.0
        if self._read_ms is not None:
            share = max(0.0, (cpu_s - self._cpu_s) * 1000 / (now_ms - self._read_ms))
        self._last = Reading(rss_bytes(), share, self._lag_ms)
        self._read_ms, self._cpu_s, self._lag_ms = now_ms, cpu_s, 0
        return self._last


def told(workload: Workload, load: Load, reading: Reading, now_ms: int) -> worker_pb2.Vitals:
    """What masters are told."""
    vitals = worker_pb2.Vitals(
        drained=workload.drained,
        stopping=workload.stopping,
        slots_used=min(workload.calls, workload.slots),
        slots_lost=load.lost,
        children=load.children,
        rss_bytes=reading.rss_bytes,
        cpu_share=reading.cpu_share,
        loop_lag_ms=reading.loop_lag_ms,
    )
    quarantine = workload.quarantine
    if quarantine is not None:
        vitals.quarantine.reason = quarantine.reason
        vitals.quarantine.by_hand = quarantine.by_hand
        vitals.quarantine.for_ms = max(0, now_ms - quarantine.since_ms)
    blocked = load.blocked
    if blocked is not None:
        vitals.loop_blocked.job_id = blocked.job_id
        vitals.loop_blocked.name = blocked.name
        vitals.loop_blocked.blocked_ms = blocked.ms
        vitals.loop_blocked.stack = blocked.stack
    return vitals
