"""``tenure batches``: what is done to all jobs that match a filter, and how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import click

from tenure.cli import exits
from tenure.cli.command import Group, Takes, argument, command
from tenure.cli.flags import ids
from tenure.cli.invocation import Invocation
from tenure.cli.job_view import COUNTS
from tenure.cli.output import View
from tenure.protocol.vocabulary import JobState

if TYPE_CHECKING:
    from tenure.client import AsyncClient, Batch, BatchKindName

app = Group(
    "batches",
    help="What is done to all jobs that match a filter: cancel, requeue, purge, boost.",
    no_args_is_help=True,
    examples=[
        ("tenure jobs requeue --filter 'state = FAILED AND queue = mail'", "makes one"),
        ("tenure batches list", "how far all of them are"),
        ("tenure batches cancel ID", "stops one where it is"),
    ],
)

BatchId = Annotated[str, argument(metavar="ID", help="A batch's id.")]


@command(
    "list",
    group=app,
    takes=Takes.OUTPUT | Takes.LIMIT | Takes.WATCH,
    examples=[("tenure batches list --watch", "the newest ones, as they go on")],
)
def list_batches(cli: Invocation) -> int:
    """Lists the batches that are remembered, newest first."""

    async def fetch(client: AsyncClient) -> Sequence[Batch]:
        found = await client.batches.list()
        if not found and cli.watch_s is None:
            cli.hint("there are no batches")
        return found[: cli.limit]

    return cli.answer(fetch, lambda found: cli.show(BATCHES, found))


@command(
    "get",
    group=app,
    takes=Takes.OUTPUT | Takes.WATCH,
    examples=[("tenure batches get ID --watch", "until it is interrupted")],
)
def get(cli: Invocation, batch_id: BatchId) -> int:
    """Shows how far a batch is."""
    return cli.answer(
        lambda client: client.batches.get(batch_id), lambda batch: cli.show(BATCHES, [batch])
    )


@command(
    "cancel",
    group=app,
    takes=Takes.OUTPUT,
    examples=[("tenure batches cancel ID", "what it has done stays done")],
)
def cancel(cli: Invocation, batch_id: BatchId) -> int:
    """Stops a batch where it is. What it has done stays done."""
    return cli.answer(
        lambda client: client.batches.cancel(batch_id), lambda batch: cli.show(BATCHES, [batch])
    )


def wanted(job_ids: Sequence[str], filter_text: str) -> list[str]:
    """The ids that were given; none: it is a filter that says which jobs.

    Raises:
        BadParameter: Both were given, or neither was.
    """
    if filter_text and job_ids:
        raise click.BadParameter("expected ids or --filter, not both")
    if not filter_text and not job_ids:
        raise click.BadParameter("expected ids, - for ids on stdin, or --filter")
    return ids(job_ids) if job_ids else []


def create(
    cli: Invocation,
    kind: BatchKindName,
    filter_text: str,
    *,
    reason: str = "",
    priority: int | None = None,
    delay: timedelta | None = None,
) -> int:
    """Counts the jobs that match, asks, and makes a batch of them; it goes on by itself.

    Raises:
        BadParameter: Nobody can be asked, and --yes was not given.
        Abort: The answer was no.
    """

    async def work(client: AsyncClient) -> int:
        options: dict[str, Any] = {"reason": reason, "priority": priority, "delay": delay}
        found = await client.batches.create(kind, filter_text, dry_run=True, **options)
        if cli.dry_run:
            counts = [(state, found.counts[state]) for state in JobState if state in found.counts]
            cli.show(COUNTS, counts)
            cli.say("dry run: nothing was changed")
            return exits.OK
        jobs = "1 job" if found.matched == 1 else f"{found.matched:,} jobs"
        cli.confirm(f"{kind.capitalize()} {jobs}?", f"it would {kind} {jobs}")
        batch = await client.batches.create(kind, filter_text, **options)
        cli.show(BATCHES, [batch])
        cli.hint(f"it goes on by itself: tenure batches get {batch.id} --watch")
        return exits.OK

    return cli.with_client(work)


def _when(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%SZ")


def _data(batch: Batch) -> dict[str, Any]:
    """The fields of the API's message, of all partitions together."""
    return {
        "batchId": batch.id,
        "kind": f"BATCH_KIND_{batch.kind.name}",
        "filter": batch.filter,
        "state": "" if batch.state is None else f"BATCH_STATE_{batch.state.name}",
        "matched": str(batch.matched),
        "changed": str(batch.changed),
        "refused": str(batch.refused),
        "createdAt": None if batch.created_at is None else batch.created_at.isoformat(),
        "endedAt": None if batch.ended_at is None else batch.ended_at.isoformat(),
    }


BATCHES: Final[View[Batch]] = View(
    ("ID", "KIND", "STATE", "MATCHED", "CHANGED", "REFUSED", "CREATED", "ENDED", "FILTER"),
    row=lambda batch: (
        batch.id,
        batch.kind.name.lower(),
        "" if batch.state is None else batch.state.name,
        batch.matched,
        batch.changed,
        batch.refused,
        _when(batch.created_at),
        _when(batch.ended_at),
        batch.filter,
    ),
    data=_data,
    name=lambda batch: batch.id,
)
