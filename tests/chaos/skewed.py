"""``tenure`` with clocks that a test can bend: ``python -m tests.chaos.skewed master …``.

The shipped master and worker run with another adapter behind their ``Clock`` port. Some numbers in
the file ``CHAOS_CLOCK``, mapped into memory, say how far the process's clocks are off; the test
changes them while it runs. The event loop's own timers are not bent (but for sleeps, which last by
the bent clock), as when a machine's clock is set.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import tenure.master.main
import tenure.worker.runtime
from tenure.cli import launch
from tenure.cli.entry import main
from tenure.master.etcd_store import open_etcd_store
from tenure.master.node.clock import SystemClock
from tenure.master.node.port import Clock
from tenure.master.node.trace import Trace

_NUMBERS = struct.Struct("<ddddd")


class Dial:
    """The file that bends a process's clocks, on the test's side and on the process's.

    Args:
        path: Made, with clocks that are right, if it is not there.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(_NUMBERS.pack(0.0, 0.0, 1.0, 0.0, 0.0))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _NUMBERS.size)

    def boot_ms(self) -> int:
        """CLOCK_BOOTTIME, bent."""
        _, ahead_ms, rate, since_ms, _ = _NUMBERS.unpack(self._map[:])
        now_ms = _boot_ms()
        return int(now_ms + ahead_ms + (now_ms - since_ms) * (rate - 1.0))

    def wall_ms(self) -> int:
        """UTC, bent."""
        return time.time_ns() // 1_000_000 + int(_NUMBERS.unpack(self._map[:])[0])

    @property
    def rate(self) -> float:
        """How fast the boot clock runs."""
        return float(_NUMBERS.unpack(self._map[:])[2])

    def set_wall(self, ahead_ms: float) -> None:
        """The wall clock is so far ahead from now on."""
        _, *rest = _NUMBERS.unpack(self._map[:])
        self._map[:] = _NUMBERS.pack(ahead_ms, *rest)

    def set_rate(self, rate: float) -> None:
        """The boot clock runs at another rate from now on; it does not jump."""
        wall_ms, _, _, _, block_ms = _NUMBERS.unpack(self._map[:])
        now_ms = _boot_ms()
        ahead_ms = self.boot_ms() - now_ms
        self._map[:] = _NUMBERS.pack(wall_ms, ahead_ms, rate, now_ms, block_ms)

    def skip(self, ms: float) -> None:
        """The boot clock jumps forward, as over a suspend."""
        wall_ms, ahead_ms, *rest = _NUMBERS.unpack(self._map[:])
        self._map[:] = _NUMBERS.pack(wall_ms, ahead_ms + ms, *rest)

    def block_loop(self, for_ms: float) -> None:
        """Who asks for the time next waits so long for it, and the event loop with it."""
        *rest, _ = _NUMBERS.unpack(self._map[:])
        self._map[:] = _NUMBERS.pack(*rest, _boot_ms() + for_ms)

    def wait_blocked(self) -> None:
        """In the process: stands still for as long as the test wants, all other threads live."""
        block_ms = float(_NUMBERS.unpack(self._map[:])[4])
        if block_ms:
            time.sleep(max(0.0, block_ms - _boot_ms()) / 1_000)


class BentClock:
    """The clocks of this process, for master and worker alike."""

    def __init__(self) -> None:
        self._dial = Dial(Path(os.environ["CHAOS_CLOCK"]))

    def boot_ms(self) -> int:
        self._dial.wait_blocked()
        return self._dial.boot_ms()

    def wall_ms(self) -> int:
        return self._dial.wall_ms()

    async def sleep(self, ms: int) -> None:
        await asyncio.sleep(ms / 1_000 / self._dial.rate)


class TrueTrace(Trace):
    """A master's trace, by the clocks as they are: it is a witness, and must not be bent."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        super().__init__(path, SystemClock())


def _boot_ms() -> float:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) / 1e6


def _become_worker(told: Mapping[str, Any]) -> NoReturn:
    """The worker in this very interpreter: a fresh one would have its own clocks again."""
    sys.exit(launch.carry_out(dict(told)))


if __name__ == "__main__":
    for module in (tenure.master.main, tenure.worker.runtime):
        vars(module)["SystemClock"] = BentClock
    vars(tenure.master.main)["Trace"] = TrueTrace
    vars(launch)["become_worker"] = _become_worker
    if "CHAOS_OFFICE_TTL_S" in os.environ:
        # To measure what another TTL would cost and gain: the default alone is changed.
        open_etcd_store.__kwdefaults__["office_ttl_s"] = int(os.environ["CHAOS_OFFICE_TTL_S"])
    main()
