"""ScheduleService: jobs by the calendar, answered by the term of the schedule's home partition."""

from tenure.master.core.command import (
    DeleteSchedule,
    PauseSchedule,
    PutSchedule,
    TriggerSchedule,
)
from tenure.master.core.effect import Reply, SubmitReply
from tenure.master.core.schedule import unknown
from tenure.master.core.timetable import ScheduleName, ScheduleRecord
from tenure.master.node.paging import page_size, page_token, place_of
from tenure.master.node.port import Rng
from tenure.master.node.roster import Roster
from tenure.master.node.schedule_wire import schedule_to_wire, spec_from_wire
from tenure.master.node.term import Term
from tenure.master.node.translate import checked_name, invalid
from tenure.protocol import limits
from tenure.protocol.errors import error_of
from tenure.protocol.ids import JobId, home_partition, is_job_id, mint
from tenure.v1 import schedules_pb2

#: Before all names.
_FIRST: ScheduleName = ("", "")


class ScheduleApi:
    """The service, without gRPC: messages in, messages out, errors raised.

    Args:
        roster: Finds the term of a partition, or says who leads it.
        rng: Mints the ids of triggered jobs.
    """

    def __init__(self, *, roster: Roster, rng: Rng) -> None:
        self._roster = roster
        self._rng = rng

    async def put_schedule(
        self, request: schedules_pb2.PutScheduleRequest
    ) -> schedules_pb2.PutScheduleResponse:
        """Makes or changes a schedule; returns when that is durable."""
        tenant, name = _key(request.tenant, request.name)
        spec = spec_from_wire(request.spec, tenant)
        term = self._term(tenant, name)
        command = PutSchedule(
            tenant=tenant,
            name=name,
            spec=spec,
            paused=request.spec.paused,
            create_only=request.create_only,
        )
        reply = await term.ask(command, size=request.ByteSize())
        return schedules_pb2.PutScheduleResponse(schedule=_told(term, reply))

    async def get_schedule(
        self, request: schedules_pb2.GetScheduleRequest
    ) -> schedules_pb2.GetScheduleResponse:
        """One schedule, with its next ticks."""
        tenant, name = _key(request.tenant, request.name)
        count = request.upcoming or limits.UPCOMING_DEFAULT
        if count > limits.UPCOMING_MAX:
            raise invalid("upcoming", f"{count} is above {limits.UPCOMING_MAX}")
        term = self._term(tenant, name)
        record = term.partition.schedule(tenant, name)
        if record is None:
            await term.readable(term.partition.next_seq - 1)
            raise error_of(unknown(tenant, name, "read"))
        schedule = schedule_to_wire(record, term.number, count)
        await term.readable(record.seq)
        return schedules_pb2.GetScheduleResponse(schedule=schedule)

    async def list_schedules(
        self, request: schedules_pb2.ListSchedulesRequest
    ) -> schedules_pb2.ListSchedulesResponse:
        """A page of one partition's schedules, in order of tenant and name."""
        size = page_size(request.page_size)
        listed = f"{request.partition}/{request.tenant}"
        tenant, name = place_of(request.page_token, listed, parts=2) or ("", "")
        term = self._roster.term(request.partition)
        found = term.partition.schedules(request.tenant, (tenant, name), size + 1)
        response = schedules_pb2.ListSchedulesResponse()
        room = limits.BATCH_BYTES_MAX
        for index, record in enumerate(found):
            if index == size or room <= 0:
                response.next_page_token = page_token(listed, *found[index - 1].key)
                break
            schedule = schedule_to_wire(record, term.number)
            schedule.spec.ClearField("payload")
            room -= schedule.ByteSize()
            response.schedules.append(schedule)
        await term.readable(term.partition.next_seq - 1)
        return response

    async def pause_schedule(
        self, request: schedules_pb2.PauseScheduleRequest
    ) -> schedules_pb2.PauseScheduleResponse:
        """Stops a schedule's ticks."""
        schedule = await self._pause(request.tenant, request.name, paused=True)
        return schedules_pb2.PauseScheduleResponse(schedule=schedule)

    async def resume_schedule(
        self, request: schedules_pb2.ResumeScheduleRequest
    ) -> schedules_pb2.ResumeScheduleResponse:
        """Lets a schedule's ticks go on, from now."""
        schedule = await self._pause(request.tenant, request.name, paused=False)
        return schedules_pb2.ResumeScheduleResponse(schedule=schedule)

    async def trigger_schedule(
        self, request: schedules_pb2.TriggerScheduleRequest
    ) -> schedules_pb2.TriggerScheduleResponse:
        """Submits a schedule's job now; returns when that is durable."""
        if request.job_id and not is_job_id(request.job_id):
            raise invalid("job_id", f"{request.job_id!r} is not a UUIDv7 in canonical form")
        tenant, name = _key(request.tenant, request.name)
        term = self._term(tenant, name)
        record = term.partition.schedule(tenant, name)
        # What is not there is refused by the core, in its turn.
        queue = limits.DEFAULT_QUEUE if record is None else record.spec.policy.queue
        home = home_partition(tenant, queue, self._roster.partitions)
        minted = mint(home, term.clock.now_ms(), self._rng.getrandbits(62))
        job_id = JobId(request.job_id) if request.job_id else minted
        reply = await term.ask(TriggerSchedule(tenant=tenant, name=name, job_id=job_id))
        if not isinstance(reply, SubmitReply):
            raise TypeError(f"expected the reply to a submit, got {type(reply).__name__}")
        return schedules_pb2.TriggerScheduleResponse(job_id=reply.job_ids[0])

    async def delete_schedule(
        self, request: schedules_pb2.DeleteScheduleRequest
    ) -> schedules_pb2.DeleteScheduleResponse:
        """Forgets a schedule."""
        tenant, name = _key(request.tenant, request.name)
        await self._term(tenant, name).ask(DeleteSchedule(tenant=tenant, name=name))
        return schedules_pb2.DeleteScheduleResponse()

    async def _pause(self, tenant: str, name: str, *, paused: bool) -> schedules_pb2.Schedule:
        tenant, name = _key(tenant, name)
        term = self._term(tenant, name)
        reply = await term.ask(PauseSchedule(tenant=tenant, name=name, paused=paused))
        return _told(term, reply)

    def _term(self, tenant: str, name: str) -> Term:
        return self._roster.term(home_partition(tenant, name, self._roster.partitions))


def _told(term: Term, reply: Reply) -> schedules_pb2.Schedule:
    if not isinstance(reply, ScheduleRecord):
        raise TypeError(f"expected a schedule, got {type(reply).__name__}")
    return schedule_to_wire(reply, term.number, limits.UPCOMING_DEFAULT)


def _key(tenant: str, name: str) -> ScheduleName:
    """The checked names of a tenant and of a schedule of it."""
    return checked_name(tenant or limits.DEFAULT_TENANT, "tenant"), checked_name(name, "name")
