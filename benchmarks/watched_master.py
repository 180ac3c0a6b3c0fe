"""A master that watches its own loop: `python -m benchmarks.watched_master --store URL`.

On SIGUSR1 it prints `held`: for how long at most, since the last SIGUSR1, the loop did not come
round to a timer of a millisecond, and the most CPU that its thread took before it did.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from typing import Final

from benchmarks.pipe.client import say
from tenure.master.main import MasterConfig, serve
from tenure.master.node.collector import calm_collector
from tenure.protocol import loop

_TICK_S: Final = 0.001


class Watch:
    """How long the loop was held."""

    def __init__(self) -> None:
        self._held_s = 0.0
        self._cpu_s = 0.0

    async def run(self) -> None:
        """Looks until cancelled."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._say)
        while True:
            began, used = time.perf_counter(), time.thread_time()
            await asyncio.sleep(_TICK_S)
            self._held_s = max(self._held_s, time.perf_counter() - began)
            self._cpu_s = max(self._cpu_s, time.thread_time() - used)

    def _say(self) -> None:
        say("held", held_ms=self._held_s * 1_000, cpu_ms=self._cpu_s * 1_000)
        self._held_s = self._cpu_s = 0.0


async def watched(config: MasterConfig) -> int:
    """As ``serve``."""
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(Watch().run())
        code = await serve(config)
        watching.cancel()
    return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", required=True)
    config = MasterConfig(store=parser.parse_args().store, listen="127.0.0.1:0")
    calm_collector()
    sys.exit(loop.run(watched(config)))
