"""Does the batches of one term, slice by slice; the next slice waits for the last one's commit.

It remembers nothing that the partition does not: a successor goes on at the batch's cursor.
"""

import logging
from typing import Final

from tenure.master.core.bulk import BatchRecord
from tenure.master.core.command import AdvanceBatch
from tenure.master.node.port import Clock
from tenure.master.node.selection import select_jobs
from tenure.master.node.term import Term
from tenure.protocol.errors import TenureError
from tenure.protocol.vocabulary import BatchState

_log = logging.getLogger(__name__)

#: A slice keeps the loop for a few milliseconds.
_ROWS: Final = 256
_LOOKS: Final = 4_096
_RETRY_MS: Final = 500


class BatchRunner:
    """Advances what is under way, oldest first.

    Args:
        term: The term; it has begun.
        clock: For pauses between tries.
    """

    def __init__(self, *, term: Term, clock: Clock) -> None:
        self._term = term
        self._clock = clock

    async def run(self) -> None:
        """Works until cancelled."""
        made = self._term.batch_made
        while True:
            made.clear()
            for record in reversed(self._term.partition.batches()):
                if record.state is BatchState.RUNNING:
                    await self._finish(record)
            await made.wait()

    async def _finish(self, record: BatchRecord) -> None:
        """Advances one batch until it has ended, through whatever keeps its leader from it."""
        while record.state is BatchState.RUNNING:
            try:
                await self._advance(record)
            except TenureError as error:
                # Whether the last slice was taken is not known: the next look begins at the cursor.
                _log.info(
                    "A batch has to wait: %s",
                    error,
                    extra={"action": "batch", "partition": self._term.number},
                )
                await self._clock.sleep(_RETRY_MS)

    async def _advance(self, record: BatchRecord) -> None:
        term = self._term
        wanted = select_jobs(record.spec.filter)
        scan = term.partition.scan(wanted, before_ordinal=record.cursor)
        command = AdvanceBatch(
            batch_id=record.batch_id, scan=scan, rows_max=_ROWS, looks_max=_LOOKS
        )
        while isinstance(reply := await term.ask(command), BatchRecord):
            if reply.state is not BatchState.RUNNING:
                return
