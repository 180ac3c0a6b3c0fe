"""How many jobs run right now, by reading the workers' histories as they grow."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.oracles.history import END, START, Row


class RunningNow:
    """Follows the histories in a directory.

    Args:
        directory: Where the workers' processes write.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._offsets: dict[Path, int] = {}
        self._running: set[str] = set()
        self._decoder = msgspec.json.Decoder(Row)

    def count(self) -> int:
        """Leases that have started and not ended so far (a killed worker's stay counted)."""
        for path in self._directory.glob("worker-*.jsonl"):
            self._read(path)
        return len(self._running)

    def _read(self, path: Path) -> None:
        with path.open("rb") as file:
            file.seek(self._offsets.get(path, 0))
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offsets[path] = self._offsets.get(path, 0) + len(line)
                row = self._decoder.decode(line)
                if row.f == START:
                    self._running.add(row.lease)
                elif row.f == END:
                    self._running.discard(row.lease)
