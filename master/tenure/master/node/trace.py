"""A trace of appends for those who kill masters: which batch was on its way at the end.

Set ``TENURE_TRACE`` to a file's path; each append then writes one JSON line before it is sent and
one after it has committed.
"""

import json
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
            self._write("append_sent", partition, number, last_seq)

    def append_committed(self, partition: int, number: int, last_seq: int) -> None:
        """A batch has committed; what waited for it has not been released yet."""
        if self._file is not None:
            self._write("append_committed", partition, number, last_seq)

    def _write(self, event: str, partition: int, number: int, last_seq: int) -> None:
        if self._file is None:
            return
        row = {
            "boot_ms": self._clock.boot_ms(),
            "event": event,
            "partition": partition,
            "number": number,
            "last_seq": last_seq,
        }
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None
