"""What users do with schedules: short calendars, changed, paused and triggered while they tick."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tenure.client import Reason, Rejected, TenureError, Unavailable, cron
from tenure.client.schedule import Cron
from tenure.testing.clock import WALL_ORIGIN_MS
from tenure.testing.process import elapse
from tests.simulation.load import Visit, script
from tests.simulation.restoring import insist

#: With seconds: runs are short.
_CALENDARS: Final = (
    "* * * * * *",
    "*/2 * * * * *",
    "*/5 * * * * *",
    "*/9 * * * * *",
    "3,4,11,30,31,50 * * * * *",
    "*/3 * 0 1 * *",
    "* * * * *",
)
_ZONES: Final = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")


def _calendar(visit: Visit) -> Cron:
    """When a schedule fires, and what becomes of ticks that cannot."""
    rng = visit.rng
    now = datetime.fromtimestamp(WALL_ORIGIN_MS / 1000 + visit.now_s(), UTC)
    bounds: dict[str, Any] = {}
    if rng.random() < 0.2:
        bounds["start_at"] = now + timedelta(seconds=rng.uniform(-5, 10))
    if rng.random() < 0.2:
        bounds["end_at"] = now + timedelta(seconds=rng.uniform(5, 20))
    return cron(
        rng.choice(_CALENDARS),
        rng.choice(_ZONES),
        misfire=rng.choice(("skip", "fire_once", "fire_all")),
        catch_up=timedelta(seconds=rng.choice((5, 12, 3_600))),
        overlap=rng.choice(("skip", "buffer_one", "allow", "cancel_other")),
        jitter=rng.choice((None, None, timedelta(seconds=1), timedelta(seconds=4))),
        paused=rng.random() < 0.1,
        **bounds,
    )


@script(12, "schedules")
async def keep_calendar(visit: Visit) -> None:
    """A schedule, and what people do to it while it ticks."""
    rng = visit.rng
    # A name says where the schedule lives, its queue where its jobs do: often in two partitions.
    name = f"schedule-{visit.number}"
    options = visit.options()
    job = visit.works.tick.options(**options)
    call = visit.text(), rng.choice((0.0, 0.0, rng.uniform(0, 3), rng.uniform(0, 9)))
    visit.load.changed.scheduled = True
    with visit.load.changed.at_work():
        created = rng.random() < 0.5
        if not await visit.desk.put(name, _calendar(visit), job, *call, create=created):
            return
        for _ in range(rng.randint(1, 5)):
            await elapse(rng.uniform(0, 6))
            await _meddle(visit, name, options["tenant"], job, call)
        await elapse(rng.uniform(0, 6))
        if rng.random() < 0.7:
            await _delete(visit, name, options["tenant"])


async def _meddle(visit: Visit, name: str, tenant: str, job: Any, call: tuple[str, float]) -> None:
    schedules = visit.client.schedules
    try:
        match visit.rng.randrange(6):
            case 0:
                await schedules.pause(name, tenant=tenant)
                await elapse(visit.rng.uniform(0, 6))
                await schedules.resume(name, tenant=tenant)
            case 1:
                await visit.desk.trigger(name, tenant)
            case 2:
                await visit.desk.put(name, _calendar(visit), job, *call)
            case 3:
                await schedules.get(name, tenant=tenant, upcoming=20)
            case 4:
                await schedules.list(tenant=visit.rng.choice(("", tenant)))
            case _:
                await _put_what_is_wrong(visit, name, job, call)
    except TenureError as error:
        if not isinstance(error, Unavailable):
            raise


async def _put_what_is_wrong(visit: Visit, name: str, job: Any, call: tuple[str, float]) -> None:
    """What the master refuses: it is there already, it never fires, there is no such zone."""
    schedules = visit.client.schedules
    wrong = (
        lambda: schedules.create(name, _calendar(visit), job, *call),
        lambda: schedules.put(name, cron("0 0 30 2 *"), job, *call),
        lambda: schedules.put(name, cron("0 0 * *"), job, *call),
        lambda: schedules.put(name, cron("@daily", "Moon/Base"), job, *call),
        lambda: schedules.trigger(f"{name}-nobody"),
    )
    try:
        answer = await visit.rng.choice(wrong)()
    except Rejected:
        return
    raise RuntimeError(f"expected a refusal, but got {answer}")


async def _delete(visit: Visit, name: str, tenant: str) -> None:
    try:
        await insist(lambda: visit.client.schedules.delete(name, tenant=tenant))
    except Rejected as error:
        # An earlier try was heard, though its answer was lost.
        if error.reason is not Reason.NOT_FOUND:
            raise
