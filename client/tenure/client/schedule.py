"""Schedules: jobs by the calendar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeVar
from zoneinfo import ZoneInfo

from google.protobuf.message import Message

from tenure.client.codec import encode_args
from tenure.client.errors import invalid
from tenure.client.handle import AsyncJobHandle
from tenure.client.job import JobDef
from tenure.client.options import check_name
from tenure.client.parent_result import parents_of
from tenure.client.span import check_span
from tenure.protocol import limits
from tenure.protocol.vocabulary import Misfire, Overlap
from tenure.v1 import schedules_pb2

if TYPE_CHECKING:
    from tenure.client.client import AsyncClient

P = ParamSpec("P")
M = TypeVar("M", bound=Message)

MisfireName = Literal["skip", "fire_once", "fire_all"]
OverlapName = Literal["skip", "buffer_one", "allow", "cancel_other"]

_SERVICE: Final = "/tenure.v1.ScheduleService/"
_MISFIRES: Final = {member.name.lower(): member for member in Misfire}
_OVERLAPS: Final = {member.name.lower(): member for member in Overlap}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """When a schedule fires, and what becomes of ticks that do not come at their time.

    Made by ``cron``, which says what the attributes mean.
    """

    expression: str
    tz: str = "UTC"
    misfire: MisfireName = "fire_once"
    catch_up: timedelta = timedelta(milliseconds=limits.CATCH_UP_MS_DEFAULT)
    overlap: OverlapName = "skip"
    jitter: timedelta | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    paused: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        if self.misfire not in _MISFIRES:
            raise invalid("misfire", f"one of {', '.join(_MISFIRES)}, got {self.misfire!r}")
        if self.overlap not in _OVERLAPS:
            raise invalid("overlap", f"one of {', '.join(_OVERLAPS)}, got {self.overlap!r}")
        check_span("catch_up", self.catch_up, limits.DELAY_MS_MAX, least_ms=limits.MISFIRE_MS)
        if self.jitter is not None:
            check_span("jitter", self.jitter, limits.JITTER_MS_MAX, least_ms=0)
        for where, at in (("start_at", self.start_at), ("end_at", self.end_at)):
            if at is not None and (not isinstance(at, datetime) or at.tzinfo is None):
                raise invalid(
                    where, f"a datetime with a time zone (say which, as tzinfo), got {at!r}"
                )

    def to_wire(self) -> schedules_pb2.ScheduleSpec:
        """The spec as a message, without its job."""
        wire = schedules_pb2.ScheduleSpec(
            cron=self.expression,
            time_zone=self.tz,
            misfire=_MISFIRES[self.misfire].value,  # type: ignore[arg-type]
            catch_up_window=self.catch_up,
            overlap=_OVERLAPS[self.overlap].value,  # type: ignore[arg-type]
            paused=self.paused,
            note=self.note,
        )
        if self.jitter is not None:
            wire.jitter.FromTimedelta(self.jitter)
        if self.start_at is not None:
            wire.start_at.FromDatetime(self.start_at)
        if self.end_at is not None:
            wire.end_at.FromDatetime(self.end_at)
        return wire


def cron(
    expression: str,
    tz: str | ZoneInfo = "UTC",
    *,
    misfire: MisfireName = "fire_once",
    catch_up: timedelta = timedelta(hours=1),
    overlap: OverlapName = "skip",
    jitter: timedelta | None = None,
    start_at: datetime | None = None,
    end_at: datetime | None = None,
    paused: bool = False,
    note: str = "",
) -> Cron:
    """Says when a schedule fires.

    Args:
        expression: Five fields (minute, hour, day of month, month, day of week), six (seconds
            first), or ``@hourly``, ``@daily``, ``@weekly``, ``@monthly``, ``@yearly``. The master
            judges it.
        tz: The time zone whose clocks it means, an IANA name or a ``ZoneInfo``.
        misfire: What becomes of ticks that were missed because no master led: ``skip`` leaves them
            out, ``fire_once`` fires the newest, ``fire_all`` each of them.
        catch_up: Ticks that are later do not fire (5 s to 366 days).
        overlap: What becomes of a tick while the job of the one before has not ended: ``skip``
            leaves it out, ``buffer_one`` lets one wait, ``allow`` fires it, ``cancel_other``
            cancels that job, and the newest tick fires when it has ended.
        jitter: Each tick fires up to so much later, always the same for the same tick (at most one
            day, and never later than the next tick).
        start_at: No tick before.
        end_at: No tick after.
        paused: It fires nothing until it is resumed.
        note: Why it is there, for people (at most 1 KiB).

    Raises:
        Rejected: INVALID_ARGUMENT; ``field`` says which.
    """
    return Cron(
        expression=expression,
        tz=str(tz),
        misfire=misfire,
        catch_up=catch_up,
        overlap=overlap,
        jitter=jitter,
        start_at=start_at,
        end_at=end_at,
        paused=paused,
        note=note,
    )


class AsyncSchedules:
    """The schedules of a cluster. Each has a name, its own within its job's tenant."""

    def __init__(self, client: AsyncClient, timeout_s: float) -> None:
        """Used by ``AsyncClient``."""
        self._client = client
        self._timeout_s = timeout_s

    async def put(
        self, name: str, when: Cron, job: JobDef[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> schedules_pb2.Schedule:
        """Makes a schedule, or changes the one of this name from its next tick on.

        Args:
            name: Of the schedule.
            when: See ``cron``.
            job: What to run; ``job.options(…)`` says how. Its tenant is the schedule's. A delay,
                a time, or a key would be the same for each tick, and is refused; so are jobs to
                wait for (``after``, ``result_of``) and callbacks, which no tick could have.
            *args: For the function, of each tick.
            **kwargs: For the function.

        Raises:
            Rejected: INVALID_ARGUMENT: the expression is malformed or never fires, the zone is
                unknown; ``field`` says which.
        """
        spec = await self._spec(when, job, args, kwargs)
        return await self._put(name, spec, job, create_only=False)

    async def create(
        self, name: str, when: Cron, job: JobDef[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> schedules_pb2.Schedule:
        """As ``put``, but never changes one that is there.

        Raises:
            Rejected: SCHEDULE_EXISTS.
        """
        spec = await self._spec(when, job, args, kwargs)
        return await self._put(name, spec, job, create_only=True)

    async def _spec(
        self, when: Cron, job: JobDef[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> schedules_pb2.ScheduleSpec:
        spec = spec_of(when, job, args, kwargs)
        if job.signature.stands_in:
            await self._client.started_core.published.check(job.name, args, kwargs)
        return spec

    async def get(
        self, name: str, *, tenant: str = limits.DEFAULT_TENANT, upcoming: int = 5
    ) -> schedules_pb2.Schedule:
        """A schedule and its next ticks (at most 100), as things stand.

        Raises:
            Rejected: NOT_FOUND.
        """
        request = schedules_pb2.GetScheduleRequest(tenant=tenant, name=name, upcoming=upcoming)
        response = await self._call(
            "GetSchedule",
            tenant,
            name,
            request,
            schedules_pb2.GetScheduleResponse,
        )
        return response.schedule

    async def list(self, *, tenant: str = "") -> Sequence[schedules_pb2.Schedule]:
        """All schedules, without payloads, in order of tenant and name.

        Args:
            tenant: Only this tenant's.
        """
        router = await self._client.router()
        found: list[schedules_pb2.Schedule] = []
        for partition in range(router.topology.partitions):
            request = schedules_pb2.ListSchedulesRequest(partition=partition, tenant=tenant)
            while True:
                page = await router.call(
                    partition,
                    _SERVICE + "ListSchedules",
                    request,
                    schedules_pb2.ListSchedulesResponse,
                    self._timeout_s,
                )
                found += page.schedules
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token
        return sorted(found, key=lambda schedule: (schedule.tenant, schedule.name))

    async def pause(
        self, name: str, *, tenant: str = limits.DEFAULT_TENANT
    ) -> schedules_pb2.Schedule:
        """Fires no tick until ``resume``. Its jobs go on."""
        response = await self._call(
            "PauseSchedule",
            tenant,
            name,
            schedules_pb2.PauseScheduleRequest(tenant=tenant, name=name),
            schedules_pb2.PauseScheduleResponse,
        )
        return response.schedule

    async def resume(
        self, name: str, *, tenant: str = limits.DEFAULT_TENANT
    ) -> schedules_pb2.Schedule:
        """Goes on with the next tick from now; what was due meanwhile is not made up for."""
        response = await self._call(
            "ResumeSchedule",
            tenant,
            name,
            schedules_pb2.ResumeScheduleRequest(tenant=tenant, name=name),
            schedules_pb2.ResumeScheduleResponse,
        )
        return response.schedule

    async def trigger(
        self, name: str, *, tenant: str = limits.DEFAULT_TENANT
    ) -> AsyncJobHandle[Any]:
        """Submits the schedule's job now, whatever calendar, pause and overlap policy say.

        However often the call is sent, it submits one job. If its outcome stays unknown
        (OUTCOME_UNKNOWN) it may have done so.
        """
        schedule = await self.get(name, tenant=tenant, upcoming=1)
        options = schedule.spec.options
        core = await self._client.core()
        home = core.router.topology.home(options.tenant or tenant, options.queue)
        response = await self._call(
            "TriggerSchedule",
            tenant,
            name,
            schedules_pb2.TriggerScheduleRequest(tenant=tenant, name=name, job_id=core.mint(home)),
            schedules_pb2.TriggerScheduleResponse,
        )
        return AsyncJobHandle(self._client, response.job_id, options.name, None)

    async def delete(self, name: str, *, tenant: str = limits.DEFAULT_TENANT) -> None:
        """Forgets the schedule. Its jobs go on.

        Raises:
            Rejected: NOT_FOUND.
        """
        await self._call(
            "DeleteSchedule",
            tenant,
            name,
            schedules_pb2.DeleteScheduleRequest(tenant=tenant, name=name),
            schedules_pb2.DeleteScheduleResponse,
        )

    async def _put(
        self,
        name: str,
        spec: schedules_pb2.ScheduleSpec,
        job: JobDef[..., Any],
        *,
        create_only: bool,
    ) -> schedules_pb2.Schedule:
        """Puts the spec of a job that is at hand; a test's client lets its workers serve it."""
        return await self.put_spec(name, spec, create_only=create_only)

    async def put_spec(
        self, name: str, spec: schedules_pb2.ScheduleSpec, *, create_only: bool = False
    ) -> schedules_pb2.Schedule:
        """As ``put`` and ``create``, of a spec as the API has it."""
        tenant = spec.options.tenant or limits.DEFAULT_TENANT
        response = await self._call(
            "PutSchedule",
            tenant,
            name,
            schedules_pb2.PutScheduleRequest(
                tenant=tenant, name=name, spec=spec, create_only=create_only
            ),
            schedules_pb2.PutScheduleResponse,
        )
        return response.schedule

    async def _call(
        self, method: str, tenant: str, name: str, request: Message, response_type: type[M]
    ) -> M:
        """Asks the leader of a schedule's home."""
        check_name("name", name)
        check_name("tenant", tenant)
        router = await self._client.router()
        home = router.topology.home(tenant, name)
        return await router.call(home, _SERVICE + method, request, response_type, self._timeout_s)


def spec_of(
    when: Cron, job: JobDef[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> schedules_pb2.ScheduleSpec:
    """What a calendar and a call come to, as the API has it."""
    settings = job.settings
    if settings.key:
        raise invalid("job", "without a key: all ticks would be one job")
    if settings.delay is not None or settings.at is not None:
        raise invalid("job", "without delay and at: the calendar says when it is due")
    if settings.after or parents_of(args, kwargs):
        raise invalid("job", "without after and result_of: a tick waits for no other job")
    if job.has_callbacks:
        what = "a tick submits one job; let that job submit what comes after it"
        raise invalid("job", f"without on_success and on_failure: {what}")
    spec = when.to_wire()
    spec.options.CopyFrom(job.wire)
    spec.payload = encode_args(job, args, kwargs)
    if job.has_row_keys:
        ((spec.limit_key, spec.sticky_key),) = job.row_keys(((args, kwargs),))
    return spec
