"""Batches for code that is not async; see ``batches`` for the contracts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenure.client.batches import AsyncBatches, Batch, BatchKindName
    from tenure.client.portal import Portal
    from tenure.client.sync import Client


class Batches:
    """The batches of a cluster: ``client.batches``."""

    def __init__(self, owner: Client, portal: Portal, inner: AsyncBatches) -> None:
        """Used by ``Client``, which stays open for as long as this is kept."""
        self._owner = owner
        self._portal = portal
        self._inner = inner

    def create(
        self,
        kind: BatchKindName,
        filter: str,
        *,
        dry_run: bool = False,
        reason: str = "",
        priority: int | None = None,
        delay: timedelta | None = None,
    ) -> Batch:
        """Counts what matches and begins; returns at once."""
        return self._portal.run(
            self._inner.create(
                kind, filter, dry_run=dry_run, reason=reason, priority=priority, delay=delay
            )
        )

    def get(self, batch_id: str) -> Batch:
        """How far a batch is."""
        return self._portal.run(self._inner.get(batch_id))

    def list(self) -> Sequence[Batch]:
        """The batches that are remembered, newest first."""
        return self._portal.run(self._inner.list())

    def cancel(self, batch_id: str) -> Batch:
        """Stops a batch where it is; what it has done stays done."""
        return self._portal.run(self._inner.cancel(batch_id))

    def wait(self, batch_id: str, *, timeout: float | None = None) -> Batch:
        """Waits until a batch has ended in all partitions."""
        return self._portal.run(self._inner.wait(batch_id, timeout=timeout))
