"""QueueService, TenantService and JobTypeService: how queues, tenants and job types are run."""

from collections.abc import Callable, Sequence
from heapq import nsmallest
from typing import Final, Generic, NamedTuple, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask

from tenure.master.core.command import UpdateSettings
from tenure.master.core.query import Filter
from tenure.master.core.settings import (
    AnySettings,
    SettingsKey,
    SettingsKind,
)
from tenure.master.node.paging import page_size, page_token, place_of
from tenure.master.node.roster import Roster
from tenure.master.node.settings_wire import (
    counts_to_wire,
    job_type_from_wire,
    job_type_to_wire,
    named_by,
    queue_from_wire,
    queue_to_wire,
    tenant_from_wire,
    tenant_to_wire,
)
from tenure.master.node.term import Term
from tenure.master.node.translate import checked_name, stamp, wire_enum
from tenure.protocol import limits
from tenure.protocol.errors import Rejected
from tenure.protocol.ids import home_partition
from tenure.protocol.refusal import Reason
from tenure.v1 import queues_pb2

#: A message of settings, and of what they are of.
S = TypeVar("S")
T = TypeVar("T")

_Listing = (
    queues_pb2.ListQueuesRequest | queues_pb2.ListTenantsRequest | queues_pb2.ListJobTypesRequest
)


class SettingsApi:
    """The three services, without gRPC: messages in, messages out, errors raised.

    Args:
        roster: Finds the term of a partition, or says who leads it.
        argument_schema: What connected workers say that a job takes, by its name.
    """

    def __init__(
        self, *, roster: Roster, argument_schema: Callable[[str], str] = lambda _: ""
    ) -> None:
        self._roster = roster
        self._argument_schema = argument_schema

    # Queues.

    async def get_queue(self, request: queues_pb2.GetQueueRequest) -> queues_pb2.GetQueueResponse:
        """One queue."""
        tenant, name = _queue_key(request.tenant, request.name)
        term = self._roster.term(home_partition(tenant, name, self._roster.partitions))
        found = term.partition.census(SettingsKind.QUEUE, Filter(tenant=tenant, queue=name))
        if not found:
            await term.readable(term.partition.next_seq - 1)
            raise Rejected(
                f"expected to read queue {name} of tenant {tenant}, but it has neither jobs nor "
                "settings; check the name, or give it one of them",
                reason=Reason.NOT_FOUND,
                metadata={"queue": name, "tenant": tenant},
                field="name",
            )
        queue = _queue(term, (tenant, name), found[tenant, name])
        await term.readable(term.partition.next_seq - 1)
        return queues_pb2.GetQueueResponse(queue=queue)

    async def list_queues(
        self, request: queues_pb2.ListQueuesRequest
    ) -> queues_pb2.ListQueuesResponse:
        """A page of one partition's queues, in order of tenant and name."""
        wanted = Filter(tenant=_tenant_asked(request.tenant))
        queues, token = await self._list(request, wanted, _QUEUES)
        return queues_pb2.ListQueuesResponse(queues=queues, next_page_token=token)

    async def update_queue(
        self, request: queues_pb2.UpdateQueueRequest
    ) -> queues_pb2.UpdateQueueResponse:
        """Sets a queue up; returns when that is durable."""
        key = _queue_key(request.tenant, request.name)
        home = home_partition(*key, self._roster.partitions)
        queue = await self._update(home, key, request.update_mask, request.settings, _QUEUES)
        return queues_pb2.UpdateQueueResponse(queue=queue)

    # Tenants.

    async def list_tenants(
        self, request: queues_pb2.ListTenantsRequest
    ) -> queues_pb2.ListTenantsResponse:
        """A page of one partition's tenants, in order of their names."""
        tenants, token = await self._list(request, Filter(), _TENANTS)
        return queues_pb2.ListTenantsResponse(tenants=tenants, next_page_token=token)

    async def update_tenant(
        self, request: queues_pb2.UpdateTenantRequest
    ) -> queues_pb2.UpdateTenantResponse:
        """Sets a tenant up in one partition; returns when that is durable."""
        key = (checked_name(request.name, "name"),)
        tenant = await self._update(
            request.partition, key, request.update_mask, request.settings, _TENANTS
        )
        return queues_pb2.UpdateTenantResponse(tenant=tenant)

    # Job types.

    async def list_job_types(
        self, request: queues_pb2.ListJobTypesRequest
    ) -> queues_pb2.ListJobTypesResponse:
        """A page of one partition's job types, in order of tenant and name."""
        wanted = Filter(tenant=_tenant_asked(request.tenant))
        found, token = await self._list(request, wanted, _JOB_TYPES)
        return queues_pb2.ListJobTypesResponse(job_types=found, next_page_token=token)

    async def get_argument_schema(
        self, request: queues_pb2.GetArgumentSchemaRequest
    ) -> queues_pb2.GetArgumentSchemaResponse:
        """What connected workers say that a job takes: any master knows, as all are connected."""
        name = checked_name(request.name, "name")
        return queues_pb2.GetArgumentSchemaResponse(schema=self._argument_schema(name))

    async def update_job_type(
        self, request: queues_pb2.UpdateJobTypeRequest
    ) -> queues_pb2.UpdateJobTypeResponse:
        """Sets a job type up in one partition; returns when that is durable."""
        key = _queue_key(request.tenant, request.name)
        job_type = await self._update(
            request.partition, key, request.update_mask, request.settings, _JOB_TYPES
        )
        return queues_pb2.UpdateJobTypeResponse(job_type=job_type)

    # What all three have in common.

    async def _update(
        self,
        partition: int,
        key: SettingsKey,
        mask: FieldMask,
        settings: S,
        things: "_Things[S, T]",
    ) -> T:
        """Changes settings; the thing as it is when that is durable."""
        kind = things.kind
        named = named_by(mask, kind.value)
        command = UpdateSettings(
            key=key,
            settings=things.from_wire(settings, named.fields),
            fields=named.fields,
            override_keys=named.override_keys,
        )
        term = self._roster.term(partition)
        await term.ask(command)
        census = term.partition.census(kind, Filter(tenant=key[0]))
        shown = things.show(term, key, census[key])
        await term.readable(term.partition.next_seq - 1)
        return shown

    async def _list(
        self, request: _Listing, wanted: Filter, things: "_Things[S, T]"
    ) -> tuple[list[T], str]:
        """A page, and the token of the next one."""
        kind = things.kind
        size = page_size(request.page_size)
        listed = f"{type(request).__name__}/{request.partition}/{wanted.tenant}"
        parts = 1 if kind is SettingsKind.TENANT else 2
        after = place_of(request.page_token, listed, parts)
        term = self._roster.term(request.partition)
        census = term.partition.census(kind, wanted)
        keys = nsmallest(size + 1, (key for key in census if key > after))
        token = page_token(listed, *keys[size - 1]) if len(keys) > size else ""
        page = [things.show(term, key, census[key]) for key in keys[:size]]
        await term.readable(term.partition.next_seq - 1)
        return page, token


def _queue(term: Term, key: SettingsKey, counts: list[int]) -> queues_pb2.Queue:
    tenant, name = key
    status = term.partition.queue_status(tenant, name, term.clock.now_ms())
    queue = queues_pb2.Queue(
        tenant=tenant,
        name=name,
        partition=term.number,
        settings=queue_to_wire(term.partition.settings.queue(tenant, name)),
        counts=counts_to_wire(counts),
        granted_per_s=status.granted_per_s,
        finished_per_s=status.finished_per_s,
    )
    stamp(queue.oldest_ready_at, status.oldest_ready_ms)
    if status.mean_run_ms:
        queue.mean_run.FromMilliseconds(status.mean_run_ms)
    for limit_key, breaker, open_until_ms, failure_rate in status.key_breakers:
        row = queue.key_breakers.add(
            limit_key=limit_key, state=wire_enum(breaker), failure_rate=failure_rate
        )
        stamp(row.open_until, open_until_ms)
    return queue


def _tenant(term: Term, key: SettingsKey, counts: list[int]) -> queues_pb2.Tenant:
    (name,) = key
    return queues_pb2.Tenant(
        name=name,
        partition=term.number,
        settings=tenant_to_wire(term.partition.settings.tenant(name)),
        counts=counts_to_wire(counts),
    )


def _job_type(term: Term, key: SettingsKey, counts: list[int]) -> queues_pb2.JobType:
    tenant, name = key
    status = term.partition.job_type_status(tenant, name, term.clock.now_ms())
    job_type = queues_pb2.JobType(
        tenant=tenant,
        name=name,
        partition=term.number,
        settings=job_type_to_wire(term.partition.settings.job_type(tenant, name)),
        breaker_state=wire_enum(status.breaker),
        failure_rate=status.failure_rate,
        counts=counts_to_wire(counts),
    )
    stamp(job_type.breaker_open_until, status.open_until_ms)
    return job_type


class _Things(NamedTuple, Generic[S, T]):
    """Queues, tenants or job types."""

    kind: SettingsKind
    #: The settings that a message has, of which these fields were named.
    from_wire: Callable[[S, Sequence[str]], AnySettings]
    #: One of them, with its jobs by state.
    show: Callable[[Term, SettingsKey, list[int]], T]


_QUEUES: Final = _Things(SettingsKind.QUEUE, queue_from_wire, _queue)
_TENANTS: Final = _Things(SettingsKind.TENANT, tenant_from_wire, _tenant)
_JOB_TYPES: Final = _Things(SettingsKind.JOB_TYPE, job_type_from_wire, _job_type)


def _queue_key(tenant: str, name: str) -> tuple[str, str]:
    """The checked names of a tenant and of a queue or a job type of it."""
    return checked_name(tenant or limits.DEFAULT_TENANT, "tenant"), checked_name(name, "name")


def _tenant_asked(tenant: str) -> str:
    return checked_name(tenant, "tenant") if tenant else ""
