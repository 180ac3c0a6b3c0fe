"""Calendars that mean nothing or never fire, and schedules that are there or are not."""

from __future__ import annotations

from tenure.client import cron, named
from tenure.protocol.refusal import Reason
from tenure.v1 import common_pb2, schedules_pb2
from tests.integration.refusals.row import Call, Facts, Row

#: A schedule that the cluster has.
TAKEN = "taken"
#: Expression, zone, what is wrong with them: its field and its text.
_CALENDARS = {
    "bad cron": ("61 * * * *", "UTC", "spec.cron", ("minute", "61")),
    "too few fields": ("* * *", "UTC", "spec.cron", ("3 fields", "day-of-week")),
    "impossible date": ("0 0 30 2 *", "UTC", "spec.cron", ("0 0 30 2 *", "never fires")),
    "unknown zone": (
        *("@daily", "Europe/Berln", "spec.time_zone"),
        ("Europe/Berln", "did you mean Europe/Berlin"),
    ),
}


def rows(facts: Facts) -> list[Row]:
    """All of them."""
    return [
        *(_calendar(facts, name, *row) for name, row in _CALENDARS.items()),
        Row(
            name="two schedules of one name",
            reason=Reason.SCHEDULE_EXISTS,
            says=(TAKEN, "choose another name"),
            address=facts.address,
            wire=_put(TAKEN, "@daily", "UTC", create_only=True),
            field="name",
            sdk=lambda client: client.schedules.create(TAKEN, cron("@daily"), named("double"), 1),
            cli=("schedules", "put", TAKEN, "@daily", "double", "1", "--create-only"),
            code=6,
        ),
        Row(
            name="unknown schedule",
            reason=Reason.NOT_FOUND,
            says=("weekly", "list the schedules"),
            address=facts.address,
            wire=Call(
                "PauseSchedule",
                schedules_pb2.PauseScheduleRequest(name="weekly"),
                service="ScheduleService",
            ),
            field="name",
            sdk=lambda client: client.schedules.pause("weekly"),
            cli=("schedules", "pause", "weekly"),
            code=3,
        ),
    ]


def _calendar(
    facts: Facts, name: str, expression: str, zone: str, field: str, says: tuple[str, ...]
) -> Row:
    return Row(
        name=name,
        reason=Reason.INVALID_ARGUMENT,
        says=says,
        address=facts.address,
        wire=_put("wrong", expression, zone),
        field=field,
        sdk=lambda client: client.schedules.put(
            "wrong", cron(expression, zone), named("double"), 1
        ),
        cli=("schedules", "put", "wrong", expression, "double", "1", "--tz", zone),
        code=2,
    )


def _put(name: str, expression: str, zone: str, *, create_only: bool = False) -> Call:
    spec = schedules_pb2.ScheduleSpec(
        cron=expression, time_zone=zone, options=common_pb2.JobOptions(name="double")
    )
    request = schedules_pb2.PutScheduleRequest(name=name, spec=spec, create_only=create_only)
    return Call("PutSchedule", request, service="ScheduleService")
