"""Queues, tenants and job types for code that is not async; see ``queues`` for the contracts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

from tenure.client.settings import (
    JobType,
    JobTypeChanges,
    Queue,
    QueueChanges,
    Tenant,
    TenantChanges,
)
from tenure.protocol.limits import DEFAULT_TENANT

if TYPE_CHECKING:
    from tenure.client.portal import Portal
    from tenure.client.queues import AsyncJobTypes, AsyncQueues, AsyncTenants
    from tenure.client.sync import Client


class Queues:
    """The queues of a cluster: ``client.queues``."""

    def __init__(self, owner: Client, portal: Portal, inner: AsyncQueues) -> None:
        """Used by ``Client``, which stays open for as long as this is kept."""
        self._owner = owner
        self._portal = portal
        self._inner = inner

    def get(self, name: str, *, tenant: str = DEFAULT_TENANT) -> Queue:
        """One queue: how it is run, and how it does."""
        return self._portal.run(self._inner.get(name, tenant=tenant))

    def list(self, *, tenant: str = "") -> Sequence[Queue]:
        """All queues that have jobs or settings, in order of tenant and name."""
        return self._portal.run(self._inner.list(tenant=tenant))

    def set(
        self, name: str, *, tenant: str = DEFAULT_TENANT, **changes: Unpack[QueueChanges]
    ) -> Queue:
        """Changes how a queue is run; what is not named stays. In force from the next grant on."""
        return self._portal.run(self._inner.set(name, tenant=tenant, **changes))

    def pause(self, name: str, *, tenant: str = DEFAULT_TENANT) -> Queue:
        """Lets nothing of a queue begin; what runs goes on, and what waits keeps its place."""
        return self._portal.run(self._inner.pause(name, tenant=tenant))

    def resume(self, name: str, *, tenant: str = DEFAULT_TENANT) -> Queue:
        """Lets the jobs of a paused queue begin again."""
        return self._portal.run(self._inner.resume(name, tenant=tenant))

    def purge(self, name: str, *, tenant: str = DEFAULT_TENANT) -> int:
        """Empties a queue: cancels what waits, then forgets what has ended. There is no undo."""
        return self._portal.run(self._inner.purge(name, tenant=tenant))


class Tenants:
    """The tenants of a cluster: ``client.tenants``. Settings are kept in every partition."""

    def __init__(self, owner: Client, portal: Portal, inner: AsyncTenants) -> None:
        """Used by ``Client``, which stays open for as long as this is kept."""
        self._owner = owner
        self._portal = portal
        self._inner = inner

    def get(self, name: str) -> Tenant:
        """One tenant: how it is run, and how many jobs it has."""
        return self._portal.run(self._inner.get(name))

    def list(self) -> Sequence[Tenant]:
        """All tenants that have jobs or settings, in order of their names."""
        return self._portal.run(self._inner.list())

    def set(self, name: str, **changes: Unpack[TenantChanges]) -> Tenant:
        """Changes how a tenant is run, in every partition; what is not named stays."""
        return self._portal.run(self._inner.set(name, **changes))

    def pause(self, name: str) -> Tenant:
        """Lets nothing of a tenant begin; what runs goes on, and what waits keeps its place."""
        return self._portal.run(self._inner.pause(name))

    def resume(self, name: str) -> Tenant:
        """Lets the jobs of a paused tenant begin again."""
        return self._portal.run(self._inner.resume(name))


class JobTypes:
    """Job types, a tenant's jobs of one name: ``client.job_types``. Kept in every partition."""

    def __init__(self, owner: Client, portal: Portal, inner: AsyncJobTypes) -> None:
        """Used by ``Client``, which stays open for as long as this is kept."""
        self._owner = owner
        self._portal = portal
        self._inner = inner

    def get(self, name: str, *, tenant: str = DEFAULT_TENANT) -> JobType:
        """One job type: how it is run, and how it does."""
        return self._portal.run(self._inner.get(name, tenant=tenant))

    def list(self, *, tenant: str = "") -> Sequence[JobType]:
        """All job types that have jobs or settings, in order of tenant and name."""
        return self._portal.run(self._inner.list(tenant=tenant))

    def set(
        self, name: str, *, tenant: str = DEFAULT_TENANT, **changes: Unpack[JobTypeChanges]
    ) -> JobType:
        """Changes how a job type is run, in every partition; what is not named stays."""
        return self._portal.run(self._inner.set(name, tenant=tenant, **changes))

    def pause(self, name: str, *, tenant: str = DEFAULT_TENANT) -> JobType:
        """Lets none of these jobs begin; what runs goes on, and what waits keeps its place."""
        return self._portal.run(self._inner.pause(name, tenant=tenant))

    def resume(self, name: str, *, tenant: str = DEFAULT_TENANT) -> JobType:
        """Lets jobs of a paused type begin again."""
        return self._portal.run(self._inner.resume(name, tenant=tenant))
