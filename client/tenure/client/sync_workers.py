"""Workers for code that is not async; see ``workers`` for the contracts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tenure.client.workers import Worker

if TYPE_CHECKING:
    from tenure.client.portal import Portal
    from tenure.client.sync import Client
    from tenure.client.workers import AsyncWorkers


class Workers:
    """The workers of a cluster: ``client.workers``.

    A worker is named by its incarnation, or by its name if no other connected one has it.
    """

    def __init__(self, owner: Client, portal: Portal, inner: AsyncWorkers) -> None:
        """Used by ``Client``, which stays open for as long as this is kept."""
        self._owner = owner
        self._portal = portal
        self._inner = inner

    def list(self) -> Sequence[Worker]:
        """All connected workers, in order of name and incarnation."""
        return self._portal.run(self._inner.list())

    def get(self, worker: str) -> Worker:
        """One worker, with the names of its jobs and those that it holds."""
        return self._portal.run(self._inner.get(worker))

    def drain(self, worker: str, *, wait: bool = False) -> Worker:
        """Gives a worker no more work, from any master, until ``undrain`` or its end."""
        return self._portal.run(self._inner.drain(worker, wait=wait))

    def undrain(self, worker: str) -> Worker:
        """Lets a drained worker work again."""
        return self._portal.run(self._inner.undrain(worker))

    def quarantine(self, worker: str, reason: str = "") -> Worker:
        """Gives a worker nothing more, from any master, until ``release`` or its end."""
        return self._portal.run(self._inner.quarantine(worker, reason))

    def release(self, worker: str) -> Worker:
        """Ends a worker's quarantine, whoever has begun it."""
        return self._portal.run(self._inner.release(worker))
