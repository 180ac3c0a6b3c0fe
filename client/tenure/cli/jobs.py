"""``tenure jobs``: look at jobs, wait for them, stop them, run them again."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import click

from tenure.cli import batches, exits, progress
from tenure.cli.command import Group, Takes, argument, command, option, switch
from tenure.cli.explain_view import show_explanation
from tenure.cli.flags import JobId, JobIds, WaitTimeout, duration, ids
from tenure.cli.invocation import Invocation
from tenure.cli.job_view import COUNTS, JOBS, RESULTS, VERDICTS, show_event, show_job, show_line
from tenure.cli.output import Format
from tenure.cli.submit import given_arguments
from tenure.cli.waiting import result_of, wait_for_all
from tenure.protocol.vocabulary import JobState

if TYPE_CHECKING:
    from tenure.client import AsyncClient, Explanation, JobVerdict, LogLine
    from tenure.v1 import jobs_pb2

app = Group(
    "jobs",
    help="Look at jobs, wait for them, stop them, run them again.",
    no_args_is_help=True,
    examples=[
        ("tenure jobs list --state failed", "the newest failures"),
        ("tenure jobs get ID", "everything about one job, with its attempts"),
        ("tenure jobs requeue --filter 'state = FAILED'", "run them all again"),
    ],
)

#: Ids that go into one call, so that a bar moves.
BATCH: Final = 500


def _state_names(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    return [name.lower() for name in JobState.__members__ if name.lower().startswith(incomplete)]


States = Annotated[
    Sequence[str],
    option(
        "--state",
        metavar="STATE",
        help="Only jobs in this state; may be given several times.",
        multiple=True,
        shell_complete=_state_names,
    ),
]
Queue = Annotated[str, option("--queue", metavar="QUEUE", help="Only jobs of this queue.")]
Name = Annotated[str, option("--name", metavar="NAME", help="Only jobs of this name.")]
Tenant = Annotated[str, option("--tenant", metavar="TENANT", help="Only this tenant's jobs.")]
Filter = Annotated[
    str,
    option(
        "--filter",
        metavar="EXPR",
        help="Only jobs that match, such as 'attempts > 1 AND labels.region = eu'.",
    ),
]


SomeIds = Annotated[
    Sequence[str],
    argument(metavar="[ID…]", help="Jobs' ids; - reads them from stdin.", nargs=-1),
]
AllOf = Annotated[
    str,
    option("--filter", metavar="EXPR", help="All jobs that match instead: counted first, asked."),
]


@command(
    "list",
    group=app,
    takes=Takes.OUTPUT | Takes.LIMIT | Takes.WATCH,
    examples=[
        ("tenure jobs list --state failed --queue mail", "failed jobs of a queue"),
        ("tenure jobs list --filter 'attempts > 1' --watch", "jobs in trouble, as it changes"),
        ("tenure jobs list -o jsonl --limit 1000 | jq .jobId", "for programs"),
    ],
)
def list_jobs(
    cli: Invocation,
    state: States = (),
    queue: Queue = "",
    name: Name = "",
    tenant: Tenant = "",
    filter_text: Filter = "",
) -> int:
    """Lists jobs, newest first."""
    states = _states(state)

    async def fetch(client: AsyncClient) -> list[jobs_pb2.Job]:
        found: list[jobs_pb2.Job] = []
        async for job in client.list(
            filter=filter_text, states=states, queue=queue, name=name, tenant=tenant
        ):
            if len(found) == cli.limit:
                cli.say(f"showing the newest {cli.limit}; there are more: --limit")
                break
            found.append(job)
        if not found and cli.watch_s is None:
            cli.hint("no jobs match")
        return found

    return cli.answer(fetch, lambda found: cli.show(JOBS, found))


@command(
    "get",
    group=app,
    takes=Takes.OUTPUT | Takes.WATCH,
    examples=[
        ("tenure jobs get ID", "state, times, arguments, attempts, error"),
        ("tenure jobs get ID -o json", "the API's own answer"),
    ],
)
def get(cli: Invocation, job_id: JobId) -> int:
    """Shows everything about one job."""

    async def fetch(client: AsyncClient) -> tuple[jobs_pb2.Job, str | None]:
        job = await client.describe(job_id, with_payload=True)
        why = await client.cluster.unserved(job) if cli.form is Format.TABLE else None
        return job, why

    return cli.answer(fetch, lambda found: show_job(*found, cli.form))


@command(
    "explain",
    group=app,
    takes=Takes.OUTPUT | Takes.WATCH,
    examples=[
        ("tenure jobs explain ID", "what keeps it, and for how long"),
        ("tenure jobs explain ID --watch", "as it changes"),
    ],
)
def explain(cli: Invocation, job_id: JobId) -> int:
    """Says why a job does not run: its place, all that blocks it, an estimate."""

    async def fetch(client: AsyncClient) -> Explanation:
        return await client.explain(job_id)

    return cli.answer(fetch, lambda found: show_explanation(found, cli.form))


@command(
    "wait",
    group=app,
    takes=Takes.OUTPUT,
    examples=[
        ("tenure jobs wait ID", "print its result when it has ended"),
        ("tenure jobs wait ID --wait-timeout 60", "exit with 124 after a minute"),
        ("tenure jobs list --queue media -o name | tenure jobs wait -", "wait for many"),
    ],
)
def wait(cli: Invocation, job_ids: JobIds, wait_timeout: WaitTimeout = None) -> int:
    """Waits until jobs have ended. Prints the result of one job, or a row for each of several.

    Exits 1 if one has failed or was cancelled.
    """
    wanted = ids(job_ids)

    async def work(client: AsyncClient) -> int:
        if len(wanted) == 1:
            handle = await client.get(wanted[0])
            return await result_of(cli, client, handle, wait_timeout)
        ended = await wait_for_all(cli, client, wanted, wait_timeout)
        cli.show(RESULTS, ended)
        bad = any(int(result.state) != JobState.COMPLETED for result in ended)
        return exits.JOB_FAILED if bad else exits.OK

    return cli.with_client(work)


@command(
    "cancel",
    group=app,
    takes=Takes.OUTPUT | Takes.DRY_RUN | Takes.CONFIRM,
    examples=[
        ("tenure jobs cancel ID --reason 'wrong file'", "stop one job"),
        ("tenure jobs cancel --filter 'queue = media' --dry-run", "how many that would be"),
    ],
)
def cancel(
    cli: Invocation,
    job_ids: SomeIds = (),
    filter_text: AllOf = "",
    reason: Annotated[str, option("--reason", metavar="TEXT", help="For the record.")] = "",
) -> int:
    """Asks jobs to stop. Waiting ones are cancelled at once, running ones at a checkpoint."""
    found = batches.wanted(job_ids, filter_text)
    if not found:
        return batches.create(cli, "cancel", filter_text, reason=reason)
    return _change(cli, found, lambda client, some: client.cancel(some, reason=reason))


@command(
    "requeue",
    group=app,
    takes=Takes.OUTPUT | Takes.DRY_RUN | Takes.CONFIRM,
    examples=[
        ("tenure jobs requeue ID", "run one job again"),
        ("tenure jobs requeue ID --json args.json", "with other arguments than it had"),
        ("tenure jobs requeue --filter 'state = FAILED AND queue = mail'", "all of these"),
    ],
)
def requeue(
    cli: Invocation,
    job_ids: SomeIds = (),
    filter_text: AllOf = "",
    json_file: Annotated[
        str | None,
        option(
            "--json",
            metavar="FILE|-",
            help="Arguments for one job instead of its own: a JSON array by position, or a JSON "
            "object by name.",
        ),
    ] = None,
) -> int:
    """Runs failed or cancelled jobs again, with a fresh budget."""
    found = batches.wanted(job_ids, filter_text)
    if json_file is not None:
        if len(found) != 1:
            raise click.BadParameter("expected one ID with --json")
        args, kwargs = given_arguments((), json_file)
        return _change(cli, found, lambda client, some: _edited(client, some[0], args, kwargs))
    if not found:
        return batches.create(cli, "requeue", filter_text)
    return _change(cli, found, lambda client, some: client.requeue(some))


async def _edited(
    client: AsyncClient, job_id: str, args: list[Any], kwargs: dict[str, Any]
) -> Sequence[JobVerdict]:
    """Runs one job again with other arguments."""
    from tenure.client import named
    from tenure.client.change import requeue_with

    handle = await client.get(job_id)
    return [await requeue_with(client, job_id, named(handle.name).bind(*args, **kwargs))]


@command(
    "purge",
    group=app,
    takes=Takes.OUTPUT | Takes.DRY_RUN | Takes.CONFIRM,
    examples=[
        ("tenure jobs purge ID", "asks first"),
        ("tenure jobs purge --filter 'state = CANCELLED' --yes", "all of these"),
    ],
)
def purge(cli: Invocation, job_ids: SomeIds = (), filter_text: AllOf = "") -> int:
    """Forgets jobs that have ended, with their results."""
    wanted = batches.wanted(job_ids, filter_text)
    if not wanted:
        return batches.create(cli, "purge", filter_text)
    if not cli.dry_run:
        count = "1 job" if len(wanted) == 1 else f"{len(wanted)} jobs"
        cli.confirm(f"Forget {count} for ever?", "what is purged cannot be brought back")
    return _change(cli, wanted, lambda client, some: client.purge(some))


@command(
    "boost",
    group=app,
    takes=Takes.OUTPUT | Takes.DRY_RUN | Takes.CONFIRM,
    examples=[
        ("tenure jobs boost ID --priority 0", "before all others of its queue"),
        ("tenure jobs boost ID --delay 0s", "at once, whatever it waits for"),
        ("tenure jobs boost --filter 'queue = media' --delay 1h", "all of these later"),
    ],
)
def boost(
    cli: Invocation,
    job_ids: SomeIds = (),
    filter_text: AllOf = "",
    priority: Annotated[
        int | None,
        option("--priority", metavar="N", help="0 (critical) to 10 (low).", type=int),
    ] = None,
    delay: Annotated[
        str | None, option("--delay", metavar="DURATION", help="Due so long from now; 0s: at once.")
    ] = None,
) -> int:
    """Gives jobs that wait another priority, or another time at which they are due."""
    if priority is None and delay is None:
        raise click.BadParameter("expected --priority or --delay, or both")
    span = None if delay is None else duration(delay)
    found = batches.wanted(job_ids, filter_text)
    if not found:
        return batches.create(cli, "boost", filter_text, priority=priority, delay=span)
    return _change(
        cli,
        found,
        lambda client, some: client.boost(some, priority=priority, delay=span),
    )


@command(
    "count",
    group=app,
    takes=Takes.OUTPUT | Takes.WATCH,
    examples=[
        ("tenure jobs count", "how many jobs there are in each state"),
        ("tenure jobs count --queue mail --watch", "of one queue, as it changes"),
    ],
)
def count(
    cli: Invocation,
    state: States = (),
    queue: Queue = "",
    name: Name = "",
    tenant: Tenant = "",
    filter_text: Filter = "",
) -> int:
    """Counts jobs by state."""
    states = _states(state)

    async def fetch(client: AsyncClient) -> dict[JobState, int]:
        return await client.count(
            filter=filter_text, states=states, queue=queue, name=name, tenant=tenant
        )

    return cli.answer(
        fetch,
        lambda counts: cli.show(COUNTS, [(s, counts[s]) for s in JobState if s in counts]),
    )


@command(
    "watch",
    group=app,
    takes=Takes.OUTPUT,
    examples=[
        ("tenure jobs watch --state failed", "each failure as it happens"),
        ("tenure jobs watch -o jsonl --cursor 0:1234", "go on where another watch ended"),
    ],
)
def watch(
    cli: Invocation,
    state: States = (),
    queue: Queue = "",
    name: Name = "",
    tenant: Tenant = "",
    filter_text: Filter = "",
    cursor: Annotated[
        str | None,
        option("--cursor", metavar="CURSOR", help="Go on after the event that carried it."),
    ] = None,
) -> int:
    """Follows changes of jobs until interrupted."""
    states = _states(state)

    async def work(client: AsyncClient) -> int:
        async for event in client.watch(
            cursor=cursor,
            filter=filter_text,
            states=states,
            queue=queue,
            name=name,
            tenant=tenant,
        ):
            show_event(event, cli.form)
        return exits.OK

    return cli.with_client(work)


@command(
    "logs",
    group=app,
    takes=Takes.OUTPUT,
    examples=[
        ("tenure jobs logs ID", "what its attempts have logged and printed"),
        ("tenure jobs logs ID -f", "and what they go on to say, until it has ended"),
        ("tenure jobs logs ID --attempt 2 --tail 20", "the end of what its second attempt said"),
    ],
)
def logs(
    cli: Invocation,
    job_id: JobId,
    follow: Annotated[
        bool, switch("--follow", "-f", help="Go on until the job has ended.")
    ] = False,
    attempt: Annotated[
        int | None,
        option(
            "--attempt",
            metavar="N",
            help="Only this attempt of the newest run.",
            type=click.IntRange(1, 2**32 - 1),
        ),
    ] = None,
    tail: Annotated[
        int | None,
        option(
            "--tail",
            metavar="N",
            help="Of what there is by now only the last lines.",
            type=click.IntRange(0),
        ),
    ] = None,
) -> int:
    """Shows what a job's attempts have logged and printed."""

    async def work(client: AsyncClient) -> int:
        handle = await client.get(job_id)
        last, shown = None, 0
        if tail is not None:
            lines: deque[LogLine] = deque(maxlen=tail)
            async for last in handle.logs(attempt=attempt):
                lines.append(last)
            for line in lines:
                show_line(line, cli.form)
            shown = len(lines)
        if tail is None or follow:
            async for line in handle.logs(follow=follow, attempt=attempt, after=last):
                show_line(line, cli.form)
                shown += 1
        if not shown and tail != 0:
            cli.hint("nothing that it has said is known")
        return exits.OK

    return cli.with_client(work)


def _change(
    cli: Invocation,
    job_ids: list[str],
    call: Callable[[AsyncClient, Sequence[str]], Awaitable[Sequence[JobVerdict]]],
) -> int:
    """Changes jobs in batches and shows the verdicts; the exit code is the first refusal's."""

    async def work(client: AsyncClient) -> int:
        if cli.dry_run:
            cli.show(JOBS, [await client.describe(job_id) for job_id in job_ids])
            cli.say("dry run: nothing was changed")
            return exits.OK
        verdicts: list[JobVerdict] = []
        shown = cli.shows_progress and len(job_ids) > BATCH
        with progress.bar("jobs", len(job_ids), shown=shown) as bar:
            for start in range(0, len(job_ids), BATCH):
                verdicts += await call(client, job_ids[start : start + BATCH])
                bar.set(len(verdicts))
        refused = [verdict.error for verdict in verdicts if verdict.error is not None]
        cli.show(VERDICTS, [verdict for verdict in verdicts if verdict.error is None])
        for error in refused:
            exits.explain(error)
        return exits.code_of(refused[0]) if refused else exits.OK

    return cli.with_client(work)


def _states(names: Sequence[str]) -> list[JobState]:
    states = []
    for name in names:
        state = JobState.__members__.get(name.upper())
        if state is None:
            known = ", ".join(member.lower() for member in JobState.__members__)
            raise click.BadParameter(f"expected a state ({known}), got {name!r}")
        states.append(state)
    return states
