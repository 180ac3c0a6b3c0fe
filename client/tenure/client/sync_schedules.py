"""Schedules for code that is not async; see ``schedule`` for the contracts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

from tenure.client.job import JobDef
from tenure.client.schedule import Cron
from tenure.protocol.limits import DEFAULT_TENANT
from tenure.v1 import schedules_pb2

if TYPE_CHECKING:
    from tenure.client.portal import Portal
    from tenure.client.schedule import AsyncSchedules
    from tenure.client.sync import Client, JobHandle

P = ParamSpec("P")


class Schedules:
    """The schedules of a cluster: ``client.schedules``."""

    def __init__(self, owner: Client, portal: Portal, inner: AsyncSchedules) -> None:
        """Used by ``Client``, which stays open for as long as this is kept."""
        self._owner = owner
        self._portal = portal
        self._inner = inner

    def put(
        self, name: str, when: Cron, job: JobDef[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> schedules_pb2.Schedule:
        """Makes a schedule, or changes the one of this name from its next tick on."""
        return self._portal.run(self._inner.put(name, when, job, *args, **kwargs))

    def create(
        self, name: str, when: Cron, job: JobDef[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> schedules_pb2.Schedule:
        """As ``put``, but never changes one that is there."""
        return self._portal.run(self._inner.create(name, when, job, *args, **kwargs))

    def put_spec(
        self, name: str, spec: schedules_pb2.ScheduleSpec, *, create_only: bool = False
    ) -> schedules_pb2.Schedule:
        """As ``put`` and ``create``, of a spec as the API has it."""
        return self._portal.run(self._inner.put_spec(name, spec, create_only=create_only))

    def get(
        self, name: str, *, tenant: str = DEFAULT_TENANT, upcoming: int = 5
    ) -> schedules_pb2.Schedule:
        """A schedule and its next ticks (at most 100), as things stand."""
        return self._portal.run(self._inner.get(name, tenant=tenant, upcoming=upcoming))

    def list(self, *, tenant: str = "") -> Sequence[schedules_pb2.Schedule]:
        """All schedules, without payloads, in order of tenant and name."""
        return self._portal.run(self._inner.list(tenant=tenant))

    def pause(self, name: str, *, tenant: str = DEFAULT_TENANT) -> schedules_pb2.Schedule:
        """Fires no tick until ``resume``. Its jobs go on."""
        return self._portal.run(self._inner.pause(name, tenant=tenant))

    def resume(self, name: str, *, tenant: str = DEFAULT_TENANT) -> schedules_pb2.Schedule:
        """Goes on with the next tick from now; what was due meanwhile is not made up for."""
        return self._portal.run(self._inner.resume(name, tenant=tenant))

    def trigger(self, name: str, *, tenant: str = DEFAULT_TENANT) -> JobHandle[Any]:
        """Submits the schedule's job now, whatever calendar, pause and overlap policy say."""
        from tenure.client.sync import JobHandle

        handle = self._portal.run(self._inner.trigger(name, tenant=tenant))
        return JobHandle(self._owner, self._portal, handle)

    def delete(self, name: str, *, tenant: str = DEFAULT_TENANT) -> None:
        """Forgets the schedule. Its jobs go on."""
        self._portal.run(self._inner.delete(name, tenant=tenant))
