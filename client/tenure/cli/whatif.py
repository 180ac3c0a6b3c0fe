"""``tenure whatif``: recorded jobs through the real scheduler, with other workers or settings."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import click

from tenure.cli import exits, terminal
from tenure.cli.command import Takes, command, option, switch
from tenure.cli.invocation import Invocation
from tenure.cli.output import Format, View, print_json, print_json_line
from tenure.cli.texts import parse_pair
from tenure.protocol.vocabulary import JobState

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from tenure.client import AsyncClient
    from tenure.master.whatif.forecast import ClassForecast, Forecast, Waits
    from tenure.master.whatif.trace import Arrival
    from tenure.v1 import jobs_pb2

_BARS: Final = "▁▂▃▄▅▆▇█"
_PLAIN_BARS: Final = "_.-:=+*#"
_ENDED: Final = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


Trace = Annotated[
    str | None,
    option(
        "--trace",
        metavar="FILE",
        help="A job a line, JSON, as docs/how-to/what-if.md says.",
        type=click.Path(exists=True, dir_okay=False),
    ),
]
FromHistory = Annotated[
    bool, switch("--from-history", help="Take the ended jobs that the cluster still knows.")
]
Filter = Annotated[
    str, option("--filter", metavar="EXPR", help="With --from-history: only jobs that match.")
]
Workers = Annotated[
    int,
    option(
        "--workers",
        metavar="N",
        help="How many workers there are.  [default: 1]",
        type=click.IntRange(1, 10_000),
    ),
]
Slots = Annotated[
    int,
    option(
        "--slots",
        metavar="M",
        help="How many jobs each runs at once.  [default: 4]",
        type=click.IntRange(1, 10_000),
    ),
]
Labels = Annotated[
    Sequence[str],
    option("--label", metavar="K=V", help="A label of all workers; repeatable.", multiple=True),
]
QueueConfig = Annotated[
    str | None,
    option(
        "--queue-config",
        metavar="FILE",
        help="Settings of queues, tenants and job types, TOML or JSON.",
        type=click.Path(exists=True, dir_okay=False),
    ),
]
Save = Annotated[
    str | None,
    option(
        "--save",
        metavar="FILE",
        help="With --from-history: write what was taken as a trace.",
        type=click.Path(dir_okay=False),
    ),
]


@command(
    "whatif",
    takes=Takes.OUTPUT,
    examples=[
        ("tenure whatif --trace day.jsonl --workers 4 --slots 8", "a recorded day on 32 slots"),
        ("tenure whatif --from-history --workers 2 --slots 8", "what the cluster has done lately"),
        ("tenure whatif --from-history --workers 2 --save day.jsonl", "and keep it as a trace"),
        ("tenure whatif --trace day.jsonl --queue-config queues.toml", "with these settings"),
    ],
)
def whatif(
    cli: Invocation,
    trace: Trace = None,
    from_history: FromHistory = False,
    filter_text: Filter = "",
    workers: Workers = 1,
    slots: Slots = 4,
    label: Labels = (),
    queue_config: QueueConfig = None,
    save: Save = None,
) -> int:
    """Replays recorded jobs through the real scheduler, on a clock that jumps.

    Shows how long jobs would wait for a slot, by queue and priority, with so many workers and with
    these settings. Without --queue-config, --from-history takes the cluster's settings, and --trace
    the defaults. Nothing of the cluster is changed.
    """
    if (trace is None) is not from_history:
        raise click.BadParameter("expected --trace FILE or --from-history, one of them")
    if trace is not None and (filter_text or save):
        raise click.BadParameter("expected --filter and --save with --from-history only")
    labels = _labels(label)
    with exits.extra("master"):
        from tenure.master.whatif import trace as traces
        from tenure.master.whatif.configuration import read_settings
        from tenure.master.whatif.forecast import forecast
        from tenure.master.whatif.replay import Fleet
    document: object = {}
    if trace is not None:
        arrivals = traces.read(Path(trace).read_bytes().splitlines(), trace)
    else:
        arrivals, document = cli.with_client(lambda client: _history(client, filter_text))
    if queue_config is not None:
        document = _document(Path(queue_config))
    if save is not None:
        Path(save).write_bytes(b"".join(traces.write(arrivals)))
    fleet = Fleet(workers=workers, slots=slots, labels=labels)
    found = forecast(arrivals, fleet, read_settings(document))
    _show(cli, found)
    return exits.OK


def _labels(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    try:
        return tuple(parse_pair(text) for text in given)
    except ValueError as error:
        raise click.BadParameter(f"expected {error}") from None


# ------------------------------------------------------------------------------------ what happened


async def _history(client: AsyncClient, filter_text: str) -> tuple[list[Arrival], object]:
    """The cluster's ended jobs as a trace, and its settings as a document."""
    from tenure.cli.queue_view import JOB_TYPES, QUEUES, TENANTS

    found = []
    async for job in client.list(filter=filter_text, states=_ENDED):
        arrival = _arrival(job)
        if arrival is not None:
            found.append(arrival)
    document = {
        "queues": [QUEUES.data(queue) for queue in await client.queues.list()],
        "tenants": [TENANTS.data(tenant) for tenant in await client.tenants.list()],
        "jobTypes": [JOB_TYPES.data(each) for each in await client.job_types.list()],
    }
    return found, document


def _arrival(job: jobs_pb2.Job) -> Arrival | None:
    """A job of a trace; None: it never ran."""
    from tenure.master.whatif.trace import Arrival

    ran = [each for each in job.attempts if each.HasField("started_at")]
    if not ran:
        return None
    options, submitted_ms = job.options, _ms(job.submitted_at)
    run_ms = sum(max(_ms(each.ended_at) - _ms(each.started_at), 0) for each in ran)
    # When a job was due before its first retry or requeue is not known any more.
    only = ran[0] if len(job.attempts) == 1 and not job.run else None
    due_ms = submitted_ms if only is None else max(_ms(job.ready_at), submitted_ms)
    return Arrival(
        at_ms=submitted_ms,
        run_ms=run_ms,
        queue=options.queue,
        tenant=options.tenant,
        name=options.name,
        priority=options.priority,
        delay_ms=due_ms - submitted_ms,
        limit_key=job.limit_key,
        sticky_key=job.sticky_key,
        requires={each.key: list(each.values) for each in options.requires},
        prefers={each.key: list(each.values) for each in options.prefers},
        wait_ms=None if only is None else max(_ms(only.started_at) - due_ms, 0),
    )


def _ms(stamp: Timestamp) -> int:
    return stamp.ToMilliseconds()


def _document(path: Path) -> object:
    """What a file of settings holds.

    Raises:
        BadParameter: It is neither TOML nor JSON.
    """
    text = path.read_bytes()
    try:
        if path.suffix == ".toml":
            return tomllib.loads(text.decode())
        document: object = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"expected TOML or JSON in {path}, but {error}") from None
    return document


# -------------------------------------------------------------------------------- what would happen


def _row(forecast: ClassForecast) -> list[object]:
    waits = [""] * 5 if forecast.waits is None else [_seconds(ms) for ms in forecast.waits]
    known = forecast.measured
    measured = ["", ""] if known is None else [_seconds(known.p50), _seconds(known.p95)]
    return [
        forecast.queue,
        forecast.tenant,
        forecast.priority,
        forecast.jobs,
        forecast.jobs - forecast.started,
        *waits,
        *measured,
    ]


def _data(forecast: ClassForecast) -> dict[str, Any]:
    return {
        "queue": forecast.queue,
        "tenant": forecast.tenant,
        "priority": forecast.priority,
        "jobs": forecast.jobs,
        "started": forecast.started,
        "refused": forecast.refused,
        "waitsMs": _waits_data(forecast.waits),
        "measuredMs": _waits_data(forecast.measured),
    }


def _waits_data(waits: Waits | None) -> dict[str, int] | None:
    return None if waits is None else waits._asdict()


_COLUMNS: Final = ("QUEUE", "TENANT", "PRIORITY", "JOBS", "UNSTARTED")
_WAITS: Final = ("P50", "P90", "P95", "P99", "MAX")
CLASSES: Final[View[Any]] = View(
    (*_COLUMNS, *_WAITS, "REAL P50", "REAL P95"),
    row=_row,
    data=_data,
    name=lambda forecast: str(forecast.queue),
)
#: Of a trace that does not say how long its jobs waited.
_UNMEASURED: Final[View[Any]] = View(
    (*_COLUMNS, *_WAITS),
    row=lambda forecast: _row(forecast)[:-2],
    data=_data,
    name=CLASSES.name,
)


def _show(cli: Invocation, found: Forecast) -> None:
    match cli.form:
        case Format.JSON:
            print_json(_document_of(found))
        case Format.JSONL:
            print_json_line(_document_of(found))
        case Format.NAME:
            cli.show(CLASSES, found.classes)
        case Format.TABLE:
            measured = any(each.measured for each in found.classes)
            cli.show(CLASSES if measured else _UNMEASURED, found.classes)
            waiting = [jobs for _, jobs in found.backlog]
            print(f"span         {timedelta(milliseconds=found.span_ms)}")
            print(f"utilisation  {found.utilisation:.1%}")
            print(f"backlog      {_bars(waiting)}  at most {max(waiting, default=0)}")


def _document_of(found: Forecast) -> dict[str, Any]:
    return {
        "spanMs": found.span_ms,
        "utilisation": round(found.utilisation, 4),
        "jobs": found.jobs,
        "unstarted": found.unstarted,
        "classes": [_data(each) for each in found.classes],
        "backlog": [{"atMs": at_ms, "jobs": waiting} for at_ms, waiting in found.backlog],
    }


def _bars(counts: Sequence[int]) -> str:
    """How a number moves, a character a point."""
    bars = _BARS if terminal.is_unicode(sys.stdout) else _PLAIN_BARS
    most = max(counts, default=0) or 1
    return "".join(bars[(len(bars) - 1) * count // most] for count in counts)


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.2f}s" if ms < 100_000 else f"{ms / 60_000:.1f}m"
