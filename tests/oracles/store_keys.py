"""Where a cluster's keys lie in etcd, and what a change of one means.

The layout is part of the store's contract: this is written from it, apart from the product's code.
"""

from __future__ import annotations

import json
import re

from tests.oracles.journal import (
    BatchDeleted,
    BatchWritten,
    Change,
    OfficeTaken,
    OfficeVacated,
    SnapshotPublished,
)

_PARTITION_KEY = re.compile(
    rb"/partitions/(\d+)/(office|snapshot|halted|batch/\d+|slice/[^/]+/\d+)"
)


class KeyReader:
    """Turns puts and deletes, in the order of revisions, into what happened to partitions.

    Args:
        prefix: What the cluster's keys start with.

    Attributes:
        halted: The partitions that were ever marked as HALTED.
    """

    def __init__(self, prefix: bytes) -> None:
        self.halted: set[int] = set()
        self._prefix = prefix
        self._epoch = 0

    def read(
        self,
        revision: int,
        put: bool,
        key: bytes,
        value: bytes,
        create_revision: int,
        at_ms: float | None = None,
    ) -> Change | None:
        """What one change means; None if it concerns no checker.

        Args:
            revision: The change's.
            put: Whether the key was put; else it was deleted.
            key: Which.
            value: What was put.
            create_revision: When the key was put first, since it was last deleted.
            at_ms: When it was committed, if the store tells.
        """
        name = key.removeprefix(self._prefix)
        if name == b"/epoch" and put:
            self._epoch = int(value)
        match = _PARTITION_KEY.fullmatch(name)
        if match is None:
            return None
        partition, what = int(match[1]), match[2]
        created = create_revision == revision
        if what == b"office":
            if put and created:
                return OfficeTaken(revision, partition, self._epoch, _holder(value), at_ms)
            return None if put else OfficeVacated(revision, partition, at_ms)
        if what == b"snapshot" and put:
            # The pointer's value is the snapshot's id, a zero byte, its manifest.
            return SnapshotPublished(revision, partition, value.partition(b"\0")[2])
        if what == b"halted" and put:
            self.halted.add(partition)
        elif what.startswith(b"batch/"):
            number = int(what.removeprefix(b"batch/"))
            if not put:
                return BatchDeleted(revision, partition, number)
            return BatchWritten(revision, partition, number, created, value, at_ms)
        return None


def _holder(value: bytes) -> str:
    """The incarnation that an office names; empty if it names none."""
    try:
        named = json.loads(value)
    except ValueError:
        return ""
    return str(named.get("incarnation", "")) if isinstance(named, dict) else ""
