"""``tenure jobs``: look at jobs, wait for them, stop them, run them again."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenure.cli import exits
from tenure.cli.flags import TIMEOUT_S, Address, Output, Timeout
from tenure.cli.output import (
    Format,
    View,
    message_data,
    print_fields,
    print_json,
    print_json_line,
)
from tenure.cli.session import with_client
from tenure.cli.submit import plain_value, show_value
from tenure.protocol.vocabulary import AttemptOutcome, FailureReason, JobState

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from tenure.client import AsyncClient, JobEvent, JobVerdict
    from tenure.v1 import jobs_pb2

app = typer.Typer(
    help="Look at jobs, wait for them, stop them, run them again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

JobIds = Annotated[list[str], typer.Argument(metavar="ID…", help="Jobs' ids.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id.")]
States = Annotated[
    list[str] | None,
    typer.Option("--state", help="Only jobs in this state; may be given several times."),
]
Queue = Annotated[str, typer.Option(help="Only jobs of this queue.")]
Name = Annotated[str, typer.Option(help="Only jobs of this name.")]
Tenant = Annotated[str, typer.Option(help="Only this tenant's jobs.")]
Filter = Annotated[
    str,
    typer.Option(
        metavar="TEXT", help="Only jobs that match, as in 'attempts > 1 AND labels.region = eu'."
    ),
]


@app.command("list")
def list_jobs(
    state: States = None,
    queue: Queue = "",
    name: Name = "",
    tenant: Tenant = "",
    filter: Filter = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    output: Output = Format.TABLE,
    address: Address = None,
    timeout: Timeout = TIMEOUT_S,
) -> int:
    """Lists jobs, newest first."""
    states = _states(state)

    async def work(client: AsyncClient) -> int:
        found: list[jobs_pb2.Job] = []
        async for job in client.list(
            filter=filter, states=states, queue=queue, name=name, tenant=tenant
        ):
            if len(found) == limit:
                exits.say(f"showing the newest {limit}; there are more: --limit")
                break
            found.append(job)
        _JOBS.show(found, output)
        return exits.OK

    return with_client(address, timeout, work)


@app.command()
def get(
    job_id: JobId,
    output: Output = Format.TABLE,
    address: Address = None,
    timeout: Timeout = TIMEOUT_S,
) -> int:
    """Shows everything about one job."""

    async def work(client: AsyncClient) -> int:
        job = await client.describe(job_id, with_payload=True)
        match output:
            case Format.JSON:
                print_json(message_data(job))
            case Format.JSONL:
                print_json_line(message_data(job))
            case Format.NAME:
                print(job.job_id)
            case Format.TABLE:
                print_fields(_details(job))
        return exits.OK

    return with_client(address, timeout, work)


@app.command()
def wait(
    job_id: JobId,
    wait_timeout: Annotated[
        float | None,
        typer.Option("--wait-timeout", metavar="SECONDS", help="Exit 124 after this."),
    ] = None,
    output: Output = Format.TABLE,
    address: Address = None,
    timeout: Timeout = TIMEOUT_S,
) -> int:
    """Waits until a job has ended and prints its result; exits 1 if it failed."""

    async def work(client: AsyncClient) -> int:
        handle = await client.get(job_id)
        show_value(await handle.result(wait_timeout), output)
        return exits.OK

    return with_client(address, timeout, work)


@app.command()
def cancel(
    job_ids: JobIds,
    reason: Annotated[str, typer.Option(help="For the record.")] = "",
    output: Output = Format.TABLE,
    address: Address = None,
    timeout: Timeout = TIMEOUT_S,
) -> int:
    """Asks jobs to stop. Waiting ones are cancelled at once, running ones at a checkpoint."""
    return _change(output, address, timeout, lambda c: c.cancel(job_ids, reason=reason))


@app.command()
def requeue(
    job_ids: JobIds,
    output: Output = Format.TABLE,
    address: Address = None,
    timeout: Timeout = TIMEOUT_S,
) -> int:
    """Runs failed or cancelled jobs again, with a fresh budget."""
    return _change(output, address, timeout, lambda c: c.requeue(job_ids))


@app.command()
def purge(
    job_ids: JobIds,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: Output = Format.TABLE,
    address: Address = None,
    timeout: Timeout = TIMEOUT_S,
) -> int:
    """Forgets jobs that have ended, with their results."""
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("expected --yes: what is purged cannot be brought back")
        typer.confirm(f"Forget {len(job_ids)} jobs for ever?", abort=True, err=True)
    return _change(output, address, timeout, lambda c: c.purge(job_ids))


@app.command()
def count(
    state: States = None,
    queue: Queue = "",
    name: Name = "",
    tenant: Tenant = "",
    filter: Filter = "",
    output: Output = Format.TABLE,
    address: Address = None,
    timeout: Timeout = TIMEOUT_S,
) -> int:
    """Counts jobs by state."""
    states = _states(state)

    async def work(client: AsyncClient) -> int:
        counts = await client.count(
            filter=filter, states=states, queue=queue, name=name, tenant=tenant
        )
        _COUNTS.show([(s, counts.get(s, 0)) for s in JobState if s in counts], output)
        return exits.OK

    return with_client(address, timeout, work)


@app.command()
def watch(
    state: States = None,
    queue: Queue = "",
    name: Name = "",
    tenant: Tenant = "",
    filter: Filter = "",
    cursor: Annotated[
        str | None, typer.Option(help="Go on after the event that carried it.")
    ] = None,
    output: Output = Format.TABLE,
    address: Address = None,
    timeout: Timeout = TIMEOUT_S,
) -> int:
    """Follows changes of jobs until interrupted."""
    states = _states(state)

    async def work(client: AsyncClient) -> int:
        async for event in client.watch(
            cursor=cursor,
            filter=filter,
            states=states,
            queue=queue,
            name=name,
            tenant=tenant,
        ):
            _show_event(event, output)
        return exits.OK

    return with_client(address, timeout, work)


def _change(
    form: Format,
    address: str | None,
    timeout_s: float,
    call: Callable[[AsyncClient], Awaitable[Sequence[JobVerdict]]],
) -> int:
    """Shows the verdicts; the exit code is the first refusal's."""

    async def work(client: AsyncClient) -> int:
        verdicts = await call(client)
        refused = [verdict.error for verdict in verdicts if verdict.error is not None]
        _VERDICTS.show([verdict for verdict in verdicts if verdict.error is None], form)
        for error in refused:
            exits.explain(error)
        return exits.code_of(refused[0]) if refused else exits.OK

    return with_client(address, timeout_s, work)


def _states(names: list[str] | None) -> list[JobState]:
    states = []
    for name in names or []:
        state = JobState.__members__.get(name.upper())
        if state is None:
            known = ", ".join(member.lower() for member in JobState.__members__)
            raise typer.BadParameter(f"expected a state ({known}), got {name!r}")
        states.append(state)
    return states


def _state(job: jobs_pb2.Job) -> str:
    return JobState(job.state).name if job.state else "UNKNOWN"


def _when(moment: Timestamp) -> str:
    if not moment.ByteSize():
        return ""
    return moment.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def _details(job: jobs_pb2.Job) -> list[tuple[str, object]]:
    options = job.options
    return [
        ("id", job.job_id),
        ("state", _state(job)),
        ("name", options.name),
        ("queue", options.queue),
        ("tenant", options.tenant),
        ("priority", options.priority if options.HasField("priority") else None),
        ("key", job.key),
        ("labels", ", ".join(f"{name}={value}" for name, value in options.labels.items())),
        ("submitted", _when(job.submitted_at)),
        ("ready", _when(job.ready_at)),
        ("finished", _when(job.finished_at)),
        ("run", job.run or None),
        ("progress", f"{job.progress:g} %" if job.progress else None),
        ("arguments", _decoded(job.payload, options.content_type)),
        ("result", _decoded(job.result, job.result_content_type)),
        ("failure", FailureReason(job.failure_reason).name if job.failure_reason else None),
        ("error", f"{job.error.type}: {job.error.message}" if job.error.type else None),
        ("cancel reason", job.cancel_reason),
        ("attempts", "\n".join(map(_attempt, job.attempts))),
        ("traceback", job.error.traceback.rstrip()),
    ]


def _attempt(attempt: jobs_pb2.Attempt) -> str:
    outcome = AttemptOutcome(attempt.outcome).name if attempt.outcome else "RUNNING"
    parts = [f"{attempt.number}", outcome, attempt.worker, _when(attempt.granted_at)]
    if attempt.error.type:
        parts.append(f"{attempt.error.type}: {attempt.error.message}")
    return "  ".join(part for part in parts if part)


def _decoded(data: bytes, content_type: str) -> str:
    import json

    from tenure.client.codec import decode_result
    from tenure.protocol.errors import Rejected

    if not data:
        return ""
    try:
        return json.dumps(plain_value(decode_result(data, content_type, None)), ensure_ascii=False)
    except Rejected:
        return f"{len(data)} bytes of {content_type}"


def _show_event(event: JobEvent, form: Format) -> None:
    when = event.at.strftime("%H:%M:%S.%f")[:-3]
    match form:
        case Format.TABLE:
            print(f"{when}  {event.job_id}  {event.state.name:<9}  {event.name}", flush=True)
        case Format.NAME:
            print(event.job_id, flush=True)
        case Format.JSON | Format.JSONL:
            print_json_line(
                {
                    "jobId": event.job_id,
                    "state": f"JOB_STATE_{event.state.name}",
                    "name": event.name,
                    "queue": event.queue,
                    "changedAt": event.at.isoformat().replace("+00:00", "Z"),
                    "cursor": event.cursor,
                }
            )


def _job_row(job: jobs_pb2.Job) -> Sequence[object]:
    options = job.options
    attempts = job.attempts_charged
    return (job.job_id, _state(job), options.name, options.queue, attempts, _when(job.submitted_at))


def _verdict_data(verdict: JobVerdict) -> dict[str, Any]:
    state = {} if verdict.state is None else {"state": f"JOB_STATE_{verdict.state.name}"}
    return {"jobId": verdict.job_id, **state}


_JOBS: View[jobs_pb2.Job] = View(
    ("ID", "STATE", "NAME", "QUEUE", "FAILURES", "SUBMITTED"),
    row=_job_row,
    data=message_data,
    name=lambda job: job.job_id,
)
_COUNTS: View[tuple[JobState, int]] = View(
    ("STATE", "COUNT"),
    row=lambda pair: (pair[0].name, pair[1]),
    data=lambda pair: {"state": f"JOB_STATE_{pair[0].name}", "count": str(pair[1])},
    name=lambda pair: pair[0].name,
)
_VERDICTS: View[JobVerdict] = View(
    ("ID", "STATE"),
    row=lambda verdict: (verdict.job_id, verdict.state.name if verdict.state else "PURGED"),
    data=_verdict_data,
    name=lambda verdict: verdict.job_id,
)
