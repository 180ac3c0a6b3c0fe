"""A partition's state as plain values: what is recorded with a history, and what it is held to.

A later release may add fields to records. What was recorded stays true of the fields that there
were; the hash, which is over all fields, holds for as long as there are no others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from enum import Enum
from typing import Any

import msgspec

from tenure.master.core.config import PartitionConfig
from tenure.master.core.partition import Partition
from tenure.master.core.query import EVERY_JOB
from tenure.master.core.record import JobRecord
from tenure.master.journal.port import Journal, SealedBatch, SnapshotRef
from tenure.master.node.recovery import Replayed, recover
from tenure.protocol.fence import Lease
from tenure.protocol.ids import JobId

ONLY_PARTITION = PartitionConfig(partition=0, partitions=1)


class Dump:
    """The part of the journal port that recovery reads, over batches and a snapshot in memory."""

    def __init__(self, batches: Sequence[bytes], snapshot: SnapshotRef | None = None) -> None:
        self._batches = batches
        self._snapshot = snapshot

    async def load_snapshot(self) -> SnapshotRef | None:
        return self._snapshot

    async def read(self, first: int) -> AsyncIterator[SealedBatch]:
        for number, data in enumerate(self._batches[first:], first):
            yield SealedBatch(number=number, data=data)


async def recovered(journal: Journal | Dump) -> Replayed:
    """What the shipped recovery makes of a journal."""
    return await recover(journal, ONLY_PARTITION)  # type: ignore[arg-type]


def describe(partition: Partition, job_ids: Sequence[str]) -> dict[str, Any]:
    """A partition's state and those jobs of it, as JSON can say it.

    Raises:
        ValueError: The partition has not exactly these jobs.
    """
    present = sum(partition.counts(EVERY_JOB).values())
    if present != len(job_ids):
        raise ValueError(f"expected {len(job_ids)} jobs, but there are {present}")
    jobs = {}
    for job_id in sorted(job_ids):
        record = partition.get(JobId(job_id))
        if not isinstance(record, JobRecord):
            raise ValueError(f"expected a job {job_id}, but there is {record}")
        jobs[job_id] = plain(record)
    return {
        "next_seq": partition.next_seq,
        "stamp_ms": partition.stamp_ms,
        "token": list(partition.token),
        "state_hash": partition.state_hash().hex(),
        "jobs": jobs,
    }


def plain(value: Any) -> Any:
    """A record's value as JSON can say it; structs become objects with the names of fields."""
    match value:
        case Lease(token=token, seq=seq, run=run):
            return [plain(token), seq, run]
        case msgspec.Struct():
            fields = value.__struct_fields__
            return {name: plain(getattr(value, name)) for name in fields}
        case Enum():
            return value.name
        case bytes():
            return value.hex()
        case tuple() | list():
            return [plain(item) for item in value]
        case _:
            return value


def differences(recorded: Any, found: Any, path: str = "") -> list[str]:
    """Where what is found is not what was recorded; names that were not recorded are no matter."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        return [
            line
            for name, value in recorded.items()
            for line in differences(value, found.get(name), f"{path}/{name}")
        ]
    if isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        return [
            line
            for index, pair in enumerate(zip(recorded, found, strict=True))
            for line in differences(*pair, f"{path}/{index}")
        ]
    return [] if recorded == found else [f"{path}: recorded {recorded!r}, found {found!r}"]
