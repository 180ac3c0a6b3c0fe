"""A trace for those who kill masters: which batch was on its way at the end, and what was known.

Set ``TENURE_TRACE`` to a file's path; each append then writes one JSON line before it is sent and
one after it has committed, and each term the hash of its state at its end and, with few jobs, at
its beginning.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from tenure.master.node.port import Clock


class Trace:
    """Writes JSON lines, flushed one by one; does nothing without a path.

    Args:
        path: The file to append to, or None.
        clock: Its boot clock stamps the lines.
    """

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._clock = clock
        self._file: TextIO | None = None
        if path is not None:
            self._file = path.open("a", encoding="utf-8")

    def append_sent(self, partition: int, number: int, last_seq: int) -> None:
        """A batch is about to be sent to the store."""
        if self._file is not None:
            self._write("append_sent", partition, number=number, last_seq=last_seq)

    def append_committed(self, partition: int, number: int, last_seq: int) -> None:
        """A batch has committed; what waited for it has not been released yet."""
        if self._file is not None:
            self._write("append_committed", partition, number=number, last_seq=last_seq)

    def state(self, partition: int, last_seq: int, state_hash: Callable[[], bytes]) -> None:
        """The whole state after an event; it is hashed only if somebody traces."""
        if self._file is not None:
            text = state_hash().hex()
            self._write("state", partition, last_seq=last_seq, hash=text)

    async def last_state(
        self, partition: int, last_seq: int, state_hash: Callable[[], bytes]
    ) -> None:
        """As ``state``, of one that changes no more: a large one is hashed beside the loop."""
        if self._file is not None:
            found = await asyncio.to_thread(state_hash)
            self.state(partition, last_seq, lambda: found)

    def _write(self, event: str, partition: int, **fields: int | str) -> None:
        if self._file is None:
            return
        row = {
            "boot_ms": self._clock.boot_ms(),
            "event": event,
            "partition": partition,
            **fields,
        }
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None
