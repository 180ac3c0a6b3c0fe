"""All worker nodes of one process, and how the process ends.

It ends for one of two reasons. Whoever started it has asked (SIGTERM, SIGINT): it drains and exits
with status 0. Or it has had enough: it drains in the same way, and exits with ``EXIT_RESTART``, to
be started again. If both are the case, what was asked for counts, whichever came first.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from tenure.client.parent_result import Results
from tenure.worker.attempt import JobTable, ThreadClock
from tenure.worker.config import WorkerConfig
from tenure.worker.executor.loop import JobLoop, LoopBlocked
from tenure.worker.executor.pool import ExecutorPool
from tenure.worker.executor.process import Recycling
from tenure.worker.exits import EXIT_RESTART
from tenure.worker.port import Executor

_LOGGER: Final = logging.getLogger(__name__)
#: Lost slots that are put up with, unless a setting says otherwise: of the slots, and at least.
LOST_PART: Final = 4
LOST_MIN: Final = 2


class Node(Protocol):
    """A worker node (``runtime.WorkerNode``)."""

    async def run(self) -> None:
        """Works until ``drain`` or ``retire`` has been asked for and is done."""

    def drain(self) -> None:
        """Finish what runs and end; asked a second time: hand back at once."""

    def retire(self) -> None:
        """Finish what runs and end, though nobody has asked for it."""


#: Makes a node of what makes its executor.
MakeNode = Callable[[Callable[[Callable[[], None]], Executor]], Node]


class Crew:
    """The nodes of one process."""

    def __init__(
        self,
        config: WorkerConfig,
        jobs: JobTable,
        *,
        clock: ThreadClock,
        parents: Results | None,
        make_node: MakeNode,
    ) -> None:
        """Starts nothing yet.

        Args:
            config: How to run.
            jobs: The application's jobs.
            clock: Time.
            parents: Where the results of jobs come from that others have as arguments.
            make_node: Makes a node, which dials nothing yet.
        """
        lost_max = config.lost_slots_max
        self._lost_max = max(LOST_MIN, config.slots // LOST_PART) if lost_max is None else lost_max
        self._pools: list[ExecutorPool] = []
        self._asked = False
        self._restarting = False
        job_loop = JobLoop()
        recycling = Recycling(
            jobs=config.recycle_jobs or 0, growth_kib=(config.recycle_bytes or 0) // 1024
        )

        def make_executor(wake: Callable[[], None]) -> Executor:
            pool = ExecutorPool(
                jobs,
                config.app,
                config.slots,
                clock,
                wake,
                parents,
                recycling=recycling,
                job_loop=job_loop,
                on_lost=self._note_lost,
            )
            self._pools.append(pool)
            return pool

        self._nodes = [make_node(make_executor)]

    async def run(self) -> None:
        """Works until the process is to end."""
        async with asyncio.TaskGroup() as tasks:
            for node in self._nodes:
                tasks.create_task(node.run())

    @property
    def status(self) -> int:
        """What the process is to exit with."""
        return EXIT_RESTART if self._restarting and not self._asked else 0

    def drain(self) -> None:
        """Finish what runs and end; asked a second time: hand back at once."""
        self._asked = True
        for node in self._nodes:
            node.drain()

    def restart(self, why: str) -> None:
        """Finish what runs and end, to be started again."""
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
        """A slot was lost: enough is enough."""
        lost = self.lost_slots
        if lost > self._lost_max:
            self.restart(
                f"{lost} jobs were given up and their code still runs, more than "
                f"{self._lost_max} (--lost-slots-max)"
            )

    # What there is to tell of the process.

    @property
    def lost_slots(self) -> int:
        """How many jobs were given up and still run."""
        return sum(pool.lost for pool in self._pools)

    @property
    def loop_blocked(self) -> LoopBlocked | None:
        """What keeps the loop of async jobs from turning at present."""
        return next((pool.loop_blocked for pool in self._pools if pool.loop_blocked), None)
