"""What a SQLite store holds at rest, read by SQL alone after its master has ended."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """One partition as the file has it.

    Attributes:
        first: The number of the first batch that is kept.
        batches: The batches from there on, as they are.
        manifest: The published snapshot's manifest; empty if there is none.
        slices: Its slices, in order.
    """

    first: int
    batches: list[bytes]
    manifest: bytes
    slices: list[bytes]


def read_remains(path: Path, partition: int = 0) -> Remains:
    """Reads a copy: the file and the log beside it stay as the dead master left them."""
    with tempfile.TemporaryDirectory(prefix="tenure-remains-") as folder:
        copy = Path(folder) / path.name
        for suffix in ("", "-wal"):
            source = path.with_name(path.name + suffix)
            if source.exists():
                shutil.copy(source, copy.with_name(copy.name + suffix))
        with closing(sqlite3.connect(copy)) as database:
            batches = database.execute(
                "SELECT number, data FROM batch WHERE partition = ? ORDER BY number", (partition,)
            ).fetchall()
            pointer = database.execute(
                "SELECT snapshot, manifest FROM snapshot WHERE partition = ?", (partition,)
            ).fetchone()
            name, manifest = pointer or ("", b"")
            slices = database.execute(
                "SELECT data FROM slice WHERE partition = ? AND snapshot = ? ORDER BY position",
                (partition, name),
            ).fetchall()
    return Remains(
        first=batches[0][0] if batches else 0,
        batches=[data for _, data in batches],
        manifest=manifest,
        slices=[data for (data,) in slices],
    )
