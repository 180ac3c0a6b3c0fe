"""``tenure workers``: who they are, how they do, what they run, and whether they get work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

from tenure.cli import exits
from tenure.cli.command import Group, Takes, argument, command, option, switch
from tenure.cli.invocation import Invocation
from tenure.cli.worker_view import WORKERS, show_one
from tenure.protocol.vocabulary import WorkerState

if TYPE_CHECKING:
    from tenure.client import AsyncClient, Worker

app = Group(
    "workers",
    help="Workers: how they do, what they run, and whether they get work.",
    no_args_is_help=True,
    examples=[
        ("tenure workers list", "every connected worker, and how it does"),
        ("tenure workers get w1", "what it runs, its memory, its jobs"),
        ("tenure workers drain w1 --wait", "no more work for it; until it runs nothing"),
        ("tenure workers undrain w1", "work again"),
        ("tenure workers release w1", "end its quarantine"),
    ],
)

Name = Annotated[str, argument(metavar="WORKER", help="A worker's name, or its incarnation.")]


@command(
    "list",
    group=app,
    takes=Takes.OUTPUT | Takes.LIMIT | Takes.WATCH,
    examples=[
        ("tenure workers list", "every connected worker, and how it does"),
        ("tenure workers list --watch", "the same, as it changes"),
        ("tenure workers list -o name", "their incarnations alone"),
    ],
)
def list_workers(cli: Invocation) -> int:
    """Lists the connected workers, in order of their names."""

    async def fetch(client: AsyncClient) -> Sequence[Worker]:
        found = await client.workers.list()
        if not found and cli.watch_s is None:
            cli.hint("no worker is connected; to start one: tenure worker APP")
        return found[: cli.limit]

    return cli.answer(fetch, lambda found: cli.show(WORKERS, found))


@command(
    "get",
    group=app,
    takes=Takes.OUTPUT | Takes.WATCH,
    examples=[
        ("tenure workers get w1", "what it runs, its memory, its jobs"),
        ("tenure workers get w1 -o json", "the same for programs"),
    ],
)
def get(cli: Invocation, worker: Name) -> int:
    """Shows everything about one worker."""
    return cli.answer(
        lambda client: client.workers.get(worker), lambda found: show_one(found, cli.form)
    )


@command(
    "drain",
    group=app,
    takes=Takes.OUTPUT,
    examples=[
        ("tenure workers drain w1", "what it runs goes on, up to its --drain-timeout"),
        ("tenure workers drain w1 --wait", "the same; returns when it runs nothing"),
    ],
)
def drain(
    cli: Invocation,
    worker: Name,
    wait: Annotated[bool, switch("--wait", help="Until it runs nothing any more.")] = False,
) -> int:
    """Gives a worker no more work, until undrain or its end.

    It stays up. What it runs goes on, up to its --drain-timeout; what is left then is handed back
    to other workers, without an attempt charged.
    """

    async def work(client: AsyncClient) -> Worker:
        found = await client.workers.drain(worker)
        if wait and found.state is not WorkerState.DRAINED:
            cli.hint(f"it holds {found.leases} jobs; an interrupt ends the wait, not the drain")
            found = await client.workers.drain(found.incarnation, wait=True)
        return found

    def show(found: Worker) -> int:
        cli.show(WORKERS, [found])
        cli.hint(f"to let it work again: tenure workers undrain {worker}")
        return exits.OK

    return cli.answer(work, show)


@command(
    "undrain",
    group=app,
    takes=Takes.OUTPUT,
    examples=[("tenure workers undrain w1", "it gets work again at once")],
)
def undrain(cli: Invocation, worker: Name) -> int:
    """Lets a drained worker work again."""
    return cli.answer(
        lambda client: client.workers.undrain(worker), lambda found: cli.show(WORKERS, [found])
    )


@command(
    "quarantine",
    group=app,
    takes=Takes.OUTPUT | Takes.CONFIRM | Takes.DRY_RUN,
    examples=[
        ("tenure workers quarantine w1 --reason 'its disk is full'", "nothing more for it"),
    ],
)
def quarantine(
    cli: Invocation,
    worker: Name,
    reason: Annotated[str, option("--reason", metavar="TEXT", help="For who looks at it.")] = "",
) -> int:
    """Gives a worker nothing more, until release or its end. What it runs goes on.

    Asks if nobody else that works runs some of its jobs: those wait until it is released. Masters
    do the same by themselves to a worker that fails at what others do well; those they try again,
    and never the last one that runs some job.
    """

    async def work(client: AsyncClient) -> int:
        found = await client.workers.get(worker)
        alone = await _only_there(client, found)
        if cli.dry_run:
            cli.show(WORKERS, [found])
            cli.say(f"dry run: nothing was changed; {_who_waits(alone)}")
            return exits.OK
        if alone:
            cli.confirm(f"{_who_waits(alone)}. Go on?", _who_waits(alone))
        cli.show(WORKERS, [await client.workers.quarantine(found.incarnation, reason)])
        cli.hint(f"to let it work again: tenure workers release {worker}")
        return exits.OK

    return cli.with_client(work)


async def _only_there(client: AsyncClient, worker: Worker) -> Sequence[str]:
    """The jobs that a worker runs and nobody else that works."""
    left = set(worker.job_names)
    for each in await client.workers.list():
        if each.incarnation != worker.incarnation and each.state in _WORKING and left:
            left -= set((await client.workers.get(each.incarnation)).job_names)
    return sorted(left)


def _who_waits(alone: Sequence[str]) -> str:
    if not alone:
        return "others run all of its jobs"
    more = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
    return f"nobody else that works runs {', '.join(alone[:3])}{more}: such jobs would wait"


_WORKING: Final = frozenset({WorkerState.ACTIVE, WorkerState.BLOCKED})


@command(
    "release",
    group=app,
    takes=Takes.OUTPUT,
    examples=[("tenure workers release w1", "it gets work again at once")],
)
def release(cli: Invocation, worker: Name) -> int:
    """Ends a worker's quarantine, whoever has begun it."""
    return cli.answer(
        lambda client: client.workers.release(worker), lambda found: cli.show(WORKERS, [found])
    )
