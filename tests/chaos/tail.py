"""What runs right now, by reading the workers' histories as they grow."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import msgspec

from tests.oracles.history import END, QUIT, START, SUBMIT, Row


def open_submits(directory: Path, process: str) -> int:
    """How many submits a client has begun and not seen the end of, by its history."""
    calls: dict[int, Row] = {}
    decoder = msgspec.json.Decoder(Row)
    for path in directory.glob(f"{process}-*.jsonl"):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                row = decoder.decode(line)
                calls[row.call] = row
    return sum(row.f == SUBMIT and row.type == "invoke" for row in calls.values())


class RunningNow:
    """Follows the histories in a directory.

    Args:
        directory: Where the workers' processes write.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._offsets: dict[Path, int] = {}
        self._running: set[str] = set()
        self._leases: defaultdict[str, set[str]] = defaultdict(set)
        self._decoder = msgspec.json.Decoder(Row)

    def count(self) -> int:
        """Leases that have started and not ended so far (a killed worker's stay counted)."""
        self._look()
        return len(self._running)

    def repeated(self) -> int:
        """Jobs that have started under more than one lease."""
        self._look()
        return sum(len(leases) > 1 for leases in self._leases.values())

    def _look(self) -> None:
        for path in self._directory.glob("worker-*.jsonl"):
            self._read(path)

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
                    self._leases[row.job].add(row.lease)
                elif row.f in (END, QUIT):
                    self._running.discard(row.lease)
