"""Queues, tenants and job types: how they do, and how they are run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, Unpack

from google.protobuf.field_mask_pb2 import FieldMask

from tenure.client.filter import filter_text
from tenure.client.options import check_name
from tenure.client.settings import (
    JobType,
    JobTypeChanges,
    JobTypeSettings,
    Queue,
    QueueChanges,
    Tenant,
    TenantChanges,
    TenantSettings,
    counts_of,
    job_type_changes,
    job_type_settings_of,
    moment_of,
    queue_changes,
    queue_of,
    queue_paths,
    tenant_changes,
    tenant_settings_of,
)
from tenure.protocol.errors import Rejected
from tenure.protocol.limits import DEFAULT_TENANT
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import TERMINAL, BreakerState, JobState
from tenure.v1 import queues_pb2

if TYPE_CHECKING:
    from tenure.client.batches import BatchKindName
    from tenure.client.client import AsyncClient
    from tenure.client.router import Router

T = TypeVar("T")
M = TypeVar("M", queues_pb2.Tenant, queues_pb2.JobType)
#: A page of a list, and an answer to a change.
P = TypeVar(
    "P",
    queues_pb2.ListQueuesResponse,
    queues_pb2.ListTenantsResponse,
    queues_pb2.ListJobTypesResponse,
)
R = TypeVar("R", queues_pb2.UpdateTenantResponse, queues_pb2.UpdateJobTypeResponse)
_Listing: TypeAlias = (
    queues_pb2.ListQueuesRequest | queues_pb2.ListTenantsRequest | queues_pb2.ListJobTypesRequest
)
_Update: TypeAlias = queues_pb2.UpdateTenantRequest | queues_pb2.UpdateJobTypeRequest

_QUEUES: Final = "/tenure.v1.QueueService/"
_TENANTS: Final = "/tenure.v1.TenantService/"
_JOB_TYPES: Final = "/tenure.v1.JobTypeService/"
_PAGE: Final = 1_000
#: How far a breaker is from letting everything through.
_SEVERITY: Final = (BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN)


class AsyncQueues:
    """The queues of a cluster: ``client.queues``."""

    def __init__(self, client: AsyncClient, timeout_s: float) -> None:
        """Used by ``AsyncClient``."""
        self._client = client
        self._timeout_s = timeout_s

    async def get(self, name: str, *, tenant: str = DEFAULT_TENANT) -> Queue:
        """One queue: how it is run, and how it does.

        Args:
            name: Its name.
            tenant: Whose it is.

        Raises:
            Rejected: NOT_FOUND: it has neither jobs nor settings.
        """
        router, home = await self._home(name, tenant)
        response = await router.call(
            home,
            _QUEUES + "GetQueue",
            queues_pb2.GetQueueRequest(tenant=tenant, name=name),
            queues_pb2.GetQueueResponse,
            self._timeout_s,
        )
        return queue_of(response.queue)

    async def list(self, *, tenant: str = "") -> Sequence[Queue]:
        """All queues that have jobs or settings, in order of tenant and name.

        Args:
            tenant: Only this one's; empty: all.
        """
        request = queues_pb2.ListQueuesRequest(tenant=tenant, page_size=_PAGE)
        pages = _pages(
            await self._client.router(),
            _QUEUES + "ListQueues",
            request,
            queues_pb2.ListQueuesResponse,
            self._timeout_s,
        )
        found = [queue_of(queue) async for page in pages for queue in page.queues]
        return sorted(found, key=lambda queue: (queue.tenant, queue.name))

    async def set(
        self, name: str, *, tenant: str = DEFAULT_TENANT, **changes: Unpack[QueueChanges]
    ) -> Queue:
        """Changes how a queue is run; what is not named stays. In force from the next grant on.

        Args:
            name: Its name.
            tenant: Whose it is.
            **changes: Fields of ``QueueSettings``. Of ``key_breaker_overrides`` limit keys that are
                not named stay, too, whoever else changes some at the same time: ``none`` lets go
                of one, and None in place of the mapping of all of them.

        Raises:
            Rejected: A value is out of range; ``field`` names it.
        """
        router, home = await self._home(name, tenant)
        response = await router.call(
            home,
            _QUEUES + "UpdateQueue",
            queues_pb2.UpdateQueueRequest(
                tenant=tenant,
                name=name,
                settings=queue_changes(changes),
                update_mask=FieldMask(paths=queue_paths(changes)),
            ),
            queues_pb2.UpdateQueueResponse,
            self._timeout_s,
        )
        return queue_of(response.queue)

    async def pause(self, name: str, *, tenant: str = DEFAULT_TENANT) -> Queue:
        """Lets nothing of a queue begin; what runs goes on, and what waits keeps its place."""
        return await self.set(name, tenant=tenant, paused=True)

    async def resume(self, name: str, *, tenant: str = DEFAULT_TENANT) -> Queue:
        """Lets the jobs of a paused queue begin again."""
        return await self.set(name, tenant=tenant, paused=False)

    async def purge(self, name: str, *, tenant: str = DEFAULT_TENANT) -> int:
        """Empties a queue: cancels what waits, then forgets what has ended. There is no undo.

        Two batches, one after the other: ``client.batches`` shows them, and each goes on by itself
        if this is given up. What runs goes on, but a job that begins meanwhile is asked to stop.

        Args:
            name: Its name.
            tenant: Whose it is.

        Returns:
            How many jobs were forgotten.
        """
        check_name("name", name)
        check_name("tenant", tenant)
        waiting = [state for state in JobState if state not in {*TERMINAL, JobState.RUNNING}]
        jobs = filter_text("", waiting, name, "", tenant)
        await self._do_all("cancel", jobs, "its queue was purged")
        return await self._do_all("purge", filter_text("", sorted(TERMINAL), name, "", tenant))

    async def _do_all(self, kind: BatchKindName, jobs: str, reason: str = "") -> int:
        """Does one thing to all jobs that match; to how many it was done."""
        batches = self._client.batches
        batch = await batches.create(kind, jobs, reason=reason)
        return (await batches.wait(batch.id)).changed

    async def _home(self, name: str, tenant: str) -> tuple[Router, int]:
        check_name("name", name)
        check_name("tenant", tenant)
        router = await self._client.router()
        return router, router.topology.home(tenant, name)


class AsyncTenants:
    """The tenants of a cluster: ``client.tenants``. Settings are kept in every partition."""

    def __init__(self, client: AsyncClient, timeout_s: float) -> None:
        """Used by ``AsyncClient``."""
        self._client = client
        self._timeout_s = timeout_s

    async def get(self, name: str) -> Tenant:
        """One tenant: how it is run, and how many jobs it has.

        Args:
            name: Its name.

        Raises:
            Rejected: NOT_FOUND: it has neither jobs nor settings.
        """
        check_name("name", name)
        for tenant in await self.list():
            if tenant.name == name:
                return tenant
        raise _not_found("tenant", name)

    async def list(self) -> Sequence[Tenant]:
        """All tenants that have jobs or settings, in order of their names."""
        router = await self._client.router()
        pages = _pages(
            router,
            _TENANTS + "ListTenants",
            queues_pb2.ListTenantsRequest(page_size=_PAGE),
            queues_pb2.ListTenantsResponse,
            self._timeout_s,
        )
        parts: dict[str, list[queues_pb2.Tenant]] = {}
        async for page in pages:
            for tenant in page.tenants:
                parts.setdefault(tenant.name, []).append(tenant)
        return [_tenant_of(parts[name], router.topology.partitions) for name in sorted(parts)]

    async def set(self, name: str, **changes: Unpack[TenantChanges]) -> Tenant:
        """Changes how a tenant is run, in every partition; what is not named stays.

        Args:
            name: Its name.
            **changes: Fields of ``TenantSettings``.

        Raises:
            Rejected: A value is out of range; ``field`` names it.
            Unavailable: Some partition did not answer; others may have the change. Try again.
        """
        check_name("name", name)
        request = queues_pb2.UpdateTenantRequest(
            name=name, settings=tenant_changes(changes), update_mask=FieldMask(paths=changes)
        )
        responses = await _everywhere(
            await self._client.router(),
            _TENANTS + "UpdateTenant",
            request,
            queues_pb2.UpdateTenantResponse,
            self._timeout_s,
        )
        return _tenant_of([response.tenant for response in responses], len(responses))

    async def pause(self, name: str) -> Tenant:
        """Lets nothing of a tenant begin; what runs goes on, and what waits keeps its place."""
        return await self.set(name, paused=True)

    async def resume(self, name: str) -> Tenant:
        """Lets the jobs of a paused tenant begin again."""
        return await self.set(name, paused=False)


class AsyncJobTypes:
    """Job types, a tenant's jobs of one name: ``client.job_types``. Kept in every partition."""

    def __init__(self, client: AsyncClient, timeout_s: float) -> None:
        """Used by ``AsyncClient``."""
        self._client = client
        self._timeout_s = timeout_s

    async def get(self, name: str, *, tenant: str = DEFAULT_TENANT) -> JobType:
        """One job type: how it is run, and how it does.

        Args:
            name: The jobs' name.
            tenant: Whose they are.

        Raises:
            Rejected: NOT_FOUND: it has neither jobs nor settings.
        """
        check_name("name", name)
        for job_type in await self.list(tenant=tenant):
            if job_type.name == name:
                return job_type
        raise _not_found("job type", name)

    async def list(self, *, tenant: str = "") -> Sequence[JobType]:
        """All job types that have jobs or settings, in order of tenant and name.

        Args:
            tenant: Only this one's; empty: all.
        """
        router = await self._client.router()
        pages = _pages(
            router,
            _JOB_TYPES + "ListJobTypes",
            queues_pb2.ListJobTypesRequest(tenant=tenant, page_size=_PAGE),
            queues_pb2.ListJobTypesResponse,
            self._timeout_s,
        )
        parts: dict[tuple[str, str], list[queues_pb2.JobType]] = {}
        async for page in pages:
            for job_type in page.job_types:
                parts.setdefault((job_type.tenant, job_type.name), []).append(job_type)
        return [_job_type_of(parts[name], router.topology.partitions) for name in sorted(parts)]

    async def set(
        self, name: str, *, tenant: str = DEFAULT_TENANT, **changes: Unpack[JobTypeChanges]
    ) -> JobType:
        """Changes how a job type is run, in every partition; what is not named stays.

        Args:
            name: The jobs' name.
            tenant: Whose they are.
            **changes: Fields of ``JobTypeSettings``.

        Raises:
            Rejected: A value is out of range; ``field`` names it.
            Unavailable: Some partition did not answer; others may have the change. Try again.
        """
        check_name("name", name)
        check_name("tenant", tenant)
        request = queues_pb2.UpdateJobTypeRequest(
            tenant=tenant,
            name=name,
            settings=job_type_changes(changes),
            update_mask=FieldMask(paths=changes),
        )
        responses = await _everywhere(
            await self._client.router(),
            _JOB_TYPES + "UpdateJobType",
            request,
            queues_pb2.UpdateJobTypeResponse,
            self._timeout_s,
        )
        return _job_type_of([response.job_type for response in responses], len(responses))

    async def pause(self, name: str, *, tenant: str = DEFAULT_TENANT) -> JobType:
        """Lets none of these jobs begin; what runs goes on, and what waits keeps its place."""
        return await self.set(name, tenant=tenant, paused=True)

    async def resume(self, name: str, *, tenant: str = DEFAULT_TENANT) -> JobType:
        """Lets jobs of a paused type begin again."""
        return await self.set(name, tenant=tenant, paused=False)


async def _pages(
    router: Router, method: str, request: _Listing, kind: type[P], timeout_s: float
) -> AsyncIterator[P]:
    """All pages of a list, of one partition after the other."""
    for partition in range(router.topology.partitions):
        request.partition, request.page_token = partition, ""
        while True:
            page = await router.call(partition, method, request, kind, timeout_s)
            yield page
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token


async def _everywhere(
    router: Router, method: str, request: _Update, kind: type[R], timeout_s: float
) -> list[R]:
    """The answers of all partitions to one change."""
    responses: list[R] = []
    for partition in range(router.topology.partitions):
        request.partition = partition
        responses.append(await router.call(partition, method, request, kind, timeout_s))
    return responses


def _tenant_of(parts: Sequence[queues_pb2.Tenant], partitions: int) -> Tenant:
    settings, everywhere = _agreed(
        [tenant_settings_of(part.settings) for part in parts], TenantSettings(), partitions
    )
    return Tenant(
        name=parts[0].name, settings=settings, counts=_summed(parts), everywhere=everywhere
    )


def _job_type_of(parts: Sequence[queues_pb2.JobType], partitions: int) -> JobType:
    settings, everywhere = _agreed(
        [job_type_settings_of(part.settings) for part in parts], JobTypeSettings(), partitions
    )
    worst = max(parts, key=_severity)
    until = worst.breaker_open_until
    return JobType(
        tenant=worst.tenant,
        name=worst.name,
        settings=settings,
        breaker_state=_SEVERITY[_severity(worst)],
        breaker_open_until=moment_of(until) if worst.HasField("breaker_open_until") else None,
        failure_rate=worst.failure_rate,
        counts=_summed(parts),
        everywhere=everywhere,
    )


def _severity(part: queues_pb2.JobType) -> int:
    known = {state.value: index for index, state in enumerate(_SEVERITY)}
    return known.get(part.breaker_state, 0)


def _agreed(parts: Sequence[T], default: T, partitions: int) -> tuple[T, bool]:
    """The settings, and whether all partitions have them; who says nothing has the defaults."""
    said = [part for part in parts if part != default]
    if not said:
        return default, True
    return said[0], len(said) == partitions and all(part == said[0] for part in said)


def _summed(parts: Sequence[M]) -> dict[JobState, int]:
    totals: dict[JobState, int] = {}
    for part in parts:
        for state, count in counts_of(part.counts).items():
            totals[state] = totals.get(state, 0) + count
    return totals


def _not_found(what: str, name: str) -> Rejected:
    return Rejected(
        f"expected to read {what} {name}, but it has neither jobs nor settings; check the name",
        reason=Reason.NOT_FOUND,
        metadata={"name": name},
        field="name",
    )
