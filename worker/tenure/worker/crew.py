"""All worker nodes of one process, and how the process ends.

It ends for one of two reasons. Whoever started it has asked (SIGTERM, SIGINT): it drains and exits
with status 0. Or it has had enough: it drains in the same way, and exits with ``EXIT_RESTART``, to
be started again. If both are the case, what was asked for counts, whichever came first.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Protocol

from tenure.worker.attempt import JobTable
from tenure.worker.config import WorkerConfig
from tenure.worker.exits import EXIT_RESTART
from tenure.worker.memory import Memory, MemoryGate
from tenure.worker.pools import Pool, share_out
from tenure.worker.port import Clock, Executor

_LOGGER: Final = logging.getLogger(__name__)
#: Lost slots that are put up with, unless a setting says otherwise: of the slots, and at least.
LOST_PART: Final = 4
LOST_MIN: Final = 2
#: How often memory is looked at, if there is a limit.
MEMORY_MS: Final = 1_000

#: Events that all nodes have in common.
_OF_THE_PROCESS: Final = ("draining", "stopped")

#: Says what happens to whoever started the worker: an event's name and its fields.
Announce = Callable[[str, Mapping[str, object]], None]


class Node(Protocol):
    """A worker node (``runtime.WorkerNode``)."""

    async def run(self) -> None:
        """Works until ``drain`` or ``retire`` has been asked for and is done."""

    def drain(self) -> None:
        """Finish what runs and end; asked a second time: hand back at once."""

    def retire(self) -> None:
        """Finish what runs and end, though nobody has asked for it."""

    def hurry(self) -> None:
        """When it drains: hand back at once."""

    def pause(self, *, paused: bool) -> None:
        """Take no more jobs, and hand back what has not begun; or take some again."""

    @property
    def running(self) -> int:
        """How many jobs have begun and not ended."""


#: Makes the executor of a node, of what it is to call when there is news.
MakeExecutor = Callable[[Callable[[], None]], Executor]
#: Makes the executor of a pool, of what to call when there is news and when a slot was lost.
MakePool = Callable[[Pool, Callable[[], None], Callable[[], None]], Executor]
#: Makes the node of a pool.
MakeNode = Callable[[Pool, MakeExecutor, Announce], Node]


class Crew:
    """The nodes of one process: one for each pool."""

    def __init__(
        self,
        config: WorkerConfig,
        jobs: JobTable,
        *,
        clock: Clock,
        make_pool: MakePool,
        make_node: MakeNode,
        announce: Announce,
        read_memory: Callable[[], Memory],
    ) -> None:
        """Starts nothing yet.

        Args:
            config: How to run.
            jobs: The application's jobs.
            clock: Time.
            make_pool: Makes what runs the jobs of a pool (``executor.pool.pool_maker``).
            make_node: Makes a node, which dials nothing yet.
            announce: Told of registrations, and of the drain and the end of the process.
            read_memory: Reads how much is left; not used without a limit.

        Raises:
            Rejected: INVALID_ARGUMENT: pools or limits of memory make no sense.
        """
        pools = share_out(jobs, config.slots, config.pools)
        slots = sum(pool.slots for pool in pools)
        lost_max = config.lost_slots_max
        self._lost_max = max(LOST_MIN, slots // LOST_PART) if lost_max is None else lost_max
        self._clock = clock
        self._gate: MemoryGate | None = None
        if config.memory_headroom_bytes or config.memory_bytes_max:
            self._gate = MemoryGate(
                config.memory_headroom_bytes, config.memory_bytes_max, read_memory
            )
        self._announce = announce
        self._draining = False
        self._ended = 0
        self._asked = False
        self._restarting = False
        self._executors: list[Executor] = []

        def make_executor(pool: Pool, wake: Callable[[], None]) -> Executor:
            executor = make_pool(pool, wake, self._note_lost)
            self._executors.append(executor)
            return executor

        self._nodes = [
            make_node(pool, partial(make_executor, pool), partial(self._tell, pool))
            for pool in pools
        ]

    async def run(self) -> None:
        """Works until the process is to end."""
        async with asyncio.TaskGroup() as tasks:
            working = [tasks.create_task(node.run()) for node in self._nodes]
            if self._gate is None:
                return
            keeper = tasks.create_task(self._keep_memory(self._gate))
            await asyncio.wait(working)
            keeper.cancel()

    @property
    def status(self) -> int:
        """What the process is to exit with."""
        return EXIT_RESTART if self._restarting and not self._asked else 0

    def drain(self) -> None:
        """Finish what runs and end; asked a second time: hand back at once."""
        self._asked = True
        for node in self._nodes:
            node.drain()

    def restart(self, why: str, *, hurry: bool = False) -> None:
        """Finish what runs and end, to be started again.

        Args:
            why: For the log.
            hurry: Hand back what runs at once.
        """
        if hurry:
            for node in self._nodes:
                node.hurry()
        if self._asked or self._restarting:
            return
        self._restarting = True
        _LOGGER.warning(
            "draining, and then ending with status %d to be started again: %s",
            EXIT_RESTART,
            why,
            extra={"action": "restart"},
        )
        for node in self._nodes:
            node.retire()

    def _note_lost(self) -> None:
        """A slot was lost, or those of all async jobs at once: enough is enough."""
        now_ms = self._clock.boot_ms()
        for load in [executor.load(now_ms) for executor in self._executors]:
            if load.stuck and load.blocked is not None:
                self.restart(
                    f"{load.blocked.who} blocks the loop of async jobs for good: no other one "
                    f"would ever get on"
                )
                return
        lost = self.lost_slots
        if lost > self._lost_max:
            self.restart(
                f"{lost} jobs were given up and their code still runs, more than "
                f"{self._lost_max} (--lost-slots-max)"
            )

    async def _keep_memory(self, gate: MemoryGate) -> None:
        """Takes jobs only while there is memory for them."""
        while True:
            if gate.look():
                self._pause(gate.shut)
            if gate.too_large and not any(node.running for node in self._nodes):
                # What no job holds is not given back: it would never take one again.
                self.restart(f"nothing runs, and {gate.shut}")
            await self._clock.sleep(MEMORY_MS)

    def _pause(self, why: str) -> None:
        if why:
            _LOGGER.warning(
                "taking no more jobs: %s; what has not begun goes back, what runs goes on",
                why,
                extra={"action": "memory_short"},
            )
        else:
            _LOGGER.info("taking jobs again", extra={"action": "memory_back"})
        for node in self._nodes:
            node.pause(paused=bool(why))

    def _tell(self, pool: Pool, event: str, fields: Mapping[str, object]) -> None:
        """Announces what a node says; of the process's drain and end once, and under its name."""
        if event == "stopped":
            self._ended += 1
            if self._ended < len(self._nodes):
                return
        elif event == "draining":
            if self._draining:
                return
            self._draining = True
        if event in _OF_THE_PROCESS and "name" in fields:
            fields = {**fields, "name": str(fields["name"]).removesuffix(f"/{pool.name}")}
        self._announce(event, fields)

    @property
    def lost_slots(self) -> int:
        """How many jobs were given up and still run."""
        now_ms = self._clock.boot_ms()
        return sum(executor.load(now_ms).lost for executor in self._executors)
