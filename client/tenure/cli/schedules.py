"""``tenure schedules``: jobs by the calendar."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import click

from tenure.cli import exits
from tenure.cli.command import Group, Takes, argument, command, option, switch
from tenure.cli.flags import duration
from tenure.cli.invocation import Invocation
from tenure.cli.job_view import decoded, when
from tenure.cli.output import Format, View, message_data, print_fields, print_json, print_json_line
from tenure.cli.submit import given_arguments, show_id
from tenure.protocol.limits import DEFAULT_TENANT
from tenure.protocol.vocabulary import Misfire, Overlap

if TYPE_CHECKING:
    from tenure.client import AsyncClient, AsyncSchedules, Cron
    from tenure.v1 import schedules_pb2

app = Group(
    "schedules",
    help="Jobs by the calendar: cron with time zones.",
    no_args_is_help=True,
    examples=[
        ("tenure schedules put nightly '0 3 * * *' app.jobs.report --tz Europe/Berlin", "at three"),
        ("tenure schedules list", "what there is, and when it is next"),
        ("tenure schedules trigger nightly", "run its job now"),
    ],
)

_MISFIRES: Final = [member.name.lower() for member in Misfire]
_OVERLAPS: Final = [member.name.lower() for member in Overlap]

Name = Annotated[str, argument(metavar="NAME", help="The schedule's name.")]
Tenant = Annotated[
    str, option("--tenant", metavar="TENANT", help="Whose it is.  [default: default]")
]
CronText = Annotated[
    str,
    argument(
        metavar="CRON",
        help="Five fields, six with seconds first, or @hourly, @daily, @weekly, @monthly, @yearly.",
    ),
]
JobName = Annotated[
    str, argument(metavar="JOB", help="The job's name, for example app.jobs.report.")
]
Arguments = Annotated[
    Sequence[str],
    argument(metavar="[ARG…]", help="Arguments, as of tenure submit.", nargs=-1),
]
JsonFile = Annotated[
    str | None,
    option("--json", metavar="FILE|-", help="More arguments, as of tenure submit."),
]
Zone = Annotated[str, option("--tz", metavar="ZONE", help="An IANA time zone.  [default: UTC]")]
MisfirePolicy = Annotated[
    str,
    option(
        "--misfire",
        metavar="POLICY",
        help="For missed ticks: skip, fire_once, fire_all.  [default: fire_once]",
        type=click.Choice(_MISFIRES),
    ),
]
CatchUp = Annotated[
    str,
    option("--catch-up", metavar="DURATION", help="Later ticks do not fire.  [default: 1h]"),
]
OverlapPolicy = Annotated[
    str,
    option(
        "--overlap",
        metavar="POLICY",
        help="While the last job goes on: skip, buffer_one, allow, cancel_other.  [default: skip]",
        type=click.Choice(_OVERLAPS),
    ),
]
JitterSpan = Annotated[
    str | None,
    option("--jitter", metavar="DURATION", help="Each tick fires up to so much later."),
]
StartAt = Annotated[
    str | None, option("--start-at", metavar="TIME", help="No tick before: 2030-01-31T00:00Z.")
]
EndAt = Annotated[str | None, option("--end-at", metavar="TIME", help="No tick after.")]
Queue = Annotated[str | None, option("--queue", metavar="QUEUE", help="The queue of its jobs.")]
Priority = Annotated[
    int | None,
    option("--priority", metavar="N", help="0 (critical) to 10 (low).  [default: 5]", type=int),
]
Note = Annotated[str, option("--note", metavar="TEXT", help="Why it is there.")]
Paused = Annotated[bool, switch("--paused", help="Fires nothing until it is resumed.")]
CreateOnly = Annotated[bool, switch("--create-only", help="Refuse if there is one of this name.")]


@command(
    "list",
    group=app,
    takes=Takes.OUTPUT | Takes.LIMIT | Takes.WATCH,
    examples=[
        ("tenure schedules list", "all of them, by tenant and name"),
        ("tenure schedules list -o json", "the API's own answer"),
    ],
)
def list_schedules(
    cli: Invocation,
    tenant: Annotated[
        str, option("--tenant", metavar="TENANT", help="Only this tenant's schedules.")
    ] = "",
) -> int:
    """Lists schedules, and when each fires next."""

    async def fetch(client: AsyncClient) -> Sequence[schedules_pb2.Schedule]:
        found = await client.schedules.list(tenant=tenant)
        if len(found) > cli.limit:
            cli.say(f"showing the first {cli.limit} of {len(found)}: --limit")
        if not found and cli.watch_s is None:
            cli.hint("there are no schedules")
        return found[: cli.limit]

    return cli.answer(fetch, lambda found: cli.show(SCHEDULES, found))


@command(
    "get",
    group=app,
    takes=Takes.OUTPUT | Takes.WATCH,
    examples=[
        ("tenure schedules get nightly", "its settings, its last job, its next ticks"),
        ("tenure schedules get nightly --next 20", "the next twenty"),
    ],
)
def get(
    cli: Invocation,
    name: Name,
    tenant: Tenant = DEFAULT_TENANT,
    count: Annotated[
        int,
        option(
            "--next",
            metavar="N",
            help="How many of the next ticks.  [default: 5]",
            type=click.IntRange(1, 100),
        ),
    ] = 5,
) -> int:
    """Shows everything about one schedule."""

    async def fetch(client: AsyncClient) -> schedules_pb2.Schedule:
        return await client.schedules.get(name, tenant=tenant, upcoming=count)

    return cli.answer(fetch, lambda found: _show(found, cli.form))


@command(
    "put",
    group=app,
    takes=Takes.OUTPUT | Takes.DRY_RUN,
    examples=[
        ("tenure schedules put nightly '0 3 * * *' app.jobs.report", "every night at three, UTC"),
        ("tenure schedules put poll '*/30 * * * * *' app.jobs.poll --overlap skip", "six fields"),
        ("tenure schedules put tidy @daily app.jobs.tidy --tz Asia/Tokyo --jitter 10m", "a zone"),
    ],
    ignore_unknown_options=True,
)
def put(
    cli: Invocation,
    name: Name,
    cron_text: CronText,
    job: JobName,
    args: Arguments = (),
    json_file: JsonFile = None,
    tz: Zone = "UTC",
    misfire: MisfirePolicy = "fire_once",
    catch_up: CatchUp = "1h",
    overlap: OverlapPolicy = "skip",
    jitter: JitterSpan = None,
    start_at: StartAt = None,
    end_at: EndAt = None,
    queue: Queue = None,
    priority: Priority = None,
    tenant: Tenant = DEFAULT_TENANT,
    note: Note = "",
    paused: Paused = False,
    create_only: CreateOnly = False,
) -> int:
    """Makes a schedule, or changes the one of this name from its next tick on."""
    from tenure.client import cron, named
    from tenure.client.schedule import spec_of

    settings: dict[str, Any] = {"tenant": tenant}
    if queue is not None:
        settings["queue"] = queue
    if priority is not None:
        settings["priority"] = priority
    calendar: Cron = cron(
        cron_text,
        tz,
        misfire=misfire,  # type: ignore[arg-type]
        catch_up=duration(catch_up),
        overlap=overlap,  # type: ignore[arg-type]
        jitter=None if jitter is None else duration(jitter),
        start_at=_moment("--start-at", start_at),
        end_at=_moment("--end-at", end_at),
        paused=paused,
        note=note,
    )
    positional, by_name = given_arguments(args, json_file)
    spec = spec_of(calendar, named(job, **settings), tuple(positional), by_name)
    if cli.dry_run:
        data = message_data(spec)
        (print_json_line if cli.form is Format.JSONL else print_json)(data)
        cli.say("dry run: nothing was changed")
        return exits.OK

    async def work(client: AsyncClient) -> int:
        _show(await client.schedules.put_spec(name, spec, create_only=create_only), cli.form)
        return exits.OK

    return cli.with_client(work)


@command(
    "pause",
    group=app,
    takes=Takes.OUTPUT,
    examples=[("tenure schedules pause nightly", "no tick fires until it is resumed")],
)
def pause(cli: Invocation, name: Name, tenant: Tenant = DEFAULT_TENANT) -> int:
    """Stops a schedule's ticks; its jobs go on."""
    return _change(cli, lambda schedules: schedules.pause(name, tenant=tenant))


@command(
    "resume",
    group=app,
    takes=Takes.OUTPUT,
    examples=[("tenure schedules resume nightly", "go on with the next tick from now")],
)
def resume(cli: Invocation, name: Name, tenant: Tenant = DEFAULT_TENANT) -> int:
    """Lets a paused schedule go on; what was due meanwhile is not made up for."""
    return _change(cli, lambda schedules: schedules.resume(name, tenant=tenant))


@command(
    "trigger",
    group=app,
    takes=Takes.OUTPUT,
    examples=[
        ("tenure schedules trigger nightly", "prints the job's id"),
        ("tenure schedules trigger nightly -o name | tenure jobs wait -", "and waits for it"),
    ],
)
def trigger(cli: Invocation, name: Name, tenant: Tenant = DEFAULT_TENANT) -> int:
    """Submits a schedule's job now, beside its ticks."""

    async def work(client: AsyncClient) -> int:
        handle = await client.schedules.trigger(name, tenant=tenant)
        show_id(handle.id, cli.form)
        cli.hint(f"next: tenure jobs wait {handle.id}")
        return exits.OK

    return cli.with_client(work)


@command(
    "delete",
    group=app,
    takes=Takes.DRY_RUN | Takes.CONFIRM,
    examples=[("tenure schedules delete nightly", "asks first; its jobs go on")],
)
def delete(cli: Invocation, name: Name, tenant: Tenant = DEFAULT_TENANT) -> int:
    """Forgets a schedule. Its jobs go on."""
    if not cli.dry_run:
        cli.confirm(f"Delete schedule {name}?", "it would have to be put again")

    async def work(client: AsyncClient) -> int:
        if cli.dry_run:
            _show(await client.schedules.get(name, tenant=tenant), cli.form)
            cli.say("dry run: nothing was changed")
            return exits.OK
        await client.schedules.delete(name, tenant=tenant)
        cli.say(f"schedule {name} was deleted")
        return exits.OK

    return cli.with_client(work)


def _change(
    cli: Invocation, call: Callable[[AsyncSchedules], Awaitable[schedules_pb2.Schedule]]
) -> int:
    async def work(client: AsyncClient) -> int:
        cli.show(SCHEDULES, [await call(client.schedules)])
        return exits.OK

    return cli.with_client(work)


def _moment(flag: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise click.BadParameter(
            f"expected a time with its zone for {flag}, such as 2030-01-31T00:00Z, got {text!r}"
        )
    return moment


# What is shown.


def _state(schedule: schedules_pb2.Schedule) -> str:
    if schedule.spec.paused:
        return "PAUSED"
    return "ACTIVE" if schedule.upcoming else "OVER"


def _row(schedule: schedules_pb2.Schedule) -> Sequence[object]:
    spec = schedule.spec
    return (
        schedule.name,
        schedule.tenant,
        _state(schedule),
        spec.cron,
        spec.time_zone,
        spec.options.name,
        when(schedule.upcoming[0]) if schedule.upcoming else "",
        when(schedule.last_tick_at),
        schedule.fired,
        schedule.skipped,
    )


SCHEDULES: View[schedules_pb2.Schedule] = View(
    ("NAME", "TENANT", "STATE", "CRON", "ZONE", "JOB", "NEXT", "LAST", "FIRED", "SKIPPED"),
    row=_row,
    data=message_data,
    name=lambda schedule: schedule.name,
)


def _show(schedule: schedules_pb2.Schedule, form: Format) -> None:
    match form:
        case Format.JSON:
            print_json(message_data(schedule))
        case Format.JSONL:
            print_json_line(message_data(schedule))
        case Format.NAME:
            print(schedule.name)
        case Format.TABLE:
            print_fields(_details(schedule))


def _details(schedule: schedules_pb2.Schedule) -> list[tuple[str, object]]:
    spec = schedule.spec
    options = spec.options
    return [
        ("name", schedule.name),
        ("tenant", schedule.tenant),
        ("state", _state(schedule)),
        ("note", spec.note),
        ("cron", spec.cron),
        ("zone", spec.time_zone),
        ("misfire", f"{Misfire(spec.misfire).name}, catch-up {spec.catch_up_window.ToTimedelta()}"),
        ("overlap", Overlap(spec.overlap).name),
        ("jitter", spec.jitter.ToTimedelta() if spec.HasField("jitter") else None),
        ("start", when(spec.start_at)),
        ("end", when(spec.end_at)),
        ("job", options.name),
        ("queue", options.queue),
        ("priority", options.priority if options.HasField("priority") else None),
        ("arguments", decoded(spec.payload, options.content_type)),
        ("created", when(schedule.created_at)),
        ("updated", when(schedule.updated_at)),
        ("last tick", when(schedule.last_tick_at)),
        ("last job", schedule.last_job_id),
        ("fired", schedule.fired),
        ("skipped", schedule.skipped),
        ("next", "\n".join(map(when, schedule.upcoming))),
    ]
