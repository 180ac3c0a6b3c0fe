"""``tenure workers``: who they are, how they do, what they run, and whether they get work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from tenure.cli import exits
from tenure.cli.command import Group, Takes, argument, command, switch
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
