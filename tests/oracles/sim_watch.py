"""Everything that happened to a cluster's keys in a simulated etcd, from revision 1 on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from tests.oracles.journal import Change
from tests.oracles.store_keys import KeyReader


class RawChange(Protocol):
    """One key put or deleted, as the simulated etcd tells it."""

    @property
    def revision(self) -> int: ...
    @property
    def put(self) -> bool: ...
    @property
    def key(self) -> bytes: ...
    @property
    def value(self) -> bytes: ...
    @property
    def create_revision(self) -> int: ...


def sim_changes(
    raw: Iterable[RawChange], prefix: str, committed_ms: Mapping[int, float] | None = None
) -> list[Change]:
    """What the changes mean, in the order of revisions.

    Args:
        raw: All of them.
        prefix: What the cluster's keys start with.
        committed_ms: By revision: when it was committed (the loop's time).
    """
    reader = KeyReader(prefix.encode())
    times = committed_ms or {}
    found = [
        reader.read(
            change.revision,
            change.put,
            change.key,
            change.value,
            change.create_revision,
            times.get(change.revision),
        )
        for change in raw
    ]
    return [change for change in found if change is not None]
