"""Raw changes of etcd become what happened to partitions, whoever watched."""

from __future__ import annotations

from typing import NamedTuple

from tests.oracles.journal import (
    BatchDeleted,
    BatchWritten,
    Change,
    OfficeTaken,
    OfficeVacated,
    SnapshotPublished,
)
from tests.oracles.sim_watch import sim_changes
from tests.oracles.store_keys import KeyReader

OFFICE = b"/t/partitions/3/office"
BATCH = b"/t/partitions/3/batch/0012"


class Raw(NamedTuple):
    """What a simulated etcd tells."""

    revision: int
    put: bool
    key: bytes
    value: bytes
    create_revision: int


RAW = [
    Raw(2, True, b"/t/epoch", b"5", 2),
    Raw(3, True, OFFICE, b'{"incarnation": "me"}', 3),
    Raw(4, True, OFFICE, b"", 3),
    Raw(5, True, BATCH, b"data", 5),
    Raw(6, True, BATCH, b"again", 5),
    Raw(7, True, b"/t/partitions/3/snapshot", b"id\0manifest", 7),
    Raw(8, True, b"/t/partitions/3/slice/id/0", b"slice", 8),
    Raw(9, False, BATCH, b"", 5),
    Raw(10, False, OFFICE, b"", 3),
    Raw(11, True, b"/t/members/m", b"", 11),
]
READ: list[Change] = [
    OfficeTaken(3, 3, 5, "me"),
    BatchWritten(5, 3, 12, True, b"data", 50.0),
    BatchWritten(6, 3, 12, False, b"again"),
    SnapshotPublished(7, 3, b"manifest"),
    BatchDeleted(9, 3, 12),
    OfficeVacated(10, 3),
]


def test_changes_are_read() -> None:
    """In the order of revisions, with the times that are known."""
    assert sim_changes(RAW, "/t", {5: 50.0}) == READ


def test_what_is_lost_doubled_or_reordered_is_not_hidden() -> None:
    """The reader only reads: the journal's oracle judges."""
    assert sim_changes(RAW[:3] + RAW[4:], "/t", {5: 50.0}) == [READ[0], *READ[2:]]
    assert len(sim_changes([*RAW[:4], *RAW[3:]], "/t")) == len(READ) + 1
    assert sim_changes(reversed(RAW), "/t")[0] == READ[-1]


def test_halted_partitions_are_kept() -> None:
    """Once marked, ever told; an office may name nobody."""
    reader = KeyReader(b"/t")

    assert reader.read(1, True, b"/t/partitions/7/halted", b"why", 1) is None
    assert reader.read(2, True, OFFICE, b"?", 2) == OfficeTaken(2, 3, 0)
    assert reader.halted == {7}
