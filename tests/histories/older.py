"""What a release makes of a journal; run it with that release's modules (``release.Release.path``).

It knows only what each of them has: recovery, over a journal in memory.
"""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tenure.master.core.config import PartitionConfig
from tenure.master.journal.port import SealedBatch, SnapshotRef
from tenure.master.node.recovery import recover
from tenure.protocol.errors import TenureError


class Stored:
    """The part of the journal port that recovery reads.

    Args:
        content: ``batches`` by number and, if there is a snapshot, ``manifest`` and ``slices``.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content

    async def load_snapshot(self) -> SnapshotRef | None:
        if "manifest" not in self._content:
            return None
        slices = [b64decode(text) for text in self._content["slices"]]
        return SnapshotRef(manifest=b64decode(self._content["manifest"]), slices=slices)

    async def read(self, first: int) -> AsyncIterator[SealedBatch]:
        for number, text in self._content["batches"]:
            if number >= first:
                yield SealedBatch(number=number, data=b64decode(text))


async def look(content: dict[str, Any]) -> dict[str, Any]:
    """Its jobs, or the error that the next leader's seat would see."""
    config = PartitionConfig(partition=0, partitions=1)
    try:
        found = await recover(Stored(content), config)  # type: ignore[arg-type]
    except TenureError as error:
        return {"error": type(error).__name__}
    records = found.partition._state.jobs.values()
    return {
        record.job_id: [record.state.name, record.run, record.attempt, record.payload.hex()]
        for record in records
    }


if __name__ == "__main__":
    json.dump(asyncio.run(look(json.loads(Path(sys.argv[1]).read_text("utf-8")))), sys.stdout)
